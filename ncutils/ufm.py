"""The problem: class sizes and penalties of the unconstrained feature model (UFM); checks of
arguments.
"""

import math
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction
from functools import cached_property
from numbers import Real

import numpy as np

# a level λ_Z N this close to a threshold, relatively, counts as on it: rounding would decide
ON_THE_LINE = 1e-12
CONTRADICTION = 1e-13  # of the objective: a lower bound that far above it is a fault, not rounding
LARGEST_ENTRY = 1e150  # of an array: the squares of larger numbers overflow
LARGEST_ARRAY = 2**28  # numbers, 2 GiB


def real_number(value):
    """`value` as a float if it is one real number that a float can hold, else None: text, truth
    values and arrays are none.
    """
    if isinstance(value, int | float | Fraction | Decimal) and not isinstance(value, bool):
        try:
            return float(value)
        except (OverflowError, ValueError):  # a signalling NaN is the ValueError
            return None
    array = array_of(value, "iuf")  # of no dimension, as scalars of NumPy and torch are
    return float(array) if array is not None and array.ndim == 0 else None


def shown(value):
    """`value` for a message; whole numbers of thousands of digits, which Python does not print, as
    what they are.
    """
    try:
        return repr(value)
    except ValueError:
        return f"{type(value).__name__} too long to print"


def positive(name, value, infinite=False):
    """`value` as a float if it is a positive number (finite unless `infinite`), else ValueError."""
    number = real_number(value)
    if number is None or not number > 0 or (math.isinf(number) and not infinite):
        allowed = "a positive number" + (" or math.inf" if infinite else ", finite")
        raise ValueError(f"{name} = {shown(value)}: must be {allowed}")
    return number


def whole(name, value, at_least):
    """`value` as an int if it is a whole number ≥ `at_least` that a float can hold, else
    ValueError.
    """
    number = real_number(value)
    if number is None or not math.isfinite(number) or value != int(value) or value < at_least:
        raise ValueError(f"{name} = {shown(value)}: must be a whole number >= {at_least}")
    return int(value)


def room(name, value, entries):
    """`value`, if the array of so many `entries` that it asks for fits into 2 GiB, else ValueError."""
    if entries > LARGEST_ARRAY:
        raise ValueError(
            f"{name} = {value}: asks for an array of more than {LARGEST_ARRAY} numbers, 2 GiB"
        )
    return value


def array_of(values, kinds):
    """`values` as an array if its type is one of these NumPy kinds and no value is masked, else
    None.
    """
    try:
        array = np.asarray(values)
    except Exception:  # an object that converts itself may raise anything
        return None
    return array if array.dtype.kind in kinds and not np.ma.is_masked(values) else None


def real_array(name, values, ndim):
    """`values` as a float64 array of `ndim` dimensions without NaN or infinity, else ValueError."""
    array = array_of(values, "biuf")
    if array is None:
        raise ValueError(f"{name}: must be an array of real numbers with {ndim} dimensions")
    with np.errstate(over="ignore"):  # what float64 cannot hold is infinite, and refused
        array = array.astype(np.float64)
    if array.ndim != ndim or array.size == 0:
        raise ValueError(
            f"{name} has shape {array.shape}: must have {ndim} dimensions and no empty one"
        )
    largest = np.abs(array).max()
    if not np.isfinite(largest):
        raise ValueError(f"{name} holds NaN or infinite values: all must be finite")
    if largest > LARGEST_ENTRY:
        raise ValueError(
            f"{name} holds numbers as large as {largest:.2g}: must be at most {LARGEST_ENTRY:g}"
        )
    return array


def array_with_gaps(name, matrix):
    """`matrix` as a square float64 array, (K, K), in which NaN is allowed, else ValueError."""
    array = array_of(matrix, "biuf")
    absent = False if array is None else np.isnan(array)
    square = real_array(name, matrix if array is None else np.where(absent, 0.0, array), 2)
    if square.shape[0] != square.shape[1]:
        raise ValueError(f"{name} has shape {square.shape}: must be (K, K)")
    return np.where(absent, np.nan, square)


def scaled(array):
    """`array` times the power of 2 that makes its largest entry about 1, without rounding: then no
    square underflows.
    """
    return np.ldexp(array, -np.frexp(np.abs(array).max())[1])


