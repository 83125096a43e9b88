r"""The exact solution: the convex programs that the UFM is equal to, and their certificates.

With Z = W H̄ (K, K) the mean logits, X = Z D^{1/2}, D = diag(n_1 … n_K) and λ_Z = sqrt(λ_W λ_H):

    min over Z, b of (1/N) Σ_k w_k n_k CE(z_k + b, e_k) + λ_Z ‖Z D^{1/2}‖_* + (λ_b/2) ‖b‖²              (CVX)
    min over Z, b of (1/N) Σ_k w_k n_k CE(z_k + b, e_k) + λ_Z Σ_k sqrt(n_k) ‖z_k‖ + (λ_b/2) ‖b‖²        (CVX+)

The optimal value of (CVX) is that of the UFM, whose class means and classifier are factors of Z.
With nonnegative ("relu") features, (CVX+) is attained with one direction a class: an upper bound. A
point of the dual

    max over Q of (1/N) Σ_k w_k n_k Ent(q_k) − ‖g‖²/(2 λ_b),  g = (1/N) Σ_k w_k n_k (e_k − q_k),
    subject to q_k in the simplex and ‖G‖ ≤ λ_Z, G = (I − Q) diag(w) D^{1/2}/N,

bounds the value of the UFM from below, whatever point it is and however it was found, if ‖G‖ is the
spectral norm; and that of the UFM with nonnegative features, if ‖G‖² is the largest eigenvalue of
GᵀG with negative entries set to 0, since no nonnegative h has a larger ‖G h‖/‖h‖. The class weights
w_k are 1 unless given. At fixed W and b each feature of class k minimises a strictly convex
function that depends on k only, so that features collapse whatever the weights, and the penalty
(λ_H/2) Σ_k n_k ‖h̄_k‖² knows no weight. Source: (CVX), without weights, is claim (a) of Hong and
Ling, arXiv:2309.09725; the rest is ours.
"""

import math
import warnings
from dataclasses import dataclass, field
from functools import cached_property
from typing import NamedTuple

import numpy as np
from scipy.linalg import helmert
from scipy.special import xlog1py, xlogy

from .blocks import MARGIN, Blocks
from .metrics import balance_residual
from .newton import Columns, Nuclear, minimise
from .theory import GroupPhases, Phase
from .ufm import (
    CONTRADICTION,
    UFM,
    choice,
    cosines_from_gram,
    positive,
    problem,
    real_array,
    room,
    whole,
)

FEATURES = ("linear", "relu")
# relatively: rounding in the values of objective and dual is less (measured at 50 digits: 7e-16)
EVALUATION = 2e-15
LARGEST = 1e100  # ratios of numbers beyond it may overflow
SMALLEST_LAM_B = 1e-12
WEIGHED = " (all this times the mean class weight of a sample)"


