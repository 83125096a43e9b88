"""What training of networks minimises, on digits and step by step."""

import math

import numpy as np
import pytest
import torch
from noise import KINDS, MODELS, NOISE, Q1, Q2, noise_run
from pytest import approx
from small_runs import DIGITS, INF, P1, assert_equal, digits, matrix, read, recording, small_run
from torch import nn

from ncutils import MLP, UFM, train_network
from ncutils.training.free_features import geometric_grid
from ncutils.training.objective import ufm_objective


def on_digits(ufms, widths, dim, features="linear", **more):
    return train_network(
        MLP((1, 8, 8), widths, dim, features), *digits(), ufms, device="cpu", **more
    )


def test_networks_come_close_to_the_optimum_from_above_and_their_history_falls():
    """Two linear-feature networks, with and without bias, trained for seconds."""
    problems = [UFM.from_lam_z(DIGITS, 0.01, lam_b, balance=10) for lam_b in (0.02, INF)]
    networks = on_digits(problems, (64,), 16, epochs=100, batch_size=32, lr=1e-2)
    assert (networks.gaps > -1e-9).all() and (networks.gaps < 5e-3).all()
    assert all(model.error < 0.1 for model in networks)
    assert (networks.history[-1]["nc1"] < 0.02).all()
    assert [row["epoch"] for row in networks.history] == geometric_grid(100)
    objectives = np.array([row["objective"] for row in networks.history])
    assert (objectives[-1] < 0.8 * objectives[0]).all()
    assert all((row["gap"] > -1e-9).all() for row in networks.history)
    assert networks.history[-1]["gap"] == approx(networks.gaps, rel=1e-12)
    one, other = networks
    assert one.bias.any() and not other.bias.any()
    assert one.features.shape == one.start.shape == (16, len(digits()[1]))
    assert one.features.min() < 0 < one.features.max()
    assert np.abs(one.start - other.start).max() > 0.01
    with pytest.raises(ValueError, match=r"classes = \[99\]"):
        one.accuracy([99])


@pytest.mark.parametrize("features", ["linear", "relu"])
def test_features_keep_their_kind_and_the_gap_its_sign(features):
    problem = UFM.from_lam_z(DIGITS, 0.01, 0.02, balance=10)
    trained = on_digits(problem, (32,), 8, features, epochs=15, batch_size=32, lr=1e-2)
    assert (trained[0].features.min() >= 0) == (features == "relu")
    assert trained[0].exact.features == features and trained.gaps[0] > 0
    assert trained.history[-1]["objective"][0] < trained.history[0]["objective"][0]


def test_the_program_to_compare_with_can_be_chosen():
    """The same network, above both exact optima."""
    model = MLP((1, 8, 8), (8,), 8, "relu")
    own, linear = (small_run(P1, model=model, features=kind) for kind in (None, "linear"))
    assert [run[0].exact.features for run in (own, linear)] == ["relu", "linear"]
    assert (own[0].classifier() == linear[0].classifier()).all()
    assert linear.gaps[0] > own.gaps[0] > 0


def test_a_part_of_the_model_may_be_called_features():
    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.features, self.dim = nn.Sequential(nn.Flatten(), nn.Linear(64, 8)), 8

        def forward(self, x):
            return self.features(x)

    assert small_run(P1, model=Model())[0].exact.features == "linear"


SETTINGS = {  # λ_b and class weights
    "bias": (0.02, None),
    "no bias": (INF, None),
    "weights": (0.02, (0.5, 2, 4)),
}
THIN = [("fast", True, 0.0, "weights"), ("fast", False, 0.1, "no bias")]
THIN += [("authors", True, 0.1, "bias"), ("authors", False, 0.0, "weights")]
STEPPED = matrix(["fast", "authors"], [True, False], [0.0, 0.1], SETTINGS, thin=THIN)


