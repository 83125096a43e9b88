"""Metrics at their edges: what they leave alone, how exact they are, and what they refuse. Their
definitions are in test_metrics_independent.py.
"""

import math
import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pytest import approx

from ncutils import UFM, metrics

NAN = math.nan


def sample(sizes, d=6, seed=0, noise=1.0):
    """Features (d, N) in no order, with class means of length about 3, and labels (N,)."""
    rng = np.random.default_rng(seed)
    labels = rng.permutation(np.repeat(np.arange(len(sizes)), sizes))
    means = 3 * rng.standard_normal((d, len(sizes)))
    return means[:, labels] + noise * rng.standard_normal((d, len(labels))), labels


@pytest.mark.parametrize("sizes", [[5, 5, 5], [20, 4, 1], [3, 30], [7] * 4 + [2] * 4], ids=str)
def test_collapsed_features_have_nc1_zero(sizes):
    collapsed = sample(sizes, noise=0)
    assert 0 <= metrics.nc1(*collapsed) < 1e-28 and 0 <= metrics.trace_ratio(*collapsed) < 1e-28


@given(st.integers(0, 1000), st.sampled_from([1e-3, 1.0, 50.0]))
def test_nc1_and_trace_ratio_do_not_depend_on_shift_scale_and_rotation(seed, scale):
    features, labels = sample([8, 5, 3], seed=seed)
    rng = np.random.default_rng(seed)
    rotation = np.linalg.qr(rng.standard_normal((6, 6)))[0]
    moved = scale * (rotation @ features) + scale * rng.standard_normal((6, 1))
    for metric, digits in ((metrics.nc1, 1e-9), (metrics.trace_ratio, 1e-11)):
        assert metric(moved, labels) == approx(metric(features, labels), rel=digits)


def peak_mib(function, *arguments):
    """Most memory that NumPy holds at once, in MiB."""
    tracemalloc.start()
    try:
        function(*arguments)
        return tracemalloc.get_traced_memory()[1] / 2**20
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("metric", [metrics.class_means, metrics.nc1, metrics.trace_ratio])
def test_memory_does_not_grow_with_samples_times_classes(metric):
    """Features are 2 MiB, a number for each sample and class would be 9 GiB."""
    rng = np.random.default_rng(0)
    features, labels = rng.standard_normal((4, 60_000)), rng.permutation(np.arange(60_000) % 20_000)
    assert peak_mib(metric, features, labels) < 30


def test_class_means_are_right_to_the_last_digits_whatever_the_order():
    """Sample after sample, the error would be 1e-14."""
    rng = np.random.default_rng(0)
    features = rng.integers(2**40, 2**41, (3, 50_000)) / 3.0
    labels = rng.permutation(np.repeat([0, 1, 5], [20_000, 29_999, 1]))
    for k, mean in zip((0, 1, 5), metrics.class_means(features, labels).T):
        exact = [math.fsum(row[labels == k].tolist()) / (labels == k).sum() for row in features]
        assert mean == approx(exact, rel=1e-15)


EQUAL = [
    (np.tile([[1.0, -1.0], [2.0, 6.0]], 3), [2, 2, 2]),
    (np.zeros((3, 4)), [2, 2]),
    *((np.full((4, 15), value), [3, 5, 7]) for value in (0.1, 0.3, 1 / 3, 1e-20, 1e6 / 7)),
]


@pytest.mark.parametrize("features, sizes", EQUAL)
@pytest.mark.parametrize("metric", [metrics.nc1, metrics.trace_ratio])
def test_equal_class_means_give_nan_whatever_their_rounding(metric, features, sizes):
    assert math.isnan(metric(features, np.repeat(range(len(sizes)), sizes)))


# Cosines ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("length, direction", [(0.0, False), (0.5e-9, False), (2e-9, True)])
def test_a_column_shorter_than_1e_9_of_the_longest_has_no_direction(length, direction):
    lost = np.isnan(metrics.cosines(np.diag([5.0, 3.0, 5 * length])))
    expected = np.zeros((3, 3), bool)
    expected[2] = expected[:, 2] = not direction
    assert (lost == expected).all()


def test_zero_has_no_cosine_at_all_and_does_not_warn(recwarn):
    assert np.isnan(metrics.cosines(np.zeros((3, 2)))).all()
    assert not recwarn.list


