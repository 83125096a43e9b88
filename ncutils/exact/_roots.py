"""Roots of increasing functions, many at once."""

import math

import torch

FEW = 2**10  # so few problems take hardly longer than one
STEPS = 400  # at most; bisection alone needs about 100 at the extremes
PATIENCE = 8  # Newton steps before bisection may help


def increasing_roots(function, problems, x):
    """Roots (E,) of an increasing function of (problems, x) that gives value, slope and whether
    there is no root; Newton's method from x for all problems at once. Returns (x, none).

    It bisects where Newton's method leaves the bracket or, after the first steps, crawls, so that
    it ends in time even where the function is flat or exponential. `problems.take(index)` are some
    of them: those that are done are left out, half of them at a time."""
    roots, none_at_all = x.clone(), torch.zeros_like(x, dtype=torch.bool)
    index = torch.arange(len(x), device=x.device)
    low, high, last = (torch.full_like(x, bound) for bound in (-math.inf, math.inf, math.inf))
    done = none_at_all.clone()
    for number in range(STEPS):
        value, slope, none = function(problems, x)
        beyond = value > 0  # false for NaN, as is newton
        low, high = torch.where(beyond, low, x), torch.where(beyond, x, high)
        bracket = torch.where(beyond, low, high) - x
        step, size = -value / slope, 1 + x.abs()
        newton = step.abs() < bracket.abs()
        settled = step * step <= 1e-17 * size  # the next step is about this one squared
        if number >= PATIENCE:
            newton &= settled | (step.abs() <= last.abs() / 2)
        limit = 2.0 ** min(number + 1, 40)  # while one side is open
        step = torch.where(newton, step, bracket / 2).clamp(-limit, limit)
        done |= none
        # what is done stays, so that no problem sees another
        x, last = x + step.masked_fill(done, 0.0), step
        done |= (newton & settled) | (high - low <= 4e-16 * size)
        left = len(x) - int(done.sum())
        if left <= (len(x) / 2 if len(x) > FEW else 0) or number == STEPS - 1:
            roots[index], none_at_all[index] = x, none
            if left == 0:
                break
            keep = (~done).nonzero()[:, 0]  # those left go on alone
            problems = problems.take(keep)
            index, x, low, high, last = (
                each.gather(0, keep) for each in (index, x, low, high, last)
            )
            done = torch.zeros_like(x, dtype=torch.bool)
    return roots, none_at_all
