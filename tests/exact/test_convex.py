"""The exact solver: against CVXPY, its certificate, and properties that an optimum must have."""

import functools
import math
import warnings

import cvxpy as cp
import numpy as np
import pytest
from fuzzed import depth, fuzzed
from hypothesis import strategies as st
from pytest import approx

from ncutils import UFM, dual_bound, metrics, solve, theory
from ncutils.exact import convex
from ncutils.exact._blocks import Blocks
from ncutils.exact._loss import best_bias
from ncutils.training.objective import ufm_objective
from ncutils.ufm import Phase

INF = math.inf


@functools.cache
def exact(ufm, tol=1e-10):
    return solve(ufm, tol=tol)


posed = UFM.from_lam_z


def two(k_a, n_a, n_b, l, lam_b):
    return posed([n_a] * k_a + [n_b] * (10 - k_a), l, lam_b)


L_55 = [0.0027, 0.0030, 0.0033, 0.0039, 0.0045, 0.0051, 0.0057, 0.0063, 0.0069, 0.0075]
L_37 = [0.0037, 0.0041, 0.0045, 0.0053, 0.0062, 0.0070, 0.0078, 0.0086, 0.0094, 0.0102]
N_55 = [100, 200, 300, 400, 600, 800, 1000, 1100, 1200, 1400]
N_37 = [100, 400, 450, 500, 700, 1000, 1600, 2200, 2500, 2800]
ROWS = [(5, 500, 100, l) for l in L_55] + [(3, 500, 100, l) for l in L_37]
ROWS += [(5, n, 100, 0.005) for n in N_55] + [(3, n, 100, 0.005) for n in N_37]
PAPER = [two(*row, lam_b) for lam_b in (INF, 0.02) for row in ROWS]
THREE = [
    posed([5000] * 3 + [4000] * 3 + [3000] * 4, 5e-4, 0.02),
    UFM([5000] * 4 + [4000] * 3 + [3000] * 3, 2e-3, 2e-6, 0.02),
    UFM([5000] * 4 + [3000] * 2 + [1000] * 4, 2e-3, 2e-6, 0.02),
]


def tail(K, largest=5000, ratio=100):
    return [round(largest * ratio ** (-k / (K - 1))) for k in range(K)]


LEVELS = {10: (1e-4, 1e-3, 3e-3), 100: (1e-4, 3e-4, 1e-3)}
TAILS = [posed(tail(K), l, lam_b) for lam_b in (INF, 0.02) for K in LEVELS for l in LEVELS[K]]
FEW = [
    posed(sizes, l, lam_b)
    for sizes in ([300, 100], [400, 200, 100], [1, 1], [1, 1, 1])
    for l in (1e-6, 1e-4, 1e-2, 0.03, 1.0)
    for lam_b in (INF, 0.02)
]
SMALL = [two(5, 500, 100, l, lam_b) for l in (1e-6, 1e-5, 1e-4, 1e-3) for lam_b in (INF, 0.02)]
ODD = [
    posed([1000, 1], 1e-3, 0.02),
    posed([10_000] * 2 + [10] * 20, 1e-4),
    posed([7] * 4, 0.03, 1e-4),
    posed([100, 50, 50, 20], 0.005, 1e4),
]
ALL = PAPER + THREE + TAILS + FEW + SMALL + ODD


def name(ufm):
    groups = "+".join(f"{len(c)}x{n}" for n, c in ufm.groups.items())
    return f"{groups[:40]}-{ufm.lam_z:.4g}-{ufm.lam_b:g}"


# Against another solver ---------------------------------------------------------------------------
def problems_of(argument, ufms):
    return pytest.mark.parametrize(argument, ufms, ids=name)


both_kinds = pytest.mark.parametrize("features", ["linear", "relu"])
with_and_without_bias = pytest.mark.parametrize("lam_b", [INF, 0.02])
no_warning = pytest.mark.filterwarnings("error")
PEERS = {  # K ≤ 10: seconds together
    "two groups, no bias": posed([20] * 3 + [5] * 2, 0.02),
    "two groups": posed([20] * 3 + [5] * 2, 0.02, 0.02),
    "three groups": posed([30] * 2 + [20] * 2 + [10] * 2, 0.01, 0.02),
    "long tail": posed([100, 40, 16, 6, 3, 1], 0.01, 0.05),
    "long tail, no bias": posed([100, 40, 16, 6, 3, 1], 0.02),
    "two classes": posed([30, 10], 0.05, 0.02),
    "three classes of different size": posed([40, 20, 10], 0.01),
    "balanced": posed([7] * 4, 0.03),
    "collapse": posed([50] * 3 + [10] * 3, 0.02, 0.02),
    "trivial": posed([10] * 3, 0.5, 0.1),
    "paper": two(5, 500, 100, 0.0039, 0.02),
    "weights": posed([20] * 3 + [5] * 2, 0.02, 0.02, class_weights=[1] * 3 + [4] * 2),
    "a weight for each class": posed([30, 10, 10, 4], 0.03, class_weights=[0.5, 2, 1, 7]),
}
SOLVERS = {
    "CLARABEL": dict(tol_gap_abs=1e-11, tol_gap_rel=1e-11, tol_feas=1e-11),
    "SCS": dict(eps_abs=1e-9, eps_rel=1e-9, max_iters=100_000),
}


