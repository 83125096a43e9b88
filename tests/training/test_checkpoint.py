"""A run goes on from its checkpoint bit for bit; other and damaged checkpoints are told apart."""

import os
import pickle
import re
import subprocess
import sys
import threading
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from noise import KINDS, MEMBERS, NOISE, Q1, Q2, Q3, RNG, interrupted, noise_run
from small_runs import assert_equal, matrix, read, refuse_to_train
from torch import nn

from ncutils import MLP, UFM
from ncutils.training.checkpoint import STATE, OtherRun, write_state
from ncutils.training.free_features import geometric_grid
from ncutils.training.networks import ResNet18

RECIPES, NETWORKS = ["fast", "authors"], ["mlp", "convnet", "batch norm"]
THIN_RUNS = [("fast", "convnet", "one"), ("authors", "batch norm", "own seeds")]
RUNS = matrix(RECIPES, NETWORKS, MEMBERS, thin=THIN_RUNS)


@pytest.mark.parametrize("recipe, model, members", RUNS)
def test_an_interrupted_run_ends_bit_for_bit_as_an_uninterrupted_one(
    monkeypatch, tmp_path, recipe, model, members
):
    setting = dict(model=model, recipe=recipe, weight_decay=0.01, **MEMBERS[members])
    whole, path = noise_run(**setting), tmp_path / "new" / "run.pt"
    setting |= dict(checkpoint=str(path), checkpoint_seconds=0)
    interrupted(2, **setting)
    assert not path.exists()  # in the first epoch
    for batch, epoch in ((5, 1), (9, 3), (1, 3), (7, 5)):  # three batches an epoch
        interrupted(batch, **setting)
        assert read(path)["epoch"] == epoch
    assert_equal(noise_run(**setting), whole)
    assert read(path)["epoch"] == 6 and [file.name for file in path.parent.iterdir()] == ["run.pt"]
    before = path.read_bytes()
    monkeypatch.setattr(torch.Tensor, "backward", refuse_to_train)
    for _ in range(2):
        assert_equal(noise_run(**setting), whole)
    assert path.read_bytes() == before


@pytest.mark.depth
def test_a_resnet_goes_on_bit_for_bit(tmp_path):
    images, labels = RNG.random((6, 3, 8, 8)), np.array([0, 1, 2, 0, 1, 0])
    setting = dict(model=ResNet18((3, 8, 8)), images=images, labels=labels, recipe="authors")
    setting |= dict(ufms=UFM([3, 2, 1], 0.05, 1e-5), epochs=2, batch_size=3, record=[2])
    whole = noise_run(**setting)
    setting |= dict(checkpoint=tmp_path / "run.pt", checkpoint_seconds=0)
    interrupted(4, **setting)
    assert_equal(noise_run(**setting), whole)


def clock_of_batches(monkeypatch):
    """Time stands still but for one second in every batch."""
    now, loss = [100.0], nn.functional.cross_entropy

    def hook(*args, **options):
        now[0] += 1
        return loss(*args, **options)

    clock = SimpleNamespace(perf_counter=lambda: now[0])
    monkeypatch.setattr(nn.functional, "cross_entropy", hook)
    monkeypatch.setattr("ncutils.training.network.time", clock)


@pytest.mark.parametrize(
    "every, epochs",
    [(0, [1, 2, 3, 4, 5, 6]), (6, [2, 4, 6]), (6.5, [3, 6]), (12, [4, 6]), (1e9, [6])],
)
def test_checkpoints_are_written_every_so_many_seconds_and_at_the_end(
    monkeypatch, tmp_path, every, epochs
):
    whole = noise_run()
    clock_of_batches(monkeypatch)
    written, replace = [], os.replace

    def hook(source, target):
        replace(source, target)
        written.append(read(target)["epoch"])

    monkeypatch.setattr(os, "replace", hook)
    assert_equal(noise_run(checkpoint=tmp_path / "run.pt", checkpoint_seconds=every), whole)
    assert written == epochs


