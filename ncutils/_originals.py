"""The original files of Fashion-MNIST and CIFAR-10: found or downloaded, and checked before
anything reads them.
"""

import gzip
import hashlib
import lzma
import os
import sys
import tarfile
import tempfile
import warnings
import zlib
from pathlib import Path

import platformdirs

from ._files import remove_leftovers

# The parts of each set in the order in which images are taken from them, the test images last. A
# part is {file: md5 of its unpacked bytes}, as published with the data: for Fashion-MNIST of the
# files in its repository, for CIFAR-10 (A. Krizhevsky, Learning Multiple Layers of Features from
# Tiny Images, 2009) of the "python version". Two files with one md5 can be made together, but
# nobody knows how to make one for an md5 that was published before.
ORIGINALS = {
    "fashion-mnist": (
        {
            "train-images-idx3-ubyte": "f4a8712d7a061bf5bd6d2ca38dc4d50a",
            "train-labels-idx1-ubyte": "9018921c3c673c538a1fc5bad174d6f9",
        },
        {
            "t10k-images-idx3-ubyte": "8181f5470baa50b63fa0f6fddb340f0a",
            "t10k-labels-idx1-ubyte": "15d484375f8d13e6eb1aabb0c3f46965",
        },
    ),
    "cifar10": (
        {"data_batch_1": "c99cafc152244af753f735de768cd75f"},
        {"data_batch_2": "d4bba439e000b95fd0a9bffe97cbabec"},
        {"data_batch_3": "54ebc095f3ab1f0389bbae665268c751"},
        {"data_batch_4": "634d18415352ddfa80567beed471001a"},
        {"data_batch_5": "482c414d41f54cd18b22e5b47cb7c3cb"},
        {"test_batch": "40351d587109b95175f43aff81a1287e"},
    ),
}
FOLDERS = {"fashion-mnist": "fashion-mnist", "cifar10": "cifar-10-batches-py"}
# all files of a set in one; else each is packed as FILE.gz
ARCHIVES = {"cifar10": "cifar-10-python.tar.gz"}
URLS = {  # tried in turn
    "fashion-mnist": (
        "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
        "https://raw.githubusercontent.com/zalandoresearch/fashion-mnist/master/data/fashion/",
        "https://storage.googleapis.com/tensorflow/tf-keras-datasets/",
    ),
    "cifar10": (
        "https://www.cs.toronto.edu/~kriz/",
        "https://dataset.bj.bcebos.com/cifar/",
        "https://oneflow-public.oss-cn-beijing.aliyuncs.com/datasets/cifar/",
    ),
}
PACKAGES = {"fashion-mnist": ("apt-get install dataset-fashion-mnist", "or,")}
DEBIAN = Path("/usr/share/datasets")  # where that package puts them


def cache_folder():
    """Where downloads and parsed data sets are: $NCUTILS_CACHE, else the user's cache folder."""
    return Path(os.environ.get("NCUTILS_CACHE") or platformdirs.user_cache_dir("ncutils"))


def _find(folder, name, file):
    """The path below `folder` that holds an original file, packed or not; None if there is none."""
    paths = [
        folder / (stem + ending)
        for stem in (f"{FOLDERS[name]}/{file}", file)
        for ending in ("", ".gz", ".xz")
    ]
    paths += [folder / ARCHIVES[name]] if name in ARCHIVES else []
    return next((path for path in paths if path.is_file()), None)


def local_folder(name):
    """The folder $NCUTILS_DATA if it holds the first part of a set: then nothing is looked for
    elsewhere. Else None.
    """
    folder = os.environ.get("NCUTILS_DATA")
    if folder and not os.path.isdir(folder):
        raise ValueError(f"NCUTILS_DATA = {folder!r}: must be a folder that holds original files")
    found = folder and all(_find(Path(folder), name, file) for file in ORIGINALS[name][0])
    return Path(folder) if found else None


def _cached(name, file):
    return cache_folder() / FOLDERS[name] / file


def locate(name, file):
    """The path of an original file: None if missing in $NCUTILS_DATA; in the cache if it is still
    to be fetched.
    """
    folder = local_folder(name)
    return _find(folder, name, file) if folder else _find(DEBIAN, name, file) or _cached(name, file)


def stamps(name, part):
    """(path, size, time of change) of each file of a part, by which a change is noticed; None if
    one is not there.
    """
    paths = [locate(name, file) for file in ORIGINALS[name][part]]
    if not all(path and path.is_file() for path in paths):
        return None
    return [(path, path.stat().st_size, path.stat().st_mtime_ns) for path in paths]


