"""Training of UFMs: they reach the certified optimum."""

import math

import numpy as np
import pytest
import torch
from pytest import approx
from small_runs import SURROUNDINGS, needs_gpu, parts, refuse_to_solve, untouched
from torch import nn

from ncutils import UFM, metrics, solve, theory, train_ufm
from ncutils._device import pick_device
from ncutils.training.free_features import geometric_grid
from ncutils.ufm import Phase

INF = math.inf
L_55 = [0.0027, 0.0030, 0.0033, 0.0039, 0.0045, 0.0051, 0.0057, 0.0063, 0.0069, 0.0075]
SMALL = UFM.from_lam_z([8, 8, 3, 3], 0.04, 0.02, balance=4)


# UFMs ---------------------------------------------------------------------------------------------
posed = UFM.from_lam_z


def train(ufms, dim=5, **more):
    return train_ufm(ufms, dim, device="cpu", **more)


some_seeds = pytest.mark.parametrize(
    "seed", [0, *(pytest.param(s, marks=pytest.mark.depth) for s in (1, 2))]
)


@some_seeds
def test_the_papers_settings_reach_the_optimum_within_200_iterations(seed):
    problems = [posed([500] * 5 + [100] * 5, l, 0.02) for l in L_55]
    trained = train(problems, dim=10, seed=seed, tol=1e-9)
    assert trained.history[-1]["iteration"] <= 200
    assert (-1e-11 <= trained.gaps).all() and (trained.gaps <= 1e-9).all()
    assert trained.history[-1]["gap"] == approx(trained.gaps, abs=1e-13)
    for model in trained:
        assert metrics.nc1(model.features, model.labels) <= 1e-9
        assert model.logits == approx(model.exact.logits, abs=2e-3)  # a flat optimum
        assert metrics.nc1(model.start, model.labels) > 0.1  # nothing was collapsed at the start
    assert np.abs(trained[9].logits).max() < 1e-6  # trivial


@pytest.mark.parametrize("around", ["float64", "no grad", "inference", "autocast", "device"])
def test_the_callers_modes_change_no_bit(around):
    problems = [SMALL, posed([8, 8, 3, 3], 0.01, 0.02)]
    setting = dict(ufms=problems, dim=6, iterations=30, features="relu")
    plain = train(**setting)
    with SURROUNDINGS[around]():
        found = train(**setting)
    for model, twin in zip(found, plain):
        for part, same in zip(parts(model), parts(twin)):
            assert np.array_equal(part, same)


PADDED = [
    posed([50, 50, 10, 10], 0.01, 0.02),
    posed([5] * 4, 0.05),
    posed([200, 1, 1, 7], 0.003, 0.1),
]


def test_problems_of_different_size_in_one_batch_reach_their_own_optimum():
    batch, first = train(PADDED, dim=6), train(PADDED, dim=6, iterations=1)
    assert np.abs(batch.gaps).max() < 1e-11
    # padding adds nothing to the objective from the first step on
    assert first.history[0]["objective"] == approx(first.objectives, rel=1e-13)
    for e, problem in enumerate(PADDED):
        assert batch[e].features.shape == batch[e].start.shape == (6, problem.num_samples)
        assert batch[e].labels.tolist() == problem.labels.tolist()
        alone = train(problem, dim=6)
        assert batch.objectives[e] == approx(alone.objectives[0], rel=1e-11)
        assert batch[e].logits == approx(alone[0].logits, abs=1e-4)
    assert not batch[1].bias.any() and all(batch[e].bias.all() for e in (0, 2))


SMALLEST = [([30, 10], 0.05, 0.02), ([40, 20, 10], 0.01, INF), ([1] * 5, 0.05, 0.1)]
SMALLEST += [([100, 40, 16, 6, 3, 1], 0.01, 0.05), ([7] * 3, 0.01, INF)]


@pytest.mark.parametrize("sizes, l, lam_b", SMALLEST)
def test_two_classes_single_samples_and_long_tails_are_trained_too(sizes, l, lam_b):
    trained = train(posed(sizes, l, lam_b, balance=10), dim=len(sizes) + 3, iterations=400)
    model = trained[0]
    assert abs(trained.gaps[0]) < 1e-9
    assert model.cosines("features") == approx(model.exact.cosines("features"), abs=1e-3)


