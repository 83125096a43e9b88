"""The reduction to groups of equal classes: against the same code with classes taken one by one,
against the full matrix, and against finite differences. (Other methods are compared with in
test_convex.py and test_two_groups.py.)"""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ncutils import UFM, solve
from ncutils.exact import _blocks, _newton, _norms, convex
from ncutils.exact._blocks import Blocks
from ncutils.exact._loss import Smooth

INF = math.inf
groups = st.lists(
    st.tuples(st.integers(1, 2000), st.integers(1, 4)),
    min_size=1,
    max_size=4,
    unique_by=lambda g: g[0],
)
groupings = groups.filter(lambda groups: sum(count for _, count in groups) > 1)
levels = st.floats(1e-3, 1.1)  # λ_Z N over the root of the largest size
biases = st.sampled_from([INF, 1e3, 0.3, 0.02, 1e-4])


def problem(groups, level, lam_b):
    sizes = np.repeat(*np.transpose(groups)).tolist()
    return UFM.from_lam_z(sizes, level * math.sqrt(max(sizes)) / sum(sizes), lam_b)


def one_by_one(ufm, term, tol):
    """Z, b and value with every class a group of its own: K² + K unknowns, nothing assumed about
    equal sizes.
    """
    program = Blocks(ufm.sizes, np.ones(ufm.num_classes), ufm.lam_z, ufm.lam_b)
    found = _newton.minimise(program, term, tol, 200)
    return found.point[1:] / np.sqrt(ufm.sizes), found.bias, found.primal, found.dual


@given(groupings, levels, biases, st.sampled_from(["linear", "relu"]))
def test_classes_in_groups_and_one_by_one_have_the_same_solution(groups, level, lam_b, features):
    ufm = problem(groups, level, lam_b)
    grouped = solve(ufm, features, tol=1e-13)
    Z, b, primal, dual = one_by_one(
        ufm, {"linear": _norms.Nuclear, "relu": _norms.Columns}[features], 1e-13
    )
    assert primal - dual <= 1e-13 * primal
    assert grouped.objective == pytest.approx(primal, rel=3e-13)
    assert grouped.logits == pytest.approx(Z, abs=1e-9)
    assert grouped.bias == pytest.approx(b, abs=1e-9)


@given(groupings, levels, biases, st.sampled_from(["linear", "relu"]))
def test_the_objective_in_groups_is_that_of_the_full_matrix(groups, level, lam_b, features):
    found = solve(problem(groups, level, lam_b), features, tol=1e-6)
    full = convex.objective(found.ufm, found.logits, found.bias, features)
    assert full == pytest.approx(found.objective, rel=1e-13)


def random_point(counts, seed):
    rng = np.random.default_rng(seed)
    program = Blocks(
        rng.uniform(1, 100, len(counts)),
        np.array(counts, dtype=float),
        0.01,
        rng.choice([INF, 0.1]),
    )
    C = 3 * rng.standard_normal((program.G + 1, program.G))
    C[0, program.more == 0] = 0
    return program, C, rng


