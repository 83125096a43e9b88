"""Checks of arguments: each returns its argument in the form that is worked with, or raises
ValueError naming the argument, what was given and what is allowed.
"""

import math
import sys
from decimal import Decimal
from fractions import Fraction
from numbers import Real

import numpy as np

LARGEST_ENTRY = 1e150  # of an array: the squares of larger numbers overflow
LARGEST_ARRAY = 2**28  # numbers, 2 GiB
LARGEST_WEIGHT = 1e6  # of a class, and 1 over the smallest; the solvers have been tried that far
REAL, WITH_BOOL, WHOLE = "iuf", "biuf", "iu"  # kinds of NumPy types
TORCH_STEPS = (  # towards an array that NumPy has, each where it is needed, in this order
    (lambda tensor: tensor.requires_grad, ".detach()"),
    (lambda tensor: tensor.device.type != "cpu", ".cpu()"),
    (lambda tensor: str(tensor.layout) != "torch.strided", ".to_dense()"),
    (lambda tensor: tensor.is_quantized, ".dequantize()"),
    (lambda tensor: "bfloat16" in str(tensor.dtype) or "float8" in str(tensor.dtype), ".float()"),
)


# One number, text or choice ---------------------------------------------------------------------


def real_number(value):
    """`value` as a float if it is one real number that a float can hold, else None: text, truth
    values and arrays are none.
    """
    if isinstance(value, int | float | Fraction | Decimal) and not isinstance(value, bool):
        try:
            return float(value)
        except (OverflowError, ValueError):  # a signalling NaN is the ValueError
            return None
    array = array_of(value, REAL)  # of no dimension, as scalars of NumPy and torch are
    return float(array) if array is not None and array.ndim == 0 else None


def shown(value):
    """`value` for a message; whole numbers of thousands of digits, which Python does not print, as
    what they are.
    """
    try:
        return repr(value)
    except ValueError:
        return f"{type(value).__name__} too long to print"


def check_number(name, value):
    """`value` as a float, NaN and infinity among them, if it is a number, else ValueError."""
    number = real_number(value)
    if number is None:
        raise ValueError(f"{name} = {shown(value)}: must be a number")
    return number


def check_finite(name, value, largest):
    """`value` as a float if it is a number of size `largest` at most, else ValueError."""
    number = real_number(value)
    if number is None or not abs(number) <= largest:
        raise ValueError(
            f"{name} = {shown(value)}: must be a finite number, at most {largest:g} in size"
        )
    return number


def check_positive(name, value, infinite=False):
    """`value` as a float if it is a positive number (finite unless `infinite`), else ValueError."""
    number = real_number(value)
    if number is None or not number > 0 or (math.isinf(number) and not infinite):
        allowed = "a positive number" + (" or math.inf" if infinite else ", finite")
        raise ValueError(f"{name} = {shown(value)}: must be {allowed}")
    return number


def check_integer(name, value, at_least):
    """`value` as an int if it is a whole number ≥ `at_least` that a float can hold, else
    ValueError.
    """
    number = real_number(value)
    if number is None or not math.isfinite(number) or value != int(value) or value < at_least:
        raise ValueError(f"{name} = {shown(value)}: must be a whole number >= {at_least}")
    return int(value)


def check_text(name, value):
    """`value` if it is text, else ValueError."""
    if not isinstance(value, str):
        raise ValueError(f"{name} = {shown(value)}: must be text")
    return value


def check_choice(name, value, allowed):
    """`value` if it is one of `allowed`, else ValueError."""
    if not isinstance(value, str | Real | np.bool_ | None) or value not in allowed:
        raise ValueError(f"{name} = {shown(value)}: must be one of {', '.join(map(repr, allowed))}")
    return value


def check_memory(name, value, entries):
    """`value`, if the array of so many `entries` that it asks for fits into 2 GiB, else
    ValueError.
    """
    if entries > LARGEST_ARRAY:
        raise ValueError(
            f"{name} = {value}: asks for an array of more than {LARGEST_ARRAY} numbers, 2 GiB"
        )
    return value


# Arrays -----------------------------------------------------------------------------------------


def array_of(values, kinds):
    """`values` as an array if its type is one of these NumPy kinds and no value is masked, else
    None.
    """
    try:
        array = np.asarray(values)
    except Exception:  # an object that converts itself may raise anything
        return None
    return array if array.dtype.kind in kinds and not np.ma.is_masked(values) else None


