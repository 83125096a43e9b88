"""The problem: class sizes and penalties of the unconstrained feature model (UFM); phases."""

import math
from dataclasses import dataclass
from enum import Enum
from functools import cached_property

import numpy as np

from ._checks import check_class_sizes, check_class_weights, check_memory, check_positive, shown

# a level λ_Z N this close to a threshold, relatively, counts as on it: rounding would decide
ON_THE_LINE = 1e-12
CONTRADICTION = 1e-13  # of the objective: a lower bound that far above it is a fault, not rounding


@dataclass(frozen=True)
class UFM:
    r"""The unconstrained feature model with cross-entropy loss on K classes.

    .. math:: \min_{W, H, b} \frac1N \sum_{k=1}^K w_k \sum_{i=1}^{n_k} \mathrm{CE}(W h_{k,i} + b, k)
              + \frac{\lambda_W}{2} \|W\|_F^2 + \frac{\lambda_H}{2} \|H\|_F^2
              + \frac{\lambda_b}{2} \|b\|^2

    over the classifier W (K, d), one free feature vector h_{k,i} (d,) for each of the
    N = Σ n_k samples, and the bias b (K,).

    Parameters
    ----------
    class_sizes : K ≥ 2 positive whole numbers, the numbers of samples n_k.
    lam_w, lam_h : λ_W, λ_H > 0, penalties on W and H.
    lam_b : λ_b > 0, penalty on b; `math.inf` means no bias.
    class_weights : K numbers w_k from 1e-6 to 1e6, weights of the losses; None means 1 each.
        They are taken as they are: PyTorch's `CrossEntropyLoss(weight=w)` divides by Σ w_k n_k
        instead of N, which are the weights w_k N / Σ_l w_l n_l here.

    Raises ValueError, naming argument and value, where one is not allowed.

    Source: Hong and Ling, arXiv:2309.09725. Their code writes the
    penalties without the factors 1/2. The class weights are ours.

    >>> from ncutils import UFM
    >>> ufm = UFM([2, 2, 1], lam_w=0.04, lam_h=0.01, lam_b=0.02)
    >>> ufm.num_classes, ufm.num_samples, round(ufm.lam_z, 4)
    (3, 5, 0.02)
    >>> ufm.sizes, ufm.weights, ufm.labels
    (array([2., 2., 1.]), array([1., 1., 1.]), array([0, 0, 1, 1, 2]))
    >>> ufm.groups
    {2: array([0, 1]), 1: array([2])}
    """

    class_sizes: tuple
    lam_w: float
    lam_h: float
    lam_b: float = math.inf
    class_weights: tuple | None = None

    def __post_init__(self):
        object.__setattr__(self, "class_sizes", check_class_sizes(self.class_sizes))
        object.__setattr__(self, "lam_w", check_positive("lam_w", self.lam_w))
        object.__setattr__(self, "lam_h", check_positive("lam_h", self.lam_h))
        object.__setattr__(self, "lam_b", check_positive("lam_b", self.lam_b, infinite=True))
        object.__setattr__(
            self, "class_weights", check_class_weights(self.class_weights, self.num_classes)
        )

    @classmethod
    def from_lam_z(cls, class_sizes, lam_z, lam_b=math.inf, balance=1.0, class_weights=None):
        """The UFM with λ_W = λ_Z · balance and λ_H = λ_Z / balance, so that sqrt(λ_W λ_H) = λ_Z.

        `class_sizes`, `lam_b` and `class_weights` as in `UFM`. Raises ValueError, too, unless
        `lam_z` and `balance` are positive and finite. Source: ours.

        >>> from ncutils import UFM
        >>> UFM.from_lam_z([5, 3], lam_z=0.5, balance=2.0)
        UFM(class_sizes=(5, 3), lam_w=1.0, lam_h=0.25, lam_b=inf, class_weights=None)
        """
        lam_z, balance = check_positive("lam_z", lam_z), check_positive("balance", balance)
        return cls(class_sizes, lam_z * balance, lam_z / balance, lam_b, class_weights)

    @property
    def num_classes(self):
        """K, the number of classes."""
        return len(self.class_sizes)

    @cached_property
    def num_samples(self):
        """N = Σ n_k, the number of samples."""
        return sum(self.class_sizes)

    @cached_property
    def sizes(self):
        """The class sizes as a float array (K,), for formulas."""
        sizes = np.array(self.class_sizes, dtype=np.float64)
        sizes.flags.writeable = False
        return sizes

    @cached_property
    def weights(self):
        """The class weights w_k as a float array (K,), 1 each where there are none."""
        weights = np.array(self.class_weights or (1.0,) * self.num_classes)
        weights.flags.writeable = False
        return weights

    @property
    def lam_z(self):
        """λ_Z = sqrt(λ_W λ_H), the only combination of λ_W and λ_H that Z and b depend on."""
        product = self.lam_w * self.lam_h
        return (
            math.sqrt(product)
            if 1e-300 < product < 1e300
            else math.sqrt(self.lam_w) * math.sqrt(self.lam_h)
        )

    @cached_property
    def groups(self):
        """Classes of equal size: {n: array of class indices}, largest n first; with class weights,
        classes of equal size and weight: {(n, w): array of class indices}."""
        kinds = (
            self.class_sizes
            if self.class_weights is None
            else list(zip(self.class_sizes, self.class_weights))
        )
        found = {kind: [] for kind in sorted(set(kinds), reverse=True)}
        for k, kind in enumerate(kinds):
            found[kind].append(k)
        return {kind: np.array(members) for kind, members in found.items()}

    @property
    def labels(self):
        """Class index of each sample (N,), class after class. ValueError for so many samples that
        they fill 2 GiB.
        """
        check_memory("class_sizes", self.class_sizes, self.num_samples)
        return np.repeat(np.arange(self.num_classes), self.class_sizes)


def check_ufm(ufm):
    """`ufm` if it is a UFM, else ValueError."""
    if not isinstance(ufm, UFM):
        raise ValueError(f"ufm = {shown(ufm)}: must be a UFM")
    return ufm


class Phase(Enum):
    """What happens to two groups of classes at the global optimum.

    Source: the paper (the first two), ours (the others).

    >>> from ncutils import Phase
    >>> [phase.value for phase in Phase]
    ['distinct', 'minority collapse', 'minority vanishes', 'trivial']
    """

    DISTINCT = "distinct"  #: all class means differ
    MINORITY_COLLAPSE = "minority collapse"  #: minority means are one vector
    MINORITY_VANISHES = "minority vanishes"  #: minority means are zero
    TRIVIAL = "trivial"  #: all class means are zero


@dataclass(frozen=True)
class GroupPhases:
    """Phases of any number of groups of equal class size.

    Attributes
    ----------
    collapsed : {class size n: whether its classes, two at least, are one vector}; the keys are
        those of `UFM.groups`.
    rank : (lowest, highest) rank of Z that this allows. A group of K_g classes that has not
        collapsed contributes K_g − 1; the group means at most one less than the number of groups.

    Source: ours, from the optimality conditions.

    >>> from ncutils import UFM, theory
    >>> theory.phase(UFM.from_lam_z([900, 900, 400, 400, 100, 100], lam_z=0.009))
    GroupPhases(collapsed={900: False, 400: True, 100: True}, rank=(1, 3))
    """

    collapsed: dict
    rank: tuple
