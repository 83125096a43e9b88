"""The objective of the UFM at any weights and features, in NumPy."""

import math

import numpy as np

from .._checks import check_array, check_labels
from ..ufm import check_ufm


def ufm_objective(ufm, W, H, b, labels):
    """The UFM's objective, in nats and float64, at W (K, d), H (d, N), b (K,) for the class indices
    `labels` (N,).

    It is the formula of `UFM`, infinite where no float can hold it. Raises ValueError where shapes
    or types are others or a number is not finite.

    >>> import numpy as np
    >>> from ncutils import UFM, ufm_objective
    >>> ufm = UFM.from_lam_z([2, 1], lam_z=0.1)
    >>> W, H, b = np.zeros((2, 3)), np.zeros((3, 3)), np.zeros(2)
    >>> round(ufm_objective(ufm, W, H, b, ufm.labels), 6)  # ln 2
    0.693147
    """
    K = check_ufm(ufm).num_classes
    W, H, b = check_array("W", W, 2), check_array("H", H, 2), check_array("b", b, 1)
    if W.shape != (K, len(H)) or b.shape != (K,):
        raise ValueError(
            f"W {W.shape}, H {H.shape}, b {b.shape}: must be ({K}, d), (d, N) and ({K},)"
        )
    labels = check_labels(labels, H.shape[1], K)
    with np.errstate(over="ignore"):
        return objective_in_float64(ufm, W, H, b, labels)


CHUNK = 2**18  # logits that are held at once: 2 MiB, which a cache holds
LARGE = 600.0  # a margin whose exponential does not overflow, yet is far above 1


def objective_in_float64(ufm, W, H, b, labels):
    most = max(1, CHUNK // len(W))
    parts = [slice(first, first + most) for first in range(0, len(labels), most)]
    loss = np.concatenate([_losses(W @ H[:, part] + b[:, None], labels[part]) for part in parts])
    loss = ufm.weights[labels] * loss
    bias = 0.0 if math.isinf(ufm.lam_b) else ufm.lam_b / 2 * (b**2).sum()
    return float(loss.mean() + ufm.lam_w / 2 * (W**2).sum() + ufm.lam_h / 2 * (H**2).sum() + bias)


def _losses(logits, labels):
    """Cross-entropy (N,) of `logits` (K, N), which are overwritten. Nothing cancels when the loss
    is tiny.
    """
    sample = np.arange(len(labels))
    margins = np.subtract(logits, logits[labels, sample], out=logits)
    margins[labels, sample] = -np.inf  # the other classes only
    excess = (
        np.maximum(margins.max(axis=0), LARGE) - LARGE
    )  # where it is not 0, the own class is nothing in the sum
    margins -= excess
    return np.log1p(np.exp(margins, out=margins).sum(axis=0)) + excess
