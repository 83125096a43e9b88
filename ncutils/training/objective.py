r"""The paper's objective, in PyTorch, as it is trained, and in NumPy, as it is reported.

.. math:: f(W, H, b) = \frac1N \sum_{i=1}^N w_{y_i} \, \mathrm{CE}(W h_i + b, y_i)
          + \frac{\lambda_W}{2} \|W\|_F^2 + \frac{\lambda_H}{2} \|H\|_F^2
          + \frac{\lambda_b}{2} \|b\|^2

`objective` is the only loss of `train_network` and `train_ufm`, which take its gradient by
automatic differentiation. `objective_in_float64` is the same at one point, with all digits where
the losses are tiny. Another loss or penalty is a change of these two.
"""

import math
from typing import NamedTuple

import numpy as np
import torch
from torch import nn

from .._checks import check_array, check_features
from .._linalg import LARGE
from ..ufm import check_ufm


class Penalties(NamedTuple):
    """Penalties of E problems, each a tensor (E,); without bias λ_b is 0 and `has_bias` is 0."""

    lam_w: torch.Tensor
    lam_h: torch.Tensor
    lam_b: torch.Tensor
    has_bias: torch.Tensor


def penalties(ufms, dtype, device):
    """The `Penalties` of a list of UFMs."""
    lam_w, lam_h, lam_b = (
        torch.tensor([getattr(ufm, name) for ufm in ufms], dtype=dtype, device=device)
        for name in ("lam_w", "lam_h", "lam_b")
    )
    finite = torch.isfinite(lam_b)
    return Penalties(lam_w, lam_h, torch.where(finite, lam_b, 0.0), finite.to(dtype))


def objective(logits, labels, weights, count, W, H, b, lam, ease=(1.0, 1.0)):
    """The objective (E,) of E models at once, in nats, for automatic differentiation.

    Parameters
    ----------
    logits : W h_i + b (E, K, n) of n samples.   labels : y_i (E, n).   weights : w_{y_i} (E, n).
    count : what the sum of the losses is divided by, the number of these samples.
    W, H, b : (E, K, d); features of these samples, (E, d, n) or (E, n, d); (E, K).
    lam : `Penalties`, where λ_H is N/n of the problem's for a batch of n of N samples.
    ease : multiples of the penalties on W and H, and of that on b, in a warm start.
    """
    loss = nn.functional.cross_entropy(logits, labels, reduction="none")  # (E, n)
    loss = (weights * loss).sum(1) / count
    square = lambda array: (array**2).sum(tuple(range(1, array.ndim)))
    on_w_and_h = (lam.lam_w * square(W) + lam.lam_h * square(H)) / 2
    return loss + ease[0] * on_w_and_h + ease[1] / 2 * lam.lam_b * square(b)


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
    H, labels = check_features("H", H, labels, K)
    W, b = check_array("W", W, 2), check_array("b", b, 1)
    if W.shape != (K, len(H)) or b.shape != (K,):
        raise ValueError(
            f"W {W.shape}, H {H.shape}, b {b.shape}: must be ({K}, d), (d, N) and ({K},)"
        )
    with np.errstate(over="ignore"):
        return objective_in_float64(ufm, W, H, b, labels)


CHUNK = 2**18  # logits that are held at once: 2 MiB, which a cache holds


def objective_in_float64(ufm, W, H, b, labels):
    """`ufm_objective` without checks; the logits are computed in chunks."""
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
    # where the excess is not 0, the own class is nothing in the sum
    excess = np.maximum(margins.max(axis=0), LARGE) - LARGE
    margins -= excess
    return np.log1p(np.exp(margins, out=margins).sum(axis=0)) + excess
