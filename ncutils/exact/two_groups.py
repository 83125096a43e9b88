"""The exact solution for two groups of classes, many problems at once."""

import math
import sys
import warnings
from dataclasses import dataclass

import numpy as np
import torch

from .._checks import array_of, check_choice, check_memory, shown
from .._device import pick_device
from ..ufm import CONTRADICTION
from ._scalar_equations import _solve

CHUNK = {"cpu": 2**15, "cuda": 2**20}  # problems at a time; on a CPU they stay in the cache
GAP = 1e-10  # a larger one is warned about
LARGEST_K, LARGEST_LOG, SMALLEST_LAM_B, LARGEST_LAM_B = (
    1e12,
    1e9,
    1e-16,
    1e100,
)  # beyond these, rounding shows


@dataclass(frozen=True, eq=False)
class TwoGroups:
    """Exact solutions of two-group problems, float64 arrays of the shape that the arguments
    broadcast to.

    Made by `solve_two_groups` and `solve_two_groups_log`.

    Attributes
    ----------
    k_a, k_b, log_ratio, log_tau, lam_b : the problems: K_A, K_B, ln(n_A/n_B), ln(λ_Z N/sqrt(n_B)),
        λ_b.
    a_a, a_b : gap of a group in nats, logit of the own class minus that of another class of the
        group. Exactly 0 where the group has collapsed; NaN where it has one class, so that there is
        no gap.
    m_a, m_b : mean logit over the own group minus logit of a class of the other, without bias.
        Exactly 0 where Z does not tell the groups apart.
    bias_a, bias_b : the bias of each class of the group; 0 where lam_b is infinite.
    phase : whole numbers, places in list(Phase); read off the zeros of a_a, a_b and m_b.
    log_objective : ln of the value of (CVX). By the scaling law that is a function of the five
        numbers above.
    relative_gap : (objective − dual bound)/objective, a bound of the relative error of the
        objective up to rounding, which is at most about 5e-15 + 2e-16 (|log_tau| + log_ratio).
    own_a, other_a, cross_a, own_b, other_b, cross_b : the columns of Z: logit of the own class, of
        another class of the group (NaN if it has none), of a class of the other group.
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
    norm_a, norm_b = (
        property(lambda self, g=g: np.hypot(*self._parts("logits"))[g]) for g in (0, 1)
    )

    @property
    def worst_gap(self):
        """The largest |relative_gap|; NaN if one is."""
        return float(np.abs(self.relative_gap).max(initial=0.0))

    certificate = worst_gap

    def _groups(self):
        """K_g, K_h, a_g (0 if K_g = 1), m_g, each (2, …), A first."""
        k = np.stack([self.k_a, self.k_b])
        return (
            k,
            k[::-1],
            np.where(k > 1, np.stack([self.a_a, self.a_b]), 0.0),
            np.stack([self.m_a, self.m_b]),
        )

    def _columns(self):
        k, other, a, m = self._groups()
        mean = other * m / (k + other)  # over the own group; a column sums to zero
        return (
            mean + a * (1 - 1 / k),
            np.where(k > 1, mean - a / k, np.nan),
            0.0 - k * m / (k + other),
        )

    def _log_angle(self):
        """ln cos θ and ln sin θ (2, …): between the groups Z D^{1/2} is a length times (cos θ, sin
        θ) times a unit vector of fixed direction. NaN where Z does not tell the groups apart."""
        k, _, a, m = self._groups()
        with np.errstate(divide="ignore", invalid="ignore"):
            log_tan = np.log(m[1]) - np.log(m[0]) + np.log(k[1] / k[0]) / 2 - self.log_ratio / 2
            # sqrt(K K_A) p_xB/τ_B, where m_A underflows
            log_own = (
                np.logaddexp(a[1] * (1 - 1 / k[1]), np.log(k[1] - 1) - a[1] / k[1])
                + m[1]
                + self.bias_b
                - self.bias_a
            )
            log_sin = (
                np.log(k[0] * k.sum(0)) / 2 - np.logaddexp(np.log(k[0]), log_own) - self.log_tau
            )
            log_sin = np.where(
                m[0] > 1e-290, -np.logaddexp(0.0, -2 * log_tan) / 2, np.minimum(log_sin, 0.0)
            )
            return np.stack([-np.logaddexp(0.0, 2 * log_tan) / 2, log_sin])

    def _parts(self, of):
        """Lengths (2, …), within and between the groups, up to a factor for each group."""
        k, other, a, m = self._groups()
        share = other / (k + other)
        if of == "logits":
            return a * np.sqrt(1 - 1 / k), m * np.sqrt(k * share)
        s = (
            m * k * np.sqrt(share)
        )  # sqrt(n_g/n_A) s is proportional to the cosine and sine of the angle
        log_angle = np.where(s > 0, self._log_angle(), 0.0)
        if of == "classifier":  # s over cosine or sine, m_A being the one that may underflow
            s, log_angle = (
                np.stack([s[1], s[1]]),
                np.stack([-log_angle[1] - self.log_ratio / 2, -log_angle[1]]),
            )
            s = s * share
        return np.sqrt(a * (k - 1)), np.sqrt(s) * np.exp(
            np.minimum(log_angle / 2, 300.0)
        )  # far above the other one

    def cosines(self, of="logits"):
        """Cosines {"A": within A, "B": within B, "AB": across} of the columns of Z ("logits"), the
        class means ("features") or the rows of W ("classifier"). NaN where a vector is zero, and
        within a group of one class.

        With f the share of a squared length that lies between the groups they are f − (1 − f)/(K_g
        − 1) within g and −sqrt(f_A f_B) across. Features: D^{-1/2} V Σ Vᵀ D^{-1/2}, classifier: U Σ
        Uᵀ, for Z D^{1/2} = U Σ Vᵀ. Raises ValueError where `of` is another word. Source: ours.

        >>> from ncutils import solve_two_groups
        >>> found = solve_two_groups(5, 5, 500, 100, [0.001, 0.003, 0.0036])
        >>> found.cosines("logits")["B"].round(4)
        array([0.0394, 0.5142, 1.    ])
        """
        check_choice("of", of, ("logits", "features", "classifier"))
        within, between = self._parts(of)
        k, _, a, _ = self._groups()
        length = np.hypot(within, between)
        some, alone = (
            length > 0,
            np.where((a == 0) & (self.m_b > 0), 1.0, np.nan),
        )  # m_A may underflow
        root = np.where(
            some, between / np.where(some, length, 1.0), alone
        )  # sqrt(f): 1 − (1 − f) would cancel
        rest = np.where(some, within / np.where(some, length, 1.0), 0.0) / np.sqrt(
            np.maximum(k - 1, 1)
        )
        inside = np.where(k > 1, (root - rest) * (root + rest), np.nan)
        return {
            "A": inside[0],
            "B": inside[1],
            "AB": np.where(self.m_b > 0, -root[0] * root[1], np.nan)[()],
        }

    def logits(self, index=()):
        """Z (K, K) of one problem, in nats, `index` being its place in the arrays; the first K_A
        classes are A.

        Raises ValueError where `index` is not the place of one problem.

        >>> from ncutils import solve_two_groups
        >>> solve_two_groups(2, 1, 500, 100, [0.001, 0.003]).logits(1).round(3)
        array([[ 1.894, -1.223, -0.784],
               [-1.223,  1.894, -0.784],
               [-0.672, -0.672,  1.568]])
        """
        shape, places = np.shape(self.k_a), index if isinstance(index, tuple) else (index,)
        named = all(
            isinstance(place, (int, np.integer)) and not isinstance(place, bool) for place in places
        )
        if (
            not named
            or len(places) != len(shape)
            or any(not -n <= place < n for place, n in zip(places, shape))
        ):
            raise ValueError(
                f"index = {shown(index)}: must be the place of one problem in arrays of shape {shape}"
            )
        k_a, k_b = int(self.k_a[places]), int(self.k_b[places])
        check_memory("index", shown(index), (k_a + k_b) ** 2)
        own, other, cross = self._columns()
        pick = lambda entry: np.repeat(
            [entry[0][index], entry[1][index]], [k_a, k_b]
        )  # one entry for each column
        in_a = np.arange(k_a + k_b) < k_a
        Z = np.where(in_a[:, None] == in_a, pick(other), pick(cross))
        np.fill_diagonal(Z, pick(own))
        return Z


def solve_two_groups(k_a, k_b, n_a, n_b, lam_z, lam_b=math.inf, device="cpu"):
    """Global optima of (CVX) for K_A classes of n_A samples and K_B of n_B ≤ n_A. All arguments
    broadcast.

    Parameters
    ----------
    k_a, k_b : whole numbers from 1 to 1e12.
    n_a, n_b : positive numbers, not only whole ones, with n_a ≥ n_b.
    lam_z : λ_Z > 0.
    lam_b : λ_b from 1e-16 to 1e100; math.inf, which may be mixed with finite values, means no bias.
    device : "cpu", "cuda", or None, CUDA if present.

    Returns `TwoGroups`. A level λ_Z N within 1e-12, relatively, of a threshold counts as on it:
    collapsed. Raises ValueError, before any work, naming argument, value and what is allowed.
    Source: ours, from the optimality conditions.

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
    log_tau : ln(λ_Z N/sqrt(n_B)), at most 1e9 in size. With λ_Z N = c fixed and n_B = n it is ln c
        − ½ ln n.

    Returns `TwoGroups` of the shape that the arguments broadcast to, with a RuntimeWarning should a
    relative gap be above 1e-10 and more than rounding. Raises ArithmeticError should one be below
    −1e-13 and more than rounding: a dual bound above the objective is a contradiction. ValueError
    and source as in `solve_two_groups`.

    >>> import numpy as np
    >>> from ncutils import solve_two_groups_log
    >>> log_n_b = np.array([100, 1000])
    >>> found = solve_two_groups_log(5, 5, np.log(2), np.log(0.1) - log_n_b / 2)
    >>> found.cosines()["A"].round(6)
    array([-0.117282, -0.111863])
    """
    arguments = {
        "k_a": _whole("k_a", k_a),
        "k_b": _whole("k_b", k_b),
        "log_ratio": _numbers("log_ratio", log_ratio, 0.0, LARGEST_LOG, "numbers from 0 to 1e9"),
        "log_tau": _numbers(
            "log_tau", log_tau, -LARGEST_LOG, LARGEST_LOG, "numbers from -1e9 to 1e9"
        ),
        "lam_b": _lam_b(lam_b),
    }
    shape, device = _common_shape(**arguments), pick_device(device)
    names = *arguments, "relative_gap"
    arguments = [np.broadcast_to(argument, shape) for argument in arguments.values()]
    flat = [argument.ravel() for argument in arguments]
    out = np.empty((8, flat[0].size))
    for start in range(0, out.shape[1], CHUNK[device.type]):
        part = slice(start, start + CHUNK[device.type])
        with torch.no_grad():
            out[:, part] = (
                _solve(*(torch.from_numpy(values[part].copy()).to(device) for values in flat))
                .cpu()
                .numpy()
            )
    a_a, a_b, m_a, m_b, bias_a, bias_b, log_objective, gap = out.reshape(8, *shape)
    # places in list(Phase); a gap of NaN, in a group of one class, is no collapse
    phase = np.where(
        m_b > 0, np.where(a_b == 0, 1, 0), np.where((a_a == 0) | (arguments[0] == 1), 3, 2)
    )
    fields = *arguments, a_a, a_b, m_a, m_b, bias_a, bias_b, phase, log_objective, gap
    solved = TwoGroups(*(field[()] for field in fields))  # numbers where all arguments are
    rounding = 1e-15 * (np.abs(solved.log_tau) + solved.log_ratio)
    for place in np.argwhere(solved.relative_gap < -CONTRADICTION - rounding)[:1]:
        problem = ", ".join(
            f"{name} = {values[tuple(place)]}" for name, values in zip(names, (*arguments, gap))
        )
        raise ArithmeticError(
            f"a dual bound above the objective, which is a fault of this solver, at {problem}"
        )
    if not (np.abs(solved.relative_gap) <= GAP + rounding).all():
        warnings.warn(
            f"the worst relative gap is {solved.worst_gap:.1e}, above {GAP:.0e}: see relative_gap for which",
            RuntimeWarning,
            stacklevel=2,
        )
    return solved


def _numbers(name, values, lowest, highest, allowed, whole=False):
    """`values` as a float64 array, all from lowest to highest, else ValueError with the first that
    is not.
    """
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