@pytest.mark.parametrize("by_batches", [True, False])
def test_seconds_are_of_training_that_was_not_lost(monkeypatch, tmp_path, by_batches):
    if by_batches:
        clock_of_batches(monkeypatch)
    setting = dict(checkpoint=tmp_path / "run.pt", checkpoint_seconds=0, record=range(1, 7))
    for batch in (6, 5):
        interrupted(batch, **setting)
    history, names = noise_run(**setting).history, ("epoch", "seconds", "peak_mib")
    epochs, seconds, peaks = ([row[name] for row in history] for name in names)
    assert epochs == [1, 2, 3, 4, 5, 6] and 0 < seconds[0]
    assert all(a < b for a, b in zip(seconds, seconds[1:]))
    assert not by_batches or seconds == [3, 6, 9, 12, 15, 18]
    # memory is that of a process with torch
    assert 50 < min(peaks) and peaks == sorted(peaks) and max(peaks) < 2**20


# What each run was about to do when it was killed, and the last epoch of its checkpoint.
KILLED = {
    "fourth batch": 1,
    "first batch": None,
    "half of the first file": None,
    "half of the second file": 1,
    "to name the first file": None,
    "to name the third file": 2,
    "after naming the second file": 2,
    "from outside": ...,
}
SCRIPT = """
import os, signal, sys, time
from pathlib import Path
import torch
from test_checkpoint import TO_KILL, noise_run

def at(number, module, name, before, after):
    calls, function = [], getattr(module, name)
    def hook(*args, **options):
        calls.append(1)
        if len(calls) == number:
            before(*args)
        result = function(*args, **options)
        if len(calls) == number:
            after()
        return result
    setattr(module, name, hook)

def half(file):
    os.truncate(file, os.fstat(file).st_size // 2)
    kill()

def slowly(source, target):
    replace(source, target)
    time.sleep(.5)

replace, no, kill = os.replace, lambda *_: None, lambda *_: os.kill(os.getpid(), signal.SIGKILL)
torch.optim.Adam([torch.zeros(1, requires_grad=True)])  # imports what all children need
batch = torch.nn.functional, "cross_entropy"
moments = {
    "fourth batch": (4, *batch, kill, no),
    "first batch": (1, *batch, kill, no),
    "half of the first file": (1, os, "fsync", half, no),
    "half of the second file": (2, os, "fsync", half, no),
    "to name the first file": (1, os, "replace", kill, no),
    "to name the third file": (3, os, "replace", kill, no),
    "after naming the second file": (2, os, "replace", no, kill)}
for moment in sys.argv[1:]:
    path = Path(moment) / "run.pt"
    child = os.fork()
    if child == 0:
        at(*moments[moment]) if moment in moments else setattr(os, "replace", slowly)
        noise_run(checkpoint=path, **TO_KILL)
        os._exit(0)
    if moment == "from outside":
        while not path.exists() and os.waitpid(child, os.WNOHANG) == (0, 0):
            time.sleep(.01)
        os.kill(child, signal.SIGKILL)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL, moment
"""
TO_KILL = dict(model="batch norm", ufms=[Q1, Q2], seed=[4, 9], epochs=20, record=[1, 2, 5])
TO_KILL["checkpoint_seconds"] = 0


def kill(folder, moments):
    """Leave in a folder what runs have left that were killed at these moments."""
    here = Path(__file__).parent
    path = os.pathsep.join([str(here), str(here.parent), os.environ.get("PYTHONPATH") or str(here)])
    command = [sys.executable, "-W", "ignore", "-c", SCRIPT, *moments]
    options = dict(env=os.environ | {"PYTHONPATH": path}, capture_output=True, text=True)
    done = subprocess.run(command, cwd=folder, timeout=300, **options)
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture(scope="module")
def uninterrupted():
    return noise_run(**TO_KILL)


@pytest.fixture(scope="module")
def killed(tmp_path_factory):
    return kill(tmp_path_factory.mktemp("killed"), KILLED)


needs_posix = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs POSIX")


@needs_posix
def test_a_run_that_is_killed_while_it_writes_goes_on_bit_for_bit(tmp_path, uninterrupted):
    moment = "half of the second file"
    goes_on(kill(tmp_path, [moment]), moment, uninterrupted)


@needs_posix
@pytest.mark.depth
@pytest.mark.parametrize("moment", KILLED)
def test_a_killed_run_leaves_a_whole_checkpoint_or_none_and_goes_on_bit_for_bit(
    killed, moment, uninterrupted
):
    goes_on(killed, moment, uninterrupted)


