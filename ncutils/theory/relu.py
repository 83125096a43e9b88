"""The optimum with nonnegative (ReLU) features and no bias, in closed form."""

import math

import numpy as np

from .._checks import check_integer, check_positive
from ..ufm import UFM


def relu_vanishing_threshold(n_k, num_classes):
    r"""The level λ_Z N from which on the features of a class of size `n_k` are zero, where features
    are nonnegative (ReLU) and there is no bias; K is `num_classes`.

    .. math:: \lambda_Z N = \sqrt{n_k (1 - 1/K)}

    Whatever the other class sizes: classes do not interact, and none merges with another before.
    Raises ValueError unless n_k > 0 and K ≥ 2. Source: from `relu_logits`.

    >>> from ncutils import theory
    >>> round(theory.relu_vanishing_threshold(100, 10), 4)
    9.4868
    """
    n_k, K = check_positive("n_k", n_k), check_integer("num_classes", num_classes, 2)
    return math.sqrt(n_k * (1 - 1 / K))


def relu_logits(class_sizes, lam_z):
    """Z (K, K) at the optimum of the UFM with nonnegative features (H ≥ 0) and no bias.

    z_k = a_k (e_k − 1/K) with a_k = ln((1 − (K−1) ε_k)/ε_k), where ε_k = λ_Z N / sqrt(n_k K (K−1))
    is the probability of each wrong class; z_k = 0 where ε_k ≥ 1/K. Features of different classes
    are orthogonal, and non-zero columns of Z are always at the angle of an ETF, −1/(K−1).
    Raises ValueError unless `class_sizes` are at least 2 positive whole numbers and lam_z > 0.
    Source: the optimality condition of each class, (1/N) ‖e_k − p_k‖ sqrt(n_k) = λ_Z where z_k ≠ 0;
    that class means are orthogonal is a theorem of Dang et al., ICML 2024.

    >>> from ncutils import theory
    >>> theory.relu_logits([20, 10], lam_z=0.005).round(4)
    array([[ 1.8588, -1.6804],
           [-1.8588,  1.6804]])
    """
    ufm = UFM.from_lam_z(class_sizes, lam_z)
    K = ufm.num_classes
    log_level = math.log(ufm.lam_z) + math.log(ufm.num_samples)
    log_wrong = log_level - (np.log(ufm.sizes) + math.log(K * (K - 1))) / 2
    wrong = np.exp(np.minimum(log_wrong, -math.log(K)))
    a = np.where(log_wrong < -math.log(K), np.log1p(-(K - 1) * wrong) - log_wrong, 0.0)
    return a * (np.eye(K) - 1 / K)
