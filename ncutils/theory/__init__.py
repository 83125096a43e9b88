"""Closed forms: thresholds and phases, the optimum with ReLU features, and the geometries that
class means can tend to.

The paper is Hong and Ling, arXiv:2309.09725. Thresholds are values of λ_Z N.
"""

from .geometries import seli, simplex_etf
from .limits import deviation_constants, limit_logits, limit_logits_log
from .phases import (
    Thresholds,
    minority_threshold,
    phase,
    thresholds,
    trivial_threshold,
    vanishing_threshold,
    vanishing_thresholds,
)
from .relu import relu_logits, relu_vanishing_threshold

__all__ = [
    "Thresholds",
    "deviation_constants",
    "limit_logits",
    "limit_logits_log",
    "minority_threshold",
    "phase",
    "relu_logits",
    "relu_vanishing_threshold",
    "seli",
    "simplex_etf",
    "thresholds",
    "trivial_threshold",
    "vanishing_threshold",
    "vanishing_thresholds",
]
