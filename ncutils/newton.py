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

from .blocks import Smooth, diagonal, stack

COARSE = 16  # groups from which on the start is the solution with groups merged
ROUNDING = 1e-14
STILL = 5  # iterations without a fall of the objective that end the method


class Nuclear:
    """λ ‖X‖_* = λ (Σ sqrt(K_g − 1) |y_g| + ‖M‖_*), at its proximal point with step t from Y.

    point, value : the proximal point C and the term there.   dual : (Y − C)/t, a subgradient.   rank : of X.
    free : directions in the basis of singular vectors in which the term is smooth.
    """

    def __init__(self, blocks, Y, t):
        self.blocks, self.lam, self.Y = blocks, blocks.lam, Y
        self.U, s, self.Vt = np.linalg.svd(Y[1:])
        lengths, weight = np.concatenate([np.abs(Y[0]), s]), blocks.lam * blocks.norm_weight
        self.shrunk, self.pressure = np.maximum(lengths - t * weight, 0.0), np.minimum(lengths / t, weight)
        self.point = self._compose(self.shrunk)
        self.value = weight @ self.shrunk

    def _compose(self, lengths):
        """The point with these |y| and singular values of M, and the signs and singular vectors of Y."""
        y, s = lengths.reshape(2, -1)
        return stack(np.copysign(y, self.Y[0]), (self.U * s) @ self.Vt)

    @cached_property
    def dual(self):
        return self._compose(self.pressure)

    @property
    def rank(self):
        return round(self.blocks.norm_weight**2 @ (self.shrunk > 0))

    @cached_property
    def free(self):
        y, s = (self.shrunk > 0).reshape(2, -1)
        return stack(y, s[:, None] | s)

    @cached_property
    def bend(self):
        """Curvature in the basis: what multiplies C, and M transposed. Where the term is not smooth: λ, and 0."""
        fixed, (_, s), (_, pressure) = ~self.free, self.shrunk.reshape(2, -1), self.pressure.reshape(2, -1)
        total = s[:, None] + s + fixed[1:]
        turned = (self.lam - pressure[:, None] - pressure) / total * self.free[1:]
        return stack(self.lam * fixed[0], self.lam / total), turned

    def to_basis(self, D):
        return stack(D[0], self.U.T @ D[1:] @ self.Vt.T) * self.free

    def from_basis(self, D):
        return np.concatenate([D[..., :1, :], self.U @ D[..., 1:, :] @ self.Vt], axis=-2)

    def curvature(self, D):
        """Second derivative of the term along D (…, G + 1, G), in the basis; nonsingular where D is not free."""
        straight, turned = self.bend
        bent = straight * D
        bent[..., 1:, :] += turned * D[..., 1:, :].swapaxes(-1, -2)
        return bent

    def inverse_root(self, D, alpha):
        """(curvature + alpha)^{-1/2} D."""
        M, T = D[1:], D[1:].T
        straight, turned = self.bend[0][1:], self.bend[1]
        bent = (M + T) / np.sqrt(straight + turned + alpha) + (M - T) / np.sqrt(straight - turned + alpha)
        return stack(D[0] / math.sqrt(alpha), bent / 2) * self.free


