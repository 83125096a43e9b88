"""Training: UFMs reach the certified optimum, networks approach it from above."""

import math
import sys
import warnings

import numpy as np
import pytest
import torch
from torch import nn

from ncutils import MLP, UFM, load_images, metrics, solve, theory, train_network, train_ufm
from ncutils.device import pick_device
from ncutils.train import geometric_grid, ufm_objective

INF = math.inf
L_55 = [.0027, .0030, .0033, .0039, .0045, .0051, .0057, .0063, .0069, .0075]
SMALL = UFM.from_lam_z([8, 8, 3, 3], 0.04, 0.02, balance=4)


def ufm(sizes, l, lam_b=0.02):
    return UFM.from_lam_z(sizes, l, lam_b)


# UFMs ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_the_papers_settings_reach_the_optimum_within_200_iterations(seed):
    trained = train_ufm([ufm([500] * 5 + [100] * 5, l) for l in L_55], dim=10, seed=seed, tol=1e-9, device="cpu")
    assert trained.history[-1]["iteration"] <= 200
    assert (-1e-11 <= trained.gaps).all() and (trained.gaps <= 1e-9).all()
    assert trained.history[-1]["gap"] == pytest.approx(trained.gaps, abs=1e-13)
    for e, exact in enumerate(trained.exact):
        assert metrics.nc1(trained.features[e], trained.labels[e]) <= 1e-9
        assert trained.logits(e) == pytest.approx(exact.logits, abs=2e-3)  # a flat optimum
        assert metrics.nc1(trained.start[e], trained.labels[e]) > 0.1  # nothing was collapsed at the start
    assert np.abs(trained.logits(9)).max() < 1e-6  # trivial


PADDED = [UFM.from_lam_z([50, 50, 10, 10], .01, .02), UFM.from_lam_z([5] * 4, .05), UFM.from_lam_z([200, 1, 1, 7], .003, .1)]


def test_problems_of_different_size_in_one_batch_reach_their_own_optimum():
    batch = train_ufm(PADDED, dim=6, device="cpu")
    assert np.abs(batch.gaps).max() < 1e-11
    for e, problem in enumerate(PADDED):
        N = problem.num_samples
        assert batch.features[e].shape == batch.start[e].shape == (6, N) and batch.labels[e].tolist() == problem.labels.tolist()
        alone = train_ufm(problem, dim=6, device="cpu")
        assert batch.objectives[e] == pytest.approx(alone.objectives[0], rel=1e-11)
        assert batch.logits(e) == pytest.approx(alone.logits(0), abs=1e-4)
    assert not batch.biases[1].any() and batch.biases[[0, 2]].all()


def test_padding_adds_nothing_to_the_objective_from_the_first_step_on():
    trained = train_ufm(PADDED, dim=6, iterations=1, device="cpu")
    assert trained.history[0]["objective"] == pytest.approx(trained.objectives, rel=1e-13)


@pytest.mark.parametrize("sizes, l, lam_b", [
    ([30, 10], .05, .02), ([40, 20, 10], .01, INF), ([1] * 5, .05, .1), ([100, 40, 16, 6, 3, 1], .01, .05), ([7] * 3, .01, INF)])
def test_two_classes_single_samples_and_long_tails_are_trained_too(sizes, l, lam_b):
    trained = train_ufm(UFM.from_lam_z(sizes, l, lam_b, balance=10), dim=len(sizes) + 3, iterations=400, device="cpu")
    assert abs(trained.gaps[0]) < 1e-9
    assert trained.cosines(0, "features") == pytest.approx(trained.exact[0].cosines("features"), abs=1e-3)


def test_in_the_trivial_phase_everything_goes_to_zero():
    problem = UFM.from_lam_z([20, 20, 5, 5], 1.2 * math.sqrt(20) / 50, .02)
    assert theory.phase(problem) == theory.Phase.TRIVIAL
    trained = train_ufm(problem, dim=5, device="cpu")
    assert np.abs(trained.start[0]).max() > 0.1
    assert max(np.abs(trained.classifiers).max(), np.abs(trained.features[0]).max()) < 1e-8


