"""Fashion-MNIST and CIFAR-10: where the originals are found, nothing wrong is used or kept, which
images are taken.

Most tests build small "originals" of the same formats and put their md5 sums in the table. Sockets:
127.0.0.1 only.
"""

import concurrent.futures
import functools
import gzip
import hashlib
import http.server
import io
import itertools
import lzma
import os
import pickle
import re
import socket
import tarfile
import threading

import numpy as np
import pytest
from PIL import Image

from ncutils import _originals as originals
from ncutils import data, load_images

FOLDERS = {"fashion-mnist": "fashion-mnist", "cifar10": "cifar-10-batches-py"}
# the first file of each
TRAIN = {"fashion-mnist": "train-images-idx3-ubyte", "cifar10": "data_batch_1"}
SIZES = {"fashion-mnist": (9, 8, 7), "cifar10": (8, 4, 6)}
SETS = pytest.mark.parametrize("name", list(FOLDERS))


def idx(array):
    return bytes([0, 0, 8, array.ndim]) + np.array(array.shape, ">u4").tobytes() + array.tobytes()


@functools.cache
def tiny(name):
    """{file: bytes} of a small set: 3 classes, 10 + 4 images or 6 × (4 + 4 + 4) images."""
    rng = np.random.default_rng(7)
    labels = {10: np.arange(30, dtype=np.uint8) % 3, 4: np.arange(12, dtype=np.uint8) % 3}
    files, levels = {}, lambda *shape: rng.integers(0, 256, shape, dtype=np.uint8)
    if name == "fashion-mnist":
        for kind, n in (("train", 10), ("t10k", 4)):
            files[f"{kind}-images-idx3-ubyte"] = idx(levels(3 * n, 28, 28))
            files[f"{kind}-labels-idx1-ubyte"] = idx(labels[n])
    else:
        for file in [f"data_batch_{i}" for i in range(1, 6)] + ["test_batch"]:
            batch = {"data": levels(12, 3072), "labels": rng.permutation(labels[4]).tolist()}
            files[file] = pickle.dumps(batch, protocol=2)
    return files


def tiny_arrays(name, parts=None):
    """images (N, C, H, W) and labels of the small set, or of its first parts."""
    raws = list(tiny(name).values())
    if name == "cifar10":
        stored = [pickle.loads(raw) for raw in raws[:parts]]
        images = np.concatenate([batch["data"] for batch in stored]).reshape(-1, 3, 32, 32)
        return images, np.concatenate([batch["labels"] for batch in stored])
    pixels = b"".join(raw[16:] for raw in raws[0::2][:parts])
    labels = b"".join(raw[8:] for raw in raws[1::2][:parts])
    return np.frombuffer(pixels, np.uint8).reshape(-1, 1, 28, 28), np.frombuffer(labels, np.uint8)