@pytest.mark.parametrize("recipe, warm_start, decay, setting", STEPPED)
def test_training_is_full_batch_descent_on_the_ufms_objective_step_by_step(
    monkeypatch, recipe, warm_start, decay, setting
):
    """The same steps with plain tensors: the network's own weights are not penalised but by their
    decay, and for the first sixth of the epochs the penalties are a tenth, but the authors' on
    b."""
    lam_b, class_weights = SETTINGS[setting]
    images, labels = np.random.default_rng(0).random((14, 1, 2, 3)), np.repeat([0, 1, 2], [6, 5, 3])
    problem, epochs = UFM([6, 5, 3], 0.05, 0.002, lam_b, class_weights), 72
    name, lr = ("Adam", 5e-3) if recipe == "fast" else ("SGD", 0.02)
    start, options = [], dict(warm_start=warm_start, recipe=recipe, weight_decay=decay, lr=lr)
    monkeypatch.setattr(torch.optim, name, recording(getattr(torch.optim, name), start))
    model = MLP((1, 2, 3), (4,), 5)
    trained = noise_run(model, problem, images, labels, epochs, batch_size=14, **options)
    parameters = [p.requires_grad_() for p in [*start[:4], start[4][0], start[5][0]]]
    w1, c1, w2, c2, W, b = parameters
    assert [tuple(p.shape) for p in parameters] == [(4, 6), (4,), (5, 4), (5,), (3, 5), (3,)]
    x = torch.tensor(images, dtype=torch.float32).flatten(1)
    x = (x - x.mean(0)) / x.std() if recipe == "fast" else (x - x.mean()) / x.std()  # one channel
    forward = lambda: torch.relu(x @ w1.T + c1) @ w2.T + c2
    speed, square = ([torch.zeros_like(p) for p in parameters] for _ in range(2))
    for step in range(1, epochs + 1):
        ease = 0.1 if warm_start and step <= 12 else 1.0
        ease_b = ease if recipe == "fast" else 1.0
        H = forward()
        bias, penalty = (b, 0.02 * b.square().sum()) if lam_b < INF else (torch.zeros(3), 0)
        loss = nn.functional.cross_entropy(H @ W.T + bias, torch.tensor(labels), reduction="none")
        value = (torch.tensor(class_weights or (1, 1, 1))[labels] * loss).mean()
        value = value + ease / 2 * (0.05 * W.square().sum() + 0.002 * H.square().sum())
        value = value + ease_b / 2 * penalty
        value = value + decay / 2 * sum(p.square().sum() for p in (w1, c1, w2, c2))
        slopes = torch.autograd.grad(value, parameters, allow_unused=True)
        with torch.no_grad():
            for p, g, v, s in zip(parameters, slopes, speed, square):
                if g is None:  # b where there is no bias
                    continue
                if recipe == "fast":
                    cooled = (1 + math.cos(math.pi * step / epochs)) / 2
                    rate = lr * min(1, step / (0.03 * epochs)) * cooled
                    v.mul_(0.9).add_(0.1 * g), s.mul_(0.99).add_(0.01 * g**2)
                    p -= rate * (v / (1 - 0.9**step)) / ((s / (1 - 0.99**step)).sqrt() + 1e-8)
                else:  # a tenth after two thirds of the epochs, or a third without warm start
                    v.mul_(0.9).add_(g)
                    p -= (lr if step <= (48 if warm_start else 24) else lr / 10) * v
    assert trained[0].classifier() == approx(W.detach().numpy(), abs=2e-5)
    assert trained[0].features.T == approx(forward().detach().numpy(), abs=2e-5)
    if lam_b < INF:
        assert trained[0].bias == approx(b.detach().numpy(), abs=2e-5)


def test_batches_together_weigh_every_sample_once():
    """With a learning rate so small that nothing moves, all batch sizes have the same objective and
    gradient sign.
    """
    train = lambda size: on_digits(P1, (8,), 8, epochs=2, batch_size=size, lr=1e-12)
    whole, batches = train(1000), train(37)
    assert whole.objectives == approx(batches.objectives, rel=1e-6)
    assert whole[0].features == approx(whole[0].start, abs=1e-5)


SEEDS = [(3, [3, 3]), ([3, 3], [3, 3]), ([3, 8], [3, 8]), (range(5, 7), [5, 6])]


def batches_of(generator):
    """The batches of an epoch of 14 images."""
    return torch.randperm(14, generator=generator).split(5)


