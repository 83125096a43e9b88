"""Training the UFM itself: classifier, bias and free features, from random starts."""

import math
from typing import NamedTuple

import numpy as np
import torch

from .. import metrics
from .._checks import check_choice, check_integer, check_memory, check_positive
from .._device import pick_device
from .model import Trained, TrainedModel, problems, solutions
from .modes import own_modes
from .objective import Penalties, objective, penalties

LONGER = 1.1  # every step tries to be longer than the last by this factor
SLACK = 1e-15  # of the objective: what rounding may add to it


def geometric_grid(last, per_decade=8):
    """Whole numbers from 1 to `last`, about equally spaced in the logarithm, both ends included."""
    points = 10 ** np.arange(0, math.log10(last) + 1 / per_decade, 1 / per_decade)
    return sorted({min(last, round(p)) for p in points} | {last})


@own_modes()
def train_ufm(ufms, dim, seed=0, iterations=200, tol=None, device=None, features="linear"):
    """Minimise UFMs over all of W, H, b from random starts, several at once on one device.

    Every sample has its own feature column: nothing is assumed collapsed. The coordinates are
    balanced, W = (λ_H/λ_W)^{1/4} W̃ and H = (λ_W/λ_H)^{1/4} H̃, so that both penalties are λ_Z/2;
    then Nesterov's method, each member with its own step (backtracking) and restart. With
    features="relu", H ≥ 0 is kept by projection. Training may then get stuck where a class has no
    feature of its own, or shares one with another; the gap shows it. It happens less often the
    larger `dim`: with two groups and K = 10, from dim = 16 K on it was seen only in the last tenth
    below the threshold.

    Parameters
    ----------
    ufms : a UFM or a list of them, equal in K; a repeated one gets another start. Sizes may differ.
    dim : feature dimension d ≥ K.
    seed : of the starts.
    iterations : at most.
    tol : stop when every member is certified to be within tol of its optimum, that is
        objective ≤ (1 + tol) (exact.objective − exact.gap); None runs them all.
    device : None means CUDA if present, else CPU.
    features : "linear", free of sign, or "relu", nonnegative, compared with `solve` of the same
        kind.

    Returns `Trained`, with history on a geometric grid of iterations. Raises ValueError where an
    argument is not allowed, FloatingPointError where the objective overflows. Source: ours; restart
    after O'Donoghue and Candès (2015).

    >>> from ncutils import UFM, train_ufm
    >>> trained = train_ufm(UFM.from_lam_z([20, 20, 10], lam_z=0.01), dim=4, tol=1e-9)
    >>> bool(trained.gaps[0] < 1e-8), trained.history[-1]["iteration"] < 200
    (True, True)
    """
    ufms, dim, seed, iterations, tol, device = _checked(
        ufms, dim, seed, iterations, tol, device, features
    )
    exact = solutions(ufms, features)
    batch = _prepare(ufms, device)
    state = _begin(batch, dim, seed, nonnegative=features == "relu")
    start = _models(batch, state.point, exact)
    lowest = np.array([solution.objective - solution.gap for solution in exact])
    reached = lambda values: tol is not None and bool((values <= (1 + tol) * lowest).all())
    history, grid = [], set(geometric_grid(iterations))
    for iteration in range(1, iterations + 1):
        state = _step(batch, state, iteration, nonnegative=features == "relu")
        done = reached(state.values.cpu().numpy())
        if iteration in grid or done:
            models = _models(batch, state.point, exact, start)
            # unlike in `state.values`, tiny losses have all their digits here
            done = done and reached(np.array([model.objective for model in models]))
        if iteration in grid or done:
            history.append(_record(iteration, models))
        if done:
            break
    return Trained(tuple(models), history)


def _checked(ufms, dim, seed, iterations, tol, device, features):
    """The arguments of `train_ufm` in the form that is worked with, else ValueError."""
    ufms = problems(ufms)
    K, E, largest = ufms[0].num_classes, len(ufms), max(ufm.num_samples for ufm in ufms)
    dim, seed = check_integer("dim", dim, at_least=K), check_integer("seed", seed, at_least=0)
    iterations = check_integer("iterations", iterations, at_least=1)
    tol = None if tol is None else check_positive("tol", tol)
    device = pick_device(device)
    entries = 10 * E * max(K, dim) * max(K, largest)  # there are about ten such arrays
    check_memory("dim", f"{dim} with {largest} samples", entries)
    check_choice("features", features, ("linear", "relu"))
    return ufms, dim, seed, iterations, tol, device


class _Batch(NamedTuple):
    """E UFMs as tensors, the shorter ones padded with samples of weight 0."""

    ufms: list
    labels: torch.Tensor  # (E, N)
    weights: torch.Tensor  # (E, N)
    sizes: torch.Tensor  # (E,)
    lam: Penalties  # λ_Z for λ_W and λ_H
    unit: torch.Tensor  # (E,), b = unit · b̃
    steepest: torch.Tensor  # (E,), the largest w √n

    @property
    def device(self):
        return self.labels.device


