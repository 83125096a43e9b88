"""The reduction to groups of equal classes: against the same code with classes taken one by one,
against the full matrix, and against finite differences. (Other methods are compared with in
test_convex.py and test_two_groups.py.)"""

import math

import numpy as np
import pytest
from fuzzed import fuzzed
from hypothesis import strategies as st
from pytest import approx

from ncutils import UFM, solve
from ncutils.exact import _blocks, convex
from ncutils.exact._blocks import Blocks
from ncutils.exact._loss import smooth_part
from ncutils.exact._newton import conjugate_gradients, minimise
from ncutils.exact._norms import ColumnNorm, NuclearNorm
from ncutils.exact.solver import NORMS

INF = math.inf
pairs = st.tuples(st.integers(1, 2000), st.integers(1, 4))

groups = st.lists(pairs, min_size=1, max_size=4, unique_by=lambda g: g[0])
groupings = groups.filter(lambda groups: sum(count for _, count in groups) > 1)
levels = st.floats(1e-3, 1.1)  # λ_Z N over the root of the largest size
biases = st.sampled_from([INF, 1e3, 0.3, 0.02, 1e-4])


def problem(groups, level, lam_b):
    sizes = np.repeat(*np.transpose(groups)).tolist()
    return UFM.from_lam_z(sizes, level * math.sqrt(max(sizes)) / sum(sizes), lam_b)


def one_by_one(ufm, norm_at, tol):
    """Z, b and values with every class a group of its own: nothing assumed about equal sizes."""
    program = Blocks(ufm.sizes, np.ones(ufm.num_classes), ufm.lam_z, ufm.lam_b)
    found = minimise(program, norm_at, tol, 200)
    return found.point[1:] / np.sqrt(ufm.sizes), found.bias, found.primal, found.dual


@fuzzed(groupings, levels, biases, st.sampled_from(["linear", "relu"]))
def test_classes_in_groups_and_one_by_one_have_the_same_solution(groups, level, lam_b, features):
    ufm = problem(groups, level, lam_b)
    grouped = solve(ufm, features, tol=1e-13)
    Z, b, primal, dual = one_by_one(ufm, NORMS[features], 1e-13)
    assert primal - dual <= 1e-13 * primal
    assert grouped.objective == approx(primal, rel=3e-13)
    assert grouped.logits == approx(Z, abs=1e-9) and grouped.bias == approx(b, abs=1e-9)
    early = solve(ufm, features, tol=1e-6)  # the objective in groups is that of the full matrix
    full = convex.objective(ufm, early.logits, early.bias, features)
    assert full == approx(early.objective, rel=1e-13)


def random_point(counts, seed, lam=0.01, biased=True):
    rng = np.random.default_rng(seed)
    sizes, lam_b = rng.uniform(1, 100, len(counts)), rng.choice([INF, 0.1])
    program = Blocks(sizes, np.array(counts, dtype=float), lam, lam_b if biased else INF)
    C = 3 * rng.standard_normal((program.G + 1, program.G))
    C[0, program.siblings == 0] = 0
    return program, C, rng


