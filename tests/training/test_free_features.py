"""Training of UFMs: they reach the certified optimum."""

import contextlib
import math
import warnings

import numpy as np
import pytest
import torch
from torch import nn

from ncutils import UFM, Phase, metrics, solve, theory, train_ufm
from ncutils._device import pick_device
from ncutils.training.free_features import geometric_grid

INF = math.inf
L_55 = [0.0027, 0.0030, 0.0033, 0.0039, 0.0045, 0.0051, 0.0057, 0.0063, 0.0069, 0.0075]
SMALL = UFM.from_lam_z([8, 8, 3, 3], 0.04, 0.02, balance=4)


def ufm(sizes, l, lam_b=0.02):
    return UFM.from_lam_z(sizes, l, lam_b)


# UFMs ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "seed", [0, *(pytest.param(seed, marks=pytest.mark.depth) for seed in (1, 2))]
)
def test_the_papers_settings_reach_the_optimum_within_200_iterations(seed):
    trained = train_ufm(
        [ufm([500] * 5 + [100] * 5, l) for l in L_55], dim=10, seed=seed, tol=1e-9, device="cpu"
    )
    assert trained.history[-1]["iteration"] <= 200
    assert (-1e-11 <= trained.gaps).all() and (trained.gaps <= 1e-9).all()
    assert trained.history[-1]["gap"] == pytest.approx(trained.gaps, abs=1e-13)
    for e, exact in enumerate(model.exact for model in trained):
        assert metrics.nc1(trained[e].features, trained[e].labels) <= 1e-9
        assert trained[e].logits == pytest.approx(exact.logits, abs=2e-3)  # a flat optimum
        assert (
            metrics.nc1(trained[e].start, trained[e].labels) > 0.1
        )  # nothing was collapsed at the start
    assert np.abs(trained[9].logits).max() < 1e-6  # trivial


@pytest.mark.parametrize("around", ["float64", "no grad", "inference", "autocast", "device"])
def test_the_callers_modes_change_no_bit(around):
    setting = dict(
        ufms=[SMALL, ufm([8, 8, 3, 3], 0.01)], dim=6, iterations=30, device="cpu", features="relu"
    )
    plain, before = train_ufm(**setting), torch.get_default_dtype()
    try:
        with {
            "no grad": torch.no_grad,
            "inference": torch.inference_mode,
            "device": lambda: torch.device("meta"),
            "autocast": lambda: torch.autocast("cpu", torch.bfloat16),
        }.get(around, contextlib.nullcontext)():
            torch.set_default_dtype(torch.float64 if around == "float64" else before)
            found = train_ufm(**setting)
    finally:
        torch.set_default_dtype(before)
    for model, twin in zip(found, plain):
        for part in (lambda m: m.classifier(), lambda m: m.bias, lambda m: m.features):
            assert np.array_equal(part(model), part(twin))
        assert np.array_equal(model.start, twin.start)


PADDED = [
    UFM.from_lam_z([50, 50, 10, 10], 0.01, 0.02),
    UFM.from_lam_z([5] * 4, 0.05),
    UFM.from_lam_z([200, 1, 1, 7], 0.003, 0.1),
]


def test_problems_of_different_size_in_one_batch_reach_their_own_optimum():
    batch = train_ufm(PADDED, dim=6, device="cpu")
    assert np.abs(batch.gaps).max() < 1e-11
    for e, problem in enumerate(PADDED):
        N = problem.num_samples
        assert (
            batch[e].features.shape == batch[e].start.shape == (6, N)
            and batch[e].labels.tolist() == problem.labels.tolist()
        )
        alone = train_ufm(problem, dim=6, device="cpu")
        assert batch.objectives[e] == pytest.approx(alone.objectives[0], rel=1e-11)
        assert batch[e].logits == pytest.approx(alone[0].logits, abs=1e-4)
    assert not batch[1].bias.any() and all(batch[e].bias.all() for e in (0, 2))


