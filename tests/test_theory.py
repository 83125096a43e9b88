"""Closed forms against the exact optimum, and against a second derivation of it in logarithms."""

import functools
import itertools
import math

import numpy as np
import pytest
from pytest import approx
from scipy.optimize import brentq, minimize

from ncutils import UFM, metrics, solve, solve_two_groups, theory
from ncutils.exact.convex import objective
from ncutils.theory._vanishing import ZeroMinority
from ncutils.ufm import GroupPhases, Phase

INF = math.inf


@functools.cache
def exact_at(sizes, level, lam_b, tol=1e-13):
    """Exact optimum at λ_Z N = level."""
    return solve(UFM.from_lam_z(sizes, level / sum(sizes), lam_b), tol=tol)


def two(k_a, k_b, n_a, n_b):
    return (n_a,) * k_a + (n_b,) * k_b


def angles(cosines):
    """A, B, AB of two groups with two classes at least in each."""
    return np.array([cosines[0, 1], cosines[-1, -2], cosines[0, -1]])


D, C = Phase.DISTINCT, Phase.MINORITY_COLLAPSE
V, T = Phase.MINORITY_VANISHES, Phase.TRIVIAL

# Thresholds ---------------------------------------------------------------------------------------


def limit_error(k_a, k_b, r, log_n, limit):
    """The largest error of limit logits, times ln n."""
    return log_n * np.abs(limit - reference(k_a, k_b, r, log_n, 0.1)).max()


GROUPS = [(5, 5, 500, 100), (3, 7, 500, 100), (1, 4, 300, 50), (4, 1, 300, 50)]
GROUPS += [(1, 1, 300, 100), (2, 2, 7, 2), (1, 6, 10, 9)]
BIASES = pytest.mark.parametrize("lam_b", [INF, 0.02])


@pytest.mark.parametrize("lam_b", [INF, 1.0, 0.02, 1e-3])
@pytest.mark.parametrize("groups", GROUPS, ids=str)
def test_rank_falls_at_every_threshold_and_nowhere_between(groups, lam_b):
    k_a, k_b, _, _ = groups
    ranks, phases = {D: k_a + k_b - 1, C: k_a, V: k_a - 1, T: 0}, []
    lines = theory.thresholds(UFM.from_lam_z(two(*groups), 1.0, lam_b))
    edges = sorted({*lines.merged.values(), *lines.vanished, lines.trivial})
    for edge, factor in itertools.product(edges, (0.999, 1.001)):
        exact = exact_at(two(*groups), edge * factor, lam_b)
        phases.append(theory.phase(exact.ufm))
        assert exact.rank == ranks[phases[-1]], (edge, factor, phases[-1])
    assert phases[0] == D and phases[-1] == T
    # one phase from just above a line to just below the next; another one across each line
    assert all(above == below for above, below in zip(phases[1::2], phases[2::2]))
    assert all(below != above for below, above in zip(phases[::2], phases[1::2]))


def test_thresholds_are_those_of_each_function():
    for groups, lam_b in itertools.product(GROUPS, (INF, 0.02)):
        k_a, k_b, n_a, n_b = groups
        found = theory.thresholds(UFM.from_lam_z(two(*groups), 1e-3, lam_b))
        counts = {n_a: k_a, n_b: k_b}
        merged = {n: theory.minority_threshold(n) for n, count in counts.items() if count > 1}
        assert found.merged == merged
        assert found.vanished == theory.vanishing_thresholds(*groups, lam_b)
        assert found.trivial == theory.trivial_threshold(*groups, lam_b)
    many = UFM.from_lam_z(two(*FIRST[:4]), 1e-3, FIRST[4])
    assert theory.thresholds(many).vanished == approx(THREE[FIRST], rel=1e-13)


@pytest.mark.parametrize(
    "sizes, weights, merged",
    [
        ((9, 9, 4, 4, 1), None, {9: 3, 4: 2}),
        ((9, 9, 9), None, {9: 3}),
        ((9, 9, 4, 4, 4), (1, 1, 2, 2, 5), {(9, 1): 3, (4, 2): 4}),
    ],
)
def test_other_groups_and_weights_have_the_lines_where_they_merge(sizes, weights, merged):
    at = lambda level: UFM.from_lam_z(sizes, level / sum(sizes), class_weights=weights)
    assert theory.thresholds(at(0.01)) == theory.Thresholds(merged, [], None)
    for kind, level in merged.items():
        gaps = [solve(at(level * f), tol=1e-13).group_gaps[kind] for f in (0.999, 1.001)]
        assert gaps[0] != 0 and gaps[1] == 0


@pytest.mark.parametrize(
    "lam_b, predicted, digits", [(INF, 13.815946935, 5e-10), (0.02, 11.949789, 5e-7)]
)
def test_vanishing_threshold_of_the_example(lam_b, predicted, digits):
    found = theory.vanishing_threshold(5, 5, 500, 100, lam_b)
    assert found == approx(predicted, abs=digits, rel=0)


