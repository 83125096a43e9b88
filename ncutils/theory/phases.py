"""Thresholds and phases. Thresholds are values of λ_Z N."""

import math
from dataclasses import dataclass

from .._checks import check_positive
from ..ufm import ON_THE_LINE, GroupPhases, Phase, check_ufm
from ._vanishing import ZeroMinority, check_two_groups


def minority_threshold(n_b):
    r"""The level λ_Z N from which on the classes of size n_B, `n_b`, two at least, are one vector.

    .. math:: \lambda_Z N = \sqrt{n_B}

    Raises ValueError unless n_b > 0. Source: the paper's minority-collapse theorem; with or without
    bias and for any number of groups it follows from the optimality condition (1 − p_kk + p_lk)
    sqrt(n_B)/N ≤ λ_Z within the group.

    >>> from ncutils import theory
    >>> theory.minority_threshold(100)
    10.0
    """
    return math.sqrt(check_positive("n_b", n_b))


def vanishing_thresholds(k_a, k_b, n_a, n_b, lam_b=math.inf):
    r"""The levels λ_Z N at which minority means become zero, cease to be, become zero …, ascending;
    mostly one.

    .. math:: S = K (K_B n_A p_x^2 + K_A n_B p_y^2) / (\lambda_Z N)^2 = 1

    The minority means are zero if and only if S ≤ 1. Here p_x is the probability that a majority
    sample gives to one minority class and p_y that a minority sample gives to one majority class,
    where z_B = 0 and majority logits are a (e_k − 1/K_A) on A; a ≥ 0 solves 1 − p_d + p_o = λ_Z
    N/sqrt(n_A), and the bias λ_b b_A = K_B (n_A p_x − n_B p_y)/N, K_A b_A + K_B b_B = 0. Their
    number is odd. There is one level without bias, and if K_B ≤ e² K_A, or λ_b ≥ K/((e K_A + K_B)
    (K_A + K_B n_B/n_A)), or n_A ≤ e n_B, or K_A = 1. Else all are found that are further apart than
    a hundred-thousandth of themselves. Raises ValueError unless k_a, k_b ≥ 1, n_a ≥ n_b > 0, lam_b
    > 0. Source: ours, from the optimality conditions; the paper leaves open how many there are.

    >>> from ncutils import theory
    >>> [round(v, 4) for v in theory.vanishing_thresholds(10, 10**4, 10**4, 1, lam_b=0.0016)]
    [4.3485, 7.1932, 14.1463]
    """
    k_a, k_b, n_a, n_b = check_two_groups(k_a, k_b, n_a, n_b)
    lam_b = check_positive("lam_b", lam_b, infinite=True)
    if n_a == n_b:
        return [math.sqrt(n_a)]
    root_a, root_b = math.sqrt(n_a), math.sqrt(n_b)
    found = [root_a * math.exp(x) for x in ZeroMinority(k_a, k_b, n_a, n_b, lam_b).crossings()]
    return found if k_a == 1 else [min(max(v, root_b), root_a) for v in found]


def vanishing_threshold(k_a, k_b, n_a, n_b, lam_b=math.inf):
    r"""The level v = λ_Z N at which the minority means become zero: the first of
    `vanishing_thresholds`.

    .. math:: K (K_B n_A p_x^2 + K_A n_B p_y^2) = v^2

    From v on they are zero where there is no second one. `k_a`, `k_b`, `n_a`, `n_b`, `lam_b`, the
    ValueError and the source are those of `vanishing_thresholds`.

    >>> from ncutils import theory
    >>> [round(theory.vanishing_threshold(5, 5, 500, 100, lam_b), 4) for lam_b in (0.02, 2)]
    [11.9498, 13.5504]
    """
    return vanishing_thresholds(k_a, k_b, n_a, n_b, lam_b)[0]


def trivial_threshold(k_a, k_b, n_a, n_b, lam_b=math.inf):
    r"""The level λ_Z N from which on Z = 0: sqrt(n_A), or the vanishing threshold where K_A = 1.

    .. math:: \lambda_Z N = \sqrt{n_A} \text{ for } K_A \ge 2, \qquad
              \lambda_Z N = \sqrt{(K_B n_A + K_A n_B)/K} \text{ for } K_A = 1 \text{ without bias}

    `k_a`, `k_b`, `n_a`, `n_b`, `lam_b` and the ValueError as in `vanishing_threshold`. Source:
    ours, from ‖G‖_2 ≤ λ_Z at Z = 0.

    >>> from ncutils import theory
    >>> theory.trivial_threshold(5, 5, 400, 100)
    20.0
    """
    k_a, k_b, n_a, n_b = check_two_groups(k_a, k_b, n_a, n_b)
    lam_b = check_positive("lam_b", lam_b, infinite=True)
    if k_a == 1:
        return vanishing_threshold(k_a, k_b, n_a, n_b, lam_b)
    return math.sqrt(n_a)


