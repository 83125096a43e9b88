"""Newton's method for a smooth function plus a norm: what solves (CVX) and (CVX+) in the blocks of `blocks.py`.

Each iteration takes a proximal gradient step, which finds the active singular values (or columns), and then Newton's step
over the directions in which the norm is smooth, cut back until the forward-backward envelope has not risen. Far from the
optimum this is a descent method, near it convergence is quadratic. Source: A. Themelis, L. Stella and P. Patrinos,
SIAM J. Optim. 28 (2018), for the globalisation; the curvature of the norm, the start and the certificate are ours.
"""

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from .blocks import Blocks, Smooth

DENSE = 150  # unknowns up to which Newton's equations are solved directly, not by conjugate gradients
COARSE = 16  # groups from which on the start is the solution with groups merged
ROUNDING = 1e-14


def stack(y, M):
    """The array C of first row y (G,) and further rows M (G, G)."""
    return np.concatenate([y[None], M])


class Nuclear:
    """λ ‖X‖_* = λ (Σ sqrt(K_g − 1) |y_g| + ‖M‖_*), at its proximal point with step t from Y.

    point, value : the proximal point C and the term there.   dual : (Y − C)/t, a subgradient.   rank : of X.
    free : directions in the basis of singular vectors in which the term is smooth.
    """

    def __init__(self, blocks, Y, t):
        self.lam, weight = blocks.lam, blocks.lam * blocks.y_weight
        self.U, s, self.Vt = np.linalg.svd(Y[1:])
        self.shrunk, self.pressure = np.maximum(s - t * self.lam, 0.0), np.minimum(s / t, self.lam)
        length = np.abs(Y[0])
        self.y = np.copysign(np.maximum(length - t * weight, 0.0), Y[0])
        self.point = stack(self.y, (self.U * self.shrunk) @ self.Vt)
        self.dual = stack(np.copysign(np.minimum(length / t, weight), Y[0]), (self.U * self.pressure) @ self.Vt)
        self.value = weight @ np.abs(self.y) + self.lam * self.shrunk.sum()
        self.more = blocks.more

    @property
    def rank(self):
        return int((self.shrunk > 0).sum() + self.more @ (self.y != 0))

    @cached_property
    def free(self):
        active = self.shrunk > 0
        return stack(self.y != 0, active[:, None] | active)

    @cached_property
    def bend(self):
        """Curvature of the parts symmetric and antisymmetric in (i, j), in the basis: one number each for a pair."""
        total = np.where(self.free[1:], self.shrunk[:, None] + self.shrunk, 1.0)
        pressed = self.pressure[:, None] + self.pressure
        return (2 * self.lam - pressed) / total, pressed / total

    def to_basis(self, D):
        return np.concatenate([D[..., :1, :], self.U.T @ D[..., 1:, :] @ self.Vt.T], axis=-2) * self.free

    def from_basis(self, D):
        return np.concatenate([D[..., :1, :], self.U @ D[..., 1:, :] @ self.Vt], axis=-2)

    def curvature(self, D):
        """Second derivative of the term along D (…, G + 1, G), in the basis."""
        M = D[..., 1:, :]
        T = np.swapaxes(M, -1, -2)
        symmetric, antisymmetric = self.bend
        bent = (symmetric * (M + T) + antisymmetric * (M - T)) / 2
        return np.concatenate([np.zeros_like(D[..., :1, :]), bent], axis=-2)

    def inverse_root(self, D, alpha):
        """(curvature + alpha)^{-1/2} D."""
        M, T = D[1:], D[1:].T
        symmetric, antisymmetric = self.bend
        bent = (M + T) / np.sqrt(symmetric + alpha) + (M - T) / np.sqrt(antisymmetric + alpha)
        return stack(D[0] / math.sqrt(alpha), bent / 2) * self.free


