"""Companion to Hong and Ling, arXiv:2309.09725: exact optima, trained models, checked claims."""

from . import figures, metrics, theory
from .convex import Solution, dual_bound, solve
from .data import load_images
from .ledger import Ledger
from .networks import MLP
from .train import train_network, train_ufm
from .ufm import UFM