def _unpack(path, file, md5):
    """The bytes of an original file from `path`, which may be packed; ValueError, naming it, if
    they are not right.
    """
    try:
        if path.name.endswith(".tar.gz"):
            with tarfile.open(path, "r|gz") as archive:
                raw = next(
                    (
                        archive.extractfile(member).read()
                        for member in archive
                        if member.isfile() and Path(member.name).name == file
                    ),
                    None,
                )
            if raw is None:
                raise EOFError(f"no {file} in it")
        else:  # by the first bytes, since some servers unpack what they send
            raw = path.read_bytes()
            raw = gzip.decompress(raw) if raw[:2] == b"\x1f\x8b" else raw
            raw = lzma.decompress(raw) if raw[:6] == b"\xfd7zXZ\0" else raw
    except (OSError, EOFError, zlib.error, lzma.LZMAError, tarfile.TarError) as error:
        raise ValueError(
            f"{path}: cannot be unpacked ({error}); must hold {file} with the md5 {md5}"
        ) from None
    found = hashlib.md5(raw, usedforsecurity=False).hexdigest()
    if found != md5:
        raise ValueError(
            f"{path}: the md5 of the unpacked bytes is {found}; the original {file} has {md5}"
        )
    return raw


def _short(error):
    """Why a source failed, in a few words: the errors of requests, which are OSErrors without a
    number, are long.
    """
    status = getattr(getattr(error, "response", None), "status_code", None)
    if isinstance(error, ValueError):
        return str(error).split(": ", 1)[-1]  # without the path, which is gone
    return f"HTTP status {status}" if status else type(error).__name__


def _fetch(name, wanted):
    """Download an original file, or an archive of the set, into the cache; its bytes. RuntimeError
    if none is right.
    """
    import pooch  # here, so that `import ncutils` does not wait for it

    download = pooch.HTTPDownloader(progressbar=sys.stderr.isatty(), chunk_size=2**16, timeout=30)
    md5s = {file: md5 for part in ORIGINALS[name] for file, md5 in part.items()}
    packed, files = (ARCHIVES[name], list(md5s)) if name in ARCHIVES else (f"{wanted}.gz", [wanted])
    target, reasons = _cached(name, wanted).parent, []
    for url in URLS[name]:
        try:
            target.mkdir(parents=True, exist_ok=True)
            remove_leftovers(target, "download-*")
            with tempfile.TemporaryDirectory(prefix="download-", dir=target) as folder:
                folder = Path(folder)
                download(url + packed, folder / packed, None)
                for file in files:
                    (folder / file).write_bytes(_unpack(folder / packed, file, md5s[file]))
                raw = (folder / wanted).read_bytes()
                # moved when all are right, so that no process ever sees half a file or a wrong one
                for file in files:
                    os.replace(folder / file, target / file)
            return raw
        except (OSError, ValueError) as error:
            number = getattr(error, "errno", None)
            if number is not None and not isinstance(error, ConnectionError):  # the disk's
                raise RuntimeError(
                    f"{target} cannot be written ({error.strerror}), so {name} is not downloaded: "
                    "make room there, or let NCUTILS_CACHE name another folder"
                ) from None
            reasons.append(f"{url}{packed}: {_short(error)}")
    raise RuntimeError(_advice(name, wanted, reasons))


def _advice(name, wanted, reasons):
    """What to tell somebody whose machine neither holds a file nor can download it."""
    folder = os.environ.get("NCUTILS_DATA")
    packed = (
        [ARCHIVES[name]]
        if name in ARCHIVES
        else [f"{file}.gz" for part in ORIGINALS[name] for file in part]
    )
    return "\n  ".join(
        [
            f"{name} is not at hand: there is no {wanted} in",
            f"$NCUTILS_DATA ({f'{folder}, without this set' if folder else 'not set'})",
            str(DEBIAN / FOLDERS[name]),
            str(_cached(name, wanted).parent),
            "and no source delivers it:",
            *reasons,
            "This would help:",
            *PACKAGES.get(name, ()),
            "on a machine with a connection, in a folder that you then bring here,",
            *(f"curl -LO {URLS[name][0]}{file}" for file in packed),
            "and here",
            "export NCUTILS_DATA=FOLDER",
        ]
    )


def read(name, file, md5):
    """The bytes of an original file that `locate` finds, unpacked and checked, downloaded first
    where need be.

    Raises ValueError, naming the file, where one outside the cache is damaged or not the original;
    RuntimeError, naming all sources and what would help, where the file is neither there nor
    delivered by any source.
    """
    path = locate(name, file)
    if path != _cached(name, file):
        return _unpack(path, file, md5)
    if path.exists():
        try:
            return _unpack(path, file, md5)
        except ValueError as error:
            warnings.warn(f"{error}: removed, and fetched again", RuntimeWarning)
            path.unlink(missing_ok=True)
    return _fetch(name, file)
