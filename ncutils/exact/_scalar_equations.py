r"""The exact solution for two groups of classes: one unknown each, many problems at once.

Majority A has K_A classes of n_A samples, minority B has K_B of n_B ≤ n_A; K = K_A + K_B. Z, b and
the objective depend on K_A, K_B, r = n_A/n_B, τ = λ_Z N/sqrt(n_B) and λ_b only. Write τ_A =
τ/sqrt(r), τ_B = τ. A sample of group g (h is the other) has probability p_d for its own class, p_o
for each other class of g, p_x for each class of h. Optimality reads

    within g    1 − p_d + p_o = T_g = min(τ_g, 1): p_o = (T_g − K_h p_x)/K_g, and the gap is a_g = ln(p_d/p_o)
    between     M_A/p_xA = M_B/p_xB > 0 and K (K_B p_xA² + K_A p_xB²/r) = τ_A²,  or  M_A = M_B = 0 and K (…) ≤ τ_A²,
                M_A = K_A (m_A − β), M_B = K_B (m_B + β), m_g = (ln p_d + (K_g − 1) ln p_o)/K_g − ln
                p_x
    bias        β = b_A − b_B = K (n_A p_xA − n_B p_xB)/(N λ_b),   K_A b_A + K_B b_B = 0

with T_g = 1 for K_g = 1. m_g is the mean logit of the own group minus the logit of the other,
M_g/K_g the same without bias. With ψ = ln(p_xB/p_xA) M_A increases and M_B decreases, so ψ + ln M_A
− ln M_B has one zero or none. If none, Z does not tell the groups apart, and one equation in p_xA
is left: never where τ_B < 1, always where τ_A ≥ 1. The gap compares these logits with the dual
value at these probabilities (see convex.py).

The points of the ellipse K (…) = τ_A² are sqrt(K K_B) p_xA = τ_A cos θ, sqrt(K K_A) p_xB = τ_B sin
θ. As p_xB < T_B/K_A, C sin θ < 1 with C = max(1, (τ_B/T_B) sqrt(K_A/K)). The unknown is the t with
(C sin θ)² = σ(2t), σ being the logistic function, or where C = 1, what is the same but for a
constant, ψ: then cos² θ, 1 − C² sin² θ and o_g = 1 − K_h p_x/T_g are sums of positive terms, right
however small. So is o_B where the bias makes a sample of B all but certain to be taken for A.
Source: ours, from the optimality conditions of the paper's program (Hong and Ling,
arXiv:2309.09725).
"""

import math
from typing import NamedTuple

import torch

from ..ufm import ON_THE_LINE

FEW = 2**10  # so few problems take hardly longer than one
STEPS, PATIENCE = (
    400,
    8,
)  # steps at most, bisection alone needs about 100 at the extremes; Newton steps before it may help
TAKEN = 17  # of the fields that follow


