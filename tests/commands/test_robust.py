"""Full disks, read-only checkouts, no home directory, kills in mid-write: a clear error, nothing
lost, and the next run works.
"""

import asyncio
import contextlib
import errno
import functools
import http.server
import importlib
import multiprocessing
import os
import pwd
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import run
import torch
from conftest import NOTEBOOK_HEAD, ROOT

from ncutils import UFM, Ledger, _files, _originals, data, load_images, train_network
from ncutils.__main__ import main
from ncutils.paper import figures as paper_figures
from ncutils.paper import results as stored
from ncutils.paper import run as running
from ncutils.paper import task
from ncutils.paper.results import Results
from ncutils.paper.task import Plan
from ncutils.training.networks import MLP

PAPER = """paper fig7 --data mnist5k --network mlp --recipe fast --pool 14 --epochs 1 --device cpu
    --only 100 200""".split()
DEPTH = pytest.mark.depth
CELL = 'print("a line")'
NOTEBOOK = f"{NOTEBOOK_HEAD}\n```{{code-cell}} ipython3\n{CELL}\n```\n"
ONLY_DEPTH = lambda *words: [pytest.param(word, marks=DEPTH) for word in words]


def mount(*arguments):
    """Mount something, or skip the test where that is not allowed."""
    if shutil.which("mount") is None or os.geteuid() != 0:
        pytest.skip("mounting needs Linux and root")
    result = subprocess.run(["mount", *map(str, arguments)], capture_output=True, text=True)
    if result.returncode:
        pytest.skip(f"no mount is allowed here: {result.stderr.strip()}")


class Disk:
    """A disk of 4 MB that can be filled to the last byte, and emptied again."""

    def __init__(self, folder):
        self.folder, self.ballast = folder, folder / "ballast"

    def fill(self):
        with open(self.ballast, "ab", buffering=0) as file, contextlib.suppress(OSError):
            while file.write(bytes(2**12)):
                pass

    def empty(self):
        self.ballast.unlink()

    def files(self):
        return {
            path.relative_to(self.folder).as_posix(): path.read_bytes()
            for path in sorted(self.folder.rglob("*"))
            if path.is_file() and path != self.ballast
        }


@pytest.fixture
def disk(tmp_path):
    folder = tmp_path / "disk"
    folder.mkdir()
    mount("-t", "tmpfs", "-o", "size=4m", "tmpfs", folder)
    yield Disk(folder)
    subprocess.run(["umount", "--lazy", folder], check=True)


