"""Where minority means vanish, for two groups of classes: the mathematics behind
`theory.vanishing_thresholds`, in logarithms, so that nothing overflows.
"""

import math

from scipy.optimize import brentq

from .._checks import check_integer, check_positive

LARGEST_K = 1e12  # beyond, rounding shows
WIDTH = 1e-5  # in ln(λ_Z N): crossings closer to each other may be missed in pairs


def check_two_groups(k_a, k_b, n_a, n_b):
    """Numbers of classes and class sizes of two groups, if they are allowed, else ValueError."""
    k_a, k_b = check_integer("k_a", k_a, 1), check_integer("k_b", k_b, 1)
    if max(k_a, k_b) > LARGEST_K:
        raise ValueError(f"k_a = {k_a}, k_b = {k_b}: must be at most {LARGEST_K:g}")
    n_a, n_b = check_positive("n_a", n_a), check_positive("n_b", n_b)
    if n_a < n_b:
        raise ValueError(f"n_a = {n_a}, n_b = {n_b}: must have n_a >= n_b, A being the majority")
    return k_a, k_b, n_a, n_b


def _log(x):
    return math.log(x) if x > 0 else -math.inf


def _log_sum(a, b):
    """ln(e^a + e^b)."""
    low, high = sorted((a, b))
    return high + math.log1p(math.exp(low - high)) if low > -math.inf else high


def _zero(f, low, high):
    """The zero of f, whose signs at low and high differ but for rounding; where rounding decides,
    the end nearer to it.
    """
    ends = f(low), f(high)
    if (ends[0] > 0) == (ends[1] > 0):
        return low if abs(ends[0]) < abs(ends[1]) else high
    return brentq(f, low, high, xtol=1e-15, rtol=1e-15)


class ZeroMinority:
    """Two groups with minority columns 0 in Z, at ln x, where x = λ_Z N/sqrt(n_A) ≤ 1 is 1 − p_d +
    p_o in the majority.

    A majority sample gives p_d to its own class, p_o to each other class of A and p_x to each of B;
    a minority sample, at the logits b, p_y to each of A. With y = p_o/p_x and r = n_A/n_B, the S of
    `vanishing_thresholds` is T_1 + T_2, T_1 = K K_B/(K_A y + K_B)², T_2 = K K_A p_y²/(r x²). As x
    grows, so do y and, with bias, p_y.
    """

    def __init__(self, k_a, k_b, n_a, n_b, lam_b):
        self.k_a, self.share, r = k_a, k_a / k_b, n_a / n_b
        self.log_k_a, self.log_k_b, self.log_k = math.log(k_a), math.log(k_b), math.log(k_a + k_b)
        self.log_r = math.log(r) if r < math.inf else math.log(n_a) - math.log(n_b)
        # κ = K n_A/(N λ_b), so that β = b_A − b_B = κ (p_x − p_y/r)
        log_odds = self.log_k - math.log(k_a + k_b * (n_b / n_a))  # ln(K n_A/N)
        self.log_kappa = log_odds - math.log(lam_b) if lam_b < math.inf else -math.inf
        self.span = -self.log_r / 2, 0.0  # ln x from sqrt(n_B) to sqrt(n_A): S > 1 there, and S < 1

    def unique(self):
        """Whether one of the conditions holds under which S falls where it is 1."""
        few = self.log_k_b <= 2 + self.log_k_a
        strong = self.log_kappa <= _log_sum(1 + self.log_k_a, self.log_k_b)
        return few or strong or self.log_r <= 1

    def _logits(self, log_x, log_y):
        """ln p_x, β and ln p_y at this ln y."""
        log_p_x = log_x - _log_sum(self.log_k_a + log_y, self.log_k_b)
        # a = ln(p_d/p_o), p_d − p_o being 1 − x
        a = _log_sum(0.0, _log(-math.expm1(log_x)) - log_p_x - log_y)
        beta = log_y + a / self.k_a
        return log_p_x, beta, beta - _log_sum(self.log_k_a + beta, self.log_k_b)

    def _bias_residual(self, log_x, log_y):
        """ln of p_x + max(−β, 0)/κ over p_y/r + max(β, 0)/κ: falls as y grows, 0 at the optimal
        bias.
        """
        log_p_x, beta, log_p_y = self._logits(log_x, log_y)
        if self.log_kappa == -math.inf:
            return -beta
        back = _log(max(-beta, 0.0)) - self.log_kappa
        forth = _log(max(beta, 0.0)) - self.log_kappa
        return _log_sum(log_p_x, back) - _log_sum(log_p_y - self.log_r, forth)

    def at(self, log_x):
        """ln y and ln p_y."""
        # from so small a y on, β ≤ ln(K_B/K) and so p_x ≥ p_y/r; and β ≥ ln y, so that y > r is too
        # large
        low, high = -2 * (2 * self.log_k + 1 - log_x), self.log_r
        log_y = _zero(lambda log_y: self._bias_residual(log_x, log_y), low, high)
        return log_y, self._logits(log_x, log_y)[2]

    def excess(self, log_x, log_y, log_p_y):
        """(S − 1) K_B/K_A, in which nothing cancels where K_B is much the larger; of an x, y and
        p_y each.
        """
        y = math.exp(min(log_y, 300.0))  # beyond, T_1 is 0
        within = (1 - 2 * y - self.share * y**2) / (1 + self.share * y) ** 2  # (T_1 − 1) K_B/K_A
        return within + math.exp(self.log_k + self.log_k_b - self.log_r + 2 * (log_p_y - log_x))

    def excess_at(self, log_x):
        """`excess` at its y and p_y."""
        return self.excess(log_x, *self.at(log_x))

    def single_class(self):
        """ln x of the zero of S − 1 where K_A = 1: there is no a, and at every level p_x and p_y
        are what they are at sqrt(n_A).
        """
        log_y, log_p_y = self.at(0.0)
        log_p_x = -_log_sum(log_y, self.log_k_b)
        log_sum = _log_sum(self.log_k_b + 2 * log_p_x, 2 * log_p_y - self.log_r)
        return (self.log_k + log_sum) / 2

    def steps(self, low, high):
        """[(ln x, S ≤ 1)] from low to high, so close that S = 1 nowhere between, or WIDTH apart."""

        def split(low, high, at_low, at_high):
            (y_low, p_low), (y_high, p_high) = at_low, at_high
            # bounds of S between them
            never = self.excess(high, y_high, p_low) > 0 or self.excess(low, y_low, p_high) < 0
            if never or high - low <= WIDTH:
                return [(high, self.excess(high, *at_high) <= 0)]
            middle = (low + high) / 2
            at_middle = self.at(middle)
            return split(low, middle, at_low, at_middle) + split(middle, high, at_middle, at_high)

        return [(low, False), *split(low, high, self.at(low), self.at(high))[:-1], (high, True)]

    def crossings(self):
        """Every ln x at which S − 1 changes its sign, ascending."""
        if self.k_a == 1:
            return [self.single_class()]
        steps = list(zip(self.span, (False, True))) if self.unique() else self.steps(*self.span)
        pairs = [
            (low, high) for (low, before), (high, after) in zip(steps, steps[1:]) if before != after
        ]
        return [_zero(self.excess_at, *pair) for pair in pairs]