def differentiated(trained):
    """W, H, b of the only member, a solution of SMALL, as tensors that hold the objective's gradient."""
    point = trained.classifiers[0], trained.features[0], trained.biases[0]
    W, H, b = (torch.tensor(array, requires_grad=True) for array in point)
    objective = nn.functional.cross_entropy((W @ H).T + b, torch.as_tensor(trained.labels[0]))
    for lam, parameter in ((SMALL.lam_w, W), (SMALL.lam_h, H), (SMALL.lam_b, b)):
        objective = objective + lam / 2 * parameter.square().sum()
    objective.backward()
    assert objective.item() == pytest.approx(trained.objectives[0], rel=1e-14)
    return W, H, b


def test_the_result_is_a_critical_point_by_automatic_differentiation():
    trained = train_ufm(SMALL, dim=5, iterations=300, device="cpu")
    for parameter in differentiated(trained):
        assert parameter.grad.abs().max() < 1e-7
    assert metrics.balance_residual(trained.classifiers[0], trained.features[0], SMALL) < 1e-6


def test_a_repeated_problem_gets_another_start_and_the_same_end():
    trained = train_ufm([SMALL, SMALL], dim=5, device="cpu")
    assert np.abs(trained.start[0] - trained.start[1]).max() > 0.1
    assert trained.exact[0] is trained.exact[1]
    assert trained.objectives[0] == pytest.approx(trained.objectives[1], rel=1e-11)


def test_the_seed_fixes_the_run():
    one, again, other = (train_ufm(SMALL, dim=5, seed=seed, iterations=7, device="cpu") for seed in (3, 3, 4))
    assert (one.features[0] == again.features[0]).all() and (one.classifiers == again.classifiers).all()
    assert np.abs(one.start[0] - other.start[0]).max() > 0.1


def test_history_is_on_a_geometric_grid_and_falls():
    trained = train_ufm(SMALL, dim=5, iterations=60, device="cpu")
    assert [row["iteration"] for row in trained.history] == geometric_grid(60)
    objective = np.array([row["objective"][0] for row in trained.history])
    assert objective[-1] < objective[0] and set(trained.history[0]) == {"iteration", "objective", "gap", "nc1", "trace_ratio"}
    for row in trained.history:
        assert row["gap"] == pytest.approx(row["objective"] / trained.exact[0].objective - 1)
    last = trained.history[-1]
    assert last["nc1"][0] == pytest.approx(metrics.nc1(trained.features[0], trained.labels[0]), rel=1e-12)
    assert last["trace_ratio"][0] == pytest.approx(metrics.trace_ratio(trained.features[0], trained.labels[0]), rel=1e-12)


def test_training_stops_once_the_tolerance_is_reached():
    loose, tight = (train_ufm(SMALL, dim=5, tol=tol, device="cpu") for tol in (1e-2, 1e-8))
    assert loose.history[-1]["iteration"] < tight.history[-1]["iteration"] < 200
    assert 1e-8 < loose.gaps[0] <= 1e-2 and tight.gaps[0] <= 1e-8


@pytest.mark.parametrize("last", [1, 2, 9, 10, 150, 12345])
def test_geometric_grid_has_both_ends_and_steady_ratios(last):
    grid = geometric_grid(last)
    assert grid[0] == 1 and grid[-1] == last and grid == sorted(set(grid))
    large = [b / a for a, b in zip(grid, grid[1:]) if 30 < a and b < last]
    assert all(ratio == pytest.approx(10 ** (1 / 8), rel=0.02) for ratio in large)


