"""The two-group solver: THEORY's numbers, the generic solver, optimality conditions written out in
full, and extremes.
"""

import dataclasses
import math
import warnings

import numpy as np
import pytest
import torch
from fuzzed import depth, fuzzed
from hypothesis import strategies as st
from mpmath.ctx_mp import MPContext
from pytest import approx

from ncutils import UFM, metrics, solve, solve_two_groups, solve_two_groups_log, theory
from ncutils.exact import _roots, _scalar_equations, _two_group_values
from ncutils.ufm import Phase

INF = math.inf
distinct, collapse, vanishes, trivial = Phase
VALUES = [f"{name}_{g}" for name in "a m bias norm own other cross".split() for g in "ab"]
VALUES += ["log_objective", "relative_gap", "objective"]
# NaN in a group of one class, only there
MAY_MISS = {"a_a": "k_a", "other_a": "k_a", "a_b": "k_b", "other_b": "k_b"}


def two(k_a, k_b, n_a, n_b):
    return (int(n_a),) * int(k_a) + (int(n_b),) * int(k_b)


def assert_sound(solved, gap=1e-12):
    """Certified, and NaN only where there is nothing to tell."""
    assert solved.certificate <= gap
    for name in VALUES:
        missing = np.isnan(getattr(solved, name))
        alone = getattr(solved, MAY_MISS[name]) == 1 if name in MAY_MISS else missing & False
        assert np.array_equal(missing, alone) and not np.isinf(getattr(solved, name)).any(), name
    told, a_a, a_b = solved.m_b > 0, np.nan_to_num(solved.a_a), np.nan_to_num(solved.a_b)
    for of in ("logits", "features", "classifier"):
        known = {group: np.isfinite(cosine) for group, cosine in solved.cosines(of).items()}
        assert np.array_equal(known["A"], (solved.k_a > 1) & (told | (a_a > 0)))
        assert np.array_equal(known["B"], (solved.k_b > 1) & (told | (a_b > 0)))
        assert np.array_equal(known["AB"], told)


# The numbers of THEORY ----------------------------------------------------------------------------
EXACT = [  # n_B, lam_b, cosines A, B, AB of c = λ_Z N = 0.1, r = 2, 5 + 5
    (250, INF, -0.137276, -0.078339, -0.111284),
    (250, 0.02, -0.138152, -0.077552, -0.111105),
    (2750, 0.02, -0.135446, -0.080966, -0.111322),
    (25000, INF, -0.133565, -0.083373, -0.111431),
    (math.exp(100), INF, -0.117282, -0.103729, -0.111464),
]


@pytest.mark.parametrize("n_b, lam_b, a, b, ab", EXACT)
def test_table_of_the_diminishing_imbalance(n_b, lam_b, a, b, ab):
    by_size = solve_two_groups(5, 5, 2 * n_b, n_b, 0.1 / (15 * n_b), lam_b)
    by_log = solve_two_groups_log(5, 5, math.log(2), math.log(0.1) - math.log(n_b) / 2, lam_b)
    for solved in by_size, by_log:
        assert list(solved.cosines().values()) == approx([a, b, ab], abs=5.1e-7)


LIMITS = {
    "logits": (-1 / 9,) * 3,
    "features": (-0.092335, -0.134237, -0.108079),
    "classifier": (-0.127901, -0.084041, -0.113880),
}


def test_rate_of_the_limit_and_the_limits_are_those_of_theory():
    log_n = np.array([1000.0, 3000.0, 2e8])
    solved = solve_two_groups_log(5, 5, math.log(2), math.log(0.1) - log_n / 2)
    assert_sound(solved, gap=1e-7)
    assert solved.relative_gap[:2] == approx(0.0, abs=1e-12)
    at_1000 = [c[0] for c in solved.cosines().values()]
    assert at_1000 == approx([-0.111863, -0.110216, -0.111166], abs=5.1e-7)
    for of, limit in LIMITS.items():
        assert [c[2] for c in solved.cosines(of).values()] == approx(limit, abs=6e-7)
    for k_a, k_b in [(5, 5), (3, 7), (8, 2), (1, 4)]:
        log_n = 1e6
        solved = solve_two_groups_log(k_a, k_b, math.log(2), math.log(0.1) - log_n / 2)
        slope = {group: (c + 1 / (k_a + k_b - 1)) * log_n for group, c in solved.cosines().items()}
        constants = theory.deviation_constants(k_a, k_b, 2.0, 0.1)
        assert slope == approx(constants, rel=1e-3, nan_ok=True)


GROUPS = [(5, 5, 500, 100), (3, 7, 500, 100), (2, 9, 40.5, 40), (4, 1, 300, 50), (1, 4, 300, 50)]


