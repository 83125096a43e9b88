r"""The exact solution for two groups of classes: one unknown each, many problems at once.

Majority A has K_A classes of n_A samples, minority B has K_B of n_B ≤ n_A; K = K_A + K_B. Z, b and
the objective depend on K_A, K_B, r = n_A/n_B, τ = λ_Z N/sqrt(n_B) and λ_b only. Write τ_A =
τ/sqrt(r), τ_B = τ. A sample of group g (h is the other) has probability p_d for its own class, p_o
for each other class of g, p_x for each class of h. Optimality reads

    within g    1 − p_d + p_o = T_g = min(τ_g, 1): p_o = (T_g − K_h p_x)/K_g,
                and the gap is a_g = ln(p_d/p_o)
    between     M_A/p_xA = M_B/p_xB > 0 and K (K_B p_xA² + K_A p_xB²/r) = τ_A²,
                or M_A = M_B = 0 and K (…) ≤ τ_A², where
                M_A = K_A (m_A − β), M_B = K_B (m_B + β),
                m_g = (ln p_d + (K_g − 1) ln p_o)/K_g − ln p_x
    bias        β = b_A − b_B = K (n_A p_xA − n_B p_xB)/(N λ_b),   K_A b_A + K_B b_B = 0

with T_g = 1 for K_g = 1. m_g is the mean logit of the own group minus the logit of the other,
M_g/K_g the same without bias. With ψ = ln(p_xB/p_xA) M_A increases and M_B decreases, so ψ + ln M_A
− ln M_B has one zero or none. If none, Z does not tell the groups apart, and one equation in p_xA
is left: never where τ_B < 1, always where τ_A ≥ 1. The gap compares these logits with the dual
value at these probabilities (see convex.py and `_two_group_values.py`).

The points of the ellipse K (…) = τ_A² are sqrt(K K_B) p_xA = τ_A cos θ, sqrt(K K_A) p_xB = τ_B sin
θ. As p_xB < T_B/K_A, C sin θ < 1 with C = max(1, (τ_B/T_B) sqrt(K_A/K)). The unknown is the t with
(C sin θ)² = σ(2t), σ being the logistic function, or where C = 1, what is the same but for a
constant, ψ: then cos² θ, 1 − C² sin² θ and o_g = 1 − K_h p_x/T_g are sums of positive terms, right
however small. So is o_B where the bias makes a sample of B all but certain to be taken for A.
Source: ours, from the optimality conditions of the paper's program (Hong and Ling,
arXiv:2309.09725).
"""

from typing import NamedTuple

import torch

from ..ufm import ON_THE_LINE
from ._roots import increasing_roots
from ._two_group_values import outcome


class Equations(NamedTuple):
    """What the equations need of the problems; (2, E): for the groups A, B; (E,): for both.

    A probability p of a sample of group g is kept over c_g = min(τ_g, 1), whose logarithm is known:
    then none underflows. x = p_x/c_g and y = K_h p_x/T_g. As p_x rises, o_g = 1 − y falls:
    p_o = T_g o_g/K_g, and p_d = 1 − T_g + p_o, or o_g in a group of one class."""

    k: torch.Tensor  # K_g (2, E)
    log_k: torch.Tensor  # (2, E)
    log_c: torch.Tensor  # (2, E)
    log_x_over_y: torch.Tensor  # ln of x/y, T_g/(K_h c_g) (2, E)
    one_minus_T: torch.Tensor  # 1 − T_g (2, E)
    d_of_o: torch.Tensor  # p_d = one_minus_T + d_of_o · o_g (2, E)
    T_is_1: torch.Tensor  # 1 where T_g = 1, else 0 (2, E)
    m_constant: torch.Tensor  # −((K_g − 1) ln K_g + ln c_g)/K_g, a part of m_g (2, E)
    x_most: torch.Tensor  # largest x on the ellipse (2, E)
    log_x_most: torch.Tensor  # (2, E)
    y_most: torch.Tensor  # largest y on the ellipse (2, E)
    one_minus_y2: torch.Tensor  # 1 − y_most² (2, E)
    beta_of_x: torch.Tensor  # ± K n_g c_g/(N λ_b) (2, E): β is Σ_g beta_of_x · x; 0 without bias
    offset: torch.Tensor  # ln(tan θ) − ψ where C = 1, else 0 (E,)
    C_above_1: torch.Tensor  # 1 where C > 1, else 0 (E,)
    inverse_C2: torch.Tensor  # 1/C² (E,)
    one_minus_inverse_C2: torch.Tensor  # 1 − 1/C² (E,)

    def take(self, index):
        """Those of some of the problems."""
        pair = index.expand(2, -1)  # gather is faster than indexing
        return Equations(
            *(
                field.gather(1, pair) if field.dim() == 2 else field.gather(0, index)
                for field in self
            )
        )

    def group(self, g):
        """Those of one group, (E,)."""
        return Equations(*(field[g] if field.dim() == 2 else field for field in self))


