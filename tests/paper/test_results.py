"""Results that survive kills, reruns and a second process."""

import errno
import functools
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import runs
import torch
from runs import LAMBDA_5, SMALL, count_trainings, csvs, numbers, paper, quiet, small, table

from ncutils.paper import results as stored
from ncutils.paper import run as running
from ncutils.paper import task
from ncutils.paper.results import Results, results_of
from ncutils.training import arguments
from ncutils.training.network import train_network

alone = pytest.fixture(autouse=True, scope="module")(runs.one_thread)
posix = pytest.mark.skipif(os.name != "posix", reason="signals and file locks of POSIX")
TWO = dict(values=(100, 200), epochs=1)


@pytest.fixture
def trainings(monkeypatch):
    """[(largest class, seeds)] of every call of the trainer. Nothing is drawn."""
    return count_trainings(monkeypatch)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The folder of a run of TWO that nothing disturbed."""
    folder = tmp_path_factory.mktemp("whole")
    quiet(small(folder, **TWO))
    return folder


def cut(path, rows):
    """Leave the heading and so many rows."""
    path.write_text("".join(path.read_text().splitlines(keepends=True)[: rows + 1]))


# Reruns -----------------------------------------------------------------------------------------


def test_what_is_finished_is_not_trained_again(tmp_path, trainings, capsys):
    more = ("--epochs", 1)
    assert paper(tmp_path, "fig7", "--only", 100, 200, *more) == 0
    assert trainings == [(100, [0]), (200, [0])]
    first = [path.read_bytes() for path in csvs(tmp_path)]
    assert paper(tmp_path, "fig7", "--only", 200, 100, *more) == 0 and len(trainings) == 2
    assert "2 of 2 results are in" in capsys.readouterr().out
    assert [path.read_bytes() for path in csvs(tmp_path)] == first
    assert paper(tmp_path, "fig7", "--only", 100, 200, 300, "--seeds", 2, *more) == 0
    assert trainings[2:] == [(300, [0]), (100, [1]), (200, [1]), (300, [1])]
    out = capsys.readouterr().out
    assert "2 of 6 results are in" in out
    assert re.findall(r"^\[\d/6\]", out, re.M) == ["[3/6]", "[4/6]", "[5/6]", "[6/6]"]
    assert all(path.read_bytes().startswith(before) for path, before in zip(csvs(tmp_path), first))
    assert len(table(csvs(tmp_path)[0])) == 6


def test_another_lr_batch_pool_or_number_of_epochs_is_another_result_of_the_same_file(
    tmp_path, trainings
):
    usual = dict(lr=2e-3, epochs=2, batch_size=128, pool=14)
    others = dict(lr=1e-3, epochs=1, batch_size=64, pool=7)
    options = [usual, *(usual | {name: value} for name, value in others.items())]
    plans = [small(tmp_path, values=(100,), **one) for one in options]
    for plan in [*plans, *plans]:
        quiet(plan)
    rows = table(csvs(tmp_path)[0])
    assert len(trainings) == len(rows) == 5 and runs.once(rows)
    for plan, row in zip(plans, rows, strict=True):  # a figure is of one plan
        assert {name: float(row[name]) for name in usual} == {n: getattr(plan, n) for n in usual}
        assert results_of(plan) == [row]
        assert len(results_of(plan, history=True)) == plan.epochs
    assert results_of(small(tmp_path, values=(200,))) == []


@pytest.mark.parametrize("which", [0, 1], ids=["results", "history"])
def test_a_last_row_that_was_cut_is_dropped_and_redone(tmp_path, trainings, whole, which):
    folder = shutil.copytree(whole, tmp_path / "cut")
    plan, good = small(folder, **TWO), [path.read_bytes() for path in csvs(folder)]
    last = len(good[which]) - len(good[which].splitlines(keepends=True)[-1])
    # as a kill leaves it: history is written first, at the end a whole one without its result
    for end in (last + 1, last + 30, len(good[which]) - 1, *[len(good[which])] * which):
        csvs(folder)[which].write_bytes(good[which][:end])
        if which == 1:
            cut(csvs(folder)[0], 1)
        trainings.clear()
        quiet(plan)
        assert trainings == [(200, [0])] and numbers(folder) == numbers(whole)
    assert all(path.read_bytes().endswith(b"\n") for path in csvs(folder))


@pytest.mark.parametrize("left", [b"", b"setting,se"], ids=["empty", "half a heading"])
def test_a_file_without_a_whole_heading_is_as_good_as_none(tmp_path, left):
    plan = small(tmp_path, values=(100,), epochs=1)
    for path in (tmp_path / f"{plan.name}.csv", tmp_path / f"{plan.name}-history.csv"):
        path.write_bytes(left)
    assert [row["setting"] for row in table(quiet(plan))] == ["100"]


def test_files_of_another_version_are_refused_and_kept(tmp_path, capsys):
    path = tmp_path / f"{small(tmp_path).name}.csv"
    path.write_text("setting,other\n100,1\n")
    for _ in range(2):  # and nothing stays locked
        assert paper(tmp_path, "fig7", "--only", 100) == 2
        assert "has other columns than this version writes" in capsys.readouterr().err
    assert path.read_text() == "setting,other\n100,1\n"


def test_a_rest_of_an_ensemble_is_trained_to_the_same_results(tmp_path):
    """Where a row was cut: the others come without the first, equal up to rounding in float32."""
    plan = small(tmp_path, "fig5", values=LAMBDA_5[:3])
    path = quiet(plan)
    before = table(path)
    cut(path, 1)
    rows = table(quiet(plan))
    assert rows[0] == before[0] and len(table(csvs(tmp_path)[1])) == 6
    assert [row["setting"] for row in rows] == ["0.0027", "0.003", "0.0033"]
    assert [row["together"] for row in rows] == ["3", "2", "2"]
    for row, expected in zip(rows, before):
        for measure in {*stored.MEASURES} - {"seconds", "peak_mib"}:
            assert float(row[measure]) == pytest.approx(float(expected[measure]), rel=1e-3)


def test_rows_of_an_ensemble_get_into_a_file_all_or_none(monkeypatch, tmp_path):
    """Stopped before its n-th row of six moments and then three results."""
    line = stored._line
    plan = small(tmp_path, "fig5", values=LAMBDA_5[:3])
    rows = task.train(plan, plan.tasks()[0], progress=False)
    for row in (1, 2, 7, 8, 9):
        plan, written = replace(plan, out=str(tmp_path / str(row))), []

        def stop(columns, values, row=row, written=written):
            written.append(1)
            if len(written) == row:
                raise KeyboardInterrupt
            return line(columns, values)

        with Results(plan) as results:
            with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
                patch.setattr(stored, "_line", stop)
                results.add(*rows)
            lengths = [len(table(path)) for path in (results.path, results.history_path)]
            assert lengths == [0, 6 if row > 6 else 0]
        with Results(plan) as results:
            results.add(*rows)
            assert [len(table(path)) for path in csvs(tmp_path / str(row))] == [3, 6]


# From a checkpoint on ---------------------------------------------------------------------------


def stop_at_checkpoint(patch, number):
    """The run is interrupted when its n-th checkpoint is on the disk; one is written each epoch."""
    left, put = [number], os.replace

    def replaced(source, target):
        put(source, target)
        left[0] -= str(target).endswith(".pt")
        if left[0] == 0:
            raise KeyboardInterrupt

    patch.setattr(os, "replace", replaced)
    patch.setattr(task, "train_network", functools.partial(train_network, checkpoint_seconds=0))


def test_training_goes_on_from_the_checkpoint_and_ends_the_same(monkeypatch, tmp_path):
    whole, part = (small(tmp_path / name, values=(100,), epochs=9) for name in ("whole", "part"))
    quiet(whole)
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        stop_at_checkpoint(patch, 4)
        quiet(part)
    file = task.checkpoint(part, [(100, 0)])
    assert torch.load(file, weights_only=True)["epoch"] == 4
    saved, save = [], torch.save
    with monkeypatch.context() as patch:
        watched = lambda state, file: saved.append(state["epoch"]) or save(state, file)
        patch.setattr(torch, "save", watched)
        patch.setattr(task, "train_network", functools.partial(train_network, checkpoint_seconds=0))
        quiet(part)
    assert saved == [5, 6, 7, 8, 9] and not file.exists()
    assert numbers(tmp_path / "part") == numbers(tmp_path / "whole")


def test_a_checkpoint_of_another_kind_of_device_is_no_dead_end(monkeypatch, tmp_path):
    """As a GPU leaves it, where networks train in bfloat16, for a CPU: workers of a cluster may
    differ.
    """
    whole, plan = (small(tmp_path / name, values=(100,), epochs=4) for name in ("whole", "cut"))
    quiet(whole)
    file = task.checkpoint(plan, [(100, 0)])
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        stop_at_checkpoint(patch, 1)
        patch.setattr(arguments, "uses_bfloat16", lambda device: True)
        quiet(plan)
    said = f"{re.escape(str(file))} is of another version or device: training starts anew"
    assert file.exists()
    with pytest.warns(RuntimeWarning, match=said):
        quiet(plan)
    assert numbers(tmp_path / "cut") == numbers(tmp_path / "whole") and not file.exists()


# Kills and a second process ---------------------------------------------------------------------


@pytest.fixture(scope="module")
def killed(tmp_path_factory):
    """The folder as a kill leaves it at each moment of a run of TWO: copied whenever something is
    about to get its place on the disk.
    """
    folder = tmp_path_factory.mktemp("killed")
    found = []

    def watched(original):
        def call(*args, **options):
            found.append(shutil.copytree(folder / "run", folder / str(len(found))))
            return original(*args, **options)

        return call

    with pytest.MonkeyPatch.context() as patch:
        for home, name in ((os, "fsync"), (os, "replace"), (Path, "unlink")):
            patch.setattr(home, name, watched(getattr(home, name)))
        quiet(small(folder / "run", **TWO))
    return found


# 2 files with their names when opened; checkpoint, its name, 2 files and the unlink of 2 tasks
MOMENTS = 2 * 2 + 2 * (2 + 2 + 1)
THIN = (1, 5, 7, 13)


@pytest.mark.parametrize(
    "moment", [pytest.param(n, marks=[pytest.mark.depth] * (n not in THIN)) for n in range(MOMENTS)]
)
def test_after_a_kill_at_any_moment_the_same_command_completes_the_results(killed, whole, moment):
    assert len(killed) == MOMENTS
    quiet(small(killed[moment], **TWO))
    assert numbers(killed[moment]) == numbers(whole)
    assert list(killed[moment].glob("checkpoints/*.part*")) == []


@posix
@pytest.mark.depth
def test_a_running_command_keeps_others_out_and_can_be_killed_and_started_again(
    tmp_path, capsys, trainings
):
    words = ["--only", "100", "200", "300", "--epochs", "20"]
    results = tmp_path / "killed" / "sizes-ka5-mnist5k-mlp-relu-fast.csv"
    options = [*SMALL, *words, "--out", str(results.parent)]
    command = [sys.executable, "-m", "ncutils", "paper", "fig7", *options]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        end = time.monotonic() + 120
        while not (results.exists() and results.read_text().count("\n") >= 2):
            assert process.poll() is None and time.monotonic() < end
            time.sleep(0.01)
        process.send_signal(signal.SIGSTOP)  # until it is killed
        assert paper(results.parent, "fig7", *words) == 2
        assert f"{results} is being written by another process" in capsys.readouterr().err
        assert process.poll() is None and trainings == []
    finally:
        process.kill()
        process.wait(60)
    kept = table(results)
    assert 1 <= len(kept) < 3
    assert paper(results.parent, "fig7", *words) == paper(tmp_path / "whole", "fig7", *words) == 0
    assert table(results)[: len(kept)] == kept and len(trainings) == 3 - len(kept) + 3
    assert numbers(results.parent) == numbers(tmp_path / "whole")


@posix
def test_a_killed_process_lets_go_of_the_results(tmp_path, capsys):
    """One that holds them, and nothing else."""
    plan, (ready, told) = small(tmp_path), os.pipe()
    child = os.fork()
    if child == 0:
        with Results(plan):
            os.write(told, b"1")
            time.sleep(60)
        os._exit(0)
    try:
        assert os.read(ready, 1) == b"1"
        assert paper(tmp_path, "fig7", "--only", 100, "--epochs", 1) == 2
        said = f"{tmp_path / plan.name}.csv is being written by another process: wait for it, or "
        assert f"{said}choose another folder" in capsys.readouterr().err
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        os.close(ready), os.close(told)
    with Results(plan):
        pass


@posix
def test_a_folder_without_locks_is_not_taken_for_one_in_use(monkeypatch, tmp_path, capsys):
    def flock(*_):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr("fcntl.flock", flock)
    assert paper(tmp_path, "fig7", "--only", 100) == 2
    said = f"python -m ncutils paper: [Errno {errno.ENOLCK}] No locks available\n"
    assert capsys.readouterr().err == said


@posix
def test_the_results_stay_locked_until_they_are_closed(monkeypatch, tmp_path, capsys):
    count_trainings(monkeypatch)
    plan = small(tmp_path, **TWO)
    with Results(plan) as first:
        assert paper(tmp_path, "fig7", "--only", 100, "--epochs", 1) == 2
        assert "is being written by another process" in capsys.readouterr().err
        first.add(*task.train(plan, [(200, 0)], progress=False))
        quiet(small(tmp_path, "fig8", values=(100,), epochs=1))  # another file of the folder
    assert paper(tmp_path, "fig7", "--only", 100, 200, "--epochs", 1) == 0
    assert [row["setting"] for row in table(tmp_path / f"{plan.name}.csv")] == ["200", "100"]


def test_an_interrupt_keeps_what_is_finished(monkeypatch, tmp_path, capsys, trainings):
    original, words = task.train, ("fig7", "--only", 100, 200, 300, "--epochs", 1)

    def interrupted(plan, task, progress=None):
        if task == [(200, 0)]:
            raise KeyboardInterrupt
        return original(plan, task, progress)

    with monkeypatch.context() as patch:
        patch.setattr(running, "train", interrupted)
        assert paper(tmp_path, *words) == 130
    said = "interrupted: what is finished is kept, and the same command goes on"
    assert said in capsys.readouterr().err
    assert [row["setting"] for row in table(csvs(tmp_path)[0])] == ["100"]
    assert paper(tmp_path, *words) == 0 and [size for size, _ in trainings] == [100, 200, 300]