def test_the_objective_is_the_papers_sample_by_sample():
    rng = np.random.default_rng(0)
    W, H, b = rng.standard_normal((4, 5)), rng.standard_normal((5, 22)), rng.standard_normal(4)
    total = 0.0
    for h, k in zip(H.T, SMALL.labels):
        scores = W @ h + b
        total -= math.log(math.exp(scores[k]) / sum(math.exp(s) for s in scores)) / 22
    total += SMALL.lam_w / 2 * np.sum(W**2) + SMALL.lam_h / 2 * np.sum(H**2)
    assert ufm_objective(SMALL, W, H, b, SMALL.labels) == pytest.approx(total + 0.01 * np.sum(b**2), rel=1e-13)
    unbiased = UFM(SMALL.class_sizes, SMALL.lam_w, SMALL.lam_h)
    assert ufm_objective(unbiased, W, H, b, SMALL.labels) == pytest.approx(total, rel=1e-13)
    assert ufm_objective(unbiased, 1e4 * W, H, b, SMALL.labels) < INF  # large logits do not overflow


def test_views_of_a_trained_model():
    trained = train_ufm([SMALL, SMALL], dim=5, iterations=20, device="cpu")
    W, H, b, labels = trained.classifiers[1], trained.features[1], trained.biases[1], trained.labels[1]
    means = np.stack([H[:, labels == k].mean(axis=1) for k in range(4)], axis=1)
    assert trained.class_means(1) == pytest.approx(means, abs=1e-14)
    assert trained.logits(1) == pytest.approx(W @ means, abs=1e-13)
    for of, matrix in (("logits", W @ means), ("features", means), ("classifier", W.T)):
        assert trained.cosines(1, of) == pytest.approx(metrics.cosines(matrix), abs=1e-12)
    right = (W @ H + b[:, None]).argmax(axis=0) == labels
    for classes in ([0, 1], [2, 3], [3]):
        assert trained.accuracy(1, classes) == np.mean(right[np.isin(labels, classes)])


# Nonnegative features -----------------------------------------------------------------------------

TENTH = [50] * 5 + [10] * 5  # a tenth of the paper's sizes: Z is that of λ_Z/sqrt(10)


def tenth(l, lam_b=0.02):
    return UFM.from_lam_z(TENTH, l * math.sqrt(10), lam_b)


def own_classes(trained, e):
    """Which classes have features at all (K,)."""
    lengths = np.linalg.norm(trained.class_means(e), axis=0)
    return lengths > 1e-6 * lengths.max()


def test_with_many_nonnegative_features_training_reaches_the_optimum():
    problems = [tenth(.0015), tenth(.0027), tenth(.0033), tenth(.0045), tenth(.0075), tenth(.0020, INF)]
    trained = train_ufm(problems, dim=160, tol=1e-9, features="relu", device="cpu")
    assert trained.history[-1]["iteration"] < 200
    assert (-1e-11 <= trained.gaps).all() and (trained.gaps <= 1e-9).all()
    for e, exact in enumerate(trained.exact):
        assert exact.features == "relu" and exact.certified
        assert trained.start[e].min() == 0 < trained.start[e].max() and trained.features[e].min() >= 0
        assert trained.logits(e) == pytest.approx(exact.logits, abs=5e-3)  # a flat optimum
        if exact.rank == 10:
            assert trained.cosines(e, "features") == pytest.approx(np.eye(10), abs=1e-6)
            assert metrics.nc1(trained.features[e], trained.labels[e]) <= 1e-9
    assert np.abs(trained.logits(4)).max() < 1e-4  # trivial
    without_bias = theory.relu_logits(TENTH, problems[5].lam_z)
    assert trained.logits(5) == pytest.approx(without_bias, abs=5e-3)


