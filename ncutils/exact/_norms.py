"""The two norms of the convex programs: proximal point, active set, curvature and rank."""

from functools import cached_property

import numpy as np
from scipy.linalg.lapack import dgesdd

from ..ufm import ON_THE_LINE
from ._blocks import stack


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