def test_padding_adds_nothing_to_the_objective_from_the_first_step_on():
    trained = train_ufm(PADDED, dim=6, iterations=1, device="cpu")
    assert trained.history[0]["objective"] == pytest.approx(trained.objectives, rel=1e-13)


@pytest.mark.parametrize(
    "sizes, l, lam_b",
    [
        ([30, 10], 0.05, 0.02),
        ([40, 20, 10], 0.01, INF),
        ([1] * 5, 0.05, 0.1),
        ([100, 40, 16, 6, 3, 1], 0.01, 0.05),
        ([7] * 3, 0.01, INF),
    ],
)
def test_two_classes_single_samples_and_long_tails_are_trained_too(sizes, l, lam_b):
    trained = train_ufm(
        UFM.from_lam_z(sizes, l, lam_b, balance=10),
        dim=len(sizes) + 3,
        iterations=400,
        device="cpu",
    )
    assert abs(trained.gaps[0]) < 1e-9
    assert trained[0].cosines("features") == pytest.approx(
        trained[0].exact.cosines("features"), abs=1e-3
    )


def test_in_the_trivial_phase_everything_goes_to_zero():
    problem = UFM.from_lam_z([20, 20, 5, 5], 1.2 * math.sqrt(20) / 50, 0.02)
    assert theory.phase(problem) == Phase.TRIVIAL
    trained = train_ufm(problem, dim=5, device="cpu")
    assert np.abs(trained[0].start).max() > 0.1
    assert max(np.abs(trained[0].classifier()).max(), np.abs(trained[0].features).max()) < 1e-8


def differentiated(trained):
    """W, H, b of the only member, a solution of SMALL, as tensors that hold the objective's
    gradient.
    """
    point = trained[0].classifier(), trained[0].features, trained[0].bias
    W, H, b = (torch.tensor(array, requires_grad=True) for array in point)
    objective = nn.functional.cross_entropy((W @ H).T + b, torch.as_tensor(trained[0].labels))
    for lam, parameter in ((SMALL.lam_w, W), (SMALL.lam_h, H), (SMALL.lam_b, b)):
        objective = objective + lam / 2 * parameter.square().sum()
    objective.backward()
    assert objective.item() == pytest.approx(trained.objectives[0], rel=1e-14)
    return W, H, b


def test_the_result_is_a_critical_point_by_automatic_differentiation():
    trained = train_ufm(SMALL, dim=5, iterations=300, device="cpu")
    for parameter in differentiated(trained):
        assert parameter.grad.abs().max() < 1e-7
    assert metrics.balance_residual(trained[0].classifier(), trained[0].features, SMALL) < 1e-6


def test_class_weights_multiply_the_losses_of_their_classes():
    """The optimum is that of the weighted convex program; the objective, by PyTorch's own weighted
    loss, which divides by the sum of the weights, and its gradient, say so."""
    weighted = UFM.from_lam_z([8, 8, 3, 3], 0.04, 0.02, balance=4, class_weights=[1, 1, 3, 3])
    trained = train_ufm([SMALL, weighted], dim=5, iterations=300, device="cpu")
    assert np.abs(trained.gaps).max() < 2e-15
    assert np.abs(trained[1].logits - weighted_optimum(weighted)).max() < 1e-7  # measured 1.5e-8
    point = trained[1].classifier(), trained[1].features, trained[1].bias
    W, H, b = (torch.tensor(array, requires_grad=True) for array in point)
    w, labels = (
        torch.tensor([1.0, 1, 3, 3], dtype=torch.float64),
        torch.as_tensor(trained[1].labels),
    )
    loss = (
        nn.functional.cross_entropy((W @ H).T + b, labels, weight=w) * w[labels].sum() / len(labels)
    )
    penalties = ((weighted.lam_w, W), (weighted.lam_h, H), (weighted.lam_b, b))
    value = loss + sum(lam / 2 * part.square().sum() for lam, part in penalties)
    value.backward()
    assert value.item() == pytest.approx(trained.objectives[1], rel=1e-13)
    for part in (W, H, b):
        # where rounding hides a further fall: ‖∇f‖² ≤ 2 L (f − f*), with f − f* of 1e-15
        assert part.grad.abs().max() < 5e-8  # measured 4e-10 and 5e-9
    assert (
        metrics.nc1(trained[1].features, trained[1].labels) < 1e-28
    )  # rounding, as at any collapse


