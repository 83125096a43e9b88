"""Noise as images, models of some hundred weights, and problems: trained in a blink."""

import warnings

import numpy as np
import pytest
from torch import nn

from ncutils import MLP, UFM, train_network
from ncutils.training.networks import BasicBlock, ConvNet

RNG = np.random.default_rng(0)
NOISE, KINDS = RNG.random((14, 1, 4, 4)), RNG.permutation(np.repeat([0, 1, 2], [6, 5, 3]))
Q1, Q2 = UFM([6, 5, 3], 0.05, 0.01, 0.05), UFM([6, 5, 3], 0.03, 0.02, 0.01)
Q3 = UFM([6, 5, 3], 0.04, 0.005)
MODELS = {
    "mlp": lambda: MLP((1, 4, 4), (6,), 5),
    "relu": lambda: MLP((1, 4, 4), (6,), 5, "relu"),
    "convnet": lambda: ConvNet((1, 4, 4), (3,), 5),
    "batch norm": lambda: with_dim(BasicBlock(1, 3, 2), nn.Flatten(), nn.Linear(12, 5)),
    "batch norm first": lambda: with_dim(nn.Flatten(), nn.BatchNorm1d(16), nn.Linear(16, 5)),
}


def with_dim(*layers, dim=5):
    model = nn.Sequential(*layers)
    model.dim = dim
    return model


def noise_run(
    model="mlp", ufms=Q1, images=NOISE, labels=KINDS, epochs=6, batch_size=5, device="cpu", **more
):
    """Three batches an epoch, the last one smaller."""
    model = MODELS[model]() if isinstance(model, str) else model
    return train_network(
        model, images, labels, ufms, epochs=epochs, batch_size=batch_size, device=device, **more
    )


def stop_at_batch(monkeypatch, number):
    """From now on, the `number`-th batch is interrupted by the keyboard."""
    batches, loss = [], nn.functional.cross_entropy

    def hook(*args, **options):
        batches.append(1)
        if len(batches) == number:
            raise KeyboardInterrupt
        return loss(*args, **options)

    monkeypatch.setattr(nn.functional, "cross_entropy", hook)


def interrupted(number, *args, **options):
    with pytest.MonkeyPatch.context() as patch, pytest.raises(KeyboardInterrupt):
        stop_at_batch(patch, number)
        noise_run(*args, **options)


LARGE = UFM([6, 5, 3], 0.05, 1e6, 0.05)
HUGE = UFM([6, 5, 3], 0.05, 1e38, 0.05)  # beyond float32 once summed


def quiet(*args, **options):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        return noise_run(*args, **options)


BYTES = RNG.integers(0, 256, (14, 3, 4, 4), dtype=np.uint8)
# The problems of a run and their seeds.
MEMBERS = {
    "one": dict(ufms=Q1, seed=3),
    "stack": dict(ufms=[Q1, Q3, Q2], seed=3),
    "own seeds": dict(ufms=[Q1, Q3, Q2], seed=[8, 3, 8]),
}