class _Problems(NamedTuple):
    """Problems and what their equations need; (2, E): for the groups A, B; (E,): for both. A
    probability p of a sample of group g is kept over c_g = min(τ_g, 1), whose logarithm is known:
    then none underflows. As p_x rises, o_g = 1 − K_h p_x/T_g falls: p_o = T_g o_g/K_g, and p_d = 1
    − T_g + p_o, or o_g in a group of one class."""

    k: torch.Tensor  # K_g (2, E)
    log_k: torch.Tensor  # (2, E)
    log_c: torch.Tensor  # (2, E)
    log_most: torch.Tensor  # ln of the largest p_x/c_g at all, T_g/(K_h c_g) (2, E)
    spare: torch.Tensor  # 1 − T_g (2, E)
    unit: torch.Tensor  # p_d = spare + unit · o_g (2, E)
    full: torch.Tensor  # 1 where T_g = 1, else 0 (2, E)
    constant: torch.Tensor  # −((K_g − 1) ln K_g + ln c_g)/K_g, a part of m_g (2, E)
    reach: torch.Tensor  # largest p_x/c_g on the ellipse, and its logarithm (2, E)
    log_reach: torch.Tensor
    top: torch.Tensor  # largest K_h p_x/T_g on the ellipse (2, E)
    free: torch.Tensor  # 1 − top² (2, E)
    pull: torch.Tensor  # ± K n_g c_g/(N λ_b) (2, E): β is the sum of pull · p_x/c_g; 0 without bias
    offset: torch.Tensor  # ln(tan θ) − ψ where C = 1, else 0 (E,)
    over: torch.Tensor  # 1 where C > 1, else 0 (E,)
    inverse: torch.Tensor  # 1/C² (E,)
    beyond: torch.Tensor  # 1 − 1/C² (E,)
    # what no equation needs is not taken along
    other: torch.Tensor = None  # K_h (2, E)
    log_root: torch.Tensor = None  # ln sqrt(n_g/n_A) (2, E)
    log_tau: torch.Tensor = None  # ln τ_g (2, E)
    c: torch.Tensor = None  # (2, E)
    share: torch.Tensor = None  # n_g c_g/(n_A c_A) (2, E)
    log_over: torch.Tensor = None  # ln C² (E,)

    def take(self, index):
        pair = index.expand(2, -1)  # gather is faster than indexing
        return _Problems(
            *(
                field.gather(1, pair) if field.dim() == 2 else field.gather(0, index)
                for field in self[:TAKEN]
            )
        )

    def group(self, g):
        return _Problems(*(field[g] if field.dim() == 2 else field for field in self[:TAKEN]))


def _problems(k, log_ratio, log_tau, lam_b):
    K, other, log_k = k.sum(0), k.flip(0), k.log()
    log_all = K.log()
    log_root = torch.stack([torch.zeros_like(log_ratio), -log_ratio / 2])
    log_tau = torch.stack([log_tau - log_ratio / 2, log_tau])
    log_c = log_tau.clamp(max=0)
    c, share = log_c.exp(), torch.exp(2 * log_root + log_c - log_c[0])
    several, fewer = k > 1, torch.minimum(k[0], k[1]) / K
    log_t = torch.where(several, log_c, 0.0)
    log_cap = torch.where(k < other, torch.log1p(-fewer), log_k.flip(0) - log_all) + 2 * (
        log_tau - log_t
    )
    log_over = log_cap[1].clamp(min=0)  # ln C²
    log_cap = log_cap.clamp(max=0)
    log_reach = log_tau - log_c - (log_all + log_k.flip(0)) / 2
    log_reach[1] -= log_over / 2
    reach = log_reach.exp()
    pull = share * K * c[0] / (k * torch.exp(2 * log_root)).sum(0) / lam_b
    pull[1] *= -1
    over = (log_over > 0).double()
    return _Problems(
        k,
        log_k,
        log_c,
        log_t - log_c - log_k.flip(0),
        -torch.expm1(log_t),
        torch.where(several, c / k, 1.0),
        (log_t == 0).double(),
        -((k - 1) * log_k + log_c) / k,
        reach,
        log_reach,
        (log_cap / 2).exp(),
        -torch.expm1(log_cap),
        pull,
        (1 - over) * ((log_k[0] - log_k[1]) / 2 + log_root[1]),
        over,
        torch.exp(-log_over),
        -torch.expm1(-log_over),
        other,
        log_root,
        log_tau,
        c,
        share,
        log_over,
    )


class _Point(NamedTuple):
    """The probabilities of the samples of both groups (2, E), and slopes in what they are explicit
    in: t or odds.
    """

    log_x: torch.Tensor  # ln(p_x/c_g)
    x: torch.Tensor
    log_o: torch.Tensor  # ln o_g
    o: torch.Tensor
    log_d: torch.Tensor  # ln p_d
    m: torch.Tensor
    turn: torch.Tensor  # |d log_x|
    rate: torch.Tensor  # |dm|