def by_cvxpy(ufm, solver):
    """Value, Z and b of (CVX), as CVXPY finds them."""
    K, N, biased = ufm.num_classes, ufm.num_samples, math.isfinite(ufm.lam_b)
    Z, b = cp.Variable((K, K)), cp.Variable(K) if biased else np.zeros(K)
    shares = ufm.sizes * np.array(ufm.class_weights or 1) / N
    losses = [cp.log_sum_exp(Z[:, k] + b) - Z[k, k] - b[k] for k in range(K)]
    objective = sum(share * loss for share, loss in zip(shares, losses))
    objective += ufm.lam_z * cp.normNuc(Z @ np.diag(np.sqrt(ufm.class_sizes)))
    if biased:
        objective += ufm.lam_b / 2 * cp.sum_squares(b)
    problem = cp.Problem(cp.Minimize(objective))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # CVXPY's own deprecations
        problem.solve(solver=solver, **SOLVERS[solver])
    # the values are compared in any case
    assert problem.status in ("optimal", "optimal_inaccurate")
    return problem.value, Z.value, b.value if biased else b


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("setting", PEERS)
def test_cvxpy_finds_the_same_optimum(setting, solver):
    found = exact(PEERS[setting], tol=1e-13)
    value, Z, b = by_cvxpy(PEERS[setting], solver)
    # measured 2e-12 (CLARABEL), 2e-11 (SCS)
    assert found.objective == approx(value, rel=1e-10)
    # measured 2e-6, by CVXPY's tolerance: the optimum is flat
    assert found.logits == approx(Z, abs=1e-5)
    assert found.bias == approx(b, abs=5e-6)  # measured 7e-7
    assert dual_bound(PEERS[setting], Z, b) <= value * (1 + 1e-10)


# Certified everywhere -----------------------------------------------------------------------------
@no_warning
@problems_of("ufm", ALL)
def test_relative_gap_of_1e_10_is_reached(ufm):
    found = exact(ufm)
    assert found.certified and 0 <= found.relative_gap == found.certificate <= 1e-10
    assert found.iterations <= 12  # measured 8
    assert np.isfinite(found.logits).all() and np.isfinite(found.bias).all()
    assert found.objective == approx(convex.objective(ufm, found.logits, found.bias), rel=1e-14)
    assert np.abs(found.logits.sum(axis=0)).max() <= 1e-13 * max(1, np.abs(found.logits).max())
    assert abs(found.bias.sum()) <= 1e-13 and (math.isfinite(ufm.lam_b) or not found.bias.any())


ON_THE_LINE = lambda ufm: abs(ufm.lam_z * ufm.num_samples / 10 - 1) < 1e-9


OFF_THE_LINE = [ufm for ufm in PAPER[::3] + THREE + TAILS[:3] + FEW[:20] if not ON_THE_LINE(ufm)]


@problems_of("ufm", OFF_THE_LINE)
def test_as_many_dual_singular_values_reach_the_penalty_as_the_rank_says(ufm):
    found = exact(ufm, tol=1e-12)
    values = np.linalg.svd(dual_matrix(found), compute_uv=False) / ufm.lam_z
    assert values[0] <= 1 + 1e-9 and (values > 1 - 1e-9).sum() == found.rank
    assert np.linalg.matrix_rank(found.logits * np.sqrt(ufm.sizes), tol=1e-9) == found.rank


