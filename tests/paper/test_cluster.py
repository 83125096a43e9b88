"""The experiments on a Dask cluster, whole, lost and missing."""

import contextlib
import logging
import os
import signal
import sys
import threading

import dask.distributed
import distributed
import pytest
import torch
from runs import VARIES, csvs, numbers, once, one_thread, paper, quiet, small, table

from ncutils.paper import cluster as on_cluster
from ncutils.paper import results as stored
from ncutils.paper import task

alone = pytest.fixture(autouse=True, scope="module")(one_thread)
posix = pytest.mark.skipif(os.name != "posix", reason="signals of POSIX")
NOWHERE = "tcp://127.0.0.1:1"
SETTINGS = dict(values=(100, 200), seeds=3)
WORDS = ("fig7", "--only", 100, 200, "--seeds", 3)


@contextlib.contextmanager
def at_most(seconds):
    def stop(*_):
        raise TimeoutError(f"takes more than {seconds} s")

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def local_cluster(**options):
    """Of workers on this machine, with one thread each."""
    return distributed.LocalCluster(
        threads_per_worker=1, dashboard_address=None, silence_logs=logging.CRITICAL, **options
    )


@pytest.fixture(scope="module")
def processes():
    """The address of a scheduler with two worker processes."""
    with dask.config.set({"distributed.worker.multiprocessing-method": "forkserver"}), at_most(180):
        cluster = local_cluster(n_workers=2, processes=True, host="127.0.0.1")
    with cluster:
        yield cluster.scheduler_address


@pytest.fixture(scope="module")
def here(tmp_path_factory):
    """What the settings give without a cluster, for so many epochs."""
    found = {}

    def of(epochs):
        if epochs not in found:
            folder = tmp_path_factory.mktemp("here")
            quiet(small(folder, **SETTINGS, epochs=epochs))
            found[epochs] = numbers(folder, VARIES | {"hardware"})
        return found[epochs]

    return of


def same_by_cluster(address, folder, expected, capsys, epochs):
    words = (*WORDS, "--epochs", epochs, "--dask", address)
    with at_most(180):
        assert paper(".", *words) == 0
        out = capsys.readouterr().out
        assert sum(line.startswith("[") for line in out.splitlines()) == 6
        assert paper(".", *words) == 0
    assert "6 of 6 results are in" in capsys.readouterr().out
    assert numbers(folder, VARIES | {"hardware"}) == expected and once(table(csvs(folder)[0]))
    assert list((folder / "checkpoints").iterdir()) == []