def _prepare(ufms, device):
    """The `_Batch` of a list of UFMs. With b = unit · b̃, b̃ has about the curvature of W̃ and H̃."""
    sizes = [ufm.num_samples for ufm in ufms]
    labels = np.zeros((len(ufms), max(sizes)), dtype=np.int64)
    weights = np.zeros((len(ufms), max(sizes)))
    for e, ufm in enumerate(ufms):
        labels[e, : sizes[e]] = ufm.labels
        weights[e, : sizes[e]] = ufm.weights[ufm.labels]
    member = lambda values: torch.as_tensor(values, dtype=torch.float64, device=device)
    lam, lam_z = penalties(ufms, torch.float64, device), member([ufm.lam_z for ufm in ufms])
    steepest = member([(ufm.weights * np.sqrt(ufm.sizes)).max() for ufm in ufms])
    return _Batch(
        ufms,
        torch.as_tensor(labels, device=device),
        member(weights),
        member(sizes),
        lam._replace(lam_w=lam_z, lam_h=lam_z),
        lam.has_bias * (steepest / member(sizes)).sqrt(),
        steepest,
    )


def _values(batch, point):
    """The objectives (E,) at a point (W̃, H̃, b̃)."""
    W, H, b = point
    b = batch.unit[:, None, None] * b
    return objective(
        W @ H + b, batch.labels, batch.weights, batch.sizes, W, H, b[..., 0], batch.lam
    )


class _State(NamedTuple):
    """Where Nesterov's method is; everything but the points is (E,)."""

    point: tuple  # W̃ (E, K, d), H̃ (E, d, N), b̃ (E, K, 1)
    before: tuple  # the point of the iteration before
    values: torch.Tensor | None  # the objectives at `point`
    length: torch.Tensor  # of the step
    momentum: torch.Tensor
    t: torch.Tensor  # t_{k+1} = (1 + √(1 + 4 t_k²))/2, 1 again at a restart


def _begin(batch, dim, seed, nonnegative):
    """Random starts: logits of order 1 and ‖W̃‖ ≈ ‖H̃‖, b̃ = 0; features of padding are 0 and stay
    so.
    """
    rng, (E, N), K = np.random.default_rng(seed), batch.labels.shape, batch.ufms[0].num_classes
    to_device = lambda values: torch.as_tensor(values, dtype=torch.float64, device=batch.device)
    spread = to_device([(ufm.num_samples / (K * dim)) ** 0.25 for ufm in batch.ufms])
    W = to_device(rng.standard_normal((E, K, dim))) * spread[:, None, None]
    H = to_device(rng.standard_normal((E, dim, N))) * (batch.weights > 0)[:, None]
    H = H / spread[:, None, None] / dim**0.5
    point = (W, H.clamp(min=0) if nonnegative else H, to_device(np.zeros((E, K, 1))))
    ones = torch.ones_like(spread)
    return _State(point, point, None, 2 * batch.sizes / batch.steepest, 0 * ones, ones)


def _step(batch, state, iteration, nonnegative):
    """One iteration: along the gradient at the extrapolated point, as far as the objective falls
    at least as its quadratic model does; momentum is given up where it leads uphill.
    """
    column = lambda values: values[:, None, None]
    inner = lambda one, other: sum((a * b).sum((1, 2)) for a, b in zip(one, other))  # (E,)
    minus = lambda one, other: tuple(a - b for a, b in zip(one, other))
    y = tuple(a + column(state.momentum) * (a - b) for a, b in zip(state.point, state.before))
    value = _values(batch, [part.requires_grad_() for part in y])
    if not value.isfinite().all():  # no step would ever be short enough
        raise FloatingPointError(
            f"the objective overflows in iteration {iteration}: the penalties are too large"
        )
    slope = torch.autograd.grad(value.sum(), y)  # members share nothing, so neither do gradients
    with torch.no_grad():
        length = state.length
        while True:
            W, H, b = (a - column(length) * g for a, g in zip(y, slope))
            new = (W, H.clamp(min=0) if nonnegative else H, b)
            values, move = _values(batch, new), minus(new, y)
            model = value + inner(slope, move) + inner(move, move) / (2 * length)
            short = values <= model + SLACK * value.abs()
            if short.all():
                break
            length = torch.where(short, length, length / 2)
        uphill = inner(minus(y, new), minus(new, state.point)) > 0
        t = torch.where(uphill, 1.0, (1 + (1 + 4 * state.t**2).sqrt()) / 2)
        momentum = torch.where(uphill, 0.0, (state.t - 1) / t)
    return _State(new, state.point, values, length * LONGER, momentum, t)


def _models(batch, point, exact, start=None):
    """The models at a point, in NumPy, as the problems are posed and without padding; `start` are
    those before training.
    """
    W, H, b = point[0], point[1], batch.unit[:, None] * point[2][..., 0]
    W, H, b = (array.detach().cpu().numpy() for array in (W, H, b))
    models = []
    for e, ufm in enumerate(batch.ufms):
        ratio = ufm.lam_w**0.25 / ufm.lam_h**0.25
        features = H[e, :, : ufm.num_samples] * ratio
        first = features if start is None else start[e].features
        models.append(TrainedModel(ufm, b[e], features, ufm.labels, exact[e], first, W[e] / ratio))
    return models


def _record(iteration, models):
    """One row of the history."""
    each = lambda measure: np.array([measure(model) for model in models])
    return {
        "iteration": iteration,
        "objective": each(lambda model: model.objective),
        "gap": each(lambda model: model.objective / model.exact.objective - 1),
        "nc1": each(lambda model: metrics.nc1(model.features, model.labels)),
        "trace_ratio": each(lambda model: metrics.trace_ratio(model.features, model.labels)),
    }
