"""Newton's method for a smooth function plus a norm: what solves (CVX) and (CVX+) in the blocks of
`blocks.py`.

Each iteration takes a proximal gradient step, which finds the active singular values (or columns),
and then Newton's step over the directions in which the norm is smooth, cut back until the
forward-backward envelope has not risen. Far from the optimum this is a descent method, near it
convergence is quadratic. Source: A. Themelis, L. Stella and P. Patrinos, SIAM J. Optim. 28 (2018),
for the globalisation; the curvature of the norm, the start and the certificate are ours.
"""

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy.linalg.lapack import dgesdd, dgesv  # half of NumPy's time on a few numbers

from .blocks import Smooth, diagonal, stack
from .ufm import ON_THE_LINE

# groups of equal weight from which on the start is the solution with neighbouring sizes merged
COARSE = 64
ROUNDING = 1e-14
TWO_DECADES, DECADES = (
    math.log(1e2),
    math.log(1e32),
)  # between two shifts of the preconditioner; all of them at most
STRONG, WEAK, TIMES, TRIES = (
    0.1,
    0.01,
    8.0,
    12,
)  # the damping of Newton's step: first, last, its changes, their number
SHORTER = 1.0, 0.25, 0.0625  # an undamped step is shortened before it is damped
# an active set is taken for that of the optimum if no length is nearer, relatively, to a change
CLEAR = 1e-2
STILL = 5  # iterations without a fall of the objective that end the method


def svd(M):
    """U, s, Vᵀ of a matrix M (m, n); with m = 0, too."""
    if not len(M):
        return np.eye(0), np.zeros(0), np.eye(M.shape[1])
    U, s, Vt, failed = dgesdd(M)
    return np.linalg.svd(M) if failed else (U, s, Vt)


def shrink(lengths, by):
    """max(lengths − by, 0); also 0 where the difference is ON_THE_LINE or less of `by`: there
    rounding would decide.
    """
    return np.where(lengths > by * (1 + ON_THE_LINE), lengths - by, 0.0)


class Nuclear:
    """λ ‖X‖_* = λ (Σ sqrt(K_g − 1) |y_g| + ‖M‖_*), at its proximal point with step t from Y.

    point, value : the proximal point C and the term there.   dual : (Y − C)/t, a subgradient.   rank : of X.
    free : directions in the basis of singular vectors in which the term is smooth.
    """

    def __init__(self, blocks, Y, t):
        self.blocks, self.lam, self.Y, self.t = blocks, blocks.lam, Y, t
        U, s, self.Vt = svd(blocks.balanced @ Y[1:])
        lengths, weight = np.zeros(2 * blocks.G), blocks.lam * blocks.norm_weight
        lengths[: blocks.G], lengths[blocks.G : -1] = np.abs(Y[0]), s
        self.U = np.empty(
            (blocks.G, blocks.G)
        )  # the last column has no part in a Z whose columns sum to zero, nor may rounding
        self.U[:, :-1], self.U[:, -1] = blocks.balanced.T @ U, blocks.unit
        self.shrunk, self.pressure = shrink(lengths, t * weight), np.minimum(lengths / t, weight)
        self.point = self._compose(self.shrunk)
        self.value = weight @ self.shrunk

    def _compose(self, lengths):
        """The point with these |y| and singular values of M, and the signs and singular vectors of
        Y.
        """
        y, s = lengths.reshape(2, -1)
        return stack(np.copysign(y, self.Y[0]), (self.U * s) @ self.Vt)

    @cached_property
    def dual(self):
        return self._compose(self.pressure)

    @staticmethod
    def dual_norm(blocks, D):
        """The largest singular value of the matrix with coordinates D (G + 1, G)."""
        within = np.abs(D[0]) / np.maximum(blocks.y_weight, 1)  # of K_g − 1 singular vectors each
        return max(within.max(), dgesdd(D[1:], compute_uv=0)[1][0])

    @property
    def clearance(self):
        """How far the active set is from another one: the least relative distance of a length from
        where it would become 0 or, if it is 0, would not be."""
        weight = self.lam * self.blocks.norm_weight
        exists = weight > 0
        exists[-1] = False  # columns of Z sum to zero
        active, slack = self.shrunk / self.t, weight - self.pressure
        return (np.where(self.shrunk > 0, active, slack)[exists] / weight[exists]).min(initial=1.0)

    @property
    def rank(self):
        return round(self.blocks.norm_weight**2 @ (self.shrunk > 0))

    @cached_property
    def free(self):
        y, s = (self.shrunk > 0).reshape(2, -1)
        M = s[:, None] | s
        M[-1] = False  # columns of Z sum to zero
        return stack(y, M)

    @cached_property
    def bend(self):
        """Curvature in the basis: what multiplies M, and M transposed. Where the term is not smooth
        it is never asked for.
        """
        (_, s), (_, pressure) = self.shrunk.reshape(2, -1), self.pressure.reshape(2, -1)
        total = np.where(self.free[1:], s[:, None] + s, 1.0)
        turned = (self.lam - pressure[:, None] - pressure) / total * self.free[1:]
        return self.lam / total, turned

    @cached_property
    def relative(self):
        """λ sqrt(K_g − 1) over a length |y|, and 2 λ over the sum of two singular values, of which
        one may be 0.
        """
        lengths = np.where(self.free[0], self.shrunk[: self.blocks.G], 1.0)
        return stack(self.lam * self.blocks.y_weight / lengths, 2 * self.bend[0])

    def to_basis(self, D):
        return stack(D[0], self.U.T @ D[1:] @ self.Vt.T) * self.free

    def from_basis(self, D):
        return np.concatenate([D[..., :1, :], self.U @ D[..., 1:, :] @ self.Vt], axis=-2)

    def curvature(self, D, damping=0.0):
        """Second derivative of the term along D (…, G + 1, G), in the basis; of a pair of which one
        singular value is 0, that at the subgradient `dual`. `damping` μ > 0 adds μ times what
        `relative` says: near the optimum, where slopes are not above λ, a length σ then changes by
        about σ/μ at most."""
        straight, turned = self.bend
        bent = damping * self.relative * D if damping else np.zeros_like(D)
        bent[..., 1:, :] += straight * D[..., 1:, :] + turned * D[..., 1:, :].swapaxes(-1, -2)
        return bent

    def inverse_root(self, D, alpha, damping=0.0):
        """(curvature + alpha)^{-1/2} D."""
        M, T = D[1:], D[1:].T
        straight, turned = self.bend
        alpha = alpha + damping * self.relative
        bent = (M + T) / np.sqrt(straight + turned + alpha[1:]) + (M - T) / np.sqrt(
            straight - turned + alpha[1:]
        )
        return stack(D[0] / np.sqrt(alpha[0]), bent / 2) * self.free