@pytest.mark.parametrize("lam_b", [INF, 0.02, 1e-4])
@pytest.mark.parametrize("groups", GROUPS)
def test_a_level_on_a_threshold_is_on_it(groups, lam_b):
    k_a, k_b, n_a, n_b = groups
    N, v = k_a * n_a + k_b * n_b, theory.vanishing_threshold(*groups, lam_b)
    beside = np.array([1 - 1e-9, 1, 1 + 1e-9])
    at = lambda level: solve_two_groups(*groups, level * beside / N, lam_b)
    if k_b > 1:
        minority = at(theory.minority_threshold(n_b)).phase
        assert minority.tolist() == [distinct, collapse, collapse]
    before, after = collapse if k_b > 1 else distinct, vanishes if k_a > 1 else trivial
    assert at(v).phase.tolist() == [before, after, after]
    assert at(v).norm_b[0] > 0 == at(v).norm_b[2]
    if k_a > 1:
        all_of_it = at(theory.trivial_threshold(*groups, lam_b)).phase
        assert all_of_it.tolist() == [vanishes, trivial, trivial]


# Against the generic solver -----------------------------------------------------------------------
def random_problems(count, seed):
    """(k_a, k_b, n_a, n_b, lam_z, lam_b), half of them within 1e-6 of a threshold."""
    rng = np.random.default_rng(seed)
    for _ in range(count):
        k_a, k_b = rng.integers(1, 6, 2)
        n_b = int(rng.integers(5, 200))
        n_a = n_b + 1 + int(rng.exponential(1.5) * n_b)
        lam_b = rng.choice([INF, 10 ** rng.uniform(-3, 0)])
        v = theory.vanishing_threshold(k_a, k_b, n_a, n_b, lam_b)
        near = rng.choice([math.sqrt(n_b), v, math.sqrt(n_a)]) * (1 + rng.choice([-1e-6, 1e-6]))
        anywhere = math.sqrt(n_b) / 10 * (11 * math.sqrt(n_a / n_b)) ** rng.random()
        yield k_a, k_b, n_a, n_b, rng.choice([near, anywhere]) / (k_a * n_a + k_b * n_b), lam_b


@pytest.mark.parametrize("count", [120, pytest.param(1000, marks=depth)])
def test_agrees_with_the_generic_solver_in_all_phases(count):
    problems = list(random_problems(count, seed=0))
    solved = solve_two_groups(*np.transpose(problems))
    assert_sound(solved)
    assert min(np.sum(solved.phase == phase) for phase in Phase) >= count / 20
    for i, (*groups, lam_z, lam_b) in enumerate(problems):
        ufm = UFM.from_lam_z(two(*groups), lam_z, lam_b)
        generic = solve(ufm, tol=1e-12)
        # its objective is at most its gap above the optimum, and never below
        assert -1e-14 <= generic.objective / solved.objective[i] - 1 <= 1.01e-12
        assert np.abs(generic.logits - solved.logits(i)).max() < 1e-9
        assert np.abs(generic.bias[[0, -1]] - [solved.bias_a[i], solved.bias_b[i]]).max() < 1e-9
        assert solved.phase[i] is generic.phase is theory.phase(ufm)


COMPARED = [
    ((5, 5, 500, 100), 2.0, INF),
    ((3, 4, 500, 100), 5.0, 0.02),
    ((4, 3, 200, 100), 10.5, INF),
    ((1, 4, 90, 20), 3.0, 0.02),
    ((4, 1, 90, 20), 3.0, 0.02),
    ((1, 1, 90, 20), 3.0, INF),
]


@pytest.mark.parametrize("groups, level, lam_b", COMPARED)
def test_cosines_are_those_of_the_generic_solver(groups, level, lam_b):
    lam_z = level / sum(two(*groups))
    generic = solve(UFM.from_lam_z(two(*groups), lam_z, lam_b), tol=1e-13)
    solved = solve_two_groups(*groups, lam_z, lam_b)
    for of in ("logits", "features", "classifier"):
        expected = metrics.group_means(generic.cosines(of), groups[0])
        assert solved.cosines(of) == approx(expected, abs=1e-11, nan_ok=True)


# Optimality, in full ------------------------------------------------------------------------------
def conditions(n, lam_z, lam_b, Z, b):
    """Largest violation of the optimality conditions of (CVX), each relative to its scale."""
    N, K = n.sum(), len(n)
    P = np.exp(Z + b[:, None] - (Z + b[:, None]).max(axis=0))
    P /= P.sum(axis=0)
    others = np.where(np.eye(K, dtype=bool), 0.0, P)
    G = (np.diag(others.sum(axis=0)) - others) * np.sqrt(n) / N  # (I − P) D^{1/2}/N
    X = Z * np.sqrt(n)
    nuclear = np.linalg.norm(X, "nuc")
    worst = [
        np.linalg.norm(G, 2) / lam_z - 1,
        abs((G * X).sum() / lam_z - nuclear) / max(nuclear, 1.0),
        np.abs(Z.sum(axis=0)).max() / max(np.abs(Z).max(), 1.0),
    ]
    if math.isfinite(lam_b):
        size = max(np.abs(G).max() * np.sqrt(n).max(), 1e-300)
        worst.append(np.abs(lam_b * b - G @ np.sqrt(n)).max() / size)
    return max(worst)


