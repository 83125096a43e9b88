"""The problem: class sizes and penalties of the unconstrained feature model (UFM); checks of arguments."""

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np


def positive(name, value, infinite=False):
    """`value` as a float if it is a positive number (finite unless `infinite`), else ValueError."""
    allowed = "a positive number" + (" or math.inf" if infinite else ", finite")
    try:
        number = float(value)
    except (TypeError, ValueError):
        raise ValueError(f"{name} = {value!r}: must be {allowed}") from None
    if isinstance(value, (bool, np.bool_, str)) or not number > 0 or (math.isinf(number) and not infinite):
        raise ValueError(f"{name} = {value!r}: must be {allowed}")
    return number


def whole(name, value, at_least):
    """`value` as an int if it is a whole number ≥ `at_least`, else ValueError."""
    try:
        number = float(value)
        valid = not isinstance(value, (bool, np.bool_, str)) and number == int(number) and number >= at_least
    except (TypeError, ValueError, OverflowError):
        valid = False
    if not valid:
        raise ValueError(f"{name} = {value!r}: must be a whole number >= {at_least}")
    return int(value)


def array_of(values, kinds):
    """`values` as an array if its type is one of these NumPy kinds, else None."""
    try:
        array = np.asarray(values)
    except (TypeError, ValueError):
        return None
    return array if array.dtype.kind in kinds else None


def real_array(name, values, ndim):
    """`values` as a float64 array of `ndim` dimensions without NaN or infinity, else ValueError."""
    array = array_of(values, "biuf")
    if array is None:
        raise ValueError(f"{name}: must be an array of real numbers with {ndim} dimensions")
    array = array.astype(np.float64)
    if array.ndim != ndim or array.size == 0:
        raise ValueError(f"{name} has shape {array.shape}: must have {ndim} dimensions and no empty one")
    if not np.isfinite(array).all():
        raise ValueError(f"{name} holds NaN or infinite values: all must be finite")
    return array


def choice(name, value, allowed):
    """`value` if it is one of `allowed`, else ValueError."""
    if value not in allowed:
        raise ValueError(f"{name} = {value!r}: must be one of {', '.join(map(repr, allowed))}")
    return value


@dataclass(frozen=True)
class UFM:
    r"""The unconstrained feature model with cross-entropy loss on K classes.

    .. math:: \min_{W, H, b} \frac1N \sum_{k=1}^K \sum_{i=1}^{n_k} \mathrm{CE}(W h_{k,i} + b, k)
              + \frac{\lambda_W}{2} \|W\|_F^2 + \frac{\lambda_H}{2} \|H\|_F^2
              + \frac{\lambda_b}{2} \|b\|^2

    over the classifier W (K, d), one free feature vector h_{k,i} (d,) for each of the
    N = Σ n_k samples, and the bias b (K,).

    Parameters
    ----------
    class_sizes : K ≥ 2 positive whole numbers, the numbers of samples n_k.
    lam_w, lam_h : λ_W, λ_H > 0, penalties on W and H.
    lam_b : λ_b > 0, penalty on b; `math.inf` means no bias.

    Raises ValueError, naming argument and value, where one is not allowed.

    Source: Hong and Ling, arXiv:2309.09725. Their code writes the
    penalties without the factors 1/2.
    """

    class_sizes: tuple
    lam_w: float
    lam_h: float
    lam_b: float = math.inf

    def __post_init__(self):
        try:
            sizes = tuple(self.class_sizes)
        except TypeError:
            sizes = ()
        if len(sizes) < 2:
            raise ValueError(f"class_sizes = {self.class_sizes!r}: must be at least 2 whole numbers")
        sizes = tuple(whole(f"class_sizes[{k}]", n, 1) for k, n in enumerate(sizes))
        object.__setattr__(self, "class_sizes", sizes)
        object.__setattr__(self, "lam_w", positive("lam_w", self.lam_w))
        object.__setattr__(self, "lam_h", positive("lam_h", self.lam_h))
        object.__setattr__(self, "lam_b", positive("lam_b", self.lam_b, infinite=True))

    @classmethod
    def from_lam_z(cls, class_sizes, lam_z, lam_b=math.inf, balance=1.0):
        """The UFM with λ_W = λ_Z · balance and λ_H = λ_Z / balance, so that sqrt(λ_W λ_H) = λ_Z."""
        lam_z, balance = positive("lam_z", lam_z), positive("balance", balance)
        return cls(class_sizes, lam_z * balance, lam_z / balance, lam_b)

    @property
    def num_classes(self):
        """K."""
        return len(self.class_sizes)

    @cached_property
    def num_samples(self):
        """N = Σ n_k."""
        return sum(self.class_sizes)

    @cached_property
    def sizes(self):
        """The class sizes as a float array (K,), for formulas."""
        sizes = np.array(self.class_sizes, dtype=np.float64)
        sizes.flags.writeable = False
        return sizes

    @property
    def lam_z(self):
        """λ_Z = sqrt(λ_W λ_H), the only combination of λ_W and λ_H that Z and b depend on."""
        product = self.lam_w * self.lam_h
        return math.sqrt(product) if 1e-300 < product < 1e300 else math.sqrt(self.lam_w) * math.sqrt(self.lam_h)

    @cached_property
    def groups(self):
        """Classes of equal size: {n: array of class indices}, largest n first."""
        return {n: np.flatnonzero(self.sizes == n) for n in sorted(set(self.class_sizes), reverse=True)}

    @property
    def labels(self):
        """Class index of each sample (N,), class after class."""
        return np.repeat(np.arange(self.num_classes), self.class_sizes)


ZERO = 1e-9  # a vector shorter than this fraction of the longest has no direction


def cosines_from_gram(gram):
    """Cosines (K, K) from inner products (K, K); NaN for vectors of relative length below 1e-9."""
    lengths = np.sqrt(np.maximum(np.diag(gram), 0.0))
    lengths = np.where(lengths > ZERO * lengths.max(), lengths, np.nan)
    return gram / np.outer(lengths, lengths)