class Columns:
    """λ Σ_k sqrt(n_k) ‖z_k‖ = λ Σ_g sqrt(K_g) ‖C_g‖ over columns, for (CVX+), with the same
    attributes.
    """

    def __init__(self, blocks, Y, t):
        weight = blocks.lam * np.sqrt(blocks.counts)
        length = np.linalg.norm(Y, axis=0)
        norms = shrink(length, t * weight)
        unit = Y / np.where(length > 0, length, 1.0)
        self.point = norms * unit
        self.dual = np.minimum(length / t, weight) * unit
        self.value = weight @ norms
        self.rank = int(min(blocks.counts @ (norms > 0), blocks.K - 1))
        self.clearance = (np.where(norms > 0, norms / t, weight - length / t) / weight).min()
        exists = np.vstack([blocks.more > 0, np.ones((blocks.G, blocks.G), dtype=bool)])
        self.free = (norms > 0) & exists
        self.unit = unit * (norms > 0)
        self.bend = weight / np.where(norms > 0, norms, 1.0)

    @staticmethod
    def dual_norm(blocks, D):
        """The length of the longest column of the matrix with coordinates D (G + 1, G)."""
        return (np.linalg.norm(D, axis=0) / np.sqrt(blocks.counts)).max()

    def to_basis(self, D):
        return D * self.free

    def from_basis(self, D):
        return D

    def curvature(self, D, damping=0.0):
        return self.bend * ((1 + damping) * D - self.unit * (self.unit * D).sum(-2)[..., None, :])

    def inverse_root(self, D, alpha, damping=0.0):
        along, alpha = self.unit * (self.unit * D).sum(0), alpha + damping * self.bend
        return ((D - along) / np.sqrt(self.bend + alpha) + along / np.sqrt(alpha)) * self.free