counts = st.integers(1, 8)
penalties = st.just(INF) | st.floats(-4, 2).map(lambda e: 10**e)


@fuzzed(counts, counts, st.floats(0.3, 1e4), st.floats(1, 30), st.floats(-6, 1.1), penalties)
def test_optimality_conditions_hold_on_the_full_problem(k_a, k_b, n_b, ratio, place, lam_b):
    n_a = n_b * ratio
    n = np.repeat([n_a, n_b], [k_a, k_b])
    # place 0 is sqrt(n_B), place 1 is sqrt(n_A)
    lam_z = math.sqrt(n_b) * (ratio ** (place / 2) if place > 0 else math.exp(place)) / n.sum()
    solved = solve_two_groups(k_a, k_b, n_a, n_b, lam_z, lam_b)
    assert_sound(solved)
    Z, b = solved.logits(), np.repeat([solved.bias_a, solved.bias_b], [k_a, k_b])
    assert conditions(n, lam_z, lam_b, Z, b) < 1e-11
    assert np.linalg.norm(Z[:, 0]) == approx(solved.norm_a, rel=1e-12)
    assert np.linalg.norm(Z[:, -1]) == approx(solved.norm_b, rel=1e-12)
    assert k_a * b[0] + k_b * b[-1] == approx(0, abs=1e-13) and (b == 0).all() >= math.isinf(lam_b)


ratios, factors = st.floats(1, 30), st.floats(1e-3, 1e3)


@fuzzed(counts, counts, ratios, st.floats(0.01, 3), factors, st.sampled_from([INF, 0.02]))
def test_scaling_law(k_a, k_b, ratio, level, factor, lam_b):
    n = np.array([1.0, factor])  # the same τ = λ_Z N/sqrt(n_B)
    lam_z = level * np.sqrt(n) / (n * (k_a * ratio + k_b))
    solved = solve_two_groups(k_a, k_b, ratio * n, n, lam_z, lam_b)
    for name in ("own_a", "own_b", "cross_a", "cross_b", "bias_a", "log_objective"):
        first, second = getattr(solved, name)
        assert second == approx(first, rel=1e-9, abs=1e-9), name


# At 50 digits -------------------------------------------------------------------------------------
# The objective and a dual bound of THEORY §2 at the logits returned, every float64 number being
# taken for exactly what it is. n_B = 1, so n_A = r, N = K_A r + K_B and λ_Z = τ/N, which is all the
# same by the scaling law.

mp = MPContext()
mp.dps = 150  # of which 50 are right, whatever cancels: probabilities are as small as e^-200


