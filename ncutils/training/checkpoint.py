"""Checkpoints: a run that goes on where it was stopped, or says that it is another one."""

import hashlib
import io
import warnings

import numpy as np
import torch

from .._files import write


class OtherRun(ValueError):
    """A checkpoint is of another run: its settings, images or network differ. Raised by
    `train_network`.

    >>> from ncutils.training import OtherRun
    >>> issubclass(OtherRun, ValueError)
    True
    """


def fingerprint(settings):
    """What a run is: a checkpoint with another one is not of this run. A model is known by its
    repr and by what is frozen.
    """
    s, parameters = settings, settings.model.named_parameters()
    frozen = "".join(f"; frozen {name}" for name, p in parameters if not p.requires_grad)
    known = (
        s.ufms,
        s.seeds,
        repr(s.model) + frozen,
        s.epochs,
        s.batch_size,
        s.lr,
        s.warm_start,
        s.recipe,
        s.weight_decay,
        s.amp,
        s.features,
        s.record,
    )
    digest = hashlib.sha256(repr((s.images.shape, s.images.dtype, known)).encode())
    digest.update(s.images.tobytes())
    digest.update(s.labels.tobytes())
    return digest.hexdigest()


STATE = (
    "run",
    "epoch",
    "seconds",
    "network",
    "W",
    "b",
    "optimizer",
    "orders",
    "history",
    "diverged",
)


def save(path, known, run):
    """Write the checkpoint of a `Run` whose fingerprint is `known`."""
    plain = lambda value: value.tolist() if isinstance(value, np.ndarray) else value
    state = {
        "run": known,
        "epoch": run.done,
        "seconds": run.seconds,
        "network": run.net.state(),
        "W": run.W.detach(),
        "b": run.b.detach(),
        "optimizer": run.optimizer.state_dict(),
        "orders": [generator.get_state() for generator in run.orders.values()],
        "history": [{name: plain(value) for name, value in row.items()} for row in run.history],
        "diverged": run.diverged,
    }
    write_state(path, state)


def restore(path, known, run):
    """Bring a `Run` whose fingerprint is `known` to where its checkpoint is, if there is one."""
    state = read_state(path, known)
    if state is None:
        return
    run.net.load(state["network"])
    with torch.no_grad():
        run.W.copy_(state["W"]), run.b.copy_(state["b"])
    run.optimizer.load_state_dict(state["optimizer"])
    for generator, order in zip(run.orders.values(), state["orders"]):
        generator.set_state(order)
    array = lambda value: np.array(value) if isinstance(value, list) else value
    run.history = [{name: array(value) for name, value in row.items()} for row in state["history"]]
    run.diverged, run.done, run.seconds = state["diverged"], state["epoch"], state["seconds"]


def write_state(path, state):
    """Write a checkpoint, whole or not at all."""
    content = io.BytesIO()  # on a full disk torch.save names neither the disk nor the file
    torch.save(state, content)
    write(path, content.getbuffer())


def read_state(path, known):
    """The state of a checkpoint with this fingerprint, None where there is none. It holds tensors
    and plain values only.
    """
    if not path.exists():
        return None
    content = io.BytesIO(path.read_bytes())  # an error of the disk is raised: the file may be good
    try:
        state = torch.load(content, map_location="cpu", weights_only=True)
        found = state["run"]
        state = {name: state[name] for name in STATE}
    except Exception as error:  # whatever the file holds, it is no checkpoint
        warnings.warn(
            f"checkpoint {path} cannot be read ({error!r:.200}): training starts anew",
            RuntimeWarning,
            stacklevel=5,
        )
        return None
    if found != known:
        raise OtherRun(
            f"checkpoint = {str(path)!r}: is of another run (settings or images differ); name "
            "another or delete it"
        )
    return state