@pytest.fixture(scope="module")
def read_only(tmp_path_factory):
    """A copy of what the pages are made of, on which nothing can be written."""
    folder = tmp_path_factory.mktemp("read only") / "checkout"
    for name in ("book", "notebooks", "ncutils"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("_config.yml", "_toc.yml"):
        shutil.copy(ROOT / name, folder)
    if os.geteuid():  # the permissions of files count for everybody but root
        subprocess.run(["chmod", "-R", "a-w", folder], check=True)
        yield folder
        subprocess.run(["chmod", "-R", "u+w", folder], check=True)
    else:
        mount("--bind", folder, folder)
        mount("-o", "remount,bind,ro", folder)
        yield folder
        subprocess.run(["umount", "--lazy", folder], check=True)


def python(folder, *arguments):
    """Run the package in a folder of its own as a user would there, without what `make` sets."""
    unset = "MPLCONFIGDIR", "IPYTHONDIR", "NCUTILS_DATA"
    known = {name: value for name, value in os.environ.items() if name not in unset}
    known |= {"PYTHONPATH": str(folder), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, *map(str, arguments)]
    return subprocess.run(command, cwd=folder, env=known, capture_output=True, text=True)


@contextlib.contextmanager
def told_to_be_full(path):
    with pytest.raises(OSError) as caught:
        yield
    assert caught.value.errno == errno.ENOSPC and Path(caught.value.filename) == path
    assert "No space left on device" in str(caught.value)


# A full disk
# --------------------------------------------------------------------------------------------


def ledger(path, size):
    claim = Ledger("claim", path.parent)
    for number in range(size):
        claim.check_true(f"row {number}", True)
    claim.save()


WRITERS = {  # a file, and what gives it a content of about so many hundred bytes
    "claim.json": ledger,
    "notebook.ipynb": lambda path, size: run.replace(path, bytes(100 * size)),
    "results.csv": lambda path, size: stored._replace(path, ("x",), [{"x": "x" * 100}] * size),
}


@pytest.mark.parametrize("name", WRITERS)
def test_a_full_disk_is_named_and_keeps_the_former_file(disk, name):
    path, write = disk.folder / "new" / name, WRITERS[name]
    write(path, 10)
    before = disk.files()
    disk.fill()
    with told_to_be_full(path):
        write(path, 200)
    assert disk.files() == before and [*before] == [f"new/{name}"]
    disk.empty()
    write(path, 200)
    assert [*disk.files()] == [f"new/{name}"] and len(path.read_bytes()) > 200 * 100 - 1


def test_a_checkpoint_on_a_full_disk_is_kept_and_training_goes_on_from_it(disk, monkeypatch):
    images = np.random.default_rng(0).random((9, 1, 4, 4))
    model, labels, ufm = MLP((1, 4, 4), (8,), 4), np.repeat([0, 1, 2], 3), UFM([3] * 3, 0.05, 0.01)
    setting = dict(epochs=6, record=[6], device="cpu", progress=False)
    train = lambda **more: train_network(model, images, labels, ufm, **setting, **more)
    whole = train()
    path, epochs, save = disk.folder / "run.pt", [], torch.save

    def full_in_epoch_four(state, file):
        epochs.append(state["epoch"])
        if len(epochs) == 4:
            disk.fill()
        save(state, file)

    monkeypatch.setattr(torch, "save", full_in_epoch_four)
    with told_to_be_full(path):
        train(checkpoint=path, checkpoint_seconds=0)
    assert [*disk.files()] == ["run.pt"]
    assert torch.load(path, weights_only=True)["epoch"] == 3
    disk.empty()
    again = train(checkpoint=path, checkpoint_seconds=0)
    assert epochs == [1, 2, 3, 4, 4, 5, 6] and [*disk.files()] == ["run.pt"]
    assert (again[0].classifier() == whole[0].classifier()).all()


MISSING = {  # which file does not fit when the disk is full from that moment on
    "from the start": "NAME.csv",
    "training": "checkpoints/NAME-[0-9a-f]{16}.pt",
    "results": "NAME(-history)?.csv",
    "figure": "NAME-epochs1-pool14.png",
}


@pytest.mark.parametrize("moment", ["results", *ONLY_DEPTH("from the start", "training", "figure")])
def test_the_papers_experiments_go_on_when_there_is_room_again(disk, monkeypatch, capsys, moment):
    out, name, trained = disk.folder / "results", "sizes-ka5-mnist5k-mlp-relu-fast", []
    path, train, compare = out / f"{name}.csv", task.train, paper_figures.compare
    arguments = [*PAPER, "--out", str(out)]

    def training(*arguments):
        trained.append(arguments[1])
        if moment == "training" and len(trained) == 2:
            disk.fill()
        rows = train(*arguments)
        if moment == "results":  # the rows are made longer than what is left of a page of the disk
            rows[0][0]["versions"] *= 200
            if len(trained) == 2:
                disk.fill()
        return rows

    def drawing(*arguments):
        if moment == "figure":
            disk.fill()
        compare(*arguments)

    if moment == "from the start":
        disk.fill()
    with monkeypatch.context() as patch:
        patch.setattr(running, "train", training)
        patch.setattr(paper_figures, "compare", drawing)
        assert main(arguments) == 2
    said = capsys.readouterr().err.splitlines()[-1]
    missing = f"'{out}/{MISSING[moment].replace('NAME', name)}'"
    reason = r"python -m ncutils paper: \[Errno 28\] No space left on device: "
    assert re.fullmatch(reason + missing, said), said
    kept, settings = stored.read(path), ["100", "200"]
    done = {"from the start": 0, "figure": 2}.get(moment, 1)
    assert [row["setting"] for row in kept] == settings[:done]
    disk.empty()
    again = []
    repeated = lambda *arguments: again.append(arguments[1]) or train(*arguments)
    monkeypatch.setattr(running, "train", repeated)
    assert main(arguments) == 0
    rows = stored.read(path)
    assert [row["setting"] for row in rows] == settings and rows[: len(kept)] == kept
    assert len(again) == 2 - len(kept)
    assert not [left for left in disk.files() if left.endswith((".part", ".pt"))]


def test_rows_cut_by_a_full_disk_are_left_out_and_written_anew(disk):
    """The disk takes the first bytes of a row, and no more."""
    plan = Plan("fig7", "mnist5k", "mlp", recipe="fast", values=(100, 200), out=str(disk.folder))
    empty = dict.fromkeys(stored.COLUMNS, "") | {"logits": "1 " * 5000}
    row = lambda value: empty | plan.key(value, 0)
    with Results(plan) as results:
        results.add([row(100)], [])
        disk.fill()
        room = os.statvfs(disk.folder)
        os.truncate(disk.ballast, disk.ballast.stat().st_size - room.f_frsize)  # one page
        with told_to_be_full(results.path):
            results.add([row(200)], [])
    assert results.path.read_bytes()[-1:] != b"\n"  # cut
    assert [found["setting"] for found in stored.read(results.path)] == ["100"]
    disk.empty()
    with Results(plan) as results:
        results.add([row(200)], [])
    assert [found["setting"] for found in stored.read(results.path)] == ["100", "200"]


def test_images_are_loaded_where_the_cache_is_full(disk, monkeypatch):
    monkeypatch.setenv("NCUTILS_CACHE", str(disk.folder))
    disk.fill()
    said = f"digits is not cached: .*No space left on device: '{disk.folder}/digits-v1.npz'"
    with pytest.warns(RuntimeWarning, match=said):
        images, _ = load_images("digits", [5, 5])
    assert disk.files() == {}
    disk.empty()
    assert (load_images("digits", [5, 5])[0] == images).all()
    assert [*disk.files()] == ["digits-v1.npz"]


UNKEPT = (
    "{}/cifar-10-batches-py cannot be written ({}), so cifar10 is not downloaded: "
    "make room there, or let NCUTILS_CACHE name another folder"
)


def test_a_download_onto_a_full_disk_asks_no_second_source(disk, tmp_path, monkeypatch):
    monkeypatch.setenv("NCUTILS_CACHE", str(disk.folder))
    monkeypatch.delenv("NCUTILS_DATA", raising=False)
    (tmp_path / "cifar-10-python.tar.gz").write_bytes(os.urandom(2**23))  # twice the disk
    asked = []

    class Handler(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *arguments):
            asked.append(self.path)

    serve = functools.partial(Handler, directory=tmp_path)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), serve) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{server.server_port}/"
        monkeypatch.setitem(_originals.URLS, "cifar10", (address,) * 2)
        with pytest.raises(RuntimeError) as caught:
            load_images("cifar10", [5, 5])
        server.shutdown()
    assert str(caught.value) == UNKEPT.format(disk.folder, "No space left on device")
    assert asked == ["/cifar-10-python.tar.gz"] and disk.files() == {}


