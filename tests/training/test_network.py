"""Training of networks: what it minimises, goes on from, survives and records."""

import contextlib
import math
import os
import pickle
import re
import subprocess
import sys
import threading
import warnings
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from ncutils import MLP, UFM, load_images, solve, train_network
from ncutils.training.checkpoint import STATE, OtherRun, _save
from ncutils.training.free_features import geometric_grid
from ncutils.training.network import Diverged, _peak_mib, uses_bfloat16
from ncutils.training.networks import BasicBlock, ConvNet, ResNet18
from ncutils.training.objective import ufm_objective
from ncutils.training.recipes import RECIPES

INF = math.inf

needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")

# Digits -------------------------------------------------------------------------------------------

DIGITS = [60] * 3 + [20] * 3


@pytest.fixture(scope="module")
def digits():
    return load_images("digits", DIGITS)


@pytest.fixture(scope="module")
def networks(digits):
    """Two linear-feature networks, with and without bias, trained for seconds."""
    problems = [UFM.from_lam_z(DIGITS, 0.01, lam_b, balance=10) for lam_b in (0.02, INF)]
    return train_network(
        MLP((1, 8, 8), (64,), 16),
        *digits,
        problems,
        epochs=100,
        batch_size=32,
        lr=1e-2,
        device="cpu",
    )


def test_networks_come_close_to_the_optimum_from_above(networks):
    assert (networks.gaps > -1e-9).all() and (networks.gaps < 5e-3).all()
    assert all(model.error < 0.1 for model in networks)
    assert (networks.history[-1]["nc1"] < 0.02).all()


def test_the_history_of_networks_is_above_the_optimum_and_falls(networks):
    assert [row["epoch"] for row in networks.history] == geometric_grid(100)
    objectives = np.array([row["objective"] for row in networks.history])
    assert (objectives[-1] < 0.8 * objectives[0]).all()
    assert all((row["gap"] > -1e-9).all() for row in networks.history)
    assert networks.history[-1]["gap"] == pytest.approx(networks.gaps, rel=1e-12)


def test_without_bias_the_bias_is_zero(networks):
    assert networks[0].bias.any() and not networks[1].bias.any()


def test_linear_features_have_both_signs_and_members_different_starts(networks, digits):
    assert networks[0].features.shape == (16, len(digits[1]))
    assert networks[0].features.min() < 0 < networks[0].features.max()
    assert np.abs(networks[0].start - networks[1].start).max() > 0.01
    assert networks[0].start.shape == networks[0].features.shape


@pytest.mark.parametrize("features", ["linear", "relu"])
def test_features_keep_their_kind_and_the_gap_its_sign(digits, features):
    problem = UFM.from_lam_z(DIGITS, 0.01, 0.02, balance=10)
    trained = train_network(
        MLP((1, 8, 8), (32,), 8, features),
        *digits,
        problem,
        epochs=15,
        batch_size=32,
        lr=1e-2,
        device="cpu",
    )
    assert (trained[0].features.min() >= 0) == (features == "relu")
    assert trained[0].exact.features == features and trained.gaps[0] > 0
    assert trained.history[-1]["objective"][0] < trained.history[0]["objective"][0]


def test_the_program_to_compare_with_can_be_chosen(digits):
    """The same network, above both exact optima."""
    model = MLP((1, 8, 8), (8,), 8, "relu")
    own, linear = (small_run(digits, P1, model=model, features=kind) for kind in (None, "linear"))
    assert [run[0].exact.features for run in (own, linear)] == ["relu", "linear"]
    assert (own[0].classifier() == linear[0].classifier()).all() and linear.gaps[0] > own.gaps[
        0
    ] > 0


def test_negative_features_are_not_compared_with_the_optimum_of_nonnegative_ones(digits):
    with pytest.raises(ValueError, match="features = 'relu', but the model gives negative ones"):
        small_run(digits, P1, features="relu")


def test_a_part_of_the_model_may_be_called_features(digits):
    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.features, self.dim = nn.Sequential(nn.Flatten(), nn.Linear(64, 8)), 8

        def forward(self, x):
            return self.features(x)

    assert small_run(digits, P1, model=Model()).exact[0].features == "linear"


def recording(optimizer, start):
    """The optimizer, that puts a copy of what it starts from in `start`."""

    def make(groups, **options):
        start.extend(p.detach().clone() for group in groups for p in group["params"])
        return optimizer(groups, **options)

    return make


@pytest.mark.parametrize("recipe", ["fast", "authors"])
@pytest.mark.parametrize("warm_start, decay", [(True, 0.0), (False, 0.0), (True, 0.1)])
@pytest.mark.parametrize("lam_b, class_weights", [(0.02, None), (INF, None), (0.02, (0.5, 2, 4))])
def test_training_is_full_batch_descent_on_the_ufms_objective_step_by_step(
    monkeypatch, recipe, warm_start, decay, lam_b, class_weights
):
    """The same steps with plain tensors: the network's own weights are not penalised but by their
    decay, and for the first sixth of the epochs the penalties are a tenth, but the authors' on
    b."""
    rng = np.random.default_rng(0)
    labels = np.repeat([0, 1, 2], [6, 5, 3])
    images = rng.random((14, 1, 2, 3))
    problem, epochs, lr = (
        UFM([6, 5, 3], 0.05, 0.002, lam_b, class_weights),
        72,
        {"fast": 5e-3, "authors": 0.02}[recipe],
    )
    start, name = [], {"fast": "Adam", "authors": "SGD"}[recipe]
    monkeypatch.setattr(torch.optim, name, recording(getattr(torch.optim, name), start))
    trained = train_network(
        MLP((1, 2, 3), (4,), 5),
        images,
        labels,
        problem,
        epochs=epochs,
        batch_size=14,
        lr=lr,
        warm_start=warm_start,
        device="cpu",
        recipe=recipe,
        weight_decay=decay,
    )
    w1, c1, w2, c2, W, b = parameters = [
        p.requires_grad_() for p in start[:4] + [start[4][0], start[5][0]]
    ]
    assert [tuple(p.shape) for p in parameters] == [(4, 6), (4,), (5, 4), (5,), (3, 5), (3,)]
    x = torch.tensor(images, dtype=torch.float32).flatten(1)
    x = (x - x.mean(0)) / x.std() if recipe == "fast" else (x - x.mean()) / x.std()  # one channel
    forward = lambda: torch.relu(x @ w1.T + c1) @ w2.T + c2
    speed, square = (
        [torch.zeros_like(p) for p in parameters],
        [torch.zeros_like(p) for p in parameters],
    )
    for step in range(1, epochs + 1):
        ease = 0.1 if warm_start and step <= 12 else 1.0
        ease_b = ease if recipe == "fast" else 1.0
        H = forward()
        bias, penalty = (b, 0.02 * b.square().sum()) if lam_b < INF else (torch.zeros(3), 0)
        loss = nn.functional.cross_entropy(H @ W.T + bias, torch.tensor(labels), reduction="none")
        loss = (torch.tensor(class_weights or (1, 1, 1))[labels] * loss).mean()
        value = (
            loss
            + ease / 2 * (0.05 * W.square().sum() + 0.002 * H.square().sum())
            + ease_b / 2 * penalty
        )
        value = value + decay / 2 * sum(p.square().sum() for p in (w1, c1, w2, c2))
        slopes = torch.autograd.grad(value, parameters, allow_unused=True)
        with torch.no_grad():
            for p, g, v, s in zip(parameters, slopes, speed, square):
                if g is None:  # b where there is no bias
                    continue
                if recipe == "fast":
                    rate = (
                        lr
                        * min(1, step / (0.03 * epochs))
                        * (1 + math.cos(math.pi * step / epochs))
                        / 2
                    )
                    v.mul_(0.9).add_(0.1 * g), s.mul_(0.99).add_(0.01 * g**2)
                    p -= rate * (v / (1 - 0.9**step)) / ((s / (1 - 0.99**step)).sqrt() + 1e-8)
                else:  # a tenth after two thirds of the epochs, or a third without warm start
                    v.mul_(0.9).add_(g)
                    p -= (lr if step <= (48 if warm_start else 24) else lr / 10) * v
    assert trained[0].classifier() == pytest.approx(W.detach().numpy(), abs=2e-5)
    assert trained[0].features.T == pytest.approx(forward().detach().numpy(), abs=2e-5)
    if lam_b < INF:
        assert trained[0].bias == pytest.approx(b.detach().numpy(), abs=2e-5)


def test_batches_together_weigh_every_sample_once(digits):
    """With a learning rate so small that nothing moves, all batch sizes have the same objective and
    gradient sign.
    """
    problem = UFM.from_lam_z(DIGITS, 0.01, 0.02)
    runs = [
        train_network(
            MLP((1, 8, 8), (8,), 8),
            *digits,
            problem,
            epochs=2,
            batch_size=size,
            lr=1e-12,
            device="cpu",
        )
        for size in (1000, 37)
    ]
    assert runs[0].objectives == pytest.approx(runs[1].objectives, rel=1e-6)
    assert runs[0][0].features == pytest.approx(runs[0][0].start, abs=1e-5)


def small_run(digits, ufms, epochs=3, device="cpu", model=None, **more):
    return train_network(
        model or MLP((1, 8, 8), (8,), 8), *digits, ufms, epochs=epochs, device=device, **more
    )


P1, P2 = (UFM.from_lam_z(DIGITS, l, 0.02) for l in (0.01, 0.02))


def test_a_member_of_an_ensemble_is_what_it_would_be_alone(digits):
    alone, together = small_run(digits, P1), small_run(digits, [P1, P2])
    assert together[0].start == pytest.approx(alone[0].start, abs=1e-6)
    assert together[0].classifier() == pytest.approx(alone[0].classifier(), abs=1e-4)
    assert together[0].features == pytest.approx(alone[0].features, abs=1e-4)


def test_the_seed_fixes_a_network(digits):
    one, again, other = (small_run(digits, P1, seed=seed) for seed in (5, 5, 6))
    assert (one[0].features == again[0].features).all() and (
        one[0].classifier() == again[0].classifier()
    ).all()
    assert np.abs(one[0].start - other[0].start).max() > 0.01


def test_the_model_is_copied_not_changed(digits):
    model = MLP((1, 8, 8), (8,), 8)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    train_network(model, *digits, P1, epochs=1, device="cpu")
    assert all(torch.equal(p, before[name]) for name, p in model.named_parameters())