def _point(p, log_x, x, log_o, o, turn, push):
    """The `_Point`, `push` being |d log_o|: m grows as p_x falls and o rises."""
    of_o, others = p.unit * o, p.k - 1
    p_d = (p.spare + of_o).clamp(min=1e-300)
    log_d = p_d.log().lerp(log_o - p.log_k, p.full)  # ln o is right where o underflows
    m = (log_d + others * log_o) / p.k + p.constant - log_x
    return _Point(log_x, x, log_o, o, log_d, m, turn, turn + push * (of_o / p_d + others) / p.k)


def _crossing(p, t):
    """The `_Point` at t on the ellipse K (K_B p_xA² + K_A p_xB²/r) = τ_A² ≤ 1, and ψ =
    ln(p_xB/p_xA).
    """
    u = 2 * (t + p.offset)  # where C = 1 the unknown is ψ
    rise, fall = torch.sigmoid(torch.stack([u, -u])).clamp(
        min=1e-300
    )  # C² sin² θ and 1 − C² sin² θ
    larger, left = torch.maximum(rise, fall), u.clamp(max=0)
    cos2, sin2 = p.beyond + p.inverse * fall, p.inverse * rise
    log_x = p.log_reach + torch.stack([cos2, larger]).log() / 2
    log_x[1] += left / 2
    root = torch.stack([cos2, rise]).sqrt()
    y = p.top * root  # K_h p_x/T_g
    above = 1 + y
    o = (
        p.free + p.top * p.top * torch.stack([sin2, fall])
    ) / above  # 1 − y² over 1 + y: in the sum nothing cancels
    log_o = torch.stack([o[0], o[1].lerp(larger / above[1], p.over)]).log()
    log_o[1] += p.over * (left - u)  # o_B may underflow where 1 − top² is 0
    turn = torch.stack([sin2 * fall / cos2, fall])
    point = _point(p, log_x, p.reach * root, log_o, o, turn, y * turn / o)
    return point, t.lerp((log_x[1] + p.log_c[1]) - (log_x[0] + p.log_c[0]), p.over)


def _odds(p, s):
    """The `_Point` with odds ln(o_g T_g/(K_h p_x)) = s, for both groups or one."""
    log_sum = torch.log1p(torch.exp(-s.abs()))
    log_o, log_y = s.clamp(max=0) - log_sum, -s.clamp(min=0) - log_sum
    log_x, o = log_y + p.log_most, log_o.exp()
    return _point(p, log_x, log_x.exp(), log_o, o, o, log_y.exp())


def _between(p, t):
    """M_A e^{ψ/2} − M_B e^{−ψ/2} over the larger power, its slope, and whether M_A, M_B ≤ 0: no
    root has both > 0.
    """
    point, psi = _crossing(p, t)
    pulled = p.pull * point.x
    beta, fall = pulled[0] + pulled[1], pulled[0] * point.turn[0] - pulled[1] * point.turn[1]
    m = point.m - torch.stack([beta, -beta])
    power = p.k * torch.stack([psi, -psi]).clamp(-690, 0).exp()
    value = power * m
    # a negative m leaves the sign of the value right, but could turn that of the slope: there its
    # part is left out
    slope = power * (point.rate + fall + m.clamp(min=0) * ((point.turn[0] + point.turn[1]) / 2))
    return value[0] - value[1], slope[0] + slope[1], torch.maximum(m[0], m[1]) <= 0


def _apart(p, s):
    """Where Z does not tell the groups apart, m_A = −m_B = β: the `_Point`s of A and B for odds s
    of A.
    """
    a = _odds(p.group(0), s)
    return a, _odds(p.group(1), p.log_k[1] - p.log_k[0] - a.m)


def _within_a(p, s):
    """m_A minus β as the bias asks, its slope, and False."""
    a, b = _apart(p, s)
    pulled_a, pulled_b = p.pull[0] * a.x, p.pull[1] * b.x
    slope = a.rate + pulled_a * a.turn - pulled_b * b.turn * a.rate
    return a.m - pulled_a - pulled_b, slope, torch.zeros_like(s, dtype=torch.bool)