@dataclass(frozen=True, repr=False)
class Solution:
    """A solution of (CVX) or (CVX+), with the certificate of how far from the optimum it can be at
    most. Made by `solve`.

    Attributes
    ----------
    ufm : the problem.
    features : "linear" for (CVX), "relu" for (CVX+).
    logits : Z (K, K), in nats; column k holds the mean logits of class k, without the bias.
    bias : b (K,), in nats.
    objective : value of the program at (Z, b), in nats.
    gap : objective minus the dual bound, with what rounding can add to either (2e-15 of the
        objective): no (W, H, b), with H ≥ 0 for "relu", has a UFM objective below objective − gap.
        A dual point with this bound is `dual_point`: whoever doubts the solver may check it alone.
    certified : whether gap ≤ tol · objective. For "relu" it may be False at the exact optimum of
        (CVX+): the objective is then an upper bound of the UFM's optimum.
    iterations : points looked at, one more than the Newton steps between them.
    rank : rank of Z.
    group_gaps : {n: a_g in nats, exactly 0 where the classes of size n are one vector}, groups of
        two classes at least; the keys are those of `UFM.groups`.

    Source: the paper (the optimum is that of (CVX)), ours (certificate, "relu").

    >>> from ncutils import UFM, solve
    >>> exact = solve(UFM.from_lam_z([20, 20, 10], lam_z=0.01))
    >>> print(exact.certified, exact.rank, exact.phase, exact.objective.round(6))
    True 2 Phase.DISTINCT 0.337208
    >>> exact.logits.round(3)
    array([[ 2.115, -1.191, -0.986],
           [-1.191,  2.115, -0.986],
           [-0.924, -0.924,  1.971]])
    >>> print(exact.relative_gap < 1e-10, exact.balance_residual < 1e-10)
    True True
    """

    ufm: UFM
    features: str
    objective: float
    gap: float
    certified: bool
    iterations: int
    rank: int
    _blocks: Blocks = field(compare=False)
    _point: np.ndarray = field(compare=False)
    _group_bias: np.ndarray = field(compare=False)
    _probabilities: np.ndarray = field(compare=False)

    @property
    def relative_gap(self):
        """gap / objective: how far, relatively, the objective can be above the optimum."""
        return self.gap / self.objective

    def __repr__(self):
        K, G = self.ufm.num_classes, len(self.ufm.groups)
        problem = f"{K} classes in {G} group{'s' * (G > 1)}, {self.features} features"
        value = (
            f"objective {self.objective:.8g}, optimal to a relative gap of {self.relative_gap:.1e}"
        )
        if not self.certified:
            value = (
                f"objective {self.objective:.8g} is an upper bound of the optimum, which is at least "
                f"{self.objective - self.gap:.8g} (relative gap {self.relative_gap:.1e}, not certified)"
            )
        return f"Solution({problem}: {value}; rank {self.rank}, {self.iterations} iterations)"

    @cached_property
    def _group(self):
        """Group of each class (K,)."""
        group = np.empty(self.ufm.num_classes, dtype=int)
        for g, members in enumerate(self.ufm.groups.values()):
            group[members] = g
        return group

    def _expand(self, within, between):
        """The (K, K) matrix Σ_g within_g (I_g − u_g u_gᵀ) + Σ_hg between_hg u_h u_gᵀ."""
        counts = self._blocks.counts
        room("num_classes", self.ufm.num_classes, self.ufm.num_classes**2)
        blocks = (between - np.diag(within)) / np.sqrt(counts[:, None] * counts)
        matrix = blocks[np.ix_(self._group, self._group)]
        matrix[np.diag_indices_from(matrix)] += within[self._group]
        return matrix

    @cached_property
    def _split(self):
        """x_g = sqrt(n_g) a_g (G,) and M (G, G) of X = Z D^{1/2}."""
        return self._point[0] / np.maximum(self._blocks.y_weight, 1), self._point[1:]

    @cached_property
    def logits(self):
        x, M = self._split
        root = np.sqrt(self._blocks.sizes)
        return self._expand(x / root, M / root)

    @cached_property
    def dual_point(self):
        """Q (K, K), the point of the dual that `gap` belongs to: columns in the simplex, ‖(I − Q)
        diag(w) D^{1/2}/N‖ ≤ λ_Z.
        """
        room("num_classes", self.ufm.num_classes, self.ufm.num_classes**2)
        Q = self._probabilities[np.ix_(self._group, self._group)]
        np.fill_diagonal(Q, 0.0)
        np.fill_diagonal(Q, 1 - Q.sum(axis=0))
        return Q

    @cached_property
    def bias(self):
        return self._group_bias[self._group]

    @property
    def group_gaps(self):
        x, _ = self._split
        values = zip(self.ufm.groups, x / np.sqrt(self._blocks.sizes), self._blocks.counts)
        return {n: float(a) for n, a, count in values if count > 1}

    @property
    def phase(self):
        """What `theory.phase` predicts for linear features, as measured: a `Phase` or
        `GroupPhases`. It is read off which a_g and columns of Z are zero and off the rank of Z, in
        the same way for "relu"."""
        collapsed = {n: a == 0 for n, a in self.group_gaps.items()}
        if len(self.ufm.groups) != 2 or self.ufm.class_weights:
            return GroupPhases(collapsed, (self.rank, self.rank))
        if self.rank == 0:
            return Phase.TRIVIAL
        if not self._point[:, 1].any():
            return Phase.MINORITY_VANISHES
        return Phase.MINORITY_COLLAPSE if collapsed.get(min(self.ufm.groups)) else Phase.DISTINCT

    @cached_property
    def _lengths(self):
        """‖x_k‖ of the columns of X, one a group (G,)."""
        return np.linalg.norm(self._point, axis=0) / np.sqrt(self._blocks.counts)

    def cosines(self, of="logits"):
        """Cosines (K, K) between the columns of Z ("logits"), the class means h̄_k ("features"), or
        the rows of W ("classifier"). A class whose vector is zero has no cosine: NaN there.

        Raises ValueError where `of` is another word. Source: ours, from the singular value
        decomposition of Z D^{1/2}.

        >>> from ncutils import UFM, solve
        >>> solve(UFM.from_lam_z([20, 20, 10], lam_z=0.01)).cosines("features")[0].round(4)
        array([ 1.    , -0.5024, -0.4988])
        """
        choice("of", of, ("logits", "features", "classifier"))
        (x, M), size = self._split, np.sqrt(self._blocks.sizes[self._group])
        if of == "logits":
            return cosines_from_gram(self._expand(x**2, M.T @ M) / np.outer(size, size))
        if self.features == "relu":
            inverse = 1 / np.where(self._lengths > 0, self._lengths, np.inf)
            return cosines_from_gram(
                np.diag((self._lengths / self._blocks.sizes)[self._group])
                if of == "features"
                else self._expand(x**2 * inverse, (M * inverse) @ M.T)
            )
        U, s, Vt = np.linalg.svd(M)
        if of == "classifier":
            return cosines_from_gram(self._expand(x, (U * s) @ U.T))
        return cosines_from_gram(self._expand(x, (Vt.T * s) @ Vt) / np.outer(size, size))

    @cached_property
    def _factors(self):
        """L (K, r) and R (r, K) with L R = X and L Lᵀ, R Rᵀ of equal trace: optimal classifier and
        features.
        """
        x, M = self._split
        K = self.ufm.num_classes
        if self.features == "relu":
            alive = np.flatnonzero(self._lengths[self._group] > 0)
            root = np.sqrt(self._lengths[self._group][alive])
            X = self.logits * np.sqrt(self.ufm.sizes)
            return X[:, alive] / root, root[:, None] * np.eye(K)[alive]
        U, s, Vt = np.linalg.svd(M)
        between = self.rank - int(self._blocks.more @ (x != 0))  # rank of M
        weight = np.sqrt(s[:between]) / np.sqrt(self._blocks.counts[self._group])[:, None]
        left, right = (
            [U[self._group, :between] * weight],
            [(Vt.T[self._group, :between] * weight).T],
        )
        for g, members in enumerate(self.ufm.groups.values()):
            if x[g] != 0:
                basis = np.zeros((len(members) - 1, K))
                basis[:, members] = helmert(len(members)) * math.sqrt(abs(x[g]))
                left.append(
                    math.copysign(1.0, x[g]) * basis.T
                )  # a_g < 0 where the solver was stopped early
                right.append(basis)
        return np.hstack(left), np.vstack(right)

    def _in_dimension(self, dim, factor):
        dim = whole("dim", dim, at_least=self.ufm.num_classes)
        room("dim", dim, dim * self.ufm.num_classes)
        return np.pad(factor, ((0, dim - len(factor)), (0, 0)))  # the first coordinates

    def class_means(self, dim):
        """H̄ (dim, K), optimal class means: H̄ D^{1/2} = (λ_W/λ_H)^{1/4} R Σ^{1/2} Vᵀ, nonnegative
        for "relu".

        With Z D^{1/2} = U Σ Vᵀ and RᵀR = I, R being the first columns of I. Raises ValueError
        unless `dim` is a whole number ≥ K. Source: ours.

        >>> from ncutils import UFM, solve
        >>> exact = solve(UFM.from_lam_z([20, 20, 10], lam_z=0.01))
        >>> (exact.classifier(5) @ exact.class_means(5)).round(3)  # Z
        array([[ 2.115, -1.191, -0.986],
               [-1.191,  2.115, -0.986],
               [-0.924, -0.924,  1.971]])
        """
        scale = self.ufm.lam_w**0.25 / self.ufm.lam_h**0.25  # their ratio may overflow
        return scale * self._in_dimension(dim, self._factors[1]) / np.sqrt(self.ufm.sizes)

    def classifier(self, dim):
        """W (K, dim), an optimal classifier: (λ_H/λ_W)^{1/4} U Σ^{1/2} Rᵀ, with `dim` and R as in
        `class_means`.

        >>> from ncutils import UFM, solve
        >>> solve(UFM.from_lam_z([20, 20, 10], lam_z=0.01)).classifier(dim=5).shape
        (3, 5)
        """
        return (
            self.ufm.lam_h**0.25
            / self.ufm.lam_w**0.25
            * self._in_dimension(dim, self._factors[0].T).T
        )

    @property
    def balance_residual(self):
        """‖λ_W WᵀW − λ_H H̄ D H̄ᵀ‖_F / ‖λ_W WᵀW‖_F of the factors; 0 where Z = 0. For "relu" only
        the diagonals of the two matrices agree, since H ≥ 0 binds."""
        dim = self.ufm.num_classes
        return balance_residual(self.classifier(dim), self.class_means(dim), self.ufm)


