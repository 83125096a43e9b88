"""Training: UFMs from random starts, and networks on images with the UFM's penalties."""

import copy
import math
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import nn
from tqdm import tqdm

from . import metrics
from .convex import solve
from .device import pick_device
from .ufm import UFM, choice, positive, real_array, whole


@dataclass(frozen=True)
class Trained:
    """A batch of trained models, member e for problem `ufms[e]`.

    Attributes
    ----------
    ufms : the problems.
    classifiers : W (E, K, d).   biases : b (E, K).
    features : list of H (d, N_e), columns in the order of `labels[e]`.   labels : list of (N_e,).
    history : list of dicts, one per recorded moment, with "iteration" or "epoch" and arrays (E,):
        "objective", "gap" (relative, against the exact optimum), "nc1", "trace_ratio".
    exact : list of exact `Solution`s, of (CVX) or, for nonnegative features, of (CVX+).
    start : list of H (d, N_e) before training.
    """

    ufms: list
    classifiers: np.ndarray
    biases: np.ndarray
    features: list
    labels: list
    exact: list
    start: list
    history: list = field(default_factory=list)

    @property
    def objectives(self):
        """UFM objectives (E,), in float64."""
        members = zip(self.ufms, self.classifiers, self.features, self.biases, self.labels)
        return np.array([ufm_objective(*member) for member in members])

    @property
    def gaps(self):
        """objective / exact.objective − 1 (E,): how far each is from the optimum, ≥ 0 up to rounding.

        Where `exact` is not certified, which happens with nonnegative features, exact.objective is only an
        upper bound of the optimum: a better model has a gap below 0, though never below −exact.relative_gap.
        """
        return metrics.relative_gap(self.objectives, np.array([s.objective for s in self.exact]))

    def dead_features(self, member):
        """Number of features, rows of H, that are exactly 0 on every sample: ReLU units that have died."""
        return int((self.features[member] == 0).all(axis=1).sum())

    def class_means(self, member):
        """H̄ (d, K)."""
        return metrics.class_means(self.features[member], self.labels[member])

    def logits(self, member):
        """Z = W H̄ (K, K), mean logits without the bias."""
        return self.classifiers[member] @ self.class_means(member)

    def cosines(self, member, of="logits"):
        """Cosines (K, K) of "logits", "features" (class means) or "classifier" (rows of W)."""
        choice("of", of, ("logits", "features", "classifier"))
        if of == "logits":
            return metrics.cosines(self.logits(member))
        return metrics.cosines(self.class_means(member) if of == "features" else self.classifiers[member].T)

    def accuracy(self, member, classes):
        """Fraction of the training samples of `classes` that are classified right."""
        scores = self.classifiers[member] @ self.features[member] + self.biases[member][:, None]
        chosen = np.isin(self.labels[member], list(classes))
        if not chosen.any():
            raise ValueError(f"classes = {classes!r}: must name classes of the problem")
        return float((scores.argmax(axis=0) == self.labels[member])[chosen].mean())


def ufm_objective(ufm, W, H, b, labels):
    """The UFM's objective, in float64, at W (K, d), H (d, N), b (K,) for `labels` (N,)."""
    logits = W @ H + b[:, None]
    peak = logits.max(axis=0)
    loss = np.log(np.exp(logits - peak).sum(axis=0)) + peak - logits[labels, np.arange(len(labels))]
    bias = 0.0 if math.isinf(ufm.lam_b) else ufm.lam_b / 2 * (b**2).sum()
    return float(loss.mean() + ufm.lam_w / 2 * (W**2).sum() + ufm.lam_h / 2 * (H**2).sum() + bias)


def _problems(ufms):
    ufms = [ufms] if isinstance(ufms, UFM) else list(ufms) if isinstance(ufms, (list, tuple)) else []
    if not ufms or not all(isinstance(ufm, UFM) for ufm in ufms):
        raise ValueError("ufms must be a UFM or a list of at least one UFM")
    if len({ufm.num_classes for ufm in ufms}) > 1:
        raise ValueError("ufms differ in their number of classes: all must have the same")
    return ufms


