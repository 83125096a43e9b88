"""A solution of (CVX) or (CVX+), in the coordinates that its classes give it."""

import math
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from scipy.linalg import helmert

from .._checks import check_choice, check_integer, check_memory
from .._linalg import cosines_from_gram
from ..metrics import balance_residual
from ..ufm import UFM, GroupPhases, Phase
from ._blocks import Blocks


@dataclass(frozen=True, repr=False)
class Solution:
    """A solution of (CVX) or (CVX+), with the certificate of how far from the optimum it can be at
    most. Made by `solve`.

    Attributes
    ----------
    ufm : the problem.
    features : "linear" for (CVX), "relu" for (CVX+).
    logits : Z (K, K), in nats; column k holds the mean logits of class k, without the bias.
    bias : b (K,), in nats.
    objective : value of the program at (Z, b), in nats.
    gap : objective minus the dual bound, with what rounding can add to either (2e-15 of the
        objective): no (W, H, b), with H ≥ 0 for "relu", has a UFM objective below objective − gap.
        A dual point with this bound is `dual_point`: whoever doubts the solver may check it alone.
    certified : whether gap ≤ tol · objective. For "relu" it may be False at the exact optimum of
        (CVX+): the objective is then an upper bound of the UFM's optimum.
    iterations : points looked at, one more than the Newton steps between them.
    rank : rank of Z.
    group_gaps : {n: a_g in nats, exactly 0 where the classes of size n are one vector}, groups of
        two classes at least; the keys are those of `UFM.groups`.

    Source: the paper (the optimum is that of (CVX)), ours (certificate, "relu").

    >>> from ncutils import UFM, solve
    >>> exact = solve(UFM.from_lam_z([20, 20, 10], lam_z=0.01))
    >>> print(exact.certified, exact.rank, exact.phase, exact.objective.round(6))
    True 2 Phase.DISTINCT 0.337208
    >>> exact.logits.round(3)
    array([[ 2.115, -1.191, -0.986],
           [-1.191,  2.115, -0.986],
           [-0.924, -0.924,  1.971]])
    >>> print(exact.relative_gap < 1e-10, exact.balance_residual < 1e-10)
    True True
    """

    ufm: UFM
    features: str
    objective: float
    gap: float
    certified: bool
    iterations: int
    rank: int
    _blocks: Blocks = field(compare=False)
    _point: np.ndarray = field(compare=False)
    _group_bias: np.ndarray = field(compare=False)
    _probabilities: np.ndarray = field(compare=False)

    @property
    def relative_gap(self):
        """gap / objective: how far, relatively, the objective can be above the optimum."""
        return self.gap / self.objective

    @property
    def certificate(self):
        """The relative duality gap, under the name that all optima have in common."""
        return self.relative_gap

    def __repr__(self):
        K, G = self.ufm.num_classes, len(self.ufm.groups)
        problem = f"{K} classes in {G} group{'s' * (G > 1)}, {self.features} features"
        value = (
            f"objective {self.objective:.8g}, optimal to a relative gap of {self.relative_gap:.1e}"
        )
        if not self.certified:
            value = (
                f"objective {self.objective:.8g} is an upper bound of the optimum, which is at least "
                f"{self.objective - self.gap:.8g} (relative gap {self.relative_gap:.1e}, not certified)"
            )
        return f"Solution({problem}: {value}; rank {self.rank}, {self.iterations} iterations)"

    @cached_property
    def _group(self):
        """Group of each class (K,)."""
        group = np.empty(self.ufm.num_classes, dtype=int)
        for g, members in enumerate(self.ufm.groups.values()):
            group[members] = g
        return group

    def _expand(self, within, between):
        """The (K, K) matrix Σ_g within_g (I_g − u_g u_gᵀ) + Σ_hg between_hg u_h u_gᵀ."""
        counts = self._blocks.counts
        check_memory("num_classes", self.ufm.num_classes, self.ufm.num_classes**2)
        blocks = (between - np.diag(within)) / np.sqrt(counts[:, None] * counts)
        matrix = blocks[np.ix_(self._group, self._group)]
        matrix[np.diag_indices_from(matrix)] += within[self._group]
        return matrix

    @cached_property
    def _split(self):
        """x_g = sqrt(n_g) a_g (G,) and M (G, G) of X = Z D^{1/2}."""
        return self._point[0] / np.maximum(self._blocks.y_weight, 1), self._point[1:]

    @cached_property
    def logits(self):
        x, M = self._split
        root = np.sqrt(self._blocks.sizes)
        return self._expand(x / root, M / root)

    @cached_property
    def dual_point(self):
        """Q (K, K), the point of the dual that `gap` belongs to: columns in the simplex, ‖(I − Q)
        diag(w) D^{1/2}/N‖ ≤ λ_Z.
        """
        check_memory("num_classes", self.ufm.num_classes, self.ufm.num_classes**2)
        Q = self._probabilities[np.ix_(self._group, self._group)]
        np.fill_diagonal(Q, 0.0)
        np.fill_diagonal(Q, 1 - Q.sum(axis=0))
        return Q

    @cached_property
    def bias(self):
        return self._group_bias[self._group]

    @property
    def group_gaps(self):
        x, _ = self._split
        values = zip(self.ufm.groups, x / np.sqrt(self._blocks.sizes), self._blocks.counts)
        return {n: float(a) for n, a, count in values if count > 1}

    @property
    def phase(self):
        """What `theory.phase` predicts for linear features, as measured: a `Phase` or
        `GroupPhases`. It is read off which a_g and columns of Z are zero and off the rank of Z, in
        the same way for "relu"."""
        collapsed = {n: a == 0 for n, a in self.group_gaps.items()}
        if len(self.ufm.groups) != 2 or self.ufm.class_weights:
            return GroupPhases(collapsed, (self.rank, self.rank))
        if self.rank == 0:
            return Phase.TRIVIAL
        if not self._point[:, 1].any():
            return Phase.MINORITY_VANISHES
        return Phase.MINORITY_COLLAPSE if collapsed.get(min(self.ufm.groups)) else Phase.DISTINCT

    @cached_property
    def _lengths(self):
        """‖x_k‖ of the columns of X, one a group (G,)."""
        return np.linalg.norm(self._point, axis=0) / np.sqrt(self._blocks.counts)

    def cosines(self, of="logits"):
        """Cosines (K, K) between the columns of Z ("logits"), the class means h̄_k ("features"), or
        the rows of W ("classifier"). A class whose vector is zero has no cosine: NaN there.

        Raises ValueError where `of` is another word. Source: ours, from the singular value
        decomposition of Z D^{1/2}.

        >>> from ncutils import UFM, solve
        >>> solve(UFM.from_lam_z([20, 20, 10], lam_z=0.01)).cosines("features")[0].round(4)
        array([ 1.    , -0.5024, -0.4988])
        """
        check_choice("of", of, ("logits", "features", "classifier"))
        (x, M), size = self._split, np.sqrt(self._blocks.sizes[self._group])
        if of == "logits":
            return cosines_from_gram(self._expand(x**2, M.T @ M) / np.outer(size, size))
        if self.features == "relu":
            inverse = 1 / np.where(self._lengths > 0, self._lengths, np.inf)
            return cosines_from_gram(
                np.diag((self._lengths / self._blocks.sizes)[self._group])
                if of == "features"
                else self._expand(x**2 * inverse, (M * inverse) @ M.T)
            )
        U, s, Vt = np.linalg.svd(M)
        if of == "classifier":
            return cosines_from_gram(self._expand(x, (U * s) @ U.T))
        return cosines_from_gram(self._expand(x, (Vt.T * s) @ Vt) / np.outer(size, size))

    @cached_property
    def _factors(self):
        """L (K, r) and R (r, K) with L R = X and L Lᵀ, R Rᵀ of equal trace: optimal classifier and
        features.
        """
        x, M = self._split
        K = self.ufm.num_classes
        if self.features == "relu":
            alive = np.flatnonzero(self._lengths[self._group] > 0)
            root = np.sqrt(self._lengths[self._group][alive])
            X = self.logits * np.sqrt(self.ufm.sizes)
            return X[:, alive] / root, root[:, None] * np.eye(K)[alive]
        U, s, Vt = np.linalg.svd(M)
        between = self.rank - int(self._blocks.more @ (x != 0))  # rank of M
        weight = np.sqrt(s[:between]) / np.sqrt(self._blocks.counts[self._group])[:, None]
        left, right = (
            [U[self._group, :between] * weight],
            [(Vt.T[self._group, :between] * weight).T],
        )
        for g, members in enumerate(self.ufm.groups.values()):
            if x[g] != 0:
                basis = np.zeros((len(members) - 1, K))
                basis[:, members] = helmert(len(members)) * math.sqrt(abs(x[g]))
                left.append(
                    math.copysign(1.0, x[g]) * basis.T
                )  # a_g < 0 where the solver was stopped early
                right.append(basis)
        return np.hstack(left), np.vstack(right)

    def _in_dimension(self, dim, factor):
        dim = check_integer("dim", dim, at_least=self.ufm.num_classes)
        check_memory("dim", dim, dim * self.ufm.num_classes)
        return np.pad(factor, ((0, dim - len(factor)), (0, 0)))  # the first coordinates

    def class_means(self, dim):
        """H̄ (dim, K), optimal class means: H̄ D^{1/2} = (λ_W/λ_H)^{1/4} R Σ^{1/2} Vᵀ, nonnegative
        for "relu".

        With Z D^{1/2} = U Σ Vᵀ and RᵀR = I, R being the first columns of I. Raises ValueError
        unless `dim` is a whole number ≥ K. Source: ours.

        >>> from ncutils import UFM, solve
        >>> exact = solve(UFM.from_lam_z([20, 20, 10], lam_z=0.01))
        >>> (exact.classifier(5) @ exact.class_means(5)).round(3)  # Z
        array([[ 2.115, -1.191, -0.986],
               [-1.191,  2.115, -0.986],
               [-0.924, -0.924,  1.971]])
        """
        scale = self.ufm.lam_w**0.25 / self.ufm.lam_h**0.25  # their ratio may overflow
        return scale * self._in_dimension(dim, self._factors[1]) / np.sqrt(self.ufm.sizes)

    def classifier(self, dim):
        """W (K, dim), an optimal classifier: (λ_H/λ_W)^{1/4} U Σ^{1/2} Rᵀ, with `dim` and R as in
        `class_means`.

        >>> from ncutils import UFM, solve
        >>> solve(UFM.from_lam_z([20, 20, 10], lam_z=0.01)).classifier(dim=5).shape
        (3, 5)
        """
        return (
            self.ufm.lam_h**0.25
            / self.ufm.lam_w**0.25
            * self._in_dimension(dim, self._factors[0].T).T
        )

    @property
    def balance_residual(self):
        """‖λ_W WᵀW − λ_H H̄ D H̄ᵀ‖_F / ‖λ_W WᵀW‖_F of the factors; 0 where Z = 0. For "relu" only
        the diagonals of the two matrices agree, since H ≥ 0 binds."""
        dim = self.ufm.num_classes
        return balance_residual(self.classifier(dim), self.class_means(dim), self.ufm)
