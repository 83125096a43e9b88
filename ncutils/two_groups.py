r"""The exact solution for two groups of classes: one unknown each, many problems at once.

Majority A has K_A classes of n_A samples, minority B has K_B of n_B ≤ n_A; K = K_A + K_B. Z, b and the objective
depend on K_A, K_B, r = n_A/n_B, τ = λ_Z N/sqrt(n_B) and λ_b only. Write τ_A = τ/sqrt(r), τ_B = τ. A sample of group g
(h is the other) has probability p_d for its own class, p_o for each other class of g, p_x for each class of h.
Optimality reads

    within g    1 − p_d + p_o = T_g = min(τ_g, 1): p_o = (T_g − K_h p_x)/K_g, and the gap is a_g = ln(p_d/p_o)
    between     M_A/p_xA = M_B/p_xB > 0 and K (K_B p_xA² + K_A p_xB²/r) = τ_A²,  or  M_A = M_B = 0 and K (…) ≤ τ_A²,
                M_A = K_A (m_A − β), M_B = K_B (m_B + β), m_g = (ln p_d + (K_g − 1) ln p_o)/K_g − ln p_x
    bias        β = b_A − b_B = K (n_A p_xA − n_B p_xB)/(N λ_b),   K_A b_A + K_B b_B = 0

with T_g = 1 for K_g = 1. m_g is the mean logit of the own group minus the logit of the other, M_g/K_g the same without
bias. All is explicit in ψ = ln(p_xB/p_xA): M_A increases with it, M_B decreases, so ψ + ln M_A − ln M_B has one zero or
none. If none, Z does not tell the groups apart, and one equation in p_xA is left: never where τ_B < 1, always where
τ_A ≥ 1. The gap compares these logits with the dual value at these probabilities (see convex.py).
Source: ours, from the optimality conditions of the paper's program (Hong and Ling, arXiv:2309.09725).
"""

import math
import sys
import warnings
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch

from .device import pick_device
from .ufm import array_of, choice, room, shown

ON_THE_LINE = 1e-12  # this close to a threshold is on it: relatively in λ_Z N, as in theory.phase; for v, in m_A + m_B
CHUNK = {"cpu": 2**15, "cuda": 2**20}  # problems at a time; on a CPU they stay in the cache
GAP = 1e-10  # a larger one is warned about
STEPS = 400  # Newton steps at most; bisection alone needs about 100 at the extremes
LARGEST_K, LARGEST_LOG, SMALLEST_LAM_B, LARGEST_LAM_B = 1e12, 1e9, 1e-16, 1e100  # beyond these, rounding shows


