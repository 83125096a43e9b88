"""The certificate: points of the dual, which bound the optimum from below."""

import math

import numpy as np
from scipy.special import xlog1py, xlogy

from .._checks import check_choice, check_integer
from ._blocks import SLACK
from .convex import FEATURES, check_point, cross_entropy, scaled_problem

# relatively: rounding in the values of objective and dual is less (measured at 50 digits: 7e-16)
EVALUATION = 2e-15


def _matrix(unit, Q):
    """G = (I − Q) diag(unit) (K, K), without cancellation; the diagonal of Q (K, K) is not read."""
    G = np.where(np.eye(len(Q), dtype=bool), 0.0, -Q)
    np.fill_diagonal(G, -G.sum(axis=0))
    return G * unit


def _norm(G, features):
    """max ‖G h‖/‖h‖ over all h; for "relu" over h ≥ 0, or more: root of the largest eigenvalue of
    max(GᵀG, 0).
    """
    if features == "linear":
        return np.linalg.norm(G, 2)
    return math.sqrt(np.linalg.eigvalsh(np.maximum(G.T @ G, 0.0))[-1])


def _dual(scaled, Q, features):
    """Value of the dual at Q ≥ 0 (K, K), scaled down off its diagonal as far as a point of the dual
    needs.
    """
    Q = np.where(np.eye(len(Q), dtype=bool), 0.0, Q)
    total = Q.sum(axis=0).max() * (1 + SLACK)
    Q = Q / (total if total > 1 else 1.0)
    size = scaled.unit.max()  # GᵀG may underflow
    # of this Q, whatever it was made from
    norm = size * _norm(_matrix(scaled.unit / size, Q), features) * (1 + SLACK)
    Q = Q * (scaled.lam / norm if norm > scaled.lam else 1.0)
    rest = Q.sum(axis=0)
    value = scaled.share @ (-xlogy(Q, Q).sum(axis=0) - xlog1py(1 - rest, -rest))
    if not math.isinf(scaled.lam_b):
        g = scaled.share * rest - Q @ scaled.share
        value -= g @ g / (2 * scaled.lam_b)
    return value


def dual_bound(ufm, logits, bias, rank=0, features="linear"):
    """A lower bound of the optimal value of the UFM, with H ≥ 0 for features "relu", from any Z (K,
    K) and b (K,).

    P off the diagonal, the probabilities of the other classes, is scaled down until G = (I − Q)
    diag(w) D^{1/2}/N has ‖G‖ ≤ λ_Z, the norm being the spectral one or, for "relu", the square root
    of the largest eigenvalue of GᵀG with negative entries set to 0. For "linear" a second bound,
    the same with another Q, comes from (I − P) diag(w) D^{1/2}/N with its `rank` largest singular
    values set to λ_Z and the others cut at λ_Z; where such a Q is negative it has the entry of P.
    It is exact to second order in the error of Z, the first to first order. The better one is
    returned; "relu" has the first only.

    Parameters
    ----------
    ufm : the problem.
    logits, bias : Z (K, K) and b (K,), in nats; b = 0 where λ_b = ∞.
    rank : number of singular values for the second bound, ≥ 0; best the rank of the optimal Z.
    features : "linear" or "relu".

    Returns the bound, in nats. Raises ValueError where an argument is not allowed.
    Source: ours, by Lagrange duality.

    >>> from ncutils import UFM, dual_bound, solve
    >>> ufm = UFM.from_lam_z([20, 20, 10], lam_z=0.01)
    >>> exact = solve(ufm)
    >>> near = 0.9 * exact.logits
    >>> print(*(dual_bound(ufm, near, exact.bias, rank).round(4) for rank in (0, exact.rank)))
    0.3349 0.3372
    """
    logits, bias = check_point(ufm, logits, bias)
    rank = check_integer("rank", rank, at_least=0)
    check_choice("features", features, FEATURES)
    scaled = scaled_problem(ufm)
    _, gradient = cross_entropy(logits + bias[:, None])
    bound = _dual(scaled, gradient, features)
    if features == "linear" and rank > 0:
        U, s, Vt = np.linalg.svd(_matrix(scaled.unit, gradient))
        s = np.minimum(s, scaled.lam)
        s[:rank] = scaled.lam
        sharp = (U * s) @ Vt
        # columns of I − Q sum to zero; those of a rank beyond that of G need not
        sharp -= sharp.mean(axis=0)
        Q = -sharp / scaled.unit
        bound = max(bound, _dual(scaled, np.where(Q > 0, Q, gradient), features))
    return scaled.mean * bound


def nonnegative_norm(blocks, dual):
    """`_norm` of the matrix with coordinates dual (G + 1, G), for "relu"."""
    M = dual[1:].T @ dual[1:]  # Gram matrix of G on vectors constant on groups
    within = (dual[0] / np.maximum(blocks.y_weight, 1)) ** 2
    same = (np.diag(M) - within) / blocks.counts  # product of two columns of G of one group
    own = within + same  # ‖G e_k‖²
    positive_part = np.maximum(M, 0.0) * blocks.off_diagonal + np.diag(
        own + blocks.siblings * np.maximum(same, 0.0)
    )
    return math.sqrt(np.linalg.eigvalsh(positive_part)[-1])


def duality_gap(primal, dual):
    """primal − dual, and what rounding can add to either."""
    return primal - dual + EVALUATION * max(primal, abs(dual))
