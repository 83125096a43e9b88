"""The bodies of networks."""

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from ncutils.training.networks import (
    MLP,
    NETWORKS,
    VGG11,
    VGG13,
    BasicBlock,
    ConvNet,
    ResNet18,
    build,
)

SMALL = {  # one of each, on images as small as it takes
    "mlp": lambda features: MLP((3, 4, 5), (7, 6), 8, features),
    "convnet": lambda features: ConvNet((3, 9, 6), (4, 5), 8, features),
    "resnet18": lambda features: ResNet18((3, 8, 8), features),
    "vgg11": lambda features: VGG11((3, 32, 32), features),
}
SHAPES = {"mlp": (3, 4, 5), "convnet": (3, 9, 6), "resnet18": (3, 8, 8), "vgg11": (3, 32, 32)}
networks = pytest.mark.parametrize("network", SMALL)


def images(number, *shape, seed=0):
    return torch.randn(number, *shape, generator=torch.Generator().manual_seed(seed))


def size(module):
    return sum(p.numel() for p in module.parameters())


def seeded(make, seed=0):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return make()


def reset(model):
    """As the trainer does."""
    for module in model.modules():
        if hasattr(module, "reset_parameters"):
            module.reset_parameters()
    return model


def without_mean(resnet):
    return nn.Sequential(*list(resnet)[:-2])


def maps(model, x, kinds):
    """Shapes (channels, height, width) that modules of these kinds give, in order."""
    seen = []
    hooks = [
        m.register_forward_hook(lambda m, _, out: seen.append(tuple(out.shape[1:])))
        for m in model.modules()
        if isinstance(m, kinds)
    ]
    model(x)
    for hook in hooks:
        hook.remove()
    return seen


@pytest.mark.parametrize("features, layers", [("linear", 2 * 3), ("relu", 2 * 3 + 1)])
def test_layers_and_shapes(features, layers):
    model = MLP((3, 4, 5), widths=(7, 6), dim=8, features=features)
    assert model.dim == 8 and model.features == features and len(model) == layers
    assert [(m.in_features, m.out_features) for m in model if isinstance(m, nn.Linear)] == [
        (60, 7),
        (7, 6),
        (6, 8),
    ]
    assert isinstance(model[-1], nn.ReLU if features == "relu" else nn.Linear)
    assert model(torch.randn(11, 3, 4, 5)).shape == (11, 8)


def test_no_hidden_layer_is_one_linear_map():
    model = MLP((1, 2, 2), (), 3)
    x, y = torch.randn(2, 5, 1, 2, 2)
    assert torch.allclose(model(x) + model(y), model(x + y) + model(torch.zeros_like(x)), atol=1e-6)


# --- Every network


@networks
def test_linear_features_are_relu_features_before_the_last_relu(network):
    """Same weights, same names of weights. The ResNet averages after its last ReLU."""
    linear, relu = (seeded(lambda: SMALL[network](kind)) for kind in ("linear", "relu"))
    relu.load_state_dict(linear.state_dict())
    x = images(4, *SHAPES[network])
    if network == "resnet18":  # what the last block gives, per pixel
        x = images(4, 3, 16, 16)
        linear, relu = without_mean(linear), without_mean(relu)
    before, after = linear(x), relu(x)
    assert (before < 0).any() and (before > 0).any()
    assert torch.equal(after, before.clamp(min=0))


@networks
@pytest.mark.parametrize("features", ["linear", "relu"])
def test_attributes_and_sign(network, features):
    model = seeded(lambda: SMALL[network](features))
    H = model(images(6, *SHAPES[network]))
    assert H.shape == (6, model.dim) and model.features == features
    assert ((H >= 0).all() if features == "relu" else (H < 0).any()) and (H > 0).any()


@networks
def test_reset_parameters_is_a_fresh_start(network):
    """Every parameter and buffer belongs to a module with reset_parameters, and in the order of
    construction.
    """
    model = SMALL[network]("relu")
    with torch.no_grad():
        for tensor in model.state_dict().values():
            tensor.fill_(7)
    seeded(lambda: reset(model), seed=3)
    fresh = seeded(lambda: SMALL[network]("relu"), seed=3).state_dict()
    assert model.state_dict().keys() == fresh.keys()
    assert all(torch.equal(tensor, fresh[name]) for name, tensor in model.state_dict().items())


@networks
def test_eval_mode_is_deterministic_and_per_image(network):
    model = seeded(lambda: SMALL[network]("linear"))
    x = images(4, *SHAPES[network])
    model(x)  # running statistics other than at the start
    model.eval()
    state, H = copy.deepcopy(model.state_dict()), model(x)
    assert torch.equal(H, model(x))
    assert torch.allclose(H[2:3], model(x[2:3]), atol=1e-5)
    assert all(torch.equal(tensor, state[name]) for name, tensor in model.state_dict().items())


