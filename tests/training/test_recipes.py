"""The two recipes: rates, easing, starts and scales."""

import math

import numpy as np
import pytest
import torch
from noise import BYTES, NOISE, Q1, Q2, noise_run
from pytest import approx
from small_runs import recording
from torch import nn

from ncutils import MLP
from ncutils.training.recipes import RECIPES


def authors_loop(epochs, warm_start):
    """(learning rate, multiple of λ_W and λ_H, of λ_b) in each epoch, from the authors' loop with
    its if and elif.
    """
    lr, eased = 0.01, 1.0
    if warm_start:
        first, second = int(epochs / 3), int(epochs / 3 * 2)
    else:
        first, second = int(epochs / 6), int(epochs / 3)
    for epoch in range(epochs):
        if epoch == first:
            lr = 0.1 / 10
        elif epoch == second:
            lr = 0.1 / 100
        if warm_start and epoch == 0:
            eased /= 10
        if warm_start and epoch == int(epochs / 6):
            eased *= 10
        yield lr, eased, 1.0


AUTHORS = RECIPES["authors"]


@pytest.mark.parametrize("warm_start", [True, False])
def test_the_authors_recipe_is_the_authors_loop(warm_start):
    for epochs in [*range(1, 41), 150, 350, 2000]:
        lrs, *eased = zip(*authors_loop(epochs, warm_start))
        rate = lambda done: AUTHORS.lr * AUTHORS.rate(done, epochs, warm_start)
        for batches in (1, 3, 79):
            for step in {1, (batches + 1) // 2, batches}:
                found = [rate(epoch + step / batches) for epoch in range(epochs)]
                assert found == approx(list(lrs), rel=1e-12)
        if warm_start:  # without, it is not asked
            found = np.array([AUTHORS.ease(epoch, epochs) for epoch in range(epochs)])
            assert found.T == approx(np.array(eased), rel=1e-12)


BY_NAME = [  # epochs, warm start, epochs at 0.01, at 0.001
    (2000, True, [0, 665, 1332], [1333, 1999]),
    (2000, False, [665], [666]),
    (1, True, [0], []),
    (1, False, [0], []),
    (2, True, [0], [1]),
    (2, False, [1], []),
    (3, True, [1], [2]),
    (3, False, [], [2]),
]


@pytest.mark.parametrize("epochs, warm_start, early, late", BY_NAME)
def test_the_authors_epochs_are_those_written_down(epochs, warm_start, early, late):
    for places, lr in ((early, 0.01), (late, 0.001)):
        for epoch in places:
            for part in (1e-9, 0.5, 1):
                assert 0.01 * AUTHORS.rate(epoch + part, epochs, warm_start) == approx(lr)
    eased = lambda last: [AUTHORS.ease(epoch, last) for epoch in range(last)]
    whole, tenth = (1.0, 1.0), (0.1, 1.0)
    assert eased(2000) == [tenth] * 333 + [whole] * 1667 and eased(6) == [tenth] + [whole] * 5
    assert all(eased(few) == [whole] * few for few in (1, 2, 3, 4, 5))


@pytest.mark.parametrize("recipe, name", [("authors", "SGD"), ("fast", "Adam")])
def test_the_rate_that_the_optimizer_gets_is_that_of_the_recipe(monkeypatch, recipe, name):
    """In each of three batches of 12 epochs, lr being the largest."""
    rates, kind = [], getattr(torch.optim, name)

    class Spy(kind):
        def step(self, *args, **options):
            rates.append({group["lr"] for group in self.param_groups})
            return super().step(*args, **options)

    monkeypatch.setattr(torch.optim, name, Spy)
    noise_run(recipe=recipe, epochs=12, lr=0.004)
    cooled = lambda t: min(1, t / 0.36) * (1 + math.cos(math.pi * t / 12)) / 2
    fast, authors = [cooled(t) for t in np.arange(1, 37) / 3], [1] * 24 + [0.1] * 12
    expected = [0.004 * rate for rate in (authors if recipe == "authors" else fast)]
    assert all(len(rate) == 1 for rate in rates)
    assert [min(rate) for rate in rates] == approx(expected, abs=1e-12)


def test_the_fast_recipe_warms_up_and_cools_down():
    way = RECIPES["fast"]
    for warm_start in (True, False):
        rate = lambda done: way.rate(done, 200, warm_start)
        assert rate(3) == approx(0.5 * (1 + math.cos(math.pi * 0.015)) / 2)
        assert rate(6) == approx((1 + math.cos(math.pi * 0.03)) / 2)
        assert rate(50) == approx((1 + math.sqrt(0.5)) / 2)
        assert rate(100) == approx(0.5) and rate(200) == 0
    assert [way.ease(epoch, 12) for epoch in (0, 1, 2, 11)] == [(0.1, 0.1)] * 2 + [(1.0, 1.0)] * 2
    assert [way.ease(epoch, 200) for epoch in (32, 33)] == [(0.1, 0.1), (1.0, 1.0)]
    assert way.ease(0, 5) == (1.0, 1.0)


def test_classifiers_start_as_each_recipe_says():
    torch.manual_seed(5)
    linear = nn.Linear(7, 4)
    torch.manual_seed(5)
    W, b = AUTHORS.classifier(4, 7)
    assert torch.equal(W, linear.weight) and torch.equal(b, linear.bias)
    assert not W.requires_grad and not b.requires_grad
    for part in AUTHORS.classifier(300, 100):  # uniform up to 1/sqrt(d)
        assert part.abs().max() <= 0.1 and abs(part.mean()) < 0.015
        assert part.std().item() == approx(0.1 / math.sqrt(3), rel=0.1)
    W, b = RECIPES["fast"].classifier(300, 100)
    assert W.shape == (300, 100) and W.std().item() == approx(0.1, rel=0.02)
    assert W.abs().max() > 0.3 and b.shape == (300,) and not b.any()


@pytest.mark.parametrize("recipe, name", [("authors", "SGD"), ("fast", "Adam")])
def test_a_network_starts_with_the_classifier_of_its_recipe(monkeypatch, recipe, name):
    start = []
    monkeypatch.setattr(torch.optim, name, recording(getattr(torch.optim, name), start))
    noise_run(ufms=[Q1, Q2], seed=[9, 4], recipe=recipe, epochs=1)
    for e, seed in enumerate((9, 4)):
        torch.manual_seed(seed)
        first, second = nn.Linear(16, 6), nn.Linear(6, 5)  # as an MLP does
        W, b = RECIPES[recipe].classifier(3, 5)
        for part, drawn in zip(start, (first.weight, first.bias, second.weight, second.bias, W, b)):
            assert torch.equal(part[e], drawn)


def test_images_are_normalised_by_channel_or_by_pixel():
    x = torch.tensor(BYTES).float() * torch.tensor([1.0, 10.0, 0.1])[:, None, None] + 7
    scaled = AUTHORS.scale(x)
    assert scaled.mean((0, 2, 3)).numpy() == approx(np.zeros(3), abs=1e-5)
    assert scaled.std((0, 2, 3)).numpy() == approx(np.ones(3), abs=1e-5)
    assert torch.allclose(scaled[3, 1] * x[:, 1].std() + x[:, 1].mean(), x[3, 1], rtol=1e-4)
    scaled = RECIPES["fast"].scale(x)
    assert scaled.mean(0).numpy() == approx(np.zeros((3, 4, 4)), abs=1e-6)
    assert torch.allclose(scaled * x.std() + x.mean(0), x, rtol=1e-4)  # one factor for all
    # a channel without contrast is no harm
    images = np.concatenate([NOISE, np.full_like(NOISE, 0.5)], axis=1)
    gaps = noise_run(MLP((2, 4, 4), (6,), 5), images=images, recipe="authors").gaps
    assert np.isfinite(gaps).all()
