"""The exact solution for two groups of classes, from its probabilities: logits, bias, objective and
relative gap. Symbols are those of `_scalar_equations.py`."""

import math

import torch

from ..ufm import ON_THE_LINE


def outcome(p, scales, lam_b, psi, apart, point):
    """The rows of `solve_equations` from the probabilities, with ψ = ln(p_xB/p_xA) and whether Z
    tells the groups `apart`.
    """
    a, z, beta = logits(p, scales, psi, apart, point)
    K = p.k.sum(0)
    samples = (p.k * scales.log_root.exp() ** 2).sum(0)  # N/n_A
    penalty = torch.where(torch.isinf(lam_b), 0.0, lam_b) * p.k[0] * p.k[1] / K * samples / 2
    primal = primal_value(p, scales, a, z, beta, penalty)
    dual = dual_value(p, scales, point, penalty)
    bias = torch.stack([p.k[1] * beta / K, 0.0 - p.k[0] * beta / K])
    log_objective = (primal / samples).log() + p.log_c[0]
    gap = (primal - dual) / primal
    a = torch.where(p.k > 1, a, math.nan)
    return torch.cat([a, z, bias, torch.stack([log_objective, gap])])


def logits(p, scales, psi, apart, point):
    """Gaps a (2, E), contrasts m of Z, without bias, (2, E), and β = b_A − b_B (E,)."""
    x, m = point.x, point.m
    # p_d − p_o = 1 − T_g: nothing cancels in a small gap
    small = torch.log1p(p.one_minus_T * p.k / (scales.c * point.o))
    large = point.log_d - point.log_o + p.log_k - p.log_c
    a = torch.where(scales.c > 0.01, small, large)
    a = torch.where((p.k > 1) & (scales.log_tau < -ON_THE_LINE), a, 0.0)
    # M_A p_xB = M_B p_xA divides m_A + m_B, in which the bias cancels
    log_odds = psi + p.log_k[0] - p.log_k[1]
    parts = torch.sigmoid(torch.stack([-log_odds, log_odds]))
    z = torch.where(apart, m.sum(0) * parts, 0.0)
    # the better conditioned of two equal values
    beta = torch.where(p.beta_of_x[0] * x[0] > 1, m[0] - z[0], (p.beta_of_x * x).sum(0))
    return a, z, beta


def primal_value(p, scales, a, z, beta, penalty):
    """The objective times N/(n_A c_A)."""
    K, root = p.k.sum(0), scales.log_root.exp()
    s = z * p.k * (scales.K_h / K).sqrt() * root
    nuclear = ((p.k - 1) * a * root).sum(0) + (s * s).sum(0).sqrt()  # ‖Z D^{1/2}‖_*/sqrt(n_A)
    loss = cross_entropy(p, scales, a, z + torch.stack([beta, -beta]))
    return (
        (p.k * scales.share * loss).sum(0)
        + scales.log_tau[0].clamp(0, 700).exp() * nuclear
        + penalty * beta * (beta / scales.c[0].clamp(min=1e-300))
    )


def dual_value(p, scales, point, penalty):
    """The value of the dual times N/(n_A c_A), at these probabilities, which are drawn to certainty
    as far as a point of the dual needs, however the root came out.
    """
    log_scale = scales.log_root + p.log_c - p.log_c[0] - scales.log_tau[0].clamp(min=0)
    q = (p.k.sum(0) * scales.K_h).sqrt() * torch.exp(log_scale) * point.x
    shrink = 1 / (q * q).sum(0).sqrt().clamp(min=1)
    beta = shrink * (p.beta_of_x * point.x).sum(0)
    weights, c_a = p.k * scales.share, scales.c[0].clamp(min=1e-300)
    return (weights * entropy(p, scales, point, shrink)).sum(0) - penalty * beta * (beta / c_a)


def log1p_over(c, v):
    """ln(1 + c v)/c, which is v where c is tiny."""
    return torch.where(c > 1e-20, torch.log1p(c * v) / c, v)


def cross_entropy(p, scales, a, m):
    """Cross-entropy over c (2, E) of logits with gaps a and contrasts m."""
    across = -m - a * (1 - 1 / p.k)  # logit of the other group minus that of the own class
    most, c = across.clamp(min=0), scales.c.clamp(min=1e-300)
    others = (p.k - 1) * torch.exp((-a - most - p.log_c).clamp(max=700))
    others = (
        others
        + scales.K_h * torch.exp((across - most - p.log_c).clamp(max=700))
        + torch.expm1(-most) / c
    )
    return most / c + log1p_over(scales.c, others)


def entropy(p, scales, point, shrink):
    """Entropy over c (2, E) of the probabilities of `point`, drawn to certainty by the factor
    `shrink`.
    """
    log_s = shrink.log() + p.log_c
    rest = shrink * ((p.k - 1) + scales.K_h * point.x) / p.k  # (1 − p_d)/c
    rest = torch.minimum(rest, (1 - 1e-16) / scales.c)  # 0 ln 0 is 0
    unsure = (p.k - 1) / p.k * point.o * (point.log_o - p.log_k + log_s) + scales.K_h * point.x * (
        point.log_x + log_s
    )
    return -(1 - scales.c * rest) * log1p_over(scales.c, -rest) - shrink * unsure