def test_global_random_state_threads_and_dtype_are_left_alone(digits):
    model = MLP((1, 8, 8), (8,), 8)
    torch.manual_seed(11), np.random.seed(11)
    torch_before, numpy_before = torch.get_rng_state(), np.random.get_state()
    settings = (
        torch.get_num_threads(),
        torch.get_default_dtype(),
        torch.are_deterministic_algorithms_enabled(),
    )
    train_network(model, *digits, P1, epochs=1, device="cpu")
    assert torch.equal(torch.get_rng_state(), torch_before)
    assert (np.random.get_state()[1] == numpy_before[1]).all() and np.random.get_state()[
        2
    ] == numpy_before[2]
    assert settings == (
        torch.get_num_threads(),
        torch.get_default_dtype(),
        torch.are_deterministic_algorithms_enabled(),
    )


def test_training_is_silent_where_stderr_is_no_terminal(digits, capfd):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        small_run(digits, P1)
    out, err = capfd.readouterr()
    assert (out, err) == ("", "")


@needs_gpu
def test_random_state_of_the_gpu_is_left_alone(digits):
    torch.cuda.manual_seed(11)
    before = torch.cuda.get_rng_state()
    small_run(digits, P1, epochs=1, device="cuda")
    assert torch.equal(torch.cuda.get_rng_state(), before)


@pytest.mark.parametrize("lr", [1e6, 1e30])
def test_divergence_stops_with_epoch_and_setting(digits, lr):
    with pytest.raises(
        FloatingPointError,
        match=r"diverged in epoch \d+: objective .* for UFM\(class_sizes=\(60, .*smaller lr",
    ) as stop:
        small_run(digits, [P1, P2], epochs=20, lr=lr)
    assert repr(P1) in str(stop.value) or repr(P2) in str(stop.value)


def test_progress_goes_to_stderr_where_asked_for(digits, capfd):
    small_run(digits, P1, progress=True)
    out, err = capfd.readouterr()
    assert out == "" and "epochs" in err and "3/3" in err


def test_progress_is_shown_on_a_terminal_unless_refused(digits, monkeypatch):
    written = []

    class Terminal:
        encoding = "utf-8"
        isatty = lambda self: True
        write = lambda self, text: written.append(text)
        flush = lambda self: None

    monkeypatch.setattr(sys, "stderr", Terminal())
    small_run(digits, P1, progress=False)
    assert not written
    small_run(digits, P1)
    assert "3/3" in "".join(written)


# Refusals -----------------------------------------------------------------------------------------


def refuse_to_solve(*_, **__):
    raise AssertionError("work was done before the arguments were checked")


IMAGES, LABELS, TINY = (
    np.ones((4, 1, 2, 2)) * np.arange(4)[:, None, None, None],
    np.array([0, 0, 1, 1]),
    UFM.from_lam_z([2, 2], 0.1),
)


@pytest.mark.parametrize(
    "arguments, message",
    [
        (dict(images=IMAGES[:, 0]), r"images has shape \(4, 2, 2\): must have 4 dimensions"),
        (dict(images=IMAGES * math.nan), "images holds NaN"),
        (dict(images=IMAGES[:3]), "labels has shape .*must be 3 class indices"),
        (dict(labels=LABELS[:3]), r"labels has shape \(3,\)"),
        (dict(labels=LABELS / 1), "labels .*float64"),
        (dict(labels=LABELS - 1), "labels"),
        (dict(labels=np.array([0, 0, 0, 1])), r"ufms: class sizes \(2, 2\) differ .*labels"),
        (dict(labels=2 * LABELS), "labels holds 2: must be class indices below 2"),
        (dict(ufms="x"), "ufms must be"),
        (dict(ufms=[]), "ufms must be"),
        (dict(ufms=[TINY, UFM.from_lam_z([3, 1], 0.1)]), r"ufms: class sizes \(3, 1\) differ"),
        (dict(model=nn.Linear(4, 2)), "model must be a torch module with an attribute dim"),
        (dict(model=None), "model must be"),
        (dict(model=MLP((1, 2, 2), (), 1)), "model.dim = 1: must be a whole number >= 2"),
        (dict(epochs=0), "epochs = 0"),
        (dict(batch_size=0), "batch_size = 0"),
        (dict(batch_size=1.5), "batch_size = 1.5"),
        (dict(lr=0), "lr = 0"),
        (dict(lr=INF), "lr = inf"),
        (dict(seed=-1), "seed = -1"),
        (dict(features="tanh"), "features = 'tanh': must be one of"),
        (dict(device="mps"), "device = 'mps'"),
    ],
)
def test_train_network_refuses_before_any_work(monkeypatch, arguments, message):
    monkeypatch.setattr("ncutils.training.model.solve", refuse_to_solve)
    with pytest.raises(ValueError, match=message):
        train_network(
            **{
                "model": MLP((1, 2, 2), (), 2),
                "images": IMAGES,
                "labels": LABELS,
                "ufms": TINY,
                **arguments,
            }
        )


def test_class_sizes_in_a_refusal_are_plain_numbers():
    with pytest.raises(ValueError, match=r"those of labels, \(3, 1\)"):
        train_network(MLP((1, 2, 2), (), 2), IMAGES, np.array([0, 0, 0, 1]), TINY)


def test_images_that_the_model_does_not_take_are_refused_before_any_work(monkeypatch):
    monkeypatch.setattr("ncutils.training.model.solve", refuse_to_solve)
    with pytest.raises(ValueError, match=r"images has shape \(.*\), which model does not take"):
        train_network(MLP((1, 3, 5), dim=2), IMAGES, LABELS, TINY)


def test_a_model_that_does_not_give_its_dim_is_refused_before_any_work(monkeypatch):
    monkeypatch.setattr("ncutils.training.model.solve", refuse_to_solve)
    model = MLP(IMAGES.shape[1:], dim=5)
    model.dim = 4
    with pytest.raises(
        ValueError, match=r"features of shape \(1, 5\) for one image: must be \(1, 4\)"
    ):
        train_network(model, IMAGES, LABELS, TINY)


def test_images_without_contrast_are_refused_before_any_work(monkeypatch):
    monkeypatch.setattr("ncutils.training.model.solve", refuse_to_solve)
    with pytest.raises(ValueError, match="images are all the same number"):
        train_network(MLP(IMAGES.shape[1:], dim=2), np.ones_like(IMAGES), LABELS, TINY)


def test_accuracy_of_classes_that_are_not_there_is_refused(networks):
    with pytest.raises(ValueError, match=r"classes = \[99\]"):
        networks[0].accuracy([99])


# Noise: a few images, models of some hundred weights ----------------------------------------------

RNG = np.random.default_rng(0)
NOISE, KINDS = RNG.random((14, 1, 4, 4)), RNG.permutation(np.repeat([0, 1, 2], [6, 5, 3]))
Q1, Q2, Q3 = (
    UFM([6, 5, 3], 0.05, 0.01, 0.05),
    UFM([6, 5, 3], 0.03, 0.02, 0.01),
    UFM([6, 5, 3], 0.04, 0.005),
)
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


# Going on from a checkpoint -----------------------------------------------------------------------


def read(path):
    return torch.load(path, weights_only=True)


@pytest.mark.parametrize("recipe", ["fast", "authors"])
@pytest.mark.parametrize("model", ["mlp", "convnet", "batch norm"])
@pytest.mark.parametrize(
    "ufms, seed",
    [(Q1, 3), ([Q1, Q3, Q2], 3), ([Q1, Q3, Q2], [8, 3, 8])],
    ids=["one", "stack", "own seeds"],
)
def test_an_interrupted_run_ends_bit_for_bit_as_an_uninterrupted_one(
    monkeypatch, tmp_path, recipe, model, ufms, seed
):
    setting = dict(model=model, ufms=ufms, seed=seed, recipe=recipe, weight_decay=0.01)
    whole = noise_run(**setting)
    path, setting["checkpoint"], setting["checkpoint_seconds"] = (
        tmp_path / "new" / "run.pt",
        str(tmp_path / "new" / "run.pt"),
        0,
    )
    interrupted(2, **setting)
    assert not path.exists()  # in the first epoch
    for batch, epoch in ((5, 1), (9, 3), (1, 3), (7, 5)):  # three batches an epoch
        interrupted(batch, **setting)
        assert read(path)["epoch"] == epoch
    assert_equal(noise_run(**setting), whole)
    assert read(path)["epoch"] == 6 and [file.name for file in path.parent.iterdir()] == ["run.pt"]
    before = path.read_bytes()
    monkeypatch.setattr(torch.Tensor, "backward", refuse_to_train)
    for _ in range(2):
        assert_equal(noise_run(**setting), whole)
    assert path.read_bytes() == before


def test_a_checkpointed_run_is_the_run_without_checkpoint(tmp_path):
    assert_equal(noise_run(checkpoint=tmp_path / "run.pt", checkpoint_seconds=0), noise_run())


def test_a_resnet_goes_on_bit_for_bit(tmp_path):
    images = RNG.random((6, 3, 8, 8))
    setting = dict(
        model=ResNet18((3, 8, 8)),
        images=images,
        labels=np.array([0, 1, 2, 0, 1, 0]),
        ufms=UFM([3, 2, 1], 0.05, 1e-5),
        epochs=2,
        batch_size=3,
        recipe="authors",
        record=[2],
    )
    whole = noise_run(**setting)
    setting |= dict(checkpoint=tmp_path / "run.pt", checkpoint_seconds=0)
    interrupted(4, **setting)
    assert_equal(noise_run(**setting), whole)


def clock_of_batches(monkeypatch):
    """Time stands still but for one second in every batch."""
    now, loss = [100.0], nn.functional.cross_entropy

    def hook(*args, **options):
        now[0] += 1
        return loss(*args, **options)

    monkeypatch.setattr(nn.functional, "cross_entropy", hook)
    monkeypatch.setattr(
        "ncutils.training.network.time", SimpleNamespace(perf_counter=lambda: now[0])
    )


@pytest.mark.parametrize(
    "every, epochs",
    [(0, [1, 2, 3, 4, 5, 6]), (6, [2, 4, 6]), (6.5, [3, 6]), (12, [4, 6]), (1e9, [6])],
)
def test_checkpoints_are_written_every_so_many_seconds_and_at_the_end(
    monkeypatch, tmp_path, every, epochs
):
    clock_of_batches(monkeypatch)
    written, replace = [], os.replace

    def hook(source, target):
        replace(source, target)
        written.append(read(target)["epoch"])

    monkeypatch.setattr(os, "replace", hook)
    noise_run(checkpoint=tmp_path / "run.pt", checkpoint_seconds=every)
    assert written == epochs