class Exact:
    """One of the problems solved, in mpf: by group, A first, whatever is a list."""

    def __init__(self, solved, place):
        at = lambda name: mp.mpf(float(getattr(solved, name)[place]))
        self.k, self.n = [at("k_a"), at("k_b")], [mp.exp(at("log_ratio")), mp.mpf(1)]
        self.K, self.N = sum(self.k), mp.fdot(self.k, self.n)
        self.tau, self.lam_b = mp.exp(at("log_tau")), at("lam_b")
        self.m, self.b = [at("m_a"), at("m_b")], [at("bias_a"), at("bias_b")]
        self.a = [mp.zero if k == 1 else at(name) for k, name in zip(self.k, ("a_a", "a_b"))]
        # Z_gg = a_g I + β_g 11ᵀ, Z_hg = c_g 11ᵀ: columns sum to zero, and a_g/K_g + β_g − c_g is
        # the contrast m_g
        self.c = [-k * m / self.K for k, m in zip(self.k, self.m)]
        self.beta = [m + c - a / k for k, m, a, c in zip(self.k, self.m, self.a, self.c)]
        self.M = mp.matrix(2, 2)
        for g, h in (0, 1), (1, 0):
            self.M[g, g] = mp.sqrt(self.n[g]) * (self.a[g] + self.k[g] * self.beta[g])
            self.M[h, g] = mp.sqrt(self.n[g] * self.k[g] * self.k[h]) * self.c[g]
        self.size = mp.sqrt(sum(entry**2 for entry in self.M) + 2 * abs(mp.det(self.M)))  # ‖M‖_*

    def weights(self, g):
        """e^logit of a sample of group g: its own class, another of the group, one of the other."""
        own, other = self.beta[g] + self.a[g] + self.b[g], self.beta[g] + self.b[g]
        return [mp.exp(logit) for logit in (own, other, self.c[g] + self.b[1 - g])]

    def primal(self):
        loss = nuclear = mp.zero
        for g, h in (0, 1), (1, 0):
            own, other, cross = self.weights(g)
            rest = ((self.k[g] - 1) * other + self.k[h] * cross) / own
            loss += self.k[g] * self.n[g] * mp.log1p(rest)
            nuclear += (self.k[g] - 1) * mp.sqrt(self.n[g]) * abs(self.a[g])
        squares = sum(k * b**2 for k, b in zip(self.k, self.b))
        penalty = mp.zero if mp.isinf(self.lam_b) else self.lam_b / 2 * squares
        return (loss + self.tau * (nuclear + self.size)) / self.N + penalty

    def dual(self):
        """At the p_x of these logits, scaled to ‖G‖ ≤ λ_Z; 1 − p_d + p_o is min(τ_g, 1)."""
        k, n, p_x = self.k, self.n, []
        for g, h in (0, 1), (1, 0):
            own, other, cross = self.weights(g)
            p_x.append(cross / (own + (k[g] - 1) * other + k[h] * cross))
        # G maps the unit vector of group g to sqrt(n_g) p_x/N times K_h in g and −sqrt(K_A K_B) in
        # h: ‖G‖ ≤ ‖·‖_F
        square = sum(n[g] * p_x[g] ** 2 * (k[1 - g] ** 2 + k[0] * k[1]) for g in (0, 1))
        scale = self.tau / mp.sqrt(square)
        p_x = [p * (scale if self.m[1] > 0 else min(1, scale)) for p in p_x]
        value = bias = mp.zero
        for g, h in (0, 1), (1, 0):
            T = min(self.tau / mp.sqrt(n[g]), 1) if k[g] > 1 else mp.mpf(1)
            p_o = max(T - k[h] * p_x[g], 0) / k[g]
            p_d = 1 - T + p_o
            rest = (k[g] - 1) * p_o + k[h] * p_x[g]  # 1 − p_d
            assert abs(p_d + rest - 1) < mp.mpf(10) ** -35
            parts = (rest - 1) * mp.log1p(-rest) if rest < 1 else 0
            pairs = (k[g] - 1, p_o), (k[h], p_x[g])
            parts -= sum(count * p * mp.log(p) for count, p in pairs if count * p > 0)
            value += k[g] * n[g] * parts
        if not mp.isinf(self.lam_b):
            # (1/N) Σ n_k (e_k − q_k) is K_B or −K_A times this
            lean = (n[0] * p_x[0] - n[1] * p_x[1]) / self.N
            bias = k[0] * k[1] * self.K * lean**2 / (2 * self.lam_b)
        return value / self.N - bias

    def cosines(self, of):
        """From the Gram matrices of THEORY §3: on the diagonal, off it in a group, across."""
        gram = mp.matrix(2, 2)  # entries between the groups, and how much more on the diagonal
        more, ratio = [a**2 for a in self.a], lambda x, y: x / y if y else mp.nan
        across = self.M.T * self.M if of != "classifier" else self.M * self.M.T
        for g, h in (0, 0), (0, 1), (1, 0), (1, 1):
            gram[g, h] = across[g, h] / mp.sqrt(self.k[g] * self.k[h])
            if of != "classifier":
                gram[g, h] /= mp.sqrt(self.n[g] * self.n[h])
            if of != "logits":
                gram[g, h] = gram[g, h] / self.size if self.size else mp.zero
        if of != "logits":
            power = mp.mpf(-0.5 if of == "features" else 0.5)
            more = [a * n**power for a, n in zip(self.a, self.n)]
        own = [gram[g, g] + more[g] * (1 - 1 / self.k[g]) for g in (0, 1)]
        off = [gram[g, g] - more[g] / self.k[g] for g in (0, 1)]
        A, B = (ratio(off[g], own[g]) if self.k[g] > 1 else mp.nan for g in (0, 1))
        return {"A": A, "B": B, "AB": ratio(gram[0, 1], mp.sqrt(own[0] * own[1]))}


def rounding(solved):
    """Of relative_gap, as its docstring says."""
    return 5e-15 + 2e-16 * (np.abs(solved.log_tau) + solved.log_ratio)


def log_v(k_a, k_b, log_ratio, lam_b):
    """The last level log_tau at which Z tells the groups apart, by bisection."""
    low, high = np.full_like(log_ratio, -300.0), log_ratio / 2 + 1
    for _ in range(60):
        middle = (low + high) / 2
        told = solve_two_groups_log(k_a, k_b, log_ratio, middle, lam_b).m_b > 0
        low, high = np.where(told, middle, low), np.where(told, high, middle)
    return low


def hard_problems(count, seed):
    """k_a, k_b, log_ratio, log_tau, lam_b: a quarter anywhere, the others near a threshold."""
    rng = np.random.default_rng(seed)
    k_a, k_b = np.floor(10 ** rng.uniform(0, rng.choice([1.0, 4.0, 4.0, 12.0], (2, count))))
    log_ratio = rng.uniform(0, rng.choice([1e-9, 5.0, 200.0, 200.0], count))
    power = rng.uniform(-16, np.where(rng.random(count) < 0.7, 2, 100))
    lam_b = np.where(rng.random(count) < 0.3, INF, 10**power)
    near = rng.choice([-1, 1], count) * 10 ** rng.uniform(-14, 0, count)
    last = log_v(k_a, k_b, log_ratio, lam_b) - np.abs(near)
    levels = rng.uniform(-200, 6, count), near, log_ratio / 2 + near, last
    return k_a, k_b, log_ratio, np.choose(np.arange(count) % 4, levels), lam_b


