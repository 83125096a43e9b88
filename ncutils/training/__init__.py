"""Training from random starts: the UFM itself, and networks on images with its penalties."""

from .checkpoint import OtherRun
from .free_features import train_ufm
from .model import Trained, TrainedModel
from .network import Diverged, train_network
from .networks import MLP
from .objective import ufm_objective

__all__ = [
    "MLP",
    "Diverged",
    "OtherRun",
    "Trained",
    "TrainedModel",
    "train_network",
    "train_ufm",
    "ufm_objective",
]
