"""Training networks on images with the UFM's penalties: ensembles, two recipes, checkpoints."""

import contextlib
import copy
import math
import os
import sys
import time
import warnings
from pathlib import Path

import numpy as np
import torch
from torch import nn
from tqdm import tqdm

from .._checks import (
    array_of,
    check_array,
    check_choice,
    check_integer,
    check_labels,
    check_positive,
    real_number,
    shown,
)
from .._device import pick_device
from ..exact.convex import FEATURES
from .checkpoint import _fingerprint, _load, _save
from .ensemble import _One, _Stack
from .free_features import geometric_grid
from .model import Trained, TrainedModel, problems, solutions
from .recipes import RECIPES


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


def uses_bfloat16(device):
    """Whether networks train in bfloat16 on this torch.device unless told otherwise."""
    return device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)


@contextlib.contextmanager
def _own_modes():
    """No inference mode, no_grad or autocast of the caller's, all of which are of this thread only
    and come back after.

    The default dtype is of the whole process, so it is not touched: every tensor here is made with
    a dtype of its own.
    """
    off = [torch.amp.autocast(kind, enabled=False) for kind in ("cpu", "cuda")]
    with torch.inference_mode(False), torch.enable_grad(), off[0], off[1]:
        yield


@_own_modes()
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
    `TrainedModel.measures`, "gap" being that of `features`. A member that diverges is named in a warning
    and in its model's `diverged`, has NaN from then on, and the others go on; if all do, `Diverged`, a
    FloatingPointError. Raises ValueError where an argument is not allowed, before any work, and
    `OtherRun` where the checkpoint is not of this run. Source: ours; recipe "authors" after the
    paper's code.

    >>> from ncutils import MLP, UFM, load_images, train_network
    >>> images, labels = load_images("digits", class_sizes=[20, 20, 10])
    >>> ufm = UFM.from_lam_z([20, 20, 10], lam_z=0.01)
    >>> model = MLP((1, 8, 8), widths=(16,), dim=4)
    >>> trained = train_network(model, images, labels, ufm, epochs=20, progress=False)
    >>> trained.gaps.shape, bool(trained.gaps[0] > 0)  # the exact optimum is a bound
    ((1,), True)
    """
    ufms = problems(ufms)
    images = _checked_images(images)
    K, N, E = ufms[0].num_classes, len(images), len(ufms)
    labels = check_labels(labels, N, K)
    sizes = tuple(np.bincount(labels).tolist())
    for ufm in ufms:
        if sizes != ufm.class_sizes:
            raise ValueError(
                f"ufms: class sizes {ufm.class_sizes} differ from those of labels, {sizes}"
            )
    features = _checked_model(model, images, K, features)
    epochs, batch_size = (
        check_integer("epochs", epochs, 1),
        check_integer("batch_size", batch_size, 1),
    )
    if (N - 1) % batch_size == 0 and any(
        isinstance(m, nn.modules.batchnorm._BatchNorm) for m in model.modules()
    ):
        raise ValueError(
            f"batch_size = {batch_size}: leaves a batch of one of {N} images, which has no batch statistics"
        )
    way = RECIPES[check_choice("recipe", recipe, tuple(RECIPES))]
    lr, device = way.lr if lr is None else check_positive("lr", lr), pick_device(device)
    seeds = _checked_seeds(seed, E)  # of each member, or the one of all
    weight_decay = (
        0.0 if real_number(weight_decay) == 0 else check_positive("weight_decay", weight_decay)
    )
    checkpoint_seconds = (
        0.0
        if real_number(checkpoint_seconds) == 0
        else check_positive("checkpoint_seconds", checkpoint_seconds)
    )
    (
        check_choice("warm_start", warm_start, (False, True)),
        check_choice("progress", progress, (None, False, True)),
    )
    check_choice("compiled", compiled, (False, True)), check_choice("amp", amp, (None, False, True))
    try:
        record = geometric_grid(epochs) if record is None else list(record)
    except Exception:  # what iterates may raise anything
        raise ValueError(f"record = {shown(record)}: must be a list of epochs, or None") from None
    grid = {check_integer("record", epoch, 1) for epoch in record} | {epochs}
    if not isinstance(checkpoint, (str, os.PathLike, type(None))):
        raise ValueError(f"checkpoint = {shown(checkpoint)}: must be a file, or None")
    if checkpoint is not None and Path(checkpoint).is_dir():
        raise ValueError(f"checkpoint = {str(checkpoint)!r}: is a folder, must be a file")
    amp = uses_bfloat16(device) if amp is None else bool(amp)
    exact = {kind: solutions(ufms, kind) for kind in FEATURES}

    # Data live on the device.
    x = way.scale(torch.tensor(np.ascontiguousarray(images), device=device).float())
    y = torch.tensor(labels.astype(np.int64), device=device)
    member = lambda name: torch.tensor(
        [getattr(u, name) for u in ufms], dtype=torch.float32, device=device
    )
    lam_w, lam_h, lam_b = member("lam_w"), member("lam_h"), member("lam_b")
    has_bias = torch.isfinite(lam_b).float()
    class_weights = torch.tensor(
        np.stack([u.weights for u in ufms]), dtype=torch.float32, device=device
    )  # (E, K)
    lam_b = torch.where(torch.isfinite(lam_b), lam_b, 0.0)

    copies, W, b = _starts(model, way, K, seeds, E)
    net = (_One if E == 1 else _Stack)(copies, device, compiled)
    W, b = (part.to(device).requires_grad_() for part in (W, b))
    if net.channels_last:
        x = x.to(memory_format=torch.channels_last)
    optimizer = way.optimizer(
        [{"params": net.parameters, "weight_decay": weight_decay}, {"params": [W, b]}], lr
    )
    orders = {
        s: torch.Generator().manual_seed(s) for s in seeds
    }  # one for all members if they have one seed

    @torch.no_grad()
    def snapshot():
        net.body.eval()
        cudnn = (
            torch.backends.cudnn
        )  # of a GPU: float32, where convolutions would be rounded to 10 bits
        with cudnn.flags(
            enabled=True,
            benchmark=cudnn.benchmark,
            deterministic=cudnn.deterministic,
            allow_tf32=False,
        ):
            H = torch.cat([net.forward(part) for part in x.split(512)], 1)  # (E, N, d)
        net.body.train()
        to_numpy = lambda tensor: tensor.double().cpu().numpy()
        W_now, b_now, H = to_numpy(W), to_numpy(b * has_bias[:, None]), to_numpy(H).mT
        return [
            TrainedModel(
                ufm,
                b_now[e],
                H[e],
                labels,
                exact[features][e],
                start[e] if start else H[e],
                W_now[e],
                diverged.get(e),
            )
            for e, ufm in enumerate(ufms)
        ]

    def measured(now):
        rows = []
        for e in range(E):
            row = (
                now[e].measures({kind: exact[kind][e] for kind in FEATURES})
                if e not in diverged
                else {}
            )
            rows.append(row | {"gap": row.get(f"gap_{features}", math.nan)})
        names = next((row for row in rows if len(row) > 1), rows[0])
        return {name: np.array([row.get(name, math.nan) for row in rows]) for name in names}

    start, history, diverged, done, seconds = [], [], {}, 0, 0.0
    first = snapshot()
    start = [model.features for model in first]
    if features == "relu" and any((H < 0).any() for H in start):
        raise ValueError("features = 'relu', but the model gives negative ones: must be 'linear'")
    limits = 100 * np.maximum(math.log(K), [model.objective for model in first])
    network = repr(model) + "".join(
        f"; frozen {name}" for name, p in model.named_parameters() if not p.requires_grad
    )
    run = _fingerprint(
        images,
        labels,
        ufms,
        seeds,
        network,
        epochs,
        batch_size,
        lr,
        warm_start,
        recipe,
        weight_decay,
        amp,
        features,
        sorted(grid),
    )
    if checkpoint is not None and (saved := _load(Path(checkpoint), run)):
        net.load(saved["network"])
        with torch.no_grad():
            W.copy_(saved["W"]), b.copy_(saved["b"])
        optimizer.load_state_dict(saved["optimizer"])
        for generator, state in zip(orders.values(), saved["orders"]):
            generator.set_state(state)
        history = [
            {
                name: np.array(value) if isinstance(value, list) else value
                for name, value in row.items()
            }
            for row in saved["history"]
        ]
        diverged, done, seconds = saved["diverged"], saved["epoch"], saved["seconds"]
    batches = math.ceil(N / batch_size)
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    clock, saved_at, now = time.perf_counter(), time.perf_counter(), None
    bar = tqdm(
        range(done, epochs),
        desc="epochs",
        initial=done,
        total=epochs,
        disable=None if progress is None else not progress,
    )
    for epoch in bar:
        ease, ease_b = way.ease(epoch, epochs) if warm_start else (1.0, 1.0)
        drawn = {
            s: torch.randperm(N, generator=generator, device="cpu")
            for s, generator in orders.items()
        }
        order = (drawn[seeds[0]] if len(drawn) == 1 else torch.stack([drawn[s] for s in seeds])).to(
            device
        )
        epoch_loss = torch.zeros(E, dtype=torch.float32, device=device)
        for step, batch in enumerate(
            order.split(min(batch_size, N), -1), start=1
        ):  # (B,), or (E, B): an order a member
            rate = lr * way.rate(epoch + step / batches, epochs, warm_start)
            for group in optimizer.param_groups:
                group["lr"] = rate
            with torch.autocast(device.type, torch.bfloat16, enabled=amp):
                H = net.forward(x[batch], own=batch.ndim == 2)  # (E, B, d)
            # weights in bfloat16: inside of another autocast, they would outlive the step
            torch.clear_autocast_cache()
            H = H.float()
            logits = H @ W.mT + (b * has_bias[:, None])[:, None, :]  # (E, B, K)
            true = y[batch].expand(E, -1)  # (E, B)
            loss = nn.functional.cross_entropy(logits.mT, true, reduction="none")
            loss = (class_weights.gather(1, true) * loss).mean(1)
            penalty = (
                lam_w * (W**2).sum((1, 2)) + lam_h * N / batch.shape[-1] * (H**2).sum((1, 2))
            ) / 2
            value = loss + ease * penalty + ease_b / 2 * lam_b * (b**2).sum(1)
            optimizer.zero_grad(set_to_none=True)
            value.sum().backward()  # members share no weight, so neither do gradients
            optimizer.step()
            epoch_loss += value.detach() * batch.shape[-1] / N
        losses = epoch_loss.tolist()  # waits for the device
        seconds += time.perf_counter() - clock
        now = snapshot() if epoch + 1 in grid else None
        if now is not None:  # the last step may have been the one too far
            losses = [
                loss
                if np.isfinite(model.features).all() and np.isfinite(model.classifier()).all()
                else math.nan
                for loss, model in zip(losses, now)
            ]
        _find_diverged(diverged, epoch + 1, losses, limits, ufms)
        if now is not None:
            history.append(
                {
                    "epoch": epoch + 1,
                    "seconds": seconds,
                    "peak_mib": _peak_mib(device),
                    **measured(now),
                }
            )
        clock = time.perf_counter()
        if checkpoint is not None and (
            epoch + 1 == epochs or clock - saved_at >= checkpoint_seconds
        ):
            plain = [
                {
                    name: value.tolist() if isinstance(value, np.ndarray) else value
                    for name, value in row.items()
                }
                for row in history
            ]
            _save(
                Path(checkpoint),
                {
                    "run": run,
                    "epoch": epoch + 1,
                    "seconds": seconds,
                    "network": net.state(),
                    "W": W.detach(),
                    "b": b.detach(),
                    "optimizer": optimizer.state_dict(),
                    "orders": [generator.get_state() for generator in orders.values()],
                    "history": plain,
                    "diverged": diverged,
                },
            )
            saved_at = time.perf_counter()
    return Trained(tuple(snapshot()), history)


def _checked_images(images):
    array = array_of(images, "u")
    if array is None or array.dtype != np.uint8:
        array = check_array("images", images, 4)
    elif array.ndim != 4 or array.size == 0:
        raise ValueError(f"images has shape {array.shape}: must have 4 dimensions and no empty one")
    if array.min() == array.max():
        raise ValueError("images are all the same number: must vary")
    return array


def _checked_model(model, images, K, features):
    """The kind of the model's features, once it is seen to give d ≥ K of them for an image."""
    if not isinstance(model, nn.Module) or not hasattr(model, "dim"):
        raise ValueError(
            "model must be a torch module with an attribute dim, the number of its features"
        )
    dim = check_integer("model.dim", model.dim, at_least=K)
    if features is None:  # in other packages' models the name may stand for a part of the network
        features = model.features if isinstance(getattr(model, "features", None), str) else "linear"
    check_choice("features", features, FEATURES)
    for name, part in [*model.named_parameters(), *model.named_buffers()]:
        if nn.parameter.is_lazy(part):
            raise ValueError(
                f"model has {name!r}, which is lazy, so that its first call draws it, not the seed: must have "
                "a shape, which it gets by calling the model once"
            )
    float32 = {"dtype": torch.float32, "device": "cpu"}
    batch = torch.randn(
        32, *images.shape[1:], generator=torch.Generator("cpu").manual_seed(0), **float32
    )
    try:
        with torch.no_grad(), torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(
                0
            )  # not the caller's state, which must not decide what is found
            body = _drawn_anew(model)
            shape = tuple(body.eval()(torch.zeros(1, *images.shape[1:], **float32)).shape)
            one, other = body.train()(batch), body(batch)
            random = bool((one - other).abs().max() > 1e-5 * one.abs().max())  # more than rounding
    except Exception as error:  # a module of the user's may raise anything
        raise ValueError(
            f"images has shape {images.shape}, which model does not take: {error}"
        ) from None
    if shape != (1, dim):
        raise ValueError(
            f"model gives features of shape {shape} for one image: must be {(1, dim)}, as model.dim says"
        )
    for name, p in body.named_parameters():
        if p.requires_grad and p.isnan().any():
            raise ValueError(
                f"model has {name!r}, which would start alike for every seed: must be drawn by a method "
                "reset_parameters of its module, or be frozen (requires_grad=False)"
            )
    if random:
        raise ValueError(
            "model gives other features for the same images each time in train mode: must not be random, as by "
            "dropout or noise, which makes another objective of it"
        )
    return features


