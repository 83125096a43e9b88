r"""The exact solution: the convex program that the UFM is equal to, and its certificate.

With Z = W H̄ (K, K) the mean logits, D = diag(n_1 … n_K) and λ_Z = sqrt(λ_W λ_H):

    min over Z, b of (1/N) Σ_k n_k CE(z_k + b, e_k) + λ_Z ‖Z D^{1/2}‖_* + (λ_b/2) ‖b‖²      (CVX)

Its optimal value is that of the UFM, whose class means and classifier are factors of Z.
Source: Hong and Ling, arXiv:2309.09725, claim (a). The certificate is ours: a point of the dual

    max over Q of (1/N) Σ_k n_k Ent(q_k) − ‖g‖²/(2 λ_b),  g = (1/N) Σ_k n_k (e_k − q_k),
    subject to q_k in the simplex and ‖(I − Q) D^{1/2}‖_2 ≤ λ_Z N

bounds the optimal value from below, whatever point it is and however it was found.
"""

import math
import warnings
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy.special import xlog1py, xlogy

from .metrics import balance_residual
from .ufm import UFM, choice, cosines_from_gram, positive, real_array, whole


GROWTH = 0.9  # the Lipschitz estimate shrinks by this each step, so that steps can grow again
CHECK_EVERY = 5  # steps between two certificates, each of which costs one more SVD


@dataclass(frozen=True)
class Solution:
    """A solution of (CVX), with the certificate of how far from the optimum it can be at most.

    Attributes
    ----------
    ufm : the problem.
    logits : Z (K, K); column k holds the mean logits of class k, without the bias.
    bias : b (K,).
    objective : value of (CVX) at (Z, b), in nats.
    gap : objective minus the dual bound: no (W, H, b) has a UFM objective below objective − gap.
    certified : whether gap ≤ tol · objective.
    iterations : proximal-gradient steps taken.
    rank : rank of Z, exact zeros of the singular value thresholding.
    """

    ufm: UFM
    logits: np.ndarray
    bias: np.ndarray
    objective: float
    gap: float
    certified: bool
    iterations: int
    rank: int

    @property
    def relative_gap(self):
        """gap / objective."""
        return self.gap / self.objective

    @cached_property
    def _factors(self):
        """U (K, rank), Σ (rank,), V (K, rank) of X = Z D^{1/2}."""
        U, s, Vt = np.linalg.svd(self.logits * np.sqrt(self.ufm.sizes))
        return U[:, : self.rank], s[: self.rank], Vt[: self.rank].T

    def cosines(self, of="logits"):
        """Cosines (K, K) between the columns of Z ("logits"), the class means h̄_k ("features"), or
        the rows of W ("classifier"). A class whose vector is zero has no cosine: NaN there."""
        choice("of", of, ("logits", "features", "classifier"))
        U, s, V = self._factors
        if of == "classifier":
            gram = (U * s) @ U.T
        elif of == "features":
            gram = (V * s) @ V.T / np.sqrt(np.outer(self.ufm.sizes, self.ufm.sizes))
        else:
            gram = self.logits.T @ self.logits
        return cosines_from_gram(gram)

    def _frame(self, dim):
        dim = whole("dim", dim, at_least=self.ufm.num_classes)
        return np.eye(dim, self.rank)  # R: the first columns of I

    def class_means(self, dim):
        """H̄ (dim, K), optimal class means: H̄ D^{1/2} = (λ_W/λ_H)^{1/4} R Σ^{1/2} Vᵀ."""
        _, s, V = self._factors
        scale = (self.ufm.lam_w / self.ufm.lam_h) ** 0.25
        return scale * self._frame(dim) @ (V * np.sqrt(s)).T / np.sqrt(self.ufm.sizes)

    def classifier(self, dim):
        """W (K, dim), an optimal classifier: (λ_H/λ_W)^{1/4} U Σ^{1/2} Rᵀ."""
        U, s, _ = self._factors
        return (self.ufm.lam_h / self.ufm.lam_w) ** 0.25 * (U * np.sqrt(s)) @ self._frame(dim).T

    @property
    def balance_residual(self):
        """‖λ_W WᵀW − λ_H H̄ D H̄ᵀ‖_F / ‖λ_W WᵀW‖_F of the factors; 0 where Z = 0."""
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