class Scales(NamedTuple):
    """Other numbers of the problems, which no equation needs."""

    K_h: torch.Tensor  # of the other group (2, E)
    log_root: torch.Tensor  # ln sqrt(n_g/n_A) (2, E)
    log_tau: torch.Tensor  # ln τ_g (2, E)
    c: torch.Tensor  # (2, E)
    share: torch.Tensor  # n_g c_g/(n_A c_A) (2, E)
    log_C2: torch.Tensor  # ln C² (E,)


def prepare(k, log_ratio, log_tau, lam_b):
    """`Equations` and `Scales` of problems with k (2, E) and the others (E,)."""
    K, other, log_k = k.sum(0), k.flip(0), k.log()
    log_all = K.log()
    log_root = torch.stack([torch.zeros_like(log_ratio), -log_ratio / 2])
    log_tau = torch.stack([log_tau - log_ratio / 2, log_tau])
    log_c = log_tau.clamp(max=0)
    c, share = log_c.exp(), torch.exp(2 * log_root + log_c - log_c[0])
    several, fewer = k > 1, torch.minimum(k[0], k[1]) / K
    log_T = torch.where(several, log_c, 0.0)
    # ln of the y² that the ellipse would allow: (τ_g/T_g)² K_h/K
    log_y2 = torch.where(k < other, torch.log1p(-fewer), log_k.flip(0) - log_all) + 2 * (
        log_tau - log_T
    )
    log_C2 = log_y2[1].clamp(min=0)
    log_y2 = log_y2.clamp(max=0)
    log_x_most = log_tau - log_c - (log_all + log_k.flip(0)) / 2
    log_x_most[1] -= log_C2 / 2
    beta_of_x = share * K * c[0] / (k * torch.exp(2 * log_root)).sum(0) / lam_b
    beta_of_x[1] *= -1
    C_above_1 = (log_C2 > 0).double()
    equations = Equations(
        k=k,
        log_k=log_k,
        log_c=log_c,
        log_x_over_y=log_T - log_c - log_k.flip(0),
        one_minus_T=-torch.expm1(log_T),
        d_of_o=torch.where(several, c / k, 1.0),
        T_is_1=(log_T == 0).double(),
        m_constant=-((k - 1) * log_k + log_c) / k,
        x_most=log_x_most.exp(),
        log_x_most=log_x_most,
        y_most=(log_y2 / 2).exp(),
        one_minus_y2=-torch.expm1(log_y2),
        beta_of_x=beta_of_x,
        offset=(1 - C_above_1) * ((log_k[0] - log_k[1]) / 2 + log_root[1]),
        C_above_1=C_above_1,
        inverse_C2=torch.exp(-log_C2),
        one_minus_inverse_C2=-torch.expm1(-log_C2),
    )
    return equations, Scales(other, log_root, log_tau, c, share, log_C2)


class Point(NamedTuple):
    """The probabilities of the samples of both groups (2, E), and absolute slopes in the unknown,
    which is t or odds.
    """

    log_x: torch.Tensor  # ln(p_x/c_g)
    x: torch.Tensor
    log_o: torch.Tensor  # ln o_g
    o: torch.Tensor
    log_d: torch.Tensor  # ln p_d
    m: torch.Tensor
    x_rate: torch.Tensor  # |d log_x|
    m_rate: torch.Tensor  # |dm|


def point(p, log_x, x, log_o, o, x_rate, o_rate):
    """The `Point`, with o_rate = |d log_o|: m grows as p_x falls and o rises."""
    of_o, siblings = p.d_of_o * o, p.k - 1
    p_d = (p.one_minus_T + of_o).clamp(min=1e-300)
    log_d = p_d.log().lerp(log_o - p.log_k, p.T_is_1)  # ln o is right where o underflows
    m = (log_d + siblings * log_o) / p.k + p.m_constant - log_x
    m_rate = x_rate + o_rate * (of_o / p_d + siblings) / p.k
    return Point(log_x, x, log_o, o, log_d, m, x_rate, m_rate)


