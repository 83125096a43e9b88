"""The arguments of `train_network`, checked before any work."""

import copy
import math
import os
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import nn

from .._checks import (
    array_of,
    check_array,
    check_choice,
    check_integer,
    check_labels,
    check_positive,
    real_number,
    shown,
)
from .._device import pick_device
from ..exact.convex import FEATURES
from .free_features import geometric_grid
from .model import problems
from .modes import uses_bfloat16
from .recipes import RECIPES, Recipe


class Settings(NamedTuple):
    """What a training of E networks depends on; the names are those of `train_network`."""

    model: nn.Module
    images: np.ndarray  # (N, C, H, W)
    labels: np.ndarray  # (N,)
    ufms: list
    features: str
    epochs: int
    batch_size: int
    recipe: str
    way: Recipe  # of this name
    lr: float
    device: torch.device
    seeds: list  # of each member, or the one of all
    weight_decay: float
    checkpoint_seconds: float
    warm_start: bool
    progress: bool | None
    compiled: bool
    record: list  # epochs, in order, the last among them
    checkpoint: Path | None
    amp: bool


def check_arguments(
    model,
    images,
    labels,
    ufms,
    epochs,
    batch_size,
    lr,
    warm_start,
    seed,
    device,
    progress,
    features,
    recipe,
    weight_decay,
    amp,
    compiled,
    checkpoint,
    checkpoint_seconds,
    record,
):
    """The arguments of `train_network` as `Settings`, else ValueError."""
    ufms = problems(ufms)
    images = _check_images(images)
    labels = check_labels(labels, len(images), ufms[0].num_classes)
    _check_class_sizes(ufms, labels)
    features = _check_model(model, images, ufms[0].num_classes, features)
    epochs = check_integer("epochs", epochs, at_least=1)
    batch_size = _check_batch_size(batch_size, len(images), model)
    way = RECIPES[check_choice("recipe", recipe, tuple(RECIPES))]
    device = pick_device(device)
    check_choice("warm_start", warm_start, (False, True))
    check_choice("progress", progress, (None, False, True))
    check_choice("compiled", compiled, (False, True))
    check_choice("amp", amp, (None, False, True))
    return Settings(
        model,
        images,
        labels,
        ufms,
        features,
        epochs,
        batch_size,
        recipe,
        way,
        way.lr if lr is None else check_positive("lr", lr),
        device,
        _check_seeds(seed, len(ufms)),
        _check_zero_or_positive("weight_decay", weight_decay),
        _check_zero_or_positive("checkpoint_seconds", checkpoint_seconds),
        warm_start,
        progress,
        compiled,
        _check_record(record, epochs),
        _check_file(checkpoint),
        uses_bfloat16(device) if amp is None else bool(amp),
    )


def _check_images(images):
    array = array_of(images, "u")
    if array is None or array.dtype != np.uint8:
        array = check_array("images", images, 4)
    elif array.ndim != 4 or array.size == 0:
        raise ValueError(f"images has shape {array.shape}: must have 4 dimensions and no empty one")
    if array.min() == array.max():
        raise ValueError("images are all the same number: must vary")
    return array


def _check_class_sizes(ufms, labels):
    sizes = tuple(np.bincount(labels).tolist())
    for ufm in ufms:
        if sizes != ufm.class_sizes:
            raise ValueError(
                f"ufms: class sizes {ufm.class_sizes} differ from those of labels, {sizes}"
            )