def check_kind(name, values, kinds, allowed):
    """`values` as in `array_of`, else ValueError: what it is, what is allowed, what to do."""
    array = array_of(values, kinds)
    if array is None:
        raise ValueError(f"{name} {_described(values)}: must be {allowed}{_conversion(values)}")
    return array


def _described(values):
    """What an object is: its class, type and shape; of a number, text or None its value."""
    kind, array = type(values), values
    home = kind.__module__.split(".")[0]
    if isinstance(values, list | tuple):
        try:
            array = np.asarray(values)
        except Exception:
            return f"is a {kind.__name__} of which NumPy makes no array"
    elif home == "builtins":
        return f"= {shown(values)}"
    text = f"is a {kind.__name__}" if home == "builtins" else f"is a {home}.{kind.__name__}"
    if (dtype := getattr(array, "dtype", None)) is not None:
        text += f" of type {str(dtype).removeprefix('torch.')}"
    if (shape := getattr(array, "shape", None)) is not None:
        text += f", shape {tuple(shape)}"
    return text


def _conversion(values):
    """How to make an array of an object of a known kind; nothing for others."""
    if hasattr(values, "requires_grad"):  # a tensor
        steps = "".join(step for needed, step in TORCH_STEPS if needed(values))
        return f"; convert it by {steps}.numpy()" if steps else ""
    if np.ma.is_masked(values):
        return "; leave the masked values out, or replace them by .filled(VALUE)"
    return "; convert it by .toarray()" if hasattr(values, "toarray") else ""


def check_array(name, values, ndim):
    """`values` as a float64 array of `ndim` dimensions without NaN or infinity, else ValueError."""
    array = check_kind(name, values, WITH_BOOL, f"an array of real numbers with {ndim} dimensions")
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


def check_square(name, matrix, gaps=True):
    """`matrix` as a square float64 array, (K, K), in which NaN is allowed with `gaps`, else
    ValueError.
    """
    array = array_of(matrix, WITH_BOOL)
    absent = np.isnan(array) if gaps and array is not None else False
    square = check_array(name, matrix if array is None else np.where(absent, 0.0, array), 2)
    if square.shape[0] != square.shape[1]:
        raise ValueError(f"{name} has shape {square.shape}: must be (K, K)")
    return np.where(absent, np.nan, square)


def check_labels(labels, count, classes=None):
    """`labels` as an int64 array of `count` class indices ≥ 0, below `classes` if given, else
    ValueError.
    """
    allowed = f"{count} class indices, one for each sample"
    array = check_kind("labels", labels, "biufcmMOSUV", allowed)
    if array.shape != (count,) or array.dtype.kind not in WHOLE:
        raise ValueError(
            f"labels has shape {array.shape} and type {array.dtype}: must be {allowed}"
        )
    if array.min() < 0:
        raise ValueError(f"labels holds {array.min()}: must be class indices >= 0")
    if array.max() >= (classes or 2**63):
        raise ValueError(
            f"labels holds {array.max()}: must be class indices below {classes or 2**63}"
        )
    return array.astype(np.int64)


def check_features(name, features, labels, classes=None):
    """`features` as a float64 array (d, N), and `labels` (N,) as in `check_labels`, else
    ValueError.
    """
    features = check_array(name, features, 2)
    d, N = features.shape
    if array_of(labels, WHOLE) is not None and np.shape(labels) == (d,) != (N,):
        raise ValueError(
            f"{name} has shape (N, d) = {features.shape} with {d} labels: must be (d, N); "
            "transpose it by .T"
        )
    return features, check_labels(labels, N, classes)


def check_classes(name, classes, count):
    """`classes` as an array if they are two or more different class indices below `count`, else
    ValueError.
    """
    index = array_of(classes, WHOLE)
    if index is None or index.ndim != 1 or len(set(index.tolist())) != len(index):
        raise ValueError(f"{name} = {shown(classes)}: must be a list of different class indices")
    if len(index) < 2 or index.min() < 0 or index.max() >= count:
        raise ValueError(
            f"{name} = {classes!r}: must be at least 2 class indices in 0 … {count - 1}"
        )
    return index


# Class sizes and weights ------------------------------------------------------------------------