@dataclass(frozen=True, eq=False)
class TwoGroups:
    """Exact solutions of two-group problems, float64 arrays of the shape that the arguments broadcast to.

    Made by `solve_two_groups` and `solve_two_groups_log`.

    Attributes
    ----------
    k_a, k_b, log_ratio, log_tau, lam_b : the problems: K_A, K_B, ln(n_A/n_B), ln(λ_Z N/sqrt(n_B)), λ_b.
    a_a, a_b : gap of a group in nats, logit of the own class minus that of another class of the group. Exactly 0 where
        the group has collapsed; NaN where it has one class, so that there is no gap.
    m_a, m_b : mean logit over the own group minus logit of a class of the other, without bias. Exactly 0 where Z does
        not tell the groups apart.
    bias_a, bias_b : the bias of each class of the group; 0 where lam_b is infinite.
    phase : whole numbers, places in list(Phase); read off the zeros of a_a, a_b and m_b.
    log_objective : ln of the value of (CVX). By the scaling law that is a function of the five numbers above.
    relative_gap : (objective − dual bound)/objective, a bound of the relative error of the objective up to rounding,
        which is about 1e-15, and 1e-16 |log_tau| where log_tau is very negative.
    own_a, other_a, cross_a, own_b, other_b, cross_b : the columns of Z: logit of the own class, of another class of the
        group (NaN if it has none), of a class of the other group.
    norm_a, norm_b : the lengths of the columns of Z; exactly 0 where they vanish.
    objective : exp(log_objective), 0 where that underflows.

    Source: ours, from the optimality conditions of the paper's program.

    >>> from ncutils import solve_two_groups
    >>> found = solve_two_groups(5, 5, 500, 100, [0.001, 0.003, 0.0036, 0.005])
    >>> found.a_b.round(4), found.phase
    (array([3.0445, 0.6682, 0.    , 0.    ]), array([0, 0, 1, 2]))
    >>> found.worst_gap < 1e-12
    True
    """

    k_a: np.ndarray
    k_b: np.ndarray
    log_ratio: np.ndarray
    log_tau: np.ndarray
    lam_b: np.ndarray
    a_a: np.ndarray
    a_b: np.ndarray
    m_a: np.ndarray
    m_b: np.ndarray
    bias_a: np.ndarray
    bias_b: np.ndarray
    phase: np.ndarray
    log_objective: np.ndarray
    relative_gap: np.ndarray

    objective = property(lambda self: np.exp(self.log_objective))
    own_a, own_b = (property(lambda self, g=g: self._columns()[0][g]) for g in (0, 1))
    other_a, other_b = (property(lambda self, g=g: self._columns()[1][g]) for g in (0, 1))
    cross_a, cross_b = (property(lambda self, g=g: self._columns()[2][g]) for g in (0, 1))
    norm_a, norm_b = (property(lambda self, g=g: np.sqrt(sum(self._parts("logits")))[g]) for g in (0, 1))

    @property
    def worst_gap(self):
        """The largest |relative_gap|; NaN if one is."""
        return float(np.abs(self.relative_gap).max(initial=0.0))

    def _groups(self):
        """K_g, K_h, a_g (0 if K_g = 1), m_g, each (2, …), A first."""
        k = np.stack([self.k_a, self.k_b])
        return k, k[::-1], np.where(k > 1, np.stack([self.a_a, self.a_b]), 0.0), np.stack([self.m_a, self.m_b])

    def _columns(self):
        k, other, a, m = self._groups()
        mean = other * m / (k + other)  # over the own group; a column sums to zero
        return mean + a * (1 - 1 / k), np.where(k > 1, mean - a / k, np.nan), 0.0 - k * m / (k + other)

    def _parts(self, of):
        """Squared lengths (2, …), within and between the groups, up to a factor for each group."""
        k, other, a, m = self._groups()
        share = other / (k + other)
        if of == "logits":
            return a**2 * (1 - 1 / k), m**2 * k * share
        root = np.stack([np.ones_like(self.log_ratio), np.exp(-self.log_ratio / 2)])  # sqrt(n_g/n_A)
        s = m * k * np.sqrt(share)  # between the groups Z D^{1/2} is ± root · s times a unit vector of fixed direction
        size = np.hypot(*(root * s))
        if of == "features":
            return a * (k - 1), s * root * s / np.where(size > 0, size, 1.0)
        return root * a * (k - 1), size * share

    def cosines(self, of="logits"):
        """Cosines {"A": within A, "B": within B, "AB": across} of the columns of Z ("logits"), the class means
        ("features") or the rows of W ("classifier"). NaN where a vector is zero, and within a group of one class.

        With f the share of a squared length that lies between the groups they are 1 − (1 − f) K_g/(K_g − 1) within g
        and −sqrt(f_A f_B) across. Features: D^{-1/2} V Σ Vᵀ D^{-1/2}, classifier: U Σ Uᵀ, for Z D^{1/2} = U Σ Vᵀ.
        Raises ValueError where `of` is another word. Source: ours.

        >>> from ncutils import solve_two_groups
        >>> found = solve_two_groups(5, 5, 500, 100, [0.001, 0.003, 0.0036])
        >>> found.cosines("logits")["B"].round(4)
        array([0.0394, 0.5142, 1.    ])
        """
        choice("of", of, ("logits", "features", "classifier"))
        within, between = self._parts(of)
        k, _, a, m = self._groups()
        rest = np.where(a > 0, within / np.where(a > 0, within + between, 1.0), np.where(m > 0, 0.0, np.nan))  # 1 − f
        inside = np.where(k > 1, 1 - rest * k / np.maximum(k - 1, 1), np.nan)
        return {"A": inside[0], "B": inside[1], "AB": -np.sqrt((1 - rest[0]) * (1 - rest[1]))}

    def logits(self, index=()):
        """Z (K, K) of one problem, in nats, `index` being its place in the arrays; the first K_A classes are A.

        Raises ValueError where `index` is not the place of one problem.

        >>> from ncutils import solve_two_groups
        >>> solve_two_groups(2, 1, 500, 100, [0.001, 0.003]).logits(1).round(3)
        array([[ 1.894, -1.223, -0.784],
               [-1.223,  1.894, -0.784],
               [-0.672, -0.672,  1.568]])
        """
        shape, places = np.shape(self.k_a), index if isinstance(index, tuple) else (index,)
        named = all(isinstance(place, (int, np.integer)) and not isinstance(place, bool) for place in places)
        if not named or len(places) != len(shape) or any(not -n <= place < n for place, n in zip(places, shape)):
            raise ValueError(f"index = {shown(index)}: must be the place of one problem in arrays of shape {shape}")
        k_a, k_b = int(self.k_a[places]), int(self.k_b[places])
        room("index", shown(index), (k_a + k_b) ** 2)
        own, other, cross = self._columns()
        pick = lambda entry: np.repeat([entry[0][index], entry[1][index]], [k_a, k_b])  # one entry for each column
        in_a = np.arange(k_a + k_b) < k_a
        Z = np.where(in_a[:, None] == in_a, pick(other), pick(cross))
        np.fill_diagonal(Z, pick(own))
        return Z