@pytest.fixture(scope="module", params=[80, pytest.param(800, marks=depth)])
def hard(request):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        solved = solve_two_groups_log(*hard_problems(request.param, seed=0))
    return solved, [Exact(solved, place) for place in range(request.param)]


def test_the_gap_bounds_the_true_error_at_50_digits(hard):
    solved, exact = hard
    allowed = rounding(solved)
    assert min(np.sum(solved.phase == phase) for phase in Phase) >= len(exact) / 20
    assert (solved.relative_gap >= -allowed).all()
    assert (solved.relative_gap <= 3e-13).all()  # as a level is on a line from 1e-12 on
    for place, problem in enumerate(exact):
        primal, dual = problem.primal(), problem.dual()
        gap = float((primal - dual) / primal)
        assert gap > -1e-35  # a bound from below
        assert gap <= solved.relative_gap[place] + allowed[place], place
        error = float(mp.log(primal) - mp.mpf(float(solved.log_objective[place])))
        assert abs(error) <= allowed[place], place


@pytest.mark.parametrize("of", ["logits", "features", "classifier"])
def test_cosines_are_those_of_50_digits(hard, of):
    solved, exact = hard
    cosines = solved.cosines(of)
    for place, problem in enumerate(exact):
        for key, cosine in problem.cosines(of).items():
            # within a group a cosine is a difference of two parts, of which neither is above 1
            rounding = dict(rel=1e-13, abs=1e-14 if key != "AB" else 0.0, nan_ok=True)
            told = problem.m[1] > 0 or key != "AB"
            expected = approx(float(cosine) if told else math.nan, **rounding)
            assert cosines[key][place] == expected, (place, key)


@pytest.mark.parametrize("lam_b, cosine", [(INF, -6.694e-9), (0.02, -7.247e-9)])
def test_a_cosine_across_of_1e_9_does_not_cancel(lam_b, cosine):
    lam_z = theory.vanishing_threshold(5, 5, 500, 100, lam_b) / 3000
    near = solve_two_groups(5, 5, 500, 100, lam_z * (1 - np.array([1e-6, 1e-8])), lam_b)
    first, second = near.cosines()["AB"]
    assert second == approx(cosine, rel=2e-4)
    assert first == approx(100 * second, rel=1e-5)  # linear; 1e-8 is known to 1e-16 only


# What the root finder once missed -----------------------------------------------------------------
def test_a_minority_that_is_all_but_certain_to_be_taken_for_the_majority():
    solved = solve_two_groups_log(1, 20_000, 40, 40, 1e-14)  # 1 − K_A p_xB is 5e-13
    assert solved.bias_a - solved.bias_b == approx(38.29403439164372, rel=1e-14)
    assert abs(solved.relative_gap) < 1e-15


def test_a_root_where_the_equation_is_all_but_flat():
    solved = solve_two_groups_log(81, 2555, 96.38910012999655, 0.0024697735525200004)
    found = solved.m_b, solved.a_a, solved.log_objective
    assert found == approx((4.06129619562426, 56.7541665372, -44.148094257227), rel=1e-12)
    assert abs(solved.relative_gap) < 1e-15


FUNCTIONS = {  # increasing, with their slopes
    "expm1": (torch.expm1, torch.exp),
    "concave": (lambda x: -torch.expm1(-x), lambda x: torch.exp(-x)),
    "tanh": (torch.tanh, lambda x: torch.cosh(x.clamp(-300, 300)) ** -2),
    "cube": (lambda x: x**3, lambda x: 3 * x**2),
    "root": (lambda x: torch.sign(x) * x.abs().sqrt(), lambda x: 0.5 / x.abs().sqrt()),
    "steep": (
        lambda x: torch.exp(x) - torch.exp(-40 * x) + 0 * x,
        lambda x: torch.exp(x) + 40 * torch.exp(-40 * x),
    ),
    "sign": (torch.sign, torch.zeros_like),
}


class Places:
    def __init__(self, place):
        self.place = place

    def take(self, index):
        return Places(self.place[index])


