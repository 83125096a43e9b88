"""Networks of the user's own: frozen parts, own parameters, randomness."""

import re

import numpy as np
import pytest
import torch
from noise import MODELS, Q1, Q2, noise_run, with_dim
from small_runs import assert_equal, frozen, read, refuse_to_solve
from torch import nn

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


FROZEN = [["1.weight"], ["1.weight", "1.bias", "3.weight", "3.bias"]]
one_or_a_stack = pytest.mark.parametrize("ufms", [Q1, [Q1, Q2]], ids=["one", "stack"])


@pytest.mark.parametrize("names", FROZEN, ids=["one", "all"])
def test_what_is_frozen_stays_so_alone_and_in_an_ensemble(tmp_path, names):
    model = frozen(MODELS["mlp"](), *names)

    def run(ufms, seed, name):
        path = tmp_path / f"{name}.pt"
        options = dict(epochs=12, lr=0.02, weight_decay=0.1, checkpoint=path)
        return noise_run(model, ufms, seed=seed, **options), read(path)["network"]

    both, stacked = run([Q1, Q1], [3, 4], "both")
    for e, seed in enumerate((3, 4)):
        alone, own = run(Q1, [seed], seed)
        torch.manual_seed(seed)  # as reset_parameters draws
        start = MODELS["mlp"]().state_dict()
        for name in start:
            for end in (own[name], stacked[name][e]):
                assert torch.equal(end, start[name]) == (name in names), name
        assert both.gaps[e] == pytest.approx(alone.gaps[0], rel=1e-4)


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


flat = lambda *layers: with_dim(nn.Flatten(), *layers)
shifted = lambda shift: Own(lambda H, module: H + module.shift, shift=shift)
NOT_DRAWN = [
    (shifted(0.5), "shift"),
    (flat(nn.utils.parametrizations.weight_norm(nn.Linear(16, 5))), "1.parametrizations.weight.or"),
    (flat(nn.LazyLinear(5)), "1.weight"),
    (flat(nn.LazyBatchNorm1d(affine=False), nn.Linear(16, 5)), "1.running_mean"),
]


@pytest.mark.parametrize("model, name", NOT_DRAWN)
@one_or_a_stack
def test_a_parameter_that_no_seed_would_draw_is_refused_by_name_before_any_work(
    monkeypatch, model, name, ufms
):
    monkeypatch.setattr("ncutils.training.model.solve", refuse_to_solve)
    before = torch.get_rng_state()
    with pytest.raises(ValueError, match=f"model.*'{re.escape(name)}.*'.*must"):
        noise_run(model, ufms)
    assert torch.equal(torch.get_rng_state(), before)


@one_or_a_stack
def test_a_frozen_parameter_may_be_a_constant_of_the_model(ufms):
    """No seed draws it, and none has to."""
    half, zero = (noise_run(frozen(shifted(by), "shift"), ufms)[0] for by in (0.5, 0.0))
    assert half.start == pytest.approx(zero.start + 0.5, abs=1e-6)


class Attention(nn.Module):
    """Over the rows of an image; its weights are drawn by a `_reset_parameters`."""

    dim = 16

    def __init__(self):
        super().__init__()
        self.attention = nn.MultiheadAttention(4, 2, batch_first=True)

    def forward(self, x):
        return self.attention(x[:, 0], x[:, 0], x[:, 0], need_weights=False)[0].flatten(1)


OWN_DRAWS = [lambda: flat(nn.Linear(16, 5), Shift()), Attention]


@pytest.mark.parametrize("make", OWN_DRAWS, ids=["own", "attention"])
def test_every_parameter_is_drawn_by_the_seed_whatever_it_was(make):
    model, used = make(), make()
    with torch.no_grad():
        for p in used.parameters():
            p.fill_(7)
    one, again, other = noise_run(model, seed=1), noise_run(used, seed=1), noise_run(model, seed=2)
    assert_equal(one, again)
    assert np.abs(one[0].start - other[0].start).max() > 0.01


F, GENERATOR = nn.functional, np.random.default_rng(0)
RANDOM = {
    "dropout": flat(nn.Dropout(), nn.Linear(16, 5)),
    "alpha": flat(nn.Linear(16, 5), nn.AlphaDropout(0.1)),
    "rrelu": flat(nn.Linear(16, 5), nn.RReLU()),
    "function": Own(lambda H, module: F.dropout(H, 0.1, module.training)),
    "noise": Own(lambda H, module: H + 0.01 * torch.randn_like(H)),
    "numpy": Own(lambda H, module: H + GENERATOR.normal(scale=0.01)),
}


@pytest.mark.parametrize("model", RANDOM)
@one_or_a_stack
def test_a_random_model_is_refused_before_any_work(monkeypatch, model, ufms):
    monkeypatch.setattr("ncutils.training.model.solve", refuse_to_solve)
    before = torch.get_rng_state()
    message = "model gives other features .* same images .* must not be random"
    with pytest.raises(ValueError, match=message):
        noise_run(RANDOM[model], ufms)
    assert torch.equal(torch.get_rng_state(), before)


@one_or_a_stack
def test_dropout_that_drops_nothing_is_nothing(ufms):
    without = noise_run(flat(nn.Linear(16, 5)), ufms)
    assert_equal(noise_run(flat(nn.Linear(16, 5), nn.Dropout(0.0)), ufms), without)