class Iterate:
    """A point C, the proximal point of a gradient step from it, and a dual point.

    `primal` is the objective at the proximal point, `envelope` ≥ primal its quadratic bound; `dual`
    is the value of the dual at `probabilities`.
    """

    def __init__(self, blocks, Term, C, bias):
        at = Smooth(blocks, C, bias, most=1)  # more would not raise the order of convergence
        accuracy = (
            1e-16 if blocks.margin_matrix is None else 1e-6
        )  # Newton's step for many groups takes the bias for the best
        safe = 2 * blocks.per.min()  # 1 over the global Lipschitz constant
        t = max(1 / at.lipschitz, safe)
        for _ in range(80):
            self.term = Term(blocks, C - t * at.gradient, t)
            self.smooth = Smooth(blocks, self.term.point, at.bias, accuracy)
            move = self.term.point - C
            self.primal = self.smooth.value + self.term.value
            model = np.vdot(at.gradient, move) + np.vdot(move, move) / (2 * t)
            self.envelope = at.value + model + self.term.value
            if t == safe or self.primal <= self.envelope + ROUNDING * self.primal:
                break
            t = max(t / 4, safe)
        self.blocks, self.p, self.damping, self.change = blocks, at.p, 0.0, math.inf

    @cached_property
    def probabilities(self):
        """A point q (G, G) of the dual: that of the subgradient, and p in the places where that is
        negative.

        It is feasible by construction, whatever the subgradient is worth: what counts is the norm
        of the matrix that belongs to q, which is computed from q."""
        q = self.blocks.probabilities(self.term.dual)
        return self.blocks.feasible(np.where(q > 0, q, self.p), self.term.dual_norm)

    @cached_property
    def dual(self):
        return self.blocks.dual_value(self.probabilities)


def newton_step(smooth, term, damping=0.0):
    """Newton's step (G + 1, G) from the proximal point, over the directions in which the term is
    smooth there; and how the bias (G,) follows, to first order.

    With `damping` μ > 0, curvature is added to the term so that no singular value changes by much
    more than 1/μ of itself: the term's quadratic model, which has no curvature along a singular
    value, knows nothing of its being 0 further on."""
    blocks, slope = smooth.blocks, smooth.gradient + term.dual
    if blocks.margin_matrix is None:
        operator = lambda D: (
            term.to_basis(smooth.hessian(term.from_basis(D))) + term.curvature(D, damping)
        )
        step = term.from_basis(
            conjugate_gradients(
                operator,
                -term.to_basis(slope),
                preconditioner(smooth, term, damping),
                accuracy=1e-2 if damping else 1e-4,
            )
        )
        return step, smooth.bias_change(step)
    free = np.flatnonzero(term.free)
    if not len(free) and not blocks.biased:
        return np.zeros_like(slope), np.zeros(blocks.G)
    basis = blocks.basis[free]
    directions = term.from_basis(basis).reshape(len(free), slope.size)
    margins, right = directions @ blocks.margin_matrix, directions @ slope.reshape(slope.size)
    if blocks.biased:
        margins, right = (
            np.concatenate([margins, blocks.tilt]),
            np.concatenate([right, smooth.tilt]),
        )
    matrix, n = smooth.matrix(margins), len(free)
    matrix[:n, :n] += term.curvature(basis, damping).reshape(n, slope.size)[:, free]
    if blocks.biased:
        diagonal(matrix[n:, n:])[:] += blocks.stiffness
    _, _, step, failed = dgesv(matrix, -right)
    if failed:  # there is no curvature at all in some direction
        return np.zeros_like(slope), np.zeros(blocks.G)
    return (step[:n] @ directions).reshape(slope.shape), step[n:] if blocks.biased else np.zeros(
        blocks.G
    )


def preconditioner(smooth, term, damping):
    """Σ α (C + α)^{-1/2} (H + α)⁻¹ (C + α)^{-1/2} ≈ (C + H)⁻¹, as a function of directions in the
    basis.

    C is the term's curvature, damping included, and H the second derivative at fixed bias: each
    alone is inverted at once, C in the basis of singular vectors, H column by column. The shifts α,
    one in two decades, span most of the p/per, of which the eigenvalues of H are made. If the two
    had common eigenvectors with values c and h, the sum would be, but for a constant, about ∫
    dα/((c + α)(h + α)) = ln(h/c)/(h − c), which is 1/(c + h) up to a factor that grows with
    |ln(h/c)| only. Source: ours, after the alternating-direction method of Peaceman and Rachford
    (1955)."""
    low, high = np.quantile(
        np.log(np.maximum(smooth.p, 1e-300)) - np.log(smooth.blocks.per), [0.05, 0.95]
    )
    low = max(low, high - DECADES)  # below, rounding decides
    count = 1 + round((high - low) / TWO_DECADES)
    shifts = np.exp(low + (high - low) * (np.arange(count) + 0.5) / count)
    inverses = [smooth.shifted_inverse(alpha) for alpha in shifts]

    def apply(D):
        total = np.zeros_like(D)
        for alpha, inverse in zip(shifts, inverses):
            part = term.to_basis(inverse(term.from_basis(term.inverse_root(D, alpha, damping))))
            total += alpha * term.inverse_root(part, alpha, damping)
        return total

    return apply


