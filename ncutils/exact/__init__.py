"""Exact solutions: the convex programs that the UFM is equal to, their solvers and certificates."""

from .certificate import dual_bound
from .convex import objective
from .passage import bisect
from .solution import Solution
from .solver import solve
from .two_groups import TwoGroups, solve_two_groups, solve_two_groups_log

__all__ = [
    "Solution",
    "TwoGroups",
    "bisect",
    "dual_bound",
    "objective",
    "solve",
    "solve_two_groups",
    "solve_two_groups_log",
]
