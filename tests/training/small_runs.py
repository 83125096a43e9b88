"""Small trainings that many tests look at: noise as images, models of some hundred weights."""

import contextlib
import functools
import itertools
import math
import warnings

import numpy as np
import pytest
import torch
from torch import nn

from ncutils import MLP, UFM, load_images, train_network
from ncutils.training.networks import BasicBlock, ConvNet

INF = math.inf
needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
DIGITS = [60] * 3 + [20] * 3


@functools.cache
def digits():
    return load_images("digits", DIGITS)


def matrix(*axes, thin):
    """All combinations of these names, as parameters; all but the `thin` ones are depth."""
    return [
        pytest.param(*case, marks=() if case in thin else pytest.mark.depth)
        for case in itertools.product(*axes)
    ]


def recording(optimizer, start):
    """The optimizer, that puts a copy of what it starts from in `start`."""

    def make(groups, **options):
        start.extend(p.detach().clone() for group in groups for p in group["params"])
        return optimizer(groups, **options)

    return make


def small_run(ufms, epochs=3, device="cpu", model=None, **more):
    return train_network(
        model or MLP((1, 8, 8), (8,), 8), *digits(), ufms, epochs=epochs, device=device, **more
    )


P1, P2 = (UFM.from_lam_z(DIGITS, l, 0.02) for l in (0.01, 0.02))


def refuse_to_solve(*_, **__):
    raise AssertionError("work was done before the arguments were checked")


RNG = np.random.default_rng(0)
NOISE, KINDS = RNG.random((14, 1, 4, 4)), RNG.permutation(np.repeat([0, 1, 2], [6, 5, 3]))
Q1, Q2 = UFM([6, 5, 3], 0.05, 0.01, 0.05), UFM([6, 5, 3], 0.03, 0.02, 0.01)
Q3 = UFM([6, 5, 3], 0.04, 0.005)
MODELS = {
    "mlp": lambda: MLP((1, 4, 4), (6,), 5),
    "relu": lambda: MLP((1, 4, 4), (6,), 5, "relu"),
    "convnet": lambda: ConvNet((1, 4, 4), (3,), 5),
    "batch norm": lambda: with_dim(BasicBlock(1, 3, 2), nn.Flatten(), nn.Linear(12, 5)),
    "batch norm first": lambda: with_dim(nn.Flatten(), nn.BatchNorm1d(16), nn.Linear(16, 5)),
}


def with_dim(*layers, dim=5):
    model = nn.Sequential(*layers)
    model.dim = dim
    return model


def noise_run(
    model="mlp", ufms=Q1, images=NOISE, labels=KINDS, epochs=6, batch_size=5, device="cpu", **more
):
    """Three batches an epoch, the last one smaller."""
    model = MODELS[model]() if isinstance(model, str) else model
    return train_network(
        model, images, labels, ufms, epochs=epochs, batch_size=batch_size, device=device, **more
    )


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


def stop_at_batch(monkeypatch, number):
    """From now on, the `number`-th batch is interrupted by the keyboard."""
    batches, loss = [], nn.functional.cross_entropy

    def hook(*args, **options):
        batches.append(1)
        if len(batches) == number:
            raise KeyboardInterrupt
        return loss(*args, **options)

    monkeypatch.setattr(nn.functional, "cross_entropy", hook)


def interrupted(number, *args, **options):
    with pytest.MonkeyPatch.context() as patch, pytest.raises(KeyboardInterrupt):
        stop_at_batch(patch, number)
        noise_run(*args, **options)


def read(path):
    return torch.load(path, weights_only=True)


LARGE = UFM([6, 5, 3], 0.05, 1e6, 0.05)
HUGE = UFM([6, 5, 3], 0.05, 1e38, 0.05)  # beyond float32 once summed


def named(trained):
    """The members that have diverged."""
    return [e for e, model in enumerate(trained) if model.diverged]


def quiet(*args, **options):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        return noise_run(*args, **options)


@contextlib.contextmanager
def for_a_while(get, put, value):
    before = get()
    put(value)
    try:
        yield
    finally:
        put(before)


# What may be around a call.
SURROUNDINGS = {
    "float64": lambda: for_a_while(torch.get_default_dtype, torch.set_default_dtype, torch.float64),
    "no grad": torch.no_grad,
    "inference": torch.inference_mode,
    "autocast": lambda: torch.autocast("cpu", torch.bfloat16),
    "device": lambda: torch.device("meta"),
    # autocast casts weights anew each time: what it has cast once cannot outlive the step
    "cache": lambda: for_a_while(
        torch.is_autocast_cache_enabled, torch.set_autocast_cache_enabled, False
    ),
}


def modes():
    return (
        torch.get_default_dtype(),
        torch.get_default_device(),
        torch.is_grad_enabled(),
        torch.is_inference_mode_enabled(),
        torch.is_autocast_enabled("cpu"),
        torch.is_autocast_cache_enabled(),
        torch.get_num_threads(),
        torch.are_deterministic_algorithms_enabled(),
    )


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


BYTES = RNG.integers(0, 256, (14, 3, 4, 4), dtype=np.uint8)
# The problems of a run and their seeds.
MEMBERS = {
    "one": dict(ufms=Q1, seed=3),
    "stack": dict(ufms=[Q1, Q3, Q2], seed=3),
    "own seeds": dict(ufms=[Q1, Q3, Q2], seed=[8, 3, 8]),
}