class Columns:
    """λ Σ_k sqrt(n_k) ‖z_k‖ = λ Σ_g sqrt(K_g) ‖C_g‖ over columns, for (CVX+), with the same attributes."""

    def __init__(self, blocks, Y, t):
        weight = blocks.lam * np.sqrt(blocks.counts)
        length = np.linalg.norm(Y, axis=0)
        norms = np.maximum(length - t * weight, 0.0)
        unit = Y / np.where(length > 0, length, 1.0)
        self.point = norms * unit
        self.dual = np.minimum(length / t, weight) * unit
        self.value = weight @ norms
        self.rank = int(min(blocks.counts @ (norms > 0), blocks.K - 1))
        exists = np.vstack([blocks.more > 0, np.ones((blocks.G, blocks.G), dtype=bool)])
        self.free = (norms > 0) & exists
        self.unit = unit * (norms > 0)
        self.bend = weight / np.where(norms > 0, norms, 1.0)

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
        at = Smooth(blocks, C, bias, most=1)  # more would not raise the order of convergence
        safe = 2 * blocks.per.min()  # 1 over the global Lipschitz constant
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
    """Newton's step (G + 1, G) from the proximal point, over the directions in which the term is smooth there; and how
    the bias (G,) follows, to first order."""
    blocks, slope = smooth.blocks, smooth.gradient + term.dual
    if blocks.margin_matrix is None:
        operator = lambda D: term.to_basis(smooth.hessian(term.from_basis(D))) + term.curvature(D)
        step = term.from_basis(conjugate_gradients(operator, -term.to_basis(slope), preconditioner(smooth, term)))
        return step, smooth.bias_change(step)
    n = len(blocks.basis)
    directions = term.from_basis(blocks.basis * term.free).reshape(n, n)
    matrix = smooth.matrix(np.concatenate([directions @ blocks.margin_matrix, blocks.tilt]))
    matrix[:n, :n] += term.curvature(blocks.basis).reshape(n, n)
    diagonal(matrix[n:, n:])[:] += blocks.stiffness
    step = np.linalg.solve(matrix, np.concatenate([directions @ -slope.reshape(n), np.zeros(blocks.G)]))
    return (step[:n] @ directions).reshape(slope.shape), step[n:]


def preconditioner(smooth, term):
    """(C + α)^{-1/2} (H + α)⁻¹ (C + α)^{-1/2} ≈ (C + H)⁻¹, as a function of directions in the basis.

    C is the term's curvature and H the second derivative at fixed bias: each alone is inverted at once, C in the basis of
    singular vectors, H column by column. α is of the size of most eigenvalues of H. Source: ours, a symmetric form of the
    alternating-direction method of Peaceman and Rachford (1955)."""
    alpha = math.exp(np.log(np.maximum(smooth.p, 1e-300) / smooth.blocks.per).mean())
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
    """Minimise loss, bias penalty and a norm until primal − dual ≤ tol · primal, in `most` iterations at most; sooner where
    rounding keeps the objective from falling further.

    The gap is of second order in the error of the point, so one more Newton step follows, which leaves rounding there.
    blocks : Blocks.   Term : Nuclear for (CVX), Columns for (CVX+).   Returns a `Minimum`.
    """
    start, bias = blocks.start(), np.zeros(blocks.G)
    if blocks.G > COARSE:
        coarse, part = blocks.merged(blocks.G // 4)
        found = minimise(coarse, Term, max(tol, 1e-4), most)
        start, bias = blocks.point(coarse.margins(found.point)[np.ix_(part, part)]), found.bias[part]
    now, best, done = Iterate(blocks, Term, start, bias), None, False
    fall, still = math.inf if blocks.G > 1 else 0.0, 0  # the start of one group is the optimum
    for iteration in range(1, most + 1):
        # convergence is quadratic: after a larger fall of the objective the gap is above tol, and not computed
        if fall <= math.sqrt(tol) * now.primal or iteration == most:
            best = max(best or now, now, key=lambda iterate: iterate.dual)  # dual bounds hold whatever comes later
            before, done = done, now.primal - best.dual <= tol * now.primal
            still = still + 1 if fall <= ROUNDING * now.primal else 0
            if (done and before) or still == STILL or iteration == most:
                break
        trial = descend(blocks, Term, now)
        fall, now = now.primal - trial.primal, trial
    return Minimum(
        now.term.point, now.smooth.bias, now.primal, best.dual, best.probabilities, iteration, now.term.rank)


def descend(blocks, Term, now):
    """The iterate after Newton's step from `now`, cut back until the envelope is not above the objective there."""
    (step, follow), fraction, bias = newton_step(now.smooth, now.term), 1.0, now.smooth.bias
    if follow @ follow > 1.0:  # a prediction to first order is worth something near by only
        follow = np.zeros_like(bias)
    while True:  # fraction 0, the proximal gradient step, never raises the envelope
        trial = Iterate(blocks, Term, now.term.point + fraction * step, bias + fraction * follow)
        if fraction == 0 or trial.envelope <= now.primal * (1 + ROUNDING):
            return trial
        fraction = fraction / 4 if fraction > 1e-10 else 0.0