def objective(ufm, logits, bias):
    """Value of (CVX) at Z (K, K) and b (K,), in nats. ValueError for a bias where λ_b is infinite."""
    logits, bias = _point(ufm, logits, bias)
    loss, _ = cross_entropy(logits + bias[:, None])
    nuclear = np.linalg.svd(logits * np.sqrt(ufm.sizes), compute_uv=False).sum()
    return ufm.sizes @ loss / ufm.num_samples + ufm.lam_z * nuclear + _bias_penalty(ufm, bias)


def _point(ufm, logits, bias):
    """Z and b as float arrays of the right shapes, else ValueError."""
    if not isinstance(ufm, UFM):
        raise ValueError(f"ufm = {ufm!r}: must be a UFM")
    logits, bias = real_array("logits", logits, 2), real_array("bias", bias, 1)
    K = ufm.num_classes
    if logits.shape != (K, K) or bias.shape != (K,):
        raise ValueError(f"logits {logits.shape} and bias {bias.shape}: must be {(K, K)} and {(K,)}")
    if math.isinf(ufm.lam_b) and bias.any():
        raise ValueError("bias is not zero: must be, since lam_b = inf means no bias")
    return logits, bias


def _bias_penalty(ufm, bias):
    return 0.0 if math.isinf(ufm.lam_b) else ufm.lam_b / 2 * bias @ bias


def _best_bias(ufm, logits, bias):
    """The b that minimises (CVX) for fixed Z, by Newton's method from `bias`, and the gradient P − I there."""
    weights = ufm.sizes / ufm.num_samples
    eye = np.eye(ufm.num_classes)
    loss, gradient = cross_entropy(logits + bias[:, None])
    if math.isinf(ufm.lam_b):
        return bias, gradient

    def value(bias, loss):
        return weights @ loss + _bias_penalty(ufm, bias)

    for _ in range(100):
        slope = gradient @ weights + ufm.lam_b * bias
        P = gradient + eye
        hessian = np.diag(P @ weights + ufm.lam_b) - (P * weights) @ P.T
        step = np.linalg.solve(hessian, slope)
        decrease = slope @ step
        current = value(bias, loss)
        t = 1.0
        while t > 1e-9:
            new = bias - t * step
            new_loss, new_gradient = cross_entropy(logits + new[:, None])
            # near the optimum differences of the value are rounding, and the full step is right
            if decrease < 1e-12 * current or value(new, new_loss) <= current - 0.25 * t * decrease:
                break
            t /= 2
        bias, loss, gradient = new, new_loss, new_gradient
        if decrease < 1e-20 * current:
            break
    return bias, gradient


def _dual(ufm, G):
    """Dual value at the Q with (I − Q) D^{1/2}/N = G (K, K), −inf where Q leaves the simplex."""
    N, n = ufm.num_samples, ufm.sizes
    Q = -N * G / np.sqrt(n)  # off the diagonal; the diagonal is 1 − the rest of its column
    np.fill_diagonal(Q, 0.0)
    rest = Q.sum(axis=0)
    if (Q < 0).any() or (rest > 1).any():
        return -math.inf
    entropy = -xlogy(Q, Q).sum(axis=0) - xlog1py(1 - rest, -rest)
    value = n @ entropy / N
    if not math.isinf(ufm.lam_b):
        g = (n * rest - Q @ n) / N
        value -= g @ g / (2 * ufm.lam_b)
    return value


def dual_bound(ufm, logits, bias, rank=0):
    """A lower bound of the optimal value of (CVX), from any Z (K, K) and b (K,).

    G = (I − P) D^{1/2}/N is made feasible in two ways and the better bound returned: scaled to
    ‖G‖_2 ≤ λ_Z; or with its `rank` largest singular values set to λ_Z exactly and the others cut at
    λ_Z, moved towards the first as far as keeps Q ≥ 0. The second is exact to second order in the
    error of Z, the first to first order. Source: ours, by Lagrange duality.
    """
    logits, bias = _point(ufm, logits, bias)
    rank = whole("rank", rank, at_least=0)
    _, gradient = cross_entropy(logits + bias[:, None])
    return _dual_bound(ufm, gradient, rank)