def solve_two_groups(k_a, k_b, n_a, n_b, lam_z, lam_b=math.inf, device="cpu"):
    """Global optima of (CVX) for K_A classes of n_A samples and K_B of n_B ≤ n_A. All arguments broadcast.

    Parameters
    ----------
    k_a, k_b : whole numbers from 1 to 1e12.
    n_a, n_b : positive numbers, not only whole ones, with n_a ≥ n_b.
    lam_z : λ_Z > 0.
    lam_b : λ_b from 1e-16 to 1e100; math.inf, which may be mixed with finite values, means no bias.
    device : "cpu", "cuda", or None, CUDA if present.

    Returns `TwoGroups`. A level λ_Z N within 1e-12, relatively, of a threshold counts as on it: collapsed. Raises
    ValueError, before any work, naming argument, value and what is allowed. Source: ours, from the optimality conditions.

    >>> from ncutils import solve_two_groups
    >>> solve_two_groups(5, 5, 500, 100, [0.003, 0.0036], lam_b=0.02).objective.round(4)
    array([1.5405, 1.6879])
    """
    k_a, k_b = _whole("k_a", k_a), _whole("k_b", k_b)
    n_a, n_b, lam_z = _positive("n_a", n_a), _positive("n_b", n_b), _positive("lam_z", lam_z)
    lam_b = _lam_b(lam_b)
    _common_shape(k_a=k_a, k_b=k_b, n_a=n_a, n_b=n_b, lam_z=lam_z, lam_b=lam_b)
    sizes = np.stack(np.broadcast_arrays(n_a, n_b)).reshape(2, -1)
    for a, b in sizes[:, sizes[0] < sizes[1]].T:
        raise ValueError(f"n_a = {a}, n_b = {b}: must have n_a >= n_b, A being the majority")
    log_ratio = np.maximum(np.log(n_a) - np.log(n_b), 0.0)
    log_tau = np.log(lam_z) + np.log(n_b) / 2 + log_ratio + np.log(k_a + k_b * np.exp(-log_ratio))
    return solve_two_groups_log(k_a, k_b, log_ratio, log_tau, lam_b, device)