def weighted_optimum(ufm):
    """Z at the minimum of the convex program, found by L-BFGS on W, H̄ and b as they are posed,
    from many starts.
    """
    n, w, K = torch.tensor(ufm.sizes), torch.tensor(ufm.weights), ufm.num_classes
    best = (math.inf, None)
    for seed in range(3):
        generator = torch.Generator().manual_seed(seed)
        draw = lambda *shape: torch.randn(
            *shape, generator=generator, dtype=torch.float64
        ).requires_grad_()
        W, M, b = parts = draw(K, K), draw(K, K), draw(K)
        optimizer = torch.optim.LBFGS(
            parts,
            max_iter=2000,
            tolerance_grad=1e-10,
            tolerance_change=0,
            line_search_fn="strong_wolfe",
        )

        def value():
            optimizer.zero_grad()
            loss = nn.functional.cross_entropy((W @ M).T + b, torch.arange(K), reduction="none")
            penalty = (
                ufm.lam_w * (W**2).sum() + ufm.lam_h * (n * M**2).sum() + ufm.lam_b * (b**2).sum()
            )
            total = (w * n * loss).sum() / n.sum() + penalty / 2
            total.backward()
            return total

        optimizer.step(value)
        best = min(best, (value().item(), (W @ M).detach().numpy()), key=lambda pair: pair[0])
    return best[1]


def test_what_is_reported_of_a_training_is_right_where_the_losses_are_tiny():
    """log(softmax) has no digit left there: training would seem done, below the optimum."""
    problem = UFM.from_lam_z([21] * 4, 1e-16)
    trained = train_ufm(problem, dim=5, iterations=300, tol=1e-6, device="cpu")
    last = trained.history[-1]
    assert last["objective"] == pytest.approx(trained.objectives, rel=1e-13, abs=0)
    assert last["gap"] == pytest.approx(trained.gaps, abs=1e-13)
    assert all((row["gap"] > -1e-12).all() for row in trained.history)
    assert last["iteration"] == 300 or trained.gaps[0] <= 1e-6


def test_a_repeated_problem_gets_another_start_and_the_same_end():
    trained = train_ufm([SMALL, SMALL], dim=5, device="cpu")
    assert np.abs(trained[0].start - trained[1].start).max() > 0.1
    assert trained[0].exact is trained[1].exact
    assert trained.objectives[0] == pytest.approx(trained.objectives[1], rel=1e-11)


def test_the_seed_fixes_the_run():
    one, again, other = (
        train_ufm(SMALL, dim=5, seed=seed, iterations=7, device="cpu") for seed in (3, 3, 4)
    )
    assert (one[0].features == again[0].features).all() and (
        one[0].classifier() == again[0].classifier()
    ).all()
    assert np.abs(one[0].start - other[0].start).max() > 0.1


def test_history_is_on_a_geometric_grid_and_falls():
    trained = train_ufm(SMALL, dim=5, iterations=60, device="cpu")
    assert [row["iteration"] for row in trained.history] == geometric_grid(60)
    objective = np.array([row["objective"][0] for row in trained.history])
    assert objective[-1] < objective[0] and set(trained.history[0]) == {
        "iteration",
        "objective",
        "gap",
        "nc1",
        "trace_ratio",
    }
    for row in trained.history:
        assert row["gap"] == pytest.approx(row["objective"] / trained[0].exact.objective - 1)
    last = trained.history[-1]
    assert last["nc1"][0] == pytest.approx(
        metrics.nc1(trained[0].features, trained[0].labels), rel=1e-12
    )
    assert last["trace_ratio"][0] == pytest.approx(
        metrics.trace_ratio(trained[0].features, trained[0].labels), rel=1e-12
    )


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


# Nonnegative features -----------------------------------------------------------------------------