@networks
def test_batch_statistics_in_train_mode_of_those_with_batch_norm(network):
    model = seeded(lambda: SMALL[network]("linear"))
    x, y = images(4, *SHAPES[network]), images(4, *SHAPES[network], seed=1)
    y[:2] = x[:2]
    has_batch_norm = network in ("resnet18", "vgg11")
    assert has_batch_norm == any("running" in name for name, _ in model.named_buffers())
    assert torch.allclose(model(x)[:2], model(y)[:2], atol=1e-5) != has_batch_norm


def test_global_state_is_untouched():
    model, x = ResNet18((3, 8, 8)), images(2, 3, 8, 8)
    copied = x.clone()
    before = (
        torch.get_rng_state(),
        torch.is_grad_enabled(),
        torch.get_default_dtype(),
        torch.get_num_threads(),
    )
    for mode in (True, False):
        model.train(mode)(x)
    assert torch.equal(before[0], torch.get_rng_state()) and torch.equal(x, copied)
    assert before[1:] == (
        torch.is_grad_enabled(),
        torch.get_default_dtype(),
        torch.get_num_threads(),
    )


@pytest.mark.parametrize(
    "network", ["mlp", "convnet", pytest.param("resnet18", marks=pytest.mark.depth)]
)
def test_stacked_members_train_as_single_ones(network):
    """As in the trainer: features, gradients and, updated in place, running statistics of each
    member.
    """
    members = [seeded(lambda: SMALL[network]("linear").double(), seed) for seed in (0, 1)]
    weights, buffers = torch.func.stack_module_state(members)
    body = copy.deepcopy(members[0])
    forward = torch.func.vmap(
        lambda weights, buffers, x: torch.func.functional_call(body, (weights, buffers), (x,)),
        in_dims=(0, 0, None),
    )
    x = images(5, *SHAPES[network]).double()
    for _ in range(2):
        H = forward(weights, buffers, x)
        single = torch.stack([member(x) for member in members])
        assert torch.allclose(H, single, rtol=1e-9, atol=1e-12)
    (H**3).sum().backward()
    (single**3).sum().backward()
    for name, weight in weights.items():
        grad = torch.stack([member.get_parameter(name).grad for member in members])
        assert torch.allclose(weight.grad, grad, rtol=1e-7, atol=1e-9 * float(grad.abs().max()))
    for name, buffer in buffers.items():
        assert torch.allclose(buffer, torch.stack([member.get_buffer(name) for member in members]))
        assert not name.endswith("num_batches_tracked") or buffer.tolist() == [2, 2]
    body.eval()
    with torch.no_grad():
        single = torch.stack([member.eval()(x[:1]) for member in members])
        assert torch.allclose(forward(weights, buffers, x[:1]), single, rtol=1e-9, atol=1e-12)


# --- ConvNet


@pytest.mark.parametrize(
    "shape, widths, dim, expected",
    [
        (
            (1, 32, 32),
            (16, 32, 64),
            64,
            (9 + 1) * 16 + (9 * 16 + 1) * 32 + (9 * 32 + 1) * 64 + (64 * 4 * 4 + 1) * 64,
        ),
        ((3, 9, 6), (4, 5), 8, (27 + 1) * 4 + (36 + 1) * 5 + (5 * 3 * 2 + 1) * 8),
        ((2, 1, 1), (3,), 1, (18 + 1) * 3 + (3 + 1)),
        ((2, 3, 5), (), 7, 30 * 7 + 7),
    ],
)
def test_convnet_size(shape, widths, dim, expected):
    model = ConvNet(shape, widths, dim)
    assert size(model) == expected and not list(model.buffers())
    assert model(images(2, *shape)).shape == (2, dim)


def test_convnet_halves_height_and_width_rounded_up():
    x = images(2, 3, 9, 6)
    assert maps(ConvNet((3, 9, 6)), x, nn.Conv2d) == [(16, 5, 3), (32, 3, 2), (64, 2, 1)]


def test_convnet_by_hand():
    model = ConvNet((2, 7, 8), (3, 4), 5, "relu")
    x = images(3, 2, 7, 8)
    (A, a), (B, b), (C, c) = (
        (m.weight, m.bias) for m in model if isinstance(m, (nn.Conv2d, nn.Linear))
    )
    h = F.conv2d(F.conv2d(x, A, a, 2, 1).relu(), B, b, 2, 1).relu()
    assert torch.allclose(model(x), (h.reshape(3, -1) @ C.T + c).relu(), atol=1e-6)


# --- ResNet18


