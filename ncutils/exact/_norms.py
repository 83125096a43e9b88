"""The two norms of the convex programs, in the blocks of `_blocks.py`: what Newton's method asks
of a norm, and its answers for the nuclear norm of (CVX) and the column norm of (CVX+)."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy.linalg.lapack import dgesdd

from ..ufm import ON_THE_LINE
from ._blocks import Blocks, stack


@dataclass(eq=False)
class Norm(ABC):
    """λ_Z times a norm of X, at the proximal point C of the step t from Y.

    A norm is here a weighted sum of lengths. Where a length is positive it is smooth, where one is
    0 it has a kink. The `active` set names the directions along which it is smooth at C, in an
    orthonormal basis of its own: there, derivatives are known in closed form. Directions, like C
    and Y, are arrays (G + 1, G).
    """

    blocks: Blocks
    Y: np.ndarray
    t: float

    @property
    @abstractmethod
    def weights(self):
        """What multiplies the lengths in the norm, λ_Z included; 0 where one is always 0."""

    @property
    @abstractmethod
    def lengths_of_Y(self):
        """The lengths of Y."""

    @abstractmethod
    def with_lengths(self, lengths):
        """What has these lengths, and otherwise the directions of Y."""

    @cached_property
    def lengths(self):
        """The lengths of the proximal point."""
        return shrink(self.lengths_of_Y, self.t * self.weights)

    @cached_property
    def point(self):
        """The proximal point: C that minimises norm(C) + ‖C − Y‖²/(2t)."""
        return self.with_lengths(self.lengths)

    @property
    def value(self):
        """The norm at the proximal point, times λ_Z."""
        return self.weights @ self.lengths

    @cached_property
    def dual_lengths(self):
        """The lengths of the subgradient: the weights, where those of the point are positive."""
        return np.minimum(self.lengths_of_Y / self.t, self.weights)

    @cached_property
    def subgradient(self):
        """(Y − C)/t: the subgradient of the norm at C that the proximal point selects."""
        return self.with_lengths(self.dual_lengths)

    @staticmethod
    @abstractmethod
    def dual_norm(blocks, D):
        """The dual norm of D: at most λ_Z for a subgradient, and so for a point of the dual."""

    @property
    def clearance(self):
        """How far the active set is from another one: the least relative distance of a length from
        where it would become 0 or, if it is 0, would not be; 1 at most."""
        exists = self.weights > 0
        above, below = self.lengths / self.t, self.weights - self.dual_lengths
        distance = np.where(self.lengths > 0, above, below)
        return (distance[exists] / self.weights[exists]).min(initial=1.0)

    @property
    @abstractmethod
    def rank(self):
        """The rank of X at the proximal point."""

    @property
    @abstractmethod
    def active(self):
        """The active set: a mask (G + 1, G) over the basis."""

    @abstractmethod
    def from_basis(self, D):
        """The direction with coordinates D (…, G + 1, G) in the basis."""

    @abstractmethod
    def to_basis(self, D):
        """The adjoint of `from_basis` on the active set: coordinates of D, 0 outside of it."""

    @abstractmethod
    def curvature(self, D, damping=0.0):
        """The second derivative of the norm along D (…, G + 1, G), both in the basis.

        `damping` μ > 0 adds μ λ over the lengths at stake: near the optimum, where slopes are not
        above λ, a length σ then changes by about σ/μ at most."""

    @abstractmethod
    def inverse_root(self, D, alpha, damping=0.0):
        """(curvature + alpha)^{-1/2} D, both in the basis."""


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


@dataclass(eq=False)
class NuclearNorm(Norm):
    """λ ‖X‖_* = λ (Σ sqrt(K_g − 1) |y_g| + ‖M‖_*).

    The lengths (2G,) are the |y_g|, then the singular values of M, of which the last is 0: columns
    of Z sum to zero. The basis of M is that of the singular vectors of Y, and y is its own.
    """

    @cached_property
    def weights(self):
        weights = self.blocks.lam * np.concatenate([self.blocks.y_weight, np.ones(self.blocks.G)])
        weights[-1] = 0.0
        return weights

    @cached_property
    def _decomposition(self):
        """U (G, G), the singular values (G − 1,) and Vᵀ (G, G) of the M of Y."""
        blocks = self.blocks
        left, s, Vt = svd(blocks.centred @ self.Y[1:])
        # columns of Z sum to zero: the last vector has no part in it, nor may rounding give it one
        U = np.empty((blocks.G, blocks.G))
        U[:, :-1], U[:, -1] = blocks.centred.T @ left, blocks.ones
        return U, s, Vt

    @cached_property
    def lengths_of_Y(self):
        return np.concatenate([np.abs(self.Y[0]), self._decomposition[1], [0.0]])

    def with_lengths(self, lengths):
        U, _, Vt = self._decomposition
        y, s = lengths.reshape(2, -1)
        return stack(np.copysign(y, self.Y[0]), (U * s) @ Vt)

    @staticmethod
    def dual_norm(blocks, D):
        """The largest singular value of the matrix with coordinates D."""
        within = np.abs(D[0]) / np.maximum(blocks.y_weight, 1)  # of K_g − 1 singular vectors each
        return max(within.max(), dgesdd(D[1:], compute_uv=0)[1][0])

    @property
    def rank(self):
        y, s = (self.lengths > 0).reshape(2, -1)
        return int(self.blocks.siblings @ y + np.count_nonzero(s))

    @cached_property
    def active(self):
        """Entries y_g > 0, and pairs of singular vectors, one value at least being positive."""
        y, s = (self.lengths > 0).reshape(2, -1)
        M = s[:, None] | s
        M[-1] = False  # columns of Z sum to zero
        return stack(y, M)

    def from_basis(self, D):
        U, _, Vt = self._decomposition
        return np.concatenate([D[..., :1, :], U @ D[..., 1:, :] @ Vt], axis=-2)

    def to_basis(self, D):
        U, _, Vt = self._decomposition
        return stack(D[0], U.T @ D[1:] @ Vt.T) * self.active

    @cached_property
    def curvature_weights(self):
        """What multiplies M and Mᵀ (G, G) each, in the second derivative along M; those outside of
        the active set are never asked for.

        Of a pair of singular values of which one is 0, the second derivative is that at the
        subgradient."""
        (_, s), (_, dual) = self.lengths.reshape(2, -1), self.dual_lengths.reshape(2, -1)
        lam, active = self.blocks.lam, self.active[1:]
        total = np.where(active, s[:, None] + s, 1.0)
        return lam / total, (lam - dual[:, None] - dual) / total * active

    @cached_property
    def damping_weights(self):
        """λ sqrt(K_g − 1) over a length |y|, and 2 λ over the sum of two singular values."""
        y = np.where(self.active[0], self.lengths[: self.blocks.G], 1.0)
        return stack(self.blocks.lam * self.blocks.y_weight / y, 2 * self.curvature_weights[0])

    def curvature(self, D, damping=0.0):
        straight, transposed = self.curvature_weights
        image = damping * self.damping_weights * D if damping else np.zeros_like(D)
        image[..., 1:, :] += straight * D[..., 1:, :] + transposed * D[..., 1:, :].swapaxes(-1, -2)
        return image

    def inverse_root(self, D, alpha, damping=0.0):
        """The curvature is the sum of both weights on symmetric M, else their difference."""
        M, T = D[1:], D[1:].T
        straight, transposed = self.curvature_weights
        alpha = alpha + damping * self.damping_weights
        twice = (M + T) / np.sqrt(straight + transposed + alpha[1:]) + (M - T) / np.sqrt(
            straight - transposed + alpha[1:]
        )
        return stack(D[0] / np.sqrt(alpha[0]), twice / 2) * self.active


@dataclass(eq=False)
class ColumnNorm(Norm):
    """λ Σ_k sqrt(n_k) ‖z_k‖ = λ Σ_g sqrt(K_g) ‖C_g‖ over columns. The lengths (G,) are the ‖C_g‖,
    and the basis is the natural one."""

    @cached_property
    def weights(self):
        return self.blocks.lam * np.sqrt(self.blocks.counts)

    @cached_property
    def lengths_of_Y(self):
        return np.linalg.norm(self.Y, axis=0)

    @cached_property
    def _directions(self):
        """The columns of Y over their lengths."""
        return self.Y / np.where(self.lengths_of_Y > 0, self.lengths_of_Y, 1.0)

    def with_lengths(self, lengths):
        return lengths * self._directions

    @staticmethod
    def dual_norm(blocks, D):
        """The length of the longest column of the matrix with coordinates D."""
        return (np.linalg.norm(D, axis=0) / np.sqrt(blocks.counts)).max()

    @property
    def rank(self):
        return int(min(self.blocks.counts @ (self.lengths > 0), self.blocks.K - 1))

    @cached_property
    def active(self):
        """The columns that are not zero, but for the y of a group of one class."""
        exists = np.ones(self.Y.shape, dtype=bool)
        exists[0] = self.blocks.siblings > 0
        return (self.lengths > 0) & exists

    def from_basis(self, D):
        return D

    def to_basis(self, D):
        return D * self.active

    @cached_property
    def curvature_weights(self):
        """What multiplies the part of a column that is orthogonal to it (G,): 1 over its length."""
        return self.weights / np.where(self.lengths > 0, self.lengths, 1.0)

    @cached_property
    def _active_directions(self):
        return self._directions * (self.lengths > 0)

    def curvature(self, D, damping=0.0):
        unit = self._active_directions
        along = unit * (unit * D).sum(-2)[..., None, :]
        return self.curvature_weights * ((1 + damping) * D - along)

    def inverse_root(self, D, alpha, damping=0.0):
        unit = self._active_directions
        along, alpha = unit * (unit * D).sum(0), alpha + damping * self.curvature_weights
        across = (D - along) / np.sqrt(self.curvature_weights + alpha)
        return (across + along / np.sqrt(alpha)) * self.active