def archive(files):
    """cifar-10-python.tar.gz as bytes."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        for file, raw in {"batches.meta": b"names", **files}.items():
            info = tarfile.TarInfo(f"cifar-10-batches-py/{file}")
            info.size = len(raw)
            tar.addfile(info, io.BytesIO(raw))
    return buffer.getvalue()


def served(name, files=None):
    """{path: bytes} of what a server has to send."""
    files = files or tiny(name)
    if name == "cifar10":
        return {"/cifar-10-python.tar.gz": archive(files)}
    return {f"/{file}.gz": gzip.compress(raw) for file, raw in files.items()}


PACK = {"": bytes, ".gz": functools.cache(gzip.compress), ".xz": functools.cache(lzma.compress)}


def put(folder, name, ending="", files=None, inside=True):
    folder = folder / FOLDERS[name] if inside else folder
    folder.mkdir(parents=True, exist_ok=True)
    for file, raw in (files or tiny(name)).items():
        (folder / (file + ending)).write_bytes(PACK[ending](raw))


def closed_url():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{free.getsockname()[1]}/"


def table(name):
    """The entry of ORIGINALS for the small set."""
    md5s = [(file, hashlib.md5(raw).hexdigest()) for file, raw in tiny(name).items()]
    step = 2 if name == "fashion-mnist" else 1
    return tuple(dict(md5s[i : i + step]) for i in range(0, len(md5s), step))


@pytest.fixture
def place(tmp_path, monkeypatch):
    """An empty cache and Debian folder, no $NCUTILS_DATA, the small sets' tables, no source."""
    for folder in ("data", "debian"):
        (tmp_path / folder).mkdir()
    monkeypatch.delenv("NCUTILS_DATA", raising=False)
    monkeypatch.setenv("NCUTILS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setattr(originals, "DEBIAN", tmp_path / "debian")
    monkeypatch.setattr(data, "_PARSED", {})
    nowhere = closed_url()
    for name in FOLDERS:
        monkeypatch.setitem(originals.ORIGINALS, name, table(name))
        monkeypatch.setitem(originals.URLS, name, (nowhere,))
    return tmp_path


@pytest.fixture
def local(place, monkeypatch):
    monkeypatch.setenv("NCUTILS_DATA", str(place / "data"))
    return place / "data"


class Source(http.server.BaseHTTPRequestHandler):
    """Sends what its server's `route` has for a path: bytes, or (bytes, length said)."""

    def do_GET(self):
        self.server.asked.append(self.path)
        self.server.before()
        body = self.server.route.get(self.path)
        body, said = body if isinstance(body, tuple) else (body, len(body or b""))
        self.send_response(404 if body is None else 200)
        self.send_header("Content-Length", str(said))
        self.end_headers()
        self.wfile.write(body or b"")

    def log_message(self, *_):
        pass


@pytest.fixture
def serve(monkeypatch):
    """serve(name, {path: bytes}, …): one source for each, asked in this order."""
    servers = []

    def start(name, *routes, before=lambda: None):
        urls, asked = [], []
        for route in routes:
            server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Source)
            server.route, server.asked, server.before = route, asked, before
            threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
            servers.append(server)
            urls.append(f"http://127.0.0.1:{server.server_port}/")
        monkeypatch.setitem(originals.URLS, name, tuple(urls))
        return asked

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def kept(place):
    """{path below the cache: bytes} of everything in the cache."""
    cache = place / "cache"
    files = [path for path in cache.rglob("*") if path.is_file()]
    return {str(path.relative_to(cache)): path.read_bytes() for path in files}


def whole_cache(name):
    return {f"{FOLDERS[name]}/{file}": raw for file, raw in tiny(name).items()}


def is_right(name, **arguments):
    """Whether load_images gives images of the small set, of the classes that it says."""
    images, labels = load_images(name, SIZES[name], dtype="uint8", **arguments)
    whole, classes = tiny_arrays(name)
    whole = data._resized(whole, 32) if name == "fashion-mnist" else whole
    known = {image.tobytes(): k for image, k in zip(whole, classes)}
    asked = np.repeat(range(3), SIZES[name]).tolist()
    return [known[image.tobytes()] for image in images] == labels.tolist() == asked


def refused(message, *arguments, error=ValueError, **options):
    """load_images raises an error with this message, which is given back."""
    with pytest.raises(error, match=message) as caught:
        load_images(*arguments, **options)
    return caught.value


# Where the originals are found -------------------------------------------------------------------


@SETS
@pytest.mark.parametrize("inside", [True, False])
@pytest.mark.parametrize("ending", list(PACK))
def test_a_local_folder_may_hold_them_packed_or_not(local, place, name, ending, inside):
    put(local, name, ending, inside=inside)
    assert is_right(name) and kept(place) == {}


def test_a_local_folder_may_hold_the_archive(local, place):
    (local / "cifar-10-python.tar.gz").write_bytes(archive(tiny("cifar10")))
    assert is_right("cifar10") and kept(place) == {}
    assert data.available("cifar10", test_images=True)[:3].tolist() == [24] * 3


