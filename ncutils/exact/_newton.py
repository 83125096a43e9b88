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

from ._blocks import Blocks, diagonal
from ._loss import SmoothPart, smooth_part
from ._norms import Norm

COARSE = 64  # groups of equal weight from which on neighbouring sizes are merged for the start
ROUNDING = 1e-14  # of the objective
# of the preconditioner: between two shifts, and from the first to the last at most
TWO_DECADES, DECADES = math.log(1e2), math.log(1e32)
# damping of Newton's step: the first that is tried, the least, the factor between two, the tries
FIRST_DAMPING, LEAST_DAMPING, DAMPING_FACTOR, DAMPING_TRIES = 0.1, 0.01, 8.0, 12
FRACTIONS = 1.0, 0.25, 0.0625  # of an undamped step, tried before it is damped
# an active set is taken for that of the optimum if no length is nearer, relatively, to a change
CLEAR = 1e-2
PATIENCE = 5  # iterations without a fall of the objective that end the method


@dataclass(eq=False)
class Iterate:
    """A forward-backward step from one point, and a dual point. Made by `forward_backward`.

    Attributes
    ----------
    smooth, norm : both parts of the objective at the proximal point, where the step ends.
    primal : the objective there.
    envelope : its quadratic bound from where the step began, ≥ primal.
    p : probabilities (G, G) where the step began.
    damping : of the Newton step that led here, from which the next one starts.
    change : the largest change of a margin by that step, in nats.
    """

    smooth: SmoothPart
    norm: Norm
    primal: float
    envelope: float
    p: np.ndarray
    damping: float = 0.0
    change: float = math.inf

    @cached_property
    def probabilities(self):
        """A point q (G, G) of the dual: that of the subgradient, and p in the places where that is
        negative.

        It is feasible by construction, whatever the subgradient is worth: what counts is the norm
        of the matrix that belongs to q, which is computed from q."""
        blocks = self.smooth.blocks
        q = blocks.probabilities(self.norm.subgradient)
        return blocks.feasible(np.where(q > 0, q, self.p), self.norm.dual_norm)

    @cached_property
    def dual(self):
        """The value of the dual at `probabilities`."""
        return self.smooth.blocks.dual_value(self.probabilities)


def forward_backward(blocks, norm_at, C, bias):
    """The `Iterate` of a gradient step from C and the proximal point of the norm, its length cut
    back until the quadratic bound holds, at most to that of the global Lipschitz constant.
    """
    at = smooth_part(blocks, C, bias, most=1)  # more would not raise the order of convergence
    # Newton's step for many groups takes the bias for the best
    accuracy = 1e-6 if blocks.dense else 1e-16
    safe = 2 * blocks.inverse_weights.min()  # 1 over the global Lipschitz constant
    t = max(1 / at.lipschitz, safe)
    for _ in range(80):
        norm = norm_at(blocks, C - t * at.gradient, t)
        smooth = smooth_part(blocks, norm.point, at.bias, accuracy)
        move = norm.point - C
        primal = smooth.value + norm.value
        model = np.vdot(at.gradient, move) + np.vdot(move, move) / (2 * t)
        envelope = at.value + model + norm.value
        if t == safe or primal <= envelope + ROUNDING * primal:
            break
        t = max(t / 4, safe)
    return Iterate(smooth, norm, primal, envelope, at.p)


def newton_step(smooth, norm, damping=0.0):
    """Newton's step (G + 1, G) from the proximal point, over the directions in which the norm is
    smooth there; and how the bias (G,) follows, to first order.

    With `damping` μ > 0, curvature is added to the norm so that no singular value changes by much
    more than 1/μ of itself: the norm's quadratic model, which has no curvature along a singular
    value, knows nothing of its being 0 further on."""
    solver = direct_step if smooth.blocks.dense else iterative_step
    return solver(smooth, norm, damping)


def direct_step(smooth, norm, damping):
    """`newton_step` by one linear system in the active coordinates and the bias."""
    blocks, slope = smooth.blocks, smooth.gradient + norm.subgradient
    nothing = np.zeros_like(slope), np.zeros(blocks.G)
    active = np.flatnonzero(norm.active)
    if not len(active) and not blocks.biased:
        return nothing
    basis, n = blocks.basis[active], len(active)
    directions = norm.from_basis(basis).reshape(n, slope.size)
    margins, right = directions @ blocks.margin_matrix, directions @ slope.reshape(slope.size)
    if blocks.biased:
        margins = np.concatenate([margins, blocks.bias_margin_matrix])
        right = np.concatenate([right, smooth.bias_gradient])
    matrix = smooth.matrix(margins)
    matrix[:n, :n] += norm.curvature(basis, damping).reshape(n, slope.size)[:, active]
    if blocks.biased:
        diagonal(matrix[n:, n:])[:] += blocks.bias_curvature
    _, _, step, failed = dgesv(matrix, -right)
    if failed:  # there is no curvature at all in some direction
        return nothing
    follow = step[n:] if blocks.biased else np.zeros(blocks.G)
    return (step[:n] @ directions).reshape(slope.shape), follow


def iterative_step(smooth, norm, damping):
    """`newton_step` by conjugate gradients, for many groups."""

    def operator(D):
        return norm.to_basis(smooth.hessian(norm.from_basis(D))) + norm.curvature(D, damping)

    step = norm.from_basis(
        conjugate_gradients(
            operator,
            -norm.to_basis(smooth.gradient + norm.subgradient),
            preconditioner(smooth, norm, damping),
            accuracy=1e-2 if damping else 1e-4,
        )
    )
    return step, smooth.bias_change(step)