@pytest.mark.parametrize("name", FUNCTIONS)
def test_every_increasing_function_has_its_root_found_in_time(name):
    function, slope = FUNCTIONS[name]
    steep = bool(torch.isinf(slope(torch.tensor([-1e3, 1e3], dtype=torch.float64))).any())
    far = 15.0 if steep else 1e9  # nothing overflows
    # the roots; all start at 0
    places = torch.tensor([-far, -12.0, -7.5, 0.0, 1.0, far], dtype=torch.float64)
    calls = []

    def shifted(p, x):
        calls.append(len(x))
        x = x - p.place
        return function(x), slope(x), torch.zeros_like(x, dtype=torch.bool)

    roots, _ = _roots.increasing_roots(shifted, Places(places), torch.zeros_like(places))
    # a Newton step of 3e-9 sqrt(size) is the last one; x³ leaves twice the step, a simple root its
    # square
    left = 1e-8 if slope(torch.zeros(1)) == 0 else 1e-14
    assert ((roots - places).abs() / (1 + places.abs())).max() <= left
    assert len(calls) < 200 < _roots.STEPS


@pytest.mark.parametrize("name", ["between_equation", "alike_equation"])
def test_a_search_that_sees_nan_ends(monkeypatch, name):
    nothing = lambda p, x: (x * math.nan, x * math.nan, torch.zeros_like(x, dtype=torch.bool))
    monkeypatch.setattr(_scalar_equations, name, nothing)
    with pytest.warns(RuntimeWarning, match="the worst relative gap is"):
        solve_two_groups(5, 5, 500, 100, [0.001, 0.005], 0.02)


def test_a_gap_that_cannot_be_is_refused_and_nan_warned_of(monkeypatch):
    right = _two_group_values.entropy
    wrong = lambda factor: lambda *arguments: right(*arguments) * factor
    monkeypatch.setattr(_two_group_values, "entropy", wrong(1 + 1e-12))
    message = "a dual bound above .* at k_a = 2.0, .*, relative_gap = -.*e-1[23]"
    with pytest.raises(ArithmeticError, match=message):
        solve_two_groups(2, 3, [[50], [60]], 10, 0.01)
    monkeypatch.setattr(_two_group_values, "entropy", wrong(math.nan))
    with pytest.warns(RuntimeWarning, match="the worst relative gap is nan"):
        solve_two_groups(2, 3, 50, 10, 0.01)


def test_an_angle_is_known_where_m_a_underflows():
    """m_A is about e^-1000 in the second; the cosines in B depend on the angle between groups."""
    solved = solve_two_groups_log(1000, 2, [1000.0, 2000.0], -1.0)
    assert_sound(solved)
    assert solved.m_a[1] == 0 < solved.m_a[0] and (solved.m_b > 0).all() and (solved.a_b > 0).all()
    for place in (0, 1):
        exact = Exact(solved, place)
        own, other, cross = exact.weights(1)
        all_of_it = own + other + exact.k[0] * cross
        sine = mp.sqrt(exact.K * exact.k[0]) * cross / all_of_it / exact.tau
        # ‖M‖_* of a minority that is all there is, and the parts of Gram matrices that it leaves
        between = exact.k[1] * exact.m[1] * mp.sqrt(exact.k[0] / exact.K)
        parts = dict(features=between * sine, classifier=between * exact.k[0] / exact.K / sine)
        for of, part in parts.items():
            share = part / (part + exact.a[1] * (exact.k[1] - 1))
            cosine = float(share - (1 - share) / (exact.k[1] - 1))
            assert solved.cosines(of)["B"][place] == approx(cosine, rel=1e-11)


# Special cases ------------------------------------------------------------------------------------
@pytest.mark.parametrize("k_a, k_b", [(5, 5), (2, 7), (1, 9), (9, 1), (1, 1)])
@pytest.mark.parametrize("lam_b", [INF, 0.02])
def test_equal_sizes_give_the_closed_form_of_balanced_classes(k_a, k_b, lam_b):
    K, tau = k_a + k_b, np.array([1e-6, 0.3, 0.999999, 1.0, 4.0])
    solved = solve_two_groups(k_a, k_b, 50, 50, tau * math.sqrt(50) / (50 * K), lam_b)
    p = np.minimum(tau, 1) / K  # 1 − p_d + p_o = K p = τ
    a = np.log1p((1 - np.minimum(tau, 1)) / p)
    assert_sound(solved)
    for i in range(len(tau)):
        assert solved.logits(i) == approx(a[i] * (np.eye(K) - 1 / K), rel=1e-9, abs=1e-14)
    assert solved.bias_a == approx(0, abs=1e-13)
    assert solved.phase.tolist() == 3 * [distinct] + 2 * [trivial]


