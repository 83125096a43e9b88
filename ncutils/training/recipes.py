"""Two ways of training a network, by name: the authors' and ours. Both minimise the same objective.

Epochs are counted from 0. `warm_start` means smaller penalties for the first sixth of the epochs,
without which a network near the threshold may stay at Z = 0.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Recipe:
    """How a network is trained: optimizer, schedule, easing of the penalties, start of the
    classifier, scale of the images.

    Attributes
    ----------
    lr : the learning rate unless another is asked for; the schedule is a multiple of it.
    optimizer : parameter groups, lr → torch optimizer.
    rate : (done, epochs, warm_start) → multiple of lr, where `done` is the time in epochs at the
        end of the step.
    ease : epoch, epochs → multiples of (λ_W and λ_H, λ_b) where there is a warm start.
    classifier : K, d → start of W (K, d) and b (K,), drawn from torch's generator.
    scale : images (N, C, H, W) → normalised images.
    """

    lr: float
    optimizer: Callable
    rate: Callable
    ease: Callable
    classifier: Callable
    scale: Callable


def authors_rate(done, epochs, warm_start):
    """SGD's 0.01, then 0.001 from two thirds (with warm start) or a third of the epochs on. The
    schedule also divides 0.1 by ten at half of that time, which gives the 0.01 that it started
    with: nothing changes there."""
    first, second = (
        (int(epochs / 3), int(epochs / 3 * 2)) if warm_start else (int(epochs / 6), int(epochs / 3))
    )
    epoch = math.ceil(done) - 1
    return 0.1 if epoch >= second > first else 1.0


def authors_ease(epoch, epochs):
    """λ_W and λ_H at a tenth for the first sixth, λ_b as it is."""
    return (0.1, 1.0) if epoch < int(epochs / 6) else (1.0, 1.0)


def authors_classifier(K, dim):
    """W (K, d) and b (K,) as torch's linear layer starts."""
    linear = torch.nn.Linear(dim, K, dtype=torch.float32, device="cpu")
    return linear.weight.detach(), linear.bias.detach()


def by_channel(x):
    """Mean 0 and variance 1 in each channel that varies over the training images; the authors take
    the whole data set's.
    """
    spread = x.std((0, 2, 3), keepdim=True)
    return (x - x.mean((0, 2, 3), keepdim=True)) / torch.where(spread > 0, spread, 1.0)


def fast_rate(done, epochs, warm_start):
    """Warm-up over the first 3 %, then a cosine to 0."""
    return min(1.0, done / (0.03 * epochs)) * (1 + math.cos(math.pi * done / epochs)) / 2


def fast_ease(epoch, epochs):
    """All penalties at a tenth for the first sixth."""
    return (0.1, 0.1) if epoch + 1 <= epochs / 6 else (1.0, 1.0)


def fast_classifier(K, dim):
    """W (K, d) normal with variance 1/d, b = 0."""
    float32 = {"dtype": torch.float32, "device": "cpu"}
    return torch.randn(K, dim, **float32) / dim**0.5, torch.zeros(K, **float32)


def by_pixel(x):
    """Mean 0 at each pixel, in units of the standard deviation of all pixels of all images."""
    return (x - x.mean(0)) / x.std()


RECIPES = {
    "authors": Recipe(
        0.01,
        lambda groups, lr: torch.optim.SGD(groups, lr=lr, momentum=0.9),
        authors_rate,
        authors_ease,
        authors_classifier,
        by_channel,
    ),
    "fast": Recipe(
        2e-3,
        lambda groups, lr: torch.optim.Adam(groups, lr=lr, betas=(0.9, 0.99), fused=True),
        fast_rate,
        fast_ease,
        fast_classifier,
        by_pixel,
    ),
}