def goes_on(folder, moment, whole):
    path, last = folder / moment / "run.pt", KILLED[moment]
    assert path.exists() == (last is not None)
    if last is not None:
        epoch = read(path)["epoch"]  # not broken
        assert 1 <= epoch < 20 if last is ... else epoch == last
    left = [*path.parent.glob("run.pt.*.part")]
    assert last is ... or len(left) == (" file" in moment and "after" not in moment)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert_equal(noise_run(checkpoint=path, **TO_KILL), whole)
    assert {*path.parent.iterdir()} == {path, *left}


def test_two_that_write_the_same_checkpoint_do_not_meet(monkeypatch, tmp_path):
    """One is about to name its file when the other comes and goes."""
    path, names, replace = tmp_path / "new" / "run.pt", [], os.replace

    def hook(source, target):
        names.append(Path(source).name)
        if len(names) == 1:
            other = threading.Thread(target=write_state, args=(path, {"epoch": 2}))
            other.start(), other.join()
            assert read(path) == {"epoch": 2}
        replace(source, target)

    monkeypatch.setattr(os, "replace", hook)
    write_state(path, {"epoch": 1})
    assert read(path) == {"epoch": 1} and [*path.parent.iterdir()] == [path]
    pattern = rf"run\.pt\.{os.getpid()}-\d+\.part"
    assert len({*names}) == 2 and all(re.fullmatch(pattern, name) for name in names)


def test_two_that_write_the_same_checkpoint_many_times_leave_a_whole_one(tmp_path):
    path = tmp_path / "run.pt"

    def write(epoch):
        for _ in range(50):
            write_state(path, {"epoch": epoch, "W": torch.full((99,), float(epoch))})

    with ThreadPoolExecutor() as pool:
        [*pool.map(write, (1, 2))]  # raises what they raise
    state = read(path)
    assert [*tmp_path.iterdir()] == [path]
    assert state["epoch"] in (1, 2) and (state["W"] == state["epoch"]).all()


BASE = dict(model="relu", ufms=[Q1, Q2], seed=[1, 2])
OTHER_IMAGES = NOISE.copy()
OTHER_IMAGES, OTHER_LABELS = NOISE.copy(), KINDS[::-1].copy()
OTHER_IMAGES[7, 0, 2, 1] += 1e-12
OTHER_LABELS = KINDS[::-1].copy()


@pytest.fixture(scope="module")
def complete(tmp_path_factory):
    path = tmp_path_factory.mktemp("complete") / "run.pt"
    return path, noise_run(checkpoint=path, **BASE)


OTHER = [dict(ufms=[Q1, Q3]), dict(ufms=[Q2, Q1]), dict(ufms=[Q1, Q2, Q2], seed=1)]
OTHER += [dict(seed=[1, 3]), dict(seed=[2, 1]), dict(seed=1), dict(lr=1e-3), dict(epochs=7)]
OTHER += [dict(images=OTHER_IMAGES), dict(labels=OTHER_LABELS), dict(features="linear")]
OTHER += [dict(model="convnet"), dict(model=MLP((1, 4, 4), (7,), 5, "relu")), dict(batch_size=6)]
OTHER += [dict(warm_start=False), dict(recipe="authors"), dict(weight_decay=0.1)]
OTHER += [dict(amp=True), dict(record=[3])]
SAME = [dict(progress=False), dict(checkpoint_seconds=0), dict(device=torch.device("cpu"))]
SAME += [dict(lr=2e-3), dict(amp=False), dict(recipe="fast"), dict(features="relu")]
SAME += [dict(seed=(1, 2)), dict(epochs=6.0), dict(record=geometric_grid(6))]
SAME += [dict(images=NOISE.tolist()), dict(labels=KINDS.tolist()), dict(weight_decay=0.0)]
SAME += [dict(ufms=[UFM([6.0, 5, 3], 0.05, 0.01, 0.05), Q2]), dict(weight_decay=0)]