@pytest.mark.parametrize("seeds, own", SEEDS, ids=str)
def test_batches_come_in_the_order_of_the_members_seed_and_weigh_as_much_as_they_hold(
    monkeypatch, seeds, own
):
    """Plain SGD on the loss of each batch, for each member by itself, from where it started."""
    images, start, ufms = NOISE.reshape(14, 1, 2, 8)[..., :3], [], [Q1, Q2]
    monkeypatch.setattr(torch.optim, "SGD", recording(torch.optim.SGD, start))
    options = dict(seed=seeds, recipe="authors", lr=0.05, warm_start=False)
    trained = noise_run(MLP((1, 2, 3), (4,), 5), ufms, images, **options)
    x = torch.tensor(images, dtype=torch.float32).flatten(1)
    x, y = (x - x.mean()) / x.std(), torch.tensor(KINDS)
    for e, problem in enumerate(ufms):
        w1, c1, w2, c2, W, b = parameters = [p[e].clone().requires_grad_() for p in start]
        forward = lambda x: torch.relu(x @ w1.T + c1) @ w2.T + c2
        assert trained[e].start.T == approx(forward(x).detach().numpy(), abs=1e-6)
        speed = [torch.zeros_like(p) for p in parameters]
        generator = torch.Generator().manual_seed(own[e])
        for epoch in range(6):
            for batch in batches_of(generator):
                H = forward(x[batch])
                value = nn.functional.cross_entropy(H @ W.T + b, y[batch])
                value = value + problem.lam_w / 2 * W.square().sum()
                value = value + problem.lam_h / 2 * 14 / len(batch) * H.square().sum()
                value = value + problem.lam_b / 2 * b.square().sum()
                with torch.no_grad():
                    for p, g, v in zip(parameters, torch.autograd.grad(value, parameters), speed):
                        v.mul_(0.9).add_(g)
                        p -= (0.05 if epoch < 2 else 0.005) * v
        assert trained[e].classifier() == approx(W.detach().numpy(), abs=2e-5)
        assert trained[e].bias == approx(b.detach().numpy(), abs=2e-5)
        assert trained[e].features.T == approx(forward(x).detach().numpy(), abs=2e-5)


one_or_a_stack = pytest.mark.parametrize("ufms", [Q1, [Q1, Q2]], ids=["one", "stack"])


@pytest.mark.parametrize(
    "ufms, seed", [(Q1, 3), ([Q1, Q2], 3), ([Q1, Q2], [3, 8])], ids=["one", "stack", "own seeds"]
)
def test_batch_norm_is_evaluated_with_running_statistics_of_the_batches_seen(tmp_path, ufms, seed):
    """Of a first layer they depend on the images and their order only."""
    options = dict(seed=seed, checkpoint=tmp_path / "run.pt", record=range(1, 7))
    trained = noise_run("batch norm first", ufms, **options)
    state = read(tmp_path / "run.pt")["network"]
    stacked = isinstance(ufms, list)
    x = torch.tensor(NOISE.reshape(14, 16)).float()
    x = (x - x.mean(0)) / x.std()
    for e, model in enumerate(trained):
        part = {name: value[e] if stacked else value for name, value in state.items()}
        generator = torch.Generator().manual_seed(seed[e] if isinstance(seed, list) else seed)
        mean, var = torch.zeros(16), torch.ones(16)
        for batch in [batch for _ in range(6) for batch in batches_of(generator)]:
            mean, var = 0.9 * mean + 0.1 * x[batch].mean(0), 0.9 * var + 0.1 * x[batch].var(0)
        assert int(part["1.num_batches_tracked"]) == 18
        assert part["1.running_mean"].numpy() == approx(mean.numpy(), abs=1e-6)
        assert part["1.running_var"].numpy() == approx(var.numpy(), abs=1e-6)

        def features(mean, var):
            normed = part["1.weight"] * (x - mean) / (var + 1e-5).sqrt() + part["1.bias"]
            return (normed @ part["2.weight"].T + part["2.bias"]).numpy().T

        H = features(mean, var)
        assert model.features == approx(H, abs=1e-5)
        of_the_batch = features(x.mean(0), x.var(0))
        assert np.abs(model.features - of_the_batch).max() > 0.01
        by_hand = ufm_objective(model.ufm, model.classifier(), H, model.bias, KINDS)
        assert trained.history[-1]["objective"][e] == approx(by_hand, rel=1e-5)


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


@one_or_a_stack
def test_looking_at_a_network_does_not_change_it_and_its_seed_fixes_it(ufms):
    often, seldom = (noise_run("batch norm", ufms, record=record) for record in (range(1, 7), []))
    assert [row["epoch"] for row in seldom.history] == [6]
    assert (often[0].features == seldom[0].features).all()
    assert (often[0].classifier() == seldom[0].classifier()).all()
    assert np.abs(noise_run("batch norm", ufms, seed=6)[0].start - often[0].start).max() > 0.01