def test_with_few_features_classes_go_missing_and_each_costs_the_same():
    """Without bias classes do not interact, so that a stuck run's gap counts the classes without a feature."""
    problem, K = tenth(.0027, INF), 10
    trained = train_ufm([problem] * 8, dim=K, iterations=400, features="relu", device="cpu")
    z = theory.relu_logits(TENTH, problem.lam_z)[:, -1]
    loss = 10 / 300 * (math.log(np.exp(z).sum()) - z[-1]) + problem.lam_z * math.sqrt(10) * np.linalg.norm(z)
    cost = (10 / 300 * math.log(K) - loss) / trained.exact[0].objective
    for e, gap in enumerate(trained.gaps):
        assert own_classes(trained, e)[:5].all()
        assert gap == pytest.approx(cost * (~own_classes(trained, e)).sum(), abs=1e-8)
    assert (trained.gaps > cost / 2).any()


UNCERTIFIED = UFM.from_lam_z([40, 40, 5, 5], .03, 1e-3)  # sharing a feature pays for the two small classes


def test_a_better_optimum_than_the_exact_upper_bound_has_a_gap_below_zero_and_is_not_stopped_early():
    trained = train_ufm(UNCERTIFIED, dim=16, iterations=400, tol=1e-9, features="relu", device="cpu")
    exact = trained.exact[0]
    assert not exact.certified and trained.history[-1]["iteration"] == 400
    assert -exact.relative_gap <= trained.gaps[0] < -1e-6
    assert trained.history[-1]["gap"] == pytest.approx(trained.gaps, abs=1e-13)
    assert not exact.logits[:, 2:].any() and trained.cosines(0, "features")[2, 3] == pytest.approx(1, abs=1e-6)


def test_the_result_with_nonnegative_features_is_a_critical_point_by_automatic_differentiation():
    trained = train_ufm(SMALL, dim=16, iterations=400, features="relu", device="cpu")
    W, H, b = differentiated(trained)
    assert max(W.grad.abs().max(), b.grad.abs().max(), (H * H.grad).abs().max(), -H.grad.min()) < 1e-7
    assert (H == 0).any() and (H > 1e-3).any()


def test_dead_features_are_those_without_any_sample():
    trained = train_ufm([SMALL, SMALL], dim=6, iterations=1, device="cpu")
    trained.features[1][[0, 4]] = 0.0
    trained.features[1][2, 1:] = 0.0  # still alive on one sample
    assert [trained.dead_features(e) for e in (0, 1)] == [0, 2]


# Networks -----------------------------------------------------------------------------------------

DIGITS = [60] * 3 + [20] * 3


@pytest.fixture(scope="module")
def digits():
    return load_images("digits", DIGITS)


@pytest.fixture(scope="module")
def networks(digits):
    """Two linear-feature networks, with and without bias, trained for seconds."""
    problems = [UFM.from_lam_z(DIGITS, .01, lam_b, balance=10) for lam_b in (.02, INF)]
    return train_network(MLP((1, 8, 8), (64,), 16), *digits, problems, epochs=100, batch_size=32, lr=1e-2, device="cpu")


def test_networks_come_close_to_the_optimum_from_above(networks):
    assert (networks.gaps > -1e-9).all() and (networks.gaps < 5e-3).all()
    for e, exact in enumerate(networks.exact):
        assert np.linalg.norm(networks.logits(e) - exact.logits) < 0.1 * np.linalg.norm(exact.logits)
    assert (networks.history[-1]["nc1"] < 0.02).all()


def test_the_history_of_networks_is_above_the_optimum_and_falls(networks):
    assert [row["epoch"] for row in networks.history] == geometric_grid(100)
    objectives = np.array([row["objective"] for row in networks.history])
    assert (objectives[-1] < 0.8 * objectives[0]).all()
    assert all((row["gap"] > -1e-9).all() for row in networks.history)
    assert networks.history[-1]["gap"] == pytest.approx(networks.gaps, rel=1e-12)


def test_without_bias_the_bias_is_zero(networks):
    assert networks.biases[0].any() and not networks.biases[1].any()


def test_linear_features_have_both_signs_and_members_different_starts(networks, digits):
    assert networks.features[0].shape == (16, len(digits[1]))
    assert networks.features[0].min() < 0 < networks.features[0].max()
    assert np.abs(networks.start[0] - networks.start[1]).max() > 0.01
    assert networks.start[0].shape == networks.features[0].shape