def cross_entropy(logits):
    """CE(z_k, e_k) (K,) and its gradient P − I (K, K), for column k of `logits` against class k.

    1 − p_kk is the sum of the other p_lk, so that nothing cancels when the loss is tiny."""
    others = logits - np.diag(logits)  # z_lk − z_kk
    np.fill_diagonal(others, -np.inf)
    peak = others.max(axis=0)  # scipy's logsumexp takes most of the solver's time at K = 10
    loss = np.logaddexp(0.0, peak + np.log(np.exp(others - peak).sum(axis=0)))
    gradient = np.exp(others - loss)
    np.fill_diagonal(gradient, -gradient.sum(axis=0))
    return loss, gradient


def objective(ufm, logits, bias, features="linear"):
    """Value of (CVX), or of (CVX+) for "relu", at Z (K, K) and b (K,), in nats. ValueError for a
    bias where λ_b = ∞.
    """
    logits, bias = _checked_point(ufm, logits, bias)
    choice("features", features, FEATURES)
    loss, _ = cross_entropy(logits + bias[:, None])
    X = logits * np.sqrt(ufm.sizes)
    norm = (
        np.linalg.svd(X, compute_uv=False).sum()
        if features == "linear"
        else np.linalg.norm(X, axis=0).sum()
    )
    return (
        ufm.sizes * ufm.weights @ loss / ufm.num_samples
        + ufm.lam_z * norm
        + _bias_penalty(ufm, bias)
    )