def on_ellipse(p, t):
    """The `Point` at t on the ellipse K (K_B p_xA² + K_A p_xB²/r) = τ_A² ≤ 1, and
    ψ = ln(p_xB/p_xA).
    """
    u = 2 * (t + p.offset)  # where C = 1 the unknown is ψ
    # C² sin² θ and 1 − C² sin² θ
    rise, fall = torch.sigmoid(torch.stack([u, -u])).clamp(min=1e-300)
    larger, left = torch.maximum(rise, fall), u.clamp(max=0)
    cos2, sin2 = p.one_minus_inverse_C2 + p.inverse_C2 * fall, p.inverse_C2 * rise
    log_x = p.log_x_most + torch.stack([cos2, larger]).log() / 2
    log_x[1] += left / 2
    root = torch.stack([cos2, rise]).sqrt()
    y = p.y_most * root
    # 1 − y² over 1 + y: in the sum nothing cancels
    o = (p.one_minus_y2 + p.y_most * p.y_most * torch.stack([sin2, fall])) / (1 + y)
    log_o = torch.stack([o[0], o[1].lerp(larger / (1 + y[1]), p.C_above_1)]).log()
    log_o[1] += p.C_above_1 * (left - u)  # o_B may underflow where 1 − y_most² is 0
    x_rate = torch.stack([sin2 * fall / cos2, fall])
    found = point(p, log_x, p.x_most * root, log_o, o, x_rate, y * x_rate / o)
    return found, t.lerp((log_x[1] + p.log_c[1]) - (log_x[0] + p.log_c[0]), p.C_above_1)


def at_odds(p, s):
    """The `Point` with odds ln(o_g/y) = s, for both groups or one."""
    log_sum = torch.log1p(torch.exp(-s.abs()))
    log_o, log_y = s.clamp(max=0) - log_sum, -s.clamp(min=0) - log_sum
    log_x, o = log_y + p.log_x_over_y, log_o.exp()
    return point(p, log_x, log_x.exp(), log_o, o, o, log_y.exp())


def between_equation(p, t):
    """M_A e^{ψ/2} − M_B e^{−ψ/2} over the larger power, its slope, and whether M_A, M_B ≤ 0: no
    root has both > 0.
    """
    at, psi = on_ellipse(p, t)
    part = p.beta_of_x * at.x
    beta, fall = part[0] + part[1], part[0] * at.x_rate[0] - part[1] * at.x_rate[1]
    m = at.m - torch.stack([beta, -beta])
    power = p.k * torch.stack([psi, -psi]).clamp(-690, 0).exp()
    value = power * m
    # a negative m leaves the sign of the value right, but could turn that of the slope: there its
    # part is left out
    psi_rate = at.x_rate[0] + at.x_rate[1]
    slope = power * (at.m_rate + fall + m.clamp(min=0) * (psi_rate / 2))
    return value[0] - value[1], slope[0] + slope[1], torch.maximum(m[0], m[1]) <= 0


def alike(p, s):
    """Where Z does not tell the groups apart, m_A = −m_B = β: the `Point`s of A and B for odds s
    of A.
    """
    a = at_odds(p.group(0), s)
    return a, at_odds(p.group(1), p.log_k[1] - p.log_k[0] - a.m)


def alike_equation(p, s):
    """m_A minus β as the bias asks, its slope, and False."""
    a, b = alike(p, s)
    part_a, part_b = p.beta_of_x[0] * a.x, p.beta_of_x[1] * b.x
    slope = a.m_rate + part_a * a.x_rate - part_b * b.x_rate * a.m_rate
    return a.m - part_a - part_b, slope, torch.zeros_like(s, dtype=torch.bool)


def starting_place(p, scales):
    """t (E,) where p_xA = p_xB, unless p_xB > 1/K there."""
    log_K = p.k.sum(0).log()
    psi = (-scales.log_tau[0] - (p.k.sum(0) / p.k[1]).log() / 2).clamp(max=0)
    log_sine = torch.minimum(
        psi + (p.log_k[0] - p.log_k[1] + scales.log_C2) / 2 + scales.log_root[1], p.log_k[0] - log_K
    )
    return torch.where(p.C_above_1 > 0, log_sine - torch.log1p(-torch.exp(2 * log_sine)) / 2, psi)


def solve_equations(k_a, k_b, log_ratio, log_tau, lam_b):
    """The rows a_A, a_B, m_A, m_B (of Z), b_A, b_B, ln objective, relative gap (8, E) of problems
    (E,).
    """
    p, scales = prepare(torch.stack([k_a, k_b]), log_ratio, log_tau, lam_b)
    apart = scales.log_tau[0] < -ON_THE_LINE  # whether Z tells the groups apart
    t = torch.zeros_like(log_tau)
    if apart.any():
        some = apart.nonzero()[:, 0]
        start = starting_place(p, scales)[some]
        t[some], none = increasing_roots(between_equation, p.take(some), start)
        apart[some] = ~none
    found, psi = on_ellipse(p, t)
    apart &= found.m.sum(0) > ON_THE_LINE  # M_A/K_A + M_B/K_B, as the bias cancels
    if not apart.all():
        some = (~apart).nonzero()[:, 0]
        part = p.take(some)
        start = part.log_k[0] - part.log_k[1]  # p_xA = T_A/K
        s, _ = increasing_roots(alike_equation, part, start)
        for whole, *groups in zip(found, *alike(part, s)):
            whole[:, some] = torch.stack(groups)
    return outcome(p, scales, lam_b, psi, apart, found)