NEARLY = [((2, 2, 100, 99), 0.02), ((3, 2, 1010, 1000), 1.0), ((20, 5, 20, 10), 1e-3)]


@pytest.mark.parametrize("groups, lam_b", NEARLY, ids=str)
def test_minority_means_vanish_at_the_threshold_also_where_groups_are_nearly_of_one_size(
    groups, lam_b
):
    v, k_a = theory.vanishing_threshold(*groups, lam_b), groups[0]
    assert theory.minority_threshold(groups[3]) < v < theory.trivial_threshold(*groups, lam_b)
    ranks = [exact_at(two(*groups), v * f, lam_b).rank for f in (1 - 1e-5, 1 + 1e-5)]
    assert ranks == [k_a, k_a - 1]


@BIASES
@pytest.mark.parametrize("groups", [(5, 5, 500, 100), (3, 7, 500, 100), (2, 2, 7, 2)], ids=str)
def test_minority_means_are_one_vector_then_none(groups, lam_b):
    k_a, k_b, _, n_b = groups
    minority = range(k_a, k_a + k_b)
    collapse, vanish = theory.minority_threshold(n_b), theory.vanishing_threshold(*groups, lam_b)
    before, merged = (exact_at(two(*groups), collapse * f, lam_b) for f in (0.99, 1.001))
    assert metrics.minority_gap(before.logits, minority) > 0.01
    assert metrics.minority_gap(merged.logits, minority) == approx(0, abs=1e-12)
    assert metrics.minority_spread(merged.logits, minority) < 1e-12
    assert not np.isnan(merged.cosines()).any()
    apart, gone = (exact_at(two(*groups), vanish * f, lam_b) for f in (0.999, 1.001))
    assert np.abs(apart.logits[:, k_a:]).min() > 1e-4
    assert np.abs(gone.logits[:, k_a:]).max() < 1e-12


@pytest.mark.parametrize("groups", [(1, 4, 300, 50), (1, 1, 300, 100), (1, 6, 10, 9)], ids=str)
def test_one_majority_class_loses_everything_at_once(groups):
    k_a, k_b, n_a, n_b = groups
    trivial, biased = theory.trivial_threshold(*groups), theory.trivial_threshold(*groups, 0.02)
    assert trivial == theory.vanishing_threshold(*groups)
    assert trivial == approx(math.sqrt((k_b * n_a + k_a * n_b) / (k_a + k_b)), rel=1e-14)
    assert biased == theory.vanishing_threshold(*groups, 0.02) < trivial


def test_one_minority_class_has_no_collapse_phase():
    levels = [1.01 * math.sqrt(50), 0.99 * theory.vanishing_threshold(4, 1, 300, 50)]
    assert levels[0] < levels[1]
    for exact in (exact_at(two(4, 1, 300, 50), level, INF) for level in levels):
        assert theory.phase(exact.ufm) == D and exact.rank == 4


def test_thresholds_are_ordered():
    for k_a, k_b, n_a, n_b in itertools.product([2, 5], [2, 30], [100, 10_000], [1, 99]):
        vanish = theory.vanishing_threshold(k_a, k_b, n_a, n_b, 0.02)
        trivial = theory.trivial_threshold(k_a, k_b, n_a, n_b)
        assert theory.minority_threshold(n_b) < vanish < trivial


@BIASES
def test_balanced_thresholds_coincide(lam_b):
    v = theory.vanishing_threshold(4, 6, 70, 70, lam_b)
    assert v == approx(theory.minority_threshold(70), rel=1e-14)
    assert v == approx(theory.trivial_threshold(4, 6, 70, 70, lam_b), rel=1e-14)


def test_a_heavy_bias_penalty_is_no_bias():
    heavy, none = (theory.vanishing_threshold(5, 5, 500, 100, lam_b) for lam_b in (1e9, INF))
    assert heavy == approx(none, rel=1e-9)


@pytest.mark.parametrize("lam_b, slope, limit", [(INF, 8.4, 8.4423), (0.02, 12.4, 12.3915)])
def test_the_minority_gap_opens_linearly_below_the_threshold(lam_b, slope, limit):
    def measured(below):
        exact = exact_at(two(5, 5, 500, 100), 10 * (1 - below), lam_b)
        return metrics.minority_gap(exact.logits, range(5, 10)) / below

    assert measured(1e-4) == approx(limit, rel=1e-3)
    assert measured(1e-4) == approx(slope, abs=0.05)
    assert measured(1e-2) < measured(1e-3) < measured(1e-4)  # a concave start


# The passage from collapse to vanishing


