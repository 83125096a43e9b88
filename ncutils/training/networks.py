"""Models: bodies that map images to last-layer features. The classifier W, b is the trainer's."""

import math

import torch
from torch import nn

from .._checks import check_choice, check_integer, check_memory, shown


class MLP(nn.Sequential):
    """Images (N, C, H, W) → last features (N, dim), through fully connected ReLU layers.

    Parameters
    ----------
    image_shape : (C, H, W).
    widths : widths of the hidden layers.
    dim : number of last features d.
    features : "linear", last features of either sign, as the theorems assume of free features;
        or "relu", nonnegative ones, as most classifiers have.

    Raises ValueError where a width is no whole number ≥ 1 or `features` is another word. Source:
    elementary.

    >>> import torch
    >>> from ncutils import MLP
    >>> model = MLP((1, 8, 8), widths=(16,), dim=4)
    >>> model(torch.zeros(2, 1, 8, 8)).shape
    torch.Size([2, 4])
    """

    def __init__(self, image_shape, widths=(256, 128), dim=64, features="linear"):
        sizes = [
            math.prod(_checked(image_shape, features)),
            *_widths("MLP", widths),
            check_integer("MLP dim", dim, at_least=1),
        ]
        check_memory(
            "MLP widths", sizes, sum(fan_in * fan_out for fan_in, fan_out in zip(sizes, sizes[1:]))
        )
        layers = [nn.Flatten()]
        for fan_in, fan_out in zip(sizes, sizes[1:]):
            layers += [nn.Linear(fan_in, fan_out), nn.ReLU()]
        super().__init__(*(layers if features == "relu" else layers[:-1]))
        self.dim, self.features = sizes[-1], features

    def stacked(self, weights, x):
        """Last features (E, N, dim) of E such networks at once, from `weights` {name: (E, …)} and
        images (N, C, H, W), or (E, N, C, H, W) of their own. Samples are columns between the
        layers: a fifth faster on a CPU than torch's vmap.

        >>> import torch
        >>> from ncutils import MLP
        >>> model = MLP((1, 8, 8), widths=(16,), dim=4)
        >>> weights = {name: torch.stack([w, w]) for name, w in model.named_parameters()}
        >>> model.stacked(weights, x=torch.zeros(3, 1, 8, 8)).shape
        torch.Size([2, 3, 4])
        """
        h = (
            x.flatten(2).mT
            if x.ndim == 5
            else x.flatten(1).T.expand(len(weights["1.weight"]), -1, -1)
        )
        for name, layer in self.named_children():
            if isinstance(layer, nn.Linear):
                h = torch.baddbmm(weights[f"{name}.bias"][:, :, None], weights[f"{name}.weight"], h)
            elif isinstance(layer, nn.ReLU):
                h = h.relu()
        return h.mT


def _checked(image_shape, features, at_least=1):
    """(C, H, W) as ints, H and W ≥ `at_least`, if these arguments of a model are allowed, else
    ValueError.
    """
    check_choice("features", features, ("linear", "relu"))
    if not isinstance(image_shape, (tuple, list)) or len(image_shape) != 3:
        raise ValueError(f"image_shape = {shown(image_shape)}: must be 3 whole numbers (C, H, W)")
    return tuple(
        check_integer(f"image_shape[{i}]", size, at_least if i else 1)
        for i, size in enumerate(image_shape)
    )


def _widths(name, widths):
    """Widths of a network's hidden layers as a list of whole numbers ≥ 1, else ValueError."""
    if not isinstance(widths, (tuple, list)):
        raise ValueError(f"widths = {shown(widths)}: must be a list of whole numbers >= 1")
    return [check_integer(f"{name} width", width, at_least=1) for width in widths]


class ConvNet(nn.Sequential):
    """Images (N, C, H, W) → last features (N, dim), through a few convolutions: small enough for a
    CPU.

    Each is 3 × 3, of stride 2 and padding 1, with a ReLU and no batch norm: it halves height and
    width, rounded up.

    Parameters
    ----------
    image_shape : (C, H, W).   widths : numbers of channels of the convolutions.
    dim, features : as in `MLP`.
    """

    def __init__(self, image_shape, widths=(16, 32, 64), dim=64, features="linear"):
        channels, height, width = _checked(image_shape, features)
        sizes, layers = [channels, *_widths("ConvNet", widths)], []
        for fan_in, fan_out in zip(sizes, sizes[1:]):
            layers += [nn.Conv2d(fan_in, fan_out, 3, stride=2, padding=1), nn.ReLU()]
            height, width = (height + 1) // 2, (width + 1) // 2
        dim = check_integer("ConvNet dim", dim, at_least=1)
        layers += [nn.Flatten(), nn.Linear(sizes[-1] * height * width, dim)]
        super().__init__(*layers, *([nn.ReLU()] if features == "relu" else []))
        self.dim, self.features = dim, features


