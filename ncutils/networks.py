"""Models: bodies that map images to last-layer features. The classifier W, b is the trainer's."""

import math

from torch import nn

from .ufm import choice, whole


class MLP(nn.Sequential):
    """Images (N, C, H, W) → last features (N, dim), through fully connected ReLU layers.

    Parameters
    ----------
    image_shape : (C, H, W).
    widths : widths of the hidden layers.
    dim : number of last features d.
    features : "linear", last features of either sign, as the theorems assume of free features;
        or "relu", nonnegative ones, as most classifiers have.
    """

    def __init__(self, image_shape, widths=(256, 128), dim=64, features="linear"):
        choice("features", features, ("linear", "relu"))
        sizes = [math.prod(image_shape), *widths, dim]
        sizes = [whole("MLP width", size, at_least=1) for size in sizes]
        layers = [nn.Flatten()]
        for fan_in, fan_out in zip(sizes, sizes[1:]):
            layers += [nn.Linear(fan_in, fan_out), nn.ReLU()]
        super().__init__(*(layers if features == "relu" else layers[:-1]))
        self.dim, self.features = sizes[-1], features
