"""Running a plan: what is not finished, one task after the other or on a cluster; an estimate of
the time.
"""

import math
import warnings

import numpy as np

from .._device import pick_device
from ..data import load_images
from ..training.network import train_network
from ..training.networks import build
from ..ufm import UFM
from .cluster import train_on_cluster
from .provenance import commit
from .results import Results
from .settings import LAM_B
from .task import checkpoint, train


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
        done = wanted - sum(map(len, tasks))
        if done:
            say(f"{done} of {wanted} results are in {results.path} already")
        trained = (
            train_on_cluster(dask, plan, tasks) if dask else _train_here(plan, tasks, progress)
        )
        for task, rows in trained:
            results.add(*rows)
            _remove_checkpoint(plan, task)
            for row in rows[0]:
                done += 1
                setting = f"{plan.experiment.x} = {row['setting']}, seed {row['seed']}"
                say(f"[{done}/{wanted}] {setting}: {_told(plan, row)}")
        return results.path


def _train_here(plan, tasks, progress):
    for task in tasks:
        yield task, train(plan, task, progress)


def _remove_checkpoint(plan, task):
    """A task's checkpoint, and what a kill cut of it."""
    file = checkpoint(plan, task)
    for left in file.parent.glob(f"{file.name}*"):
        left.unlink(missing_ok=True)


def _told(plan, row):
    if row["status"] != "done":
        return row["status"]
    gap, seconds = float(row[f"gap_{plan.features}"]), float(row["seconds"])
    return f"relative gap {gap:.1e}, {seconds:.0f} s"


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
            [UFM.from_lam_z(sizes, 1e-3, LAM_B)] * members,
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
