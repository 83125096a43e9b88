"""The device that tensors live on, and the processor's name."""

import contextlib
import platform
from pathlib import Path

import torch

from ._checks import shown


def named_device(device):
    """`device`, None or a name, as None or a torch.device of type cpu or cuda, on this machine or
    another.
    """
    if device is None:
        return None
    try:
        device = torch.device(device if isinstance(device, (str, torch.device)) else "neither")
    except RuntimeError:
        raise ValueError(f"device = {shown(device)}: must be None, 'cpu' or 'cuda'") from None
    if device.type not in ("cpu", "cuda"):
        raise ValueError(f"device = {str(device)!r}: must be None, 'cpu' or 'cuda'")
    return device


def pick_device(device):
    """`device` as a torch.device of this machine; None means CUDA if present, else CPU."""
    device = named_device(device)
    if device is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if device.type == "cuda" and not torch.cuda.is_available():
        raise ValueError(
            f"device = {str(device)!r}: must be None, 'cpu' or, where there is a GPU, 'cuda'"
        )
    return device


def processor():
    """The name of the processor."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":")[1].strip()
    return platform.processor() or platform.machine()