FILLING = """
print("a line" * 1000)
with open("BALLAST", "wb") as file:
    file.truncate(0)
    try:
        while file.write(bytes(2**12)):
            file.flush()
    except OSError:
        file.raw.close()
"""


def run_notebook(source, output):
    return asyncio.run(run.run_all([source], output, jobs=1))


def test_a_notebook_is_not_run_where_it_cannot_be_kept(disk, tmp_path):
    source = tmp_path / "01_small.md"
    source.write_text(NOTEBOOK)
    disk.fill()
    with told_to_be_full(disk.folder / "out"):
        run_notebook(source, disk.folder / "out")


def test_a_notebook_that_finds_the_disk_full_leaves_the_former_one(disk, tmp_path, capsys):
    source, kept = tmp_path / "01_small.md", disk.folder / "out" / "01_small.ipynb"
    kept.parent.mkdir()
    kept.write_text("former")
    source.write_text(NOTEBOOK.replace(CELL, FILLING.replace("BALLAST", str(disk.ballast))))
    assert run_notebook(source, kept.parent) == {}
    said = f"01_small FAILED and is not kept: [Errno 28] No space left on device: '{kept}'"
    assert said in capsys.readouterr().out
    assert disk.files() == {"out/01_small.ipynb": b"former"}
    disk.empty()
    source.write_text(NOTEBOOK)
    assert run_notebook(source, kept.parent) and [*disk.files()] == ["out/01_small.ipynb"]
    assert b"a line" in kept.read_bytes()