@pytest.mark.parametrize("where", ["place", "local"])  # which is set and holds nothing of this set
def test_the_package_of_debian_is_found(request, place, where):
    request.getfixturevalue(where)
    put(place / "debian", "fashion-mnist", ".gz")
    assert is_right("fashion-mnist") and kept(place) == {}
    assert str(originals.DEBIAN) == str(place / "debian")


def test_a_local_folder_comes_before_everything_else(local, place):
    put(local, "fashion-mnist")
    for folder in (place / "debian", place / "cache"):
        put(folder, "fashion-mnist", files={file: b"wrong" for file in tiny("fashion-mnist")})
    assert is_right("fashion-mnist")


@SETS
def test_what_is_not_there_is_downloaded_once(place, serve, name):
    asked = serve(name, served(name))
    assert is_right(name) and is_right(name)
    archive, *_ = first = list(served(name))[:2]
    assert asked == first and archive.endswith(".gz")
    assert data.available(name, test_images=True).sum() == len(tiny_arrays(name)[1])
    assert len(asked) == (1 if name == "cifar10" else 4) and kept(place) == whole_cache(name)


def test_files_are_unpacked_and_parsed_once(local, monkeypatch):
    put(local, "cifar10", ".xz")
    calls, read = [], originals.read
    watched = lambda name, file, md5: calls.append(file) or read(name, file, md5)
    monkeypatch.setattr(originals, "read", watched)
    assert is_right("cifar10") and is_right("cifar10")
    assert calls == ["data_batch_1", "data_batch_2"]  # and none that is not needed
    os.utime(local / "cifar-10-batches-py" / "data_batch_2.xz", (1, 1))
    assert is_right("cifar10") and calls[2:] == ["data_batch_2"]


@pytest.mark.parametrize("value", ["file", "nothing"])
def test_a_local_folder_must_be_one(place, monkeypatch, value):
    (place / "file").write_text("no folder")
    monkeypatch.setenv("NCUTILS_DATA", str(place / value))
    with pytest.raises(ValueError, match=f"NCUTILS_DATA = '.*{value}': must be a folder"):
        load_images("cifar10", SIZES["cifar10"])


def test_the_table_names_the_published_files():
    tables = originals.ORIGINALS
    assert list(tables) == list(FOLDERS)
    for name in FOLDERS:
        assert [*itertools.chain(*tables[name])] == list(tiny(name))
    md5s = [md5 for part in itertools.chain(*tables.values()) for md5 in part.values()]
    assert len(set(md5s)) == 10 and all(len(md5) == 32 and int(md5, 16) for md5 in md5s)
    assert originals.FOLDERS == FOLDERS and originals.DEBIAN.as_posix() == "/usr/share/datasets"
    for urls in originals.URLS.values():
        assert len(urls) == 3 and all(re.fullmatch("http.*/", url) for url in urls)


# Nothing wrong is used --------------------------------------------------------------------------


def flip(raw):
    """The same length and format, another value."""
    return raw[:-1] + bytes([raw[-1] ^ 1])


def unpack(path):
    unpacker = {".gz": gzip.decompress, ".xz": lzma.decompress}.get(path.suffix, bytes)
    return unpacker(path.read_bytes())


def one_error(error):
    """Whether a traceback shows this error only."""
    return error.__cause__ is None and (error.__context__ is None or error.__suppress_context__)


DAMAGES = [
    ("", flip),
    ("", lambda raw: raw[:-5]),
    ("", lambda raw: b""),
    (".gz", lambda raw: gzip.compress(flip(raw))),
    (".gz", lambda raw: gzip.compress(raw)[:-20]),
    (".gz", lambda raw: b"\x1f\x8b\x08\0" + bytes(range(200))),
    (".gz", lambda raw: gzip.compress(raw)[:20] + bytes(300)),
    (".xz", lambda raw: lzma.compress(flip(raw))),
    (".xz", lambda raw: lzma.compress(raw)[:-20]),
    (".xz", lambda raw: b"\xfd7zXZ\0" + bytes(40)),
]