def test_in_the_trivial_phase_everything_goes_to_zero():
    problem = posed([20, 20, 5, 5], 1.2 * math.sqrt(20) / 50, 0.02)
    assert theory.phase(problem) == Phase.TRIVIAL
    model = train(problem)[0]
    assert np.abs(model.start).max() > 0.1
    assert max(np.abs(model.classifier()).max(), np.abs(model.features).max()) < 1e-8
    huge = train(posed([2, 2], 1e200), dim=2)  # the objective is finite
    assert huge.objectives[0] == approx(math.log(2), rel=1e-14)


def differentiated(ufm, trained, e):
    """W, H, b of member e, a solution of ufm, as tensors that hold the gradient of the objective:
    with PyTorch's own weighted loss, which divides by the sum of the weights."""
    point, labels = (
        (trained[e].classifier(), trained[e].features, trained[e].bias),
        trained[e].labels,
    )
    W, H, b = (torch.tensor(array, requires_grad=True) for array in point)
    w, labels = torch.tensor(ufm.weights, dtype=torch.float64), torch.as_tensor(labels)
    loss = nn.functional.cross_entropy((W @ H).T + b, labels, weight=w)
    objective = loss * w[labels].sum() / len(labels)
    for lam, parameter in ((ufm.lam_w, W), (ufm.lam_h, H), (ufm.lam_b, b)):
        objective = objective + lam / 2 * parameter.square().sum()
    objective.backward()
    assert objective.item() == approx(trained.objectives[e], rel=1e-14)
    return W, H, b


def test_the_result_is_a_critical_point_by_automatic_differentiation():
    trained = train(SMALL, iterations=300)
    for parameter in differentiated(SMALL, trained, 0):
        assert parameter.grad.abs().max() < 1e-7
    assert metrics.balance_residual(trained[0].classifier(), trained[0].features, SMALL) < 1e-6
    W, H, b = differentiated(SMALL, train(SMALL, dim=16, iterations=400, features="relu"), 0)
    assert max(part.grad.abs().max() for part in (W, b)) < 1e-7
    assert (H * H.grad).abs().max() < 1e-7 and H.grad.min() > -1e-7  # complementary
    assert (H == 0).any() and (H > 1e-3).any()


def test_class_weights_multiply_the_losses_of_their_classes():
    weighted = posed([8, 8, 3, 3], 0.04, 0.02, balance=4, class_weights=[1, 1, 3, 3])
    trained = train([SMALL, weighted], iterations=300)
    assert np.abs(trained.gaps).max() < 2e-15
    assert np.abs(trained[1].logits - weighted_optimum(weighted)).max() < 1e-7  # measured 1.5e-8
    for part in differentiated(weighted, trained, 1):
        # where rounding hides a further fall: ‖∇f‖² ≤ 2 L (f − f*), with f − f* of 1e-15
        assert part.grad.abs().max() < 5e-8  # measured 4e-10 and 5e-9
    assert metrics.nc1(trained[1].features, trained[1].labels) < 1e-28  # rounding