def test_pages_that_do_not_fit_are_told_in_a_line(disk):
    disk.fill()
    result = python(ROOT, "book/build_site.py", "--output", disk.folder / "site")
    assert result.returncode == 1 and result.stdout == ""
    reason = r"book/build_site\.py: \[Errno 28\] No space left on device"
    missing = "('[^']*' -> )?'[^']*/disk/site/[^']*'\n"
    assert re.fullmatch(f"{reason}: {missing}", result.stderr), result.stderr


@DEPTH
def test_a_page_that_cannot_be_listed_is_not_begun(disk):
    """The same command works when there is room."""
    notebooks = "new_claim.py", "pairs.py", "run.py", "template.md"
    for name in (*(f"notebooks/{name}" for name in notebooks), "_toc.yml"):
        (disk.folder / name).parent.mkdir(exist_ok=True)
        shutil.copy(ROOT / name, disk.folder / name)
    before = disk.files()
    disk.fill()
    # for the page, which is shorter than this
    os.truncate(disk.ballast, disk.ballast.stat().st_size - 2**12)
    assert len(before["notebooks/template.md"]) < 2**12 and len(before["_toc.yml"]) < 2**12
    result = python(ROOT, disk.folder / "notebooks" / "new_claim.py", "98_my_claim")
    assert result.returncode == 1 and disk.files() == before
    reason = f"[Errno 28] No space left on device: '{disk.folder}/_toc.yml'\n"
    assert result.stderr == f"notebooks/new_claim.py: {reason}"


# A read-only checkout
# -----------------------------------------------------------------------------------


@pytest.mark.parametrize("trains", [False, pytest.param(True, marks=DEPTH)])
def test_the_package_works_from_a_read_only_checkout(read_only, tmp_path, trains):
    code = """
import sys
import ncutils
from ncutils.__main__ import main
print(ncutils.__file__, ncutils.solve(ncutils.UFM.from_lam_z([5, 3], 0.01)).certified)
out, *words = sys.argv[1:]
print(main(words), main([*words, "--out", out] if out else ["paper", "list"]))
"""
    out = tmp_path / "out"
    result = python(read_only, "-W", "error", "-c", code, out if trains else "", *PAPER[:-1])
    assert result.returncode == 0, result.stderr
    lines = result.stdout.splitlines()
    assert lines[0] == f"{read_only}/ncutils/__init__.py True" and lines[-1] == "2 0"
    first = result.stderr.splitlines()[0]
    assert first.startswith("python -m ncutils paper: [Errno ") and "'results'" in first
    made = sorted(path.suffix for path in out.glob("sizes*"))
    assert made == ([".csv", ".csv", ".png"] if trains else [])


WRITE = ["notebooks/run.py 00_summary", "book/build_site.py"]
MORE = "notebooks/new_claim.py 98_my_claim", "notebooks/reproduce.py 00_summary"


@pytest.mark.parametrize("command", [*WRITE, *ONLY_DEPTH(*MORE)])
def test_a_script_says_in_a_line_what_it_cannot_write(read_only, command):
    script, *arguments = command.split()
    result = python(read_only, script, *arguments)
    assert result.returncode == 1
    reason = r"\[Errno (30|13)\] (Read-only file system|Permission denied)"
    assert re.fullmatch(f"{script}: {reason}: '{read_only}/.*'\n", result.stderr), result.stderr


# Other ways to start Python
# -----------------------------------------------------------------------------


CHECK = "check threshold --class-sizes 50x5,10x5 --lam-z 0.03".split()


NOBODY = """
import os, pwd, runpy, sys
def unknown(uid):
    raise KeyError(uid)
pwd.getpwuid = unknown
for name in ("HOME", "XDG_CACHE_HOME", "NCUTILS_CACHE"):
    os.environ.pop(name, None)
import ncutils
print(ncutils.load_images("digits", [2, 2])[0].shape)
sys.argv = ["ncutils", *sys.argv[1:]]
runpy.run_module("ncutils", run_name="__main__")
"""