def solve_two_groups_log(k_a, k_b, log_ratio, log_tau, lam_b=math.inf, device="cpu"):
    """`solve_two_groups` in logarithms, so that nothing overflows: n up to e^3000 and far beyond.

    Parameters
    ----------
    k_a, k_b, lam_b, device : as in `solve_two_groups`.
    log_ratio : ln(n_A/n_B), from 0 to 1e9.
    log_tau : ln(λ_Z N/sqrt(n_B)), at most 1e9 in size. With λ_Z N = c fixed and n_B = n it is ln c − ½ ln n.

    Returns `TwoGroups` of the shape that the arguments broadcast to, with a RuntimeWarning should a relative gap be
    above 1e-10 and more than rounding. ValueError and source as in `solve_two_groups`.

    >>> import numpy as np
    >>> from ncutils import solve_two_groups_log
    >>> log_n_b = np.array([100, 1000])
    >>> found = solve_two_groups_log(5, 5, np.log(2), np.log(0.1) - log_n_b / 2)
    >>> found.cosines()["A"].round(6)
    array([-0.117282, -0.111863])
    """
    arguments = {
        "k_a": _whole("k_a", k_a), "k_b": _whole("k_b", k_b),
        "log_ratio": _numbers("log_ratio", log_ratio, 0.0, LARGEST_LOG, "numbers from 0 to 1e9"),
        "log_tau": _numbers("log_tau", log_tau, -LARGEST_LOG, LARGEST_LOG, "numbers from -1e9 to 1e9"),
        "lam_b": _lam_b(lam_b)}
    shape, device = _common_shape(**arguments), pick_device(device)
    arguments = [np.broadcast_to(argument, shape) for argument in arguments.values()]
    flat = [argument.ravel() for argument in arguments]
    out = np.empty((8, flat[0].size))
    for start in range(0, out.shape[1], CHUNK[device.type]):
        part = slice(start, start + CHUNK[device.type])
        with torch.no_grad():
            out[:, part] = _solve(*(torch.from_numpy(values[part].copy()).to(device) for values in flat)).cpu().numpy()
    a_a, a_b, m_a, m_b, bias_a, bias_b, log_objective, gap = out.reshape(8, *shape)
    # places in list(Phase); a gap of NaN, in a group of one class, is no collapse
    phase = np.where(m_b > 0, np.where(a_b == 0, 1, 0), np.where((a_a == 0) | (arguments[0] == 1), 3, 2))
    fields = *arguments, a_a, a_b, m_a, m_b, bias_a, bias_b, phase, log_objective, gap
    solved = TwoGroups(*(field[()] for field in fields))  # numbers where all arguments are
    if not (np.abs(solved.relative_gap) <= GAP + 1e-15 * np.abs(solved.log_tau)).all():  # the second part is rounding
        warnings.warn(f"the worst relative gap is {solved.worst_gap:.1e}, above {GAP:.0e}: see relative_gap for which",
                      RuntimeWarning, stacklevel=2)
    return solved


def _numbers(name, values, lowest, highest, allowed, whole=False):
    """`values` as a float64 array, all from lowest to highest, else ValueError with the first that is not."""
    array = array_of(values, "iuf")
    if array is None:
        raise ValueError(f"{name} = {shown(values)}: must be {allowed}")
    with np.errstate(over="ignore"):  # what float64 cannot hold is infinite
        array = array.astype(np.float64)
    valid = (array >= lowest) & (array <= highest) & (not whole or array == np.floor(array))
    for value in array[~valid].ravel()[:1]:
        raise ValueError(f"{name} = {value}: must be {allowed}")
    return array


def _whole(name, values):
    return _numbers(name, values, 1.0, LARGEST_K, "whole numbers from 1 to 1e12", whole=True)


def _positive(name, values):
    return _numbers(name, values, math.ulp(0.0), sys.float_info.max, "positive numbers, finite")


def _lam_b(values):
    allowed = "numbers from 1e-16 to 1e100, or math.inf for no bias"
    array = _numbers("lam_b", values, SMALLEST_LAM_B, math.inf, allowed)
    _numbers("lam_b", array[np.isfinite(array)], SMALLEST_LAM_B, LARGEST_LAM_B, allowed)
    return array