def _checked_point(ufm, logits, bias):
    """Z and b as float arrays of the right shapes, else ValueError."""
    problem(ufm)
    logits, bias = real_array("logits", logits, 2), real_array("bias", bias, 1)
    K = ufm.num_classes
    if logits.shape != (K, K) or bias.shape != (K,):
        raise ValueError(
            f"logits {logits.shape} and bias {bias.shape}: must be {(K, K)} and {(K,)}"
        )
    if math.isinf(ufm.lam_b) and bias.any():
        raise ValueError("bias is not zero: must be, since lam_b = inf means no bias")
    return logits, bias


def _bias_penalty(ufm, bias):
    return 0.0 if math.isinf(ufm.lam_b) else ufm.lam_b / 2 * bias @ bias


class _Scaled(NamedTuple):
    """The problem with the penalties and weights over the mean weight of a sample: the same Z and
    b, 1/mean the objective.
    """

    mean: float
    weights: np.ndarray  # w_k (K,)
    share: np.ndarray  # w_k n_k/N (K,), of a class in the loss
    unit: np.ndarray  # w_k sqrt(n_k)/N (K,), of a column of G
    lam: float
    lam_b: float


def _scaled(ufm):
    """`_Scaled` of a UFM within the range in which nothing overflows, else ValueError."""
    N, lam_z = float(ufm.num_samples), ufm.lam_z
    if N > LARGEST:
        raise ValueError(
            f"class_sizes with N = {N:.3g}: N must be at most {LARGEST:.0e}; "
            "solve_two_groups_log goes further, in logarithms"
        )
    fraction = ufm.sizes / N
    mean = float(fraction @ ufm.weights)
    weights, lam, lam_b = ufm.weights / mean, lam_z / mean, ufm.lam_b / mean
    unit = weights * np.sqrt(ufm.sizes) / N
    if lam < unit.max() / LARGEST:
        raise ValueError(
            f"lam_z = {lam_z!r}: must be at least {mean * unit.max() / LARGEST:.3g}, which is max w_k sqrt(n_k)/N over "
            f"{LARGEST:.0e}; solve_two_groups_log goes further, in logarithms"
        )
    if lam_b < SMALLEST_LAM_B or LARGEST < lam_b < math.inf:
        raise ValueError(
            f"lam_b = {ufm.lam_b!r}: must be at least {SMALLEST_LAM_B * mean:.3g}, below which rounding decides the bias, "
            f"and at most {LARGEST * mean:.3g}, or math.inf for no bias"
            + WEIGHED
            * (ufm.class_weights is not None)
        )
    # above the norm of G for any bias and features Z = 0, and the penalty is 0
    return _Scaled(
        mean, weights, fraction * weights, unit, min(lam, 2 * np.linalg.norm(unit)), lam_b
    )


