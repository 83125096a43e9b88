"""Newton's method for a smooth function plus a norm: what solves (CVX) and (CVX+) in the blocks of
`_blocks.py`.

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
from scipy.linalg.lapack import dgesv

from ._blocks import diagonal
from ._loss import Smooth

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