@pytest.mark.parametrize("features", ["linear", "relu"])
def test_features_keep_their_kind_and_the_gap_its_sign(digits, features):
    problem = UFM.from_lam_z(DIGITS, .01, .02, balance=10)
    trained = train_network(MLP((1, 8, 8), (32,), 8, features), *digits, problem, epochs=15, batch_size=32, lr=1e-2, device="cpu")
    assert (trained.features[0].min() >= 0) == (features == "relu")
    assert trained.exact[0].features == features and trained.gaps[0] > 0
    assert trained.history[-1]["objective"][0] < trained.history[0]["objective"][0]


def test_the_program_to_compare_with_can_be_chosen(digits):
    """The same network, above both exact optima."""
    model = MLP((1, 8, 8), (8,), 8, "relu")
    own, linear = (small_run(digits, P1, model=model, features=kind) for kind in (None, "linear"))
    assert [run.exact[0].features for run in (own, linear)] == ["relu", "linear"]
    assert (own.classifiers == linear.classifiers).all() and linear.gaps[0] > own.gaps[0] > 0


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
@pytest.mark.parametrize("lam_b", [0.02, INF])
def test_training_is_full_batch_descent_on_the_ufms_objective_step_by_step(monkeypatch, recipe, warm_start, decay, lam_b):
    """The same steps with plain tensors: the network's own weights are not penalised but by their decay, and for the first
    sixth of the epochs the penalties are a tenth, but the authors' on b."""
    rng = np.random.default_rng(0)
    labels = np.repeat([0, 1, 2], [6, 5, 3])
    images = rng.random((14, 1, 2, 3))
    problem, epochs, lr = UFM([6, 5, 3], 0.05, 0.002, lam_b), 72, {"fast": 5e-3, "authors": 0.02}[recipe]
    start, name = [], {"fast": "Adam", "authors": "SGD"}[recipe]
    monkeypatch.setattr(torch.optim, name, recording(getattr(torch.optim, name), start))
    trained = train_network(MLP((1, 2, 3), (4,), 5), images, labels, problem, epochs=epochs, batch_size=14, lr=lr,
                            warm_start=warm_start, device="cpu", recipe=recipe, weight_decay=decay)
    w1, c1, w2, c2, W, b = parameters = [p.requires_grad_() for p in start[:4] + [start[4][0], start[5][0]]]
    assert [tuple(p.shape) for p in parameters] == [(4, 6), (4,), (5, 4), (5,), (3, 5), (3,)]
    x = torch.tensor(images, dtype=torch.float32).flatten(1)
    x = (x - x.mean(0)) / x.std() if recipe == "fast" else (x - x.mean()) / x.std()  # one channel
    forward = lambda: torch.relu(x @ w1.T + c1) @ w2.T + c2
    speed, square = [torch.zeros_like(p) for p in parameters], [torch.zeros_like(p) for p in parameters]
    for step in range(1, epochs + 1):
        ease = 0.1 if warm_start and step <= 12 else 1.0
        ease_b = ease if recipe == "fast" else 1.0
        H = forward()
        bias, penalty = (b, 0.02 * b.square().sum()) if lam_b < INF else (torch.zeros(3), 0)
        loss = nn.functional.cross_entropy(H @ W.T + bias, torch.tensor(labels))
        value = loss + ease / 2 * (0.05 * W.square().sum() + 0.002 * H.square().sum()) + ease_b / 2 * penalty
        value = value + decay / 2 * sum(p.square().sum() for p in (w1, c1, w2, c2))
        slopes = torch.autograd.grad(value, parameters, allow_unused=True)
        with torch.no_grad():
            for p, g, v, s in zip(parameters, slopes, speed, square):
                if g is None:  # b where there is no bias
                    continue
                if recipe == "fast":
                    rate = lr * min(1, step / (0.03 * epochs)) * (1 + math.cos(math.pi * step / epochs)) / 2
                    v.mul_(0.9).add_(0.1 * g), s.mul_(0.99).add_(0.01 * g**2)
                    p -= rate * (v / (1 - 0.9**step)) / ((s / (1 - 0.99**step)).sqrt() + 1e-8)
                else:  # a tenth after two thirds of the epochs, or a third without warm start
                    v.mul_(0.9).add_(g)
                    p -= (lr if step <= (48 if warm_start else 24) else lr / 10) * v
    assert trained.classifiers[0] == pytest.approx(W.detach().numpy(), abs=2e-5)
    assert trained.features[0].T == pytest.approx(forward().detach().numpy(), abs=2e-5)
    if lam_b < INF:
        assert trained.biases[0] == pytest.approx(b.detach().numpy(), abs=2e-5)