def class_labels(labels, count, classes=None):
    """`labels` as an int64 array of `count` class indices ≥ 0, below `classes` if given, else
    ValueError.
    """
    array = array_of(labels, "biufcmMOSUV")
    if array is None or array.shape != (count,) or array.dtype.kind not in "iu":
        kind = "is no array" if array is None else f"has shape {array.shape} and type {array.dtype}"
        raise ValueError(f"labels {kind}: must be {count} class indices, one for each sample")
    if array.min() < 0:
        raise ValueError(f"labels holds {array.min()}: must be class indices >= 0")
    if array.max() >= (classes or 2**63):
        raise ValueError(
            f"labels holds {array.max()}: must be class indices below {classes or 2**63}"
        )
    return array.astype(np.int64)


def choice(name, value, allowed):
    """`value` if it is one of `allowed`, else ValueError."""
    if not isinstance(value, str | Real | np.bool_ | None) or value not in allowed:
        raise ValueError(f"{name} = {shown(value)}: must be one of {', '.join(map(repr, allowed))}")
    return value


LARGEST_WEIGHT = 1e6  # of a class, and 1 over the smallest; the solvers have been tried that far


def _class_weights(values, count):
    """`values` as a tuple of `count` allowed weights, None if it is None, else ValueError."""
    if values is None:
        return None
    try:
        weights = tuple(values)
    except Exception:  # what iterates may raise anything
        weights = ()
    if isinstance(values, (str, bytes, dict, set)) or len(weights) != count:
        raise ValueError(
            f"class_weights = {shown(values)}: must be {count} positive numbers, one a class, or None"
        )
    weights = tuple(positive(f"class_weights[{k}]", w) for k, w in enumerate(weights))
    for k, w in enumerate(weights):
        if not 1 / LARGEST_WEIGHT <= w <= LARGEST_WEIGHT:
            raise ValueError(
                f"class_weights[{k}] = {w}: must be between {1 / LARGEST_WEIGHT:g} and {LARGEST_WEIGHT:g}"
            )
    return weights


