"""Metrics against their definitions in exact arithmetic: fractions, sample by sample, nothing
shared with `ncutils`.

Every definition is written out: no linear algebra of NumPy's, no square root but the last. Data are
small fractions, which floats hold exactly, so that a metric and its definition see the same
numbers.
"""

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pytest import approx

from ncutils import UFM, metrics

SIZES = {
    "balanced": [4, 4, 4],
    "balanced, many": [3] * 8,
    "balanced, two": [5, 5],
    "imbalanced": [9, 3, 1],
    "imbalanced, many": [6] * 3 + [2] * 4,
    "imbalanced, two": [20, 2],
    "one sample each": [1, 1, 1, 1],
    "a long tail": [12, 7, 4, 2, 1, 1],
}
DIMENSIONS = {"d < K": lambda sizes: 2, "d = K": len, "d > N": lambda sizes: sum(sizes) + 1}


def exact(array):
    """Rows of fractions, equal to the floats."""
    return [[Fraction(float(value)) for value in row] for row in array]


def times(A, B):
    return [[sum(a * b for a, b in zip(row, column)) for column in zip(*B)] for row in A]


def transposed(A):
    return [list(row) for row in zip(*A)]


def trace(A):
    return sum(A[i][i] for i in range(len(A)))


def solved(A, B):
    """A⁻¹ B, by elimination."""
    n, rows = len(A), [list(a) + list(b) for a, b in zip(A, B)]
    for k in range(n):
        pivot = next(i for i in range(k, n) if rows[i][k])
        rows[k], rows[pivot] = rows[pivot], rows[k]
        rows[k] = [value / rows[k][k] for value in rows[k]]
        for i in range(n):
            if i != k:
                rows[i] = [a - rows[i][k] * b for a, b in zip(rows[i], rows[k])]
    return [row[n:] for row in rows]


def independent_columns(A):
    """Columns of A that span its range, as columns (n, r)."""
    found, reduced = [], []
    for column in zip(*A):
        rest = list(column)
        for pivot, basis in reduced:
            rest = [a - rest[pivot] * b for a, b in zip(rest, basis)]
        pivot = next((i for i, value in enumerate(rest) if value), None)
        if pivot is not None:
            reduced.append((pivot, [value / rest[pivot] for value in rest]))
            found.append(column)
    return transposed(found)


def pseudo_inverse(A):
    """A⁺ of a symmetric A = F G with F (n, r), G (r, n) of full rank r: Gᵀ (G Gᵀ)⁻¹ (Fᵀ F)⁻¹ Fᵀ."""
    F = independent_columns(A)
    G = solved(times(transposed(F), F), times(transposed(F), A))
    inner = solved(times(transposed(F), F), transposed(F))
    return times(transposed(G), solved(times(G, transposed(G)), inner))


def means_of(columns, labels):
    """The mean of the samples of each class that occurs, in order, and how many there are."""
    found, sizes = [], []
    for k in sorted(set(labels)):
        own = [h for h, label in zip(columns, labels) if label == k]
        found.append([sum(coordinates) / len(own) for coordinates in zip(*own)])
        sizes.append(len(own))
    return found, sizes


def outer_sum(rows, weights):
    """Σ w v vᵀ over rows v."""
    d = range(len(rows[0]))
    return [[sum(w * v[i] * v[j] for v, w in zip(rows, weights)) for j in d] for i in d]


def scatter_of(features, labels):
    """Σ_W and Σ_B, sums over samples and over classes."""
    columns, labels = transposed(exact(features)), list(map(int, labels))
    N, (means, sizes) = len(columns), means_of(columns, labels)
    overall = [sum(coordinates) / N for coordinates in zip(*columns)]  # over samples
    own = dict(zip(sorted(set(labels)), means))
    off = [[a - b for a, b in zip(h, own[label])] for h, label in zip(columns, labels)]
    apart = [[a - b for a, b in zip(mean, overall)] for mean in means]
    within = outer_sum(off, [Fraction(1, N)] * N)
    return within, outer_sum(apart, [Fraction(n, N) for n in sizes]), len(sizes)


