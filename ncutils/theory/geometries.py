"""Geometries that class means can tend to, as cosines."""

import numpy as np

from .._checks import check_integer, check_memory
from .._linalg import cosines_from_gram, scaled
from ..ufm import UFM

LARGEST_RATIO = 1e20  # of class sizes: beyond, rounding shows


def simplex_etf(num_classes):
    """Cosines (K, K) of a simplex equiangular tight frame of K = `num_classes` vectors: 1 and
    −1/(K−1), the balanced optimum.

    Raises ValueError unless K ≥ 2. Source: Papyan, Han and Donoho (2020).

    >>> from ncutils import theory
    >>> theory.simplex_etf(3)
    array([[ 1. , -0.5, -0.5],
           [-0.5,  1. , -0.5],
           [-0.5, -0.5,  1. ]])
    """
    K = check_integer("num_classes", num_classes, 2)
    check_memory("num_classes", K, K * K)
    return (K * np.eye(K) - 1) / (K - 1)


def seli(class_sizes):
    """Cosines (K, K) of features and of classifiers in the SELI geometry of the given class sizes.

    With (I − 11ᵀ/K) D^{1/2} = U Σ Vᵀ, features have Gram D^{-1/2} V Σ Vᵀ D^{-1/2}, classifiers U Σ
    Uᵀ. Raises ValueError unless `class_sizes` are at least 2 positive whole numbers. Source:
    Thrampoulidis et al., Imbalance Trouble, NeurIPS 2022.

    >>> from ncutils import theory
    >>> features, classifiers = theory.seli([200] * 5 + [100] * 5)
    >>> print(features[0, 1].round(6), classifiers[0, 1].round(6))
    -0.092335 -0.127901
    """
    n = scaled(UFM.from_lam_z(class_sizes, 1.0).sizes)
    if n.max() > LARGEST_RATIO * n.min():
        raise ValueError(
            f"class_sizes: the largest must be at most {LARGEST_RATIO:g} times the smallest, "
            "beyond which rounding shows"
        )
    K = len(n)
    U, s, Vt = np.linalg.svd((np.eye(K) - 1 / K) * np.sqrt(n))
    U, s, V = U[:, :-1], s[:-1], Vt[:-1].T  # the last singular value is 0: columns sum to zero
    features = (V * s) @ V.T / np.sqrt(np.outer(n, n))
    return cosines_from_gram(features), cosines_from_gram((U * s) @ U.T)
