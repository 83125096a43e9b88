"""Training networks on images with the UFM's penalties: ensembles, two recipes, checkpoints."""

import math
import time
import warnings
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from tqdm import tqdm

from ..exact.convex import FEATURES
from . import checkpoint as checkpoints
from .arguments import check_arguments
from .ensemble import One, Stack, starts
from .model import Trained, solutions
from .modes import own_modes
from .objective import Penalties, objective, penalties
from .record import evaluate, measured


class Diverged(FloatingPointError):
    """All networks of an ensemble have diverged; `members` is {member: message}, message naming
    epoch and objective.

    Raised by `train_network`.

    >>> from ncutils.training import Diverged
    >>> str(Diverged({0: "training diverged in epoch 3"}))
    'training diverged in epoch 3'
    """

    def __init__(self, members):
        super().__init__(members)
        self.members = members

    def __str__(self):
        return "; ".join(self.members.values())


@own_modes()
def train_network(
    model,
    images,
    labels,
    ufms,
    epochs=150,
    batch_size=128,
    lr=None,
    warm_start=True,
    seed=0,
    device=None,
    progress=None,
    features=None,
    recipe="fast",
    weight_decay=0.0,
    amp=None,
    compiled=False,
    checkpoint=None,
    checkpoint_seconds=30.0,
    record=None,
):
    """Train one network for each UFM, with its penalties, as one program.

    Member e minimises the objective of `ufms[e]` over the weights of the network, the last features
    h being the network's output on the images: penalties on last features, W and b only. With
    `warm_start`, penalties of a tenth for the first sixth of the epochs, without which a network
    may stay at Z = 0. Weights are float32; objective and metrics are evaluated in float64 from
    features of the network in evaluation mode (running statistics in batch norm).

    Parameters
    ----------
    model : a module from images (N, C, H, W) to features (N, d), with an attribute `dim` = d ≥ K.
        It is copied and initialised anew for each member by the `reset_parameters` of its modules,
        not changed. Frozen parameters (requires_grad=False) are not trained. Refused: a parameter
        that is trained but not initialised anew, and randomness in train mode, such as dropout.
    images : (N, C, H, W), real numbers or uint8.
    labels : (N,), with n_k of class k.
    ufms : a UFM or a list of them, all with the class sizes of `labels`.
    epochs, batch_size : each step takes the mean over its batch, so samples of a smaller last one
        count more in it, as in the authors' code.
    lr : largest learning rate; None means that of the recipe.
    seed : of the initial weights and the order of images. A number: members differ in their initial
        weights and share the order. A list (E,): member e is what it would be alone with seed[e],
        up to rounding.
    device : None means CUDA if present, else CPU.
    progress : bar on stderr; None means if a terminal.
    features : the kind of the model's features, "linear" or "relu", that is, which exact optimum it
        is compared with; None means what model.features says, or "linear" if it does not: a bound
        for every model.
    recipe : "fast", Adam with warm-up and cosine, or "authors", SGD with momentum and their steps
        (`recipes`).
    weight_decay : of the weights of the network, not of W and b, whose penalties the UFM names.
    amp : bfloat16 in the network while it trains; None means on a GPU that has it.
    compiled : compile the network by torch.compile.
    checkpoint, checkpoint_seconds : file to go on from where it exists, and to write at the end of
        an epoch once that many seconds have passed since the last time.
    record : epochs to record; None means a geometric grid.

    Returns `Trained`; its history has "epoch", "seconds" (of training, since its start, checkpoints
    included), "peak_mib" (of the GPU's memory, or the process's) and arrays (E,) of all
    `TrainedModel.measures`, "gap" being that of `features`. A member that diverges is named in a
    warning, says so in `diverged`, has NaN from then on, and the others go on; if all do,
    `Diverged`, a FloatingPointError. Raises ValueError where an argument is not allowed, before any
    work, and `OtherRun` where the checkpoint is not of this run. Source: ours; recipe "authors"
    after the paper's code.

    >>> from ncutils import MLP, UFM, load_images, train_network
    >>> images, labels = load_images("digits", class_sizes=[20, 20, 10])
    >>> ufm = UFM.from_lam_z([20, 20, 10], lam_z=0.01)
    >>> model = MLP((1, 8, 8), widths=(16,), dim=4)
    >>> trained = train_network(model, images, labels, ufm, epochs=20, progress=False)
    >>> trained.gaps.shape, bool(trained.gaps[0] > 0)  # the exact optimum is a bound
    ((1,), True)
    """
    s = check_arguments(**locals())
    exact = {kind: solutions(s.ufms, kind) for kind in FEATURES}
    run = prepare(s)
    start = evaluate(run, s, exact)
    if s.features == "relu" and any((model.features < 0).any() for model in start):
        raise ValueError("features = 'relu', but the model gives negative ones: must be 'linear'")
    limits = [100 * max(math.log(run.W.shape[1]), model.objective) for model in start]
    if s.checkpoint is not None:
        known = checkpoints.fingerprint(s)
        checkpoints.restore(s.checkpoint, known, run)

    models, clock = None, time.perf_counter()
    saved = clock
    for epoch in bar(run.done, s):
        losses = train_epoch(epoch, run, s)
        run.done, run.seconds = epoch + 1, run.seconds + time.perf_counter() - clock
        models = evaluate(run, s, exact, start) if run.done in s.record else None
        find_diverged(run.diverged, run.done, losses, models, limits, s.ufms)
        if models is not None:
            run.history.append(measured(models, run, s, exact))
        clock = time.perf_counter()
        due = run.done == s.epochs or clock - saved >= s.checkpoint_seconds
        if s.checkpoint is not None and due:
            checkpoints.save(s.checkpoint, known, run)
            saved = time.perf_counter()
    models = models or evaluate(run, s, exact, start)  # a complete run has nothing left to train
    ends = (replace(model, diverged=run.diverged.get(e)) for e, model in enumerate(models))
    return Trained(tuple(ends), run.history)