WRONG = [(name, file) for name, file in TRAIN.items()]
WRONG += [("fashion-mnist", "train-labels-idx1-ubyte")]


@pytest.mark.parametrize("name, file", WRONG)
@pytest.mark.parametrize("ending, damage", DAMAGES)
def test_a_wrong_local_file_is_refused_by_name(
    local, place, monkeypatch, name, file, ending, damage
):
    put(local, name, ending)
    path = local / FOLDERS[name] / (file + ending)
    path.write_bytes(damage(tiny(name)[file]))
    monkeypatch.setattr(pickle, "loads", lambda *_, **__: pytest.fail("unpickled"))
    error = refused(None, name, SIZES[name])
    text, right = str(error), hashlib.md5(tiny(name)[file]).hexdigest()
    assert str(path) in text and right in text and one_error(error)
    assert "cannot be unpacked" in text or hashlib.md5(unpack(path)).hexdigest() in text
    assert path.exists() and kept(place) == {}  # it is not ours to remove, and was not kept


def test_a_wrong_file_of_debian_is_refused_by_name(place):
    wrong = {file: flip(raw) for file, raw in tiny("fashion-mnist").items()}
    put(place / "debian", "fashion-mnist", ".gz", wrong)
    said = "train-images-idx3-ubyte.gz: the md5 of the unpacked bytes is [0-9a-f]{32};"
    refused(said, "fashion-mnist", SIZES["fashion-mnist"])


ARCHIVES = {
    "cut": lambda raw: raw[:9000],
    "damaged": lambda raw: raw[:40] + bytes(100) + raw[140:],
    "empty": lambda raw: b"",
    "other": lambda raw: b"no archive",
    "without the file": lambda raw: archive({"data_batch_2": b""}),
    "with another": lambda raw: archive({"data_batch_1": b"wrong"}),
}


@pytest.mark.parametrize("damage", ARCHIVES.values(), ids=ARCHIVES)
def test_a_wrong_local_archive_is_refused_by_name(local, damage):
    path = local / "cifar-10-python.tar.gz"
    path.write_bytes(damage(archive(tiny("cifar10"))))
    refused(r"cifar-10-python\.tar\.gz: .*data_batch_1", "cifar10", SIZES["cifar10"])


