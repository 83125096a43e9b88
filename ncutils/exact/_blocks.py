r"""The programs (CVX) and (CVX+) with classes of equal size merged into groups: G² + G unknowns,
whatever K is.

Classes of one size are interchangeable, so at an optimum Z is constant on blocks: group g, K_g
classes of n_g samples each, has Z_gg = a_g I + β_g 11ᵀ and Z_hg = c_hg 11ᵀ. With u_g = 1/sqrt(K_g)
on group g, X = Z D^{1/2} splits into

    X = Σ_g sqrt(n_g) a_g (I_g − u_g u_gᵀ) + Σ_hg M_hg u_h u_gᵀ,
    M_gg = sqrt(n_g) (a_g + K_g β_g),   M_hg = sqrt(n_g K_g K_h) c_hg  (h ≠ g).

A point is one array C (G + 1, G), column g for group g: its first row holds
y_g = sqrt((K_g − 1) n_g) a_g, the others M. Then ‖C‖_F = ‖X‖_F and
‖X‖_* = Σ_g sqrt(K_g − 1) |y_g| + ‖M‖_*. A group of one class has y_g = 0.
Source: the block structure is the paper's; the split of the norm is ours.
"""

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy.special import xlog1py, xlogy

from .._linalg import LARGE

SMALL = 12  # groups up to which matrices over all unknowns are faster than operators
SLACK = 5e-15  # relatively, between the norm of a dual point and λ_Z: for rounding


def diagonal(A):
    """The diagonal of A (…, G, G), to be read or written."""
    return np.einsum("...gg->...g", A)


def stack(y, M):
    """The array C of first row y (G,) and further rows M (G, G)."""
    return np.concatenate([y[None], M])


def complement(v):
    """Orthonormal rows (G − 1, G) that are orthogonal to the unit vector v (G,) with v_0 ≥ 0: of
    Householder's reflection.
    """
    u = v + np.eye(len(v))[0]
    return (np.eye(len(v)) - np.outer(u, u) / u[0])[1:]


