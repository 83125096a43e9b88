"""What a result was made with: hardware, versions, commit."""

import functools
import platform
import subprocess
from pathlib import Path

import numpy as np
import torch

from .._device import processor
from ..training.modes import uses_bfloat16


def hardware(device, float32=False):
    """Name of a torch.device's GPU and the number format of the network, or the processor's and its
    number of threads.
    """
    if device.type == "cuda":
        number = "bfloat16" if uses_bfloat16(device) and not float32 else "float32"
        return f"{torch.cuda.get_device_name(device)}, {number}"
    return f"{processor()}, {torch.get_num_threads()} threads"


def versions():
    """Of Python, torch and NumPy."""
    return f"python {platform.python_version()}, torch {torch.__version__}, numpy {np.__version__}"


@functools.cache  # of the start: files may change while a network trains
def commit():
    """Of the package's own checkout, "-dirty" where it was changed; "unknown" in a repository that
    it was only put into.
    """
    here = Path(__file__)
    path = "/".join(here.parts[-3:])  # from the folder that the package is in

    def git(*words):
        return subprocess.run(
            ["git", *words], cwd=here.parent, capture_output=True, text=True, check=True
        ).stdout.strip()

    try:
        # The path from the root of the repository, if it is tracked: a copy in somebody's
        # repository lies deeper, or is not.
        if git("ls-files", "--full-name", "--error-unmatch", here.name) != path:
            return "unknown"
        return git("describe", "--always", "--dirty", "--abbrev=12", "--exclude", "*")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