def preconditioner(smooth, norm, damping):
    """Σ α (C + α)^{-1/2} (H + α)⁻¹ (C + α)^{-1/2} ≈ (C + H)⁻¹, as a function of directions in the
    basis.

    C is the norm's curvature, damping included, and H the second derivative at fixed bias: each
    alone is inverted at once, C in the basis of singular vectors, H column by column. The shifts α,
    one in two decades, span most of the p w/N, of which the eigenvalues of H are made. If the two
    had common eigenvectors with values c and h, the sum would be, but for a constant, about
    ∫ dα/((c + α)(h + α)) = ln(h/c)/(h − c), which is 1/(c + h) up to a factor that grows with
    |ln(h/c)| only. Source: ours, after the alternating-direction method of Peaceman and Rachford
    (1955)."""
    log_p = np.log(np.maximum(smooth.p, 1e-300))
    low, high = np.quantile(log_p - np.log(smooth.blocks.inverse_weights), [0.05, 0.95])
    low = max(low, high - DECADES)  # below, rounding decides
    count = 1 + round((high - low) / TWO_DECADES)
    shifts = np.exp(low + (high - low) * (np.arange(count) + 0.5) / count)
    inverses = [smooth.shifted_inverse(alpha) for alpha in shifts]

    def apply(D):
        total = np.zeros_like(D)
        for alpha, inverse in zip(shifts, inverses):
            part = norm.to_basis(inverse(norm.from_basis(norm.inverse_root(D, alpha, damping))))
            total += alpha * norm.inverse_root(part, alpha, damping)
        return total

    return apply


def conjugate_gradients(operator, right, precondition, most=200, accuracy=1e-4):
    """Solve operator(x) = right, symmetric and positive definite, to a relative accuracy in the
    preconditioned norm.
    """
    x, residual, direction, size = np.zeros_like(right), right, 0.0, 1.0
    goal = None
    for _ in range(most):
        z = precondition(residual)
        before, size = size, np.vdot(residual, z)
        goal = accuracy**2 * size if goal is None else goal
        if not size > goal:  # nor NaN
            break
        direction = z + size / before * direction
        image = operator(direction)
        curvature = np.vdot(direction, image)
        if not curvature > 0:
            break
        length = size / curvature
        x, residual = x + length * direction, residual - length * image
    return x


def line_search(blocks, norm_at, now):
    """The iterate after Newton's step from `now`: whole or shortened, then more and more damped,
    until the envelope is not above the objective. If it always is, a forward-backward step, which
    never raises it.
    """
    damping, bias = now.damping, now.smooth.bias
    for tried in range(DAMPING_TRIES):
        step, follow = newton_step(now.smooth, now.norm, damping)
        if not np.isfinite(step).all():
            break
        if not follow @ follow <= 1.0:  # a prediction to first order is worth something near only
            follow = np.zeros_like(bias)
        for fraction in FRACTIONS if damping == 0 else (1.0,):
            trial = forward_backward(
                blocks, norm_at, now.norm.point + fraction * step, bias + fraction * follow
            )
            if trial.envelope <= now.primal * (1 + ROUNDING):
                less = damping / DAMPING_FACTOR if damping > LEAST_DAMPING else 0.0
                trial.damping = damping if tried > 1 else less
                trial.change = np.abs(blocks.margins(step) + blocks.bias_margins(follow)).max()
                return trial
        damping = max(DAMPING_FACTOR * damping, FIRST_DAMPING)
    trial = forward_backward(blocks, norm_at, now.norm.point, bias)
    trial.damping = damping
    return trial


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


def starting_point(blocks, norm_at, tol, most):
    """C and bias to start from: the closed form of `Blocks.start`; for many groups of equal weight
    the solution with neighbouring sizes merged. (Where weights differ, neighbours are not alike,
    and it would take longer.)
    """
    if blocks.G <= COARSE or np.ptp(blocks.inverse_weights) > 0:
        return blocks.start(), np.zeros(blocks.G)
    coarse, part = blocks.merged(blocks.G // 4)
    found = minimise(coarse, norm_at, max(tol, 1e-4), most)
    return blocks.point(coarse.margins(found.point)[np.ix_(part, part)]), found.bias[part]


def minimise(blocks: Blocks, norm_at, tol, most):
    """Minimise loss, bias penalty and a norm until primal − dual ≤ tol · primal, in `most`
    iterations at most; sooner where rounding keeps the objective from falling further.

    The gap is of second order in the error of the point, and hardly sees the margins of a few small
    classes. So the last Newton step may have changed no margin by more than √tol nats, after which
    the next would change them by about tol; and no change of the active set, and with it of rank
    and phase, may be near.

    norm_at : NuclearNorm for (CVX), ColumnNorm for (CVX+).   Returns a `Minimum`.
    """
    now = forward_backward(blocks, norm_at, *starting_point(blocks, norm_at, tol, most))
    best, stalled = None, 0
    for iteration in range(1, most + 1):
        settled = now.change**2 <= tol and now.norm.clearance > CLEAR
        last = stalled == PATIENCE or iteration == most
        if settled or last:  # a dual bound holds whatever comes later
            best = max(best or now, now, key=lambda iterate: iterate.dual)
            if last or now.primal - best.dual <= tol * now.primal:
                break
        after = line_search(blocks, norm_at, now)
        fell = not now.primal - after.primal <= ROUNDING * now.primal
        # a damped step may be short for another reason than rounding
        stalled = 0 if fell or after.damping > 0 else stalled + 1
        now = after
    return Minimum(
        now.norm.point,
        now.smooth.bias,
        now.primal,
        best.dual,
        best.probabilities,
        iteration,
        now.norm.rank,
    )