THREE = {
    (10, 10**4, 10**4, 1, 0.0016): (4.3484576456978, 7.1932224443634, 14.146264075404),
    (20, 10**4, 10**4, 1, 0.00063): (2.6153506923624, 6.4023238973432, 7.9446555962126),
    (10, 5000, 10**6, 1, 0.0002): (4.6370492957232, 8.9635716627779, 11.82898002072),
}
FIRST = next(iter(THREE))


@pytest.mark.parametrize("case", THREE, ids=str)
def test_the_passage_from_collapse_to_vanishing_is_not_unique(case):
    found = theory.vanishing_thresholds(*case)
    assert found == approx(THREE[case], rel=1e-13)
    assert theory.vanishing_threshold(*case) == found[0]
    *groups, lam_b = case
    sizes = two(*groups)
    levels = np.outer(found, [1 - 1e-6, 1 + 1e-6]) / sum(sizes)
    exact = solve_two_groups(*groups, levels, lam_b)
    assert exact.certificate < 1e-12 and exact.phase.tolist() == [[C, V], [V, C], [C, V]]
    at = lambda lam_z: theory.phase(UFM.from_lam_z(sizes, lam_z, lam_b))
    assert [[at(lam_z) for lam_z in pair] for pair in levels] == exact.phase.tolist()


@pytest.mark.parametrize("level, phase", [(4.0, C), (5.5, V), (10.0, C), (14.2, V)])
def test_the_minority_vanishes_comes_back_and_vanishes_again(level, phase):
    exact = exact_at(two(*FIRST[:4]), level, FIRST[4], tol=1e-12)
    assert exact.certified and exact.phase == theory.phase(exact.ufm) == phase


def test_a_level_at_any_crossing_counts_as_vanished():
    sizes = two(*FIRST[:4])
    at = lambda level: theory.phase(UFM.from_lam_z(sizes, level / sum(sizes), FIRST[4]))
    for place, level in enumerate(theory.vanishing_thresholds(*FIRST)):
        assert {at(level * (1 + shift)) for shift in (-2e-13, 0, 2e-13)} == {V}
        sides = [at(level * (1 + shift)) for shift in (-5e-12, 5e-12)]
        assert sides == ([V, C] if place % 2 else [C, V])


def one_passage(condition, number):
    """Random settings (K_A, K_B, n_A, n_B, λ_b) that meet a condition for one passage, by a
    millionth or by far.
    """
    rng, ranges = np.random.default_rng(1), [(0.31, 2), (0, 5), (0, 16), (-8, 1), (-6, 2)]
    for _ in range(number):
        k_a, k_b, log_r, lam_b, room = (rng.uniform(*between) for between in ranges)
        k_a, k_b, lam_b, room = int(10**k_a), int(10**k_b), 10**lam_b, 1 + 10**room
        if condition == "no bias":
            lam_b = INF
        elif condition == "K_B":
            k_b = max(1, math.floor(math.e**2 * k_a / room))
        elif condition == "λ_b":
            lam_b = (k_a + k_b) / ((math.e * k_a + k_b) * (k_a + k_b * math.exp(-log_r))) * room
        else:
            log_r = 1 / room
        yield k_a, k_b, math.exp(log_r), 1.0, lam_b


@pytest.mark.parametrize("number", [40, pytest.param(1000, marks=pytest.mark.depth)])
@pytest.mark.parametrize("condition", ["no bias", "K_B", "λ_b", "r"])
def test_the_passage_is_unique_under_each_condition(condition, number, monkeypatch):
    """A search without the conditions finds one crossing, S above 1 before, below 1 after it."""
    settings = list(one_passage(condition, number))
    at_once = [theory.vanishing_thresholds(*setting) for setting in settings]
    monkeypatch.setattr(ZeroMinority, "unique", lambda self: False)
    for setting, found in zip(settings, at_once):
        searched = theory.vanishing_thresholds(*setting)
        assert len(searched) == 1 and searched == approx(found, rel=1e-11), setting
        minority = ZeroMinority(*setting)
        log_v = math.log(searched[0] / math.sqrt(setting[2]))
        before, after = np.linspace(minority.span[0], log_v, 4)[:-1], np.linspace(log_v, 0, 4)[1:]
        assert all(minority.excess_at(x) > 0 for x in before), setting
        assert all(minority.excess_at(x) < 0 for x in after), setting


def test_phases_agree_with_the_scalar_equation_where_the_passage_may_not_be_unique():
    rng = np.random.default_rng(4)
    k_a, k_b = rng.integers(2, 40, 1000), (10 ** rng.uniform(3.3, 5, 1000)).astype(int)
    r, lam_b = (10 ** rng.uniform(2.7, 7, 1000)).astype(int), 10 ** rng.uniform(-5, -2, 1000)
    lam_z = np.exp(rng.uniform(0, 1, 1000) * np.log(r) / 2) / (k_a * r + k_b)
    exact = solve_two_groups(k_a, k_b, r, 1, lam_z, lam_b)
    assert all((exact.phase == phase).sum() > 100 for phase in (C, V))
    for i, phase in enumerate(exact.phase):
        ufm = UFM.from_lam_z([int(r[i]), 1], lam_z[i], lam_b[i])
        # as if made of all its classes, which takes long
        groups = {int(r[i]): range(k_a[i]), 1: range(k_b[i])}
        vars(ufm).update(groups=groups, num_samples=int(k_a[i] * r[i] + k_b[i]))
        assert theory.phase(ufm) == phase