@pytest.mark.parametrize("other", OTHER, ids=lambda other: " ".join(other))
def test_a_checkpoint_of_another_run_is_refused_by_name_and_kept(monkeypatch, complete, other):
    path, _ = complete
    before = path.read_bytes()
    monkeypatch.setattr(torch.Tensor, "backward", refuse_to_train)
    with pytest.raises(OtherRun, match=f"checkpoint = '{re.escape(str(path))}': is of another run"):
        noise_run(checkpoint=path, **(BASE | other))
    assert path.read_bytes() == before and list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("same", SAME, ids=lambda same: " ".join(same))
def test_the_same_run_said_otherwise_goes_on(monkeypatch, complete, same):
    path, whole = complete
    monkeypatch.setattr(torch.Tensor, "backward", refuse_to_train)
    assert_equal(noise_run(checkpoint=path, **(BASE | same)), whole)


def test_the_same_numbers_in_another_shape_are_another_run(tmp_path):
    """An MLP takes both, but channels are normalised each by itself."""
    noise = NOISE.reshape(14, 2, 1, 8)
    images = noise + np.array([0, 3])[:, None, None] * noise
    setting, other = dict(images=images, recipe="authors"), images.reshape(14, 1, 2, 8)
    first, second = (
        noise_run(**setting, epochs=1),
        noise_run(**setting | dict(images=other), epochs=1),
    )
    assert np.abs(first[0].start - second[0].start).max() > 0.1
    setting["checkpoint"] = tmp_path / "run.pt"
    noise_run(**setting)
    with pytest.raises(ValueError, match="is of another run"):
        noise_run(**setting | dict(images=other))


class Bomb:
    """Leaves a file where its pickle is loaded."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def saved(change):
    """A file that torch saves of what a change makes of the state and a bomb."""

    def damage(path, bomb):
        torch.save(change(read(path), bomb), path)
        return path.read_bytes()

    return damage


def without(name):
    return saved(lambda state, bomb: {key: part for key, part in state.items() if key != name})


DAMAGES = (
    {  # what is left of the file
        "empty": lambda path, bomb: b"",
        "one byte": lambda path, bomb: path.read_bytes()[:1],
        "truncated": lambda path, bomb: path.read_bytes()[: path.stat().st_size // 2],
        "last bytes gone": lambda path, bomb: path.read_bytes()[:-20],
        "text": lambda path, bomb: b"epoch,loss\n1,2\n" * 99,
        "pickle": lambda path, bomb: pickle.dumps({"run": 1, "epoch": bomb}, protocol=2),
        "pickle of torch": saved(lambda state, bomb: bomb),
        "real one with code in it": saved(lambda state, bomb: state | {"seconds": bomb}),
        "a list": saved(lambda state, bomb: [1, 2]),
        "a tensor": saved(lambda state, bomb: torch.ones(3)),
        "another's dict": saved(lambda state, bomb: {"state_dict": {}}),
    }
    | {f"without {name}": without(name) for name in STATE}
)
WITH_CODE = ["pickle of torch", "real one with code in it"]
THIN = [(damage,) for damage in ("truncated", *WITH_CODE, "a list", "without network")]


@pytest.mark.parametrize("damage", matrix(DAMAGES, thin=THIN))
@pytest.mark.filterwarnings("ignore:Using a non-tuple sequence")  # a tensor as checkpoint
def test_a_damaged_checkpoint_is_named_in_a_warning_not_executed_and_training_starts_anew(
    tmp_path, complete, damage
):
    path, trace = tmp_path / "run.pt", tmp_path / "trace"
    path.write_bytes(complete[0].read_bytes())
    path.write_bytes(DAMAGES[damage](path, Bomb(trace)))
    damaged = path.read_bytes()
    message = f"checkpoint {re.escape(str(path))} cannot be read .*: training starts anew"
    with pytest.warns(RuntimeWarning, match=message) as found:
        assert_equal(noise_run(checkpoint=path, **BASE), complete[1])
    assert [w.category for w in found].count(RuntimeWarning) == 1 and not trace.exists()
    assert read(path)["epoch"] == 6 and {*tmp_path.iterdir()} <= {path, trace}
    if damage in WITH_CODE:  # it would have been found out
        path.write_bytes(damaged)
        torch.load(path, weights_only=False)
        assert trace.exists()