def weighted_optimum(ufm):
    """Z at the minimum of the convex program: L-BFGS on W, H̄ and b as posed, from many starts."""
    n, w, K = torch.tensor(ufm.sizes), torch.tensor(ufm.weights), ufm.num_classes
    options = dict(max_iter=2000, tolerance_grad=1e-10, tolerance_change=0)
    best = (math.inf, None)
    for seed in range(3):
        drawn = dict(generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
        draw = lambda *shape: torch.randn(*shape, **drawn).requires_grad_()
        W, M, b = parts = draw(K, K), draw(K, K), draw(K)
        optimizer = torch.optim.LBFGS(parts, line_search_fn="strong_wolfe", **options)

        def value():
            optimizer.zero_grad()
            loss = nn.functional.cross_entropy((W @ M).T + b, torch.arange(K), reduction="none")
            penalty = ufm.lam_w * (W**2).sum() + ufm.lam_h * (n * M**2).sum()
            penalty = penalty + ufm.lam_b * (b**2).sum()
            total = (w * n * loss).sum() / n.sum() + penalty / 2
            total.backward()
            return total

        optimizer.step(value)
        best = min(best, (value().item(), (W @ M).detach().numpy()), key=lambda pair: pair[0])
    return best[1]


def test_what_is_reported_of_a_training_is_right_where_the_losses_are_tiny():
    """log(softmax) has no digit left there: training would seem done, below the optimum."""
    trained = train(posed([21] * 4, 1e-16), iterations=300, tol=1e-6)
    last = trained.history[-1]
    assert last["objective"] == approx(trained.objectives, rel=1e-13, abs=0)
    assert last["gap"] == approx(trained.gaps, abs=1e-13)
    assert all((row["gap"] > -1e-12).all() for row in trained.history)
    assert last["iteration"] == 300 or trained.gaps[0] <= 1e-6


def test_the_seed_fixes_the_run_and_a_repeated_problem_gets_another_start_and_the_same_end():
    one, again, other = (train([SMALL, SMALL], seed=seed) for seed in (3, 3, 4))
    assert (one[0].features == again[0].features).all()
    assert (one[0].classifier() == again[0].classifier()).all()
    for twin in (other[0], one[1]):
        assert np.abs(one[0].start - twin.start).max() > 0.1
    assert one[0].exact is one[1].exact
    assert one.objectives[0] == approx(one.objectives[1], rel=1e-11)


def test_history_is_on_a_geometric_grid_and_falls():
    trained = train(SMALL, iterations=60)
    model, history, last = trained[0], trained.history, trained.history[-1]
    assert [row["iteration"] for row in history] == geometric_grid(60)
    assert set(history[0]) == {"iteration", "objective", "gap", "nc1", "trace_ratio"}
    assert last["objective"][0] < history[0]["objective"][0]
    for row in history:
        assert row["gap"] == approx(row["objective"] / model.exact.objective - 1)
    for name in ("nc1", "trace_ratio"):
        measured = getattr(metrics, name)(model.features, model.labels)
        assert last[name][0] == approx(measured, rel=1e-12)


def test_training_stops_once_the_tolerance_is_reached():
    loose, tight = (train(SMALL, tol=tol) for tol in (1e-2, 1e-8))
    assert loose.history[-1]["iteration"] < tight.history[-1]["iteration"] < 200
    assert 1e-8 < loose.gaps[0] <= 1e-2 and tight.gaps[0] <= 1e-8


@pytest.mark.parametrize("last", [1, 2, 9, 10, 150, 12345])
def test_geometric_grid_has_both_ends_and_steady_ratios(last):
    grid = geometric_grid(last)
    assert grid[0] == 1 and grid[-1] == last and grid == sorted(set(grid))
    large = [b / a for a, b in zip(grid, grid[1:]) if 30 < a and b < last]
    assert all(ratio == approx(10 ** (1 / 8), rel=0.02) for ratio in large)


# Nonnegative features -----------------------------------------------------------------------------
TENTH = [50] * 5 + [10] * 5  # a tenth of the paper's sizes: Z is that of λ_Z/sqrt(10)


def tenth(l, lam_b=0.02):
    return posed(TENTH, l * math.sqrt(10), lam_b)


def own_classes(model):
    """Which classes have features at all (K,)."""
    lengths = np.linalg.norm(model.class_means(), axis=0)
    return lengths > 1e-6 * lengths.max()


def test_with_many_nonnegative_features_training_reaches_the_optimum():
    problems = [tenth(l) for l in (0.0015, 0.0027, 0.0033, 0.0045, 0.0075)] + [tenth(0.0020, INF)]
    trained = train(problems, dim=160, tol=1e-9, features="relu")
    assert trained.history[-1]["iteration"] < 200
    assert (-1e-11 <= trained.gaps).all() and (trained.gaps <= 1e-9).all()
    for model in trained:
        exact = model.exact
        assert exact.features == "relu" and exact.certified
        assert model.start.min() == 0 < model.start.max() and model.features.min() >= 0
        assert model.logits == approx(exact.logits, abs=5e-3)  # a flat optimum
        if exact.rank == 10:
            assert model.cosines("features") == approx(np.eye(10), abs=1e-6)
            assert metrics.nc1(model.features, model.labels) <= 1e-9
    assert np.abs(trained[4].logits).max() < 1e-4  # trivial
    without_bias = theory.relu_logits(TENTH, problems[5].lam_z)
    assert trained[5].logits == approx(without_bias, abs=5e-3)


def test_with_few_features_classes_go_missing_and_each_costs_the_same():
    """Without bias classes do not interact: the gap counts the classes without a feature."""
    problem, K = tenth(0.0027, INF), 10
    trained = train([problem] * 8, dim=K, iterations=400, features="relu")
    z = theory.relu_logits(TENTH, problem.lam_z)[:, -1]
    loss = 10 / 300 * (math.log(np.exp(z).sum()) - z[-1])
    loss += problem.lam_z * math.sqrt(10) * np.linalg.norm(z)
    cost = (10 / 300 * math.log(K) - loss) / trained[0].exact.objective
    for model, gap in zip(trained, trained.gaps):
        assert own_classes(model)[:5].all()
        assert gap == approx(cost * (~own_classes(model)).sum(), abs=1e-8)
    assert (trained.gaps > cost / 2).any()


def test_a_better_optimum_than_the_upper_bound_has_a_gap_below_zero_and_is_not_stopped_early():
    """Sharing a feature pays for the two small classes."""
    uncertified = posed([40, 40, 5, 5], 0.03, 1e-3)
    trained = train(uncertified, dim=16, iterations=400, tol=1e-9, features="relu")
    exact = trained[0].exact
    assert not exact.certified and trained.history[-1]["iteration"] == 400
    assert -exact.relative_gap <= trained.gaps[0] < -1e-6
    assert trained.history[-1]["gap"] == approx(trained.gaps, abs=1e-13)
    assert not exact.logits[:, 2:].any()
    assert trained[0].cosines("features")[2, 3] == approx(1, abs=1e-6)


# The machine --------------------------------------------------------------------------------------
def test_training_is_silent_and_leaves_random_state_threads_and_dtype_alone(capfd):
    with untouched():
        train(SMALL, iterations=3)
    assert capfd.readouterr() == ("", "")


@needs_gpu
def test_cpu_and_gpu_reach_the_same_optimum():
    cpu, gpu = (train_ufm(PADDED, dim=6, device=device) for device in ("cpu", "cuda"))
    assert gpu.objectives == approx(cpu.objectives, rel=1e-11)


# Refusals -----------------------------------------------------------------------------------------
REFUSED = [
    (dict(ufms=[]), "ufms must be a UFM or a list of at least one UFM"),
    (dict(ufms=[SMALL, "x"]), "ufms must be"),
    (dict(ufms=3), "ufms must be a UFM or a list"),
    (dict(ufms=[SMALL, posed([2, 2], 1)]), "ufms differ in their number of classes"),
    (dict(dim=3), "dim = 3: must be a whole number >= 4"),
    (dict(features="tanh"), "features = 'tanh': must be one of 'linear', 'relu'"),
    (dict(device="tpu"), "device = 'tpu': must be None, 'cpu' or 'cuda'"),
]
PLAIN = dict(dim=[4.5], seed=[-1], iterations=[0], tol=[0, math.nan], features=[None], device=[3.5])
REFUSED += [({name: value}, f"{name} = {value}") for name in PLAIN for value in PLAIN[name]]


@pytest.mark.parametrize("arguments, message", REFUSED)
def test_train_ufm_refuses_before_any_work(monkeypatch, arguments, message):
    monkeypatch.setattr("ncutils.training.model.solve", refuse_to_solve)
    with pytest.raises(ValueError, match=message):
        train_ufm(**{"ufms": SMALL, "dim": 5, **arguments})


def test_a_device_that_is_not_there_is_refused(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert pick_device(None).type == "cpu" and pick_device("cpu").type == "cpu"
    message = "device = 'cuda': must be None, 'cpu' or, where there is a GPU, 'cuda'"
    with pytest.raises(ValueError, match=message):
        pick_device("cuda")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert pick_device(None).type == pick_device("cuda:0").type == "cuda"


def test_penalties_that_overflow_stop_with_an_error_instead_of_no_end(monkeypatch):
    small = solve(posed([2, 2], 0.1))
    monkeypatch.setattr("ncutils.training.model.solve", lambda *_, **__: small)
    with pytest.raises(FloatingPointError, match="overflows in iteration 1"):
        train_ufm(posed([2, 2], 1.5e308), dim=2)
