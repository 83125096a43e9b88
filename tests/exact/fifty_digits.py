"""The programs (CVX) and (CVX+) and their dual at 50 digits, and hard problems to try them on.

Points are float64 arrays in the coordinates of `ncutils/exact/_blocks.py`, one column a group, and
every number is taken for exactly what it is. The formulas are derived from the definitions, for a
column k of group g, and share nothing with the package. Results are numbers of a context of their
own, `mp`, whose arithmetic has 50 digits whatever mpmath is set to elsewhere.
"""

import math
from typing import NamedTuple

import numpy as np
from mpmath.ctx_mp import MPContext

from ncutils import UFM

mp = MPContext()
mp.dps = 50
# arrays of mpf, of dtype object, with which NumPy's sums and products work
exactly, root, exp, log1p = (np.frompyfunc(f, 1, 1) for f in (mp.mpf, mp.sqrt, mp.exp, mp.log1p))
entropy = np.frompyfunc(lambda p: -p * mp.log(p) if p > 0 else mp.zero, 1, 1)
# of 1 − rest
own_entropy = np.frompyfunc(lambda r: (r - 1) * mp.log1p(-r) if r < 1 else mp.zero, 1, 1)


def program(ufm):
    """(sizes, counts, weights, λ_Z, λ_b), one entry a group: arguments of the functions below."""
    first = [members[0] for members in ufm.groups.values()]
    counts = [len(members) for members in ufm.groups.values()]
    return [ufm.class_sizes[k] for k in first], counts, ufm.weights[first], ufm.lam_z, ufm.lam_b


class _Groups:
    """Sizes n, counts K and weights w (G,), N, and the weight of a group's loss, in mpf."""

    def __init__(self, *numbers):
        self.n, self.K, self.w = (exactly(np.asarray(row, dtype=object)) for row in numbers)
        self.G, self.N = len(self.n), self.n @ self.K
        self.share = self.w * self.n * self.K / self.N
        # classes of group h other than one of group g
        self.others = self.K[:, None] - np.eye(self.G, dtype=int)
        self.pair = root(self.K[:, None] * self.K)


def primal(sizes, counts, weights, lam_z, lam_b, C, bias, features):
    """Value of (CVX), or of (CVX+) for "relu", at C (G + 1, G) and bias (G,)."""
    groups = _Groups(sizes, counts, weights)
    n, K = groups.n, groups.K
    y, M, b = exactly(C[0]), exactly(C[1:]), exactly(bias)
    several = np.array([count > 1 for count in counts])
    assert not y[~several].any() and (math.isfinite(lam_b) or not b.any())
    a = np.where(several, y / root(np.where(several, K - 1, 1) * n), mp.zero)
    # (h, g): logit of a class of group h at one of group g; within a group less a/K
    Z = M / (groups.pair * root(n))
    same = Z.diagonal() - a / K
    own = same + a
    logits = Z.copy()
    np.fill_diagonal(logits, same)
    loss = log1p((groups.others * exp(logits + b[:, None] - own - b)).sum(0))
    if features == "linear":
        norm = root(K - 1) @ abs(y) + sum(singular_values(M))
    else:
        norm = root(K) @ root(y**2 + (M**2).sum(0))
    penalty = mp.mpf(lam_b) / 2 * (K @ b**2) if math.isfinite(lam_b) else mp.zero
    return groups.share @ loss + mp.mpf(lam_z) * norm + penalty


def dual_value(sizes, counts, weights, lam_z, lam_b, q):
    """Value at q (G, G): q_hg is what a sample of group g gives to one class of group h, of the
    others if h = g.

    It bounds the optimum from below if q is `feasible`; −inf where q is not in the simplex."""
    return _dual_value(_Groups(sizes, counts, weights), _without_lone(q, counts), lam_b)


def feasible(sizes, counts, weights, lam_z, lam_b, q, features):
    """Whether q (G, G) is in the simplex and norm ≤ λ_Z: λ_Z² I less the matrix is definite."""
    groups = _Groups(sizes, counts, weights)
    q = _without_lone(q, counts)
    if not in_simplex(groups, q):
        return False
    within, matrix = _squared_norm(groups, q, features)
    square = mp.mpf(lam_z) ** 2
    return within <= square and positive_definite(square * np.eye(groups.G, dtype=int) - matrix)


def _without_lone(q, counts):
    """q in mpf, with 0 for the other classes of a group that has none."""
    q = exactly(q)
    for g, count in enumerate(counts):
        if count == 1:
            q[g, g] = mp.zero
    return q


def in_simplex(groups, q):
    return bool((q >= 0).all() and ((groups.others * q).sum(0) <= 1).all())


def _dual_value(groups, q, lam_b):
    if not in_simplex(groups, q):
        return mp.ninf
    rest = (groups.others * q).sum(0)
    value = groups.share @ ((groups.others * entropy(q)).sum(0) + own_entropy(rest))
    if math.isfinite(lam_b):
        flow = groups.w * groups.n / groups.N * q  # from one class of group g to one of group h
        np.fill_diagonal(flow, mp.zero)
        out = groups.K @ flow  # (g,): to all classes of other groups
        slope = out - flow @ groups.K  # of one class
        value -= groups.K @ slope**2 / (2 * mp.mpf(lam_b))
    return value