def expand(program, C):
    """X (K, K) that C stands for, written out class by class."""
    group = np.repeat(np.arange(program.G), program.counts.astype(int))
    x = C[0] / np.maximum(np.sqrt(program.more), 1)
    X = C[1:][np.ix_(group, group)] / np.sqrt(
        np.outer(program.counts[group], program.counts[group])
    )
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
        assert np.linalg.norm(C) == pytest.approx(np.linalg.norm(X), rel=1e-13)
        split = program.y_weight @ abs(C[0]) + np.linalg.norm(C[1:], "nuc")
        assert split == pytest.approx(np.linalg.norm(X, "nuc"), rel=1e-12)
        columns = np.sqrt(program.counts) @ np.linalg.norm(C, axis=0)
        assert columns == pytest.approx(np.linalg.norm(X, axis=0).sum(), rel=1e-12)
        loss, _ = convex.cross_entropy(X / np.sqrt(sizes))
        by_group, _ = program.softmax(program.margins(C))
        assert program.weights @ by_group == pytest.approx(sizes @ loss / program.N, rel=1e-13)

    def test_margins_and_point_are_inverse(self, counts, seed):
        program, C, _ = random_point(counts, seed)
        E = program.margins(C) * (program.others > 0)
        assert program.margins(program.point(E)) * (program.others > 0) == pytest.approx(
            E, abs=1e-12
        )
        X, _ = expand(program, program.point(E))
        assert abs(X.sum(axis=0)).max() < 1e-11

    def test_gradient_and_second_derivative_are_those_of_finite_differences(self, counts, seed):
        program, C, rng = random_point(counts, seed)
        D = rng.standard_normal(C.shape)
        D[0, program.more == 0] = 0
        at = lambda step: Smooth(program, C + step * D, np.zeros(program.G))
        h = 1e-4
        slope = (at(h).value - at(-h).value) / (2 * h)
        assert np.vdot(at(0).gradient, D) == pytest.approx(slope, rel=1e-6, abs=1e-9)
        bend = (at(h).gradient - at(-h).gradient) / (2 * h)
        follow = (at(h).bias - at(-h).bias) / (2 * h)
        assert at(0).bias_change(D) == pytest.approx(follow, abs=1e-6)
        assert at(0).hessian(D) == pytest.approx(bend, abs=1e-6 * abs(bend).max())

    def test_the_shifted_inverse_undoes_the_second_derivative(self, counts, seed):
        program, C, rng = random_point(counts, seed)
        program.biased = False
        smooth = Smooth(program, C, np.zeros(program.G))
        D = rng.standard_normal(C.shape)
        D[0, program.more == 0] = 0
        for alpha in (1e-3, 0.1):
            x = smooth.shifted_inverse(alpha)(D)
            assert smooth.hessian(x) + alpha * x == pytest.approx(D, abs=1e-11)

    def test_the_terms_are_proximal_points_with_their_curvature(self, counts, seed):
        program, Y, rng = random_point(counts, seed)
        program.lam = 0.3
        Y[1:] = (
            program.balanced.T @ program.balanced @ Y[1:]
        )  # columns of Z sum to zero: what the terms rely on
        for Term, value in (
            (_norms.Nuclear, lambda X: np.linalg.norm(X, "nuc")),
            (_norms.Columns, lambda X: np.linalg.norm(X, axis=0).sum()),
        ):
            term, t = Term(program, Y, 0.5), 0.5
            assert term.value == pytest.approx(
                program.lam * value(expand(program, term.point)[0]), rel=1e-12
            )
            assert term.point + t * term.dual == pytest.approx(Y, abs=1e-13)
            # the second derivative of the Moreau envelope's proximal map, (1 + t C)⁻¹, by finite
            # differences
            E = np.where(term.free, rng.standard_normal(Y.shape), 0.0)
            D = term.from_basis(E + t * term.curvature(E))
            h = 1e-6
            moved = (Term(program, Y + h * D, t).point - Term(program, Y - h * D, t).point) / (
                2 * h
            )
            assert term.to_basis(moved) == pytest.approx(E, abs=1e-4 * max(1, abs(D).max()))
            root = lambda D: term.inverse_root(D, 0.7)
            assert root(root(term.curvature(E) + 0.7 * E)) == pytest.approx(
                E, abs=1e-9 * max(1, abs(D).max())
            )


def test_merging_groups_keeps_classes_and_samples():
    program = Blocks(np.array([9.0, 8, 5, 2, 1]), np.array([1.0, 2, 1, 3, 4]), 0.1, INF)
    merged, part = program.merged(2)
    assert (
        merged.G == 2
        and merged.K == 11
        and merged.N == pytest.approx(program.N)
        and part.tolist() == [0, 0, 0, 1, 1]
    )


@pytest.mark.parametrize("features", ["linear", "relu"])
@pytest.mark.parametrize("lam_b", [INF, 0.02])
def test_conjugate_gradients_and_direct_solution_agree(monkeypatch, features, lam_b):
    ufm = UFM.from_lam_z([900] * 3 + [400] * 2 + [100] * 4 + [7], 4 / 4107, lam_b)
    reference = solve(ufm, features, tol=1e-13)
    monkeypatch.setattr(_blocks, "SMALL", 0)
    found = solve(ufm, features, tol=1e-13)
    assert found.objective == pytest.approx(reference.objective, rel=2e-13)
    assert found.logits == pytest.approx(reference.logits, abs=1e-10)


def test_conjugate_gradients_solve_a_system():
    rng = np.random.default_rng(0)
    A = rng.standard_normal((40, 40))
    A, right = A @ A.T + np.eye(40), rng.standard_normal(40)
    x = _newton.conjugate_gradients(
        lambda x: A @ x, right, lambda x: x / np.diag(A), accuracy=1e-10
    )
    assert A @ x == pytest.approx(right, abs=1e-7)
