"""The bodies of networks."""

import copy

import pytest
import torch
from small_runs import untouched
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
both_kinds = pytest.mark.parametrize("features", ["linear", "relu"])
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
    look = lambda m, _, out: seen.append(tuple(out.shape[1:]))
    hooks = [m.register_forward_hook(look) for m in model.modules() if isinstance(m, kinds)]
    model(x)
    for hook in hooks:
        hook.remove()
    return seen


def of_kind(model, *kinds):
    return [m for m in model.modules() if isinstance(m, kinds)]


@pytest.mark.parametrize("features, layers", [("linear", 2 * 3), ("relu", 2 * 3 + 1)])
def test_layers_and_shapes(features, layers):
    model = MLP((3, 4, 5), widths=(7, 6), dim=8, features=features)
    assert model.dim == 8 and model.features == features and len(model) == layers
    linear = [(m.in_features, m.out_features) for m in of_kind(model, nn.Linear)]
    assert linear == [(60, 7), (7, 6), (6, 8)]
    assert isinstance(model[-1], nn.ReLU if features == "relu" else nn.Linear)
    assert model(torch.randn(11, 3, 4, 5)).shape == (11, 8)
    line = MLP((1, 2, 2), (), 3)  # no hidden layer is one linear map
    x, y = torch.randn(2, 5, 1, 2, 2)
    assert torch.allclose(line(x) + line(y), line(x + y) + line(torch.zeros_like(x)), atol=1e-6)


@networks
def test_linear_features_are_relu_features_before_the_last_relu(network):
    """Same weights, same names of weights. The ResNet averages after its last ReLU."""
    models = [seeded(lambda: SMALL[network](kind)) for kind in ("linear", "relu")]
    models[1].load_state_dict(models[0].state_dict())
    x = images(6, *SHAPES[network])
    for model, kind in zip(models, ("linear", "relu")):
        H = model(x)
        assert H.shape == (6, model.dim) and model.features == kind
        assert ((H >= 0).all() if kind == "relu" else (H < 0).any()) and (H > 0).any()
    if network == "resnet18":  # what the last block gives, per pixel
        x = images(4, 3, 16, 16)
        last = [without_mean(model) for model in models]
        for model, end in zip(models, last):
            assert end(x).shape == (4, 512, 2, 2)
            assert torch.allclose(model(x), end(x).sum((2, 3)) / 4, atol=1e-6)
        models = last
    before, after = (model(x) for model in models)
    assert (before < 0).any() and (before > 0).any()
    assert torch.equal(after, before.clamp(min=0))


@networks
def test_reset_parameters_is_a_fresh_start(network):
    """Every parameter and buffer is of a module with reset_parameters, in order of construction."""
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
    with untouched():
        for mode in (True, False):
            model.train(mode)(x)
    assert torch.equal(x, copied)


DEEP_RESNET = pytest.param("resnet18", marks=pytest.mark.depth)


@pytest.mark.parametrize("network", ["mlp", "convnet", DEEP_RESNET])
def test_stacked_members_train_as_single_ones(network):
    """As in the trainer: features, gradients and, updated in place, running statistics."""
    members = [seeded(lambda: SMALL[network]("linear").double(), seed) for seed in (0, 1)]
    weights, buffers = torch.func.stack_module_state(members)
    body = copy.deepcopy(members[0])
    call = lambda w, buffers, x: torch.func.functional_call(body, (w, buffers), (x,))
    forward = torch.func.vmap(call, in_dims=(0, 0, None))
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


OF_DEFAULT = (9 + 1) * 16 + (9 * 16 + 1) * 32 + (9 * 32 + 1) * 64 + (64 * 4 * 4 + 1) * 64
CONVNETS = [
    ((1, 32, 32), (16, 32, 64), 64, OF_DEFAULT),
    ((3, 9, 6), (4, 5), 8, (27 + 1) * 4 + (36 + 1) * 5 + (5 * 3 * 2 + 1) * 8),
    ((2, 1, 1), (3,), 1, (18 + 1) * 3 + (3 + 1)),
    ((2, 3, 5), (), 7, 30 * 7 + 7),
]


@pytest.mark.parametrize("shape, widths, dim, expected", CONVNETS)
def test_convnet_size(shape, widths, dim, expected):
    model = ConvNet(shape, widths, dim)
    assert size(model) == expected and not list(model.buffers())
    assert model(images(2, *shape)).shape == (2, dim)


