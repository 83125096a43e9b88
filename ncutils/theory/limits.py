"""The limit of many samples, n → ∞ with n_A/n_B and λ_Z N fixed."""

import math

import numpy as np

from .._checks import check_finite, check_integer, check_memory, check_positive
from ._vanishing import check_two_groups

LARGEST_LOG = 1e300  # beyond, sums overflow


def limit_logits(k_a, k_b, n_a, n_b, c):
    """Z (K, K) to O(1) as n → ∞ with n_A/n_B and c = λ_Z N fixed, no bias; the error is O(1/ln n).

    `limit_logits_log`, which has the formula, at n_a, n_b: floats up to 1e300.
    Raises ValueError unless k_a, k_b ≥ 1, n_a ≥ n_b > 0 and c > 0.

    >>> from ncutils import theory
    >>> theory.limit_logits(2, 2, 2e6, 1e6, c=0.1)[:, 0].round(2)
    array([ 8.18, -2.93, -2.62, -2.62])
    """
    k_a, k_b, n_a, n_b = check_two_groups(k_a, k_b, n_a, n_b)
    return limit_logits_log(k_a, k_b, max(math.log(n_a) - math.log(n_b), 0.0), math.log(n_b), c)


def limit_logits_log(k_a, k_b, log_ratio, log_n_b, c):
    """`limit_logits` in ln r = ln(n_A/n_B) ≥ 0 and ln n_B, of any size: nothing overflows.

    Own class minus a class of the other group: ½ ln n_B − ln q with q = c/sqrt(K (K_B r + K_A)).
    Own class minus another of the same group: ½ ln n_A − ln((c − K_B q sqrt(r))/K_A) in A,
    ½ ln n_B − ln((c − K_A q)/K_B) in B. Columns sum to zero.
    Raises ValueError unless k_a, k_b ≥ 1, log_ratio ≥ 0 and log_n_b are finite and c > 0.
    Source: ours; the paper shows that the limit is an ETF, without a rate.

    >>> import math
    >>> from ncutils import theory
    >>> theory.limit_logits_log(2, 2, math.log(2), 1000.0, c=0.1)[:, 0].round(2)
    array([ 378.  , -126.21, -125.89, -125.89])
    """
    k_a, k_b, c = check_integer("k_a", k_a, 1), check_integer("k_b", k_b, 1), check_positive("c", c)
    log_ratio = check_finite("log_ratio", log_ratio, LARGEST_LOG)
    log_n_b = check_finite("log_n_b", log_n_b, LARGEST_LOG)
    if log_ratio < 0:
        raise ValueError(f"log_ratio = {log_ratio}: must be ln(n_A/n_B) >= 0, A being the majority")
    K, log_n_a, log_c = k_a + k_b, log_n_b + log_ratio, math.log(c)
    check_memory("k_a + k_b", K, K * K)
    root = math.sqrt(K * (k_b + k_a * math.exp(-log_ratio)))  # c/(q sqrt(r))
    cross = log_n_a / 2 - log_c + math.log(root)
    within_a = log_n_a / 2 - log_c - math.log1p(-k_b / root) + math.log(k_a)
    share = k_a * math.exp(-log_ratio / 2) / root  # K_A q/c
    within_b = log_n_b / 2 - log_c - math.log1p(-share) + math.log(k_b)
    Z = np.full((K, K), -cross)
    Z[:k_a, :k_a], Z[k_a:, k_a:] = -within_a, -within_b
    np.fill_diagonal(Z, 0.0)
    return Z - Z.mean(axis=0)


def deviation_constants(k_a, k_b, r, c):
    """Limits of (cos + 1/(K−1)) · ln n_B for the columns of Z, n_B → ∞: {"A": …, "B": …, "AB": …}.

    With Z = ½ ln(n_B) (I − 11ᵀ/K) + S + o(1), first order in 1/ln n_B. A group of one class has no
    angle within: NaN. c = λ_Z N and r = n_A/n_B ≥ 1 are fixed, no bias. Raises ValueError unless
    k_a, k_b ≥ 1, r ≥ 1 and c > 0. Source: ours.

    >>> from ncutils import theory
    >>> constants = theory.deviation_constants(5, 5, r=2, c=0.1)
    >>> {group: round(value, 4) for group, value in constants.items()}
    {'A': -0.7701, 'B': 0.9166, 'AB': -0.0586}
    """
    if check_positive("r", r) < 1:
        raise ValueError(f"r = {r}: must be n_A/n_B >= 1")
    k_a, k_b, r, _ = check_two_groups(k_a, k_b, r, 1.0)
    K = k_a + k_b
    S = limit_logits(k_a, k_b, r, 1.0, c)  # at n_B = 1 the leading term is 0
    frame = np.eye(K) - 1 / K
    cross = frame @ S
    # cos of u_k + ε s_k and u_l + ε s_l, ε = 2/ln n_B, to first order in ε, with ‖u_k‖² = 1 − 1/K
    first = cross + cross.T + (np.diag(cross)[:, None] + np.diag(cross)) / (K - 1)
    slope = 2 * first / (1 - 1 / K)
    pick = lambda k, l, exists: float(slope[k, l]) if exists else math.nan
    return {"A": pick(0, 1, k_a > 1), "B": pick(K - 2, K - 1, k_b > 1), "AB": pick(0, K - 1, True)}