def _common_shape(**arrays):
    try:
        return np.broadcast_shapes(*(array.shape for array in arrays.values()))
    except ValueError:
        shapes = ", ".join(f"{name} {array.shape}" for name, array in arrays.items())
        raise ValueError(f"shapes {shapes}: must broadcast to one") from None


class _Problems(NamedTuple):
    """Problems and what their equations need; (2, E): for the groups A, B; (E,): for both. A probability p of a sample
    of group g is kept over c_g = min(τ_g, 1), whose logarithm is known: then none underflows."""

    k: torch.Tensor  # K_g (2, E)
    other: torch.Tensor  # K_h (2, E)
    log_root: torch.Tensor  # ln sqrt(n_g/n_A) (2, E)
    log_tau: torch.Tensor  # ln τ_g (2, E)
    log_c: torch.Tensor  # (2, E)
    c: torch.Tensor  # (2, E)
    share: torch.Tensor  # n_g c_g/(n_A c_A) (2, E)
    pull: torch.Tensor  # ± K n_g c_g/(N λ_b) (2, E): β is the sum of pull · p_x/c_g; 0 without bias
    log_odds: torch.Tensor  # ln(K_A n_B/(K_B n_A)) (E,)

    def take(self, index):
        return _Problems(*(field[..., index] for field in self))


def _problems(k, log_ratio, log_tau, lam_b):
    log_root = torch.stack([torch.zeros_like(log_ratio), -log_ratio / 2])
    log_tau = torch.stack([log_tau - log_ratio / 2, log_tau])
    log_c = log_tau.clamp(max=0)
    c, share = log_c.exp(), torch.exp(2 * log_root + log_c - log_c[0])
    pull = share * k.sum(0) * c[0] / (k * torch.exp(2 * log_root)).sum(0) / lam_b
    pull[1] *= -1
    return _Problems(k, k.flip(0), log_root, log_tau, log_c, c, share, pull, (k[0] / k[1]).log() - log_ratio)


def _own_group(p, x):
    """p_o/c and (1 − p_d)/c from x = p_x/c. A group of one class has no p_o: any positive number will do."""
    return torch.where(p.k > 1, 1 - p.other * x, 1.0) / p.k, ((p.k - 1) + p.other * x) / p.k


def _contrast(p, log_x):
    """m, −dm/d ln p_x and p_x/c from ln(p_x/c) (2, E); m = −∞ where p_x leaves the own group no probability."""
    x = log_x.exp()
    p_o, rest = _own_group(p, x)
    p_d = 1 - p.c * rest
    m = (p_d.log() + (p.k - 1) * p_o.log() - p.log_c) / p.k - log_x
    slope = 1 + p.other * x * (p.c / p_d + (p.k - 1) / p_o) / (p.k * p.k)
    return torch.where((p_d > 0) & (p_o > 0), m, -math.inf), slope, x


def _crossing(p, psi):
    """ln(p_x/c) where K (K_B p_xA² + K_A p_xB²/r) = τ_A² ≤ 1 and ln(p_xB/p_xA) = ψ; and |d/dψ| of it (2, E)."""
    x = 2 * psi + p.log_odds  # ln tan² of the angle on that ellipse
    e = torch.exp(-x.abs())
    larger = 1 / (1 + e)
    smaller, steep = e * larger, x > 0
    log_a = -(p.k.sum(0) * p.other[0]).log() / 2 - (e.log1p() + x.clamp(min=0)) / 2
    log_x = torch.stack([log_a, log_a + psi + (p.log_c[0] - p.log_c[1])])
    return log_x, torch.stack([torch.where(steep, larger, smaller), torch.where(steep, smaller, larger)])