def test_batches_together_weigh_every_sample_once(digits):
    """With a learning rate so small that nothing moves, all batch sizes have the same objective and gradient sign."""
    problem = UFM.from_lam_z(DIGITS, .01, .02)
    runs = [train_network(MLP((1, 8, 8), (8,), 8), *digits, problem, epochs=2, batch_size=size, lr=1e-12, device="cpu")
            for size in (1000, 37)]
    assert runs[0].objectives == pytest.approx(runs[1].objectives, rel=1e-6)
    assert runs[0].features[0] == pytest.approx(runs[0].start[0], abs=1e-5)


def small_run(digits, ufms, epochs=3, device="cpu", model=None, **more):
    return train_network(model or MLP((1, 8, 8), (8,), 8), *digits, ufms, epochs=epochs, device=device, **more)


P1, P2 = (UFM.from_lam_z(DIGITS, l, .02) for l in (.01, .02))


def test_a_member_of_an_ensemble_is_what_it_would_be_alone(digits):
    alone, together = small_run(digits, P1), small_run(digits, [P1, P2])
    assert together.start[0] == pytest.approx(alone.start[0], abs=1e-6)
    assert together.classifiers[0] == pytest.approx(alone.classifiers[0], abs=1e-4)
    assert together.features[0] == pytest.approx(alone.features[0], abs=1e-4)


def test_the_seed_fixes_a_network(digits):
    one, again, other = (small_run(digits, P1, seed=seed) for seed in (5, 5, 6))
    assert (one.features[0] == again.features[0]).all() and (one.classifiers == again.classifiers).all()
    assert np.abs(one.start[0] - other.start[0]).max() > 0.01


def test_the_model_is_copied_not_changed(digits):
    model = MLP((1, 8, 8), (8,), 8)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    train_network(model, *digits, P1, epochs=1, device="cpu")
    assert all(torch.equal(p, before[name]) for name, p in model.named_parameters())


@pytest.mark.parametrize("train", [
    lambda model, digits: train_ufm(SMALL, 5, iterations=3, device="cpu"),
    lambda model, digits: train_network(model, *digits, P1, epochs=1, device="cpu")], ids=["train_ufm", "train_network"])
def test_global_random_state_threads_and_dtype_are_left_alone(train, digits):
    model = MLP((1, 8, 8), (8,), 8)
    torch.manual_seed(11), np.random.seed(11)
    torch_before, numpy_before = torch.get_rng_state(), np.random.get_state()
    settings = torch.get_num_threads(), torch.get_default_dtype(), torch.are_deterministic_algorithms_enabled()
    train(model, digits)
    assert torch.equal(torch.get_rng_state(), torch_before)
    assert (np.random.get_state()[1] == numpy_before[1]).all() and np.random.get_state()[2] == numpy_before[2]
    assert settings == (torch.get_num_threads(), torch.get_default_dtype(), torch.are_deterministic_algorithms_enabled())


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_random_state_of_the_gpu_is_left_alone(digits):
    torch.cuda.manual_seed(11)
    before = torch.cuda.get_rng_state()
    small_run(digits, P1, epochs=1, device="cuda")
    assert torch.equal(torch.cuda.get_rng_state(), before)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_cpu_and_gpu_reach_the_same_optimum():
    cpu, gpu = (train_ufm(PADDED, dim=6, device=device) for device in ("cpu", "cuda"))
    assert gpu.objectives == pytest.approx(cpu.objectives, rel=1e-11)


