"""Companion to Hong and Ling, arXiv:2309.09725: exact optima, trained models, checked claims."""

from . import metrics, theory
from .convex import Solution, dual_bound, solve
from .ufm import UFM