def _matrix(unit, Q):
    """G = (I − Q) diag(unit) (K, K), without cancellation; the diagonal of Q (K, K) is not read."""
    G = np.where(np.eye(len(Q), dtype=bool), 0.0, -Q)
    np.fill_diagonal(G, -G.sum(axis=0))
    return G * unit


def _norm(G, features):
    """max ‖G h‖/‖h‖ over all h; for "relu" over h ≥ 0, or more: root of the largest eigenvalue of
    max(GᵀG, 0).
    """
    return (
        np.linalg.norm(G, 2)
        if features == "linear"
        else math.sqrt(np.linalg.eigvalsh(np.maximum(G.T @ G, 0.0))[-1])
    )


def _dual(scaled, Q, features):
    """Value of the dual at Q ≥ 0 (K, K), scaled down off its diagonal as far as a point of the dual
    needs.
    """
    Q = np.where(np.eye(len(Q), dtype=bool), 0.0, Q)
    total = Q.sum(axis=0).max() * (1 + MARGIN)
    Q = Q / (total if total > 1 else 1.0)
    size = scaled.unit.max()  # GᵀG may underflow
    norm = (
        size * _norm(_matrix(scaled.unit / size, Q), features) * (1 + MARGIN)
    )  # of this Q, whatever it was made from
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
    logits, bias = _checked_point(ufm, logits, bias)
    rank = whole("rank", rank, at_least=0)
    choice("features", features, FEATURES)
    scaled = _scaled(ufm)
    _, gradient = cross_entropy(logits + bias[:, None])
    bound = _dual(scaled, gradient, features)
    if features == "linear" and rank > 0:
        U, s, Vt = np.linalg.svd(_matrix(scaled.unit, gradient))
        s = np.minimum(s, scaled.lam)
        s[:rank] = scaled.lam
        sharp = (U * s) @ Vt
        sharp -= sharp.mean(
            axis=0
        )  # columns of I − Q sum to zero; those of a rank beyond that of G need not
        Q = -sharp / scaled.unit
        bound = max(bound, _dual(scaled, np.where(Q > 0, Q, gradient), features))
    return scaled.mean * bound


