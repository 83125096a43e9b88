"""The exact solution of any UFM by Newton's method, with its certificate."""

import warnings

import numpy as np

from .._checks import check_choice, check_integer, check_positive
from ..ufm import CONTRADICTION, check_ufm
from ._blocks import Blocks
from ._newton import minimise
from ._norms import ColumnNorm, NuclearNorm
from .certificate import duality_gap, nonnegative_norm
from .convex import FEATURES, scaled_problem
from .solution import Solution

NORMS = {"linear": NuclearNorm, "relu": ColumnNorm}


def solve(ufm, features="linear", tol=1e-10, max_iterations=200):
    r"""The global optimum of (CVX), that is of the UFM; or of (CVX+), for nonnegative features.

    The first is (CVX), the second (CVX+):

    .. math:: \min_{Z, b} \frac1N \sum_k w_k n_k \, \mathrm{CE}(z_k + b, e_k)
              + \lambda_Z \|Z D^{1/2}\|_* + \frac{\lambda_b}{2} \|b\|^2

    .. math:: \min_{Z, b} \frac1N \sum_k w_k n_k \, \mathrm{CE}(z_k + b, e_k)
              + \lambda_Z \sum_k \sqrt{n_k} \, \|z_k\| + \frac{\lambda_b}{2} \|b\|^2

    Here Z = W H̄ (K, K) has the columns z_k, D is diag(n_1 … n_K) and λ_Z = sqrt(λ_W λ_H); ‖·‖_* is
    the nuclear norm. Classes of equal size and weight are merged into groups; then a proximal
    Newton method (`ncutils/exact/_newton.py`) runs until the gap between objective and dual is at
    most tol · objective. It starts from a closed form; the certificate uses none.

    Parameters
    ----------
    ufm : UFM with any class sizes and weights, N at most 1e100. λ_b over the mean class weight of a
        sample is at least 1e-12 and at most 1e100, or infinite; λ_Z at least max w_k sqrt(n_k)/N
        over 1e100.
    features : "linear", features free of sign; or "relu", H ≥ 0, whose optimum is that of (CVX+)
        wherever the returned solution is certified, and at most that elsewhere.
    tol : relative gap to reach, > 0. 1e-13 is reached for class sizes to 1e12, ratios to 1e9,
        weights from 1e-3 to 1e3 and λ_b from 1e-8 on, as far as was tried, and a gap below about
        7e-15 never; a solution that ends above tol warns.
    max_iterations : points looked at, at most; a solution that stops there warns with its gap.

    Returns a `Solution`. Raises ValueError where an argument is not allowed. Source: the paper's
    claim (a) for (CVX) without weights, the rest ours.

    >>> from ncutils import UFM, solve
    >>> exact = solve(UFM.from_lam_z([500] * 5 + [100] * 5, lam_z=0.0036, lam_b=0.02))
    >>> print(exact.phase, exact.rank, exact.relative_gap < 1e-10)
    Phase.MINORITY_COLLAPSE 5 True
    """
    check_ufm(ufm)
    check_choice("features", features, FEATURES)
    tol = check_positive("tol", tol)
    max_iterations = check_integer("max_iterations", max_iterations, at_least=1)
    scaled = scaled_problem(ufm)
    blocks = merged_classes(ufm, scaled)
    found = minimise(blocks, NORMS[features], tol, max_iterations)
    primal, dual, probabilities = found.primal, found.dual, found.probabilities
    program_gap = duality_gap(primal, dual)
    if features == "relu":  # the dual of the UFM with H ≥ 0 has a norm of its own
        probabilities = blocks.feasible(probabilities, nonnegative_norm)
        dual = blocks.dual_value(probabilities)
    gap = duality_gap(primal, dual)
    if not gap >= -CONTRADICTION * primal:  # nor NaN
        raise ArithmeticError(
            f"objective {float(scaled.mean * primal)!r} is below its lower bound "
            f"{float(scaled.mean * dual)!r}: a fault of the solver. "
            f"Please report it with the problem: {ufm}"
        )
    if program_gap > tol * primal:
        what = "max_iterations or tol" if found.iterations == max_iterations else "tol"
        warnings.warn(
            f"solve stopped after {found.iterations} iterations at relative gap "
            f"{program_gap / primal:.1e}, above tol = {tol:.1e}: raise {what}",
            RuntimeWarning,
            stacklevel=2,
        )
    # the mean of the bias is seen by no loss, and hardly by a tiny lam_b
    bias = found.bias - blocks.counts @ found.bias / blocks.K
    return Solution(
        ufm=ufm,
        features=features,
        objective=scaled.mean * primal,
        gap=scaled.mean * gap,
        certified=bool(gap <= tol * primal),
        iterations=found.iterations,
        rank=found.rank,
        _blocks=blocks,
        _point=found.point,
        _group_bias=bias,
        _probabilities=probabilities,
    )


def merged_classes(ufm, scaled):
    """The `Blocks` of a UFM, classes of equal size and weight being one group."""
    first = [members[0] for members in ufm.groups.values()]
    counts = np.array([len(members) for members in ufm.groups.values()], dtype=np.float64)
    return Blocks(ufm.sizes[first], counts, scaled.lam, scaled.lam_b, scaled.weights[first])