def sample(sizes, d, seed, rank=None):
    """Features (d, N), whole eighths, and labels (N,) in any order; with `rank`, class means span
    so many dimensions.
    """
    rng = np.random.default_rng(seed)
    labels = rng.permutation(np.repeat(np.arange(len(sizes)), sizes))
    if rank is None:
        means, off = rng.integers(-24, 25, (d, len(sizes))), rng.integers(-8, 9, (d, len(labels)))
        return (means[:, labels] + off) / 8, labels
    means = 8 * rng.integers(-3, 4, (d, rank)) @ rng.integers(-3, 4, (rank, len(sizes)))
    off = np.zeros((d, len(labels)), dtype=int)
    for k in range(len(sizes)):  # in pairs, so that the means stay
        own = np.flatnonzero(labels == k)
        pairs = len(own) // 2
        off[:, own[:pairs]] = rng.integers(-8, 9, (d, pairs))
        off[:, own[pairs : 2 * pairs]] = -off[:, own[:pairs]]
    return (means[:, labels] + off) / 8, labels


def agree(features, labels):
    within, between, K = scatter_of(features, labels)
    for found, defined in zip(metrics.scatter(features, labels), (within, between)):
        assert found == approx(np.array(defined, dtype=float), rel=1e-13, abs=1e-13)
    nc1 = trace(times(within, pseudo_inverse(between))) / K
    assert metrics.nc1(features, labels) == approx(float(nc1), rel=1e-10)
    ratio = trace(within) / trace(between)
    assert metrics.trace_ratio(features, labels) == approx(float(ratio), rel=1e-13)
    return between


@pytest.mark.parametrize("dimension", DIMENSIONS)
@pytest.mark.parametrize("sizes", SIZES.values(), ids=SIZES)
def test_scatter_nc1_and_trace_ratio(sizes, dimension):
    agree(*sample(sizes, DIMENSIONS[dimension](sizes), seed=len(sizes)))


@pytest.mark.parametrize("rank", [1, 2, 3])
@pytest.mark.parametrize("sizes", [[4] * 6, [9, 5, 3, 2, 2, 1]], ids=["balanced", "imbalanced"])
def test_means_that_span_fewer_dimensions(sizes, rank):
    between = agree(*sample(sizes, 7, seed=rank, rank=rank))
    assert len(independent_columns(between)[0]) == rank  # of 7


@given(
    st.lists(st.integers(1, 7), min_size=2, max_size=5), st.integers(1, 6), st.integers(0, 10**6)
)
def test_any_sizes_and_dimensions(sizes, d, seed):
    features, labels = sample(sizes, d, seed)
    if any(map(any, scatter_of(features, labels)[1])):
        agree(features, labels)
    else:
        assert math.isnan(metrics.nc1(features, labels))
        assert math.isnan(metrics.trace_ratio(features, labels))


@pytest.mark.parametrize("sizes", [[5, 5, 5], [9, 3, 1]], ids=["balanced", "imbalanced"])
def test_labels_with_gaps_and_float32(sizes):
    features, labels = sample(sizes, 5, seed=1)
    gaps = np.array([70, 3, 11], dtype=np.uint8)[labels]
    agree(features, gaps)
    agree(features.astype(np.float32), gaps)  # eighths: the same numbers
    noise = 1e-3 * np.random.default_rng(0).standard_normal(features.shape)
    off = (features + noise).astype(np.float32)  # no eighths, yet fractions
    agree(off, labels)
    means = np.array(means_of(transposed(exact(off)), gaps.tolist())[0], dtype=float).T
    assert metrics.class_means(off, gaps) == approx(means, rel=1e-14, abs=1e-15)


