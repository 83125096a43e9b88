r"""The programs (CVX) and (CVX+) with classes of equal size merged into groups: G² + G unknowns,
whatever K is.

Classes of one size are interchangeable, so at an optimum Z is constant on blocks: group g, K_g
classes of n_g samples each, has Z_gg = a_g I + β_g 11ᵀ and Z_hg = c_hg 11ᵀ. With u_g = 1/sqrt(K_g)
on group g, X = Z D^{1/2} splits into

    X = Σ_g sqrt(n_g) a_g (I_g − u_g u_gᵀ) + Σ_hg M_hg u_h u_gᵀ,
    M_gg = sqrt(n_g) (a_g + K_g β_g),   M_hg = sqrt(n_g K_g K_h) c_hg  (h ≠ g).

A point is one array C (G + 1, G), column g for group g: its first row holds y_g = sqrt((K_g − 1)
n_g) a_g, the others M. Then ‖C‖_F = ‖X‖_F and ‖X‖_* = Σ_g sqrt(K_g − 1) |y_g| + ‖M‖_*. A group of
one class has y_g = 0. Source: the block structure is the paper's; the split of the norm is ours.
"""

import math

import numpy as np
from scipy.linalg.lapack import dgesv
from scipy.special import xlog1py, xlogy

# groups up to which the loss is handled by matrices over the unknowns: fewer operations, each
# larger
SMALL = 12
MARGIN = 5e-15  # relatively, between the norm of a dual point and λ_Z
LARGE = 600.0  # a margin whose exponential does not overflow, yet is far above 1


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