@pytest.mark.parametrize("lr", [1e6, 1e30])
def test_divergence_stops_with_epoch_and_setting(digits, lr):
    with pytest.raises(FloatingPointError, match=r"diverged in epoch \d+: objective .* for UFM\(class_sizes=\(60, .*smaller lr") as stop:
        small_run(digits, [P1, P2], epochs=20, lr=lr)
    assert repr(P1) in str(stop.value) or repr(P2) in str(stop.value)


def test_training_is_silent_where_stderr_is_no_terminal(digits, capfd):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        small_run(digits, P1)
        train_ufm(SMALL, 5, iterations=5, device="cpu")
    out, err = capfd.readouterr()
    assert (out, err) == ("", "")


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


@pytest.mark.parametrize("arguments, message", [
    (dict(ufms=[]), "ufms must be a UFM or a list of at least one UFM"), (dict(ufms=[SMALL, "x"]), "ufms must be"),
    (dict(ufms=[SMALL, UFM.from_lam_z([2, 2], 1)]), "ufms differ in their number of classes"),
    (dict(dim=3), "dim = 3: must be a whole number >= 4"), (dict(dim=4.5), "dim = 4.5"), (dict(seed=-1), "seed = -1"),
    (dict(iterations=0), "iterations = 0"), (dict(tol=0), "tol = 0"), (dict(tol=math.nan), "tol = nan"),
    (dict(features="tanh"), "features = 'tanh': must be one of 'linear', 'relu'"),
    (dict(features=None), "features = None"),
    (dict(device="tpu"), "device = 'tpu': must be None, 'cpu' or 'cuda'"), (dict(device=3.5), "device = 3.5")])
def test_train_ufm_refuses_before_any_work(monkeypatch, arguments, message):
    monkeypatch.setattr("ncutils.train.solve", refuse_to_solve)
    with pytest.raises(ValueError, match=message):
        train_ufm(**{"ufms": SMALL, "dim": 5, **arguments})


def test_train_ufm_refuses_a_number_as_problem():
    with pytest.raises(ValueError, match="ufms must be a UFM or a list"):
        train_ufm(3, 4)


IMAGES, LABELS, TINY = np.ones((4, 1, 2, 2)) * np.arange(4)[:, None, None, None], np.array([0, 0, 1, 1]), UFM.from_lam_z([2, 2], 0.1)


@pytest.mark.parametrize("arguments, message", [
    (dict(images=IMAGES[:, 0]), r"images has shape \(4, 2, 2\): must have 4 dimensions"),
    (dict(images=IMAGES * math.nan), "images holds NaN"), (dict(images=IMAGES[:3]), "labels has shape .*must be 3 class indices"),
    (dict(labels=LABELS[:3]), r"labels has shape \(3,\)"), (dict(labels=LABELS / 1), "labels .*float64"),
    (dict(labels=LABELS - 1), "labels"), (dict(labels=np.array([0, 0, 0, 1])), r"ufms: class sizes \(2, 2\) differ .*labels"),
    (dict(labels=2 * LABELS), "ufms: class sizes"), (dict(ufms="x"), "ufms must be"), (dict(ufms=[]), "ufms must be"),
    (dict(ufms=[TINY, UFM.from_lam_z([3, 1], 0.1)]), r"ufms: class sizes \(3, 1\) differ"),
    (dict(model=nn.Linear(4, 2)), "model must be a torch module with an attribute dim"), (dict(model=None), "model must be"),
    (dict(model=MLP((1, 2, 2), (), 1)), "model.dim = 1: must be a whole number >= 2"),
    (dict(epochs=0), "epochs = 0"), (dict(batch_size=0), "batch_size = 0"), (dict(batch_size=1.5), "batch_size = 1.5"),
    (dict(lr=0), "lr = 0"), (dict(lr=INF), "lr = inf"), (dict(seed=-1), "seed = -1"),
    (dict(features="tanh"), "features = 'tanh': must be one of"), (dict(device="mps"), "device = 'mps'")])