@posix
def test_a_cluster_gives_the_same_results(monkeypatch, tmp_path, capsys, here):
    """Workers in this process, one thread each, which take turns."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("ncutils.paper.figures.draw", lambda plan: "no figure")
    expected = here(1)
    with at_most(60):
        cluster = local_cluster(n_workers=2, processes=False)
    with cluster:
        same_by_cluster(cluster.scheduler_address, tmp_path, expected, capsys, epochs=1)


@posix
@pytest.mark.depth
def test_a_cluster_of_processes_gives_the_same_results(
    monkeypatch, tmp_path, capsys, processes, here
):
    monkeypatch.chdir(tmp_path)  # the workers are in another folder
    same_by_cluster(processes, tmp_path, here(15), capsys, epochs=15)


@posix
@pytest.mark.depth
def test_a_killed_worker_costs_no_result(monkeypatch, tmp_path, processes, here):
    killed, original = [], dask.distributed.as_completed

    def as_completed(futures):
        while not killed:
            found = client.run(lambda dask_worker: (os.getpid(), len(dask_worker.state.executing)))
            for pid in [pid for pid, tasks in found.values() if tasks][:1]:
                os.kill(pid, signal.SIGKILL)
                killed.append(pid)
        return original(futures)

    monkeypatch.setattr(dask.distributed, "as_completed", as_completed)
    with at_most(180), distributed.Client(processes) as client:
        quiet(small(tmp_path, **SETTINGS, epochs=15), dask=processes)
        assert len(killed) == 1 and killed[0] not in client.run(os.getpid).values()
    assert numbers(tmp_path, VARIES | {"hardware"}) == here(15)
    assert once(table(csvs(tmp_path)[0]))


class Future:
    def __init__(self, result):
        self.result = result


class Client(contextlib.nullcontext):
    """Of a cluster that does its work here, when it is asked for results."""

    def wait_for_workers(self, *_, **__):
        pass

    def close(self):
        pass

    def submit(self, train, *arguments, **_):
        return Future(lambda: train(*arguments))

    def __enter__(self):
        return self


GONE, CUT = type("Worker", (), {"address": NOWHERE}), "scheduler-connection-lost"
LOST = {
    "worker": lambda: distributed.KilledWorker("task", GONE, 3),
    "scheduler": lambda: distributed.client.FutureCancelledError("task", CUT),
}


@pytest.mark.parametrize("what", LOST)
def test_a_cluster_that_is_lost_is_a_message_and_keeps_what_is_finished(
    monkeypatch, tmp_path, capsys, what
):
    class Lossy(Client):
        def submit(self, train, *arguments, **_):
            def result():
                if csvs(tmp_path)[0].read_text().count("\n") > 1:
                    raise LOST[what]()
                return train(*arguments)

            return Future(result)

    monkeypatch.setattr(dask.distributed, "Client", lambda *_, **__: Lossy())
    monkeypatch.setattr(dask.distributed, "as_completed", list)
    assert paper(tmp_path, "fig7", "--only", 100, 200, "--dask", NOWHERE) == 2
    assert capsys.readouterr().err.startswith("python -m ncutils paper: dask")
    assert [row["setting"] for row in table(csvs(tmp_path)[0])] == ["100"]


def test_an_address_without_a_scheduler_is_a_message(monkeypatch, tmp_path, capsys):
    client = dask.distributed.Client
    quick = lambda address, timeout: client(address, timeout=0.5)
    monkeypatch.setattr(dask.distributed, "Client", quick)
    for address in (NOWHERE, "nowhere"):
        assert paper(tmp_path, "fig7", "--only", 100, "--dask", address) == 2
        assert f"dask = '{address}': no scheduler answers there" in capsys.readouterr().err


def test_a_scheduler_without_workers_is_a_message(monkeypatch, tmp_path, capsys):
    asked = []

    class Idle(Client):
        def wait_for_workers(self, number, timeout):
            asked.append((number, timeout))
            raise TimeoutError("Only 0/1 workers arrived")

        def close(self):
            asked.append("closed")

    monkeypatch.setattr(dask.distributed, "Client", lambda *_, **__: Idle())
    assert paper(tmp_path, "fig7", "--only", 100, "--dask", NOWHERE) == 2
    said = f"python -m ncutils paper: dask = '{NOWHERE}': the scheduler has no worker\n"
    assert capsys.readouterr().err == said
    assert asked == [(1, 20), "closed"] and table(csvs(tmp_path)[0]) == []


def test_without_the_package_the_message_says_how_to_get_it(monkeypatch, tmp_path, capsys):
    monkeypatch.setitem(sys.modules, "dask.distributed", None)
    assert paper(tmp_path, "fig7", "--only", 100, "--dask", NOWHERE) == 2
    assert "pip install -e '.[cluster]' in the checkout" in capsys.readouterr().err


@pytest.mark.parametrize("locked", [True, False])
def test_two_threads_of_a_worker_give_what_each_gives_alone(monkeypatch, tmp_path, locked):
    """The first starts the second between its seed and its start. Without the lock, the second
    seeds too, and both differ.
    """
    tasks, names = [[(100, 31)], [(100, 32)]], [n for n in stored.COLUMNS if n not in VARIES]
    by_one, plan = (small(tmp_path / name, values=(100,)) for name in ("one", "two"))
    expected = [task.train(by_one, settings, False) for settings in tasks]
    found, second_seeded, first_done, order = {}, threading.Event(), threading.Event(), []
    reset = torch.nn.Linear.reset_parameters

    def work(i):
        found[i] = on_cluster.train_alone(plan, tasks[i], False)

    second = threading.Thread(target=work, args=(1,))

    def seeded(layer):
        seed, here = torch.initial_seed(), threading.current_thread() is second
        if seed == 31 + here and here not in order:  # the first layer after the task's seed
            order.append(here)
            if here:
                second_seeded.set()
                first_done.wait(60)
            else:
                second.start()
                second_seeded.wait(1 if locked else 60)  # with the lock, in vain
        reset(layer)

    monkeypatch.setattr(torch.nn.Linear, "reset_parameters", seeded)
    if not locked:
        monkeypatch.setattr(on_cluster, "_ALONE", contextlib.nullcontext())
    work(0)
    first_done.set()
    second.join()
    assert order == [False, True]
    for i in range(2):
        (row,), (known,) = found[i][0], expected[i][0]
        assert ([row[name] for name in names] == [known[name] for name in names]) is locked