def _nonnegative_norm(blocks, dual):
    """`_norm` of the matrix with coordinates dual (G + 1, G), for "relu"."""
    M = dual[1:].T @ dual[1:]  # Gram matrix of G on vectors constant on groups
    within = (dual[0] / np.maximum(blocks.y_weight, 1)) ** 2
    same = (np.diag(M) - within) / blocks.counts  # product of two columns of G of one group
    own = within + same  # ‖G e_k‖²
    positive_part = np.maximum(M, 0.0) * blocks.across + np.diag(
        own + blocks.more * np.maximum(same, 0.0)
    )
    return math.sqrt(np.linalg.eigvalsh(positive_part)[-1])


def solve(ufm, features="linear", tol=1e-10, max_iterations=200):
    r"""The global optimum of (CVX), that is of the UFM; or of (CVX+), for nonnegative features.

    The first is (CVX), the second (CVX+):

    .. math:: \min_{Z, b} \frac1N \sum_k w_k n_k \, \mathrm{CE}(z_k + b, e_k) + \lambda_Z \|Z
              D^{1/2}\|_*
              + \frac{\lambda_b}{2} \|b\|^2

    .. math:: \min_{Z, b} \frac1N \sum_k w_k n_k \, \mathrm{CE}(z_k + b, e_k) + \lambda_Z \sum_k
              \sqrt{n_k} \, \|z_k\|
              + \frac{\lambda_b}{2} \|b\|^2

    Here Z = W H̄ (K, K) has the columns z_k, D is diag(n_1 … n_K) and λ_Z = sqrt(λ_W λ_H); ‖·‖_* is
    the nuclear norm. Classes of equal size and weight are merged into groups, then a proximal
    Newton method (`ncutils/newton.py`) runs until the gap between objective and dual is at most tol
    · objective. Where it starts is a closed form; where it ends rests on none.

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
    problem(ufm)
    choice("features", features, FEATURES)
    tol, max_iterations = positive("tol", tol), whole("max_iterations", max_iterations, at_least=1)
    scaled = _scaled(ufm)
    first = [members[0] for members in ufm.groups.values()]
    counts = np.array([len(members) for members in ufm.groups.values()], dtype=np.float64)
    blocks = Blocks(ufm.sizes[first], counts, scaled.lam, scaled.lam_b, scaled.weights[first])
    found = minimise(blocks, Nuclear if features == "linear" else Columns, tol, max_iterations)
    primal, dual, probabilities = found.primal, found.dual, found.probabilities
    program_gap = gap = _gap(primal, dual)
    if features == "relu":
        probabilities = blocks.feasible(probabilities, _nonnegative_norm)
        dual = blocks.dual_value(probabilities)
        gap = _gap(primal, dual)
    if not gap >= -CONTRADICTION * primal:  # nor NaN
        raise ArithmeticError(
            f"objective {float(scaled.mean * primal)!r} is below its lower bound {float(scaled.mean * dual)!r}: a fault of the solver. "
            f"Please report it with the problem: {ufm}"
        )
    if program_gap > tol * primal:
        what = "max_iterations or tol" if found.iterations == max_iterations else "tol"
        warnings.warn(
            f"solve stopped after {found.iterations} iterations at relative gap {program_gap / primal:.1e}, above "
            f"tol = {tol:.1e}: raise {what}",
            RuntimeWarning,
            stacklevel=2,
        )
    bias = (
        found.bias - blocks.counts @ found.bias / blocks.K
    )  # which no loss sees; a tiny lam_b hardly does
    return Solution(
        ufm,
        features,
        scaled.mean * primal,
        scaled.mean * gap,
        bool(gap <= tol * primal),
        found.iterations,
        found.rank,
        blocks,
        found.point,
        bias,
        probabilities,
    )


def _gap(primal, dual):
    """primal − dual, and what rounding can add to either."""
    return primal - dual + EVALUATION * max(primal, abs(dual))