TENTH = [50] * 5 + [10] * 5  # a tenth of the paper's sizes: Z is that of λ_Z/sqrt(10)


def tenth(l, lam_b=0.02):
    return UFM.from_lam_z(TENTH, l * math.sqrt(10), lam_b)


def own_classes(trained, e):
    """Which classes have features at all (K,)."""
    lengths = np.linalg.norm(trained[e].class_means(), axis=0)
    return lengths > 1e-6 * lengths.max()


def test_with_many_nonnegative_features_training_reaches_the_optimum():
    problems = [
        tenth(0.0015),
        tenth(0.0027),
        tenth(0.0033),
        tenth(0.0045),
        tenth(0.0075),
        tenth(0.0020, INF),
    ]
    trained = train_ufm(problems, dim=160, tol=1e-9, features="relu", device="cpu")
    assert trained.history[-1]["iteration"] < 200
    assert (-1e-11 <= trained.gaps).all() and (trained.gaps <= 1e-9).all()
    for e, exact in enumerate(model.exact for model in trained):
        assert exact.features == "relu" and exact.certified
        assert (
            trained[e].start.min() == 0 < trained[e].start.max() and trained[e].features.min() >= 0
        )
        assert trained[e].logits == pytest.approx(exact.logits, abs=5e-3)  # a flat optimum
        if exact.rank == 10:
            assert trained[e].cosines("features") == pytest.approx(np.eye(10), abs=1e-6)
            assert metrics.nc1(trained[e].features, trained[e].labels) <= 1e-9
    assert np.abs(trained[4].logits).max() < 1e-4  # trivial
    without_bias = theory.relu_logits(TENTH, problems[5].lam_z)
    assert trained[5].logits == pytest.approx(without_bias, abs=5e-3)


def test_with_few_features_classes_go_missing_and_each_costs_the_same():
    """Without bias classes do not interact, so that a stuck run's gap counts the classes without a
    feature.
    """
    problem, K = tenth(0.0027, INF), 10
    trained = train_ufm([problem] * 8, dim=K, iterations=400, features="relu", device="cpu")
    z = theory.relu_logits(TENTH, problem.lam_z)[:, -1]
    loss = 10 / 300 * (math.log(np.exp(z).sum()) - z[-1]) + problem.lam_z * math.sqrt(
        10
    ) * np.linalg.norm(z)
    cost = (10 / 300 * math.log(K) - loss) / trained[0].exact.objective
    for e, gap in enumerate(trained.gaps):
        assert own_classes(trained, e)[:5].all()
        assert gap == pytest.approx(cost * (~own_classes(trained, e)).sum(), abs=1e-8)
    assert (trained.gaps > cost / 2).any()


UNCERTIFIED = UFM.from_lam_z(
    [40, 40, 5, 5], 0.03, 1e-3
)  # sharing a feature pays for the two small classes


def test_a_better_optimum_than_the_upper_bound_has_a_gap_below_zero_and_is_not_stopped_early():
    trained = train_ufm(
        UNCERTIFIED, dim=16, iterations=400, tol=1e-9, features="relu", device="cpu"
    )
    exact = trained[0].exact
    assert not exact.certified and trained.history[-1]["iteration"] == 400
    assert -exact.relative_gap <= trained.gaps[0] < -1e-6
    assert trained.history[-1]["gap"] == pytest.approx(trained.gaps, abs=1e-13)
    assert not exact.logits[:, 2:].any() and trained[0].cosines("features")[2, 3] == pytest.approx(
        1, abs=1e-6
    )


def test_the_result_with_nonnegative_features_is_a_critical_point_by_automatic_differentiation():
    trained = train_ufm(SMALL, dim=16, iterations=400, features="relu", device="cpu")
    W, H, b = differentiated(trained)
    assert (
        max(W.grad.abs().max(), b.grad.abs().max(), (H * H.grad).abs().max(), -H.grad.min()) < 1e-7
    )
    assert (H == 0).any() and (H > 1e-3).any()


# The machine --------------------------------------------------------------------------------------


