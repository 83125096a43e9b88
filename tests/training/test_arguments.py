"""What `train_network` refuses before any work, and what images and labels it takes."""

import math
import warnings

import numpy as np
import pytest
import torch
from small_runs import (
    BYTES,
    INF,
    KINDS,
    NOISE,
    P1,
    Q1,
    Q2,
    assert_equal,
    noise_run,
    parts,
    refuse_to_solve,
    small_run,
)
from torch import nn

from ncutils import MLP, UFM, train_network
from ncutils.training.networks import ConvNet


def test_negative_features_are_not_compared_with_the_optimum_of_nonnegative_ones():
    with pytest.raises(ValueError, match="features = 'relu', but the model gives negative ones"):
        small_run(P1, features="relu")


IMAGES, LABELS, TINY = (
    np.ones((4, 1, 2, 2)) * np.arange(4)[:, None, None, None],
    np.array([0, 0, 1, 1]),
    UFM.from_lam_z([2, 2], 0.1),
)


@pytest.mark.parametrize(
    "arguments, message",
    [
        (dict(images=IMAGES[:, 0]), r"images has shape \(4, 2, 2\): must have 4 dimensions"),
        (dict(images=IMAGES * math.nan), "images holds NaN"),
        (dict(images=IMAGES[:3]), "labels has shape .*must be 3 class indices"),
        (dict(labels=LABELS[:3]), r"labels has shape \(3,\)"),
        (dict(labels=LABELS / 1), "labels .*float64"),
        (dict(labels=LABELS - 1), "labels"),
        (dict(labels=np.array([0, 0, 0, 1])), r"ufms: class sizes \(2, 2\) differ .*labels"),
        (dict(labels=2 * LABELS), "labels holds 2: must be class indices below 2"),
        (dict(ufms="x"), "ufms must be"),
        (dict(ufms=[]), "ufms must be"),
        (dict(ufms=[TINY, UFM.from_lam_z([3, 1], 0.1)]), r"ufms: class sizes \(3, 1\) differ"),
        (dict(model=nn.Linear(4, 2)), "model must be a torch module with an attribute dim"),
        (dict(model=None), "model must be"),
        (dict(model=MLP((1, 2, 2), (), 1)), "model.dim = 1: must be a whole number >= 2"),
        (dict(epochs=0), "epochs = 0"),
        (dict(batch_size=0), "batch_size = 0"),
        (dict(batch_size=1.5), "batch_size = 1.5"),
        (dict(lr=0), "lr = 0"),
        (dict(lr=INF), "lr = inf"),
        (dict(seed=-1), "seed = -1"),
        (dict(features="tanh"), "features = 'tanh': must be one of"),
        (dict(device="mps"), "device = 'mps'"),
    ],
)
def test_train_network_refuses_before_any_work(monkeypatch, arguments, message):
    monkeypatch.setattr("ncutils.training.model.solve", refuse_to_solve)
    with pytest.raises(ValueError, match=message):
        train_network(
            **{
                "model": MLP((1, 2, 2), (), 2),
                "images": IMAGES,
                "labels": LABELS,
                "ufms": TINY,
                **arguments,
            }
        )


def test_class_sizes_in_a_refusal_are_plain_numbers():
    with pytest.raises(ValueError, match=r"those of labels, \(3, 1\)"):
        train_network(MLP((1, 2, 2), (), 2), IMAGES, np.array([0, 0, 0, 1]), TINY)


def test_images_that_the_model_does_not_take_are_refused_before_any_work(monkeypatch):
    monkeypatch.setattr("ncutils.training.model.solve", refuse_to_solve)
    with pytest.raises(ValueError, match=r"images has shape \(.*\), which model does not take"):
        train_network(MLP((1, 3, 5), dim=2), IMAGES, LABELS, TINY)


def test_a_model_that_does_not_give_its_dim_is_refused_before_any_work(monkeypatch):
    monkeypatch.setattr("ncutils.training.model.solve", refuse_to_solve)
    model = MLP(IMAGES.shape[1:], dim=5)
    model.dim = 4
    with pytest.raises(
        ValueError, match=r"features of shape \(1, 5\) for one image: must be \(1, 4\)"
    ):
        train_network(model, IMAGES, LABELS, TINY)


def test_images_without_contrast_are_refused_before_any_work(monkeypatch):
    monkeypatch.setattr("ncutils.training.model.solve", refuse_to_solve)
    with pytest.raises(ValueError, match="images are all the same number"):
        train_network(MLP(IMAGES.shape[1:], dim=2), np.ones_like(IMAGES), LABELS, TINY)


@pytest.mark.parametrize(
    "argument",
    [dict(checkpoint_seconds=-1), dict(checkpoint_seconds=math.nan), dict(checkpoint_seconds="x")],
)
def test_a_pause_between_checkpoints_is_refused_before_any_work(monkeypatch, argument):
    monkeypatch.setattr("ncutils.training.model.solve", refuse_to_solve)
    with pytest.raises(ValueError, match="checkpoint_seconds = "):
        noise_run(**argument)