def test_resnet18_size():
    """With a linear classifier of ten classes 11,173,962 parameters, as published for images of 32
    × 32.
    """
    assert size(ResNet18()) + 512 * 10 + 10 == 11_173_962
    assert size(ResNet18((1, 32, 32))) == size(ResNet18()) - 2 * 9 * 64
    convolutions = [m for m in ResNet18().modules() if isinstance(m, nn.Conv2d)]
    assert sum(m.kernel_size == (3, 3) for m in convolutions) == 17  # and the classifier: 18 layers
    assert sum(m.kernel_size == (1, 1) for m in convolutions) == 3
    assert all(m.bias is None for m in convolutions)


@pytest.mark.parametrize(
    "height, width, sides",
    [(32, 32, [(32, 32), (16, 16), (8, 8), (4, 4)]), (9, 28, [(9, 28), (5, 14), (3, 7), (2, 4)])],
)
def test_resnet18_maps(height, width, sides):
    model = ResNet18((1, height, width)).eval()
    x = images(1, 1, height, width)
    blocks = [
        (channels, *side) for channels, side in zip((64, 128, 256, 512), sides) for _ in range(2)
    ]
    assert maps(model, x, BasicBlock) == blocks
    assert model(x).shape == (1, 512)


@pytest.mark.parametrize("features", ["linear", "relu"])
def test_resnet18_features_are_means_of_the_last_block(features):
    model, x = ResNet18((3, 16, 16), features), images(2, 3, 16, 16)
    last = without_mean(model)(x)
    assert last.shape == (2, 512, 2, 2)
    assert torch.allclose(model(x), last.sum((2, 3)) / 4, atol=1e-6)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("end", ["linear", "relu"])
@pytest.mark.parametrize("fan_in, width, stride", [(4, 4, 1), (4, 6, 2), (4, 6, 1), (4, 4, 2)])
def test_block_by_hand(fan_in, width, stride, end, training):
    block = BasicBlock(fan_in, width, stride, end)
    generator = torch.Generator().manual_seed(1)
    for name, tensor in block.state_dict().items():  # also scales, shifts and running statistics
        if tensor.is_floating_point():
            tensor.copy_(
                torch.rand(tensor.shape, generator=generator) + (0.5 if "var" in name else -0.5)
            )
    x, state = (
        images(5, fan_in, 7, 6),
        {name: tensor.clone() for name, tensor in block.state_dict().items()},
    )

    def norm(h, name):
        var, mean = torch.var_mean(h, (0, 2, 3), correction=0)
        if not training:
            mean, var = state[f"{name}.running_mean"], state[f"{name}.running_var"]
        column = lambda vector: vector[None, :, None, None]
        scaled = (h - column(mean)) / (column(var) + 1e-5).sqrt()
        return scaled * column(state[f"{name}.weight"]) + column(state[f"{name}.bias"])

    h = norm(F.conv2d(x, state["residual.0.weight"], stride=stride, padding=1), "residual.1").relu()
    h = norm(F.conv2d(h, state["residual.3.weight"], padding=1), "residual.4")
    if (stride, width) == (1, fan_in):
        assert not any(name.startswith("shortcut") for name in state)
        h = h + x
    else:
        h = h + norm(F.conv2d(x, state["shortcut.0.weight"], stride=stride), "shortcut.1")
    expected = h.relu() if end == "relu" else h
    assert torch.allclose(block.train(training)(x), expected, atol=1e-5)


# --- VGG


@pytest.mark.parametrize(
    "network, convolutions, with_batch_norm", [(VGG11, 8, 9_225_984), (VGG13, 10, 9_410_880)]
)
def test_vgg_size_and_maps(network, convolutions, with_batch_norm):
    """The convolutional part is that of torchvision's vgg11_bn and vgg13_bn, whose classifier has
    123,642,856.
    """
    assert with_batch_norm + 123_642_856 == {8: 132_868_840, 10: 133_053_736}[convolutions]
    model = network()
    assert sum(isinstance(m, nn.Conv2d) for m in model) == convolutions
    assert sum(isinstance(m, nn.BatchNorm2d) for m in model) == convolutions
    assert (
        sum(size(m) for m in model if isinstance(m, (nn.Conv2d, nn.BatchNorm2d))) == with_batch_norm
    )
    assert size(model) - with_batch_norm == (512 * 4096 + 4096) + 2 * 4096 + (4096 * 4096 + 4096)
    stages = [(64, 16, 16), (128, 8, 8), (256, 4, 4), (512, 2, 2), (512, 1, 1)]
    assert maps(model, images(2, 3, 32, 32), nn.MaxPool2d) == stages