class Blocks:
    """Loss, bias penalty and dual of the program, for groups of sizes n_g (G,), counts K_g (G,) and
    weights w_g (G,) of their losses, λ_Z and λ_b.

    Margins E (G, G) are logits minus that of the own class: E_hg for a class of group h at a sample
    of group g, E_gg for another class of the own group. `others` (G, G) counts those classes. p and
    q (G, G) are their probabilities.
    """

    def __init__(self, sizes, counts, lam, lam_b, class_weights=1.0):
        self.sizes, self.counts, self.lam, self.lam_b = sizes, counts, lam, lam_b
        self.G, self.K, self.N = len(sizes), counts.sum(), sizes @ counts
        self.per = self.N / (class_weights * np.ones(self.G))  # 1 over the weight of one sample
        self.biased = math.isfinite(lam_b)
        self.weights = counts * sizes / self.per  # of the group in the loss
        self.eye = np.eye(self.G)
        self.across = 1 - self.eye
        self.others = counts[:, None] - self.eye
        self.weighted_others = self.weights * self.others
        self.root = np.sqrt(sizes * counts[:, None] * counts)  # M_hg / c_hg
        self.more = counts - 1
        self.within = np.sqrt(np.maximum(self.more, 1) * sizes)  # y_g / a_g
        self.y_weight = np.sqrt(self.more)
        self.norm_weight = np.concatenate(
            [self.y_weight, np.ones(self.G)]
        )  # of |y| and the singular values of M
        self.slope = self.more / counts
        self.outside = counts[:, None] * self.across  # classes of the other groups
        self.unit = np.sqrt(counts / self.K)
        self.balanced = complement(self.unit)  # columns of Z sum to zero: M = balancedᵀ balanced M
        self.stiffness = (
            lam_b * counts if self.biased else np.ones(self.G)
        )  # of the bias; 1 keeps it at 0
        self.least_spread = min(0.01 * lam / math.sqrt(sizes.max()), 0.25 / self.per.min())
        self.margin_matrix = None
        if self.G <= SMALL:  # margins of each unknown of C, and of the bias
            self.basis = np.eye((self.G + 1) * self.G).reshape(-1, self.G + 1, self.G)
            self.margin_matrix = self.margins(self.basis).reshape(len(self.basis), -1)
            self.tilt = (self.biased * (self.eye[:, :, None] - self.eye[:, None])).reshape(
                self.G, -1
            )

    def margins(self, C):
        """E of the logits Z at C (…, G + 1, G), without bias."""
        if self.margin_matrix is not None:
            return (C.reshape(-1) @ self.margin_matrix).reshape(self.G, self.G)
        a = C[..., 0, :] / self.within
        Z = C[..., 1:, :] / self.root  # its diagonal is that of Z_gg less a_g (1 − 1/K_g)
        E = Z - (a * self.slope + diagonal(Z))[..., None, :]
        diagonal(E)[...] = -a
        return E

    def point(self, E):
        """C (G + 1, G) of the Z with margins E whose columns sum to zero."""
        own = -(self.others * E).sum(0) / self.K
        a = np.where(self.more > 0, -E.diagonal(), 0.0)
        Z = E + own
        diagonal(Z)[:] = own - a * self.slope
        return stack(a * self.within, Z * self.root)

    def shift(self, b):
        """What a bias b (G,), one entry a group, adds to the margins."""
        return b[:, None] - b

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

    def pull_back(self, T):
        """Gradient in C of Σ_g weights_g Σ_h others_hg T_hg E_hg; where T ≥ 0, nothing cancels."""
        if self.margin_matrix is not None:
            return (self.margin_matrix @ (self.weighted_others * T).reshape(-1)).reshape(
                self.G + 1, self.G
            )
        unit, across = np.sqrt(self.sizes) / self.per, (self.outside * T).sum(0)
        C = stack(
            -(self.counts * T.diagonal() + across) * self.y_weight * unit,
            T * (self.root / self.per),
        )
        diagonal(C[1:])[:] = -across * unit
        return C

    def pull_back_bias(self, T):
        """Gradient of the same sum in the bias of the groups, (G,)."""
        flow = self.outside * T * self.weights
        return flow.sum(1) - flow.sum(0)

    def bias_hessian(self, p):
        """Second derivative of loss and penalty in the bias of the groups, (G, G)."""
        q = self.outside * p
        diagonal(q)[:] = 1 - q.sum(0)
        H = q * -self.weights @ q.T * self.across
        diagonal(H)[:] = self.stiffness - H.sum(0)
        return H

    def value(self, loss, b):
        """Loss and bias penalty."""
        return self.weights @ loss + (b @ (self.stiffness * b) / 2 if self.biased else 0.0)

    def best_bias(self, E, b, accuracy=1e-16, most=100):
        """The bias (G,) that minimises loss and penalty at margins E (without bias), by Newton from
        b; loss and p there.

        No step follows one that was worth less than `accuracy` of the value, nor after `most`
        steps."""
        loss, p = self.softmax(E + self.shift(b) if self.biased else E)
        if not self.biased:
            return b, loss, p
        value = self.value(loss, b)
        for _ in range(most):
            slope = self.pull_back_bias(p) + self.stiffness * b
            _, _, step, failed = dgesv(self.bias_hessian(p), slope)
            decrease, fraction, before = slope @ step, 1.0, value
            if failed or not decrease > 1e-32 * value:  # nor NaN
                break
            for _ in range(30):
                new = b - fraction * step
                loss, p = self.softmax(E + self.shift(new))
                value = self.value(loss, new)
                # near the optimum differences of the value are rounding, and the full step is right
                if decrease < 1e-12 * before or value <= before - 0.25 * fraction * decrease:
                    break
                fraction /= 2
            b = new
            if decrease < accuracy * value:
                break
        return b, loss, p

    def probabilities(self, dual):
        """q with (I − Q) diag(w) D^{1/2}/N = dual (G + 1, G), whose columns sum to zero."""
        q = dual[1:] * (-self.per / self.root)
        same = (dual[0] / np.maximum(self.y_weight, 1) - dual[1:].diagonal()) / (
            np.sqrt(self.sizes) * self.counts
        )
        diagonal(q)[:] = same * self.per * (self.more > 0)
        return q

    def feasible(self, q, norm):
        """q ≥ 0 (G, G), scaled down as far as a point of the dual needs: no sum of probabilities
        above 1, and the `norm` of (I − Q) diag(w) D^{1/2}/N at most λ_Z.

        The norm is computed from q itself, from which its matrix follows without cancellation:
        MARGIN is for rounding."""
        total = (self.others * q).sum(0).max() * (1 + MARGIN)
        q = q / (total if total > 1 else 1.0)
        size = norm(self, self.pull_back(q)) * (1 + MARGIN)
        return q * (self.lam / size if size > self.lam else 1.0)

    def dual_value(self, q):
        """Σ_g weights_g Ent(q_g) − ‖g‖²/(2 λ_b), with g the slope in the bias, at a feasible q."""
        rest = (self.others * q).sum(0)
        value = -np.vdot(self.weighted_others, xlogy(q, q)) - self.weights @ xlog1py(
            1 - rest, -rest
        )
        if self.biased:
            slope = self.pull_back_bias(q)  # that of a class is slope_g / K_g
            value -= slope @ (slope / self.counts) / (2 * self.lam_b)
        return value

    def start(self):
        """A point C near the optimum: each class as if all had its size, z_k = a_k (e_k − 1/K) in
        closed form.
        """
        p = (
            np.minimum(self.lam * self.per / np.sqrt(self.sizes), 1.0) / self.K
        )  # of each other class
        a = np.log1p((1 - self.K * p) / p)
        return self.point(np.zeros((self.G, self.G)) - a)

    def merged(self, groups):
        """The program with neighbouring groups merged into that many, and the merged group of each
        group (G,).
        """
        part = np.arange(self.G) * groups // self.G
        counts, samples = (
            np.bincount(part, self.counts),
            np.bincount(part, self.counts * self.sizes),
        )
        class_weights = np.bincount(part, self.weights) * self.N / samples
        return Blocks(samples / counts, counts, self.lam, self.lam_b, class_weights), part