@pytest.mark.parametrize(
    "seed, message",
    [
        ([1], r"seed = \[1\]: must be a whole number >= 0, or a list of 2, one for each UFM"),
        ([1, 2, 3], "a list of 2"),
        ((), "a list of 2"),
        (range(3), "a list of 2"),
        ([1, -1], r"seed\[1\] = -1: must be a whole number >= 0"),
        ([0.5, 1], r"seed\[0\] = 0.5"),
        ([None, 1], r"seed\[0\] = None"),
        ([True, 1], r"seed\[0\] = True"),
        (-2, "seed = -2"),
        (None, "seed = None"),
        ("12", "seed = '12'"),
        (math.nan, "seed = nan"),
    ],
)
def test_seeds_are_refused_before_any_work(monkeypatch, seed, message):
    monkeypatch.setattr("ncutils.training.model.solve", refuse_to_solve)
    with pytest.raises(ValueError, match=message):
        noise_run(ufms=[Q1, Q2], seed=seed)


def test_a_last_batch_of_one_image_is_refused_before_any_work_where_there_is_batch_norm(
    monkeypatch,
):
    noise_run("mlp", batch_size=13, epochs=1)  # no batch norm
    monkeypatch.setattr("ncutils.training.model.solve", refuse_to_solve)
    with pytest.raises(ValueError, match="batch_size = 13: leaves a batch of one of 14 images"):
        noise_run("batch norm", batch_size=13)


def test_batches_of_one_image_are_refused_before_any_work_where_there_is_batch_norm(monkeypatch):
    monkeypatch.setattr("ncutils.training.model.solve", refuse_to_solve)
    with pytest.raises(ValueError, match="batch_size = 1"):
        noise_run("batch norm first", batch_size=1)


@pytest.mark.parametrize("recipe", ["fast", "authors"])
def test_bytes_are_as_good_as_numbers(recipe):
    """Images are normalised, so that the unit does not matter."""
    setting = dict(model=ConvNet((3, 4, 4), (3,), 5), ufms=[Q1, Q2], recipe=recipe)
    numbers, *bytes_ = (
        noise_run(images=images, **setting) for images in (BYTES / 255, BYTES, torch.tensor(BYTES))
    )
    for trained in bytes_:
        for model, twin in zip(trained, numbers):
            for part, same in zip(parts(model), parts(twin)):
                assert part == pytest.approx(same, abs=1e-4)


@pytest.mark.parametrize(
    "images, message",
    [
        (BYTES[:, 0], r"images has shape \(14, 4, 4\): must have 4 dimensions and no empty one"),
        (BYTES[None], "must have 4 dimensions"),
        (BYTES[:, :, :0], r"images has shape \(14, 3, 0, 4\)"),
        (BYTES[:0], "no empty one"),
        (BYTES[:13], "must be 13 class indices"),
        (BYTES * 0, "images are all the same number"),
        (BYTES[:, :2], "which model does not take"),
        (BYTES.astype(str), "array of real numbers"),
        (BYTES.astype(complex), "array of real numbers"),
        (BYTES * math.nan, "holds NaN or infinite"),
    ],
)
def test_bytes_of_a_wrong_shape_are_refused_before_any_work(monkeypatch, images, message):
    monkeypatch.setattr("ncutils.training.model.solve", refuse_to_solve)
    with pytest.raises(ValueError, match=message):
        noise_run(ConvNet((3, 4, 4), (3,), 5), images=images)


@pytest.mark.parametrize("kind", [np.int64, np.int32, np.uint8])
def test_labels_of_any_integer_type_are_taken(kind):
    assert_equal(noise_run(labels=KINDS.astype(kind)), noise_run())


@pytest.mark.parametrize(
    "argument, value",
    [("images", NOISE), ("images", BYTES[:, :1]), ("labels", KINDS)],
    ids=["numbers", "bytes", "labels"],
)
def test_a_view_is_as_good_as_a_copy(argument, value):
    assert_equal(noise_run(**{argument: value[::-1].copy()[::-1]}), noise_run(**{argument: value}))


@pytest.mark.parametrize(
    "argument, value",
    [("images", NOISE), ("images", BYTES[:, :1]), ("labels", KINDS)],
    ids=["numbers", "bytes", "labels"],
)
def test_read_only_arrays_are_taken_in_silence(argument, value):
    value = value.copy()
    value.flags.writeable = False
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        torch.set_warn_always(True)  # torch gives some warnings once in a process
        try:
            noise_run(**{argument: value}, epochs=1)
        finally:
            torch.set_warn_always(False)


def test_a_record_that_is_no_list_is_refused():
    with pytest.raises(ValueError, match="record"):
        noise_run(record=3)


@pytest.mark.parametrize(
    "argument, message",
    [
        (dict(record=[0]), "record = 0: must be a whole number >= 1"),
        (dict(record=[1.5]), "record = 1.5"),
        (dict(weight_decay=-1), "weight_decay = -1"),
        (dict(weight_decay=math.nan), "weight_decay = nan"),
        (dict(weight_decay=None), "weight_decay = None"),
        (dict(recipe="sgd"), "recipe = 'sgd': must be one of 'authors', 'fast'"),
        (dict(recipe=None), "recipe = None"),
    ],
)
def test_other_arguments_are_refused_before_any_work(monkeypatch, argument, message):
    monkeypatch.setattr("ncutils.training.model.solve", refuse_to_solve)
    with pytest.raises(ValueError, match=message):
        noise_run(**argument)


def test_a_checkpoint_that_is_a_folder_is_refused_before_any_work(monkeypatch, tmp_path):
    monkeypatch.setattr("ncutils.training.model.solve", refuse_to_solve)
    with pytest.raises(ValueError, match="checkpoint = .*is a folder, must be a file"):
        noise_run(checkpoint=tmp_path)