class Columns:
    """λ Σ_k sqrt(n_k) ‖z_k‖ = λ Σ_g sqrt(K_g) ‖C_g‖ over columns, for (CVX+), with the same attributes."""

    def __init__(self, blocks, Y, t):
        weight = blocks.lam * np.sqrt(blocks.counts)
        length = np.linalg.norm(Y, axis=0)
        norms = np.maximum(length - t * weight, 0.0)
        self.unit = Y / np.where(length > 0, length, 1.0)
        self.point = norms * self.unit
        self.dual = np.minimum(length / t, weight) * self.unit
        self.value = weight @ norms
        self.rank = int(min(blocks.counts @ (norms > 0), blocks.K - 1))
        exists = np.vstack([blocks.more > 0, np.ones((blocks.G, blocks.G), dtype=bool)])
        self.free = (norms > 0) & exists
        self.bend = np.where(norms > 0, weight, 0.0) / np.where(norms > 0, norms, 1.0)

    def to_basis(self, D):
        return D * self.free

    def from_basis(self, D):
        return D

    def curvature(self, D):
        return self.bend * (D - self.unit * (self.unit * D).sum(-2)[..., None, :])

    def inverse_root(self, D, alpha):
        along = self.unit * (self.unit * D).sum(0)
        return ((D - along) / np.sqrt(self.bend + alpha) + along / math.sqrt(alpha)) * self.free


class Iterate:
    """A point C, the proximal point of a gradient step from it, and a dual point.

    `primal` is the objective at the proximal point, `envelope` ≥ primal its quadratic bound; `probabilities` are dual
    feasible, and `dual` is their value.
    """

    def __init__(self, blocks, Term, C, bias):
        at = Smooth(blocks, C, bias)
        safe = 2 * blocks.N  # 1 over the global Lipschitz constant
        t = max(1 / at.lipschitz, safe)
        while True:
            self.term = Term(blocks, C - t * at.gradient, t)
            self.smooth = Smooth(blocks, self.term.point, at.bias)
            move = self.term.point - C
            self.primal = self.smooth.value + self.term.value
            model = np.vdot(at.gradient, move) + np.vdot(move, move) / (2 * t)
            self.envelope = at.value + model + self.term.value
            if t == safe or self.primal <= self.envelope + ROUNDING * self.primal:
                break
            t = max(t / 4, safe)
        self.blocks, self.p, self.move, self.t = blocks, at.p, move, t

    @cached_property
    def dual(self):
        return self.blocks.dual_value(self.probabilities)

    @cached_property
    def probabilities(self):
        """Those of the subgradient; where one is negative, as far towards them from the scaled p as none is."""
        blocks, p = self.blocks, self.p
        q = blocks.probabilities((1 - ROUNDING / 2) * self.term.dual)
        if q.min() >= 0:
            return q
        excess = self.move / self.t  # the gradient, which p belongs to, is the subgradient plus the excess
        y = np.abs(excess[0]) / (blocks.lam * np.maximum(blocks.y_weight, 1))
        p = p * (1 - ROUNDING / 2) / (1 + max(np.linalg.norm(excess[1:]) / blocks.lam, y.max()))
        falling = q < p
        return p + (q - p) * (1 - 1e-9) * (p[falling] / (p - q)[falling]).min(initial=1.0)


def newton_step(smooth, term):
    """Newton's step (G + 1, G) from the proximal point, over the directions in which the term is smooth there."""
    right = -term.to_basis(smooth.gradient + term.dual)
    operator = lambda D: term.to_basis(smooth.hessian(term.from_basis(D))) + term.curvature(D)
    free = np.flatnonzero(term.free)
    if right.size > DENSE:
        return term.from_basis(conjugate_gradients(operator, right, preconditioner(smooth, term)))
    step = np.zeros(right.size)
    if len(free):
        basis = np.zeros((len(free), right.size))
        basis[np.arange(len(free)), free] = 1.0
        matrix = operator(basis.reshape(-1, *right.shape)).reshape(len(free), -1)[:, free]
        step[free] = np.linalg.solve(matrix, right.ravel()[free])
    return term.from_basis(step.reshape(right.shape))