def test_seconds_are_of_training_that_was_not_lost(monkeypatch, tmp_path):
    clock_of_batches(monkeypatch)
    setting = dict(checkpoint=tmp_path / "run.pt", checkpoint_seconds=0, record=range(1, 7))
    for batch in (6, 5):
        interrupted(batch, **setting)
    history = noise_run(**setting).history
    assert [row["epoch"] for row in history] == [1, 2, 3, 4, 5, 6] and [
        row["seconds"] for row in history
    ] == [3, 6, 9, 12, 15, 18]


def test_seconds_increase_and_memory_is_that_of_a_process_with_torch(tmp_path):
    setting = dict(checkpoint=tmp_path / "run.pt", checkpoint_seconds=0, record=range(1, 7))
    interrupted(8, **setting)
    history = noise_run(**setting).history
    seconds, peaks = ([row[name] for row in history] for name in ("seconds", "peak_mib"))
    assert 0 < seconds[0] and all(a < b for a, b in zip(seconds, seconds[1:]))
    assert 50 < min(peaks) and peaks == sorted(peaks) and max(peaks) < 2**20


def test_memory_is_unknown_on_windows_and_counted_in_bytes_on_a_mac(monkeypatch):
    cpu = torch.device("cpu")
    here = _peak_mib(cpu)
    used = SimpleNamespace(ru_maxrss=3 * 2**20)
    monkeypatch.setitem(
        sys.modules, "resource", SimpleNamespace(RUSAGE_SELF=0, getrusage=lambda _: used)
    )
    monkeypatch.setattr(sys, "platform", "linux")
    assert here > 50 and _peak_mib(cpu) == 3 * 2**10
    monkeypatch.setattr(sys, "platform", "darwin")
    assert _peak_mib(cpu) == 3
    monkeypatch.setitem(sys.modules, "resource", None)
    assert math.isnan(_peak_mib(cpu))


# Killed -------------------------------------------------------------------------------------------

# What each run was about to do when it was killed, and the last epoch of its checkpoint.
KILLED = {
    "fourth batch": 1,
    "first batch": None,
    "half of the first file": None,
    "half of the second file": 1,
    "to name the first file": None,
    "to name the third file": 2,
    "after naming the second file": 2,
    "from outside": ...,
}
TO_KILL = dict(
    model="batch norm",
    ufms=[Q1, Q2],
    seed=[4, 9],
    checkpoint_seconds=0,
    epochs=20,
    record=[1, 2, 5],
)

SCRIPT = """
import os, signal, sys, time
from pathlib import Path
import torch
from test_network import TO_KILL, noise_run

die = lambda: os.kill(os.getpid(), signal.SIGKILL)

def at(number, before, after, module, name):
    calls, function = [], getattr(module, name)
    def hook(*args, **options):
        calls.append(1)
        if len(calls) == number:
            before(*args)
        result = function(*args, **options)
        if len(calls) == number:
            after()
        return result
    setattr(module, name, hook)

def half(file):
    os.truncate(file, os.fstat(file).st_size // 2)
    die()

def slowly(source, target):
    replace(source, target)
    time.sleep(.5)

replace, functional = os.replace, torch.nn.functional
no, kill = lambda *_: None, lambda *_: die()
torch.optim.Adam([torch.zeros(1, requires_grad=True)])  # imports what all children need
moments = {
    "fourth batch": lambda: at(4, kill, no, functional, "cross_entropy"),
    "first batch": lambda: at(1, kill, no, functional, "cross_entropy"),
    "half of the first file": lambda: at(1, half, no, os, "fsync"), "half of the second file": lambda: at(2, half, no, os, "fsync"),
    "to name the first file": lambda: at(1, kill, no, os, "replace"), "to name the third file": lambda: at(3, kill, no, os, "replace"),
    "after naming the second file": lambda: at(2, no, kill, os, "replace"), "from outside": lambda: setattr(os, "replace", slowly)}
for moment, prepare in moments.items():
    path = Path(moment) / "run.pt"
    child = os.fork()
    if child == 0:
        prepare()
        noise_run(checkpoint=path, **TO_KILL)
        os._exit(0)
    if moment == "from outside":
        while not path.exists() and os.waitpid(child, os.WNOHANG) == (0, 0):
            time.sleep(.01)
        os.kill(child, signal.SIGKILL)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL, moment
"""


@pytest.fixture(scope="module")
def killed(tmp_path_factory):
    """Folder with what runs have left that were killed, and an uninterrupted one."""
    folder, here = tmp_path_factory.mktemp("killed"), Path(__file__).parent
    path = os.pathsep.join(
        [str(here), str(here.parent), *filter(None, [os.environ.get("PYTHONPATH")])]
    )
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", SCRIPT],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    return folder, noise_run(**TO_KILL)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs POSIX")
@pytest.mark.parametrize("moment", KILLED)
def test_a_killed_run_leaves_a_whole_checkpoint_or_none_and_goes_on_bit_for_bit(killed, moment):
    folder, whole = killed
    path, last = folder / moment / "run.pt", KILLED[moment]
    assert path.exists() == (last is not None)
    if last is not None:
        epoch = read(path)["epoch"]  # not broken
        assert 1 <= epoch < 20 if last is ... else epoch == last
    left = [*path.parent.glob("run.pt.*.part")] if path.parent.exists() else []
    if last is not ...:
        assert len(left) == (" file" in moment and "after" not in moment)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert_equal(noise_run(checkpoint=path, **TO_KILL), whole)
    assert {*path.parent.iterdir()} == {path, *left}


def test_two_that_write_the_same_checkpoint_do_not_meet(monkeypatch, tmp_path):
    """One is about to name its file when the other comes and goes."""
    path, names, replace = tmp_path / "new" / "run.pt", [], os.replace

    def hook(source, target):
        names.append(Path(source).name)
        if len(names) == 1:
            other = threading.Thread(target=_save, args=(path, {"epoch": 2}))
            other.start(), other.join()
            assert read(path) == {"epoch": 2}
        replace(source, target)

    monkeypatch.setattr(os, "replace", hook)
    _save(path, {"epoch": 1})
    assert read(path) == {"epoch": 1} and [*path.parent.iterdir()] == [path]
    assert len({*names}) == 2 and all(
        re.fullmatch(rf"run\.pt\.{os.getpid()}-\d+\.part", name) for name in names
    )