@pytest.mark.parametrize("lam_b", [INF, 0.02])
def test_tiny_and_huge_penalties(lam_b):
    solved = solve_two_groups(4, 6, 500, 100, [1e-300, 1e-100, 1e-12, 1e12, 1e300], lam_b)
    assert_sound(solved)
    assert solved.phase.tolist() == 3 * [distinct] + 2 * [trivial]
    # λ_Z → 0: Z is proportional to I − 11ᵀ/K, as slowly as 1/|ln λ_Z|
    deviations = np.abs(np.array(list(solved.cosines().values()))[:, :3] + 1 / 9)
    assert (deviations <= 0.1).all() and (np.diff(deviations[0]) > 0).all()
    # λ_Z → ∞: Z = 0; without bias all classes are equally likely, with it the loss is that of the
    # best bias
    assert (solved.norm_a[3:] == 0).all() and (solved.norm_b[3:] == 0).all()
    if math.isinf(lam_b):
        assert solved.objective[3:] == approx(math.log(10), rel=1e-15)
    else:
        assert solved.bias_a[3] > 0 and solved.bias_a[3] == solved.bias_a[4]
        p = np.exp([solved.bias_a[3], solved.bias_b[3]])
        p /= p @ [4, 6]  # λ_b b_A = (1/N) Σ n_k (e_k − p_k) in a class of A
        assert 0.02 * solved.bias_a[3] == approx(500 / 2600 - p[0], rel=1e-12)


def test_extremes_are_certified():
    rng = np.random.default_rng(0)
    E = 20_000
    k_a, k_b = np.exp(rng.uniform(0, 4, (2, E))).astype(int)
    log_ratio = rng.choice([0.0, 1e-9, 1.0, 30.0, 2000.0], E) * rng.random(E)
    below = rng.choice([-1.0, 0.0, 1.0, 1e-9, 1500.0], E) * rng.random(E)
    log_tau = log_ratio / 2 * rng.random(E) - below
    lam_b = np.where(rng.random(E) < 0.3, INF, 10 ** rng.uniform(-8, 8, E))
    solved = solve_two_groups_log(k_a, k_b, log_ratio, log_tau, lam_b)
    assert_sound(solved)
    assert min(np.sum(solved.phase == phase) for phase in Phase) > 100
    tau_a, tau_b = log_tau - log_ratio / 2, log_tau
    # the sharp thresholds of claim (c)
    assert np.array_equal(solved.a_a == 0, (tau_a >= -1e-12) & (k_a > 1))
    assert np.array_equal(solved.a_b == 0, (tau_b >= -1e-12) & (k_b > 1))
    assert (solved.m_b[tau_b < -1e-9] > 0).all() and (solved.m_b[tau_a >= 0] == 0).all()
    # the ends of the ranges, and one sample a class
    ends = np.array([(10**12, 10**12), (1, 10**12), (10**12, 1)]).T[:, :, None, None]
    lam_b = np.array([1e-16, 1e-10, INF])[:, None]
    assert solve_two_groups_log(*ends, 1.6, [-1e3, -3.0, 0.4, 2.0], lam_b).certificate < 1e-10
    level = [[0.01], [0.1], [3.0]]
    assert_sound(solve_two_groups([1, 3, 2], [1, 1, 4], 1, 1, level, [[[INF]], [[0.1]]]))


def test_a_majority_of_e_to_the_2000():
    log_tau = [-1.0, 500.0, 998.0, 999.5, 1001.0]
    solved = solve_two_groups_log(5, 5, 2000.0, log_tau, [[INF], [0.02]])
    assert_sound(solved)
    assert solved.phase.tolist() == [
        [distinct, collapse, collapse, vanishes, trivial],
        [distinct, collapse, vanishes, vanishes, trivial],
    ]


def test_gap_tells_when_the_root_is_wrong(monkeypatch):
    monkeypatch.setattr("ncutils.exact._roots.STEPS", 2)
    message = "the worst relative gap is .*, above 1e-10: see relative_gap"
    with pytest.warns(RuntimeWarning, match=message):
        gap = solve_two_groups(5, 5, 500, 100, np.geomspace(1e-6, 1e-2, 50), 0.02).relative_gap
    assert gap.max() > 1e-9 and gap.min() > -1e-14


# Shapes, devices, errors --------------------------------------------------------------------------
def test_chunks_do_not_show(monkeypatch):
    arguments = 4, 6, 500, 100, np.geomspace(1e-4, 1e-2, 30), 0.02
    whole = solve_two_groups(*arguments)
    monkeypatch.setattr("ncutils.exact.two_groups.CHUNK", {"cpu": 7, "cuda": 7})
    parts = solve_two_groups(*arguments)
    for name in VALUES:
        expected = approx(getattr(whole, name), rel=1e-11, abs=1e-13)
        assert getattr(parts, name) == expected, name


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_cpu_and_gpu_agree():
    arguments = np.transpose(list(random_problems(300, seed=1)))
    cpu, gpu = (solve_two_groups(*arguments, device=device) for device in ("cpu", None))
    assert_sound(gpu)
    assert np.array_equal(cpu.phase, gpu.phase)
    assert gpu.objective == approx(cpu.objective, rel=1e-13)
    assert gpu.norm_a == approx(cpu.norm_a, rel=1e-9, abs=1e-12)