def unknown(uid):
    raise KeyError(uid)


def test_without_docstrings_a_check_says_the_same(capsys, monkeypatch):
    assert main(CHECK) == 0
    plain = capsys.readouterr().out
    ours = lambda: [name for name in sys.modules if name.split(".")[0] == "ncutils"]
    optimised = lambda self, name: compile(self.get_data(self.path), name, "exec", optimize=2)
    monkeypatch.setattr(importlib.machinery.SourceFileLoader, "get_code", optimised)
    kept = {name: sys.modules.pop(name) for name in ours()}
    try:
        copy = importlib.import_module("ncutils.__main__")
        assert sys.modules["ncutils"].check.__doc__ is None and copy.main(CHECK) == 0
    finally:
        for name in ours():
            del sys.modules[name]
        sys.modules.update(kept)
    assert capsys.readouterr().out == plain and plain.endswith("checks\n")


def test_without_any_home_directory_a_set_that_a_package_brings_along_is_there(monkeypatch):
    """As in a container under a user id that no file of users holds."""
    monkeypatch.setattr(pwd, "getpwuid", unknown)
    for name in ("HOME", "XDG_CACHE_HOME", "NCUTILS_CACHE"):
        monkeypatch.delenv(name, raising=False)
    with pytest.warns(RuntimeWarning, match="digits is not cached: "):
        assert load_images("digits", [2, 2])[0].shape == (4, 1, 8, 8)


@DEPTH
def test_a_python_without_docstrings_and_any_home_says_the_same(capsys):
    """A process of its own compiles all packages anew."""
    result = python(ROOT, "-OO", "-c", NOBODY, *CHECK)
    assert result.returncode == 0, result.stderr
    assert main(CHECK) == 0
    assert result.stdout == f"(4, 1, 8, 8)\n{capsys.readouterr().out}"
    assert "RuntimeWarning: digits is not cached: " in result.stderr


def test_no_pages_are_built_without_docstrings(tmp_path):
    """The reference would be empty, and nothing would say so."""
    result = python(ROOT, "-OO", "-P", "book/build_site.py", "--output", tmp_path / "site")
    said = " python -OO drops the docstrings that the reference shows\n"
    assert result.returncode == 2 and result.stderr.endswith(said)
    assert not (tmp_path / "site").exists()


SCRIPTS = "notebooks/new_claim.py", "notebooks/reproduce.py", "book/build_site.py"


@pytest.mark.parametrize("script", ["notebooks/run.py", *ONLY_DEPTH(*SCRIPTS)])
def test_a_script_starts_without_docstrings_and_with_a_safe_path(script):
    result = python(ROOT, "-OO", "-P", script, "--help")
    assert result.returncode == 0, result.stderr
    assert result.stdout == python(ROOT, script, "--help").stdout


@pytest.mark.parametrize("words", ["paper list", *ONLY_DEPTH(" ".join(CHECK), "--help")])
def test_a_reader_that_goes_away_is_no_error(words, monkeypatch):
    """As `head -1` does; the status is that of a program which the closed pipe ends."""
    monkeypatch.delenv("PYTHONUNBUFFERED", raising=False)
    reads, writes = os.pipe()
    os.close(reads)
    try:
        command = [sys.executable, "-m", "ncutils", *words.split()]
        result = subprocess.run(command, cwd=ROOT, stdout=writes, stderr=subprocess.PIPE, text=True)
    finally:
        os.close(writes)
    assert (result.returncode, result.stderr) == (141, "")


# No home directory
# --------------------------------------------------------------------------------------


