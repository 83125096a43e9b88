"""Bisection on exact optima finds the levels of the closed forms, which it knows nothing of."""

import math

import pytest

from ncutils import UFM, Ledger, theory
from ncutils.exact import bisect

SIZES = [500] * 5 + [100] * 5


def at(lam_b, sizes=SIZES):
    return lambda level: UFM.from_lam_z(sizes, level / sum(sizes), lam_b)


def merged(exact):
    return exact.group_gaps[100] == 0


@pytest.mark.parametrize("lam_b", [math.inf, 0.02])
@pytest.mark.parametrize(
    "holds, line",
    [
        (merged, lambda found: found.merged[100]),
        (lambda exact: exact.rank < 5, lambda found: found.vanished[0]),
        (lambda exact: exact.rank > 0, lambda found: found.trivial),
    ],
    ids=["merged", "vanished", "trivial"],
)
def test_every_line_of_the_theory_is_found(holds, line, lam_b):
    found = bisect(at(lam_b), holds, 3, 30, rtol=1e-8)
    assert found.value == pytest.approx(line(theory.thresholds(at(lam_b)(1))), rel=6e-9)
    assert all(exact.certified for exact in found.optima)
    Ledger("passage").about("thm-threshold", found.optima)


def test_the_program_of_relu_features_can_be_asked():
    found = bisect(at(math.inf), merged, 5, 15, rtol=1e-3, features="relu")
    assert found.value == pytest.approx(theory.relu_vanishing_threshold(100, 10), rel=6e-4)
    assert {exact.features for exact in found.optima} == {"relu"}
    assert len(found.optima) == 2 + math.ceil(math.log2(math.log(3) / math.log1p(1e-3)))


@pytest.mark.parametrize(
    "change, message",
    [
        ({"low": 0}, "low = 0: must be a positive number"),
        ({"low": 20}, "low = 20.0, high = 15.0: must have low < high"),
        ({"high": math.inf}, "high = inf: must be a positive number"),
        ({"rtol": 1e-15}, "rtol = 1e-15: must be from 1e-14 to 1"),
        ({"rtol": 2}, "rtol = 2.0: must be from 1e-14 to 1"),
        ({"problem": 3}, "problem = 3: must be a function"),
        ({"holds": None}, "holds = None: must be a function"),
        ({"low": 11}, "holds is True at low = 11.0 and at high = 15.0: must change"),
        ({"features": "cubic"}, "features = 'cubic': must be one of"),
        ({"tol": 0}, "tol = 0: must be"),
    ],
)
def test_what_makes_no_sense_is_refused(change, message):
    arguments = {"problem": at(math.inf), "holds": merged, "low": 5, "high": 15} | change
    with pytest.raises(ValueError, match=message):
        bisect(**arguments)
