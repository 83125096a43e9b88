"""Networks of the user's own: frozen parts, own parameters, randomness."""

import re

import numpy as np
import pytest
import torch
from small_runs import (
    MODELS,
    Q1,
    Q2,
    assert_equal,
    frozen,
    noise_run,
    read,
    refuse_to_solve,
    with_dim,
)
from torch import nn

from ncutils import MLP, UFM, load_images, train_network
from ncutils.training.checkpoint import OtherRun


class Own(nn.Module):
    """A linear layer on pixels, and what `then` makes of its output and the module."""

    dim = 5

    def __init__(self, then=lambda H, module: H, **parameters):
        super().__init__()
        self.linear, self.then = nn.Linear(16, 5), then
        for name, value in parameters.items():
            setattr(self, name, nn.Parameter(torch.full((5,), value)))

    def forward(self, x):
        return self.then(self.linear(x.flatten(1)), self)


@pytest.mark.parametrize(
    "names", [["1.weight"], ["1.weight", "1.bias", "3.weight", "3.bias"]], ids=["one", "all"]
)
def test_what_is_frozen_stays_so_alone_and_in_an_ensemble(tmp_path, names):
    model = frozen(MODELS["mlp"](), *names)
    setting = dict(epochs=12, lr=0.02, weight_decay=0.1)
    alone = [
        noise_run(model, Q1, seed=[seed], checkpoint=tmp_path / f"{seed}.pt", **setting)
        for seed in (3, 4)
    ]
    both = noise_run(model, [Q1, Q1], seed=[3, 4], checkpoint=tmp_path / "both.pt", **setting)
    stacked = read(tmp_path / "both.pt")["network"]
    for e, seed in enumerate((3, 4)):
        own = read(tmp_path / f"{seed}.pt")["network"]
        torch.manual_seed(seed)  # as reset_parameters draws
        start = MODELS["mlp"]().state_dict()
        for name in start:
            for end in (own[name], stacked[name][e]):
                assert torch.equal(end, start[name]) == (name in names), name
        assert both.gaps[e] == pytest.approx(alone[e].gaps[0], rel=1e-4)


def test_frozen_digits_have_the_same_gap_alone_and_in_an_ensemble():
    images, labels = load_images("digits", [20, 20, 10])
    model = MLP((1, 8, 8), (16,), 4)
    model.requires_grad_(False)
    run = lambda seeds: train_network(
        model,
        images,
        labels,
        [UFM.from_lam_z([20, 20, 10], 0.01)] * len(seeds),
        epochs=20,
        seed=seeds,
        device="cpu",
    )
    assert run([3, 4]).gaps == pytest.approx([run([3]).gaps[0], run([4]).gaps[0]], rel=1e-4)


def test_the_same_network_with_other_parts_frozen_is_another_run(tmp_path):
    noise_run(checkpoint=tmp_path / "run.pt")
    with pytest.raises(OtherRun):
        noise_run(frozen(MODELS["mlp"](), "1.weight"), checkpoint=tmp_path / "run.pt")


class Shift(nn.Module):
    """Draws its own parameter, as the modules of torch do."""

    def __init__(self):
        super().__init__()
        self.shift = nn.Parameter(torch.zeros(5))

    def reset_parameters(self):
        nn.init.normal_(self.shift)

    def forward(self, x):
        return x + self.shift


@pytest.mark.parametrize(
    "model, name",
    [
        (Own(lambda H, module: H + module.shift, shift=0.5), "shift"),
        (
            with_dim(nn.Flatten(), nn.utils.parametrizations.weight_norm(nn.Linear(16, 5))),
            "1.parametrizations.weight.original0",
        ),
        (with_dim(nn.Flatten(), nn.LazyLinear(5)), "1.weight"),
        (
            with_dim(nn.Flatten(), nn.LazyBatchNorm1d(affine=False), nn.Linear(16, 5)),
            "1.running_mean",
        ),
    ],
)
@pytest.mark.parametrize("ufms", [Q1, [Q1, Q2]], ids=["one", "stack"])
def test_a_parameter_that_no_seed_would_draw_is_refused_by_name_before_any_work(
    monkeypatch, model, name, ufms
):
    monkeypatch.setattr("ncutils.training.model.solve", refuse_to_solve)
    before = torch.get_rng_state()
    with pytest.raises(ValueError, match=f"model.*{re.escape(repr(name))}.*must"):
        noise_run(model, ufms)
    assert torch.equal(torch.get_rng_state(), before)


def test_a_frozen_parameter_may_be_a_constant_of_the_model():
    """No seed draws it, and none has to."""
    model = frozen(Own(lambda H, module: H + module.shift, shift=0.5), "shift")
    zero = frozen(Own(lambda H, module: H + module.shift, shift=0.0), "shift")
    for ufms in (Q1, [Q1, Q2]):
        assert noise_run(model, ufms)[0].start == pytest.approx(
            noise_run(zero, ufms)[0].start + 0.5, abs=1e-6
        )


class Attention(nn.Module):
    """Over the rows of an image; its weights are drawn by a `_reset_parameters`."""

    dim = 16

    def __init__(self):
        super().__init__()
        self.attention = nn.MultiheadAttention(4, 2, batch_first=True)

    def forward(self, x):
        return self.attention(x[:, 0], x[:, 0], x[:, 0], need_weights=False)[0].flatten(1)


@pytest.mark.parametrize(
    "make",
    [lambda: with_dim(nn.Flatten(), nn.Linear(16, 5), Shift()), Attention],
    ids=["own", "attention"],
)
def test_every_parameter_is_drawn_by_the_seed_whatever_it_was(make):
    model = make()
    used = make()
    with torch.no_grad():
        for p in used.parameters():
            p.fill_(7)
    one, again, other = noise_run(model, seed=1), noise_run(used, seed=1), noise_run(model, seed=2)
    assert_equal(one, again)
    assert np.abs(one[0].start - other[0].start).max() > 0.01


F, GENERATOR = nn.functional, np.random.default_rng(0)


@pytest.mark.parametrize(
    "model",
    [
        with_dim(nn.Flatten(), nn.Dropout(), nn.Linear(16, 5)),
        with_dim(nn.Flatten(), nn.Linear(16, 5), nn.AlphaDropout(0.1)),
        with_dim(nn.Flatten(), nn.Linear(16, 5), nn.RReLU()),
        Own(lambda H, module: F.dropout(H, 0.1, module.training)),
        Own(lambda H, module: H + 0.01 * torch.randn_like(H)),
        Own(lambda H, module: H + GENERATOR.normal(scale=0.01)),
    ],
    ids=["dropout", "alpha", "rrelu", "function", "noise", "numpy"],
)
@pytest.mark.parametrize("ufms", [Q1, [Q1, Q2]], ids=["one", "stack"])
def test_a_random_model_is_refused_before_any_work(monkeypatch, model, ufms):
    monkeypatch.setattr("ncutils.training.model.solve", refuse_to_solve)
    before = torch.get_rng_state()
    with pytest.raises(
        ValueError, match="model gives other features .* same images .* must not be random"
    ):
        noise_run(model, ufms)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("ufms", [Q1, [Q1, Q2]], ids=["one", "stack"])
def test_dropout_that_drops_nothing_is_nothing(ufms):
    without = noise_run(with_dim(nn.Flatten(), nn.Linear(16, 5)), ufms)
    assert_equal(
        noise_run(with_dim(nn.Flatten(), nn.Linear(16, 5), nn.Dropout(0.0)), ufms), without
    )