def test_convnet_by_hand():
    model = ConvNet((2, 7, 8), (3, 4), 5, "relu")
    x = images(3, 2, 7, 8)
    (A, a), (B, b), (C, c) = ((m.weight, m.bias) for m in of_kind(model, nn.Conv2d, nn.Linear))
    h = F.conv2d(F.conv2d(x, A, a, 2, 1).relu(), B, b, 2, 1).relu()
    assert torch.allclose(model(x), (h.reshape(3, -1) @ C.T + c).relu(), atol=1e-6)
    # height and width are halved, rounded up
    halves = maps(ConvNet((3, 9, 6)), images(2, 3, 9, 6), nn.Conv2d)
    assert halves == [(16, 5, 3), (32, 3, 2), (64, 2, 1)]


def test_resnet18_size():
    """With a linear classifier of ten classes as published for images of 32 × 32."""
    assert size(ResNet18()) + 512 * 10 + 10 == 11_173_962
    assert size(ResNet18((1, 32, 32))) == size(ResNet18()) - 2 * 9 * 64
    kernels = [m.kernel_size for m in of_kind(ResNet18(), nn.Conv2d)]
    assert kernels.count((3, 3)) == 17 and kernels.count((1, 1)) == 3  # and the classifier: 18
    assert all(m.bias is None for m in of_kind(ResNet18(), nn.Conv2d))


RESNET_SIDES = [[(32, 32), (16, 16), (8, 8), (4, 4)], [(9, 28), (5, 14), (3, 7), (2, 4)]]


@pytest.mark.parametrize("sides", RESNET_SIDES)
def test_resnet18_maps(sides):
    model = ResNet18((1, *sides[0])).eval()
    x = images(1, 1, *sides[0])
    blocks = [(c, *side) for c, side in zip((64, 128, 256, 512), sides) for _ in range(2)]
    assert maps(model, x, BasicBlock) == blocks and model(x).shape == (1, 512)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("end", ["linear", "relu"])
@pytest.mark.parametrize("fan_in, width, stride", [(4, 4, 1), (4, 6, 2), (4, 6, 1), (4, 4, 2)])
def test_block_by_hand(fan_in, width, stride, end, training):
    block = BasicBlock(fan_in, width, stride, end)
    generator = torch.Generator().manual_seed(1)
    for name, tensor in block.state_dict().items():  # also scales, shifts and running statistics
        if tensor.is_floating_point():
            shift = 0.5 if "var" in name else -0.5
            tensor.copy_(torch.rand(tensor.shape, generator=generator) + shift)
    state = {name: tensor.clone() for name, tensor in block.state_dict().items()}
    x = images(5, fan_in, 7, 6)

    def norm(h, name):
        var, mean = torch.var_mean(h, (0, 2, 3), correction=0)
        if not training:
            mean, var = state[f"{name}.running_mean"], state[f"{name}.running_var"]
        column = lambda vector: vector[None, :, None, None]
        scaled = (h - column(mean)) / (column(var) + 1e-5).sqrt()
        return scaled * column(state[f"{name}.weight"]) + column(state[f"{name}.bias"])

    h = norm(F.conv2d(x, state["residual.0.weight"], stride=stride, padding=1), "residual.1").relu()
    h = norm(F.conv2d(h, state["residual.3.weight"], padding=1), "residual.4")
    plain = (stride, width) == (1, fan_in)
    assert plain != any(name.startswith("shortcut") for name in state)
    convolved = x if plain else F.conv2d(x, state["shortcut.0.weight"], stride=stride)
    h = h + (x if plain else norm(convolved, "shortcut.1"))
    expected = h.relu() if end == "relu" else h
    assert torch.allclose(block.train(training)(x), expected, atol=1e-5)


VGGS = [(VGG11, 8, 9_225_984, 132_868_840), (VGG13, 10, 9_410_880, 133_053_736)]