def test_arguments_broadcast_fields_have_one_shape_and_numbers_give_numbers():
    lam_b = np.array([INF, 0.02, INF])
    arguments = np.array([[2], [1]]), 3, np.array([50.0, 60.0, 70.0]), 10, 0.01, lam_b
    solved = solve_two_groups(*arguments)
    assert {getattr(solved, field.name).shape for field in dataclasses.fields(solved)} == {(2, 3)}
    assert solved.cosines("features")["AB"].shape == solved.norm_a.shape == (2, 3)
    for index in np.ndindex(2, 3):
        one = solve_two_groups(*(np.broadcast_to(a, (2, 3))[index] for a in arguments))
        assert np.array_equal(one.logits(), solved.logits(index))
        assert one.objective == solved.objective[index] and one.phase is solved.phase[index]
        assert all(isinstance(getattr(one, name), float) for name in VALUES)
        assert all(isinstance(cosine, float) for cosine in one.cosines("classifier").values())
        assert one.certificate < 1e-14
    assert solve_two_groups(2, 3, [], 1, 0.1).certificate == 0  # no problem is no error


def test_a_device_that_is_not_there_is_refused(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert solve_two_groups(2, 2, 3, 1, 0.1, device=None).certificate < 1e-14
    message = "device = 'cuda': must be None, 'cpu' or, where there is a GPU, 'cuda'"
    with pytest.raises(ValueError, match=message):
        solve_two_groups(2, 2, 3, 1, 0.1, device="cuda")


GOOD = dict(k_a=2, k_b=3, n_a=50.0, n_b=10.0, lam_z=0.01, lam_b=0.02)
BAD = [
    (dict(k_a=0), "k_a = 0.0: must be whole numbers from 1 to 1e12"),
    (dict(k_b=[1, 2.5, 0]), "k_b = 2.5: must be whole numbers from 1 to 1e12"),
    (dict(k_b="3"), "k_b = '3'"),
    (dict(n_a=[50, math.nan]), "n_a = nan: must be positive numbers, finite"),
    (dict(n_b=-1.0), "n_b = -1.0: must be positive"),
    (dict(n_b=[[1], [2, 3]]), "n_b is a list of which NumPy makes no array: must be positive"),
    (dict(n_a=[20, 10, 5], n_b=[20, 11, 6]), "n_a = 10.0, n_b = 11.0: must have n_a >= n_b"),
    (dict(lam_z=[1.0, 0.0]), "lam_z = 0.0: must be positive numbers"),
    (dict(lam_b=0.0), "lam_b = 0.0: must be numbers from 1e-16 to 1e100, or math.inf"),
    (dict(k_b=1e13), "k_b = 1e13|k_b = 10000000000000.0"),
    (dict(n_a=[50, 60], lam_z=[1] * 3), r"shapes k_a \(\), .* lam_z \(3,\), .*: must broadcast"),
    (dict(lam_z=[1, 1], lam_b=[1] * 3), r"shapes .* lam_b \(3,\): must broadcast to one"),
    (dict(device="tpu"), "device = 'tpu': must be None, 'cpu' or 'cuda'"),
]
PLAIN = dict(k_a=[INF, True], n_a=[INF], lam_z=[None, 1j], lam_b=[math.nan], device=[3.5])
BAD += [({name: value}, f"{name} = {value}") for name in PLAIN for value in PLAIN[name]]
GOOD_LOG = dict(k_a=2, k_b=3, log_ratio=1.0, log_tau=-1.0)
BAD_LOG = [
    (dict(log_ratio=-1e-9), "log_ratio = -1e-09: must be numbers from 0 to 1e9"),
    (dict(log_ratio=math.nan), "log_ratio = nan"),
    (dict(log_tau=[0.0, -INF]), "log_tau = -inf: must be numbers from -1e9 to 1e9"),
]


@pytest.mark.parametrize("arguments, message", BAD + BAD_LOG)
def test_bad_arguments_are_refused_before_any_work(monkeypatch, arguments, message):
    worked = lambda *_: pytest.fail("worked")
    monkeypatch.setattr("ncutils.exact.two_groups.solve_equations", worked)
    logs = "log_ratio" in arguments or "log_tau" in arguments
    with pytest.raises(ValueError, match=message):
        solve_two_groups_log(**GOOD_LOG | arguments) if logs else solve_two_groups(
            **GOOD | arguments
        )


PLACE = r"index = .*: must be the place of one problem in arrays of shape \(2,\)"
REFUSED = [*((dict(index=index), PLACE) for index in [(), 2, (0, 0), slice(None)])]
REFUSED += [(dict(of="bias"), "of = 'bias': must be one of 'logits', 'features', 'classifier'")]


@pytest.mark.parametrize("view, message", REFUSED)
def test_the_place_of_no_single_problem_and_cosines_of_something_else_are_refused(view, message):
    solved = solve_two_groups(2, 3, [50, 60], 10, 0.01)
    with pytest.raises(ValueError, match=message):
        solved.cosines(**view) if "of" in view else solved.logits(**view)