def _between(p, psi):
    """M_A e^{ψ/2} − M_B e^{−ψ/2} over the larger power, its slope, and whether M_A, M_B ≤ 0: no root has both > 0."""
    log_x, turn = _crossing(p, psi)
    m, slope, x = _contrast(p, log_x)
    pulled = p.pull * x
    beta, fall = pulled.sum(0), (pulled.abs() * turn).sum(0)
    m = m - torch.stack([beta, -beta])
    e = torch.exp(-psi.abs()).clamp(min=1e-300)
    power = p.k * torch.stack([torch.where(psi < 0, e, 1.0), torch.where(psi > 0, e, 1.0)])
    value = power * m
    # a negative m leaves the sign of the value right, but could turn that of the slope: there its part is left out
    slope = power * (turn * slope + fall + m.clamp(min=0) / 2)
    return value[0] - value[1], slope.sum(0), (m <= 0).all(0)


def _within_a(p, log_a):
    """Where m_A = −m_B = β: β as the bias asks minus β, at ln(p_xA/c_A), which determines p_xB; its slope; False."""
    m, slope, x = (row[0] for row in _contrast(p, log_a.expand(2, -1)))
    p_b = 1 / (p.k[0] + p.k[1] * torch.exp(-m))
    x_b = p.pull[1] * p_b / p.c[1]
    value = p.pull[0] * x + x_b - m
    return value, slope + p.pull[0] * x - x_b * (1 - p.k[0] * p_b) * slope, torch.zeros_like(m, dtype=torch.bool)


def _root(function, p, x):
    """Roots (E,) of an increasing function of (problems, x) that gives value, slope and whether there is none: Newton's
    method from x for all problems at once, bisecting where it leaves the bracket. Returns (x, none)."""
    roots, hopeless = x.clone(), torch.zeros_like(x, dtype=torch.bool)
    index = torch.arange(len(x), device=x.device)
    low, high = torch.full_like(x, -math.inf), torch.full_like(x, math.inf)
    for number in range(STEPS):
        value, slope, none = function(p, x)
        low, high = torch.where(value <= 0, x, low), torch.where(value >= 0, x, high)
        room = torch.where(value > 0, low, high) - x
        step = -value / slope
        newton = step.abs() < room.abs()  # false for NaN
        limit = 2.0 ** min(number + 1, 40)  # while one side is open
        step = torch.where(newton, step, room / 2).clamp(-limit, limit)
        x = torch.where(none, x, x + step)
        size = 1 + x.abs()
        done = none | (newton & (step.abs() <= 1e-10 * size)) | (high - low <= 4e-16 * size)
        left = len(x) - int(done.sum())
        if left <= len(x) / 2 or number == STEPS - 1:  # those left go on alone
            roots[index], hopeless[index] = x, none
            if left == 0:
                break
            keep = (~done).nonzero()[:, 0]
            index, p, x, low, high = index[keep], p.take(keep), x[keep], low[keep], high[keep]
    return roots, hopeless


def _solve(k_a, k_b, log_ratio, log_tau, lam_b):
    """The rows a_A, a_B, m_A, m_B (of Z), b_A, b_B, ln objective, relative gap (8, E) of problems (E,)."""
    k, K = torch.stack([k_a, k_b]), k_a + k_b
    p = _problems(k, log_ratio, log_tau, lam_b)
    told = p.log_tau[0] < -ON_THE_LINE  # whether Z tells the groups apart
    psi = torch.zeros_like(log_tau)
    if told.any():
        some = told.nonzero()[:, 0]
        start = -p.log_tau[0] - (K / k_b).log() / 2  # p_xA = p_xB, unless p_xB > 1/K there
        psi[some], none = _root(_between, p.take(some), start.clamp(max=0)[some])
        told[some] = ~none
    log_x, _ = _crossing(p, psi)
    told &= _contrast(p, log_x)[0].sum(0) > ON_THE_LINE  # M_A/K_A + M_B/K_B, as the bias cancels
    if not told.all():
        some = (~told).nonzero()[:, 0]
        part = p.take(some)
        log_a, _ = _root(_within_a, part, -K.log()[some])
        beta = _contrast(part, log_a.expand(2, -1))[0][0]
        log_b = -(part.k[0] + part.k[1] * torch.exp(-beta)).log() - part.log_c[1]
        log_x[:, some] = torch.stack([log_a, log_b])
    return _outcome(p, lam_b, psi, told, log_x)