def preconditioner(smooth, term):
    """(C + α)^{-1/2} (H + α)⁻¹ (C + α)^{-1/2} ≈ (C + H)⁻¹, as a function of directions in the basis.

    C is the term's curvature and H the second derivative at fixed bias: each alone is inverted at once, C in the basis of
    singular vectors, H column by column. α is of the size of most eigenvalues of H. Source: ours, a symmetric form of the
    alternating-direction method of Peaceman and Rachford (1955)."""
    alpha = math.exp(np.log(np.maximum(smooth.p, 1e-300)).mean()) / smooth.blocks.N
    inverse = smooth.shifted_inverse(alpha)

    def apply(D):
        D = inverse(term.from_basis(term.inverse_root(D, alpha)))
        return term.inverse_root(term.to_basis(D), alpha)

    return apply


def conjugate_gradients(operator, right, precondition, most=200, accuracy=1e-4):
    """Solve operator(step) = right, symmetric and positive definite, to a relative accuracy in the preconditioned norm."""
    step, residual, direction, size = np.zeros_like(right), right, 0.0, 1.0
    goal = None
    for _ in range(most):
        z = precondition(residual)
        before, size = size, np.vdot(residual, z)
        goal = accuracy**2 * size if goal is None else goal
        if size <= goal:
            break
        direction = z + size / before * direction
        image = operator(direction)
        length = size / np.vdot(direction, image)
        step, residual = step + length * direction, residual - length * image
    return step


@dataclass(frozen=True)
class Minimum:
    """Where `minimise` stopped: C, bias of the groups, primal and dual value, dual probabilities, iterations, rank."""

    point: np.ndarray
    bias: np.ndarray
    primal: float
    dual: float
    probabilities: np.ndarray
    iterations: int
    rank: int


def minimise(blocks, Term, tol, most):
    """Minimise loss, bias penalty and a norm until primal − dual ≤ tol · primal, in `most` iterations at most.

    The gap is of second order in the error of the point, so one more Newton step follows, which leaves rounding there.
    blocks : Blocks.   Term : Nuclear for (CVX), Columns for (CVX+).   Returns a `Minimum`.
    """
    start, bias = blocks.start(), np.zeros(blocks.G)
    if blocks.G > COARSE:
        coarse, part = blocks.merged(blocks.G // 4)
        found = minimise(coarse, Term, max(tol, 1e-4), most)
        start, bias = blocks.point(coarse.margins(found.point)[np.ix_(part, part)]), found.bias[part]
    now = best = Iterate(blocks, Term, start, bias)
    done, fall = False, 0.0
    for iteration in range(1, most + 1):
        # convergence is quadratic: after a larger fall of the objective the gap is above tol, and not computed
        if fall <= 10 * math.sqrt(tol) * now.primal or iteration == most:
            best = max(best, now, key=lambda iterate: iterate.dual)  # dual bounds hold whatever comes later
            before, done = done, now.primal - best.dual <= tol * now.primal
            if (done and before) or iteration == most:
                break
        trial = descend(blocks, Term, now)
        fall, now = now.primal - trial.primal, trial
    return Minimum(
        now.term.point, now.smooth.bias, now.primal, best.dual, best.probabilities, iteration, now.term.rank)


def descend(blocks, Term, now):
    """The iterate after Newton's step from `now`, cut back until the envelope is not above the objective there."""
    step, fraction = newton_step(now.smooth, now.term), 1.0
    bias, follow = now.smooth.bias, now.smooth.bias_change(step)
    if np.abs(follow).max() > 1.0:  # a prediction to first order is worth something near by only
        follow = np.zeros_like(bias)
    while True:  # fraction 0, the proximal gradient step, never raises the envelope
        trial = Iterate(blocks, Term, now.term.point + fraction * step, bias + fraction * follow)
        if fraction == 0 or trial.envelope <= now.primal * (1 + ROUNDING):
            return trial
        fraction = fraction / 4 if fraction > 1e-10 else 0.0