def _exact(ufms, features):
    solved = {ufm: solve(ufm, features=features, tol=1e-12) for ufm in dict.fromkeys(ufms)}
    return [solved[ufm] for ufm in ufms]


def geometric_grid(last, per_decade=8):
    """Whole numbers from 1 to `last`, about equally spaced in the logarithm, both ends included."""
    points = 10 ** np.arange(0, math.log10(last) + 1 / per_decade, 1 / per_decade)
    return sorted({min(last, round(p)) for p in points} | {last})


def train_ufm(ufms, dim, seed=0, iterations=200, tol=None, device=None, features="linear"):
    """Minimise UFMs over all of W, H, b from random starts, several at once on one device.

    Every sample has its own feature column: nothing is assumed collapsed. The coordinates are
    balanced, W = (λ_H/λ_W)^{1/4} W̃ and H = (λ_W/λ_H)^{1/4} H̃, so that both penalties are λ_Z/2;
    then Nesterov's method, each member with its own step (backtracking) and restart. With features="relu",
    H ≥ 0 is kept by projection. Training may then get stuck where a class has no feature of its own, or shares one
    with another; the gap shows it. It happens less often the larger `dim`: with two groups and K = 10, from
    dim = 16 K on it was seen only in the last tenth below the threshold.

    Parameters
    ----------
    ufms : a UFM or a list of them, equal in K; a repeated one gets another start. Sizes may differ.
    dim : feature dimension d ≥ K.
    seed : of the starts.
    iterations : at most.   tol : stop when every member is certified to be within tol of its optimum, that is
        objective ≤ (1 + tol) (exact.objective − exact.gap); None runs them all.
    device : None means CUDA if present, else CPU.
    features : "linear", free of sign, or "relu", nonnegative, compared with `solve` of the same kind.

    Returns `Trained`, with history on a geometric grid of iterations. Raises ValueError where an
    argument is not allowed, FloatingPointError where the objective overflows. Source: ours; restart after O'Donoghue and Candès (2015).
    """
    ufms = _problems(ufms)
    K, E = ufms[0].num_classes, len(ufms)
    dim, seed = whole("dim", dim, at_least=K), whole("seed", seed, at_least=0)
    iterations = whole("iterations", iterations, at_least=1)
    if tol is not None:
        tol = positive("tol", tol)
    device = pick_device(device)
    exact = _exact(ufms, choice("features", features, ("linear", "relu")))

    # Shorter members are padded with samples of weight 0, whose features start at 0 and stay there.
    sizes = [ufm.num_samples for ufm in ufms]
    target = np.zeros((E, K, max(sizes)))
    for e, ufm in enumerate(ufms):
        target[e, ufm.labels, np.arange(sizes[e])] = 1.0
    to_device = lambda values: torch.as_tensor(values, dtype=torch.float64, device=device)
    column = lambda values: to_device(values)[:, None, None]
    Y = to_device(target)  # (E, K, N)
    weight = Y.sum(1, keepdim=True) / column(sizes)  # (E, 1, N)
    lam = column([ufm.lam_z for ufm in ufms])
    has_bias = column([not math.isinf(ufm.lam_b) for ufm in ufms])
    lam_b = column([ufm.lam_b if math.isfinite(ufm.lam_b) else 0.0 for ufm in ufms])
    # b = unit · b̃ gives b about the curvature that W̃ and H̃ have
    unit = has_bias * column([max(ufm.class_sizes) ** 0.25 / ufm.num_samples**0.5 for ufm in ufms])

    def objective(point, slope=False):
        """Values (E,), and gradients in (W̃, H̃, b̃) if asked for."""
        W, H, b = point
        logits = W @ H + unit * b  # (E, K, N)
        log_p = logits.log_softmax(1)
        penalty = lam / 2 * (sq(W) + sq(H)) + lam_b / 2 * sq(unit * b)
        value = -(weight * Y * log_p).sum((1, 2), keepdim=True) + penalty
        if not slope:
            return value
        G = weight * (log_p.exp() - Y)
        return value, (G @ H.mT + lam * W, W.mT @ G + lam * H, unit * (G.sum(2, keepdim=True) + lam_b * unit * b))

    sq = lambda array: (array**2).sum((1, 2), keepdim=True)
    rng = np.random.default_rng(seed)
    spread = [(n / (K * dim)) ** 0.25 for n in sizes]  # logits of order 1, ‖W̃‖ ≈ ‖H̃‖
    allowed = (lambda W, H, b: (W, H.clamp(min=0), b)) if features == "relu" else (lambda *point: point)
    x = allowed(
        to_device(rng.standard_normal((E, K, dim))) * column(spread),
        to_device(rng.standard_normal((E, dim, max(sizes)))) * (weight > 0) / column(spread) / dim**0.5,
        to_device(np.zeros((E, K, 1))))

    def finish(point):
        """(W, H, b) of the problem as posed, in NumPy, without padding."""
        W, H, b = (array.cpu().numpy() for array in (point[0], point[1], unit * point[2]))
        ratio = [(ufm.lam_w / ufm.lam_h) ** 0.25 for ufm in ufms]
        W = np.stack([w / r for w, r in zip(W, ratio)])
        return W, [h[:, :n] * r for h, n, r in zip(H, sizes, ratio)], b[:, :, 0]

    labels = [ufm.labels for ufm in ufms]
    start = finish(x)[1]
    before, momentum = x, torch.zeros_like(lam)
    step = 2 * column(sizes) / column([math.sqrt(max(ufm.class_sizes)) for ufm in ufms])
    history, grid = [], set(geometric_grid(iterations))
    optimum, lowest = column([s.objective for s in exact]), column([s.objective - s.gap for s in exact])
    t = torch.ones_like(lam)
    for iteration in range(1, iterations + 1):
        y = tuple(a + momentum * (a - b) for a, b in zip(x, before))
        value, slope = objective(y, slope=True)
        if not value.isfinite().all():  # no step would ever be short enough
            raise FloatingPointError(f"the objective overflows in iteration {iteration}: the penalties are too large")
        while True:
            new = allowed(*(a - step * g for a, g in zip(y, slope)))
            new_value = objective(new)
            move = [n - a for n, a in zip(new, y)]
            model = sum((g * m + m**2 / (2 * step)).sum((1, 2), keepdim=True) for g, m in zip(slope, move))
            short = new_value <= value + model + 1e-15 * value.abs()
            if short.all():
                break
            step = torch.where(short, step, step / 2)
        uphill = sum(((a - n) * (n - o)).sum((1, 2), keepdim=True) for a, n, o in zip(y, new, x)) > 0
        t_new = torch.where(uphill, 1.0, (1 + (1 + 4 * t**2).sqrt()) / 2)
        momentum = torch.where(uphill, 0.0, (t - 1) / t_new)
        before, x, t, step = x, new, t_new, step * 1.1
        gap = new_value / optimum - 1
        done = tol is not None and bool((new_value <= (1 + tol) * lowest).all())
        if iteration in grid or done:
            _, H, _ = finish(x)
            history.append({
                "iteration": iteration, "objective": new_value.flatten().cpu().numpy(),
                "gap": gap.flatten().cpu().numpy(), **_collapse(H, labels)})
        if done:
            break
    W, H, b = finish(x)
    return Trained(ufms, W, b, H, labels, exact, start, history)