def _outcome(p, lam_b, psi, told, log_x):
    """The rows of `_solve` from ln(p_x/c): the logits, then primal and dual value apart, both times N/(n_A c_A)."""
    K, x = p.k.sum(0), log_x.exp()
    a, m = _logits(p, log_x)
    lean = psi + (p.k[0] / p.k[1]).log()  # M_A p_xB = M_B p_xA divides m_A + m_B, in which the bias cancels
    z = torch.where(told, m.sum(0) * torch.sigmoid(torch.stack([-lean, lean])), 0.0)
    pulled = (p.pull * x).sum(0)
    beta = torch.where(p.pull[0] * x[0] > 1, m[0] - z[0], pulled)  # the better conditioned of two equal values
    sign = torch.stack([torch.ones_like(beta), -torch.ones_like(beta)])

    root = p.log_root.exp()
    samples = (p.k * root**2).sum(0)  # N/n_A
    weight, c_a = p.k * p.share, p.c[0].clamp(min=1e-300)
    penalty = torch.where(torch.isinf(lam_b), 0.0, lam_b) * p.k[0] * p.k[1] / K * samples / 2
    s = z * p.k * (p.other / K).sqrt() * root
    nuclear = ((p.k - 1) * a * root).sum(0) + torch.hypot(s[0], s[1])  # ‖Z D^{1/2}‖_*/sqrt(n_A)
    primal = ((weight * _loss(p, a, z + sign * beta)).sum(0) + p.log_tau[0].clamp(0, 700).exp() * nuclear
              + penalty * beta * (beta / c_a))

    q = (K * p.other).sqrt() * torch.exp(p.log_root + p.log_c - p.log_c[0] - p.log_tau[0].clamp(min=0)) * x
    shrink = 1 / torch.hypot(q[0], q[1]).clamp(min=1)  # a point of the dual however the root came out
    dual = (weight * _entropy(p, log_x, shrink)).sum(0) - penalty * (shrink * pulled) * (shrink * pulled / c_a)
    bias = torch.stack([p.k[1] * beta / K, 0.0 - p.k[0] * beta / K])
    return torch.cat([torch.where(p.k > 1, a, math.nan), z, bias,
                      torch.stack([(primal / samples).log() + p.log_c[0], (primal - dual) / primal])])


def _logits(p, log_x):
    """a, 0 in a group of one class and from τ_g = 1 on, and m (2, E)."""
    p_o, rest = _own_group(p, log_x.exp())
    log_d, log_o = torch.log1p(-p.c * rest), p_o.log()
    small = torch.log1p(-torch.expm1(p.log_c) / (p.c * p_o))  # p_d − p_o = 1 − T_g: nothing cancels in a small gap
    a = torch.where(p.c > 0.01, small, log_d - log_o - p.log_c)
    a = torch.where((p.k > 1) & (p.log_tau < -ON_THE_LINE), a, 0.0)
    return a, (log_d + (p.k - 1) * log_o - p.log_c) / p.k - log_x


def _log1p_over(c, v):
    """ln(1 + c v)/c, which is v where c is tiny."""
    return torch.where(c > 1e-20, torch.log1p(c * v) / c, v)


def _loss(p, a, m):
    """Cross-entropy over c (2, E) of logits with gaps a and contrasts m."""
    others = (p.k - 1) * torch.exp((-a - p.log_c).clamp(max=700))
    return _log1p_over(p.c, others + p.other * torch.exp(-m - a * (1 - 1 / p.k) - p.log_c))


def _entropy(p, log_x, shrink):
    """Entropy over c (2, E) of the probabilities that follow from p_x, drawn to certainty by the factor `shrink`."""
    x = log_x.exp()
    p_o, rest = _own_group(p, x)
    log_s, rest = shrink.log() + p.log_c, shrink * rest
    unsure = shrink * ((p.k - 1) * p_o * (p_o.log() + log_s) + p.other * x * (log_x + log_s))
    return -(1 - p.c * rest) * _log1p_over(p.c, -rest) - unsure