def _root(function, p, x):
    """Roots (E,) of an increasing function of (problems, x) that gives value, slope and whether
    there is none: Newton's method from x for all problems at once, bisecting where it leaves the
    bracket or, after the first steps, crawls, so that it ends in time even where the function is
    flat or exponential. Returns (x, none)."""
    roots, hopeless = x.clone(), torch.zeros_like(x, dtype=torch.bool)
    index = torch.arange(len(x), device=x.device)
    low, high, last = (
        torch.full_like(x, -math.inf),
        torch.full_like(x, math.inf),
        torch.full_like(x, math.inf),
    )
    done = hopeless.clone()
    for number in range(STEPS):
        value, slope, none = function(p, x)
        beyond = value > 0  # false for NaN, as is newton
        low, high = torch.where(beyond, low, x), torch.where(beyond, x, high)
        bracket = torch.where(beyond, low, high) - x
        step, size = -value / slope, 1 + x.abs()
        newton, settled = (
            step.abs() < bracket.abs(),
            step * step <= 1e-17 * size,
        )  # the next step is about this one squared
        if number >= PATIENCE:
            newton &= settled | (step.abs() <= last.abs() / 2)
        limit = 2.0 ** min(number + 1, 40)  # while one side is open
        step = torch.where(newton, step, bracket / 2).clamp(-limit, limit)
        done |= none
        x, last = (
            x + step.masked_fill(done, 0.0),
            step,
        )  # what is done stays, so that no problem sees another
        done |= (newton & settled) | (high - low <= 4e-16 * size)
        left = len(x) - int(done.sum())
        if (
            left <= (len(x) / 2 if len(x) > FEW else 0) or number == STEPS - 1
        ):  # those left go on alone
            roots[index], hopeless[index] = x, none
            if left == 0:
                break
            keep = (~done).nonzero()[:, 0]
            p, (index, x, low, high, last) = (
                p.take(keep),
                (each.gather(0, keep) for each in (index, x, low, high, last)),
            )
            done = torch.zeros_like(x, dtype=torch.bool)
    return roots, hopeless


def _solve(k_a, k_b, log_ratio, log_tau, lam_b):
    """The rows a_A, a_B, m_A, m_B (of Z), b_A, b_B, ln objective, relative gap (8, E) of problems
    (E,).
    """
    k, K = torch.stack([k_a, k_b]), k_a + k_b
    p = _problems(k, log_ratio, log_tau, lam_b)
    told = p.log_tau[0] < -ON_THE_LINE  # whether Z tells the groups apart
    place = torch.zeros_like(log_tau)
    if told.any():
        some = told.nonzero()[:, 0]
        start = (-p.log_tau[0] - (K / k_b).log() / 2).clamp(
            max=0
        )  # ψ where p_xA = p_xB, unless p_xB > 1/K there
        log_y = torch.minimum(
            start + (p.log_k[0] - p.log_k[1] + p.log_over) / 2 + p.log_root[1], p.log_k[0] - K.log()
        )
        start = torch.where(p.over > 0, log_y - torch.log1p(-torch.exp(2 * log_y)) / 2, start)
        place[some], none = _root(_between, p.take(some), start[some])
        told[some] = ~none
    point, psi = _crossing(p, place)
    told &= point.m.sum(0) > ON_THE_LINE  # M_A/K_A + M_B/K_B, as the bias cancels
    if not told.all():
        some = (~told).nonzero()[:, 0]
        part = p.take(some)
        s, _ = _root(_within_a, part, part.log_k[0] - part.log_k[1])  # from p_xA = T_A/K
        for whole, *groups in zip(point, *_apart(part, s)):
            whole[:, some] = torch.stack(groups)
    return _outcome(p, lam_b, psi, told, point)