COUNTS = [(1, 1), (1, 10**12), (2, 10**12), (10**12, 2), (10**12, 10**12), (10, 1000)]


@pytest.mark.parametrize("lam_b", [1e-300, 5e-324, 1e-16, 1.0, 1e16, 1e300, INF])
@pytest.mark.parametrize("k_a, k_b", COUNTS)
def test_thresholds_at_the_extremes(k_a, k_b, lam_b):
    for n_a, n_b in [(1 + 1e-15, 1.0), (3.0, 1.0), (1e20, 1.0), (1e308, 1e-308), (1e-290, 1e-300)]:
        found, room = theory.vanishing_thresholds(k_a, k_b, n_a, n_b, lam_b), 1e-12
        assert len(found) % 2 == 1 and found == sorted(found)
        assert math.sqrt(n_b) * (1 - room) <= found[0] and found[-1] <= math.sqrt(n_a) * (1 + room)


# Phases -------------------------------------------------------------------------------------------

L_55 = [0.0027, 0.0030, 0.0033, 0.0039, 0.0045, 0.0051, 0.0057, 0.0063, 0.0069, 0.0075]
L_37 = [0.0037, 0.0041, 0.0045, 0.0053, 0.0062, 0.0070, 0.0078, 0.0086, 0.0094, 0.0102]


@pytest.mark.parametrize(
    "k_a, values, lam_b, phases",
    [
        (5, L_55, INF, [D, D, D, C, C, V, V, V, V, T]),
        (5, L_55, 0.02, [D, D, D, C, V, V, V, V, V, T]),
        (3, L_37, INF, [D, D, D, C, C, C, C, V, V, T]),
        (3, L_37, 0.02, [D, D, D, C, C, V, V, V, V, T]),
    ],
)
def test_phases_of_the_papers_lists(k_a, values, lam_b, phases):
    sizes = two(k_a, 10 - k_a, 500, 100)
    assert [theory.phase(UFM.from_lam_z(sizes, l, lam_b)) for l in values] == phases


def test_the_phase_does_not_depend_on_the_order_of_classes():
    for level in (5, 11, 14.5, 23):
        at = lambda sizes: theory.phase(UFM.from_lam_z(sizes, level / 40, 0.02))
        assert at([9, 9, 9, 5, 5, 3]) == at([5, 9, 9, 3, 9, 5])
    assert theory.phase(UFM.from_lam_z([5, 9, 9, 5], 2.5 / 28)) == C


@pytest.mark.parametrize(
    "sizes, lam_z, below, above",
    [([12, 12, 4, 4], 2 / 32, D, C), ([16] * 3 + [4] * 4, 4 / 64, V, T)],
)
def test_the_threshold_itself_belongs_to_the_phase_above(sizes, lam_z, below, above):
    at = lambda lam_z: theory.phase(UFM.from_lam_z(sizes, lam_z))
    assert (at(lam_z - 1e-9), at(lam_z)) == (below, above)


@pytest.mark.parametrize("lam_z, sizes", [(0.05, two(2, 2, 16, 4)), (0.005, two(5, 5, 300, 100))])
def test_rounding_of_the_penalty_does_not_move_it_off_the_threshold(lam_z, sizes):
    ufm = UFM.from_lam_z(sizes, lam_z)
    assert ufm.lam_z * ufm.num_samples == approx(math.sqrt(sizes[-1]), rel=1e-15)
    assert theory.phase(ufm) == C


@pytest.mark.parametrize(
    "level, collapsed, ranks",
    [(4.9, "000", (6, 8)), (5.1, "001", (3, 5)), (10.1, "011", (2, 4)), (20.1, "111", (0, 2))],
)
def test_three_groups_collapse_one_after_the_other(level, collapsed, ranks):
    exact = exact_at((400,) * 3 + (100,) * 2 + (25,) * 4, level, 0.02)
    flags = {n: flag == "1" for n, flag in zip((400, 100, 25), collapsed)}
    assert theory.phase(exact.ufm) == GroupPhases(flags, ranks)
    assert ranks[0] <= exact.rank <= ranks[1]
    for n, members in exact.ufm.groups.items():
        assert (metrics.minority_gap(exact.logits, members) < 1e-12) == flags[n], n