def test_without_a_home_directory_only_the_cache_is_missing(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("in the way")
    cache = f"{tmp_path}/file/home/.cache/ncutils"
    monkeypatch.setenv("HOME", str(tmp_path / "file" / "home"))
    for name in ("XDG_CACHE_HOME", "NCUTILS_CACHE", "NCUTILS_DATA"):
        monkeypatch.setenv(name, "")
    assert main(["paper", "list"]) == 0
    assert str(_originals.cache_folder()) == cache
    unkept = rf"digits is not cached: \[Errno 20\] Not a directory: '{cache}/digits-v1\.npz'"
    with pytest.warns(RuntimeWarning, match=unkept):
        assert load_images("digits", [2, 2])[0].shape == (4, 1, 8, 8)
    with pytest.raises(RuntimeError) as caught:
        load_images("cifar10", [2, 2])
    assert str(caught.value) == UNKEPT.format(cache, "Not a directory")


@pytest.mark.filterwarnings("ignore:IPython parent:UserWarning")  # it takes a temporary folder
def test_a_notebook_runs_without_a_home_directory(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("in the way")
    (tmp_path / "01_small.md").write_text(NOTEBOOK)
    folders = "XDG_DATA_HOME XDG_CONFIG_HOME IPYTHONDIR MPLCONFIGDIR JUPYTER_RUNTIME_DIR"
    for name in folders.split():
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "file" / "home"))
    (notebook,) = run_notebook(tmp_path / "01_small.md", tmp_path / "out").values()
    assert notebook.cells[0].outputs[0].text == "a line\n"


# Killed
# -------------------------------------------------------------------------------------------------


def killed_in(step, path, content):
    """A process that is killed before a step of writing a file."""

    def child():
        setattr(os, step, lambda *_: os.kill(os.getpid(), signal.SIGKILL))
        _files.write(path, content)

    process = multiprocessing.get_context("fork").Process(target=child)
    process.start()
    process.join(60)
    return process.exitcode


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs POSIX")
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
@pytest.mark.parametrize("step", ["fsync", "replace"])
def test_what_a_killed_writer_leaves_is_in_nobodys_way_and_goes_after_an_hour(tmp_path, step):
    path, other = tmp_path / "a [1].json", tmp_path / "a [1].json.md"
    _files.write(path, b"former"), _files.write(other, b"other")
    assert killed_in(step, path, b"new") == -signal.SIGKILL
    (left,) = tmp_path.glob("*.part")
    assert path.read_bytes() == b"former"
    _files.write(path, b"next")
    # it might be of a writer that is alive
    assert sorted(tmp_path.iterdir()) == sorted([path, other, left])
    os.utime(left, times=(time.time() - 3500,) * 2)
    _files.write(path, b"next")
    assert left.exists()
    os.utime(left, times=(time.time() - 3700,) * 2)
    _files.write(other, b"other")  # which leaves alone what is not its own
    assert left.exists()
    _files.write(path, b"last")
    assert sorted(tmp_path.iterdir()) == [path, other] and path.read_bytes() == b"last"


def test_a_killed_download_is_removed_by_a_later_one(tmp_path, monkeypatch):
    monkeypatch.setenv("NCUTILS_CACHE", str(tmp_path))
    monkeypatch.delenv("NCUTILS_DATA", raising=False)
    monkeypatch.setitem(_originals.URLS, "cifar10", ("http://127.0.0.1:9/",))  # nobody answers
    folder = tmp_path / "cifar-10-batches-py"
    for name, age in (("download-old", 3700), ("download-at-work", 3700), ("download-new", 10)):
        (folder / name).mkdir(parents=True)
        (folder / name / "cifar-10-python.tar.gz").write_bytes(b"half")
        for path in (folder / name / "cifar-10-python.tar.gz", folder / name):
            os.utime(path, times=(time.time() - age,) * 2)
    os.utime(folder / "download-at-work" / "cifar-10-python.tar.gz")  # a slow connection
    with pytest.raises(RuntimeError, match="cifar10 is not at hand"):
        data.available("cifar10")
    assert sorted(path.name for path in folder.iterdir()) == ["download-at-work", "download-new"]


def test_an_interrupt_leaves_nothing(tmp_path, monkeypatch):
    def interrupt(*_):
        raise KeyboardInterrupt

    _files.write(tmp_path / "file", b"former")
    monkeypatch.setattr(os, "fsync", interrupt)
    with pytest.raises(KeyboardInterrupt):
        _files.write(tmp_path / "file", b"new")
    assert [path.read_bytes() for path in tmp_path.iterdir()] == [b"former"]
