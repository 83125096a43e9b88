"""Companion to Hong and Ling, arXiv:2309.09725: exact optima, trained models, checked claims."""

from importlib import import_module

from . import metrics, theory
from .claims import check
from .data import load_images
from .exact import Solution, TwoGroups, dual_bound, solve, solve_two_groups, solve_two_groups_log
from .ledger import Ledger
from .training import MLP, Trained, TrainedModel, train_network, train_ufm, ufm_objective
from .ufm import UFM, Phase

__all__ = [
    "MLP",
    "UFM",
    "Ledger",
    "Phase",
    "Solution",
    "Trained",
    "TrainedModel",
    "TwoGroups",
    "check",
    "dual_bound",
    "figures",
    "load_images",
    "metrics",
    "solve",
    "solve_two_groups",
    "solve_two_groups_log",
    "theory",
    "train_network",
    "train_ufm",
    "ufm_objective",
]


def __getattr__(name):
    if name == "figures":  # only when asked for: seaborn takes a second to import
        return import_module(".figures", __name__)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
