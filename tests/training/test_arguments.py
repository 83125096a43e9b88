"""What `train_network` refuses before any work, and what images and labels it takes."""

import math
import warnings

import numpy as np
import pytest
import torch
from noise import BYTES, KINDS, NOISE, Q1, Q2, noise_run
from small_runs import INF, P1, assert_equal, parts, refuse_to_solve, small_run
from torch import nn

from ncutils import MLP, UFM
from ncutils.training.networks import ConvNet

OTHER_DIM = MLP((1, 4, 4), dim=5)
OTHER_DIM.dim = 4
COLOUR = ConvNet((3, 4, 4), (3,), 5)
INTEGER = "must be a whole number >="
REFUSED = [
    (dict(images=NOISE[:, 0]), r"images has shape \(14, 4, 4\): must have 4 dimensions"),
    (dict(images=NOISE * math.nan), "images holds NaN or infinite"),
    (dict(images=np.ones_like(NOISE)), "images are all the same number"),
    (dict(images=NOISE[:13]), "labels has shape .*must be 13 class indices"),
    (dict(images=NOISE[:, :, :3]), r"images has shape \(.*\), which model does not take"),
    (dict(images=BYTES[:, 0]), r"images has shape \(14, 4, 4\): must have 4 dimensions and no"),
    (dict(images=BYTES[None]), "must have 4 dimensions"),
    (dict(images=BYTES[:, :, :0]), r"images has shape \(14, 3, 0, 4\)"),
    (dict(images=BYTES[:0]), "no empty one"),
    (dict(images=BYTES[:13], model=COLOUR), "must be 13 class indices"),
    (dict(images=BYTES * 0), "images are all the same number"),
    (dict(images=BYTES[:, :2], model=COLOUR), "which model does not take"),
    (dict(images=BYTES.astype(str)), "array of real numbers"),
    (dict(images=BYTES.astype(complex)), "array of real numbers"),
    (dict(labels=KINDS[:3]), r"labels has shape \(3,\)"),
    (dict(labels=KINDS / 1), "labels .*float64"),
    (dict(labels=KINDS - 1), "labels"),
    (dict(labels=2 * KINDS), "labels holds 4: must be class indices below 3"),
    (dict(labels=KINDS[::-1] // 2), r"\(6, 5, 3\) differ from those of labels, \(11, 3\)"),
    (dict(ufms="x"), "ufms must be"),
    (dict(ufms=[]), "ufms must be"),
    (dict(ufms=[Q1, UFM([6, 4, 4], 1, 1)]), r"ufms: class sizes \(6, 4, 4\) differ"),
    (dict(model=nn.Linear(16, 5)), "model must be a torch module with an attribute dim"),
    (dict(model=None), "model must be"),
    (dict(model=MLP((1, 4, 4), (), 2)), f"model.dim = 2: {INTEGER} 3"),
    (dict(model=OTHER_DIM), r"features of shape \(1, 5\) for one image: must be \(1, 4\)"),
    (dict(batch_size=13, model="batch norm"), "batch_size = 13: leaves a batch of one of 14"),
    (dict(batch_size=1, model="batch norm first"), "batch_size = 1"),
    (dict(features="tanh"), "features = 'tanh': must be one of"),
    (dict(device="mps"), "device = 'mps'"),
    (dict(checkpoint="."), "checkpoint = .*is a folder, must be a file"),
    (dict(record=3), "record"),
    (dict(record=[0]), f"record = 0: {INTEGER} 1"),
    (dict(record=[1.5]), "record = 1.5"),
    (dict(recipe="sgd"), "recipe = 'sgd': must be one of 'authors', 'fast'"),
    (dict(seed=[1]), rf"seed = \[1\]: {INTEGER} 0, or a list of 2, one for each UFM"),
    (dict(seed=[1, -1]), rf"seed\[1\] = -1: {INTEGER} 0"),
    (dict(seed=[0.5, 1]), r"seed\[0\] = 0.5"),
    (dict(seed=[None, 1]), r"seed\[0\] = None"),
    (dict(seed=[True, 1]), r"seed\[0\] = True"),
    (dict(seed="12"), "seed = '12'"),
]
PLAIN = dict(epochs=[0], batch_size=[0, 1.5], lr=[0, INF], weight_decay=[-1, math.nan, None])
PLAIN |= dict(recipe=[None], seed=[-1, None, math.nan])
REFUSED += [({name: value}, f"{name} = {value}") for name in PLAIN for value in PLAIN[name]]
REFUSED += [(dict(seed=seeds), "a list of 2") for seeds in ([1, 2, 3], (), range(3))]
REFUSED += [(dict(checkpoint_seconds=t), "checkpoint_seconds = ") for t in (-1, math.nan, "x")]


@pytest.mark.parametrize("arguments, message", REFUSED)
def test_train_network_refuses_before_any_work(monkeypatch, arguments, message):
    monkeypatch.setattr("ncutils.training.model.solve", refuse_to_solve)
    with pytest.raises(ValueError, match=message):
        noise_run(**{"ufms": [Q1, Q2], **arguments})


def test_a_last_batch_of_one_image_is_refused_only_where_there_is_batch_norm():
    noise_run("mlp", batch_size=13, epochs=1)


def test_negative_features_are_not_compared_with_the_optimum_of_nonnegative_ones():
    with pytest.raises(ValueError, match="features = 'relu', but the model gives negative ones"):
        small_run(P1, features="relu")


@pytest.mark.parametrize("recipe", ["fast", "authors"])
def test_bytes_are_as_good_as_numbers(recipe):
    """Images are normalised, so that the unit does not matter."""
    run = lambda images: noise_run(COLOUR, [Q1, Q2], images, recipe=recipe)
    numbers = run(BYTES / 255)
    for trained in (run(BYTES), run(torch.tensor(BYTES))):
        for model, twin in zip(trained, numbers):
            for part, same in zip(parts(model), parts(twin)):
                assert part == pytest.approx(same, abs=1e-4)


ARRAYS = {
    "numbers": ("images", NOISE),
    "bytes": ("images", BYTES[:, :1]),
    "labels": ("labels", KINDS),
    **{f"{kind.__name__} labels": ("labels", KINDS.astype(kind)) for kind in (np.int32, np.uint8)},
}


@pytest.mark.parametrize("name", ARRAYS)
def test_views_read_only_arrays_and_labels_of_any_integer_type_are_taken_in_silence(name):
    argument, value = ARRAYS[name]
    plain = noise_run(**{argument: KINDS if argument == "labels" else value})
    fixed = value.copy()
    fixed.flags.writeable = False
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        torch.set_warn_always(True)  # torch gives some warnings once in a process
        try:
            for same in (value[::-1].copy()[::-1], fixed):
                assert_equal(noise_run(**{argument: same}), plain)
        finally:
            torch.set_warn_always(False)
