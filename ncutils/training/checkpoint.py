"""Checkpoints: a run that goes on where it was stopped, or says that it is another one."""

import hashlib
import io
import warnings

import torch

from .._files import write


class OtherRun(ValueError):
    """A checkpoint is of another run: its settings, images or network differ. Raised by
    `train_network`.

    >>> from ncutils.training import OtherRun
    >>> issubclass(OtherRun, ValueError)
    True
    """


def _fingerprint(images, labels, *settings):
    """What a run is: a checkpoint with another one is not of this run. A model is known by its
    repr.
    """
    digest = hashlib.sha256(repr((images.shape, images.dtype, settings)).encode())
    digest.update(images.tobytes())
    digest.update(labels.tobytes())
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


def _save(path, state):
    """Write a checkpoint, whole or not at all."""
    content = (
        io.BytesIO()
    )  # torch.save into a file on a full disk raises an error that names neither
    torch.save(state, content)
    write(path, content.getbuffer())


def _load(path, run):
    """The state of a checkpoint of this run, None where there is none. It holds tensors and plain
    values only.
    """
    if not path.exists():
        return None
    content = io.BytesIO(path.read_bytes())  # an error of the disk is raised: the file may be good
    try:
        state = torch.load(content, map_location="cpu", weights_only=True)
        known = state["run"]
        state = {name: state[name] for name in STATE}
    except Exception as error:  # whatever the file holds, it is no checkpoint
        warnings.warn(
            f"checkpoint {path} cannot be read ({error!r:.200}): training starts anew",
            RuntimeWarning,
            stacklevel=4,
        )
        return None
    if known != run:
        raise OtherRun(
            f"checkpoint = {str(path)!r}: is of another run (settings or images differ); name another or delete it"
        )
    return state