@pytest.mark.parametrize("features", ["linear", "relu"])
def test_vgg11_by_hand(features):
    model, x = seeded(lambda: VGG11(features=features)), images(2, 3, 32, 32)
    h, pools = x, (0, 1, 3, 5, 7)  # convolutions that a pool follows
    norm = lambda h, m: F.batch_norm(h, None, None, m.weight, m.bias, training=True)
    convolutions, linear = (
        [m for m in model if isinstance(m, kind)] for kind in (nn.Conv2d, nn.Linear)
    )
    norms = [m for m in model if isinstance(m, (nn.BatchNorm2d, nn.BatchNorm1d))]
    for i, m in enumerate(convolutions):
        h = norm(F.conv2d(h, m.weight, m.bias, padding=1), norms[i]).relu()
        h = F.max_pool2d(h, 2) if i in pools else h
    h = norm(h[:, :, 0, 0] @ linear[0].weight.T + linear[0].bias, norms[-1]).relu()
    h = h @ linear[1].weight.T + linear[1].bias
    # of two images, batch norm of the last maps divides by their difference: that magnifies
    # rounding
    assert torch.allclose(model(x), h.relu() if features == "relu" else h, atol=1e-4)


# --- build and refusals


@pytest.mark.parametrize("features", ["linear", "relu"])
@pytest.mark.parametrize(
    "network, kind, dim",
    [
        ("mlp", MLP, 64),
        ("convnet", ConvNet, 64),
        ("resnet18", ResNet18, 512),
        ("vgg11", VGG11, 4096),
        ("vgg13", VGG13, 4096),
    ],
)
def test_build(network, kind, dim, features):
    with torch.device("meta"):  # shapes without weights
        model = build(network, (1, 32, 32), features)
        assert model(torch.zeros(2, 1, 32, 32)).shape == (2, dim)
    assert type(model) is kind and model.dim == dim and model.features == features


def test_build_has_all_and_the_widths_of_the_mlp():
    assert set(NETWORKS) == {"mlp", "convnet", "resnet18", "vgg11", "vgg13"}
    model = build("mlp", (1, 4, 4), "linear")
    assert [m.out_features for m in model if isinstance(m, nn.Linear)] == [256, 128, 64]


@pytest.mark.parametrize(
    "arguments, message",
    [
        (dict(features="tanh"), "features = 'tanh': must be one of 'linear', 'relu'"),
        (dict(dim=0), "dim = 0"),
        (dict(widths=(5, -1)), "width = -1: must be a whole number >= 1"),
        (dict(widths=(2.5,)), "width = 2.5"),
        (dict(image_shape=(1, 0, 2)), r"image_shape\[1\] = 0"),
    ],
)
def test_refusals(arguments, message):
    with pytest.raises(ValueError, match=message):
        MLP(**{"image_shape": (1, 2, 2), **arguments})


@pytest.mark.parametrize(
    "make, message",
    [
        (
            lambda: ConvNet((1, 8, 8), widths=(4, 0)),
            r"ConvNet width = 0: must be a whole number >= 1",
        ),
        (lambda: ConvNet((1, 8, 8), dim=1.5), r"ConvNet dim = 1.5: must be a whole number >= 1"),
        (
            lambda: ConvNet((1, 8, 8), features="tanh"),
            "features = 'tanh': must be one of 'linear', 'relu'",
        ),
        (lambda: ConvNet((8, 8)), r"image_shape = \(8, 8\): must be 3 whole numbers \(C, H, W\)"),
        (lambda: ConvNet(8), r"image_shape = 8: must be 3 whole numbers"),
        (lambda: ConvNet((1, 0, 8)), r"image_shape\[1\] = 0: must be a whole number >= 1"),
        (lambda: ResNet18((0, 8, 8)), r"image_shape\[0\] = 0: must be a whole number >= 1"),
        (lambda: ResNet18((1, 8, 7)), r"image_shape\[2\] = 7: must be a whole number >= 8"),
        (lambda: ResNet18(features=None), "features = None: must be one of"),
        (lambda: VGG11((1, 28, 28)), r"image_shape = \(1, 28, 28\): must be \(C, 32, 32\)"),
        (lambda: VGG13((3, 32, 64)), r"image_shape = \(3, 32, 64\): must be \(C, 32, 32\)"),
        (lambda: VGG13(features="both"), "features = 'both': must be one of"),
        (
            lambda: build("vgg16", (3, 32, 32), "relu"),
            "network = 'vgg16': must be one of 'mlp', 'convnet', 'resnet18', ",
        ),
        (lambda: build(["mlp"], (3, 32, 32), "relu"), r"network = \['mlp'\]: must be one of"),
        (lambda: build("mlp", (3, 32, 32), "tanh"), "features = 'tanh': must be one of"),
    ],
)
def test_refusals_of_the_others(make, message):
    with pytest.raises(ValueError, match=message):
        make()