def _outcome(p, lam_b, psi, told, point):
    """The rows of `_solve` from the probabilities: the logits, then primal and dual value apart,
    both times N/(n_A c_A).
    """
    K, x, m = p.k.sum(0), point.x, point.m
    small = torch.log1p(
        p.spare * p.k / (p.c * point.o)
    )  # p_d − p_o = 1 − T_g: nothing cancels in a small gap
    a = torch.where(p.c > 0.01, small, point.log_d - point.log_o + p.log_k - p.log_c)
    a = torch.where((p.k > 1) & (p.log_tau < -ON_THE_LINE), a, 0.0)
    lean = (
        psi + p.log_k[0] - p.log_k[1]
    )  # M_A p_xB = M_B p_xA divides m_A + m_B, in which the bias cancels
    z = torch.where(told, m.sum(0) * torch.sigmoid(torch.stack([-lean, lean])), 0.0)
    pulled = (p.pull * x).sum(0)
    beta = torch.where(
        p.pull[0] * x[0] > 1, m[0] - z[0], pulled
    )  # the better conditioned of two equal values
    sign = torch.stack([torch.ones_like(beta), -torch.ones_like(beta)])

    root = p.log_root.exp()
    samples = (p.k * root**2).sum(0)  # N/n_A
    weight, c_a = p.k * p.share, p.c[0].clamp(min=1e-300)
    penalty = torch.where(torch.isinf(lam_b), 0.0, lam_b) * p.k[0] * p.k[1] / K * samples / 2
    s = z * p.k * (p.other / K).sqrt() * root
    nuclear = ((p.k - 1) * a * root).sum(0) + (s * s).sum(0).sqrt()  # ‖Z D^{1/2}‖_*/sqrt(n_A)
    primal = (
        (weight * _loss(p, a, z + sign * beta)).sum(0)
        + p.log_tau[0].clamp(0, 700).exp() * nuclear
        + penalty * beta * (beta / c_a)
    )

    q = (
        (K * p.other).sqrt()
        * torch.exp(p.log_root + p.log_c - p.log_c[0] - p.log_tau[0].clamp(min=0))
        * x
    )
    shrink = 1 / (q * q).sum(0).sqrt().clamp(min=1)  # a point of the dual however the root came out
    dual = (weight * _entropy(p, point, shrink)).sum(0) - penalty * (shrink * pulled) * (
        shrink * pulled / c_a
    )
    bias = torch.stack([p.k[1] * beta / K, 0.0 - p.k[0] * beta / K])
    return torch.cat(
        [
            torch.where(p.k > 1, a, math.nan),
            z,
            bias,
            torch.stack([(primal / samples).log() + p.log_c[0], (primal - dual) / primal]),
        ]
    )


def _log1p_over(c, v):
    """ln(1 + c v)/c, which is v where c is tiny."""
    return torch.where(c > 1e-20, torch.log1p(c * v) / c, v)


def _loss(p, a, m):
    """Cross-entropy over c (2, E) of logits with gaps a and contrasts m."""
    across = -m - a * (1 - 1 / p.k)  # logit of the other group minus that of the own class
    most, c = across.clamp(min=0), p.c.clamp(min=1e-300)
    others = (p.k - 1) * torch.exp((-a - most - p.log_c).clamp(max=700))
    others = (
        others
        + p.other * torch.exp((across - most - p.log_c).clamp(max=700))
        + torch.expm1(-most) / c
    )
    return most / c + _log1p_over(p.c, others)


def _entropy(p, point, shrink):
    """Entropy over c (2, E) of the probabilities of `point`, drawn to certainty by the factor
    `shrink`.
    """
    log_s = shrink.log() + p.log_c
    rest = shrink * ((p.k - 1) + p.other * point.x) / p.k  # (1 − p_d)/c
    rest = torch.minimum(rest, (1 - 1e-16) / p.c)  # 0 ln 0 is 0
    unsure = (p.k - 1) / p.k * point.o * (point.log_o - p.log_k + log_s) + p.other * point.x * (
        point.log_x + log_s
    )
    return -(1 - p.c * rest) * _log1p_over(p.c, -rest) - shrink * unsure
