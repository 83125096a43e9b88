"""Loss and bias penalty in the blocks of `_blocks.py`, minimised over the bias: value, gradient and
second derivative."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy.linalg.lapack import dgesv

from ._blocks import Blocks, diagonal

HALVINGS = 30  # of a step of the bias, at most


def bias_hessian(blocks, p):
    """Second derivative of loss and penalty in the bias of the groups, (G, G)."""
    q = blocks.outside * p
    diagonal(q)[:] = 1 - q.sum(0)
    H = q * -blocks.weights @ q.T * blocks.off_diagonal
    diagonal(H)[:] = blocks.bias_curvature - H.sum(0)
    return H


def best_bias(blocks, E, b, accuracy=1e-16, most=100):
    """The bias (G,) that minimises loss and penalty at margins E (without bias), by Newton's method
    from b; loss and p there.

    No step follows one that was worth less than `accuracy` of the value, nor after `most`
    steps."""
    loss, p = blocks.softmax(E + blocks.bias_margins(b) if blocks.biased else E)
    if not blocks.biased:
        return b, loss, p
    value = blocks.value(loss, b)
    for _ in range(most):
        slope = blocks.bias_margins_adjoint(p) + blocks.bias_curvature * b
        _, _, step, failed = dgesv(bias_hessian(blocks, p), slope)
        decrease, fraction, before = slope @ step, 1.0, value
        if failed or not decrease > 1e-32 * value:  # nor NaN
            break
        for _ in range(HALVINGS):
            new = b - fraction * step
            loss, p = blocks.softmax(E + blocks.bias_margins(new))
            value = blocks.value(loss, new)
            # near the optimum differences of the value are rounding, and the full step is right
            if decrease < 1e-12 * before or value <= before - 0.25 * fraction * decrease:
                break
            fraction /= 2
        b = new
        if decrease < accuracy * value:
            break
    return b, loss, p


def smooth_part(blocks, C, bias, accuracy=1e-16, most=100):
    """The `SmoothPart` at C, with the best bias as `best_bias` finds it from `bias`.

    With less accuracy, or after `most` steps, the bias is taken as it is: the value is then an
    upper bound, the gradient that at fixed bias, and `bias_gradient` (G,) not zero."""
    return SmoothPart(blocks, *best_bias(blocks, blocks.margins(C), bias, accuracy, most))


@dataclass(eq=False)
class SmoothPart:
    """Loss and bias penalty at one point C: the bias (G,) there, the loss (G,) of a sample of each
    group and the probabilities p (G, G) of the other classes. Made by `smooth_part`."""

    blocks: Blocks
    bias: np.ndarray
    loss: np.ndarray
    p: np.ndarray

    @cached_property
    def value(self):
        return self.blocks.value(self.loss, self.bias)

    @cached_property
    def gradient(self):
        """In C (G + 1, G)."""
        return self.blocks.margins_adjoint(self.p)

    @property
    def bias_gradient(self):
        """In the bias (G,): 0 where it is the best one."""
        slope = self.blocks.bias_margins_adjoint(self.p) + self.blocks.bias_curvature * self.bias
        return self.blocks.biased * slope

    @property
    def lipschitz(self):
        """A bound of the second derivative here: 2 max w p (1 − p)/N by Gershgorin; no less than a
        hundredth of what it is near the optimum, where w (1 − p_own) is about λ_Z N/sqrt(n)."""
        # above 1/2, no p (1 − p) exceeds that at 1/2; below, none exceeds that of the own class
        rest = np.minimum(-np.expm1(-self.loss), 0.5)
        spread = (rest * (1 - rest) / self.blocks.inverse_weights).max()
        return 2 * max(spread, self.blocks.least_spread)

    @cached_property
    def own(self):
        """Probabilities of the own class (G,)."""
        return np.exp(-self.loss)

    @cached_property
    def _bias_inverse(self):
        return np.linalg.inv(bias_hessian(self.blocks, self.p))

    def matrix(self, E):
        """The second derivative of the loss, as a matrix (m, m) over m directions with margins E
        (m, G²).
        """
        blocks = self.blocks
        part = E * (blocks.weighted_others * self.p).reshape(-1)
        mean = part.reshape(-1, blocks.G, blocks.G).sum(1)  # of E over each softmax, times weights
        return part @ E.T - mean / blocks.weights @ mean.T

    def _change(self, E):
        """What margins that change by E do to p."""
        return self.p * (E - (self.blocks.others * self.p * E).sum(0))

    def bias_change(self, D):
        """How the bias (G,) follows a direction D (G + 1, G), to first order."""
        if not self.blocks.biased:
            return np.zeros(self.blocks.G)
        T = self._change(self.blocks.margins(D))
        return -self._bias_inverse @ self.blocks.bias_margins_adjoint(T)

    def hessian(self, D):
        """The second derivative applied to a direction D (G + 1, G); the bias follows."""
        blocks, E = self.blocks, self.blocks.margins(D)
        T = self._change(E)
        if blocks.biased:
            follow = self._bias_inverse @ blocks.bias_margins_adjoint(T)
            T = self._change(E - blocks.bias_margins(follow))
        return blocks.margins_adjoint(T)

    def shifted_inverse(self, alpha):
        """(second derivative at fixed bias + alpha)⁻¹, as a function of directions D (G + 1, G).

        For one class of group g, with coordinates along its own class, the rest of its group and
        the other groups, the derivative is w (diag(p) − s sᵀ)/N, so that Sherman and Morrison's
        formula inverts it."""
        b = self.blocks
        p = np.vstack([self.own, self.p])
        s = np.vstack([self.own, self.p * np.sqrt(b.others)])
        inverse = 1 / (p / b.inverse_weights + alpha)
        # Σ multiplicity · p = 1, hence N/w − Σ s² inverse is α Σ multiplicity · p · inverse · N/w
        multiplicity = np.vstack([np.ones(b.G), b.others])
        total = b.inverse_weights * alpha * (multiplicity * p * inverse).sum(0)
        ratio = inverse * s / np.sqrt(total)
        # from (y_g, M_gg) to coordinates along the own class and the rest of its group
        cosine, sine = np.sqrt(b.siblings / b.counts), np.sqrt(1 / b.counts)

        def rotate(D, sine):
            y, own = D[0], np.diag(D[1:])
            D = np.vstack([cosine * y + sine * own, D[1:]])
            np.fill_diagonal(D[1:], cosine * own - sine * y)
            return D

        def apply(D):
            D = rotate(D, sine)
            return rotate(inverse * D + ratio * (ratio * D).sum(0), -sine)

        return apply