def _squared_norm(groups, q, features):
    """Two parts, the largest of whose eigenvalues is norm²: a number, and a matrix (G, G).

    GᵀG, or its positive part, is constant on blocks but for its diagonal. It has the number as
    eigenvalue on vectors that sum to zero in each group, and acts as the matrix on vectors that are
    constant on groups."""
    K, unit = groups.K, groups.w * root(groups.n) / groups.N  # scale of a column
    rest = (groups.others * q).sum(0)
    same = q.diagonal()
    # (h, g): entry of a column of group g of G in the rows of group h; rest_g · unit_g in its own
    columns = -q * unit
    own = rest * unit
    if features == "linear":
        M = groups.pair * columns
        np.fill_diagonal(M, unit * (rest - (K - 1) * same))
        within = (own + same * unit)[K > 1]
        return max(within, default=mp.zero) ** 2, M.T @ M
    # products of two different columns k, l: as if no entry were special, then the rows k and l put
    # right
    plain = columns.T @ (K[:, None] * columns)
    special = own - columns.diagonal()
    product = plain + special[:, None] * columns + (special[:, None] * columns).T
    product = np.maximum(product, mp.zero)
    length = plain.diagonal() + 2 * special * columns.diagonal() + special**2
    twin = np.where(K > 1, product.diagonal(), mp.zero)
    matrix = groups.pair * product
    np.fill_diagonal(matrix, length + (K - 1) * twin)
    return max(length - twin), matrix


def singular_values(M):
    """Those of M (G, G). Squaring M halves the digits, of which there are enough."""
    with mp.workdps(2 * mp.dps + 10):
        squares = mp.eigsy(mp.matrix((M.T @ M).tolist()), eigvals_only=True)
        return [mp.sqrt(max(s, mp.zero)) for s in squares]


def positive_definite(matrix):
    """Whether all of Cholesky's pivots are positive."""
    rest = matrix.copy()
    while len(rest):
        pivot, column = rest[0, 0], rest[1:, 0]
        if pivot <= 0:
            return False
        rest = rest[1:, 1:] - column[:, None] * (column / pivot)
    return True


# Problems -----------------------------------------------------------------------------------------
class Named(NamedTuple):
    """A problem that has gone wrong once. `gap` is a_g of the smallest classes, in nats."""

    name: str
    ufm: UFM
    features: str
    objective: float
    gap: float | None = None


def _weighted():
    counts = [1 + i * i % 30 for i in range(17)]
    repeat = lambda values: [value for value, count in zip(values, counts) for _ in range(count)]
    sizes = repeat([int(100 * 1.3**i) for i in range(17)])
    weights = repeat([round(10 ** (2 * math.sin(11 * i)), 3) for i in range(17)])
    return UFM.from_lam_z(sizes, 2.2e-7, lam_b=0.02, class_weights=weights)


PAIR = UFM.from_lam_z([10000] * 40 + [1] * 2, 1e-15)
THREE = UFM.from_lam_z([10**6] * 21 + [5000] * 8 + [5] * 9, 4e-13)
DIFFERENT = UFM.from_lam_z(range(1, 14), 1e-18)
NAMED = [
    Named("a pair at 1e-15", PAIR, "linear", 1.21092909283760e-10, 24.44886348846),
    Named("three groups at 4e-13", THREE, "linear", 1.95653856417636e-7),
    Named("weighted groups", _weighted(), "relu", 0.024119143006712),
    Named("all different, relu", DIFFERENT, "relu", 1.308079913469738e-15),
    Named("all different", DIFFERENT, "linear", 1.262835507765903e-15),
]


def hard_problems(count, seed):
    """`count` pairs (UFM, features), on a wide range of everything at once, logarithmically even.

    Sizes 1 … 1e12 with ratios to 1e9; λ_Z N 1e-6 … 1.1 times the smallest w sqrt(n); λ_b 1e-8 … 1e8
    or ∞; weights 1e-3 … 1e3 in a third; 1 … 12 groups, in an eighth to 50; 1 … 30 classes a group,
    in one of twenty groups to 300.
    """
    rng = np.random.default_rng(seed)
    for _ in range(count):
        many = rng.random() < 1 / 8
        G = int(rng.choice([50, rng.integers(13, 51)])) if many else int(rng.integers(1, 13))
        ratio = rng.uniform(0, 9)
        power = rng.uniform(0, 12 - ratio) + ratio * np.sort(rng.random(G))
        group_sizes = np.unique(np.round(10**power).astype(int))
        counts = np.round(30 ** rng.random(len(group_sizes))).astype(int)
        counts[rng.random(len(counts)) < 1 / 20] *= 10
        counts[0] += counts.sum() == 1  # there are two classes at least
        sizes, weights = np.repeat(group_sizes, counts), None
        if rng.random() < 1 / 3:
            weights = np.repeat(10 ** rng.uniform(-3, 3, len(counts)), counts)
        level = ((1 if weights is None else weights) * np.sqrt(sizes)).min()
        lam_z = 10 ** rng.uniform(-6, math.log10(1.1)) * level / sizes.sum()
        lam_b = math.inf if rng.random() < 1 / 3 else 10 ** rng.uniform(-8, 8)
        weights = None if weights is None else weights.tolist()
        ufm = UFM.from_lam_z(sizes.tolist(), lam_z, lam_b=lam_b, class_weights=weights)
        yield ufm, ("linear", "relu")[rng.integers(2)]
