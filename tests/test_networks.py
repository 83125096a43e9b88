"""The bodies of networks."""

import pytest
import torch
from torch import nn

from ncutils import MLP


@pytest.mark.parametrize("features, layers", [("linear", 2 * 3), ("relu", 2 * 3 + 1)])
def test_layers_and_shapes(features, layers):
    model = MLP((3, 4, 5), widths=(7, 6), dim=8, features=features)
    assert model.dim == 8 and model.features == features and len(model) == layers
    assert [(m.in_features, m.out_features) for m in model if isinstance(m, nn.Linear)] == [(60, 7), (7, 6), (6, 8)]
    assert isinstance(model[-1], nn.ReLU if features == "relu" else nn.Linear)
    assert model(torch.randn(11, 3, 4, 5)).shape == (11, 8)


def test_only_relu_features_are_nonnegative():
    x = torch.randn(50, 1, 4, 4, generator=torch.Generator().manual_seed(0))
    assert MLP((1, 4, 4), (9,), 10, "relu")(x).min() >= 0
    assert MLP((1, 4, 4), (9,), 10, "linear")(x).min() < 0


def test_no_hidden_layer_is_one_linear_map():
    model = MLP((1, 2, 2), (), 3)
    x, y = torch.randn(2, 5, 1, 2, 2)
    assert torch.allclose(model(x) + model(y), model(x + y) + model(torch.zeros_like(x)), atol=1e-6)


@pytest.mark.parametrize("arguments, message", [
    (dict(features="tanh"), "features = 'tanh': must be one of 'linear', 'relu'"), (dict(dim=0), "width = 0"),
    (dict(widths=(5, -1)), "width = -1: must be a whole number >= 1"), (dict(widths=(2.5,)), "width = 2.5"),
    (dict(image_shape=(1, 0, 2)), "width = 0")])
def test_refusals(arguments, message):
    with pytest.raises(ValueError, match=message):
        MLP(**{"image_shape": (1, 2, 2), **arguments})