def conjugate_gradients(operator, right, precondition, most=200, accuracy=1e-4):
    """Solve operator(step) = right, symmetric and positive definite, to a relative accuracy in the
    preconditioned norm.
    """
    step, residual, direction, size = np.zeros_like(right), right, 0.0, 1.0
    goal = None
    for _ in range(most):
        z = precondition(residual)
        before, size = size, np.vdot(residual, z)
        goal = accuracy**2 * size if goal is None else goal
        if not size > goal:  # nor NaN
            break
        direction = z + size / before * direction
        image = operator(direction)
        bend = np.vdot(direction, image)
        if not bend > 0:
            break
        length = size / bend
        step, residual = step + length * direction, residual - length * image
    return step


@dataclass(frozen=True)
class Minimum:
    """Where `minimise` stopped: C, bias of the groups, primal and dual value, dual probabilities,
    iterations, rank.
    """

    point: np.ndarray
    bias: np.ndarray
    primal: float
    dual: float
    probabilities: np.ndarray
    iterations: int
    rank: int


def minimise(blocks, Term, tol, most):
    """Minimise loss, bias penalty and a norm until primal − dual ≤ tol · primal, in `most`
    iterations at most; sooner where rounding keeps the objective from falling further.

    The gap is of second order in the error of the point, and hardly sees the margins of a few small
    classes. So the last Newton step may have changed no margin by more than √tol nats, after which
    the next would change them by about tol; and no change of the active set, and with it of rank
    and phase, may be near.
    blocks : Blocks.   Term : Nuclear for (CVX), Columns for (CVX+).   Returns a `Minimum`.
    """
    start, bias = blocks.start(), np.zeros(blocks.G)
    if (
        blocks.G > COARSE and np.ptp(blocks.per) == 0
    ):  # where weights differ, neighbours are not alike, and it takes longer
        coarse, part = blocks.merged(blocks.G // 4)
        found = minimise(coarse, Term, max(tol, 1e-4), most)
        start, bias = (
            blocks.point(coarse.margins(found.point)[np.ix_(part, part)]),
            found.bias[part],
        )
    now, best, still = Iterate(blocks, Term, start, bias), None, 0
    for iteration in range(1, most + 1):
        settled, last = (
            now.change**2 <= tol and now.term.clearance > CLEAR,
            still == STILL or iteration == most,
        )
        if settled or last:
            best = max(
                best or now, now, key=lambda iterate: iterate.dual
            )  # dual bounds hold whatever comes later
            if last or now.primal - best.dual <= tol * now.primal:
                break
        trial = descend(blocks, Term, now)
        # a damped step may be short for another reason than rounding
        still = (
            still + 1
            if now.primal - trial.primal <= ROUNDING * now.primal and trial.damping == 0
            else 0
        )
        now = trial
    return Minimum(
        now.term.point,
        now.smooth.bias,
        now.primal,
        best.dual,
        best.probabilities,
        iteration,
        now.term.rank,
    )


def descend(blocks, Term, now):
    """The iterate after Newton's step from `now`, shortened, then damped until the envelope is not
    above the objective.
    """
    damping, bias = now.damping, now.smooth.bias
    for tried in range(TRIES):
        step, follow = newton_step(now.smooth, now.term, damping)
        if not np.isfinite(step).all():
            break
        if (
            not follow @ follow <= 1.0
        ):  # a prediction to first order is worth something near by only
            follow = np.zeros_like(bias)
        for fraction in SHORTER if damping == 0 else (1.0,):
            trial = Iterate(
                blocks, Term, now.term.point + fraction * step, bias + fraction * follow
            )
            if trial.envelope <= now.primal * (1 + ROUNDING):
                easy = damping / TIMES if damping > WEAK else 0.0
                trial.damping, trial.change = (
                    damping if tried > 1 else easy,
                    np.abs(blocks.margins(step) + blocks.shift(follow)).max(),
                )
                return trial
        damping = max(TIMES * damping, STRONG)
    trial = Iterate(
        blocks, Term, now.term.point, bias
    )  # the proximal gradient step never raises the envelope
    trial.damping = damping
    return trial