@pytest.mark.parametrize("small, kept", [(Fraction(1, 900), True), (Fraction(1, 1100), False)])
def test_the_cut_is_relative_to_the_largest_singular_value(small, kept):
    """Means ±u and ±small v with Σ_B = (uuᵀ + small² vvᵀ)/2, u and v of unit length and at right
    angles, along no axis; samples are off along u and v alike.
    """
    u, v = (Fraction(3, 5), Fraction(4, 5), 0), (Fraction(4, 5), Fraction(-3, 5), 0)
    off, means = Fraction(1, 1000), [(1, 0), (-1, 0), (0, small), (0, -small)]
    columns = [
        [(p + sign * off) * a + (q + sign * off) * b for a, b in zip(u, v)]
        for p, q in means
        for sign in (1, -1)
    ]
    features = np.array(transposed(columns), dtype=float)
    inverse = 2 + (2 / small**2 if kept else 0)  # uᵀ Σ_B⁺ u + vᵀ Σ_B⁺ v
    expected = float(off**2 * inverse / 4)
    assert metrics.nc1(features, np.repeat(range(4), 2)) == approx(expected, rel=1e-6)


def dot(u, v):
    return sum(a * b for a, b in zip(u, v))


@given(st.integers(1, 5), st.integers(1, 6), st.integers(0, 10**6))
def test_cosines(d, K, seed):
    matrix = np.random.default_rng(seed).integers(-3, 4, (d, K)) / 4
    columns = transposed(exact(matrix))
    for (k, l), found in np.ndenumerate(metrics.cosines(matrix)):
        u, v = columns[k], columns[l]
        if any(u) and any(v):
            square = dot(u, v) ** 2 / (dot(u, u) * dot(v, v))
            assert found == approx(math.copysign(math.sqrt(square), dot(u, v)), abs=1e-14)
        else:
            assert math.isnan(found)


@given(st.integers(2, 7), st.integers(0, 10**6), st.data())
def test_minority_gap_and_spread(K, seed, data):
    Z = np.random.default_rng(seed).integers(-9, 10, (K, K)) / 8
    minority = data.draw(st.lists(st.integers(0, K - 1), min_size=2, max_size=K, unique=True))
    rows, columns = exact(Z), transposed(exact(Z))
    pairs = [(k, l) for k in minority for l in minority if k != l]
    own = sum(rows[k][k] for k in minority) / len(minority)
    gap = own - sum(rows[k][l] for k, l in pairs) / len(pairs)
    assert metrics.minority_gap(Z, minority) == approx(float(gap), abs=1e-14)
    off = [[a - b for a, b in zip(columns[k], columns[l])] for k, l in pairs]
    furthest = math.sqrt(max(dot(column, column) for column in off))
    length = math.fsum(math.sqrt(dot(column, column)) for column in columns) / K
    found = metrics.minority_spread(Z, minority)
    assert found == approx(furthest / length, rel=1e-14) if length else math.isnan(found)


@pytest.mark.parametrize("each", ["class", "sample"])
@pytest.mark.parametrize("sizes", [[3, 3, 3], [6, 2, 1]], ids=["balanced", "imbalanced"])
def test_balance_residual(sizes, each):
    rng, lam_w, lam_h = np.random.default_rng(0), 0.375, 0.0625
    counts = sizes if each == "class" else [1] * sum(sizes)
    W, H = rng.integers(-8, 9, (3, 4)) / 8, rng.integers(-8, 9, (4, len(counts))) / 8
    left = outer_sum(exact(W), [Fraction(lam_w)] * 3)
    right = outer_sum(transposed(exact(H)), [Fraction(lam_h) * n for n in counts])
    apart = sum((a - b) ** 2 for row, other in zip(left, right) for a, b in zip(row, other))
    size = sum(a**2 for row in left for a in row)
    found = metrics.balance_residual(W, H, UFM(sizes, lam_w, lam_h))
    assert found == approx(math.sqrt(apart / size), rel=1e-13)


POSITIVE = st.fractions(Fraction(1, 10**6), 10**6, max_denominator=10**6).map(float)


@given(POSITIVE, POSITIVE)
def test_relative_gap(objective, optimum):
    expected = (Fraction(objective) - Fraction(optimum)) / Fraction(optimum)
    assert metrics.relative_gap(objective, optimum) == approx(float(expected), rel=1e-9, abs=4e-16)