def test_global_random_state_threads_and_dtype_are_left_alone():
    torch.manual_seed(11), np.random.seed(11)
    torch_before, numpy_before = torch.get_rng_state(), np.random.get_state()
    settings = (
        torch.get_num_threads(),
        torch.get_default_dtype(),
        torch.are_deterministic_algorithms_enabled(),
    )
    train_ufm(SMALL, 5, iterations=3, device="cpu")
    assert torch.equal(torch.get_rng_state(), torch_before)
    assert (np.random.get_state()[1] == numpy_before[1]).all() and np.random.get_state()[
        2
    ] == numpy_before[2]
    assert settings == (
        torch.get_num_threads(),
        torch.get_default_dtype(),
        torch.are_deterministic_algorithms_enabled(),
    )


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_cpu_and_gpu_reach_the_same_optimum():
    cpu, gpu = (train_ufm(PADDED, dim=6, device=device) for device in ("cpu", "cuda"))
    assert gpu.objectives == pytest.approx(cpu.objectives, rel=1e-11)


def test_training_is_silent(capfd):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        train_ufm(SMALL, 5, iterations=5, device="cpu")
    out, err = capfd.readouterr()
    assert (out, err) == ("", "")


# Refusals -----------------------------------------------------------------------------------------


def refuse_to_solve(*_, **__):
    raise AssertionError("work was done before the arguments were checked")


@pytest.mark.parametrize(
    "arguments, message",
    [
        (dict(ufms=[]), "ufms must be a UFM or a list of at least one UFM"),
        (dict(ufms=[SMALL, "x"]), "ufms must be"),
        (dict(ufms=[SMALL, UFM.from_lam_z([2, 2], 1)]), "ufms differ in their number of classes"),
        (dict(dim=3), "dim = 3: must be a whole number >= 4"),
        (dict(dim=4.5), "dim = 4.5"),
        (dict(seed=-1), "seed = -1"),
        (dict(iterations=0), "iterations = 0"),
        (dict(tol=0), "tol = 0"),
        (dict(tol=math.nan), "tol = nan"),
        (dict(features="tanh"), "features = 'tanh': must be one of 'linear', 'relu'"),
        (dict(features=None), "features = None"),
        (dict(device="tpu"), "device = 'tpu': must be None, 'cpu' or 'cuda'"),
        (dict(device=3.5), "device = 3.5"),
    ],
)
def test_train_ufm_refuses_before_any_work(monkeypatch, arguments, message):
    monkeypatch.setattr("ncutils.training.model.solve", refuse_to_solve)
    with pytest.raises(ValueError, match=message):
        train_ufm(**{"ufms": SMALL, "dim": 5, **arguments})


def test_train_ufm_refuses_a_number_as_problem():
    with pytest.raises(ValueError, match="ufms must be a UFM or a list"):
        train_ufm(3, 4)


TINY = UFM.from_lam_z([2, 2], 0.1)


def test_a_device_that_is_not_there_is_refused(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert pick_device(None).type == "cpu" and pick_device("cpu").type == "cpu"
    with pytest.raises(
        ValueError, match="device = 'cuda': must be None, 'cpu' or, where there is a GPU, 'cuda'"
    ):
        pick_device("cuda")


def test_cuda_is_chosen_where_there_is_one(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert pick_device(None).type == pick_device("cuda:0").type == "cuda"


def test_penalties_that_overflow_stop_with_an_error_instead_of_no_end(monkeypatch):
    small = solve(TINY)
    monkeypatch.setattr("ncutils.training.model.solve", lambda *_, **__: small)
    with pytest.raises(FloatingPointError, match="overflows in iteration 1"):
        train_ufm(UFM.from_lam_z([2, 2], 1.5e308), dim=2)


def test_huge_penalties_train_to_zero_as_long_as_the_objective_is_finite():
    trained = train_ufm(UFM.from_lam_z([2, 2], 1e200), dim=2, device="cpu")
    assert trained.objectives[0] == pytest.approx(math.log(2), rel=1e-14)