def expand(program, C):
    """X (K, K) that C stands for, written out class by class."""
    group = np.repeat(np.arange(program.G), program.counts.astype(int))
    x, counts = C[0] / np.maximum(np.sqrt(program.siblings), 1), program.counts[group]
    X = C[1:][np.ix_(group, group)] / np.sqrt(np.outer(counts, counts))
    for g in range(program.G):
        members = np.flatnonzero(group == g)
        X[np.ix_(members, members)] += x[g] * (np.eye(len(members)) - 1 / len(members))
    return X, program.sizes[group]


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("counts", [[2], [1, 1], [3, 1], [2, 1, 4], [1, 5, 2, 1]])
class TestDerivatives:
    def test_a_point_has_the_norms_and_the_loss_of_the_full_matrix(self, counts, seed):
        program, C, _ = random_point(counts, seed)
        X, sizes = expand(program, C)
        assert np.linalg.norm(C) == approx(np.linalg.norm(X), rel=1e-13)
        split = program.y_weight @ abs(C[0]) + np.linalg.norm(C[1:], "nuc")
        assert split == approx(np.linalg.norm(X, "nuc"), rel=1e-12)
        columns = np.sqrt(program.counts) @ np.linalg.norm(C, axis=0)
        assert columns == approx(np.linalg.norm(X, axis=0).sum(), rel=1e-12)
        loss, _ = convex.cross_entropy(X / np.sqrt(sizes))
        by_group, _ = program.softmax(program.margins(C))
        assert program.weights @ by_group == approx(sizes @ loss / program.N, rel=1e-13)

    def test_margins_and_point_are_inverse(self, counts, seed):
        program, C, _ = random_point(counts, seed)
        E = program.margins(C) * (program.others > 0)
        assert program.margins(program.point(E)) * (program.others > 0) == approx(E, abs=1e-12)
        X, _ = expand(program, program.point(E))
        assert abs(X.sum(axis=0)).max() < 1e-11

    def test_gradient_and_second_derivative_are_those_of_finite_differences(self, counts, seed):
        program, C, rng = random_point(counts, seed)
        D = rng.standard_normal(C.shape)
        D[0, program.siblings == 0] = 0
        at = lambda step: smooth_part(program, C + step * D, np.zeros(program.G))
        h = 1e-4
        slope = (at(h).value - at(-h).value) / (2 * h)
        assert np.vdot(at(0).gradient, D) == approx(slope, rel=1e-6, abs=1e-9)
        change = (at(h).gradient - at(-h).gradient) / (2 * h)
        follow = (at(h).bias - at(-h).bias) / (2 * h)
        assert at(0).bias_change(D) == approx(follow, abs=1e-6)
        assert at(0).hessian(D) == approx(change, abs=1e-6 * abs(change).max())

    def test_the_shifted_inverse_undoes_the_second_derivative(self, counts, seed):
        program, C, rng = random_point(counts, seed, biased=False)
        smooth = smooth_part(program, C, np.zeros(program.G))
        D = rng.standard_normal(C.shape)
        D[0, program.siblings == 0] = 0
        for alpha in (1e-3, 0.1):
            x = smooth.shifted_inverse(alpha)(D)
            assert smooth.hessian(x) + alpha * x == approx(D, abs=1e-11)

    def test_the_norms_are_proximal_points_with_their_curvature(self, counts, seed):
        program, Y, rng = random_point(counts, seed, lam=0.3)
        Y[1:] = program.centred.T @ program.centred @ Y[1:]  # columns of Z sum to zero
        for norm_at, value in (
            (NuclearNorm, lambda X: np.linalg.norm(X, "nuc")),
            (ColumnNorm, lambda X: np.linalg.norm(X, axis=0).sum()),
        ):
            t, h = 0.5, 1e-6
            norm = norm_at(program, Y, t)
            X, _ = expand(program, norm.point)
            assert norm.value == approx(program.lam * value(X), rel=1e-12)
            assert norm.rank == np.linalg.matrix_rank(X, tol=1e-9)
            assert norm.point + t * norm.subgradient == approx(Y, abs=1e-13)
            assert norm_at.dual_norm(program, norm.subgradient) <= program.lam * (1 + 1e-13)
            # the derivative of the proximal map is (1 + t C)⁻¹: by finite differences
            E = np.where(norm.active, rng.standard_normal(Y.shape), 0.0)
            D = norm.from_basis(E + t * norm.curvature(E))
            moved = norm_at(program, Y + h * D, t).point - norm_at(program, Y - h * D, t).point
            size = max(1, abs(D).max())
            assert norm.to_basis(moved / (2 * h)) == approx(E, abs=1e-4 * size)
            F = rng.standard_normal(Y.shape)
            assert np.vdot(norm.from_basis(E), F) == approx(np.vdot(E, norm.to_basis(F)))
            root = lambda D: norm.inverse_root(D, 0.7)
            assert root(root(norm.curvature(E) + 0.7 * E)) == approx(E, abs=1e-9 * size)


def test_merging_groups_keeps_classes_and_samples():
    program = Blocks(np.array([9.0, 8, 5, 2, 1]), np.array([1.0, 2, 1, 3, 4]), 0.1, INF)
    merged, part = program.merged(2)
    assert (merged.G, merged.K, part.tolist()) == (2, 11, [0, 0, 0, 1, 1])
    assert merged.N == approx(program.N)


@pytest.mark.parametrize("features", ["linear", "relu"])
@pytest.mark.parametrize("lam_b", [INF, 0.02])
def test_conjugate_gradients_and_direct_solution_agree(monkeypatch, features, lam_b):
    ufm = UFM.from_lam_z([900] * 3 + [400] * 2 + [100] * 4 + [7], 4 / 4107, lam_b)
    reference = solve(ufm, features, tol=1e-13)
    monkeypatch.setattr(_blocks, "SMALL", 0)
    found = solve(ufm, features, tol=1e-13)
    assert found.objective == approx(reference.objective, rel=2e-13)
    assert found.logits == approx(reference.logits, abs=1e-10)


def test_conjugate_gradients_solve_a_system():
    rng = np.random.default_rng(0)
    A = rng.standard_normal((40, 40))
    A, right = A @ A.T + np.eye(40), rng.standard_normal(40)
    x = conjugate_gradients(lambda x: A @ x, right, lambda x: x / np.diag(A), accuracy=1e-10)
    assert A @ x == approx(right, abs=1e-7)
