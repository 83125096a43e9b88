"""The tasks of a plan on a Dask cluster."""

import threading
from dataclasses import replace
from pathlib import Path

from .task import checkpoint, train

_ALONE = threading.Lock()


def train_alone(*arguments):
    """`train`, one at a time in a worker with several threads: the starts come from torch's
    generator, one a process.
    """
    with _ALONE:
        return train(*arguments)


def train_on_cluster(address, plan, tasks):
    """Each task with its rows when they come, trained by the workers of the scheduler at `address`.

    Raises ValueError where the package distributed, the scheduler or a worker is missing,
    RuntimeError where the cluster is lost.
    """
    try:
        from dask.distributed import CancelledError, KilledWorker, as_completed
    except ImportError:
        raise ValueError(
            "dask needs the package distributed: pip install -e '.[cluster]' in the checkout, "
            "or leave it out"
        ) from None
    plan = replace(plan, out=str(Path(plan.out).resolve()))  # workers have another working folder
    with _client(address) as client:
        futures = {
            client.submit(
                train_alone, plan, task, False, key=checkpoint(plan, task).stem, pure=False
            ): task
            for task in tasks
        }
        for future in as_completed(futures):
            try:
                rows = future.result()
            except (KilledWorker, CancelledError) as error:
                raise RuntimeError(f"dask: {error}; what is finished is kept") from None
            yield futures[future], rows


def _client(address):
    """A client of the scheduler at this address that has a worker, else ValueError."""
    from dask.distributed import Client

    try:
        client = Client(address, timeout=20)
    except (OSError, ValueError) as error:
        raise ValueError(f"dask = {address!r}: no scheduler answers there ({error})") from None
    try:
        client.wait_for_workers(1, timeout=20)
    except BaseException as error:
        client.close()
        if isinstance(error, TimeoutError):
            raise ValueError(f"dask = {address!r}: the scheduler has no worker") from None
        raise
    return client