@with_and_without_bias
@pytest.mark.parametrize("K", [10, 30, pytest.param(100, marks=depth)])
def test_the_rank_of_a_long_tail_falls_with_the_penalty(K, lam_b):
    sizes = np.array(tail(K))
    levels = np.sqrt(sizes[[K - 2, 3 * K // 4, K // 2, K // 5, 0]]) * 1.0001
    levels[-1] *= 1.01
    ranks = [exact(posed(sizes, level / sizes.sum(), lam_b)).rank for level in levels]
    assert ranks == sorted(ranks, reverse=True) and ranks[0] >= K - 3 and ranks[-1] == 0
    for rank, level in zip(ranks, levels):
        assert abs(rank - (sizes >= level**2).sum()) <= 1


# The certificate ----------------------------------------------------------------------------------
def problem_at(sizes, level, lam_b):
    return posed(sizes, level * math.sqrt(max(sizes)) / sum(sizes), lam_b)


problems = st.builds(
    problem_at,
    st.lists(st.integers(1, 1000), min_size=2, max_size=6),
    st.floats(0.01, 1.1),
    st.sampled_from([INF, 100.0, 0.3, 0.02, 1e-3]),
)
seeds = st.integers(0, 2**32 - 1)
points = st.tuples(seeds, st.sampled_from([0.01, 0.3, 3.0, 30.0]))


def random_point(ufm, seed, scale):
    rng, K = np.random.default_rng(seed), ufm.num_classes
    Z, b = scale * rng.standard_normal((K, K)), scale * rng.standard_normal(K)
    return Z, b if math.isfinite(ufm.lam_b) else 0 * b


@fuzzed(problems, points, points, st.integers(0, 6))
def test_the_dual_bound_is_below_every_objective(ufm, here, there, rank):
    bound = dual_bound(ufm, *random_point(ufm, *here), rank=min(rank, ufm.num_classes))
    assert bound <= exact(ufm).objective * (1 + 1e-13)
    assert bound <= convex.objective(ufm, *random_point(ufm, *there))


@pytest.mark.parametrize("K, rank", [(2, 2), (3, 3), (5, 5)])
def test_the_dual_bound_holds_for_ranks_beyond_that_of_the_dual_matrix(K, rank):
    # the direction 1, in which columns of I − Q do not move, once made the bound of two classes too
    # large
    ufm = posed([1] * K, 0.5 / K)
    bounds = [dual_bound(ufm, *random_point(ufm, seed, 0.01), rank) for seed in range(20)]
    assert max(bounds) <= exact(ufm).objective * (1 + 1e-13)


@fuzzed(problems, seeds, st.floats(1e-6, 1.0))
def test_near_the_optimum_the_dual_bound_is_below_it_and_the_objective_above(ufm, seed, scale):
    optimum = exact(ufm)
    assert optimum.certified
    at_it = dual_bound(ufm, optimum.logits, optimum.bias, optimum.rank)
    assert at_it == approx(optimum.objective, rel=5e-10)
    Z, b = random_point(ufm, seed, scale)
    Z, b = optimum.logits + Z, optimum.bias + b
    assert convex.objective(ufm, Z, b) >= optimum.objective - optimum.gap
    assert dual_bound(ufm, Z, b, optimum.rank) <= optimum.objective * (1 + 1e-13)
    frame, zero = np.eye(len(b)) - 1 / len(b), np.zeros(len(b))  # points that need no solver
    best = min(convex.objective(ufm, a * frame, zero) for a in (0, 0.5, 1, 2, 4, 8))
    assert optimum.objective - optimum.gap <= best


sizes_of_few = st.lists(st.integers(1, 6), min_size=2, max_size=4)
scales = st.sampled_from([0.01, 0.3, 2.0])


@fuzzed(sizes_of_few, st.floats(1e-3, 0.5), st.sampled_from([INF, 0.1]), seeds, scales)
def test_no_weights_features_and_bias_are_below_the_exact_optimum(sizes, lam_z, lam_b, seed, scale):
    ufm = posed(sizes, lam_z, lam_b, balance=3.0)
    found, K, d = exact(ufm), ufm.num_classes, ufm.num_classes + 1
    rng = np.random.default_rng(seed)
    W = found.classifier(d) + scale * rng.standard_normal((K, d))
    H = found.class_means(d)[:, ufm.labels] + scale * rng.standard_normal((d, ufm.num_samples))
    b = found.bias + (0 if math.isinf(lam_b) else scale) * rng.standard_normal(K)
    assert ufm_objective(ufm, W, H, b, ufm.labels) >= found.objective - found.gap


def test_the_sharper_certificate_is_no_worse_and_often_much_better():
    ufm = two(5, 500, 100, 0.0030, 0.02)
    found = exact(ufm)
    Z = found.logits + 1e-4 * np.random.default_rng(0).standard_normal((10, 10))
    gap = lambda rank: found.objective - dual_bound(ufm, Z, found.bias, rank)
    assert 0 < gap(found.rank) < gap(0) / 100


@no_warning
@both_kinds
@pytest.mark.parametrize("scale", [50, 300, 700, 1000, 10_000])
def test_the_dual_bound_holds_where_all_probabilities_are_0_or_1(scale, features):
    ufm = posed([5, 5], 0.01)
    for far in (scale, -scale):
        bound = dual_bound(ufm, far * np.eye(2), np.zeros(2), features=features)
        assert 0 <= bound <= solve(ufm, features).objective


# Properties of the optimum ------------------------------------------------------------------------
def dual_matrix(found):
    """G = (I − P) diag(w) D^{1/2}/N at a solution, written out."""
    scores = found.logits + found.bias[:, None]
    P = np.exp(scores - scores.max(axis=0))
    P /= P.sum(axis=0)
    ufm = found.ufm
    return (np.eye(len(P)) - P) * ufm.weights * np.sqrt(ufm.sizes) / ufm.num_samples


KKT = [*PEERS.values(), PAPER[2], PAPER[13], PAPER[48], THREE[0], TAILS[1], TAILS[7], *FEW[2:6]]


@problems_of("ufm", KKT)
def test_optimality_conditions(ufm):
    found = exact(ufm, tol=1e-13)
    G, X = dual_matrix(found), found.logits * np.sqrt(ufm.sizes)
    assert np.linalg.norm(G, 2) <= ufm.lam_z * (1 + 1e-6)
    nuclear = np.linalg.norm(X, "nuc")
    assert np.vdot(G, X) == approx(ufm.lam_z * nuclear, rel=3e-7, abs=1e-15)
    if math.isfinite(ufm.lam_b):
        slope = G @ np.sqrt(ufm.sizes)  # (1/N) Σ n_k (e_k − p_k)
        assert ufm.lam_b * found.bias == approx(slope, abs=1e-14)


@with_and_without_bias
@pytest.mark.parametrize("K, n, c", [(2, 50, 0.5), (4, 50, 3.0), (10, 1000, 0.1), (30, 10, 1.0)])
def test_balanced_data_give_the_etf_in_closed_form(K, n, c, lam_b):
    found = exact(posed([n] * K, c / (n * K), lam_b), tol=1e-13)
    for of in ("logits", "features", "classifier"):
        assert found.cosines(of) == approx(theory.simplex_etf(K), abs=1e-13)
    p = c / math.sqrt(n) / K  # probability of each wrong class, from K p = λ_Z N / sqrt(n)
    a = math.log((1 - (K - 1) * p) / p)
    assert found.logits == approx(a * (np.eye(K) - 1 / K), abs=1e-6)
    assert np.abs(found.bias).max() < 1e-14


@pytest.mark.parametrize("t", [2, 9, 1000])
@problems_of("ufm", [PAPER[0], PAPER[43], PEERS["long tail"], PEERS["two classes"]])
def test_more_samples_and_a_smaller_penalty_are_the_same_problem(ufm, t):
    more = posed([t * n for n in ufm.class_sizes], ufm.lam_z / math.sqrt(t), ufm.lam_b)
    one, other = exact(ufm, tol=1e-12), exact(more, tol=1e-12)
    assert other.objective == approx(one.objective, rel=1e-13)
    assert other.logits == approx(one.logits, abs=1e-12)
    assert other.bias == approx(one.bias, abs=1e-12)


FACTORED = [([6, 3, 2], 0.02, INF), ([9, 9, 4, 4], 0.05, 0.02), ([5, 5], 0.9, 0.02)]


@pytest.mark.parametrize("balance", [1.0, 10.0, 0.01])
@pytest.mark.parametrize("sizes, l, lam_b", FACTORED)
def test_factors_have_the_objective_of_the_convex_program_and_the_cosines(sizes, l, lam_b, balance):
    ufm = posed(sizes, l, lam_b, balance)
    found, dim = solve(ufm, tol=1e-12), len(sizes) + 2
    W, H, Z = found.classifier(dim), found.class_means(dim), found.logits
    assert W.shape == (len(sizes), dim) and H.shape == (dim, len(sizes))
    for factor, default in ((W.T, found.classifier().T), (H, found.class_means())):
        assert np.array_equal(default, factor[:-2]) and not factor[-2:].any()  # of dimension K
    assert W @ H == approx(Z, abs=1e-12) and found.balance_residual < 1e-12
    for of, vectors in {"logits": Z, "features": H, "classifier": W.T}.items():
        assert found.cosines(of) == approx(metrics.cosines(vectors), abs=1e-13, nan_ok=True)
    loss = 0.0
    for k in ufm.labels:  # the UFM's objective, sample by sample
        scores = W @ H[:, k] + found.bias
        loss += (math.log(sum(math.exp(s) for s in scores)) - scores[k]) / sum(sizes)
    penalty = ufm.lam_w * (W**2).sum() + ufm.lam_h * (np.repeat(H, sizes, axis=1) ** 2).sum()
    bias = 0 if math.isinf(lam_b) else lam_b * (found.bias**2).sum()
    assert loss + (penalty + bias) / 2 == approx(found.objective, rel=1e-12)
    objective = ufm_objective(ufm, W, H[:, ufm.labels], found.bias, ufm.labels)
    assert objective == approx(found.objective, rel=1e-12)


@with_and_without_bias
def test_vanished_classes_have_no_cosine_and_the_others_form_an_etf(lam_b):
    found, nothing = exact(two(5, 500, 100, 0.0057, lam_b)), exact(two(5, 500, 100, 0.0075, lam_b))
    for of in ("logits", "features"):
        cosines = found.cosines(of)
        assert cosines[:5, :5] == approx(theory.simplex_etf(5), abs=1e-13)
        assert np.isnan(cosines[5:]).all() and np.isnan(cosines[:, 5:]).all()
    for of in ("logits", "features", "classifier"):
        assert np.isnan(nothing.cosines(of)).all()
    assert nothing.rank == 0 == nothing.balance_residual and not nothing.logits.any()
    assert not nothing.classifier(12).any() and not nothing.class_means(12).any()


@pytest.mark.parametrize("margin", [30, 100, 700])
def test_cross_entropy_and_its_gradient(margin):
    """Tiny losses keep all their digits."""
    Z = np.random.default_rng(0).standard_normal((4, 4))
    loss, gradient = convex.cross_entropy(Z)
    P = np.exp(Z) / np.exp(Z).sum(axis=0)
    assert loss == approx(-np.log(np.diag(P)), rel=1e-14)
    assert gradient == approx(P - np.eye(4), abs=1e-15)
    loss, gradient = convex.cross_entropy(margin * np.eye(3))
    assert loss == approx([math.log1p(2 * math.exp(-margin))] * 3, rel=1e-13, abs=0)
    assert np.diag(gradient) == approx([-2 * math.exp(-margin)] * 3, rel=1e-12, abs=0)


# Class weights ------------------------------------------------------------------------------------
@st.composite
def weighted(draw):
    """Up to five groups with class weights; classes of equal size may differ in theirs."""
    counts = draw(st.lists(st.integers(1, 3), min_size=2, max_size=5))
    sizes = np.repeat([draw(st.integers(1, 1000)) for _ in counts], counts)
    weights = np.repeat([draw(st.floats(0.01, 100)) for _ in counts], counts)
    lam_z = draw(st.floats(0.001, 1.2)) * (weights * np.sqrt(sizes)).max() / sizes.sum()
    return posed(sizes, lam_z, draw(st.sampled_from([INF, 5.0, 0.02])), class_weights=weights)


@both_kinds
def test_equal_weights_are_penalties_that_are_smaller(features):
    """min 3 loss + penalties is 3 min loss + penalties / 3."""
    sizes = [40, 40, 10, 10, 10]
    heavy = solve(posed(sizes, 0.03, 0.06, class_weights=[3] * 5), features, tol=1e-13)
    light = solve(posed(sizes, 0.01, 0.02), features, tol=1e-13)
    assert heavy.logits == approx(light.logits, abs=1e-14)
    assert heavy.bias == approx(light.bias, abs=1e-14)
    assert heavy.objective == approx(3 * light.objective, rel=1e-15)


def test_weights_of_many_classes_are_certified():
    """A group a class, more than are handled by matrices: with the start from merged groups."""
    rng = np.random.default_rng(0)
    sizes, weights = rng.permutation(np.arange(10, 90)), rng.uniform(0.2, 5, 80)
    assert solve(posed(sizes, 2e-4, 0.02, class_weights=weights), tol=1e-12).certified


# Nonnegative features -----------------------------------------------------------------------------
# a gap remains: sharing feature directions may pay
OPEN = {
    posed(tail(10), 1e-3, 0.02): 3.2e-4,
    two(5, 500, 100, 0.0030, 1e-4): 9.9e-3,  # a weak penalty of the bias
}


@no_warning
@problems_of("ufm", PAPER)
def test_the_nonnegative_program_is_certified_in_the_papers_settings(ufm):
    found = relu(ufm)
    assert found.certified and 0 <= found.relative_gap <= 1e-10
    assert found.objective >= exact(ufm).objective - exact(ufm).gap  # fewer features to choose from
    assert "upper bound" not in repr(found) and "optimal to a relative gap" in repr(found)


@functools.cache
def relu(ufm, tol=1e-10):
    return solve(ufm, features="relu", tol=tol)


@fuzzed(weighted())
def test_weighted_problems_are_certified_by_the_dual_without_blocks_and_collapse(ufm):
    for features in ("linear", "relu"):
        found = solve(ufm, features)
        full = convex.objective(ufm, found.logits, found.bias, features)
        assert found.objective == approx(full, rel=5e-15)
        assert found.certified or features == "relu"
        assert np.abs(found.logits.sum(axis=0)).max() <= 5e-15 * max(1, np.abs(found.logits).max())
    exact = solve(ufm, tol=1e-13)
    bound = dual_bound(ufm, exact.logits, exact.bias, exact.rank)
    assert bound == approx(exact.objective, rel=1e-14)
    predicted, phase = theory.phase(ufm), solve(ufm).phase
    assert phase.collapsed == predicted.collapsed  # where the optimality condition says
    assert predicted.rank[0] <= phase.rank[0] <= predicted.rank[1]


def best_direction(G, rng):
    """The largest ‖G h‖/‖h‖ of a search over h ≥ 0, by projected power steps."""
    K = len(G)
    h = rng.random((K, 400)) * (rng.random((K, 400)) < rng.choice([0.2, 0.5, 1.0], 400))
    h = np.hstack([h[:, h.any(axis=0)], np.eye(K)])
    for _ in range(100):
        h = np.maximum(h + 3 / np.linalg.norm(G, 2) ** 2 * G.T @ (G @ h), 0)
        h /= np.linalg.norm(h, axis=0)
    return np.linalg.norm(G @ h, axis=0).max()


SEARCHED = [*PAPER[:40:4], *PAPER[40::4], *OPEN, posed([30, 20, 10, 5], 0.02, 0.05)]


@no_warning
@problems_of("ufm", SEARCHED)
def test_no_direction_h_has_more_than_the_certificate_allows(ufm):
    found = relu(ufm, tol=1e-10 if ufm in OPEN else 1e-13)
    G = dual_matrix(found)
    longest = best_direction(G, np.random.default_rng(0))
    assert longest <= math.sqrt(np.linalg.eigvalsh(np.maximum(G.T @ G, 0))[-1]) * (1 + 1e-12)
    if ufm not in OPEN:
        assert found.certified and longest <= ufm.lam_z * (1 + 1e-9)
    else:  # the search finds why: two classes that gain by sharing a direction
        assert longest > ufm.lam_z * (1 + 1e-4)
        assert not found.certified and found.relative_gap == approx(OPEN[ufm], rel=0.05)
        assert "is an upper bound of the optimum, which is at least" in repr(found)
        assert "not certified" in repr(found) and "optimal to" not in repr(found)
    bound = dual_bound(ufm, found.logits, found.bias, features="relu")
    assert bound == approx(found.objective - found.gap, rel=1e-7)


@fuzzed(problems, points, seeds, scales)
def test_no_nonnegative_features_are_below_the_bound(ufm, point, seed, scale):
    found, K, d = relu(ufm), ufm.num_classes, ufm.num_classes + 2
    rng = np.random.default_rng(seed)
    # the objective of one feature vector a class is that of all samples
    W = found.classifier(d) + scale * rng.standard_normal((K, d))
    H = np.maximum(found.class_means(d) + scale * rng.standard_normal((d, K)), 0)
    b = found.bias + (0 if math.isinf(ufm.lam_b) else scale) * rng.standard_normal(K)
    loss, _ = convex.cross_entropy(W @ H + b[:, None])
    penalty = ufm.lam_w * (W**2).sum() + ufm.lam_h * (ufm.sizes * H**2).sum()
    bias = 0 if math.isinf(ufm.lam_b) else ufm.lam_b * (b**2).sum()
    assert ufm.sizes @ loss / ufm.num_samples + (penalty + bias) / 2 >= found.objective - found.gap
    bound = dual_bound(ufm, *random_point(ufm, *point), features="relu")
    assert bound <= found.objective * (1 + 1e-13)


@fuzzed(problems)
def test_factors_of_the_nonnegative_program_have_its_objective(ufm):
    found, d = relu(ufm), ufm.num_classes + 1
    W, H, size = found.classifier(d), found.class_means(d), max(1, abs(found.logits).max())
    assert (H >= 0).all() and W @ H == approx(found.logits, abs=1e-12 * size)
    # each feature direction is balanced; the products of different ones are not, as H ≥ 0 binds
    balance = ufm.lam_w * (W**2).sum(axis=0), ufm.lam_h * (H**2) @ ufm.sizes
    assert balance[0] == approx(balance[1], rel=1e-12, abs=1e-300)
    penalty = (ufm.lam_w * (W**2).sum() + ufm.lam_h * (ufm.sizes * H**2).sum()) / 2
    columns = ufm.lam_z * (np.sqrt(ufm.sizes) * np.linalg.norm(found.logits, axis=0)).sum()
    assert penalty == approx(columns, rel=1e-12, abs=1e-300)
    for of, vectors in {"logits": found.logits, "features": H, "classifier": W.T}.items():
        assert found.cosines(of) == approx(metrics.cosines(vectors), abs=1e-7, nan_ok=True)
    features = found.cosines("features")[~np.eye(ufm.num_classes, dtype=bool)]
    assert np.nanmax(np.abs(features), initial=0.0) == 0  # orthogonal


@fuzzed(problems.filter(lambda ufm: math.isinf(ufm.lam_b)))
def test_without_bias_the_nonnegative_program_has_a_closed_form(ufm):
    found = relu(ufm, tol=1e-12)
    assert found.certified
    assert found.logits == approx(theory.relu_logits(ufm.class_sizes, ufm.lam_z), abs=1e-9)


# Phases -------------------------------------------------------------------------------------------
@fuzzed(problems, st.randoms(use_true_random=False))
def test_groups_collapse_where_the_theorem_says_and_permuting_classes_permutes(ufm, random):
    found, predicted = exact(ufm), theory.phase(ufm)
    if len(ufm.groups) != 2:
        assert found.phase.collapsed == predicted.collapsed
        (lowest, highest), (low, high) = predicted.rank, found.phase.rank
        assert lowest <= low == found.rank == high <= highest
    order = random.sample(range(ufm.num_classes), ufm.num_classes)
    permuted = UFM([ufm.class_sizes[k] for k in order], ufm.lam_w, ufm.lam_h, ufm.lam_b)
    other, size = exact(permuted), max(1, np.abs(found.logits).max())
    assert other.objective == approx(found.objective, rel=1e-13)
    assert other.logits == approx(found.logits[np.ix_(order, order)], abs=1e-12 * size)
    assert other.bias == approx(found.bias[order], abs=1e-12)


PAIRS = [ufm for ufm in PAPER + FEW + SMALL if len(ufm.groups) == 2]


@problems_of("ufm", PAIRS)
def test_phase_and_rank_are_the_predicted_ones(ufm):
    if ON_THE_LINE(ufm):
        found = exact(ufm, tol=1e-13)
        assert abs(metrics.minority_gap(found.logits, ufm.groups[100])) < 1e-13
        return
    found, (k_a, k_b) = exact(ufm), map(len, ufm.groups.values())
    assert found.phase == theory.phase(ufm)
    ranks = k_a + k_b - 1, k_a, k_a - 1, 0
    assert found.rank == ranks[list(Phase).index(found.phase)]
    assert set(found.group_gaps) == {n for n, members in ufm.groups.items() if len(members) > 1}
    for n, gap in found.group_gaps.items():
        measured = metrics.minority_gap(found.logits, ufm.groups[n])
        assert measured == approx(gap, abs=1e-12)
        assert (gap > 0) == (ufm.lam_z * ufm.num_samples < math.sqrt(n))


# Any size, any penalty ----------------------------------------------------------------------------
MANY = {
    "tail of 100": posed(tail(100, 500), 5e-4, 0.02),
    "300": posed(tail(300), 0.8 * math.sqrt(50) / sum(tail(300))),
    "three groups": posed([500] * 300 + [300] * 300 + [100] * 400, 3e-5, 0.02),
}


@no_warning
@pytest.mark.parametrize("case", ["tail of 100", pytest.param("300", marks=depth), "three groups"])
def test_many_classes_are_certified(case):
    ufm = MANY[case]
    K, found = ufm.num_classes, solve(ufm, tol=1e-12)
    assert found.certified and found.iterations <= 12 and found.logits.shape == (K, K)
    if K <= 300:  # by the certificate on the full matrix, which knows no groups
        bound = dual_bound(ufm, found.logits, found.bias, found.rank)
        assert bound == approx(found.objective, rel=1e-11)


@no_warning
@both_kinds
@with_and_without_bias
def test_the_number_of_steps_does_not_grow_with_small_penalties_or_many_samples(lam_b, features):
    penalties = [two(5, 500, 100, lam_z, lam_b) for lam_z in 10.0 ** -np.arange(3, 16, 2)]
    sizes = (int(n) for n in 10 ** np.arange(3, 16, 3))
    samples = [posed([2 * n] * 5 + [n] * 5, 0.1 / (15 * n), lam_b) for n in sizes]
    for ufm in penalties + samples:
        found = solve(ufm, features, tol=1e-13)
        assert found.certified and found.iterations <= 8  # measured 4 to 7


UNEVEN = [[1000, 1], [10**90, 10**90, 10**80], [10**15, 1], [1, 10**6, 3]]


@no_warning
@both_kinds
@pytest.mark.parametrize("lam_b", [INF, 1e12, 0.02, 1e-12])
@pytest.mark.parametrize("sizes", [[1, 1], [1] * 5, *UNEVEN, [5] * 50])
def test_extreme_problems_are_solved_without_nan(sizes, lam_b, features):
    trivial = 0
    for lam_z in (1e-90, 1e-30, 1e-12, 1e-3, 1.0, 1e12, 1e100, 1e300):
        found = solve(posed(sizes, lam_z, lam_b), features)
        assert np.isfinite(found.logits).all() and np.isfinite(found.bias).all()
        assert 0 <= found.gap < math.inf and (features == "relu" or found.certified)
        trivial += found.rank == 0
    assert trivial >= 3 and found.rank == 0 and not found.logits.any()


# Stopping, and refusals ---------------------------------------------------------------------------
def test_stopping_early_warns_with_the_gap_and_certifies_nothing():
    ufm = two(5, 500, 100, 0.0027, 0.02)
    with pytest.warns(RuntimeWarning) as caught:
        early = solve(ufm, max_iterations=3)
    assert not early.certified and early.iterations == 3 and early.relative_gap > 1e-10
    [warning] = caught
    expected = f"after 3 iterations at relative gap {early.relative_gap:.1e}, above tol = 1.0e-10"
    assert expected in str(warning.message) and warning.filename == __file__
    assert early.objective - early.gap <= exact(ufm).objective <= early.objective


def test_a_tolerance_below_rounding_ends_with_a_warning_that_names_it():
    with pytest.warns(RuntimeWarning, match="above tol = 1.0e-17: raise tol"):
        found = solve(PAPER[1], tol=1e-17)
    assert not found.certified and found.iterations < 30 and found.relative_gap < 1e-13


@no_warning
def test_a_looser_tolerance_stops_earlier():
    ufm = two(5, 500, 100, 0.0027, 0.02)
    counts = [exact(ufm, tol).iterations for tol in (1e-2, 1e-6, 1e-12)]
    assert counts == sorted(set(counts)) and exact(ufm, 1e-2).relative_gap > 1e-12


def test_solving_twice_gives_the_same_digits():
    one, other = (solve(PEERS["three groups"]) for _ in range(2))
    assert (one.logits == other.logits).all() and one.gap == other.gap


UFM_22 = posed([2, 2], 0.1)
AT = np.eye(2), np.zeros(2)
bound_22 = lambda **arguments: dual_bound(UFM_22, *AT, **arguments)
KINDS = "must be one of 'linear', 'relu'"
REFUSED = {
    r"ufm = \[2, 2\]: must be a UFM": lambda: solve([2, 2]),
    "ufm.*must be a UFM": lambda: dual_bound([2, 2], *AT),
    r"ufm = \[2, 2\].*must be a UFM": lambda: convex.objective([2, 2], *AT),
    f"features = 'sigmoid': {KINDS}": lambda: solve(UFM_22, "sigmoid"),
    f"features = 'tanh': {KINDS}": lambda: bound_22(features="tanh"),
    "N must be at most 1e[+]100.*solve_two_groups_log": lambda: solve(posed([10**120, 1], 0.1)),
    "lam_z = 1e-200: must be at least 2.24e-101": lambda: solve(posed([5, 5], 1e-200)),
    "lam_b = 1e-13: must be at least 1e-12": lambda: solve(posed([5, 5], 0.1, 1e-13)),
    "tol = 0: must be a positive number": lambda: solve(UFM_22, tol=0),
    "max_iterations = 0: must be a whole number >= 1": lambda: solve(UFM_22, max_iterations=0),
    "max_iterations = 2.5": lambda: solve(UFM_22, max_iterations=2.5),
    "of = 'bias': must be one of 'logits', 'features', 'cl": lambda: exact(UFM_22).cosines("bias"),
    "dim = 1: must be a whole number >= 2": lambda: exact(UFM_22).classifier(1),
    "dim = 1.5: must be a whole number >= 2": lambda: exact(UFM_22).class_means(1.5),
}
REFUSED |= {f"rank = {x}": lambda x=x: bound_22(rank=x) for x in (-1, 0.5, math.nan)}
REFUSED |= {f"tol = {x}": lambda x=x: solve(UFM_22, tol=x) for x in (-0.001, math.nan)}


@pytest.mark.parametrize("message", REFUSED)
def test_refusals_name_argument_and_value(message):
    with pytest.raises(ValueError, match=message):
        REFUSED[message]()


NO_POINT = [
    (np.eye(3), np.zeros(2), r"logits \(3, 3\) and bias \(2,\): must be \(2, 2\) and \(2,\)"),
    (np.eye(2), np.zeros(3), r"logits \(2, 2\) and bias \(3,\): must be"),
    (np.eye(2), np.zeros((2, 1)), "bias has shape"),
    (np.ones(4), np.zeros(2), "logits has shape"),
    (np.full((2, 2), math.nan), np.zeros(2), "logits holds NaN"),
    (np.eye(2), np.array([0, math.inf]), "bias holds NaN or infinite"),
    (np.eye(2), np.array([1, -1]), "bias is not zero"),
]


@pytest.mark.parametrize("logits, bias, message", NO_POINT)
@pytest.mark.parametrize("function", [dual_bound, convex.objective])
def test_points_of_the_wrong_shape_or_without_a_value_are_refused(function, logits, bias, message):
    with pytest.raises(ValueError, match=message):
        function(UFM_22, logits, bias)


@pytest.mark.parametrize("start", [-40.0, 0.0, 15.0, 40.0])
def test_the_best_bias_is_found_from_afar(start):
    program = Blocks(np.array([30.0, 5, 2]), np.ones(3), 0.01, 1e-3)
    Z = 4 * np.random.default_rng(0).standard_normal((3, 3))
    margins = (Z - np.diag(Z)) * (1 - np.eye(3))
    bias, loss, p = best_bias(program, margins, start * np.array([-1.0, 0, 1]))
    loss_by_class, gradient = convex.cross_entropy(Z + bias[:, None])
    assert gradient @ program.sizes / 37 + 1e-3 * bias == approx(np.zeros(3), abs=1e-13)
    assert loss == approx(loss_by_class, rel=1e-14)
    assert (p - gradient)[~np.eye(3, dtype=bool)] == approx(np.zeros(6), abs=1e-14)