@pytest.mark.parametrize(
    "sizes, level, collapsed, ranks",
    [
        ([25] * 4, 4.9, {25: False}, (3, 3)),
        ([25] * 4, 5.1, {25: True}, (0, 0)),
        ([16] * 4, 4, {16: True}, (0, 0)),  # on the line
        ([9, 4, 1], 1.4, {}, (0, 2)),
    ],
)
def test_balanced_and_single_classes_as_groups(sizes, level, collapsed, ranks):
    found = theory.phase(UFM.from_lam_z(sizes, level / sum(sizes)))
    assert found == GroupPhases(collapsed, ranks)


# Geometries ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("K", [2, 3, 10])
def test_simplex_etf_is_the_angles_of_a_centred_frame(K):
    assert theory.simplex_etf(K) == approx(metrics.cosines(np.eye(K) - 1 / K), abs=1e-14)


def test_seli_values_of_the_example():
    features, classifiers = theory.seli([2] * 5 + [1] * 5)
    assert angles(features) == approx([-0.092335, -0.134237, -0.108079], abs=5e-7)
    assert angles(classifiers) == approx([-0.127901, -0.084041, -0.113880], abs=5e-7)


def test_seli_is_a_factorisation_of_the_centred_labels():
    """X = UΣVᵀ, so UΣUᵀ = (XXᵀ)^{1/2} and VΣVᵀ = (XᵀX)^{1/2}."""
    n = np.array([7, 5, 5, 1])
    X = (np.eye(4) - 1 / 4) * np.sqrt(n)

    def root(M):
        values, vectors = np.linalg.eigh(M)
        return vectors * np.sqrt(np.maximum(values, 0)) @ vectors.T

    features, classifiers = theory.seli(n)
    scaled = root(X.T @ X) / np.sqrt(np.outer(n, n))
    assert classifiers == approx(metrics.cosines_from_gram(root(X @ X.T)), abs=1e-7)
    assert features == approx(metrics.cosines_from_gram(scaled), abs=1e-7)


def test_seli_of_balanced_data_is_the_etf_and_depends_on_ratios_only():
    for cosines in theory.seli([3] * 6):
        assert cosines == approx(theory.simplex_etf(6), abs=1e-14)
    for one, ten in zip(theory.seli([1, 2, 5]), theory.seli([10, 20, 50])):
        assert one == approx(ten, abs=1e-14)


# The limit of many samples ------------------------------------------------------------------------


def reference(k_a, k_b, r, log_n, c):
    """Exact Z without bias at n_B = exp(log_n), n_A = r n_B, λ_Z N = c, where all class means
    differ.

    There (I − P) D (I − P)ᵀ = c² (I − 11ᵀ/K), which fixes the probabilities but for ρ = p_x/p_y (a
    majority sample's for a minority class over a minority sample's for a majority class); and Z is
    parallel to I − P across groups, which fixes ρ. All in logarithms: nothing overflows.
    """
    K, half = k_a + k_b, log_n / 2

    def columns(rho):
        q_y = c / math.sqrt(K * (k_b * r * rho**2 + k_a))  # p_y sqrt(n_B)
        result = []
        for k, other, q, level in ((k_a, k_b, rho * q_y, c / math.sqrt(r)), (k_b, k_a, q_y, c)):
            q_same = (level - other * q) / k
            own = math.log1p(-((k - 1) * q_same + other * q) * math.exp(-half))
            same, across = (half + own - math.log(p) for p in (q_same, q))  # own logit minus these
            mean = ((k - 1) * same + other * across) / K
            result.append((mean, mean - same, mean - across))
        return result

    def mismatch(rho):
        A, B = columns(rho)
        return A[2] - rho * B[2]

    values = columns(brentq(mismatch, 0.3, 1.5, xtol=1e-15, rtol=1e-14))
    Z, A, B = np.empty((K, K)), slice(0, k_a), slice(k_a, K)
    for k in range(K):
        group, rest = (A, B) if k < k_a else (B, A)
        own, Z[group, k], Z[rest, k] = values[k >= k_a]
        Z[k, k] = own
    return Z


LIMITS = [(5, 5, 2), (3, 7, 2), (8, 2, 2), (2, 2, 3)]


@pytest.mark.parametrize("n", [250, 25_000, 10**7, 10**9, 10**12])
@pytest.mark.parametrize("k_a, k_b, r", LIMITS)
def test_two_derivations_of_the_optimum_agree(k_a, k_b, r, n):
    exact = exact_at(two(k_a, k_b, r * n, n), 0.1, INF)
    assert exact.logits == approx(reference(k_a, k_b, r, math.log(n), 0.1), abs=2e-5)


EXAMPLE_250, EXAMPLE_25_000 = (-0.137276, -0.078339, -0.111284), (-0.133565, -0.083373, -0.111431)


