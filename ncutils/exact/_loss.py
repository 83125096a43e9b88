"""Loss and bias penalty in the blocks of `_blocks.py`: value, gradient and second derivative."""

from functools import cached_property

import numpy as np


class Smooth:
    """Loss and bias penalty at C, minimised over the bias: value, gradient (G + 1, G) and second
    derivative.

    With less `accuracy`, or after `most` steps, the bias is taken as it is: the value is then an
    upper bound, the gradient that at fixed bias, and `tilt` (G,) the slope in the bias."""

    def __init__(self, blocks, C, bias, accuracy=1e-16, most=100):
        self.blocks = blocks
        self.bias, self.loss, self.p = blocks.best_bias(blocks.margins(C), bias, accuracy, most)
        self.value = blocks.value(self.loss, self.bias)
        self.gradient = blocks.pull_back(self.p)

    @property
    def tilt(self):
        return self.blocks.biased * (
            self.blocks.pull_back_bias(self.p) + self.blocks.stiffness * self.bias
        )

    @property
    def lipschitz(self):
        """A bound of the second derivative here: 2 max w p (1 − p)/N by Gershgorin; no less than a
        hundredth of what it is near the optimum, where w (1 − p_own) is about λ_Z N/sqrt(n)."""
        rest = np.minimum(
            -np.expm1(-self.loss), 0.5
        )  # where it is less, no p (1 − p) exceeds that of the own class
        return 2 * max((rest * (1 - rest) / self.blocks.per).max(), self.blocks.least_spread)

    def matrix(self, E):
        """The second derivative of the loss, as a matrix (m, m) over m directions with margins E
        (m, G²).
        """
        part = E * (self.blocks.weighted_others * self.p).reshape(-1)
        mean = part.reshape(-1, self.blocks.G, self.blocks.G).sum(
            1
        )  # of E over each softmax, times weights
        return part @ E.T - mean / self.blocks.weights @ mean.T

    @cached_property
    def own(self):
        return np.exp(-self.loss)

    @cached_property
    def _bias_inverse(self):
        return np.linalg.inv(self.blocks.bias_hessian(self.p))

    def _change(self, E):
        """What margins that change by E do to p."""
        return self.p * (E - (self.blocks.others * self.p * E).sum(0))

    def bias_change(self, D):
        """How the bias (G,) follows a direction D (G + 1, G), to first order."""
        if not self.blocks.biased:
            return np.zeros(self.blocks.G)
        T = self._change(self.blocks.margins(D))
        return -self._bias_inverse @ self.blocks.pull_back_bias(T)

    def hessian(self, D):
        """The second derivative applied to a direction D (G + 1, G)."""
        blocks, E = self.blocks, self.blocks.margins(D)
        T = self._change(E)
        if blocks.biased:  # the bias follows
            T = self._change(E - blocks.shift(self._bias_inverse @ blocks.pull_back_bias(T)))
        return blocks.pull_back(T)

    def shifted_inverse(self, alpha):
        """(second derivative at fixed bias + alpha)⁻¹, as a function of directions D (G + 1, G).

        For one class of group g, with coordinates along its own class, the rest of its group and
        the other groups, the derivative is w (diag(p) − s sᵀ)/N, so that Sherman and Morrison's
        formula inverts it."""
        b = self.blocks
        p = np.vstack([self.own, self.p])
        s = np.vstack([self.own, self.p * np.sqrt(b.others)])
        inverse = 1 / (p / b.per + alpha)
        multiplicity = np.vstack(
            [np.ones(b.G), b.others]
        )  # Σ multiplicity · p = 1, hence per − Σ s² inverse is this sum
        ratio = inverse * s / np.sqrt(b.per * alpha * (multiplicity * p * inverse).sum(0))
        cosine, sine = (
            np.sqrt(b.more / b.counts),
            np.sqrt(1 / b.counts),
        )  # from (y_g, M_gg) to those coordinates

        def rotate(D, sine):
            y, own = D[0], np.diag(D[1:])
            D = np.vstack([cosine * y + sine * own, D[1:]])
            np.fill_diagonal(D[1:], cosine * own - sine * y)
            return D

        def apply(D):
            D = rotate(D, sine)
            return rotate(inverse * D + ratio * (ratio * D).sum(0), -sine)

        return apply
