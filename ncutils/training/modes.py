"""The modes and the number format in which networks and UFMs train, whatever the caller's are."""

import contextlib

import torch


@contextlib.contextmanager
def own_modes():
    """No inference mode, no_grad or autocast of the caller's, all of which are of this thread only
    and come back after.

    The default dtype is of the whole process, so it is not touched: every tensor of the training is
    made with a dtype of its own.
    """
    off = [torch.amp.autocast(kind, enabled=False) for kind in ("cpu", "cuda")]
    with torch.inference_mode(False), torch.enable_grad(), off[0], off[1]:
        yield


def uses_bfloat16(device):
    """Whether networks train in bfloat16 on this torch.device unless told otherwise."""
    return device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