def _collapse(features, labels):
    pairs = list(zip(features, labels))
    return {"nc1": np.array([metrics.nc1(*pair) for pair in pairs]),
            "trace_ratio": np.array([metrics.trace_ratio(*pair) for pair in pairs])}


def train_network(model, images, labels, ufms, epochs=150, batch_size=128, lr=2e-3, warm_start=True,
                  seed=0, device=None, progress=None, features=None):
    """Train one network for each UFM, with its penalties, as one batched program.

    Member e minimises the objective of `ufms[e]` over the weights of the network, the last features
    h being the network's output on the images: penalties on last features, W and b only. Adam,
    3 % warm-up, cosine to 0; with `warm_start`, penalties of a tenth for the first sixth of the
    epochs, without which a network may stay at Z = 0. Members differ in their initial weights and
    share the order of the images.

    Parameters
    ----------
    model : a module from images (N, C, H, W) to features (N, d) without batch statistics, with an
        attribute `dim` = d ≥ K. It is copied and initialised anew for each member, not changed.
    images : (N, C, H, W).   labels : (N,), with n_k of class k.
    ufms : a UFM or a list of them, all with the class sizes of `labels`.
    epochs, batch_size, lr : of Adam with betas (0.9, 0.99).
    seed : of the initial weights and the order of images.
    device : None means CUDA if present, else CPU.   progress : bar on stderr; None means if a terminal.
    features : the kind of the model's features, "linear" or "relu", that is, which exact optimum it is compared
        with; None means what model.features says, or "linear" if it does not: a bound for every model.

    Returns `Trained`, with history on a geometric grid of epochs. Raises ValueError where an argument
    is not allowed, FloatingPointError with epoch and setting where a member diverges.
    """
    ufms = _problems(ufms)
    images = real_array("images", images, 4)
    labels = np.asarray(labels)
    K, N, E = ufms[0].num_classes, len(images), len(ufms)
    if labels.shape != (N,) or labels.dtype.kind not in "iu" or labels.min() < 0:
        raise ValueError(f"labels has shape {labels.shape} and type {labels.dtype}: must be {N} class indices")
    sizes = tuple(np.bincount(labels).tolist())
    for ufm in ufms:
        if sizes != ufm.class_sizes:
            raise ValueError(f"ufms: class sizes {ufm.class_sizes} differ from those of labels, {sizes}")
    if not isinstance(model, nn.Module) or not hasattr(model, "dim"):
        raise ValueError("model must be a torch module with an attribute dim, the number of its features")
    if any(True for _ in model.buffers()):
        raise ValueError("model has buffers, such as batch statistics: must have none")
    dim = whole("model.dim", model.dim, at_least=K)
    if features is None:  # in other packages' models the name may stand for a part of the network
        features = model.features if isinstance(getattr(model, "features", None), str) else "linear"
    choice("features", features, ("linear", "relu"))
    epochs, batch_size = whole("epochs", epochs, 1), whole("batch_size", batch_size, 1)
    lr, seed, device = positive("lr", lr), whole("seed", seed, 0), pick_device(device)
    if not images.std() > 0:
        raise ValueError("images are all the same number: must vary")
    try:
        with torch.no_grad():
            shape = tuple(model(torch.zeros(1, *images.shape[1:])).shape)
    except RuntimeError as error:
        raise ValueError(f"images has shape {images.shape}, which model does not take: {error}") from None
    if shape != (1, dim):
        raise ValueError(f"model gives features of shape {shape} for one image: must be {(1, dim)}, as model.dim says")
    exact = _exact(ufms, features)

    # Data live on the device.
    x = torch.as_tensor(images, dtype=torch.float32, device=device)
    x = (x - x.mean(0)) / x.std()
    y = torch.as_tensor(labels, device=device)
    member = lambda name: torch.tensor([getattr(u, name) for u in ufms], dtype=torch.float32, device=device)
    lam_w, lam_h, lam_b = member("lam_w"), member("lam_h"), member("lam_b")
    has_bias = torch.isfinite(lam_b).float()
    lam_b = torch.where(torch.isfinite(lam_b), lam_b, 0.0)

    # E copies of the network, each with its own initial weights, stacked: one tensor (E, …) per weight.
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)  # the CPU's only, which fork_rng puts back
        # one member after the other, so that the first ones do not depend on how many follow
        starts = [(_initialised(model), torch.randn(K, dim) / dim**0.5) for _ in range(E)]
        copies, W = [body for body, _ in starts], torch.stack([W for _, W in starts])
        order = torch.Generator().manual_seed(seed)
    weights, _ = torch.func.stack_module_state(copies)
    body = copy.deepcopy(copies[0]).to(device)
    move = lambda tensor: tensor.detach().to(device).requires_grad_()
    weights, W, b = {name: move(p) for name, p in weights.items()}, move(W), move(torch.zeros(E, K))
    forward = torch.func.vmap(
        lambda weights, x: torch.func.functional_call(body, weights, (x,)), in_dims=(0, None))
    optimizer = torch.optim.Adam([*weights.values(), W, b], lr=lr, betas=(0.9, 0.99), fused=True)

    @torch.no_grad()
    def snapshot():
        H = torch.cat([forward(weights, part) for part in x.split(1024)], 1)  # (E, N, d)
        to_numpy = lambda tensor: tensor.double().cpu().numpy()
        return Trained(ufms, to_numpy(W), to_numpy(b * has_bias[:, None]),
                       list(to_numpy(H).transpose(0, 2, 1)), [labels] * E, exact, start)

    start = []
    start = snapshot().features
    if features == "relu" and any((H < 0).any() for H in start):
        raise ValueError("features = 'relu', but the model gives negative ones: must be 'linear'")
    batches = math.ceil(N / batch_size)
    steps, step, history, grid = epochs * batches, 0, [], set(geometric_grid(epochs))
    for epoch in tqdm(range(1, epochs + 1), desc="epochs", disable=None if progress is None else not progress):
        ease = 0.1 if warm_start and epoch <= epochs / 6 else 1.0
        shuffled = torch.randperm(N, generator=order).to(device)
        epoch_loss = torch.zeros(E, device=device)
        for batch in shuffled.split(batch_size):
            step += 1
            rate = min(1.0, step / (0.03 * steps)) * (1 + math.cos(math.pi * step / steps)) / 2
            optimizer.param_groups[0]["lr"] = lr * rate
            H = forward(weights, x[batch])  # (E, B, d)
            logits = H @ W.mT + (b * has_bias[:, None])[:, None, :]  # (E, B, K)
            target = y[batch].expand(E, -1)
            loss = nn.functional.cross_entropy(logits.mT, target, reduction="none").mean(1)
            penalty = (lam_w * (W**2).sum((1, 2)) + lam_h * N / len(batch) * (H**2).sum((1, 2))
                       + lam_b * (b**2).sum(1)) / 2
            value = loss + ease * penalty
            optimizer.zero_grad(set_to_none=True)
            value.sum().backward()  # members share no weight, so neither do gradients
            optimizer.step()
            epoch_loss += value.detach() * len(batch) / N
        _stop_if_diverged(epoch, epoch_loss.tolist(), ufms)
        if epoch in grid:
            now = snapshot()
            history.append({"epoch": epoch, "objective": now.objectives, "gap": now.gaps,
                            **_collapse(now.features, now.labels)})
    done = snapshot()
    return Trained(ufms, done.classifiers, done.biases, done.features, done.labels, exact, start, history)


def _initialised(model):
    model = copy.deepcopy(model)
    for module in model.modules():
        if hasattr(module, "reset_parameters"):
            module.reset_parameters()
    return model.cpu()


def _stop_if_diverged(epoch, losses, ufms):
    for loss, ufm in zip(losses, ufms):
        limit = 100 * math.log(ufm.num_classes)
        if not loss <= limit:  # NaN too
            raise FloatingPointError(
                f"training diverged in epoch {epoch}: objective {loss:.3g} for {ufm}: try a smaller lr")