@pytest.mark.parametrize(
    "n, lam_b, predicted",
    [
        (250, INF, EXAMPLE_250),
        (250, 0.02, (-0.138152, -0.077552, -0.111105)),
        (2750, 0.02, (-0.135446, -0.080966, -0.111322)),
        (25_000, INF, EXAMPLE_25_000),
    ],
)
def test_the_table_of_cosines(n, lam_b, predicted):
    exact = exact_at(two(5, 5, 2 * n, n), 0.1, lam_b)
    assert angles(exact.cosines()) == approx(predicted, abs=1.5e-6)


@pytest.mark.parametrize(
    "log_n, predicted",
    [
        (math.log(250), EXAMPLE_250),
        (math.log(25_000), EXAMPLE_25_000),
        (100, (-0.117282, -0.103729, -0.111464)),
        (1000, (-0.111863, -0.110216, -0.111166)),
    ],
)
def test_the_table_of_cosines_in_logarithms(log_n, predicted):
    found = angles(metrics.cosines(reference(5, 5, 2, log_n, 0.1)))
    assert found == approx(predicted, abs=6e-7)


def test_limit_logits_at_e100_give_the_table_to_second_order():
    Z = theory.limit_logits(5, 5, 2 * math.exp(100), math.exp(100), 0.1)
    predicted = [-0.117282, -0.103729, -0.111464]
    assert angles(metrics.cosines(Z)) == approx(predicted, abs=15 / 100**2)


def factor_cosines(Z, sizes):
    """Cosines of features and classifiers that are factors of Z, up to scale."""
    U, s, Vt = np.linalg.svd(Z * np.sqrt(sizes))
    U, s, V = U[:, :-1], s[:-1], Vt[:-1].T / np.sqrt(sizes)[:, None]
    return [metrics.cosines_from_gram((F * s) @ F.T) for F in (V, U)]


@pytest.mark.parametrize("k_a, k_b, r", LIMITS)
def test_features_and_classifiers_tend_to_seli_not_to_the_etf(k_a, k_b, r):
    sizes = [r] * k_a + [1] * k_b
    seli = theory.seli(sizes)
    for log_n in (1e4, 1e6):
        found = factor_cosines(reference(k_a, k_b, r, log_n, 0.1), sizes)
        assert max(np.abs(f - s).max() for f, s in zip(found, seli)) < 3 / log_n
        assert all(np.abs(f - theory.simplex_etf(k_a + k_b)).max() > 0.01 for f in found)


def test_features_and_classifiers_of_the_solver_approach_seli():
    features, classifiers = theory.seli(two(5, 5, 2, 1))
    exact = [exact_at(two(5, 5, 2 * n, n), 0.1, INF) for n in (10**3, 10**6, 10**12)]
    for of, seli in (("features", features), ("classifier", classifiers)):
        distances = [np.abs(solution.cosines(of) - seli).max() for solution in exact]
        assert (np.diff(distances) < 0).all() and distances[-1] < 0.015


@pytest.mark.parametrize("k_a, k_b, r", LIMITS)
def test_limit_logits_err_by_a_constant_over_the_logarithm(k_a, k_b, r):
    limit = lambda n: theory.limit_logits(k_a, k_b, r * n, n, 0.1)
    errors = [
        limit_error(k_a, k_b, r, log_n, limit(math.exp(log_n))) for log_n in (100, 200, 400, 600)
    ]
    assert max(errors) < 6
    steps = np.diff(errors)
    assert (steps[1:] < steps[:-1]).all() and steps[-1] < 0.03 * errors[-1]  # settling


@pytest.mark.parametrize("k_a, k_b, r", LIMITS)
def test_limit_logits_against_the_solver(k_a, k_b, r):
    for n in (10**7, 10**12):
        Z = exact_at(two(k_a, k_b, r * n, n), 0.1, INF).logits
        assert Z == approx(theory.limit_logits(k_a, k_b, r * n, n, 0.1), abs=4 / math.log(n))


@pytest.mark.parametrize("k_a, k_b, r", LIMITS)
def test_limit_logits_have_the_stated_differences(k_a, k_b, r):
    n, c, K = 1e6, 0.3, k_a + k_b
    Z = theory.limit_logits(k_a, k_b, r * n, n, c)
    q = c / math.sqrt(K * (k_b * r + k_a))
    gap = lambda n, level: math.log(n) / 2 - math.log(level)
    a, b = (c - k_b * q * math.sqrt(r)) / k_a, (c - k_a * q) / k_b
    assert np.abs(Z.sum(axis=0)).max() < 1e-13
    across = [Z[0, 0] - Z[-1, 0], Z[-1, -1] - Z[0, -1]]
    assert across == approx([gap(n, q)] * 2, rel=1e-14)
    assert Z[0, 0] - Z[1, 0] == approx(gap(r * n, a), rel=1e-14)
    assert Z[-1, -1] - Z[-2, -1] == approx(gap(n, b), rel=1e-14)