def _listed(values):
    """The items of a list or array as a tuple; none of what is no list of numbers."""
    if isinstance(values, str | bytes | dict | set):
        return ()
    try:
        return tuple(values)
    except Exception:  # what iterates may raise anything
        return ()


def check_class_sizes(values):
    """`values` as a tuple of at least 2 whole numbers >= 1 whose sum a float can hold, else
    ValueError.
    """
    sizes = _listed(values)
    if len(sizes) < 2:
        raise ValueError(f"class_sizes = {shown(values)}: must be at least 2 whole numbers")
    sizes = tuple(check_integer(f"class_sizes[{k}]", n, 1) for k, n in enumerate(sizes))
    if real_number(sum(sizes)) is None:
        raise ValueError(
            "class_sizes: their sum must be a number that a float can hold, below 1.8e308"
        )
    return sizes


def check_class_weights(values, count):
    """`values` as a tuple of `count` allowed weights, None if it is None, else ValueError."""
    if values is None:
        return None
    weights = _listed(values)
    if len(weights) != count:
        raise ValueError(
            f"class_weights = {shown(values)}: must be {count} positive numbers, one a class, "
            "or None"
        )
    weights = tuple(check_positive(f"class_weights[{k}]", w) for k, w in enumerate(weights))
    for k, w in enumerate(weights):
        if not 1 / LARGEST_WEIGHT <= w <= LARGEST_WEIGHT:
            raise ValueError(
                f"class_weights[{k}] = {w}: must be between {1 / LARGEST_WEIGHT:g} and "
                f"{LARGEST_WEIGHT:g}"
            )
    return weights


LARGEST_COUNT = 1e12  # of classes in a group of two, and the range of λ_b: beyond, rounding shows
SMALLEST_LAM_B, LARGEST_LAM_B = 1e-16, 1e100


def check_numbers(name, values, lowest, highest, allowed, whole=False):
    """`values` as a float64 array, all from lowest to highest, else ValueError with the first that
    is not.
    """
    with np.errstate(over="ignore"):  # what float64 cannot hold is infinite
        array = check_kind(name, values, REAL, allowed).astype(np.float64)
    valid = (array >= lowest) & (array <= highest) & (not whole or array == np.floor(array))
    for value in array[~valid].ravel()[:1]:
        raise ValueError(f"{name} = {value}: must be {allowed}")
    return array


def check_whole_numbers(name, values):
    """`values` as a float64 array of whole numbers from 1 to 1e12, else ValueError."""
    allowed = "whole numbers from 1 to 1e12"
    return check_numbers(name, values, 1.0, LARGEST_COUNT, allowed, whole=True)


def check_positive_numbers(name, values):
    """`values` as a float64 array of positive, finite numbers, else ValueError."""
    allowed = "positive numbers, finite"
    return check_numbers(name, values, math.ulp(0.0), sys.float_info.max, allowed)


def check_lam_b_array(name, values):
    """`values` as a float64 array of numbers from 1e-16 to 1e100 or infinite, else ValueError."""
    allowed = "numbers from 1e-16 to 1e100, or math.inf for no bias"
    array = check_numbers(name, values, SMALLEST_LAM_B, math.inf, allowed)
    check_numbers(name, array[np.isfinite(array)], SMALLEST_LAM_B, LARGEST_LAM_B, allowed)
    return array


def check_common_shape(**arrays):
    """The shape that the arrays broadcast to, else ValueError with their names and shapes."""
    try:
        return np.broadcast_shapes(*(array.shape for array in arrays.values()))
    except ValueError:
        shapes = ", ".join(f"{name} {array.shape}" for name, array in arrays.items())
        raise ValueError(f"shapes {shapes}: must broadcast to one") from None


def check_place(name, index, shape):
    """`index` as a tuple, if it is the place of one problem in arrays of this shape, else
    ValueError.
    """
    places = index if isinstance(index, tuple) else (index,)
    named = all(
        isinstance(place, (int, np.integer)) and not isinstance(place, bool) for place in places
    )
    if (
        not named
        or len(places) != len(shape)
        or any(not -n <= place < n for place, n in zip(places, shape))
    ):
        raise ValueError(
            f"{name} = {shown(index)}: must be the place of one problem in arrays of shape {shape}"
        )
    return places