@dataclass(eq=False)
class Blocks:
    """Loss, bias penalty and dual of the program, for groups of sizes n_g (G,), counts K_g (G,) and
    weights w_g (G,) of their losses, λ_Z and λ_b.

    Margins E (G, G) are logits minus that of the own class: E_hg for a class of group h at a sample
    of group g, E_gg for another class of the own group. `others` (G, G) counts those classes. p and
    q (G, G) are their probabilities. A bias is an array (G,), one entry for each class of a group.
    """

    sizes: np.ndarray
    counts: np.ndarray
    lam: float
    lam_b: float
    class_weights: np.ndarray | float = 1.0

    # Numbers of the problem ----------------------------------------------------------------------

    @cached_property
    def G(self):
        """The number of groups."""
        return len(self.sizes)

    @cached_property
    def K(self):
        """The number of classes."""
        return self.counts.sum()

    @cached_property
    def N(self):
        """The number of samples."""
        return self.sizes @ self.counts

    @cached_property
    def biased(self):
        """Whether there is a bias."""
        return math.isfinite(self.lam_b)

    @cached_property
    def dense(self):
        """Whether the groups are few: derivatives are then matrices over the unknowns."""
        return self.G <= SMALL

    @cached_property
    def inverse_weights(self):
        """N/w_g (G,): 1 over the weight of one sample in the loss."""
        return self.N / (self.class_weights * np.ones(self.G))

    @cached_property
    def weights(self):
        """Weights of the groups in the loss (G,)."""
        return self.counts * self.sizes / self.inverse_weights

    @cached_property
    def bias_curvature(self):
        """Second derivative of the bias penalty (G,); 1 without bias, which keeps it at 0."""
        return self.lam_b * self.counts if self.biased else np.ones(self.G)

    @cached_property
    def least_spread(self):
        """A hundredth of what w p (1 − p)/N is near the optimum, or less."""
        return min(0.01 * self.lam / math.sqrt(self.sizes.max()), 0.25 / self.inverse_weights.min())

    # Numbers of classes --------------------------------------------------------------------------

    @cached_property
    def siblings(self):
        """K_g − 1 (G,): other classes of the group."""
        return self.counts - 1

    @cached_property
    def off_diagonal(self):
        """1 between groups, 0 within (G, G)."""
        return 1 - np.eye(self.G)

    @cached_property
    def others(self):
        """Other classes of group h, for one of group g (G, G)."""
        return self.counts[:, None] - np.eye(self.G)

    @cached_property
    def outside(self):
        """Classes of the other groups (G, G)."""
        return self.counts[:, None] * self.off_diagonal

    @cached_property
    def weighted_others(self):
        return self.weights * self.others

    # Scales of the coordinates -------------------------------------------------------------------

    @cached_property
    def gap_scale(self):
        """y_g / a_g (G,); where there is no gap, of no importance and not 0."""
        return np.sqrt(np.maximum(self.siblings, 1) * self.sizes)

    @cached_property
    def logit_scale(self):
        """M_hg / c_hg (G, G)."""
        return np.sqrt(self.sizes * self.counts[:, None] * self.counts)

    @cached_property
    def y_weight(self):
        """sqrt(K_g − 1) (G,), the weight of |y_g| in the nuclear norm."""
        return np.sqrt(self.siblings)

    @cached_property
    def own_share(self):
        """1 − 1/K_g (G,): the part of a_g that is above the mean of the group."""
        return self.siblings / self.counts

    @cached_property
    def ones(self):
        """The unit vector (G,) along the vector of ones, which columns of Z are orthogonal to."""
        return np.sqrt(self.counts / self.K)

    @cached_property
    def centred(self):
        """Orthonormal rows (G − 1, G) orthogonal to it: M = centredᵀ centred M."""
        return complement(self.ones)

    # Margins -------------------------------------------------------------------------------------

    @cached_property
    def basis(self):
        """The unknowns one by one, as arrays (G² + G, G + 1, G)."""
        return np.eye((self.G + 1) * self.G).reshape(-1, self.G + 1, self.G)

    @cached_property
    def margin_matrix(self):
        """Margins (G² + G, G²) of each unknown of C, for few groups."""
        return self._margins(self.basis).reshape(len(self.basis), -1)

    @cached_property
    def bias_margin_matrix(self):
        """What a bias of 1 in each group adds to the margins (G, G²); 0 without bias."""
        eye = np.eye(self.G)
        return (self.biased * (eye[:, :, None] - eye[:, None])).reshape(self.G, -1)

    def _margins(self, C):
        """E of the logits Z at C (…, G + 1, G)."""
        a = C[..., 0, :] / self.gap_scale
        Z = C[..., 1:, :] / self.logit_scale  # its diagonal is that of Z_gg less a_g (1 − 1/K_g)
        E = Z - (a * self.own_share + diagonal(Z))[..., None, :]
        diagonal(E)[...] = -a
        return E

    def margins(self, C):
        """E of the logits Z at C (G + 1, G), without bias."""
        if self.dense:
            return (C.reshape(-1) @ self.margin_matrix).reshape(self.G, self.G)
        return self._margins(C)

    def point(self, E):
        """C (G + 1, G) of the Z with margins E whose columns sum to zero."""
        own = -(self.others * E).sum(0) / self.K
        a = np.where(self.siblings > 0, -E.diagonal(), 0.0)
        Z = E + own
        diagonal(Z)[:] = own - a * self.own_share
        return stack(a * self.gap_scale, Z * self.logit_scale)

    def bias_margins(self, b):
        """What a bias b adds to the margins."""
        return b[:, None] - b

    def margins_adjoint(self, T):
        """The adjoint of `margins`: the gradient in C of Σ_g weights_g Σ_h others_hg T_hg E_hg;
        where T ≥ 0, nothing cancels.
        """
        if self.dense:
            flat = self.margin_matrix @ (self.weighted_others * T).reshape(-1)
            return flat.reshape(self.G + 1, self.G)
        unit, outside = np.sqrt(self.sizes) / self.inverse_weights, (self.outside * T).sum(0)
        C = stack(
            -(self.counts * T.diagonal() + outside) * self.y_weight * unit,
            T * (self.logit_scale / self.inverse_weights),
        )
        diagonal(C[1:])[:] = -outside * unit
        return C

    def bias_margins_adjoint(self, T):
        """The adjoint of `bias_margins`: the gradient of the same sum in the bias (G,)."""
        flow = self.outside * T * self.weights
        return flow.sum(1) - flow.sum(0)

    # Loss, penalty and their start ---------------------------------------------------------------

    def softmax(self, E):
        """Cross-entropy (G,) and probabilities p of the other classes. Nothing cancels when the
        loss is tiny.
        """
        if E.max() <= LARGE:
            excess, ratio = 0.0, np.exp(E)
        else:  # where the excess is not 0, the own class is nothing in the sum
            excess = np.maximum(E.max(0), LARGE) - LARGE
            ratio = np.exp(np.minimum(E - excess, LARGE))
        odds = np.vecdot(self.others, ratio, axis=0)
        return np.log1p(odds) + excess, ratio / (1 + odds)

    def value(self, loss, b):
        """Loss and bias penalty."""
        return self.weights @ loss + (b @ (self.bias_curvature * b) / 2 if self.biased else 0.0)

    def start(self):
        """A point C near the optimum: each class as if all had its size, z_k = a_k (e_k − 1/K) in
        closed form.
        """
        p = (  # of each other class
            np.minimum(self.lam * self.inverse_weights / np.sqrt(self.sizes), 1.0) / self.K
        )
        a = np.log1p((1 - self.K * p) / p)
        return self.point(np.zeros((self.G, self.G)) - a)

    def merged(self, groups):
        """The program with neighbouring groups merged into that many, and the merged group of each
        group (G,).
        """
        part = np.arange(self.G) * groups // self.G
        counts = np.bincount(part, self.counts)
        samples = np.bincount(part, self.counts * self.sizes)
        class_weights = np.bincount(part, self.weights) * self.N / samples
        return Blocks(samples / counts, counts, self.lam, self.lam_b, class_weights), part

    # The dual ------------------------------------------------------------------------------------

    def probabilities(self, dual):
        """q with (I − Q) diag(w) D^{1/2}/N = dual (G + 1, G), whose columns sum to zero."""
        q = dual[1:] * (-self.inverse_weights / self.logit_scale)
        same = (dual[0] / np.maximum(self.y_weight, 1) - dual[1:].diagonal()) / (
            np.sqrt(self.sizes) * self.counts
        )
        diagonal(q)[:] = same * self.inverse_weights * (self.siblings > 0)
        return q

    def feasible(self, q, norm):
        """q ≥ 0 (G, G), scaled down as far as a point of the dual needs: no sum of probabilities
        above 1, and the `norm` of (I − Q) diag(w) D^{1/2}/N at most λ_Z.

        The norm is computed from q itself, from which its matrix follows without cancellation."""
        total = (self.others * q).sum(0).max() * (1 + SLACK)
        q = q / (total if total > 1 else 1.0)
        size = norm(self, self.margins_adjoint(q)) * (1 + SLACK)
        return q * (self.lam / size if size > self.lam else 1.0)

    def dual_value(self, q):
        """Σ_g weights_g Ent(q_g) − ‖g‖²/(2 λ_b), with g the slope in the bias, at a feasible q."""
        rest = (self.others * q).sum(0)
        value = -np.vdot(self.weighted_others, xlogy(q, q)) - self.weights @ xlog1py(
            1 - rest, -rest
        )
        if self.biased:
            slope = self.bias_margins_adjoint(q)  # that of a class is slope_g / K_g
            value -= slope @ (slope / self.counts) / (2 * self.lam_b)
        return value
