"""The problem: what a UFM holds, and what it refuses."""

import dataclasses
import math

import numpy as np
import pytest

from ncutils import UFM

NAN, INF = math.nan, math.inf


def test_sizes_penalties_and_derived_numbers():
    ufm = UFM([5, 3, 3], lam_w=8e-3, lam_h=2e-3, lam_b=0.02)
    assert ufm.class_sizes == (5, 3, 3) and all(type(n) is int for n in ufm.class_sizes)
    assert (ufm.num_classes, ufm.num_samples) == (3, 11)
    assert ufm.lam_z == pytest.approx(4e-3, rel=1e-15)
    assert ufm.labels.tolist() == [0] * 5 + [1] * 3 + [2] * 3
    assert ufm.sizes.dtype == np.float64 and ufm.sizes.tolist() == [5, 3, 3]


def test_no_bias_unless_asked_for():
    assert UFM([2, 2], 1, 1).lam_b == INF
    assert UFM.from_lam_z([2, 2], 1).lam_b == INF


@pytest.mark.parametrize("balance", [1e-3, 1.0, 1000])
def test_balance_moves_weight_between_w_and_h_only(balance):
    ufm = UFM.from_lam_z([4, 2], 3e-4, lam_b=0.5, balance=balance)
    assert ufm.lam_z == pytest.approx(3e-4, rel=1e-15)
    assert ufm.lam_w / ufm.lam_h == pytest.approx(balance**2, rel=1e-14)
    assert ufm.lam_b == 0.5


def test_lam_z_of_tiny_penalties_does_not_underflow():
    assert UFM([2, 2], 1e-200, 1e-200).lam_z == pytest.approx(1e-200)


def test_groups_are_ordered_from_large_to_small_wherever_their_classes_are():
    groups = UFM.from_lam_z([3, 7, 3, 9], 1).groups
    found = [(n, members.tolist()) for n, members in groups.items()]
    assert found == [(9, [3]), (7, [1]), (3, [0, 2])]


def test_class_weights_make_groups_of_their_own():
    plain = UFM([3, 7, 3], 1, 1)
    assert plain.class_weights is None and plain.weights.tolist() == [1, 1, 1]
    ones = UFM([3, 7, 3], 1, 1, class_weights=[1, 1, 1])  # as with any other weights
    assert list(ones.groups) == [(7, 1), (3, 1)]
    weighted = UFM([3, 7, 3, 3], 1, 1, class_weights=np.array([2, 1, 0.5, 2]))
    assert weighted.class_weights == (2, 1, 0.5, 2) and weighted.weights.tolist() == [2, 1, 0.5, 2]
    groups = [(kind, members.tolist()) for kind, members in weighted.groups.items()]
    assert groups == [((7, 1), [1]), ((3, 2), [0, 3]), ((3, 0.5), [2])]
    assert len({plain, weighted}) == 2
    with pytest.raises(ValueError, match="read-only"):
        weighted.weights[0] = 5


@pytest.mark.parametrize(
    "weights, message",
    [
        ([1, 2], r"class_weights = \[1, 2\]: must be 3 positive numbers"),
        (2.0, r"class_weights = 2\.0: must be 3 positive numbers"),
        ("123", r"class_weights = '123': must be 3 positive numbers"),
        ([1, 0, 1], r"class_weights\[1\] = 0: must be a positive number"),
        ([1, 1, NAN], r"class_weights\[2\] = nan: must be a positive number"),
        ([1, 1, INF], r"class_weights\[2\] = inf: must be a positive number"),
        ([1, 1, 1e7], r"class_weights\[2\] = 10000000\.0: must be between 1e-06 and 1e\+06"),
        ([1e-7, 1, 1], r"class_weights\[0\] = 1e-07: must be between 1e-06 and 1e\+06"),
    ],
)
def test_weights_that_are_none_are_refused(weights, message):
    with pytest.raises(ValueError, match=message):
        UFM([3, 7, 3], 1, 1, class_weights=weights)


def test_numpy_whole_floats_and_tuples_name_the_same_problem():
    sizes = [4, 2], (4.0, 2.0), np.array([4, 2]), np.array([4, 2], np.uint8)
    assert len({UFM(each, 1, 1) for each in sizes}) == 1


def test_a_problem_cannot_change():
    ufm = UFM([2, 2], 1, 1)
    with pytest.raises(dataclasses.FrozenInstanceError):
        ufm.lam_w = 2
    with pytest.raises(ValueError, match="read-only"):
        ufm.sizes[0] = 5


@pytest.mark.parametrize("sizes", [[], [5], 5, None, "55", [[5, 5]]])
def test_fewer_than_two_class_sizes_are_refused(sizes):
    with pytest.raises(ValueError, match=r"class_sizes.*must be"):
        UFM(sizes, 1, 1)


@pytest.mark.parametrize("size", [0, 2.5, NAN, "3", np.True_])
def test_class_sizes_that_are_not_positive_whole_numbers_are_refused_by_index(size):
    with pytest.raises(ValueError) as refusal:
        UFM([5, size], 1, 1)
    assert str(refusal.value) == f"class_sizes[1] = {size!r}: must be a whole number >= 1"


@pytest.mark.parametrize("value", [0, NAN, -INF, "1", np.True_, INF])
@pytest.mark.parametrize("name", ["lam_w", "lam_h", "lam_b"])
def test_penalties_that_are_not_positive_numbers_are_refused_by_name(name, value):
    if name == "lam_b" and value == INF:
        return  # only the bias may be penalised infinitely
    penalties = {"lam_w": 1.0, "lam_h": 1.0, "lam_b": 1.0, name: value}
    with pytest.raises(ValueError) as refusal:
        UFM([5, 5], **penalties)
    allowed = "a positive number or math.inf" if name == "lam_b" else "a positive number, finite"
    assert str(refusal.value) == f"{name} = {value!r}: must be {allowed}"


@pytest.mark.parametrize("name", ["lam_z", "balance"])
@pytest.mark.parametrize("value", [0, -1, NAN, INF])
def test_from_lam_z_names_its_own_arguments(name, value):
    with pytest.raises(ValueError, match=f"{name} = {value!r}"):
        UFM.from_lam_z([5, 5], **{"lam_z": 1.0, name: value})