@given(st.integers(0, 1000))
def test_cosines_do_not_depend_on_lengths(seed):
    matrix = sample([1] * 4, seed=seed)[0]
    lengths = 10 ** np.random.default_rng(seed).uniform(-3, 3, 4)
    assert metrics.cosines(matrix * lengths) == approx(metrics.cosines(matrix), abs=1e-12)


def test_group_means_are_over_different_classes():
    matrix = np.arange(25.0).reshape(5, 5)
    A = [(0, 1), (1, 0)]
    AB = [(k, l) for k in (0, 1) for l in (2, 3, 4)]
    B = [(k, l) for k in (2, 3, 4) for l in (2, 3, 4) if k != l]
    expected = {
        g: np.mean([matrix[p] for p in pairs]) for g, pairs in dict(A=A, AB=AB, B=B).items()
    }
    assert metrics.group_means(matrix, 2) == approx(expected)


@pytest.mark.parametrize("k_a, missing", [(1, "A"), (3, "B")])
def test_a_group_of_one_class_has_no_angle(k_a, missing):
    found = metrics.group_means(np.eye(4), k_a)
    assert [group for group, value in found.items() if math.isnan(value)] == [missing]


# The minority -------------------------------------------------------------------------------------


@given(st.floats(-5, 5), st.floats(-5, 5))
def test_minority_gap_is_a_of_the_block(a, beta):
    Z = np.random.default_rng(0).standard_normal((5, 5))
    Z[2:, 2:] = a * np.eye(3) + beta
    assert metrics.minority_gap(Z, [2, 3, 4]) == approx(a, abs=1e-14)


def test_minority_spread_of_collapse_is_zero_and_of_nothing_nan():
    assert metrics.minority_spread(np.outer([1.0, 2, 3], [4, 5, 5]), [1, 2]) == 0
    assert metrics.minority_gap(np.zeros((3, 3)), [1, 2]) == 0
    assert math.isnan(metrics.minority_spread(np.zeros((3, 3)), [1, 2]))


@pytest.mark.parametrize("size", [1.0, 1e-12, 1e-140])
def test_minority_spread_of_nearly_equal_columns_loses_no_digit(size):
    rng = np.random.default_rng(0)
    # to which multiples of 2^-40 are added without rounding
    columns = rng.integers(1, 2**10, 40) / 2**10 * (size > 1e-100)
    moves = rng.integers(-8, 8, (40, 12)) * 2.0 ** round(math.log2(size))
    Z = np.zeros((40, 40))
    Z[:, :12] = columns[:, None] + moves
    Z[0, 20] = 3.0
    largest = max(math.dist(moves[:, k], moves[:, l]) for k in range(12) for l in range(k))
    mean = np.linalg.norm(Z, axis=0).mean()
    assert metrics.minority_spread(Z, range(12)) == approx(largest / mean, rel=1e-14)


def test_memory_of_many_classes_is_that_of_a_few_matrices():
    Z, sizes = np.eye(1000), np.arange(1000) // 10 + 1  # 8 MiB
    assert peak_mib(metrics.minority_spread, Z, range(999)) < 100
    assert peak_mib(metrics.block_range, Z, sizes) < 100
    assert metrics.minority_spread(Z, range(999)) == approx(math.sqrt(2), rel=1e-14)
    assert metrics.block_range(Z, sizes) == 0


def test_block_range_is_the_largest_difference_between_exchangeable_entries():
    sizes = np.array([9, 9, 4, 4, 1])
    Z = 10.0 * sizes[:, None] + sizes + 0.5 * np.eye(5)
    assert metrics.block_range(Z, sizes) == 0
    # all entries but (4, 4) have a partner
    for entry in [(0, 0), (0, 1), (0, 2), (2, 0), (3, 3), (4, 1), (4, 4)]:
        moved = Z.copy()
        moved[entry] += 0.25
        assert metrics.block_range(moved, sizes) == (0 if entry == (4, 4) else 0.25), entry


# Balance and gap ----------------------------------------------------------------------------------


def test_nothing_is_in_balance():
    problem = UFM([3, 2], lam_w=0.3, lam_h=0.7)
    assert metrics.balance_residual(np.zeros((2, 4)), np.zeros((4, 2)), problem) == 0


def test_relative_gap_of_arrays_is_elementwise():
    assert metrics.relative_gap(np.array([2.0, 1.0]), np.array([1.0, 1.0])) == approx([1, 0])
    assert metrics.relative_gap([2.0, 3.0], [1.0, 2.0]) == approx([1.0, 0.5])