@dataclass
class Run:
    """Networks in training, as they stand after `done` epochs."""

    x: torch.Tensor  # images (N, C, H, W), normalised, on the device
    y: torch.Tensor  # labels (N,)
    lam: Penalties
    class_weights: torch.Tensor  # (E, K)
    net: One | Stack
    W: torch.Tensor  # (E, K, d)
    b: torch.Tensor  # (E, K)
    optimizer: torch.optim.Optimizer
    orders: dict  # {seed: generator of the order of images}, one for all members of one seed
    history: list = field(default_factory=list)
    diverged: dict = field(default_factory=dict)  # {member: message}
    done: int = 0
    seconds: float = 0.0

    @property
    def bias(self):
        """b (E, K), 0 where a problem has none."""
        return self.b * self.lam.has_bias[:, None]


def prepare(s):
    """The `Run` of these `Settings` at its start: the data live on the device."""
    E, K, device = len(s.ufms), s.ufms[0].num_classes, s.device
    x = s.way.scale(torch.tensor(np.ascontiguousarray(s.images), device=device).float())
    y = torch.tensor(s.labels.astype(np.int64), device=device)
    weights = np.stack([ufm.weights for ufm in s.ufms])
    copies, W, b = starts(s.model, s.way.classifier, K, s.seeds, E)
    net = (One if E == 1 else Stack)(copies, device, s.compiled)
    W, b = (part.to(device).requires_grad_() for part in (W, b))
    if net.channels_last:
        x = x.to(memory_format=torch.channels_last)
    groups = [{"params": net.parameters, "weight_decay": s.weight_decay}, {"params": [W, b]}]
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    return Run(
        x,
        y,
        penalties(s.ufms, torch.float32, device),
        torch.tensor(weights, dtype=torch.float32, device=device),
        net,
        W,
        b,
        s.way.optimizer(groups, s.lr),
        {seed: torch.Generator().manual_seed(seed) for seed in s.seeds},
    )


def bar(done, s):
    """The epochs that are left, with a bar of progress."""
    hidden = None if s.progress is None else not s.progress
    return tqdm(range(done, s.epochs), desc="epochs", initial=done, total=s.epochs, disable=hidden)


def train_epoch(epoch, run, s):
    """One pass over the images. Returns the mean objectives of its batches, a list (E,)."""
    ease = s.way.ease(epoch, s.epochs) if s.warm_start else (1.0, 1.0)
    total = torch.zeros(len(s.ufms), dtype=torch.float32, device=s.device)
    batches = drawn_order(run, s).split(min(s.batch_size, len(run.y)), -1)
    for step, batch in enumerate(batches, start=1):
        rate = s.lr * s.way.rate(epoch + step / len(batches), s.epochs, s.warm_start)
        for group in run.optimizer.param_groups:
            group["lr"] = rate
        total += train_step(batch, ease, run, s) * batch.shape[-1] / len(run.y)
    return total.tolist()  # waits for the device


def drawn_order(run, s):
    """A new order of the images (N,), or one for each member (E, N)."""
    drawn = {
        seed: torch.randperm(len(run.y), generator=generator, device="cpu")
        for seed, generator in run.orders.items()
    }
    one = len(drawn) == 1
    return (drawn[s.seeds[0]] if one else torch.stack([drawn[n] for n in s.seeds])).to(s.device)


def train_step(batch, ease, run, s):
    """One step on the images of a `batch`, indices (B,), or (E, B) where members have their own.
    Returns the objectives (E,) before it.
    """
    B, N = batch.shape[-1], len(run.y)
    with torch.autocast(s.device.type, torch.bfloat16, enabled=s.amp):
        H = run.net.forward(run.x[batch], own=batch.ndim == 2)  # (E, B, d)
    # weights in bfloat16: inside of another autocast, they would outlive the step
    torch.clear_autocast_cache()
    H = H.float()
    logits = H @ run.W.mT + run.bias[:, None, :]  # (E, B, K)
    labels = run.y[batch].expand(len(H), -1)  # (E, B)
    weights = run.class_weights.gather(1, labels)
    lam = run.lam._replace(lam_h=run.lam.lam_h * N / B)
    values = objective(logits.mT, labels, weights, B, run.W, H, run.b, lam, ease)
    run.optimizer.zero_grad(set_to_none=True)
    values.sum().backward()  # members share no weight, so neither do gradients
    run.optimizer.step()
    return values.detach()


def find_diverged(diverged, epoch, losses, models, limits, ufms):
    """Note members whose objective is above its limit, or whose last step was the one too far;
    `Diverged` once all are.
    """
    finite = lambda model: (
        np.isfinite(model.features).all() and np.isfinite(model.classifier()).all()
    )
    if models is not None:
        losses = [loss if finite(one) else math.nan for loss, one in zip(losses, models)]
    new = {
        e: f"training diverged in epoch {epoch}: objective {loss:.3g} for {ufm}: try a smaller lr"
        for e, (loss, limit, ufm) in enumerate(zip(losses, limits, ufms))
        if e not in diverged and not loss <= limit  # NaN too
    }
    diverged.update(new)
    if len(diverged) == len(ufms):
        raise Diverged(diverged)
    for message in new.values():
        warnings.warn(f"{message}; the others go on", RuntimeWarning, stacklevel=4)