def _checked_seeds(seed, E):
    """A number, of all members together, or a list (E,) of their own."""
    if not isinstance(seed, (list, tuple, range)):
        seeds = [check_integer("seed", seed, 0)]
    elif len(seed) != E:
        raise ValueError(
            f"seed = {shown(seed)}: must be a whole number >= 0, or a list of {E}, one for each UFM"
        )
    else:
        seeds = [check_integer(f"seed[{e}]", s, 0) for e, s in enumerate(seed)]
    if max(seeds) >= 2**64:
        raise ValueError(f"seed = {max(seeds)}: must be below 2**64, as torch has it")
    return seeds


def _drawn_anew(model):
    """A copy in train mode, its parameters drawn from torch's generator; NaN where they are trained
    but not drawn.
    """
    body = copy.deepcopy(model).cpu().float().train()
    with torch.no_grad():
        for p in body.parameters():
            if p.requires_grad:
                p.fill_(math.nan)
    for module in body.modules():
        for name in ("reset_parameters", "_reset_parameters"):  # the second in torch's attention
            if hasattr(module, name):
                getattr(module, name)()
                break
    return body


def _starts(model, way, K, seeds, E):
    """Networks, W (E, K, d) and b (E, K), each initialised anew."""
    found = []
    with torch.random.fork_rng(devices=[]):
        for e in range(E):
            if e == 0 or len(seeds) > 1:  # the CPU's only, which fork_rng puts back
                torch.default_generator.manual_seed(seeds[e])
            body = _drawn_anew(model)
            found.append((body, *way.classifier(K, model.dim)))
    copies, W, b = zip(*found)
    return list(copies), torch.stack(W), torch.stack(b)


def _find_diverged(diverged, epoch, losses, limits, ufms):
    """Note members whose objective is above its limit; Diverged once all are."""
    new = {
        e: f"training diverged in epoch {epoch}: objective {loss:.3g} for {ufm}: try a smaller lr"
        for e, (loss, limit, ufm) in enumerate(zip(losses, limits, ufms))
        if e not in diverged and not loss <= limit
    }  # NaN too
    diverged.update(new)
    if len(diverged) == len(ufms):
        raise Diverged(diverged)
    for message in new.values():
        warnings.warn(f"{message}; the others go on", RuntimeWarning, stacklevel=4)


def _peak_mib(device):
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