class Trap:
    """Unpickling it makes a file."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return open, (self.path, "w")


@pytest.mark.parametrize("where", ["data", "cache", "archive", "server"])
@pytest.mark.filterwarnings("ignore:.*removed, and fetched again")
def test_nothing_is_unpickled_before_its_md5_is_right(place, serve, monkeypatch, where):
    sprung = place / "sprung"
    raw = pickle.dumps(Trap(sprung), protocol=2)
    files, error = {**tiny("cifar10"), "data_batch_1": raw}, RuntimeError
    if where in ("data", "archive"):
        monkeypatch.setenv("NCUTILS_DATA", str(place / "data"))
        error = ValueError
    if where == "server":
        serve("cifar10", served("cifar10", files))
    elif where == "archive":
        (place / "data" / "cifar-10-python.tar.gz").write_bytes(archive(files))
    else:
        put(place / where, "cifar10", files=files)
    refused(None, "cifar10", SIZES["cifar10"], error=error)
    assert not sprung.exists()
    pickle.loads(raw).close()
    assert sprung.exists()  # it would have


# Downloads and the cache ------------------------------------------------------------------------


@functools.cache
def broken(kind, name):
    """What a source sends instead of the small set."""
    right = served(name)
    cut = {path: raw[: len(raw) * 9 // 10] for path, raw in right.items()}
    return {
        "wrong": dict.fromkeys(right, gzip.compress(b"wrong")),
        "nothing": dict.fromkeys(right, b""),
        "page": dict.fromkeys(right, b"<html>sign in</html>"),
        "404": {},
        "cut": {path: (raw, len(right[path])) for path, raw in cut.items()},
        "cut unseen": cut,
    }[kind]


@SETS
@pytest.mark.parametrize("kind", ["wrong", "nothing", "page", "404", "cut", "cut unseen"])
def test_where_a_source_fails_the_next_one_is_asked(place, serve, name, kind):
    right = served(name)
    asked = serve(name, broken(kind, name), right)
    assert is_right(name)
    assert asked == [path for path in list(right)[:2] for _ in range(2)]
    needed = lambda path: name == "cifar10" or "train" in path
    assert kept(place) == {path: raw for path, raw in whole_cache(name).items() if needed(path)}


@SETS
@pytest.mark.parametrize("kind", ["wrong", "nothing", "404", "cut", "cut unseen"])
def test_nothing_wrong_is_kept(place, serve, name, kind):
    serve(name, broken(kind, name))
    said = "HTTP status 404" if kind == "404" else None
    refused(said, name, SIZES[name], error=RuntimeError)
    assert kept(place) == {} and list((place / "cache" / FOLDERS[name]).iterdir()) == []


def test_an_archive_with_one_wrong_file_is_not_kept_at_all(place, serve):
    serve("cifar10", served("cifar10", {**tiny("cifar10"), "test_batch": b"wrong"}))
    refused("the original test_batch has", "cifar10", SIZES["cifar10"], error=RuntimeError)
    assert kept(place) == {}


def test_a_source_that_sends_unpacked_bytes_is_as_good(place, serve):
    serve("fashion-mnist", {f"/{file}.gz": raw for file, raw in tiny("fashion-mnist").items()})
    assert is_right("fashion-mnist")


@SETS
@pytest.mark.parametrize("damage", [flip, lambda raw: raw[:100], lambda raw: b""])
def test_a_damaged_cache_is_mended_with_a_warning(place, serve, name, damage):
    serve(name, served(name))
    path = place / "cache" / FOLDERS[name] / TRAIN[name]
    put(place / "cache", name)
    path.write_bytes(damage(tiny(name)[TRAIN[name]]))
    said = f"{TRAIN[name]}: the md5 .*: removed, and fetched again"
    with pytest.warns(RuntimeWarning, match=said):
        assert is_right(name)
    assert kept(place) == whole_cache(name)
    assert is_right(name)  # without a warning


@SETS
def test_a_damaged_cache_is_removed_even_where_nothing_can_be_downloaded(place, name):
    put(place / "cache", name, files={**tiny(name), TRAIN[name]: b"wrong"})
    with pytest.warns(RuntimeWarning, match="removed"):
        assert one_error(refused(None, name, SIZES[name], error=RuntimeError))
    assert set(kept(place)) == set(whole_cache(name)) - {f"{FOLDERS[name]}/{TRAIN[name]}"}


def test_a_cache_that_cannot_be_written_is_named(place, serve, monkeypatch):
    (place / "file").write_text("in the way")
    monkeypatch.setenv("NCUTILS_CACHE", str(place / "file" / "cache"))
    asked = serve("cifar10", served("cifar10"))
    said = r"file/cache/cifar-10-batches-py cannot be written \(Not a directory\)"
    refused(said, "cifar10", SIZES["cifar10"], error=RuntimeError)
    assert asked == []


def test_a_file_gets_its_name_when_it_is_complete(place, serve, monkeypatch):
    """The only step that gives the name is os.replace from the same folder."""
    serve("cifar10", served("cifar10"))
    moves, replace = [], os.replace

    def watched(source, target):
        assert source.read_bytes() == tiny("cifar10")[target.name] and not target.exists()
        assert source.parent.parent == target.parent
        moves.append(target.name)
        replace(source, target)

    monkeypatch.setattr(originals.os, "replace", watched)
    assert is_right("cifar10") and moves == list(tiny("cifar10"))


def test_two_at_once_leave_a_right_cache(place, serve):
    """Both ask before either gets an answer, so that no lock within a process helps."""
    both = threading.Barrier(2, timeout=60)
    asked = serve("cifar10", served("cifar10"), before=both.wait)
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        assert list(pool.map(is_right, ["cifar10"] * 2)) == [True, True]
    assert kept(place) == whole_cache("cifar10") and is_right("cifar10") and len(asked) == 2


@pytest.mark.parametrize("terminal", [True, False])
def test_a_progress_bar_is_for_terminals(place, monkeypatch, terminal):
    import pooch

    seen = []

    def downloader(**arguments):
        seen.append(arguments)
        return lambda url, path, _: path.write_bytes(archive(tiny("cifar10")))

    monkeypatch.setattr(pooch, "HTTPDownloader", downloader)
    monkeypatch.setattr(originals.sys.stderr, "isatty", lambda: terminal, raising=False)
    assert is_right("cifar10")
    assert seen[0]["progressbar"] is terminal and seen[0]["timeout"] == 30 and len(seen) == 1


@SETS
@pytest.mark.parametrize("local_is_set", [True, False])
def test_without_any_source_one_error_says_what_helps(place, monkeypatch, name, local_is_set):
    if local_is_set:
        monkeypatch.setenv("NCUTILS_DATA", str(place / "data"))
    url, first = closed_url(), originals.URLS[name][0]
    monkeypatch.setitem(originals.URLS, name, (first, url))
    said = f"^{name} is not at hand: there is no {TRAIN[name]} in\n"
    error = refused(said, name, SIZES[name], error=RuntimeError)
    packed = "cifar-10-python.tar.gz" if name == "cifar10" else "train-images-idx3-ubyte.gz"
    text = str(error)
    for part in (
        str(place / "debian" / FOLDERS[name]),
        str(place / "cache" / FOLDERS[name]),
        f"{place / 'data'}, without this set" if local_is_set else "$NCUTILS_DATA (not set)",
        f"{first}{packed}: ConnectionError\n",
        f"{url}{packed}: ConnectionError\n",
        f"curl -LO {first}{packed}\n",
        "export NCUTILS_DATA=FOLDER",
    ):
        assert part in text
    assert ("apt-get install dataset-fashion-mnist" in text) == (name == "fashion-mnist")
    assert "Traceback" not in text and "urllib3" not in text and kept(place) == {}
    assert text.count("curl") == (1 if name == "cifar10" else 4) and one_error(error)


# Which images -----------------------------------------------------------------------------------


@SETS
def test_the_seed_chooses_the_images_and_nothing_else(local, name):
    put(local, name)
    load = functools.partial(load_images, name, dtype="uint8")
    one, again, other = (load(SIZES[name], seed=seed)[0] for seed in (1, 1, 2))
    assert (one == again).all() and (one != other).any()
    fewer = load((SIZES[name][0], 2, 1), seed=1)[0]  # other sizes: the first of the same images
    n = SIZES[name][0]
    assert (fewer[:n] == one[:n]).all() and (fewer[n : n + 2] == one[n : n + 2]).all()
    assert (fewer[-1] == one[n + SIZES[name][1]]).all()


def without(folder, *numbers):
    """The small CIFAR-10 in a folder, without these batches."""
    gone = [f"data_batch_{i}" for i in numbers]
    put(folder, "cifar10", files={f: raw for f, raw in tiny("cifar10").items() if f not in gone})


@pytest.mark.parametrize("batches", [2, 3, 4])
def test_missing_batches_do_not_change_the_images(local, place, monkeypatch, batches):
    put(local, "cifar10")
    sizes = np.bincount(tiny_arrays("cifar10", batches)[1], minlength=3).tolist()
    everything = load_images("cifar10", sizes, seed=3)[0]
    monkeypatch.setenv("NCUTILS_DATA", str(place))
    without(place, *range(batches + 1, 6))
    assert (load_images("cifar10", sizes, seed=3)[0] == everything).all()
    assert data.available("cifar10").tolist() == sizes + [0] * 7


def test_images_come_from_the_files_in_order(local):
    put(local, "cifar10")
    images, labels = load_images("cifar10", (8, 4, 6), dtype="uint8")
    for k in range(3):
        taken = [image.tobytes() for image in images[labels == k]]
        for part in range(2):
            stored = pickle.loads(tiny("cifar10")[f"data_batch_{part + 1}"])
            of_class = {x.tobytes() for x, y in zip(stored["data"], stored["labels"]) if y == k}
            assert set(taken[4 * part : 4 * part + 4]) <= of_class


def test_missing_batches_limit_the_class_sizes(local):
    without(local, 4, 5)
    assert str(refused(None, "cifar10", (12, 13, 12))) == (
        "class_sizes[1] = 13: cifar10 holds 12 images of class 1; data_batch_4, data_batch_5 "
        f"are missing in {local}; test_images=True adds 4"
    )
    all_of = functools.partial(load_images, "cifar10", test_images=True)
    assert all_of((16, 13, 1))[0].shape == (30, 3, 32, 32)
    said = r"class_sizes\[0\] = 17: .* holds 16 .*_5 are missing in [^;]*$"
    refused(said, "cifar10", (17, 1), test_images=True)
    (local / "cifar-10-batches-py" / "test_batch").unlink()
    refused(r"= 13: .* data_batch_4, data_batch_5 are missing in [^;]*$", "cifar10", (13, 1))
    said = r"= 13: .* data_batch_4, data_batch_5, test_batch are missing"
    refused(said, "cifar10", (13, 1), test_images=True)
    assert all_of((12, 1))[0].shape == (13, 3, 32, 32)


def test_batches_after_a_gap_do_not_count(local):
    without(local, 2)
    said = r"holds 4 images of class 0; data_batch_2 is missing in [^;]*"
    refused(said + "; test_images", "cifar10", (5, 5))
    refused(said + "$", "cifar10", (9, 5))  # which the test images do not suffice for
    assert data.available("cifar10", test_images=True).tolist() == [8] * 3 + [0] * 7


@SETS
def test_test_images_come_last(local, name):
    put(local, name)
    parts = (None, -1 if name == "cifar10" else 1)
    total, training = (np.bincount(tiny_arrays(name, part)[1]) for part in parts)
    assert data.available(name)[:3].tolist() == training.tolist()
    assert data.available(name, test_images=True)[:3].tolist() == total.tolist()
    first, classes = load_images(name, training)
    images, labels = load_images(name, total, test_images=True)
    for k, n in enumerate(training):
        assert (images[labels == k][:n] == first[classes == k]).all()
    assert len({image.tobytes() for image in images}) == total.sum()
    said = r"class_sizes\[0\] = \d+: .* images of class 0"
    refused(said + "; test_images=True adds 4$", name, training + 1)
    refused(said + "$", name, total + 1, test_images=True)


def test_test_images_that_are_missing_are_named(local):
    files = {file: raw for file, raw in tiny("fashion-mnist").items() if "train" in file}
    put(local, "fashion-mnist", files=files)
    said = "; t10k-images-idx3-ubyte, t10k-labels-idx1-ubyte are missing in"
    refused(said, "fashion-mnist", (11, 1), test_images=True)


def test_nothing_is_downloaded_for_a_hint(place, serve):
    asked = serve("fashion-mnist", served("fashion-mnist"))
    said = r"class_sizes\[0\] = 11: fashion-mnist holds 10 images of class 0$"
    refused(said, "fashion-mnist", (11, 1))
    assert len(asked) == 2


def test_a_class_that_is_not_there_is_refused(local):
    put(local, "cifar10")
    refused(r"class_sizes\[3\] = 1: cifar10 holds 0 images of class 3", "cifar10", (1, 1, 1, 1))
    refused("class_sizes has 11 classes: cifar10 has 10", "cifar10", (1,) * 11)


# Which values -----------------------------------------------------------------------------------


def test_fashion_mnist_is_resized_as_pillow_does_it(local):
    put(local, "fashion-mnist")
    images, labels = load_images("fashion-mnist", (10, 10, 10), dtype="uint8")
    assert images.shape == (30, 1, 32, 32) and images.dtype == np.uint8
    small, classes = tiny_arrays("fashion-mnist", 1)
    resized = [Image.fromarray(x[0]).resize((32, 32), Image.BILINEAR).tobytes() for x in small]
    for k in range(3):
        expected = {x for x, y in zip(resized, classes) if y == k}
        assert {x.tobytes() for x in images[labels == k]} == expected


@SETS
def test_float_images_are_the_levels_over_255(local, name):
    put(local, name)
    levels, labels = load_images(name, SIZES[name], dtype="uint8")
    images, again = load_images(name, SIZES[name])
    assert images.dtype == np.float32 and labels.dtype == np.int64 and (labels == again).all()
    assert (images == (levels.astype(float) / 255).astype(np.float32)).all()
    refused("pool = 2: must be 1 with dtype = 'uint8'", name, SIZES[name], pool=2, dtype="uint8")
    pooled = load_images(name, SIZES[name], pool=4)[0]
    assert pooled.shape == (*images.shape[:2], 8, 8)
    assert pooled[:, :, 1, 2] == pytest.approx(images[:, :, 4:8, 8:12].mean(axis=(2, 3)), abs=1e-6)


def test_the_caller_may_change_the_images(local):
    put(local, "cifar10")
    images = load_images("cifar10", (4, 4), dtype="uint8")[0]
    images[:] = 0
    assert load_images("cifar10", (4, 4), dtype="uint8")[0].any()


# The real originals -----------------------------------------------------------------------------

# sums over the pixels of the images that seed 0 chooses
FASHION = [108356, 81376, 60162, 72450, 58711]
CIFAR = [457369, 459544, 263551, 302840, 434982]
CIFAR_LATER = [415136, 357003]


def real(name, *arguments):
    """Images and labels of the real originals, as stored; the test is skipped without them."""
    if not originals.local_folder(name):
        pytest.skip(f"$NCUTILS_DATA is not set or does not hold {name}")
    return load_images(name, *arguments, dtype="uint8")


def sums(images):
    return images.reshape(len(images), -1).sum(axis=1, dtype=int).tolist()


def test_real_fashion_mnist():
    images, labels = real("fashion-mnist", (2, 3))
    assert data.available("fashion-mnist").tolist() == [6000] * 10
    assert images.shape == (5, 1, 32, 32) and labels.tolist() == [0, 0, 1, 1, 1]
    assert sums(images) == FASHION
    if "t10k-images-idx3-ubyte" not in data._missing("fashion-mnist", True)[0]:
        assert data.available("fashion-mnist", test_images=True).tolist() == [7000] * 10


def test_real_cifar10():
    images, labels = real("cifar10", (2, 3))
    assert images.shape == (5, 3, 32, 32) and labels.tolist() == [0, 0, 1, 1, 1]
    assert sums(images) == CIFAR
    first, classes = data._part("cifar10", 0)
    counts = [1005, 974, 1032, 1016, 999, 937, 1030, 1001, 1025, 981]
    assert np.bincount(classes).tolist() == counts
    assert first[0][0, 0, :4].tolist() == [59, 43, 50, 68]  # a frog: its first pixels, red


@pytest.mark.depth
def test_real_cifar10_beyond_the_first_batch():
    real("cifar10", (2, 3))
    if len(data._missing("cifar10", False)[1]) < 3:
        pytest.skip("$NCUTILS_DATA holds fewer than three batches of CIFAR-10")
    assert data.available("cifar10").min() >= 2954
    images, labels = real("cifar10", [1100] * 10)
    assert images.shape == (11000, 3, 32, 32) and (np.bincount(labels) == 1100).all()
    assert sums(images[[1099, 10999]]) == CIFAR_LATER