@dataclass(frozen=True)
class Thresholds:
    """The levels λ_Z N at which the optimum of a UFM changes. Made by `thresholds`.

    Attributes
    ----------
    merged : {group: from where on its classes, two or more, are one vector}; the keys are those of
        `UFM.groups`.
    vanished : where minority means become zero, cease to be, become zero …, ascending; [] unless
        there are two class sizes and no class weights.
    trivial : from where on Z = 0; None in the same cases.

    Source: the paper (`merged`, for two groups) and ours.

    >>> from ncutils import UFM, theory
    >>> theory.thresholds(UFM.from_lam_z([9, 4, 1], lam_z=0.1))
    Thresholds(merged={}, vanished=[], trivial=None)
    """

    merged: dict
    vanished: list
    trivial: float | None


def thresholds(ufm):
    """All levels λ_Z N that are known at which the optimum of `ufm` changes, as `Thresholds`.

    Classes of size n and weight w merge at w sqrt(n); `vanished` is `vanishing_thresholds`, and
    `trivial` is `trivial_threshold`.

    Raises ValueError where `ufm` is no UFM. Source: the paper (`merged`, for two groups) and ours:
    with weights the optimality condition within a group is w (1 − p_kk + p_lk) sqrt(n)/N ≤ λ_Z.

    >>> from ncutils import UFM, theory
    >>> found = theory.thresholds(UFM.from_lam_z([400] * 5 + [100] * 5, lam_z=0.003))
    >>> {n: float(level) for n, level in found.merged.items()}
    {400: 20.0, 100: 10.0}
    >>> [round(level, 4) for level in found.vanished], found.trivial
    ([13.2636], 20.0)
    """
    check_ufm(ufm)
    merged = {
        kind: ufm.weights[members[0]] * minority_threshold(ufm.sizes[members[0]])
        for kind, members in ufm.groups.items()
        if len(members) > 1
    }
    if len(ufm.groups) != 2 or ufm.class_weights:
        return Thresholds(merged, [], None)
    (n_a, in_a), (n_b, in_b) = ufm.groups.items()
    sizes = len(in_a), len(in_b), n_a, n_b, ufm.lam_b
    return Thresholds(merged, vanishing_thresholds(*sizes), trivial_threshold(*sizes))


def _vanishes(k_a, k_b, n_a, n_b, lam_b, level):
    """Whether the minority means are zero at λ_Z N = level from sqrt(n_B) to sqrt(n_A), or up to
    rounding at that level.
    """
    if k_a == 1:
        return False  # zero together with the majority's
    minority, log_x = ZeroMinority(k_a, k_b, n_a, n_b, lam_b), math.log(level / math.sqrt(n_a))
    shifts = 0.0, -2 * ON_THE_LINE
    return any(minority.excess_at(min(log_x + shift, 0.0)) <= 0 for shift in shifts)


def phase(ufm):
    """The `Phase` of a UFM with two class sizes; `GroupPhases` of one with any other number, or
    with class weights.

    The lines between phases are those of `thresholds`, and a level on a line counts as above it.

    Raises ValueError where `ufm` is no UFM. Source: the paper (minority collapse) and ours (the
    other two lines, and more than two groups).

    >>> from ncutils import UFM, theory
    >>> theory.phase(UFM.from_lam_z([500] * 5 + [100] * 5, lam_z=0.0036))
    <Phase.MINORITY_COLLAPSE: 'minority collapse'>
    """
    check_ufm(ufm)
    level = ufm.lam_z * ufm.num_samples * (1 + ON_THE_LINE)
    if len(ufm.groups) == 2 and not ufm.class_weights:
        (n_a, in_a), (n_b, in_b) = ufm.groups.items()
        sizes = len(in_a), len(in_b), n_a, n_b
        if level >= trivial_threshold(*sizes, ufm.lam_b):
            return Phase.TRIVIAL
        if level < minority_threshold(n_b):
            return Phase.DISTINCT
        if _vanishes(*sizes, ufm.lam_b, level):
            return Phase.MINORITY_VANISHES
        return Phase.MINORITY_COLLAPSE if len(in_b) > 1 else Phase.DISTINCT
    collapsed = {kind: bool(level >= line) for kind, line in thresholds(ufm).merged.items()}
    within = sum(len(ufm.groups[kind]) - 1 for kind, flag in collapsed.items() if not flag)
    return GroupPhases(collapsed, (within, within + len(ufm.groups) - 1))