@pytest.mark.parametrize("network, convolutions, with_batch_norm, published", VGGS)
def test_vgg_size_and_maps(network, convolutions, with_batch_norm, published):
    """As torchvision's vgg11_bn and vgg13_bn, whose classifier has 123,642,856."""
    assert with_batch_norm + 123_642_856 == published
    model = network()
    assert len(of_kind(model, nn.Conv2d)) == len(of_kind(model, nn.BatchNorm2d)) == convolutions
    assert sum(size(m) for m in of_kind(model, nn.Conv2d, nn.BatchNorm2d)) == with_batch_norm
    assert size(model) - with_batch_norm == (512 * 4096 + 4096) + 2 * 4096 + (4096 * 4096 + 4096)
    stages = [(64, 16, 16), (128, 8, 8), (256, 4, 4), (512, 2, 2), (512, 1, 1)]
    assert maps(model, images(2, 3, 32, 32), nn.MaxPool2d) == stages


@both_kinds
def test_vgg11_by_hand(features):
    model, x = seeded(lambda: VGG11(features=features)), images(2, 3, 32, 32)
    h, pools = x, (0, 1, 3, 5, 7)  # convolutions that a pool follows
    norm = lambda h, m: F.batch_norm(h, None, None, m.weight, m.bias, training=True)
    norms, linear = of_kind(model, nn.BatchNorm2d, nn.BatchNorm1d), of_kind(model, nn.Linear)
    for i, m in enumerate(of_kind(model, nn.Conv2d)):
        h = norm(F.conv2d(h, m.weight, m.bias, padding=1), norms[i]).relu()
        h = F.max_pool2d(h, 2) if i in pools else h
    h = norm(h[:, :, 0, 0] @ linear[0].weight.T + linear[0].bias, norms[-1]).relu()
    h = h @ linear[1].weight.T + linear[1].bias
    # of two images, batch norm of the last maps divides by their difference: that magnifies
    # rounding
    assert torch.allclose(model(x), h.relu() if features == "relu" else h, atol=1e-4)


KINDS = {
    "mlp": (MLP, 64),
    "convnet": (ConvNet, 64),
    "resnet18": (ResNet18, 512),
    "vgg11": (VGG11, 4096),
    "vgg13": (VGG13, 4096),
}


@both_kinds
@pytest.mark.parametrize("network", KINDS)
def test_build(network, features):
    kind, dim = KINDS[network]
    with torch.device("meta"):  # shapes without weights
        model = build(network, (1, 32, 32), features)
        assert model(torch.zeros(2, 1, 32, 32)).shape == (2, dim)
    assert type(model) is kind and model.dim == dim and model.features == features
    assert set(NETWORKS) == set(KINDS)
    if network == "mlp":
        assert [m.out_features for m in of_kind(model, nn.Linear)] == [256, 128, 64]


WHOLE, KIND = "must be a whole number >= ", "must be one of 'linear', 'relu'"
REFUSED = [
    (lambda: MLP((1, 2, 2), features="tanh"), f"features = 'tanh': {KIND}"),
    (lambda: MLP((1, 2, 2), dim=0), "dim = 0"),
    (lambda: MLP((1, 2, 2), widths=(5, -1)), f"width = -1: {WHOLE}1"),
    (lambda: MLP((1, 2, 2), widths=(2.5,)), "width = 2.5"),
    (lambda: MLP((1, 0, 2)), r"image_shape\[1\] = 0"),
    (lambda: ConvNet((1, 8, 8), widths=(4, 0)), f"ConvNet width = 0: {WHOLE}1"),
    (lambda: ConvNet((1, 8, 8), dim=1.5), f"ConvNet dim = 1.5: {WHOLE}1"),
    (lambda: ConvNet((1, 8, 8), features="tanh"), f"features = 'tanh': {KIND}"),
    (lambda: ConvNet((8, 8)), r"image_shape = \(8, 8\): must be 3 whole numbers \(C, H, W\)"),
    (lambda: ConvNet(8), r"image_shape = 8: must be 3 whole numbers"),
    (lambda: ConvNet((1, 0, 8)), rf"image_shape\[1\] = 0: {WHOLE}1"),
    (lambda: ResNet18((0, 8, 8)), rf"image_shape\[0\] = 0: {WHOLE}1"),
    (lambda: ResNet18((1, 8, 7)), rf"image_shape\[2\] = 7: {WHOLE}8"),
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
]


@pytest.mark.parametrize("make, message", REFUSED)
def test_refusals(make, message):
    with pytest.raises(ValueError, match=message):
        make()