@dataclass(frozen=True)
class UFM:
    r"""The unconstrained feature model with cross-entropy loss on K classes.

    .. math:: \min_{W, H, b} \frac1N \sum_{k=1}^K w_k \sum_{i=1}^{n_k} \mathrm{CE}(W h_{k,i} + b, k)
              + \frac{\lambda_W}{2} \|W\|_F^2 + \frac{\lambda_H}{2} \|H\|_F^2
              + \frac{\lambda_b}{2} \|b\|^2

    over the classifier W (K, d), one free feature vector h_{k,i} (d,) for each of the
    N = Σ n_k samples, and the bias b (K,).

    Parameters
    ----------
    class_sizes : K ≥ 2 positive whole numbers, the numbers of samples n_k.
    lam_w, lam_h : λ_W, λ_H > 0, penalties on W and H.
    lam_b : λ_b > 0, penalty on b; `math.inf` means no bias.
    class_weights : K numbers w_k from 1e-6 to 1e6, weights of the losses; None means 1 each.
        They are taken as they are: PyTorch's `CrossEntropyLoss(weight=w)` divides by Σ w_k n_k
        instead of N, which are the weights w_k N / Σ_l w_l n_l here.

    Raises ValueError, naming argument and value, where one is not allowed.

    Source: Hong and Ling, arXiv:2309.09725. Their code writes the
    penalties without the factors 1/2. The class weights are ours.

    >>> from ncutils import UFM
    >>> ufm = UFM([2, 2, 1], lam_w=0.04, lam_h=0.01, lam_b=0.02)
    >>> ufm.num_classes, ufm.num_samples, round(ufm.lam_z, 4)
    (3, 5, 0.02)
    >>> ufm.sizes, ufm.weights, ufm.labels
    (array([2., 2., 1.]), array([1., 1., 1.]), array([0, 0, 1, 1, 2]))
    >>> ufm.groups
    {2: array([0, 1]), 1: array([2])}
    """

    class_sizes: tuple
    lam_w: float
    lam_h: float
    lam_b: float = math.inf
    class_weights: tuple | None = None

    def __post_init__(self):
        try:
            sizes = tuple(self.class_sizes)
        except Exception:  # what iterates may raise anything
            sizes = ()
        if len(sizes) < 2 or isinstance(self.class_sizes, (str, bytes, dict, set)):
            raise ValueError(
                f"class_sizes = {shown(self.class_sizes)}: must be at least 2 whole numbers"
            )
        sizes = tuple(whole(f"class_sizes[{k}]", n, 1) for k, n in enumerate(sizes))
        if real_number(sum(sizes)) is None:
            raise ValueError(
                "class_sizes: their sum must be a number that a float can hold, below 1.8e308"
            )
        object.__setattr__(self, "class_sizes", sizes)
        object.__setattr__(self, "lam_w", positive("lam_w", self.lam_w))
        object.__setattr__(self, "lam_h", positive("lam_h", self.lam_h))
        object.__setattr__(self, "lam_b", positive("lam_b", self.lam_b, infinite=True))
        object.__setattr__(self, "class_weights", _class_weights(self.class_weights, len(sizes)))

    @classmethod
    def from_lam_z(cls, class_sizes, lam_z, lam_b=math.inf, balance=1.0, class_weights=None):
        """The UFM with λ_W = λ_Z · balance and λ_H = λ_Z / balance, so that sqrt(λ_W λ_H) = λ_Z.

        `class_sizes`, `lam_b` and `class_weights` as in `UFM`. Raises ValueError, too, unless
        `lam_z` and `balance` are positive and finite. Source: ours.

        >>> from ncutils import UFM
        >>> UFM.from_lam_z([5, 3], lam_z=0.5, balance=2.0)
        UFM(class_sizes=(5, 3), lam_w=1.0, lam_h=0.25, lam_b=inf, class_weights=None)
        """
        lam_z, balance = positive("lam_z", lam_z), positive("balance", balance)
        return cls(class_sizes, lam_z * balance, lam_z / balance, lam_b, class_weights)

    @property
    def num_classes(self):
        """K, the number of classes."""
        return len(self.class_sizes)

    @cached_property
    def num_samples(self):
        """N = Σ n_k, the number of samples."""
        return sum(self.class_sizes)

    @cached_property
    def sizes(self):
        """The class sizes as a float array (K,), for formulas."""
        sizes = np.array(self.class_sizes, dtype=np.float64)
        sizes.flags.writeable = False
        return sizes

    @cached_property
    def weights(self):
        """The class weights w_k as a float array (K,), 1 each where there are none."""
        weights = np.array(self.class_weights or (1.0,) * self.num_classes)
        weights.flags.writeable = False
        return weights

    @property
    def lam_z(self):
        """λ_Z = sqrt(λ_W λ_H), the only combination of λ_W and λ_H that Z and b depend on."""
        product = self.lam_w * self.lam_h
        return (
            math.sqrt(product)
            if 1e-300 < product < 1e300
            else math.sqrt(self.lam_w) * math.sqrt(self.lam_h)
        )

    @cached_property
    def groups(self):
        """Classes of equal size: {n: array of class indices}, largest n first; with class weights,
        classes of equal size and weight: {(n, w): array of class indices}."""
        kinds = (
            self.class_sizes
            if self.class_weights is None
            else list(zip(self.class_sizes, self.class_weights))
        )
        found = {kind: [] for kind in sorted(set(kinds), reverse=True)}
        for k, kind in enumerate(kinds):
            found[kind].append(k)
        return {kind: np.array(members) for kind, members in found.items()}

    @property
    def labels(self):
        """Class index of each sample (N,), class after class. ValueError for so many samples that
        they fill 2 GiB.
        """
        room("class_sizes", self.class_sizes, self.num_samples)
        return np.repeat(np.arange(self.num_classes), self.class_sizes)


def problem(ufm):
    """`ufm` if it is a UFM, else ValueError."""
    if not isinstance(ufm, UFM):
        raise ValueError(f"ufm = {shown(ufm)}: must be a UFM")
    return ufm


ZERO = 1e-9  # a vector shorter than this fraction of the longest has no direction


def cosines_from_gram(gram):
    """Cosines (K, K) from inner products (K, K); NaN for vectors of relative length below 1e-9."""
    lengths = np.sqrt(np.maximum(np.diag(gram), 0.0))
    lengths = np.where(lengths > ZERO * lengths.max(), lengths, np.nan)
    return gram / np.outer(lengths, lengths)
