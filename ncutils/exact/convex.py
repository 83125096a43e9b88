r"""The exact solution: the convex programs that the UFM is equal to, and their certificates.

With Z = W H̄ (K, K) the mean logits, X = Z D^{1/2}, D = diag(n_1 … n_K) and λ_Z = sqrt(λ_W λ_H):

    min over Z, b of (1/N) Σ_k w_k n_k CE(z_k + b, e_k) + penalty + (λ_b/2) ‖b‖²,
    penalty = λ_Z ‖Z D^{1/2}‖_*                   (CVX)
    penalty = λ_Z Σ_k sqrt(n_k) ‖z_k‖             (CVX+)

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
from typing import NamedTuple

import numpy as np

from .._checks import check_array, check_choice
from ..ufm import check_ufm

FEATURES = ("linear", "relu")
LARGEST = 1e100  # ratios of numbers beyond it may overflow
SMALLEST_LAM_B = 1e-12
WEIGHED = " (all this times the mean class weight of a sample)"


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
    logits, bias = check_point(ufm, logits, bias)
    check_choice("features", features, FEATURES)
    loss, _ = cross_entropy(logits + bias[:, None])
    X = logits * np.sqrt(ufm.sizes)
    if features == "linear":
        norm = np.linalg.svd(X, compute_uv=False).sum()
    else:
        norm = np.linalg.norm(X, axis=0).sum()
    mean_loss = ufm.sizes * ufm.weights @ loss / ufm.num_samples
    penalty = 0.0 if math.isinf(ufm.lam_b) else ufm.lam_b / 2 * bias @ bias
    return mean_loss + ufm.lam_z * norm + penalty


def check_point(ufm, logits, bias):
    """Z and b as float arrays of the right shapes, else ValueError."""
    check_ufm(ufm)
    logits, bias = check_array("logits", logits, 2), check_array("bias", bias, 1)
    K = ufm.num_classes
    if logits.shape != (K, K) or bias.shape != (K,):
        raise ValueError(
            f"logits {logits.shape} and bias {bias.shape}: must be {(K, K)} and {(K,)}"
        )
    if math.isinf(ufm.lam_b) and bias.any():
        raise ValueError("bias is not zero: must be, since lam_b = inf means no bias")
    return logits, bias


class Scaled(NamedTuple):
    """The problem with the penalties and weights over the mean weight of a sample: the same Z and
    b, and the objective over that mean.
    """

    mean: float
    weights: np.ndarray  # w_k (K,)
    share: np.ndarray  # w_k n_k/N (K,), of a class in the loss
    unit: np.ndarray  # w_k sqrt(n_k)/N (K,), of a column of G
    lam: float
    lam_b: float


def scaled_problem(ufm):
    """`Scaled` of a UFM within the range in which nothing overflows, else ValueError."""
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
            f"lam_z = {lam_z!r}: must be at least {mean * unit.max() / LARGEST:.3g}, "
            f"which is max w_k sqrt(n_k)/N over {LARGEST:.0e}; "
            "solve_two_groups_log goes further, in logarithms"
        )
    if lam_b < SMALLEST_LAM_B or LARGEST < lam_b < math.inf:
        raise ValueError(
            f"lam_b = {ufm.lam_b!r}: must be at least {SMALLEST_LAM_B * mean:.3g}, "
            f"below which rounding decides the bias, and at most {LARGEST * mean:.3g}, "
            "or math.inf for no bias" + (WEIGHED if ufm.class_weights is not None else "")
        )
    # above the norm of G for any bias and features Z = 0, and the penalty is 0
    return Scaled(
        mean, weights, fraction * weights, unit, min(lam, 2 * np.linalg.norm(unit)), lam_b
    )
