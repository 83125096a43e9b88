"""Running a plan: tasks one after the other, or on a Dask cluster; an estimate of the time."""

import math
import threading
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np

from .._device import pick_device
from ..data import load_images
from ..training.network import train_network
from ..training.networks import build
from ..ufm import UFM
from .results import Results
from .task import checkpoint, commit, train


def run(plan, dask=None, progress=None, say=print):
    """Train what is not finished of a plan, one task after the other or on the Dask cluster at
    address `dask`.

    Every result is written when it comes. Returns the path of the results. Raises RuntimeError
    where another process is at the same file.
    """
    commit()
    if not dask:
        pick_device(plan.device)
    _, skipped = plan.settings()
    for value, reason in skipped.items():
        say(f"skipped: {plan.experiment.x} = {value} ({reason})")
    if plan.tasks():  # pool and network fit the images, before a folder is made
        images, _ = load_images(plan.data, [1] * 10, pool=plan.pool)
        build(plan.network, images.shape[1:], plan.features)
    with Results(plan) as results:
        tasks, wanted = plan.tasks(results.finished()), sum(map(len, plan.tasks()))
        if kept := wanted - sum(map(len, tasks)):
            say(f"{kept} of {wanted} results are in {results.path} already")
        done = kept
        for task, rows in _by_dask(dask, plan, tasks) if dask else _here(plan, tasks, progress):
            results.add(*rows)
            for left in checkpoint(plan, task).parent.glob(
                checkpoint(plan, task).name + "*"
            ):  # and what a kill cut
                left.unlink(missing_ok=True)
            for row in rows[0]:
                done += 1
                told = (
                    row["status"]
                    if row["status"] != "done"
                    else (
                        f"relative gap {float(row[f'gap_{plan.features}']):.1e}, {float(row['seconds']):.0f} s"
                    )
                )
                say(
                    f"[{done}/{wanted}] {plan.experiment.x} = {row['setting']}, seed {row['seed']}: {told}"
                )
        return results.path


def _here(plan, tasks, progress):
    for task in tasks:
        yield task, train(plan, task, progress)


_ALONE = threading.Lock()


def _train_alone(*arguments):
    """`train`, one at a time in a worker with several threads: the starts come from torch's
    generator, one a process.
    """
    with _ALONE:
        return train(*arguments)


def _by_dask(address, plan, tasks):
    try:
        from dask.distributed import CancelledError, Client, KilledWorker, as_completed
    except ImportError:
        raise ValueError(
            "dask needs the package distributed: pip install -e '.[cluster]' in the checkout, or leave it out"
        ) from None
    plan = replace(plan, out=str(Path(plan.out).resolve()))  # workers have another working folder
    try:
        client = Client(address, timeout=20)
    except (OSError, ValueError) as error:
        raise ValueError(f"dask = {address!r}: no scheduler answers there ({error})") from None
    with client:
        try:
            client.wait_for_workers(1, timeout=20)
        except TimeoutError:
            raise ValueError(f"dask = {address!r}: the scheduler has no worker") from None
        futures = {
            client.submit(
                _train_alone, plan, task, False, key=checkpoint(plan, task).stem, pure=False
            ): task
            for task in tasks
        }
        for future in as_completed(futures):
            try:
                rows = future.result()
            except (KilledWorker, CancelledError) as error:
                raise RuntimeError(f"dask: {error}; what is finished is kept") from None
            yield futures[future], rows


def estimate(plan):
    """Seconds that the plan's training would take on its device, all settings, from three timed
    epochs of two batches; without evaluation."""
    cost, total = {}, 0.0
    for task in plan.tasks():
        ufm = plan.ufm(task[0][0])
        if len(task) not in cost:
            cost[len(task)] = _seconds_per_step(plan, len(task))
        total += cost[len(task)] * math.ceil(ufm.num_samples / plan.batch_size) * plan.epochs
    return total


def _seconds_per_step(plan, members):
    sizes = [1] * 9 + [max(2 * plan.batch_size - 9, 1)]
    sizes[0] += (sum(sizes) - 1) % plan.batch_size == 0  # no batch of one image
    images, _ = load_images(plan.data, [2] * 10, pool=plan.pool)
    noise = np.random.default_rng(0).random((sum(sizes), *images.shape[1:]), dtype=np.float32)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        trained = train_network(
            build(plan.network, images.shape[1:], plan.features),
            noise,
            np.repeat(np.arange(10), sizes),
            [UFM.from_lam_z(sizes, 1e-3, 0.02)] * members,
            epochs=4,
            batch_size=plan.batch_size,
            lr=1e-6,
            device=plan.device,
            progress=False,
            recipe=plan.recipe,
            amp=False if plan.float32 else None,
            compiled=plan.compiled,
            record=[1, 4],
        )
    first, last = (row["seconds"] for row in trained.history)
    return (last - first) / 3 / math.ceil(sum(sizes) / plan.batch_size)
