"""What is recorded of networks in training: the models as they are, and a row of the history."""

import math
import sys

import numpy as np
import torch

from ..exact.convex import FEATURES
from .model import TrainedModel


@torch.no_grad()
def evaluate(run, s, exact, start=None):
    """The models as they are now, in evaluation mode; `start` are those before training."""
    run.net.body.eval()
    cudnn = torch.backends.cudnn  # on a GPU: float32, where convolutions would round to 10 bits
    with cudnn.flags(
        enabled=True, benchmark=cudnn.benchmark, deterministic=cudnn.deterministic, allow_tf32=False
    ):
        H = torch.cat([run.net.forward(part) for part in run.x.split(512)], 1)  # (E, N, d)
    run.net.body.train()
    W, b, H = (part.double().cpu().numpy() for part in (run.W, run.bias, H))
    return [
        TrainedModel(
            ufm=ufm,
            bias=b[e],
            features=H[e].T,
            labels=s.labels,
            exact=exact[s.features][e],
            start=H[e].T if start is None else start[e].features,
            _classifier=W[e],
        )
        for e, ufm in enumerate(s.ufms)
    ]


def measured(models, run, s, exact):
    """One row of the history, NaN for members that have diverged."""
    rows = []
    for e, model in enumerate(models):
        optima = {kind: exact[kind][e] for kind in FEATURES}
        row = {} if e in run.diverged else model.measures(optima)
        rows.append(row | {"gap": row.get(f"gap_{s.features}", math.nan)})
    names = next((row for row in rows if len(row) > 1), rows[0])
    found = {name: np.array([row.get(name, math.nan) for row in rows]) for name in names}
    known = {"epoch": run.done, "seconds": run.seconds, "peak_mib": peak_mib(s.device)}
    return known | found


def peak_mib(device):
    """Most memory used so far, in MiB: of the GPU in this training, or of this process in its whole
    life.
    """
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    try:
        import resource
    except ImportError:  # Windows
        return math.nan
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (
        2**10 if sys.platform != "darwin" else 2**20
    )