def _check_model(model, images, K, features):
    """The kind of the model's features, once it is seen to give d ≥ K of them for an image."""
    if not isinstance(model, nn.Module) or not hasattr(model, "dim"):
        raise ValueError(
            "model must be a torch module with an attribute dim, the number of its features"
        )
    dim = check_integer("model.dim", model.dim, at_least=K)
    if features is None:  # in other packages' models the name may stand for a part of the network
        features = model.features if isinstance(getattr(model, "features", None), str) else "linear"
    check_choice("features", features, FEATURES)
    for name, part in [*model.named_parameters(), *model.named_buffers()]:
        if nn.parameter.is_lazy(part):
            raise ValueError(
                f"model has {name!r}, which is lazy, so that its first call draws it, not the "
                "seed: must have a shape, which it gets by calling the model once"
            )
    try:
        body, shape, random = _tried(model, images.shape[1:])
    except Exception as error:  # a module of the user's may raise anything
        raise ValueError(
            f"images has shape {images.shape}, which model does not take: {error}"
        ) from None
    if shape != (1, dim):
        raise ValueError(
            f"model gives features of shape {shape} for one image: must be {(1, dim)}, as "
            "model.dim says"
        )
    for name, p in body.named_parameters():
        if p.requires_grad and p.isnan().any():
            raise ValueError(
                f"model has {name!r}, which would start alike for every seed: must be drawn by a "
                "method reset_parameters of its module, or be frozen (requires_grad=False)"
            )
    if random:
        raise ValueError(
            "model gives other features for the same images each time in train mode: must not be "
            "random, as by dropout or noise, which makes another objective of it"
        )
    return features


def _tried(model, image_shape):
    """A copy of the model drawn anew, the shape of its features of one image, and whether two
    passes in train mode differ by more than rounding.
    """
    float32 = {"dtype": torch.float32, "device": "cpu"}
    own = torch.Generator("cpu").manual_seed(0)
    batch = torch.randn(32, *image_shape, generator=own, **float32)
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        # not the caller's state, which must not decide what is found
        torch.default_generator.manual_seed(0)
        body = drawn_anew(model)
        shape = tuple(body.eval()(torch.zeros(1, *image_shape, **float32)).shape)
        one, other = body.train()(batch), body(batch)
    return body, shape, bool((one - other).abs().max() > 1e-5 * one.abs().max())


def drawn_anew(model):
    """A copy in train mode, its parameters drawn from torch's generator; NaN where they are trained
    but not drawn.
    """
    body = copy.deepcopy(model).cpu().float().train()
    with torch.no_grad():
        for p in body.parameters():
            if p.requires_grad:
                p.fill_(math.nan)
    for module in body.modules():
        for name in ("reset_parameters", "_reset_parameters"):  # the second in torch's attention
            if hasattr(module, name):
                getattr(module, name)()
                break
    return body


def _check_batch_size(batch_size, N, model):
    batch_size = check_integer("batch_size", batch_size, at_least=1)
    has_batch_norm = any(isinstance(m, nn.modules.batchnorm._BatchNorm) for m in model.modules())
    if (N - 1) % batch_size == 0 and has_batch_norm:
        raise ValueError(
            f"batch_size = {batch_size}: leaves a batch of one of {N} images, which has no batch "
            "statistics"
        )
    return batch_size


def _check_seeds(seed, E):
    """A number, of all members together, or a list (E,) of their own."""
    if not isinstance(seed, (list, tuple, range)):
        seeds = [check_integer("seed", seed, at_least=0)]
    elif len(seed) != E:
        raise ValueError(
            f"seed = {shown(seed)}: must be a whole number >= 0, or a list of {E}, one for each UFM"
        )
    else:
        seeds = [check_integer(f"seed[{e}]", s, at_least=0) for e, s in enumerate(seed)]
    if max(seeds) >= 2**64:
        raise ValueError(f"seed = {max(seeds)}: must be below 2**64, as torch has it")
    return seeds


def _check_zero_or_positive(name, value):
    return 0.0 if real_number(value) == 0 else check_positive(name, value)


def _check_record(record, epochs):
    """The epochs to record, in order, each once, and the last."""
    try:
        record = geometric_grid(epochs) if record is None else list(record)
    except Exception:  # what iterates may raise anything
        raise ValueError(f"record = {shown(record)}: must be a list of epochs, or None") from None
    return sorted({check_integer("record", epoch, at_least=1) for epoch in record} | {epochs})


def _check_file(checkpoint):
    if not isinstance(checkpoint, (str, os.PathLike, type(None))):
        raise ValueError(f"checkpoint = {shown(checkpoint)}: must be a file, or None")
    if checkpoint is None:
        return None
    if Path(checkpoint).is_dir():
        raise ValueError(f"checkpoint = {str(checkpoint)!r}: is a folder, must be a file")
    return Path(checkpoint)