@pytest.mark.parametrize("k_a, k_b", [(1, 3), (3, 1), (1, 1)])
def test_limit_logits_of_groups_of_one_class(k_a, k_b):
    n = 10**12
    Z = exact_at(two(k_a, k_b, 4 * n, n), 0.1, INF).logits
    assert Z == approx(theory.limit_logits(k_a, k_b, 4 * n, n, 0.1), abs=2 / math.log(n))


@pytest.mark.parametrize("k_a, k_b, r", LIMITS)
def test_deviation_constants_are_the_limit_of_the_exact_angles(k_a, k_b, r):
    etf, constants = -1 / (k_a + k_b - 1), theory.deviation_constants(k_a, k_b, r, 0.1)
    for log_n, relative in ((1e4, 0.02), (1e6, 2e-4)):
        found = (angles(metrics.cosines(reference(k_a, k_b, r, log_n, 0.1))) - etf) * log_n
        assert found == approx([constants[g] for g in ("A", "B", "AB")], rel=relative)


def test_deviation_constants_against_limit_logits():
    constants, errors = list(theory.deviation_constants(3, 7, 2, 0.1).values()), [1.0]
    for log_n in (100, 300, 600):
        n = math.exp(log_n)
        cosines = angles(metrics.cosines(theory.limit_logits(3, 7, 2 * n, n, 0.1)))
        errors.append(np.abs((cosines + 1 / 9) * log_n / constants - 1).max())
        assert errors[-1] * log_n < 30 and errors[-1] < errors[-2]


def test_no_angle_within_a_group_of_one_class():
    constants = theory.deviation_constants(1, 4, 2, 0.1)
    assert math.isnan(constants["A"]) and not math.isnan(constants["B"] + constants["AB"])
    assert math.isnan(theory.deviation_constants(4, 1, 2, 0.1)["B"])


def test_nothing_deviates_for_balanced_data():
    constants = theory.deviation_constants(4, 6, 1, 0.2)
    assert list(constants.values()) == approx([0, 0, 0], abs=1e-13)


@pytest.mark.parametrize("k_a, k_b, r", [*LIMITS, (5, 5, 1e6)])
def test_limit_logits_in_logarithms_where_floats_overflow(k_a, k_b, r):
    limit = lambda log_n: theory.limit_logits_log(k_a, k_b, math.log(r), log_n, 0.1)
    errors = [limit_error(k_a, k_b, r, log_n, limit(log_n)) for log_n in (600, 1000, 3000, 1e5)]
    assert max(errors) < (6 if r < 10 else 60)
    assert errors[3] == approx(errors[2], rel=0.02)  # settled: the error is a constant over ln n


def test_limit_logits_in_logarithms_are_the_same_function():
    for k_a, k_b, r in LIMITS:
        in_logarithms = theory.limit_logits_log(k_a, k_b, math.log(r), math.log(1e7), 0.3)
        direct = theory.limit_logits(k_a, k_b, r * 1e7, 1e7, 0.3)
        assert in_logarithms == approx(direct, abs=1e-13)
    assert np.isfinite(theory.limit_logits_log(2, 3, 3000, 3000, 0.1)).all()


# Nonnegative features -----------------------------------------------------------------------------


def column_by_descent(n_k, N, K, lam_z):
    """z_k from the smooth problem in one nonnegative feature t and one vector w, z = t w, without
    the closed form.
    """
    penalty = lam_z * math.sqrt(n_k)

    def value(x):
        t, w = x[0], x[1:]
        z = t * w
        log_p = z - z.max() - math.log(np.exp(z - z.max()).sum())
        pull = n_k / N * (np.exp(log_p) - np.eye(K)[0])
        gradient = np.append(pull @ w, t * pull) + penalty * x
        return -n_k / N * log_p[0] + penalty / 2 * (x @ x), gradient

    start = np.append(1.0, np.random.default_rng(0).standard_normal(K))
    bounds = [(0, None)] + [(None, None)] * K
    options = dict(ftol=1e-16, gtol=1e-12, maxiter=5000)
    x = minimize(value, start, jac=True, bounds=bounds, method="L-BFGS-B", options=options).x
    return x[0] * x[1:]


@pytest.mark.parametrize("lam_z", [1e-4, 0.0027, 0.0031, 0.0033, 0.0060, 0.0080])
def test_relu_logits_solve_the_problem_of_each_class(lam_z):
    sizes, K = two(5, 5, 500, 100), 10
    Z = theory.relu_logits(sizes, lam_z)
    for k in (0, 9):
        # found with class k as the first, rolled back
        found = np.roll(column_by_descent(sizes[k], 3000, K, lam_z), k)
        assert Z[:, k] == approx(found, abs=2e-4)
        assert Z[:, k].any() == (lam_z * 3000 < theory.relu_vanishing_threshold(sizes[k], K))


