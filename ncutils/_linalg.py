"""Linear algebra that knows no problem: scaling without rounding, cosines."""

import numpy as np

LARGE = 600.0  # a margin whose exponential does not overflow, yet is far above 1


def scaled(array):
    """`array` times the power of 2 that makes its largest entry about 1, without rounding: then no
    square underflows.
    """
    return np.ldexp(array, -np.frexp(np.abs(array).max())[1])


ZERO = 1e-9  # a vector shorter than this fraction of the longest has no direction


def cosines_from_gram(gram):
    """Cosines (K, K) from inner products (K, K); NaN for vectors of relative length below 1e-9."""
    lengths = np.sqrt(np.maximum(np.diag(gram), 0.0))
    lengths = np.where(lengths > ZERO * lengths.max(), lengths, np.nan)
    return gram / np.outer(lengths, lengths)