def _dual_bound(ufm, gradient, rank):
    root = np.sqrt(ufm.sizes)
    G = -gradient * root / ufm.num_samples
    U, s, Vt = np.linalg.svd(G)
    shrink = ufm.lam_z / s[0] if s[0] > ufm.lam_z else 1.0
    scaled = shrink * (1 - 1e-15) * G
    s = np.minimum(s, ufm.lam_z)
    s[:rank] = ufm.lam_z
    sharp = (U * (s * (1 - 1e-15))) @ Vt
    # the largest step from `scaled` to `sharp` that keeps every −G_lk (l ≠ k), that is Q, ≥ 0
    here, move = -scaled, scaled - sharp
    np.fill_diagonal(move, 0.0)
    falling = move < 0
    step = (here[falling] / -move[falling] * (1 - 1e-9)).min(initial=1.0) if rank else 0.0
    mixed = scaled + step * (sharp - scaled)
    return max(_dual(ufm, scaled), _dual(ufm, mixed))


def solve(ufm, features="linear", tol=1e-10, max_iterations=100_000):
    """The global optimum of the UFM, by accelerated proximal gradient on (CVX) in X = Z D^{1/2}.

    The bias is minimised out exactly (Newton); the smooth part then has a gradient with Lipschitz
    constant 1/(2N) in X. The step adapts to the local curvature, the momentum restarts when it points
    uphill, and the iteration stops when the duality gap is at most tol · objective.

    Parameters
    ----------
    ufm : UFM with any class sizes.
    features : "linear", features free of sign; the only kind so far.
    tol : relative gap to reach, > 0.
    max_iterations : proximal steps at most; a solution that stops there warns with its gap, and its
        `certified` is False.

    Returns a `Solution`. Raises ValueError where an argument is not allowed.

    References: A. Beck and M. Teboulle, SIAM J. Imaging Sci. 2 (2009); K. Scheinberg, D. Goldfarb and
    X. Bai, Found. Comput. Math. 14 (2014), for steps that may grow; B. O'Donoghue and E. Candès,
    Found. Comput. Math. 15 (2015), for the restart.
    """
    if not isinstance(ufm, UFM):
        raise ValueError(f"ufm = {ufm!r}: must be a UFM")
    choice("features", features, ("linear",))
    tol, max_iterations = positive("tol", tol), whole("max_iterations", max_iterations, at_least=1)
    K, root, N, lam = ufm.num_classes, np.sqrt(ufm.sizes), ufm.num_samples, ufm.lam_z

    def gradient(X, bias):
        bias, slope = _best_bias(ufm, X / root, bias)
        return bias, slope, slope * root / N

    def prox(A, threshold):
        U, s, Vt = np.linalg.svd(A)
        s = np.maximum(s - threshold, 0.0)
        return (U * s) @ Vt, s

    X = before = np.zeros((K, K))
    bias = np.zeros(K)
    lipschitz = bound = 1 / (2 * N)
    t = t_before = 1.0
    best = -math.inf  # dual bounds hold whatever comes later, so the best one counts
    for iteration in range(1, max_iterations + 1):
        Y = X + (t_before - 1) / t * (X - before)
        bias, _, slope_y = gradient(Y, bias)
        while True:
            new, s = prox(Y - slope_y / lipschitz, lam / lipschitz)
            bias, slope, slope_new = gradient(new, bias)
            move = new - Y
            curvature = np.vdot(slope_new - slope_y, move)
            # by convexity this implies the descent condition, without a difference of nearly equal values
            if lipschitz >= bound or curvature <= lipschitz / 2 * np.vdot(move, move):
                break
            lipschitz = min(2 * lipschitz, bound)
        uphill = np.vdot(Y - new, new - X) > 0
        before, X = X, new
        t_before, t = (1.0, 1.0) if uphill else (t, (1 + math.sqrt(1 + 4 * GROWTH * t * t)) / 2)
        rank = int((s > 0).sum())
        if iteration % CHECK_EVERY == 0 or iteration == max_iterations:
            loss, _ = cross_entropy(X / root + bias[:, None])
            primal = ufm.sizes @ loss / N + lam * s.sum() + _bias_penalty(ufm, bias)
            best = max(best, _dual_bound(ufm, slope, rank))
            if primal - best <= tol * primal:
                break
        lipschitz *= GROWTH
    gap = max(primal - best, 0.0)
    certified = bool(gap <= tol * primal)
    if not certified:
        warnings.warn(
            f"solve stopped after {iteration} iterations at relative gap {gap / primal:.1e}, above "
            f"tol = {tol:.1e}: raise max_iterations or tol", RuntimeWarning, stacklevel=2)
    return Solution(ufm, X / root, bias, primal, gap, certified, iteration, rank)