def test_two_that_write_the_same_checkpoint_many_times_leave_a_whole_one(tmp_path):
    path, errors = tmp_path / "run.pt", []

    def write(epoch):
        try:
            for _ in range(50):
                _save(path, {"epoch": epoch, "W": torch.full((99,), float(epoch))})
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=write, args=(epoch,)) for epoch in (1, 2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    state = read(path)
    assert errors == [] and [*tmp_path.iterdir()] == [path]
    assert state["epoch"] in (1, 2) and (state["W"] == state["epoch"]).all()


# Checkpoints of other runs, and damaged ones ------------------------------------------------------

BASE = dict(model="relu", ufms=[Q1, Q2], seed=[1, 2])
OTHER_IMAGES = NOISE.copy()
OTHER_IMAGES[7, 0, 2, 1] += 1e-12
OTHER_LABELS = KINDS[::-1].copy()


@pytest.fixture(scope="module")
def complete(tmp_path_factory):
    path = tmp_path_factory.mktemp("complete") / "run.pt"
    return path, noise_run(checkpoint=path, **BASE)


@pytest.mark.parametrize(
    "other",
    [
        dict(lr=1e-3),
        dict(images=OTHER_IMAGES),
        dict(labels=OTHER_LABELS),
        dict(ufms=[Q1, Q3]),
        dict(ufms=[Q2, Q1]),
        dict(ufms=[Q1, Q2, Q2], seed=1),
        dict(seed=[1, 3]),
        dict(seed=[2, 1]),
        dict(seed=1),
        dict(model="convnet"),
        dict(model=MLP((1, 4, 4), (7,), 5, "relu")),
        dict(features="linear"),
        dict(epochs=7),
        dict(batch_size=6),
        dict(warm_start=False),
        dict(recipe="authors"),
        dict(weight_decay=0.1),
        dict(amp=True),
        dict(record=[3]),
    ],
    ids=lambda other: " ".join(other),
)
def test_a_checkpoint_of_another_run_is_refused_by_name_and_kept(monkeypatch, complete, other):
    path, _ = complete
    before = path.read_bytes()
    monkeypatch.setattr(torch.Tensor, "backward", refuse_to_train)
    with pytest.raises(OtherRun, match=f"checkpoint = '{re.escape(str(path))}': is of another run"):
        noise_run(checkpoint=path, **(BASE | other))
    assert path.read_bytes() == before and list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize(
    "same",
    [
        dict(progress=False),
        dict(checkpoint_seconds=0),
        dict(device=torch.device("cpu")),
        dict(lr=2e-3),
        dict(amp=False),
        dict(recipe="fast"),
        dict(features="relu"),
        dict(seed=(1, 2)),
        dict(epochs=6.0),
        dict(record=geometric_grid(6)),
        dict(images=NOISE.tolist()),
        dict(labels=KINDS.tolist()),
        dict(ufms=[UFM([6.0, 5, 3], 0.05, 0.01, 0.05), Q2]),
        dict(weight_decay=0.0),
        dict(weight_decay=0),
    ],
    ids=lambda same: " ".join(f"{name} {type(value).__name__}" for name, value in same.items()),
)
def test_the_same_run_said_otherwise_goes_on(monkeypatch, complete, same):
    path, whole = complete
    monkeypatch.setattr(torch.Tensor, "backward", refuse_to_train)
    assert_equal(noise_run(checkpoint=path, **(BASE | same)), whole)


def test_the_same_numbers_in_another_shape_are_another_run(tmp_path):
    """An MLP takes both, but channels are normalised each by itself."""
    images = NOISE.reshape(14, 2, 1, 8) + np.array([0, 3])[:, None, None] * NOISE.reshape(
        14, 2, 1, 8
    )
    first, second = (
        noise_run(images=x, recipe="authors", epochs=1)
        for x in (images, images.reshape(14, 1, 2, 8))
    )
    assert np.abs(first[0].start - second[0].start).max() > 0.1
    noise_run(images=images, recipe="authors", checkpoint=tmp_path / "run.pt")
    with pytest.raises(ValueError, match="is of another run"):
        noise_run(
            images=images.reshape(14, 1, 2, 8), recipe="authors", checkpoint=tmp_path / "run.pt"
        )


class Bomb:
    """Leaves a file where its pickle is loaded."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def saved(path, state):
    torch.save(state, path)
    return path.read_bytes()


DAMAGES = {
    "empty": lambda whole, path, bomb: b"",
    "one byte": lambda whole, path, bomb: whole[:1],
    "truncated": lambda whole, path, bomb: whole[: len(whole) // 2],
    "last bytes gone": lambda whole, path, bomb: whole[:-20],
    "text": lambda whole, path, bomb: b"epoch,loss\n1,2\n" * 99,
    "pickle": lambda whole, path, bomb: pickle.dumps({"run": 1, "epoch": bomb}, protocol=2),
    "pickle of torch": lambda whole, path, bomb: saved(path, bomb),
    "real one with code in it": lambda whole, path, bomb: saved(
        path, read(path) | {"seconds": bomb}
    ),
    "a list": lambda whole, path, bomb: saved(path, [1, 2]),
    "a tensor": lambda whole, path, bomb: saved(path, torch.ones(3)),
    "another's dict": lambda whole, path, bomb: saved(path, {"state_dict": {}}),
    **{
        f"without {name}": lambda whole, path, bomb, name=name: saved(
            path, {key: part for key, part in read(path).items() if key != name}
        )
        for name in STATE
    },
}


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.filterwarnings("ignore:Using a non-tuple sequence")  # a tensor as checkpoint
def test_a_damaged_checkpoint_is_named_in_a_warning_not_executed_and_training_starts_anew(
    tmp_path, complete, damage
):
    path, trace = tmp_path / "run.pt", tmp_path / "trace"
    path.write_bytes(complete[0].read_bytes())
    path.write_bytes(DAMAGES[damage](path.read_bytes(), path, Bomb(trace)))
    damaged = path.read_bytes()
    with pytest.warns(
        RuntimeWarning,
        match=f"checkpoint {re.escape(str(path))} cannot be read .*: training starts anew",
    ) as found:
        assert_equal(noise_run(checkpoint=path, **BASE), complete[1])
    assert [w.category for w in found].count(RuntimeWarning) == 1 and not trace.exists()
    assert read(path)["epoch"] == 6 and {*tmp_path.iterdir()} <= {path, trace}
    if damage in (
        "pickle of torch",
        "real one with code in it",
    ):  # the code would have been found out
        path.write_bytes(damaged)
        torch.load(path, weights_only=False)
        assert trace.exists()


@pytest.mark.parametrize(
    "argument",
    [dict(checkpoint_seconds=-1), dict(checkpoint_seconds=math.nan), dict(checkpoint_seconds="x")],
)
def test_a_pause_between_checkpoints_is_refused_before_any_work(monkeypatch, argument):
    monkeypatch.setattr("ncutils.training.model.solve", refuse_to_solve)
    with pytest.raises(ValueError, match="checkpoint_seconds = "):
        noise_run(**argument)


# Divergence ---------------------------------------------------------------------------------------

LARGE, HUGE = (
    UFM([6, 5, 3], 0.05, 1e6, 0.05),
    UFM([6, 5, 3], 0.05, 1e38, 0.05),
)  # beyond float32 once summed
LATE = UFM(
    [6, 5, 3], 1000.0, 0.01, 0.05
)  # SGD with lr = 0.01 is unstable in W once the warm start is over


def named(trained):
    """The members that have diverged."""
    return [e for e, model in enumerate(trained) if model.diverged]


def quiet(*args, **options):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        return noise_run(*args, **options)


@pytest.mark.parametrize("model", ["mlp", "convnet", "batch norm"])
@pytest.mark.parametrize(
    "bad, recipe, seed",
    [
        (LARGE, "authors", [1, 2, 3]),
        (HUGE, "fast", 0),
        (HUGE, "authors", [1, 2, 1]),
        (LATE, "authors", 0),
        (LATE, "authors", [3, 2, 1]),
    ],
)
def test_a_member_that_diverges_changes_no_bit_of_the_others(model, bad, recipe, seed):
    setting = dict(model=model, recipe=recipe, seed=seed, epochs=12, record=[1, 3, 5])
    harmless = noise_run(ufms=[Q1, Q2, Q2], **setting)
    with pytest.warns(RuntimeWarning) as found:
        trained = noise_run(ufms=[Q1, bad, Q2], **setting)
    message = trained[1].diverged
    assert named(trained) == [1] and [str(w.message) for w in found] == [
        f"{message}; the others go on"
    ]
    epoch = int(
        re.fullmatch(
            rf"training diverged in epoch (\d+): objective \S+ for {re.escape(repr(bad))}: try a smaller lr",
            message,
        )[1]
    )
    assert epoch == (3 if bad is LATE else 1)
    for e in (0, 2):
        for part, same in zip(parts(trained[e]), parts(harmless[e])):
            assert (part == same).all()
    assert (
        np.isnan(trained.gaps).tolist() == [False, True, False]
        and (trained.gaps[[0, 2]] == harmless.gaps[[0, 2]]).all()
    )
    assert [row["epoch"] for row in trained.history] == [1, 3, 5, 12]
    for row, twin in zip(trained.history, harmless.history):
        assert set(row) == set(twin)
        for name in row.keys() - {"epoch", "seconds", "peak_mib"}:
            assert row[name].shape == (3,) and np.array_equal(
                row[name][[0, 2]], twin[name][[0, 2]], equal_nan=True
            )
            if row["epoch"] >= epoch:
                assert math.isnan(row[name][1])
        assert row["epoch"] >= epoch or row["objective"][1] > 0


def test_the_first_member_may_be_the_one_that_diverges():
    trained = quiet(ufms=[HUGE, Q1])
    assert named(trained) == [0] and math.isnan(trained.gaps[0]) and trained.gaps[1] > 0
    assert set(trained.history[0]) == set(noise_run(ufms=[Q2, Q1]).history[0])


def test_a_run_goes_on_with_what_has_diverged(tmp_path):
    setting = dict(ufms=[LATE, Q1, Q2], recipe="authors", epochs=12, seed=[1, 2, 3])
    whole = quiet(**setting)
    setting |= dict(checkpoint=tmp_path / "run.pt", checkpoint_seconds=0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        interrupted(34, **setting)
    assert read(tmp_path / "run.pt")["diverged"] == {0: whole[0].diverged}
    assert_equal(quiet(**setting), whole)
    assert_equal(quiet(**setting), whole)  # complete


def test_a_large_penalty_of_the_start_is_no_divergence():
    """It is above a hundred times the objective of Z = 0, and falls."""
    early = UFM([6, 5, 3], 0.05, 300.0, 0.05)
    trained = noise_run(ufms=[early, Q1], epochs=40, lr=0.05, warm_start=False, record=[1])
    assert trained.history[0]["objective"][0] > 100 * math.log(3) > trained.objectives[
        0
    ] and not named(trained)


def test_where_all_diverge_all_are_named(tmp_path):
    setting = dict(
        ufms=[LARGE, LATE, HUGE],
        recipe="authors",
        epochs=12,
        checkpoint=tmp_path / "run.pt",
        checkpoint_seconds=0,
    )
    for _ in range(2):  # the second goes on from the last checkpoint with a living member
        with (
            warnings.catch_warnings(),
            pytest.raises(Diverged, match=re.escape(repr(LATE))) as stop,
        ):
            warnings.simplefilter("ignore", RuntimeWarning)
            noise_run(**setting)
        assert isinstance(stop.value, FloatingPointError) and sorted(stop.value.members) == [
            0,
            1,
            2,
        ]
        for e, problem in enumerate(setting["ufms"]):
            assert repr(problem) in stop.value.members[e] and stop.value.members[e] in str(
                stop.value
            )
        assert "epoch 1:" in stop.value.members[0] and "epoch 3:" in stop.value.members[1]
        assert f"epoch {read(tmp_path / 'run.pt')['epoch'] + 1}:" in stop.value.members[1]


def test_one_network_that_diverges_is_named():
    with pytest.raises(Diverged) as stop:
        noise_run(ufms=HUGE)
    assert list(stop.value.members) == [0] and str(stop.value) == stop.value.members[0]


def test_divergence_can_be_sent_to_another_process():
    again = pickle.loads(pickle.dumps(Diverged({0: "one", 2: "two"})))
    assert again.members == {0: "one", 2: "two"} and str(again) == "one; two"


@pytest.mark.parametrize("ufms", [Q1, [Q1, Q2]], ids=["one", "stack"])
def test_divergence_in_the_last_step_of_an_epoch_is_divergence(ufms):
    with pytest.raises(Diverged):
        noise_run(ufms=ufms, batch_size=14, lr=1e20)


def test_divergence_of_one_in_the_last_step_of_an_epoch_leaves_the_others(monkeypatch):
    steps = []

    class Faulty(torch.optim.Adam):
        def step(self, *args, **options):
            super().step(*args, **options)
            steps.append(1)
            if len(steps) == 3:
                self.param_groups[1]["params"][0].data[1] = math.nan

    whole = noise_run(ufms=[Q1, Q2])
    monkeypatch.setattr(torch.optim, "Adam", Faulty)
    trained = quiet(ufms=[Q1, Q2])
    assert named(trained) == [1] and (trained[0].features == whole[0].features).all()


# Seeds --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("recipe", ["fast", "authors"])
@pytest.mark.parametrize("model", ["mlp", "convnet", "batch norm", "batch norm first"])
def test_with_a_list_of_seeds_a_member_is_what_it_would_be_alone_wherever_it_stands(model, recipe):
    """Members: UFM and seed."""
    members = [(Q1, 7), (Q2, 3), (Q1, 3), (Q3, 2**40)]
    alone = {(u, s): noise_run(model, u, seed=[s], recipe=recipe) for u, s in members}
    for mates in (members, members[::-1], members[1:3]):
        ufms, seeds = zip(*mates)
        together = noise_run(model, list(ufms), seed=list(seeds), recipe=recipe)
        for e, member in enumerate(mates):
            assert together[e].start == pytest.approx(alone[member][0].start, abs=1e-5)
            for part, twin in zip(parts(together[e]), parts(alone[member][0])):
                assert part == pytest.approx(twin, abs=1e-4)
            for row, twin in zip(together.history, alone[member].history):
                assert row["objective"][e] == pytest.approx(twin["objective"][0], rel=1e-4)
    assert np.abs(alone[Q1, 7][0].start - alone[Q1, 3][0].start).max() > 0.01  # a seed matters
    assert (
        np.abs(alone[Q1, 3][0].features - alone[Q2, 3][0].features).max() > 1e-3
    )  # and so does a UFM


def test_members_of_one_seed_and_ufm_are_twins():
    trained = noise_run(ufms=[Q1, Q2, Q1], seed=[5, 5, 5])
    assert (trained[0].start == trained[1].start).all() and (
        trained[0].start == trained[2].start
    ).all()
    assert trained[0].features == pytest.approx(trained[2].features, abs=1e-5)
    together = noise_run(ufms=[Q1, Q1], seed=5)  # one number: another start for each
    assert np.abs(together[0].start - together[1].start).max() > 0.01
    assert together[0].start == pytest.approx(trained[0].start, abs=1e-6)


def test_a_number_is_the_list_of_it_for_one_network():
    for recipe in ("fast", "authors"):
        one, *others = (
            noise_run(seed=seed, recipe=recipe) for seed in (4, [4], (4,), range(4, 5), 4.0)
        )
        for other in others:
            assert_equal(other, one)


@pytest.mark.parametrize(
    "seeds, own", [(3, [3, 3]), ([3, 3], [3, 3]), ([3, 8], [3, 8]), (range(5, 7), [5, 6])], ids=str
)
def test_batches_come_in_the_order_of_the_members_seed_and_weigh_as_much_as_they_hold(
    monkeypatch, seeds, own
):
    """Plain SGD on the loss of each batch, for each member by itself, from where the optimizer
    started.
    """
    images, labels = NOISE.reshape(14, 1, 2, 8)[..., :3], KINDS
    start, ufms = [], [Q1, Q2]
    monkeypatch.setattr(torch.optim, "SGD", recording(torch.optim.SGD, start))
    trained = noise_run(
        MLP((1, 2, 3), (4,), 5),
        ufms,
        images,
        seed=seeds,
        recipe="authors",
        lr=0.05,
        warm_start=False,
    )
    x = torch.tensor(images, dtype=torch.float32).flatten(1)
    x, y = (x - x.mean()) / x.std(), torch.tensor(labels)
    for e, problem in enumerate(ufms):
        w1, c1, w2, c2, W, b = parameters = [p[e].clone().requires_grad_() for p in start]
        forward = lambda x: torch.relu(x @ w1.T + c1) @ w2.T + c2
        assert trained[e].start.T == pytest.approx(forward(x).detach().numpy(), abs=1e-6)
        speed, generator = (
            [torch.zeros_like(p) for p in parameters],
            torch.Generator().manual_seed(own[e]),
        )
        for epoch in range(6):
            order = torch.randperm(14, generator=generator)
            for batch in (order[:5], order[5:10], order[10:]):
                H = forward(x[batch])
                value = (
                    nn.functional.cross_entropy(H @ W.T + b, y[batch])
                    + problem.lam_w / 2 * W.square().sum()
                )
                value = (
                    value
                    + problem.lam_h / 2 * 14 / len(batch) * H.square().sum()
                    + problem.lam_b / 2 * b.square().sum()
                )
                with torch.no_grad():
                    for p, g, v in zip(parameters, torch.autograd.grad(value, parameters), speed):
                        v.mul_(0.9).add_(g)
                        p -= (0.05 if epoch < 2 else 0.005) * v
        assert trained[e].classifier() == pytest.approx(W.detach().numpy(), abs=2e-5)
        assert trained[e].bias == pytest.approx(b.detach().numpy(), abs=2e-5)
        assert trained[e].features.T == pytest.approx(forward(x).detach().numpy(), abs=2e-5)


@pytest.mark.parametrize(
    "seed, message",
    [
        ([1], r"seed = \[1\]: must be a whole number >= 0, or a list of 2, one for each UFM"),
        ([1, 2, 3], "a list of 2"),
        ((), "a list of 2"),
        (range(3), "a list of 2"),
        ([1, -1], r"seed\[1\] = -1: must be a whole number >= 0"),
        ([0.5, 1], r"seed\[0\] = 0.5"),
        ([None, 1], r"seed\[0\] = None"),
        ([True, 1], r"seed\[0\] = True"),
        (-2, "seed = -2"),
        (None, "seed = None"),
        ("12", "seed = '12'"),
        (math.nan, "seed = nan"),
    ],
)
def test_seeds_are_refused_before_any_work(monkeypatch, seed, message):
    monkeypatch.setattr("ncutils.training.model.solve", refuse_to_solve)
    with pytest.raises(ValueError, match=message):
        noise_run(ufms=[Q1, Q2], seed=seed)


# Batch norm ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "ufms, seed", [(Q1, 3), ([Q1, Q2], 3), ([Q1, Q2], [3, 8])], ids=["one", "stack", "own seeds"]
)
def test_batch_norm_is_evaluated_with_running_statistics_of_the_batches_seen(tmp_path, ufms, seed):
    """Of a first layer they depend on the images and their order only."""
    trained = noise_run(
        "batch norm first", ufms, seed=seed, checkpoint=tmp_path / "run.pt", record=range(1, 7)
    )
    state = read(tmp_path / "run.pt")["network"]
    stacked = isinstance(ufms, list)
    x = torch.tensor(NOISE.reshape(14, 16)).float()
    x = (x - x.mean(0)) / x.std()
    for e in range(1 + stacked):
        part = {name: value[e] if stacked else value for name, value in state.items()}
        generator = torch.Generator().manual_seed(seed[e] if isinstance(seed, list) else seed)
        mean, var = torch.zeros(16), torch.ones(16)
        for _ in range(6):
            order = torch.randperm(14, generator=generator)
            for batch in (order[:5], order[5:10], order[10:]):
                mean, var = 0.9 * mean + 0.1 * x[batch].mean(0), 0.9 * var + 0.1 * x[batch].var(0)
        assert int(part["1.num_batches_tracked"]) == 18
        assert part["1.running_mean"].numpy() == pytest.approx(mean.numpy(), abs=1e-6)
        assert part["1.running_var"].numpy() == pytest.approx(var.numpy(), abs=1e-6)
        normed = lambda mean, var: (
            part["1.weight"] * (x - mean) / (var + 1e-5).sqrt() + part["1.bias"]
        )
        features = lambda *moments: (
            (normed(*moments) @ part["2.weight"].T + part["2.bias"]).numpy().T
        )
        assert trained[e].features == pytest.approx(features(mean, var), abs=1e-5)
        assert (
            np.abs(trained[e].features - features(x.mean(0), x.var(0))).max() > 0.01
        )  # not those of the batch
        by_hand = ufm_objective(
            trained[e].ufm, trained[e].classifier(), features(mean, var), trained[e].bias, KINDS
        )
        assert trained.history[-1]["objective"][e] == pytest.approx(by_hand, rel=1e-5)


@pytest.mark.parametrize("ufms", [Q1, [Q1, Q2]], ids=["one", "stack"])
def test_looking_at_a_network_does_not_change_it(ufms):
    often, seldom = (noise_run("batch norm", ufms, record=record) for record in (range(1, 7), []))
    assert [row["epoch"] for row in seldom.history] == [6]
    assert (often[0].features == seldom[0].features).all() and (
        often[0].classifier() == seldom[0].classifier()
    ).all()


def test_the_callers_batch_norm_is_neither_changed_nor_used():
    used = MODELS["batch norm"]()
    with torch.no_grad():
        used(torch.tensor(NOISE).float())
        for p in used.parameters():
            p.add_(1)
    used.eval()
    before = {name: part.clone() for name, part in used.state_dict().items()}
    assert before["0.residual.1.running_mean"].any()  # buffers are in it
    for ufms in (Q1, [Q1, Q2]):
        assert_equal(noise_run(used, ufms), noise_run("batch norm", ufms))
        assert all(torch.equal(part, before[name]) for name, part in used.state_dict().items())
        assert not used.training and all(p.grad is None for p in used.parameters())


def test_a_last_batch_of_one_image_is_refused_before_any_work_where_there_is_batch_norm(
    monkeypatch,
):
    noise_run("mlp", batch_size=13, epochs=1)  # no batch norm
    monkeypatch.setattr("ncutils.training.model.solve", refuse_to_solve)
    with pytest.raises(ValueError, match="batch_size = 13: leaves a batch of one of 14 images"):
        noise_run("batch norm", batch_size=13)


def test_batches_of_one_image_are_refused_before_any_work_where_there_is_batch_norm(monkeypatch):
    monkeypatch.setattr("ncutils.training.model.solve", refuse_to_solve)
    with pytest.raises(ValueError, match="batch_size = 1"):
        noise_run("batch norm first", batch_size=1)


# The caller's surroundings ------------------------------------------------------------------------


@contextlib.contextmanager
def for_a_while(get, put, value):
    before = get()
    put(value)
    try:
        yield
    finally:
        put(before)


def default_dtype(dtype):
    return for_a_while(torch.get_default_dtype, torch.set_default_dtype, dtype)


def without_cache():
    """Autocast casts weights anew each time, so that what it has cast once cannot outlive the step."""
    return for_a_while(torch.is_autocast_cache_enabled, torch.set_autocast_cache_enabled, False)


SURROUNDINGS = {
    "float64": lambda: default_dtype(torch.float64),
    "no grad": torch.no_grad,
    "inference": torch.inference_mode,
    "autocast": lambda: torch.autocast("cpu", torch.bfloat16),
    "device": lambda: torch.device("meta"),
    "cache": without_cache,
}


def modes():
    return (
        torch.get_default_dtype(),
        torch.get_default_device(),
        torch.is_grad_enabled(),
        torch.is_inference_mode_enabled(),
        torch.is_autocast_enabled("cpu"),
        torch.is_autocast_cache_enabled(),
    )


@pytest.mark.parametrize(
    "setting",
    [
        dict(),
        dict(recipe="authors", seed=[1, 2]),
        dict(amp=True),
        dict(ufms=Q1, recipe="authors"),
        dict(ufms=Q1, amp=True),
    ],
    ids=lambda setting: " ".join(setting) or "stack",
)
@pytest.mark.parametrize("around", SURROUNDINGS)
def test_the_callers_modes_change_no_bit_and_are_left_as_they_were(around, setting):
    setting = dict(model=MODELS["batch norm"](), ufms=[Q1, Q2]) | setting
    plain = noise_run(**setting)
    with SURROUNDINGS[around]():
        before = modes()
        found = noise_run(**setting)
        assert modes() == before
    assert_equal(found, plain)


@pytest.mark.parametrize("around", ["float64", "no grad", "inference", "autocast"])
def test_a_model_may_be_made_in_any_mode_of_the_callers(around):
    with SURROUNDINGS[around]():
        model = MODELS["batch norm"]()
    for ufms in (Q1, [Q1, Q2]):
        assert_equal(noise_run(model, ufms), noise_run("batch norm", ufms))


def test_the_callers_modes_are_left_as_they_were_by_a_refusal_and_warnings_name_the_callers_line():
    with torch.inference_mode(), pytest.raises(ValueError, match="seed = -1"):
        noise_run(seed=-1)
    assert not torch.is_inference_mode_enabled() and torch.is_grad_enabled()
    with pytest.warns(RuntimeWarning) as found:
        noise_run(ufms=[Q1, HUGE])
    assert [w.filename for w in found] == [__file__]


# Modules of the user's own ------------------------------------------------------------------------


class Own(nn.Module):
    """A linear layer on pixels, and what `then` makes of its output and the module."""

    dim = 5

    def __init__(self, then=lambda H, module: H, **parameters):
        super().__init__()
        self.linear, self.then = nn.Linear(16, 5), then
        for name, value in parameters.items():
            setattr(self, name, nn.Parameter(torch.full((5,), value)))

    def forward(self, x):
        return self.then(self.linear(x.flatten(1)), self)


def frozen(model, *names):
    for name, p in model.named_parameters():
        p.requires_grad_(name not in names)
    return model


@pytest.mark.parametrize(
    "names", [["1.weight"], ["1.weight", "1.bias", "3.weight", "3.bias"]], ids=["one", "all"]
)
def test_what_is_frozen_stays_so_alone_and_in_an_ensemble(tmp_path, names):
    model = frozen(MODELS["mlp"](), *names)
    setting = dict(epochs=12, lr=0.02, weight_decay=0.1)
    alone = [
        noise_run(model, Q1, seed=[seed], checkpoint=tmp_path / f"{seed}.pt", **setting)
        for seed in (3, 4)
    ]
    both = noise_run(model, [Q1, Q1], seed=[3, 4], checkpoint=tmp_path / "both.pt", **setting)
    stacked = read(tmp_path / "both.pt")["network"]
    for e, seed in enumerate((3, 4)):
        own = read(tmp_path / f"{seed}.pt")["network"]
        torch.manual_seed(seed)  # as reset_parameters draws
        start = MODELS["mlp"]().state_dict()
        for name in start:
            for end in (own[name], stacked[name][e]):
                assert torch.equal(end, start[name]) == (name in names), name
        assert both.gaps[e] == pytest.approx(alone[e].gaps[0], rel=1e-4)


def test_frozen_digits_have_the_same_gap_alone_and_in_an_ensemble():
    images, labels = load_images("digits", [20, 20, 10])
    model = MLP((1, 8, 8), (16,), 4)
    model.requires_grad_(False)
    run = lambda seeds: train_network(
        model,
        images,
        labels,
        [UFM.from_lam_z([20, 20, 10], 0.01)] * len(seeds),
        epochs=20,
        seed=seeds,
        device="cpu",
    )
    assert run([3, 4]).gaps == pytest.approx([run([3]).gaps[0], run([4]).gaps[0]], rel=1e-4)


def test_the_same_network_with_other_parts_frozen_is_another_run(tmp_path):
    noise_run(checkpoint=tmp_path / "run.pt")
    with pytest.raises(OtherRun):
        noise_run(frozen(MODELS["mlp"](), "1.weight"), checkpoint=tmp_path / "run.pt")


class Shift(nn.Module):
    """Draws its own parameter, as the modules of torch do."""

    def __init__(self):
        super().__init__()
        self.shift = nn.Parameter(torch.zeros(5))

    def reset_parameters(self):
        nn.init.normal_(self.shift)

    def forward(self, x):
        return x + self.shift


@pytest.mark.parametrize(
    "model, name",
    [
        (Own(lambda H, module: H + module.shift, shift=0.5), "shift"),
        (
            with_dim(nn.Flatten(), nn.utils.parametrizations.weight_norm(nn.Linear(16, 5))),
            "1.parametrizations.weight.original0",
        ),
        (with_dim(nn.Flatten(), nn.LazyLinear(5)), "1.weight"),
        (
            with_dim(nn.Flatten(), nn.LazyBatchNorm1d(affine=False), nn.Linear(16, 5)),
            "1.running_mean",
        ),
    ],
)
@pytest.mark.parametrize("ufms", [Q1, [Q1, Q2]], ids=["one", "stack"])
def test_a_parameter_that_no_seed_would_draw_is_refused_by_name_before_any_work(
    monkeypatch, model, name, ufms
):
    monkeypatch.setattr("ncutils.training.model.solve", refuse_to_solve)
    before = torch.get_rng_state()
    with pytest.raises(ValueError, match=f"model.*{re.escape(repr(name))}.*must"):
        noise_run(model, ufms)
    assert torch.equal(torch.get_rng_state(), before)


def test_a_frozen_parameter_may_be_a_constant_of_the_model():
    """No seed draws it, and none has to."""
    model = frozen(Own(lambda H, module: H + module.shift, shift=0.5), "shift")
    zero = frozen(Own(lambda H, module: H + module.shift, shift=0.0), "shift")
    for ufms in (Q1, [Q1, Q2]):
        assert noise_run(model, ufms)[0].start == pytest.approx(
            noise_run(zero, ufms)[0].start + 0.5, abs=1e-6
        )


class Attention(nn.Module):
    """Over the rows of an image; its weights are drawn by a `_reset_parameters`."""

    dim = 16

    def __init__(self):
        super().__init__()
        self.attention = nn.MultiheadAttention(4, 2, batch_first=True)

    def forward(self, x):
        return self.attention(x[:, 0], x[:, 0], x[:, 0], need_weights=False)[0].flatten(1)


@pytest.mark.parametrize(
    "make",
    [lambda: with_dim(nn.Flatten(), nn.Linear(16, 5), Shift()), Attention],
    ids=["own", "attention"],
)
def test_every_parameter_is_drawn_by_the_seed_whatever_it_was(make):
    model = make()
    used = make()
    with torch.no_grad():
        for p in used.parameters():
            p.fill_(7)
    one, again, other = noise_run(model, seed=1), noise_run(used, seed=1), noise_run(model, seed=2)
    assert_equal(one, again)
    assert np.abs(one[0].start - other[0].start).max() > 0.01


F, GENERATOR = nn.functional, np.random.default_rng(0)


@pytest.mark.parametrize(
    "model",
    [
        with_dim(nn.Flatten(), nn.Dropout(), nn.Linear(16, 5)),
        with_dim(nn.Flatten(), nn.Linear(16, 5), nn.AlphaDropout(0.1)),
        with_dim(nn.Flatten(), nn.Linear(16, 5), nn.RReLU()),
        Own(lambda H, module: F.dropout(H, 0.1, module.training)),
        Own(lambda H, module: H + 0.01 * torch.randn_like(H)),
        Own(lambda H, module: H + GENERATOR.normal(scale=0.01)),
    ],
    ids=["dropout", "alpha", "rrelu", "function", "noise", "numpy"],
)
@pytest.mark.parametrize("ufms", [Q1, [Q1, Q2]], ids=["one", "stack"])
def test_a_random_model_is_refused_before_any_work(monkeypatch, model, ufms):
    monkeypatch.setattr("ncutils.training.model.solve", refuse_to_solve)
    before = torch.get_rng_state()
    with pytest.raises(
        ValueError, match="model gives other features .* same images .* must not be random"
    ):
        noise_run(model, ufms)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("ufms", [Q1, [Q1, Q2]], ids=["one", "stack"])
def test_dropout_that_drops_nothing_is_nothing(ufms):
    without = noise_run(with_dim(nn.Flatten(), nn.Linear(16, 5)), ufms)
    assert_equal(
        noise_run(with_dim(nn.Flatten(), nn.Linear(16, 5), nn.Dropout(0.0)), ufms), without
    )


# Images and labels --------------------------------------------------------------------------------

BYTES = RNG.integers(0, 256, (14, 3, 4, 4), dtype=np.uint8)


@pytest.mark.parametrize("recipe", ["fast", "authors"])
def test_bytes_are_as_good_as_numbers(recipe):
    """Images are normalised, so that the unit does not matter."""
    setting = dict(model=ConvNet((3, 4, 4), (3,), 5), ufms=[Q1, Q2], recipe=recipe)
    numbers, *bytes_ = (
        noise_run(images=images, **setting) for images in (BYTES / 255, BYTES, torch.tensor(BYTES))
    )
    for trained in bytes_:
        for model, twin in zip(trained, numbers):
            for part, same in zip(parts(model), parts(twin)):
                assert part == pytest.approx(same, abs=1e-4)


@pytest.mark.parametrize(
    "images, message",
    [
        (BYTES[:, 0], r"images has shape \(14, 4, 4\): must have 4 dimensions and no empty one"),
        (BYTES[None], "must have 4 dimensions"),
        (BYTES[:, :, :0], r"images has shape \(14, 3, 0, 4\)"),
        (BYTES[:0], "no empty one"),
        (BYTES[:13], "must be 13 class indices"),
        (BYTES * 0, "images are all the same number"),
        (BYTES[:, :2], "which model does not take"),
        (BYTES.astype(str), "array of real numbers"),
        (BYTES.astype(complex), "array of real numbers"),
        (BYTES * math.nan, "holds NaN or infinite"),
    ],
)
def test_bytes_of_a_wrong_shape_are_refused_before_any_work(monkeypatch, images, message):
    monkeypatch.setattr("ncutils.training.model.solve", refuse_to_solve)
    with pytest.raises(ValueError, match=message):
        noise_run(ConvNet((3, 4, 4), (3,), 5), images=images)


@pytest.mark.parametrize("kind", [np.int64, np.int32, np.uint8])
def test_labels_of_any_integer_type_are_taken(kind):
    assert_equal(noise_run(labels=KINDS.astype(kind)), noise_run())


@pytest.mark.parametrize(
    "argument, value",
    [("images", NOISE), ("images", BYTES[:, :1]), ("labels", KINDS)],
    ids=["numbers", "bytes", "labels"],
)
def test_a_view_is_as_good_as_a_copy(argument, value):
    assert_equal(noise_run(**{argument: value[::-1].copy()[::-1]}), noise_run(**{argument: value}))


@pytest.mark.parametrize(
    "argument, value",
    [("images", NOISE), ("images", BYTES[:, :1]), ("labels", KINDS)],
    ids=["numbers", "bytes", "labels"],
)
def test_read_only_arrays_are_taken_in_silence(argument, value):
    value = value.copy()
    value.flags.writeable = False
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        torch.set_warn_always(True)  # torch gives some warnings once in a process
        try:
            noise_run(**{argument: value}, epochs=1)
        finally:
            torch.set_warn_always(False)


def test_a_record_that_is_no_list_is_refused():
    with pytest.raises(ValueError, match="record"):
        noise_run(record=3)


@pytest.mark.parametrize(
    "argument, message",
    [
        (dict(record=[0]), "record = 0: must be a whole number >= 1"),
        (dict(record=[1.5]), "record = 1.5"),
        (dict(weight_decay=-1), "weight_decay = -1"),
        (dict(weight_decay=math.nan), "weight_decay = nan"),
        (dict(weight_decay=None), "weight_decay = None"),
        (dict(recipe="sgd"), "recipe = 'sgd': must be one of 'authors', 'fast'"),
        (dict(recipe=None), "recipe = None"),
    ],
)
def test_other_arguments_are_refused_before_any_work(monkeypatch, argument, message):
    monkeypatch.setattr("ncutils.training.model.solve", refuse_to_solve)
    with pytest.raises(ValueError, match=message):
        noise_run(**argument)


def test_a_checkpoint_that_is_a_folder_is_refused_before_any_work(monkeypatch, tmp_path):
    monkeypatch.setattr("ncutils.training.model.solve", refuse_to_solve)
    with pytest.raises(ValueError, match="checkpoint = .*is a folder, must be a file"):
        noise_run(checkpoint=tmp_path)


# Records ------------------------------------------------------------------------------------------

MEASURES = [
    "objective",
    "gap",
    "gap_linear",
    "gap_relu",
    "error_linear",
    "error_relu",
    "nc1",
    "trace_ratio",
    "a_b",
    "length_a",
    "length_b",
    "cos_a",
    "cos_b",
    "cos_ab",
    "accuracy_a",
    "accuracy_b",
]


def by_hand(ufm, W, H, b, labels, features, A, B):
    """All measures of a network, with loops."""
    K, N = ufm.num_classes, len(labels)
    means = [np.mean([h for h, label in zip(H.T, labels) if label == k], axis=0) for k in range(K)]
    Z = np.stack([W @ mean for mean in means], axis=1)
    found, grand = {"objective": ufm_objective(ufm, W, H, b, labels)}, H.mean(axis=1)
    for kind in ("linear", "relu"):
        exact = solve(ufm, features=kind, tol=1e-12)
        found[f"gap_{kind}"] = (found["objective"] - exact.objective) / exact.objective
        size = math.sqrt((exact.logits**2).sum())
        found[f"error_{kind}"] = (
            math.sqrt(((Z - exact.logits) ** 2).sum()) / size if size else math.nan
        )
    within = sum(np.outer(h - means[label], h - means[label]) for h, label in zip(H.T, labels)) / N
    between = sum(np.outer(means[label] - grand, means[label] - grand) for label in labels) / N
    found["nc1"] = (
        np.trace(within @ np.linalg.pinv(between, rcond=1e-6)) / K if between.any() else math.nan
    )
    found["trace_ratio"] = np.trace(within) / np.trace(between) if between.any() else math.nan
    length = lambda k: math.sqrt((Z[:, k] ** 2).sum())
    cosine = lambda k, l: (
        float(Z[:, k] @ Z[:, l]) / length(k) / length(l)
        if Z[:, k].any() and Z[:, l].any()
        else math.nan
    )
    average = lambda values: sum(values) / len(values) if values else math.nan
    right = [np.argmax(W @ h + b) == label for h, label in zip(H.T, labels)]
    for name, group in (("a", A), ("b", B)):
        found[f"length_{name}"] = average([length(k) for k in group])
        found[f"cos_{name}"] = average([cosine(k, l) for k in group for l in group if k != l])
        found[f"accuracy_{name}"] = average(
            [r for r, label in zip(right, labels) if label in group]
        )
    found["cos_ab"] = average([cosine(k, l) for k in A for l in B if k != l])
    found["a_b"] = (
        average([Z[k, k] for k in B]) - average([Z[k, l] for k in B for l in B if k != l])
        if len(B) > 1
        else math.nan
    )
    return found | {"gap": found[f"gap_{features}"]}


@pytest.mark.parametrize(
    "sizes, A, B",
    [
        ([5, 2, 5, 2], [0, 2], [1, 3]),
        ([6, 5, 3], [0], [2]),
        ([4, 4, 4], [0, 1, 2], [0, 1, 2]),
        ([2, 6, 2, 3, 1], [1], [4]),
        ([1, 1, 7, 5], [2], [0, 1]),
    ],
    ids=str,
)
@pytest.mark.parametrize("model", ["mlp", "relu"])
def test_every_number_of_the_history_is_what_its_name_says(sizes, A, B, model):
    """A are the largest classes, B the smallest, both all of them where classes are balanced."""
    labels = np.random.default_rng(1).permutation(np.repeat(range(len(sizes)), sizes))
    kind = "relu" if model == "relu" else "linear"
    ufms = [
        UFM(sizes, 0.03, 0.001, 0.02),
        UFM(sizes, 0.02, 0.002),
        UFM(sizes, 1.0, 1.0),
    ]  # the last one's optimum is Z = 0
    trained = noise_run(
        model, ufms, NOISE[: len(labels)], labels, epochs=25, lr=0.01, batch_size=7, seed=[1, 2, 3]
    )
    row = trained.history[-1]
    assert set(row) == {"epoch", "seconds", "peak_mib", *MEASURES} and row["epoch"] == 25
    for e, ufm in enumerate(ufms):
        expected = by_hand(
            ufm, trained[e].classifier(), trained[e].features, trained[e].bias, labels, kind, A, B
        )
        assert set(expected) == set(MEASURES)
        for name, value in expected.items():
            assert row[name].shape == (3,) and row[name][e] == pytest.approx(
                value, rel=1e-7, abs=1e-9, nan_ok=True
            ), name
        assert math.isnan(row["error_linear"][e]) == math.isnan(row["error_relu"][e]) == (e == 2)
        assert math.isnan(row["a_b"][e]) == (len(B) == 1)
    assert (
        np.isnan(row["cos_a"][:2]).tolist() == [len(A) == 1] * 2
        and np.isnan(row["cos_b"][:2]).tolist() == [len(B) == 1] * 2
    )
    assert trained.gaps == pytest.approx(row["gap"], rel=1e-9) and row["gap"][0] > 0
    if A == B:
        assert all(
            np.array_equal(row[name], row["cos_ab"], equal_nan=True) for name in ("cos_a", "cos_b")
        )


def test_the_gap_is_that_of_the_features_that_are_asked_for():
    for features in ("linear", "relu"):
        row = noise_run("relu", [Q1, Q2], features=features).history[-1]
        assert (row["gap"] == row[f"gap_{features}"]).all() and (
            row["gap_linear"] != row["gap_relu"]
        ).all()


@pytest.mark.parametrize(
    "record, epochs",
    [
        ([2, 4], [2, 4, 6]),
        ([], [6]),
        ((6,), [6]),
        (range(1, 7), [1, 2, 3, 4, 5, 6]),
        ([3, 3, 100], [3, 6]),
        (np.array([5]), [5, 6]),
        (dict.fromkeys([1, 2]).keys(), [1, 2, 6]),
        (None, geometric_grid(6)),
    ],
    ids=str,
)
def test_the_epochs_asked_for_are_recorded_and_the_last(record, epochs):
    trained = noise_run(record=record)
    assert [row["epoch"] for row in trained.history] == epochs
    assert trained.history[-1]["objective"] == pytest.approx(trained.objectives, rel=1e-14)


# Recipes ------------------------------------------------------------------------------------------


def authors_loop(epochs, warm_start):
    """(learning rate, multiple of λ_W and λ_H, of λ_b) in each epoch, from the authors' loop with
    its if and elif.
    """
    lr, eased = 0.01, 1.0
    first, second = (
        (int(epochs / 3), int(epochs / 3 * 2)) if warm_start else (int(epochs / 6), int(epochs / 3))
    )
    for epoch in range(epochs):
        if epoch == first:
            lr = 0.1 / 10
        elif epoch == second:
            lr = 0.1 / 100
        if warm_start and epoch == 0:
            eased /= 10
        if warm_start and epoch == int(epochs / 6):
            eased *= 10
        yield lr, eased, 1.0


@pytest.mark.parametrize("warm_start", [True, False])
def test_the_authors_recipe_is_the_authors_loop(warm_start):
    way = RECIPES["authors"]
    for epochs in [*range(1, 41), 150, 350, 2000]:
        lrs, *eased = zip(*authors_loop(epochs, warm_start))
        for batches in (1, 3, 79):
            for step in {1, (batches + 1) // 2, batches}:
                found = [
                    way.lr * way.rate(epoch + step / batches, epochs, warm_start)
                    for epoch in range(epochs)
                ]
                assert found == pytest.approx(list(lrs), rel=1e-12)
        if warm_start:  # without, it is not asked
            assert np.array(
                [way.ease(epoch, epochs) for epoch in range(epochs)]
            ).T == pytest.approx(np.array(eased), rel=1e-12)


def test_the_authors_epochs_by_name():
    way = RECIPES["authors"]
    rate = lambda epoch, epochs, warm_start: [
        0.01 * way.rate(epoch + part, epochs, warm_start) for part in (1e-9, 0.5, 1)
    ]
    assert rate(0, 2000, True) == rate(665, 2000, True) == rate(1332, 2000, True) == [0.01] * 3
    assert rate(1333, 2000, True) == rate(1999, 2000, True) == pytest.approx([0.001] * 3)
    assert rate(665, 2000, False) == [0.01] * 3 and rate(666, 2000, False) == pytest.approx(
        [0.001] * 3
    )
    assert [way.ease(epoch, 2000) for epoch in (0, 332, 333, 1999)] == [(0.1, 1.0)] * 2 + [
        (1.0, 1.0)
    ] * 2
    assert (
        rate(0, 1, True)
        == rate(0, 1, False)
        == rate(0, 2, True)
        == rate(1, 2, False)
        == rate(1, 3, True)
        == [0.01] * 3
    )
    assert rate(1, 2, True) == rate(1, 3, False) == rate(2, 3, True) == pytest.approx([0.001] * 3)
    assert all(
        way.ease(epoch, epochs) == (1.0, 1.0)
        for epochs in (1, 2, 3, 4, 5)
        for epoch in range(epochs)
    )
    assert [way.ease(epoch, 6) for epoch in (0, 1)] == [(0.1, 1.0), (1.0, 1.0)]


def test_the_rate_that_the_optimizer_gets_is_that_of_the_recipe(monkeypatch):
    """In each of three batches of 12 epochs, lr being the largest."""
    for recipe, name in (("authors", "SGD"), ("fast", "Adam")):
        rates, kind = [], getattr(torch.optim, name)

        class Spy(kind):
            def step(self, *args, **options):
                rates.append({group["lr"] for group in self.param_groups})
                return super().step(*args, **options)

        monkeypatch.setattr(torch.optim, name, Spy)
        noise_run(recipe=recipe, epochs=12, lr=0.004)
        expected = (
            [0.004] * 24 + [0.0004] * 12
            if recipe == "authors"
            else [
                0.004 * min(1, t / 0.36) * (1 + math.cos(math.pi * t / 12)) / 2
                for t in np.arange(1, 37) / 3
            ]
        )
        assert [len(rate) for rate in rates] == [1] * 36 and [
            min(rate) for rate in rates
        ] == pytest.approx(expected, abs=1e-12)


def test_the_fast_recipe_warms_up_and_cools_down():
    way = RECIPES["fast"]
    for warm_start in (True, False):
        rate = lambda done: way.rate(done, 200, warm_start)
        assert rate(3) == pytest.approx(0.5 * (1 + math.cos(math.pi * 0.015)) / 2)
        assert rate(6) == pytest.approx((1 + math.cos(math.pi * 0.03)) / 2)
        assert (
            rate(100) == pytest.approx(0.5)
            and rate(200) == 0
            and rate(50) == pytest.approx((1 + math.sqrt(0.5)) / 2)
        )
    assert [way.ease(epoch, 12) for epoch in (0, 1, 2, 11)] == [(0.1, 0.1)] * 2 + [(1.0, 1.0)] * 2
    assert [way.ease(epoch, 200) for epoch in (32, 33)] == [(0.1, 0.1), (1.0, 1.0)] and way.ease(
        0, 5
    ) == (1.0, 1.0)


def test_classifiers_start_as_each_recipe_says():
    torch.manual_seed(5)
    linear = nn.Linear(7, 4)
    torch.manual_seed(5)
    W, b = RECIPES["authors"].classifier(4, 7)
    assert (
        torch.equal(W, linear.weight)
        and torch.equal(b, linear.bias)
        and not W.requires_grad
        and not b.requires_grad
    )
    W, b = RECIPES["authors"].classifier(300, 100)  # uniform up to 1/sqrt(d)
    for part in (W, b):
        assert (
            part.abs().max() <= 0.1
            and part.std().item() == pytest.approx(0.1 / math.sqrt(3), rel=0.1)
            and abs(part.mean()) < 0.015
        )
    W, b = RECIPES["fast"].classifier(300, 100)
    assert (
        W.shape == (300, 100)
        and W.std().item() == pytest.approx(0.1, rel=0.02)
        and W.abs().max() > 0.3
    )
    assert b.shape == (300,) and not b.any()


@pytest.mark.parametrize("recipe, name", [("authors", "SGD"), ("fast", "Adam")])
def test_a_network_starts_with_the_classifier_of_its_recipe(monkeypatch, recipe, name):
    start = []
    monkeypatch.setattr(torch.optim, name, recording(getattr(torch.optim, name), start))
    noise_run(ufms=[Q1, Q2], seed=[9, 4], recipe=recipe, epochs=1)
    for e, seed in enumerate((9, 4)):
        torch.manual_seed(seed)
        first, second = nn.Linear(16, 6), nn.Linear(6, 5)  # as an MLP does
        W, b = RECIPES[recipe].classifier(3, 5)
        for part, drawn in zip(start, (first.weight, first.bias, second.weight, second.bias, W, b)):
            assert torch.equal(part[e], drawn)


def test_images_are_normalised_by_channel_or_by_pixel():
    x = torch.tensor(BYTES).float() * torch.tensor([1.0, 10.0, 0.1])[:, None, None] + 7
    scaled = RECIPES["authors"].scale(x)
    assert scaled.mean((0, 2, 3)).numpy() == pytest.approx(np.zeros(3), abs=1e-5)
    assert scaled.std((0, 2, 3)).numpy() == pytest.approx(np.ones(3), abs=1e-5)
    assert torch.allclose(scaled[3, 1] * x[:, 1].std() + x[:, 1].mean(), x[3, 1], rtol=1e-4)
    scaled = RECIPES["fast"].scale(x)
    assert scaled.mean(0).numpy() == pytest.approx(np.zeros((3, 4, 4)), abs=1e-6)
    assert torch.allclose(scaled * x.std() + x.mean(0), x, rtol=1e-4)  # one factor for all


def test_a_channel_without_contrast_is_no_harm():
    images = np.concatenate([NOISE, np.full_like(NOISE, 0.5)], axis=1)
    assert np.isfinite(
        noise_run(MLP((2, 4, 4), (6,), 5), images=images, recipe="authors").gaps
    ).all()


# bfloat16 and compilation -------------------------------------------------------------------------


@pytest.mark.parametrize("recipe", ["fast", "authors"])
@pytest.mark.parametrize(
    "model, ufms",
    [("convnet", Q1), ("batch norm", Q1), ("mlp", [Q1, Q2]), ("batch norm", [Q1, Q2])],
)
def test_bfloat16_is_used_for_the_network_only_and_ends_near_float32(tmp_path, model, ufms, recipe):
    exact = noise_run(model, ufms, recipe=recipe)
    rough = noise_run(model, ufms, recipe=recipe, amp=True, checkpoint=tmp_path / "run.pt")
    state = read(tmp_path / "run.pt")
    kept = [
        state["W"],
        state["b"],
        *(part for part in state["network"].values() if part.is_floating_point()),
    ]
    assert {part.dtype for part in kept} == {torch.float32} and rough[
        0
    ].features.dtype == np.float64
    for place in (0, 2):  # W and H
        one, other = (np.array([parts(model)[place] for model in run]) for run in (exact, rough))
        assert 0 < np.linalg.norm(one - other) < 0.1 * np.linalg.norm(one)
    assert all((a.start == b.start).all() for a, b in zip(exact, rough))  # evaluated in float32
    assert rough.objectives == pytest.approx(exact.objectives, rel=0.02)


def test_bfloat16_is_not_used_on_a_cpu_unless_asked_for(monkeypatch):
    """Nor for anything outside of the network."""
    asked, autocast = [], torch.autocast

    def spy(*args, **options):
        asked.append((args, options["enabled"]))
        return autocast(*args, **options)

    monkeypatch.setattr(torch, "autocast", spy)
    for amp in (None, False, True):
        noise_run(amp=amp)
    assert [enabled for _, enabled in asked] == [False] * 36 + [True] * 18
    assert {args for args, _ in asked} == {("cpu", torch.bfloat16)}


@pytest.mark.parametrize("able", [True, False])
def test_bfloat16_is_used_on_a_gpu_that_has_it(monkeypatch, able):
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda *_, **__: able)
    assert (
        uses_bfloat16(torch.device("cuda:0")) is able
        and uses_bfloat16(torch.device("cpu")) is False
    )


@pytest.mark.parametrize(
    "ufms, seed", [(Q1, 0), ([Q1, Q2], 0), ([Q1, Q2], [1, 2])], ids=["one", "stack", "own seeds"]
)
@pytest.mark.parametrize("compiled", [True, False])
def test_a_network_is_compiled_where_asked_for(monkeypatch, compiled, ufms, seed):
    calls = []

    def recorder(function):
        def call(*args):
            calls.append(1)
            return function(*args)

        return call

    plain = noise_run("batch norm", ufms, seed=seed)
    monkeypatch.setattr(torch, "compile", recorder)
    assert_equal(noise_run("batch norm", ufms, seed=seed, compiled=compiled), plain)
    assert len(calls) >= 18 if compiled else not calls  # every batch


# GPU ----------------------------------------------------------------------------------------------


@needs_gpu
@pytest.mark.parametrize("ufms, seed", [(Q1, 0), ([Q1, Q2], [1, 2])], ids=["one", "stack"])
def test_on_a_gpu_features_are_close_to_those_of_the_cpu(ufms, seed):
    cpu, gpu, rough = (
        noise_run("batch norm", ufms, seed=seed, device=device, amp=amp)
        for device, amp in (("cpu", False), ("cuda", False), ("cuda", None))
    )
    for e, H in enumerate(model.features for model in cpu):
        assert gpu[e].start == pytest.approx(cpu[e].start, abs=1e-2)
        assert np.linalg.norm(gpu[e].features - H) < 0.02 * np.linalg.norm(H)
        assert np.linalg.norm(rough[e].features - H) < 0.1 * np.linalg.norm(H)
    assert all(row["peak_mib"] > 0 for row in gpu.history)


@needs_gpu
def test_bfloat16_is_used_on_a_gpu_unless_refused(monkeypatch):
    asked, autocast = [], torch.autocast

    def spy(*args, **options):
        asked.append(options["enabled"])
        return autocast(*args, **options)

    monkeypatch.setattr(torch, "autocast", spy)
    for amp in (None, False):
        noise_run(amp=amp, device="cuda", epochs=1)
    assert asked == [True] * 3 + [False] * 3


@needs_gpu
def test_a_run_on_a_gpu_goes_on_from_its_checkpoint(tmp_path):
    setting = dict(model="batch norm", ufms=[Q1, Q2], seed=[1, 2], device="cuda")
    whole = noise_run(**setting)
    setting |= dict(checkpoint=tmp_path / "run.pt", checkpoint_seconds=0)
    interrupted(11, **setting)
    again = noise_run(**setting)
    assert all(
        a.classifier() == pytest.approx(b.classifier(), abs=1e-2) for a, b in zip(again, whole)
    )
    with pytest.raises(OtherRun, match="is of another run"):  # in float32
        noise_run(**(setting | dict(device="cpu")))
    on_cpu = noise_run(
        **(setting | dict(device="cpu", amp=True))
    )  # complete: nothing is trained, only the weights are moved
    assert all((a.classifier() == b.classifier()).all() for a, b in zip(on_cpu, again))