class BasicBlock(nn.Module):
    """Residual block (N, fan_in, H, W) → (N, width, H/stride, W/stride), rounded up:
    end(residual(x) + shortcut(x)).

    Residual: two 3 × 3 convolutions with batch norm, a ReLU between. Shortcut: the identity, or a 1
    × 1 convolution with batch norm where the shape changes. End: a ReLU, or with `end="linear"`
    nothing.
    """

    def __init__(self, fan_in, width, stride=1, end="relu"):
        super().__init__()
        self.residual = nn.Sequential(
            nn.Conv2d(fan_in, width, 3, stride, padding=1, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(),
            nn.Conv2d(width, width, 3, padding=1, bias=False),
            nn.BatchNorm2d(width),
        )
        self.shortcut = (
            nn.Identity()
            if stride == 1 and fan_in == width
            else nn.Sequential(
                nn.Conv2d(fan_in, width, 1, stride, bias=False), nn.BatchNorm2d(width)
            )
        )
        self.end = nn.ReLU() if end == "relu" else nn.Identity()

    def forward(self, x):
        return self.end(self.residual(x) + self.shortcut(x))


class ResNet18(nn.Sequential):
    """Images (N, C, H, W) → last features (N, 512): the residual network of 18 layers, for images
    of 32 × 32.

    One 3 × 3 convolution of stride 1, no max-pool; two blocks at each width, 64, 128, 256 and 512,
    where each width after the first halves height and width of the maps, rounded up; the mean over
    all pixels. Batch norm throughout: statistics of the batch in train mode (of more than one image
    if H = W = 8), running ones in eval mode.

    Parameters
    ----------
    image_shape : (C, H, W), H, W ≥ 8.
    features : "relu", means of the last block's ReLU; or "linear", without it.

    Source: He, Zhang, Ren and Sun (2016), arXiv:1512.03385, with the first layer that is usual for
    32 × 32.
    """

    def __init__(self, image_shape=(3, 32, 32), features="relu"):
        channels, _, _ = _checked(image_shape, features, at_least=8)
        super().__init__(
            nn.Conv2d(channels, 64, 3, padding=1, bias=False),
            nn.BatchNorm2d(64),
            nn.ReLU(),
            BasicBlock(64, 64),
            BasicBlock(64, 64),
            BasicBlock(64, 128, 2),
            BasicBlock(128, 128),
            BasicBlock(128, 256, 2),
            BasicBlock(256, 256),
            BasicBlock(256, 512, 2),
            BasicBlock(512, 512, end=features),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
        )
        self.dim, self.features = 512, features


class VGG11(nn.Sequential):
    """Images (N, C, 32, 32) → last features (N, 4096): VGG with batch norm, for images of 32 × 32.

    Five stages of 3 × 3 convolutions, each with batch norm and a ReLU, a 2 × 2 max-pool after each
    stage; then Linear(512, 4096), batch norm, ReLU, Linear(4096, 4096), in train mode for more than
    one image. As in the code of the paper, github.com/WanliHongC/Neural-Collapse, whose second
    batch norm is defined but never used: left out here.

    Parameters
    ----------
    image_shape : (C, 32, 32).   features : "relu", with a last ReLU; or "linear", without.

    Source: Simonyan and Zisserman (2015), arXiv:1409.1556, configurations A (here) and B (`VGG13`).
    """

    depths = (1, 1, 2, 2, 2)  # convolutions in each stage

    def __init__(self, image_shape=(3, 32, 32), features="relu"):
        fan_in, *size = _checked(image_shape, features)
        if size != [32, 32]:
            raise ValueError(f"image_shape = {image_shape!r}: must be (C, 32, 32)")
        layers = []
        for depth, width in zip(self.depths, (64, 128, 256, 512, 512)):
            for _ in range(depth):
                layers += [nn.Conv2d(fan_in, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU()]
                fan_in = width
            layers.append(nn.MaxPool2d(2))
        layers += [
            nn.Flatten(),
            nn.Linear(512, 4096),
            nn.BatchNorm1d(4096),
            nn.ReLU(),
            nn.Linear(4096, 4096),
        ]
        super().__init__(*layers, *([nn.ReLU()] if features == "relu" else []))
        self.dim, self.features = 4096, features


class VGG13(VGG11):
    """As `VGG11`, with two convolutions in every stage."""

    depths = (2, 2, 2, 2, 2)


NETWORKS = {"mlp": MLP, "convnet": ConvNet, "resnet18": ResNet18, "vgg11": VGG11, "vgg13": VGG13}


def build(network, image_shape, features):
    """The model of this name, a key of `NETWORKS`, with its usual widths; `features` "linear" or
    "relu".
    """
    return NETWORKS[check_choice("network", network, tuple(NETWORKS))](
        image_shape, features=features
    )