# Refusals -----------------------------------------------------------------------------------------

F, LABELS = np.eye(3, 4), np.array([0, 0, 1, 1])


@pytest.mark.parametrize(
    "metric", [metrics.nc1, metrics.trace_ratio, metrics.scatter, metrics.class_means]
)
@pytest.mark.parametrize(
    "features, labels, message",
    [
        (F[0], LABELS, "features has shape"),
        (F[None], LABELS, "features has shape"),
        (F[:, :0], LABELS[:0], "features has shape"),
        (np.where(F == 1, NAN, F), LABELS, "features holds NaN"),
        (np.where(F == 1, math.inf, F), LABELS, "features holds NaN or infinite"),
        (F, LABELS[:2], r"labels has shape \(2,\).*must be 4 class indices"),
        (F, LABELS[None], "labels has shape"),
        (F, LABELS.astype(float), "labels.*float64"),
        (F, LABELS == 1, "labels.*bool"),
        (F, LABELS - 1, "labels holds -1: must be class indices >= 0"),
    ],
)
def test_features_and_labels_that_do_not_fit_are_refused(metric, features, labels, message):
    with pytest.raises(ValueError, match=message):
        metric(features, labels)


@pytest.mark.parametrize("metric", [metrics.minority_gap, metrics.minority_spread])
@pytest.mark.parametrize(
    "logits, minority, message",
    [
        (np.eye(3, 4), [1, 2], r"logits has shape \(3, 4\): must be \(K, K\)"),
        (np.ones(3), [1, 2], "logits has shape"),
        (np.full((3, 3), NAN), [1, 2], "logits holds NaN"),
        (np.eye(3), [1], r"minority = \[1\]: must be at least 2"),
        (np.eye(3), [], "minority"),
        (np.eye(3), [1, 1], "must be a list of different class indices"),
        (np.eye(3), [1, 3], "class indices in 0 … 2"),
        (np.eye(3), [-1, 1], "class indices in 0 … 2"),
        (np.eye(3), [0.0, 1.0], "minority"),
        (np.eye(3), 2, "minority = 2"),
        (np.eye(3), "12", "minority = '12'"),
    ],
)
def test_minorities_that_do_not_exist_are_refused(metric, logits, minority, message):
    with pytest.raises(ValueError, match=message):
        metric(logits, minority)


SHAPES = r"classifier .* and class_means .*: must be \(K, d\)"
LARGE = "an array of shape .*: asks for an array of more than"
WIDE, PROBLEM = np.ones((2, 20_000)), UFM([3, 2], 1, 1)


@pytest.mark.parametrize(
    "name, arguments, message",
    [
        *(("group_means", (np.eye(4), k_a), "k_a") for k_a in (0, 4, 5, -1, 1.5)),
        ("block_range", (np.eye(3), [5, 5]), "class_sizes|logits"),
        ("block_range", (np.eye(3), [NAN, NAN, 1.0]), "class_sizes"),
        ("cosines", (np.ones(3),), "matrix has shape"),
        ("cosines", ([[NAN]],), "matrix holds NaN"),
        ("cosines", ([[]],), "matrix has shape"),
        ("cosines", (WIDE[:1],), f"matrix = {LARGE}"),
        ("balance_residual", (np.ones((2, 4)), np.ones((3, 2)), PROBLEM), SHAPES),
        ("balance_residual", (np.ones((3, 4)), np.ones((4, 2)), PROBLEM), SHAPES),
        ("balance_residual", (np.ones((2, 4)), np.ones((4, 3)), PROBLEM), SHAPES),
        ("balance_residual", (WIDE, WIDE.T, PROBLEM), f"class_means = {LARGE}"),
        ("balance_residual", (np.eye(2), np.eye(2), "problem"), "ufm = 'problem': must be a UFM"),
        ("relative_gap", (-1.0, 1.0), "objective = .*must be positive"),
        ("relative_gap", (1.0, 0.0), "optimum = .*must be positive"),
        ("relative_gap", (NAN, 1.0), "objective = .*must be positive"),
    ],
)
def test_bad_arguments_are_refused_by_name(name, arguments, message):
    with pytest.raises(ValueError, match=message):
        getattr(metrics, name)(*arguments)
