"""Where a property of the exact optimum changes: bisection on certified optima, which knows nothing
of the theory.
"""

import math
from typing import NamedTuple

from .._checks import check_positive, shown
from .solver import solve

FINEST = 1e-14  # below, rounding decides where a property changes


class Passage(NamedTuple):
    """Where a property changes, and the evidence: what `bisect` returns.

    value : x at which the property changes.
    optima : every `Solution` on the way, for `Ledger.about`.
    """

    value: float
    optima: list


def bisect(problem, holds, low, high, rtol=1e-9, features="linear", tol=1e-12):
    """The x between `low` and `high` at which a property of the exact optimum changes.

    Parameters
    ----------
    problem : function from x to the UFM that is solved, such as one at λ_Z N = x.
    holds : function from the `Solution` to whether it has the property.
    low, high : 0 < low < high; at just one of them the property must hold.
    rtol : when to stop, from 1e-14 to 1: the property changes within a factor 1 + rtol.
    features, tol : as in `solve`.

    Returns a pair. Its `value` is the geometric middle of the last two x, at most rtol/2 from
    the change, relatively; if the property changes more than once, one of the changes is found. Its
    `optima` are all that were solved. Raises ValueError where the property is the same at both
    ends, or where an argument is not allowed. Source: ours.

    >>> from ncutils import UFM
    >>> from ncutils.exact import bisect
    >>> at = lambda level: UFM.from_lam_z([20, 20, 5, 5], level / 50)  # λ_Z N = level
    >>> found = bisect(at, lambda exact: exact.group_gaps[5] == 0, 1, 4)
    >>> round(found.value, 8), len(found.optima)  # the minority collapses at sqrt(5)
    (2.23606798, 33)
    """
    low, high = check_positive("low", low), check_positive("high", high)
    rtol = check_positive("rtol", rtol)
    if low >= high:
        raise ValueError(f"low = {low}, high = {high}: must have low < high")
    if not FINEST <= rtol <= 1:
        raise ValueError(f"rtol = {rtol}: must be from {FINEST:g} to 1")
    for name, function in (("problem", problem), ("holds", holds)):
        if not callable(function):
            raise ValueError(f"{name} = {shown(function)}: must be a function")
    optima = []

    def holds_at(x):
        optima.append(solve(problem(x), features, tol))
        return bool(holds(optima[-1]))

    at_low = holds_at(low)
    if at_low == holds_at(high):
        raise ValueError(f"holds is {at_low} at low = {low} and at high = {high}: must change")
    while high / low > 1 + rtol:
        middle = math.sqrt(low) * math.sqrt(high)
        low, high = (middle, high) if holds_at(middle) == at_low else (low, middle)
    return Passage(math.sqrt(low) * math.sqrt(high), optima)