def test_train_network_refuses_before_any_work(monkeypatch, arguments, message):
    monkeypatch.setattr("ncutils.train.solve", refuse_to_solve)
    with pytest.raises(ValueError, match=message):
        train_network(**{"model": MLP((1, 2, 2), (), 2), "images": IMAGES, "labels": LABELS, "ufms": TINY, **arguments})


def test_class_sizes_in_a_refusal_are_plain_numbers():
    with pytest.raises(ValueError, match=r"those of labels, \(3, 1\)"):
        train_network(MLP((1, 2, 2), (), 2), IMAGES, np.array([0, 0, 0, 1]), TINY)


def test_a_device_that_is_not_there_is_refused(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert pick_device(None).type == "cpu" and pick_device("cpu").type == "cpu"
    with pytest.raises(ValueError, match="device = 'cuda': must be None, 'cpu' or, where there is a GPU, 'cuda'"):
        pick_device("cuda")


def test_cuda_is_chosen_where_there_is_one(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert pick_device(None).type == pick_device("cuda:0").type == "cuda"


@pytest.mark.parametrize("view", ["logits ", "bias", None])
def test_cosines_of_a_trained_model_name_what_there_is(view):
    trained = train_ufm(TINY, 2, iterations=1, device="cpu")
    with pytest.raises(ValueError, match="of = .*: must be one of 'logits', 'features', 'classifier'"):
        trained.cosines(0, view)


def test_images_that_the_model_does_not_take_are_refused_before_any_work(monkeypatch):
    monkeypatch.setattr("ncutils.train.solve", refuse_to_solve)
    with pytest.raises(ValueError, match=r"images has shape \(.*\), which model does not take"):
        train_network(MLP((1, 3, 5), dim=2), IMAGES, LABELS, TINY)


def test_a_model_that_does_not_give_its_dim_is_refused_before_any_work(monkeypatch):
    monkeypatch.setattr("ncutils.train.solve", refuse_to_solve)
    model = MLP(IMAGES.shape[1:], dim=5)
    model.dim = 4
    with pytest.raises(ValueError, match=r"features of shape \(1, 5\) for one image: must be \(1, 4\)"):
        train_network(model, IMAGES, LABELS, TINY)


def test_images_without_contrast_are_refused_before_any_work(monkeypatch):
    monkeypatch.setattr("ncutils.train.solve", refuse_to_solve)
    with pytest.raises(ValueError, match="images are all the same number"):
        train_network(MLP(IMAGES.shape[1:], dim=2), np.ones_like(IMAGES), LABELS, TINY)


def test_accuracy_of_classes_that_are_not_there_is_refused(networks):
    with pytest.raises(ValueError, match=r"classes = \[99\]"):
        networks.accuracy(0, [99])


def test_penalties_that_overflow_stop_with_an_error_instead_of_no_end(monkeypatch):
    small = solve(TINY)
    monkeypatch.setattr("ncutils.train.solve", lambda *_, **__: small)
    with pytest.raises(FloatingPointError, match="overflows in iteration 1"):
        train_ufm(UFM.from_lam_z([2, 2], 1.5e308), dim=2)


def test_huge_penalties_train_to_zero_as_long_as_the_objective_is_finite():
    trained = train_ufm(UFM.from_lam_z([2, 2], 1e200), dim=2, device="cpu")
    assert trained.objectives[0] == pytest.approx(math.log(2), rel=1e-14)
