"""What many tests of training need: small runs on digits, surroundings, comparisons."""

import contextlib
import functools
import itertools
import math
import warnings

import numpy as np
import pytest
import torch

from ncutils import MLP, UFM, load_images, train_network

INF = math.inf
needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
DIGITS = [60] * 3 + [20] * 3


@functools.cache
def digits():
    return load_images("digits", DIGITS)


def matrix(*axes, thin):
    """All combinations of these names, as parameters; all but the `thin` ones are depth."""
    marks = lambda case: () if case in thin else pytest.mark.depth
    return [pytest.param(*case, marks=marks(case)) for case in itertools.product(*axes)]


def recording(optimizer, start):
    """The optimizer, that puts a copy of what it starts from in `start`."""

    def make(groups, **options):
        start.extend(p.detach().clone() for group in groups for p in group["params"])
        return optimizer(groups, **options)

    return make


def small_run(ufms, epochs=3, device="cpu", model=None, **more):
    model = model or MLP((1, 8, 8), (8,), 8)
    return train_network(model, *digits(), ufms, epochs=epochs, device=device, **more)


P1, P2 = (UFM.from_lam_z(DIGITS, l, 0.02) for l in (0.01, 0.02))


def refuse_to_solve(*_, **__):
    raise AssertionError("work was done before the arguments were checked")


def refuse_to_train(*_, **__):
    raise AssertionError("something was trained")


def parts(model):
    """W (K, d), b (K,), and H (d, N) after and before training."""
    return model.classifier(), model.bias, model.features, model.start


def assert_equal(one, other):
    """Bit for bit, but for time and memory."""
    assert len(one) == len(other) and len(one.history) == len(other.history)
    for model, twin in zip(one, other):
        for part, same in zip(parts(model), parts(twin)):
            assert part.tobytes() == same.tobytes()
        assert model.diverged == twin.diverged
    for row, twin in zip(one.history, other.history):
        assert list(row) == list(twin)
        for name in row.keys() - {"seconds", "peak_mib"}:
            assert np.array_equal(row[name], twin[name], equal_nan=True), name


def read(path):
    return torch.load(path, weights_only=True)


def named(trained):
    """The members that have diverged."""
    return [e for e, model in enumerate(trained) if model.diverged]


@contextlib.contextmanager
def for_a_while(get, put, value):
    before = get()
    put(value)
    try:
        yield
    finally:
        put(before)


# autocast casts weights anew each time: what it has cast once cannot outlive the step
CACHE = torch.is_autocast_cache_enabled, torch.set_autocast_cache_enabled, False

SURROUNDINGS = {  # what may be around a call
    "float64": lambda: for_a_while(torch.get_default_dtype, torch.set_default_dtype, torch.float64),
    "no grad": torch.no_grad,
    "inference": torch.inference_mode,
    "autocast": lambda: torch.autocast("cpu", torch.bfloat16),
    "device": lambda: torch.device("meta"),
    "cache": lambda: for_a_while(*CACHE),
}


def modes():
    kinds = torch.get_default_dtype(), torch.get_default_device()
    grad = torch.is_grad_enabled(), torch.is_inference_mode_enabled()
    autocast = torch.is_autocast_enabled("cpu"), torch.is_autocast_cache_enabled()
    machine = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    return kinds, grad, autocast, machine


@contextlib.contextmanager
def untouched():
    """Random states and modes are left as they are in here, and nothing warns."""
    torch.manual_seed(11), np.random.seed(11)
    state, (_, words, place, *_), before = torch.get_rng_state(), np.random.get_state(), modes()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield
    assert torch.equal(torch.get_rng_state(), state) and modes() == before
    assert (np.random.get_state()[1] == words).all() and np.random.get_state()[2] == place


def frozen(model, *names):
    for name, p in model.named_parameters():
        p.requires_grad_(name not in names)
    return model