@pytest.mark.parametrize(
    "sizes", [two(5, 5, 500, 100), (40, 20, 10), (7, 3), (100, 40, 16, 6, 3, 1)], ids=str
)
def test_relu_logits_are_the_exact_optimum_without_bias(sizes):
    for level in (0.1, 0.5, 0.9, 1.2):
        ufm = UFM.from_lam_z(sizes, level * math.sqrt(min(sizes)) / sum(sizes))
        exact = solve(ufm, features="relu", tol=1e-14)
        Z = theory.relu_logits(sizes, ufm.lam_z)
        value = objective(ufm, Z, np.zeros(len(sizes)), features="relu")
        assert value == approx(exact.objective, rel=1e-14)
        assert Z == approx(exact.logits, abs=1e-10)
        unit = Z / np.maximum(np.linalg.norm(Z, axis=0), 1e-300)
        there = Z.any(axis=0)  # 0 where a column is 0
        etf = theory.simplex_etf(len(sizes)) * np.outer(there, there)
        assert unit.T @ unit == approx(etf, abs=1e-12)


def test_relu_features_vanish_at_their_threshold_and_not_before():
    K, n = 10, 100
    edge = theory.relu_vanishing_threshold(n, K)
    assert edge == approx(math.sqrt(90), rel=1e-15)
    assert edge / theory.minority_threshold(n) == approx(0.9487, abs=5e-5)
    minority = lambda level: theory.relu_logits(two(5, 5, 500, n), level / 3000)[:, -1]
    assert np.abs(minority(edge * (1 - 1e-9))).max() > 1e-9
    assert not minority(edge * (1 + 1e-9)).any()
    small = theory.relu_logits([3, 3], 1e-300)  # neither 0 nor infinite
    assert np.isfinite(small).all() and small[0, 0] > 300


# Refusals -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("bad", [0, 1.5, -1, math.nan, "2"])
@pytest.mark.parametrize("name, arguments", [("k_a", (3, 10, 5)), ("k_b", (2, 10, 5))])
@pytest.mark.parametrize(
    "function", [theory.vanishing_thresholds, theory.vanishing_threshold, theory.trivial_threshold]
)
def test_group_counts_must_be_positive_whole_numbers(function, name, arguments, bad):
    other, n_a, n_b = arguments
    groups = (bad, other) if name == "k_a" else (other, bad)
    with pytest.raises(ValueError, match=f"{name} = {bad!r}: must be a whole number >= 1"):
        function(*groups, n_a, n_b)


@pytest.mark.parametrize(
    "name, arguments, message",
    [
        ("minority_threshold", (-1,), "n_b = -1"),
        ("minority_threshold", (INF,), "n_b = inf"),
        ("vanishing_threshold", (2, 3, 0, 5), "n_a = 0"),
        ("vanishing_threshold", (2, 3, 5, 10), "n_a = 5.0, n_b = 10.0: must have n_a >= n_b"),
        ("vanishing_threshold", (2, 3, 10, 5, 0), "lam_b = 0"),
        ("trivial_threshold", (1, 3, 10, 5, -1), "lam_b = -1"),
        ("trivial_threshold", (2, 3, 10, 5, -1), "lam_b = -1"),
        ("limit_logits", (2, 3, 10, 5, 0), "c = 0"),
        ("limit_logits", (2, 0, 10, 5, 1), "k_b = 0"),
        ("limit_logits", (2, 3, 5, 10, 1), "n_a = 5.0, n_b = 10.0: must have n_a >= n_b"),
        ("limit_logits_log", (2, 3, -0.1, 10, 1), "log_ratio = -0.1: must be"),
        ("limit_logits_log", (2, 3, INF, 10, 1), "log_ratio = inf: must be a finite number"),
        ("limit_logits_log", (2, 3, "a", 10, 1), "log_ratio = 'a': must be a finite number"),
        ("limit_logits_log", (2, 3, 1, math.nan, 1), "log_n_b = nan: must be a finite number"),
        ("limit_logits_log", (2, 3, 1, 10, 0), "c = 0"),
        ("relu_logits", ([5], 1), "class_sizes"),
        ("relu_logits", ([5, 5], 0), "lam_z = 0"),
        ("relu_vanishing_threshold", (0, 10), "n_k = 0"),
        ("relu_vanishing_threshold", (5, 1), "num_classes = 1"),
        ("deviation_constants", (2, 3, math.nan, 1), "r = nan"),
        ("deviation_constants", (2, 3, 2, -1), "c = -1"),
        ("deviation_constants", (5, 5, 0.5, 0.1), "^r = 0.5"),
        ("simplex_etf", (1,), "num_classes = 1"),
        ("seli", ([5],), "class_sizes"),
        ("seli", ([5, 0],), r"class_sizes\[1\] = 0"),
        ("phase", ([5, 5],), r"ufm = \[5, 5\]: must be a UFM"),
        ("thresholds", (None,), "ufm = None: must be a UFM"),
    ],
)
def test_refusals_name_argument_and_value(name, arguments, message):
    with pytest.raises(ValueError, match=message):
        getattr(theory, name)(*arguments)
