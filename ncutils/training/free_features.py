"""Training the UFM itself: classifier, bias and free features, from random starts."""

import math

import numpy as np
import torch

from .. import metrics
from .._checks import check_choice, check_integer, check_memory, check_positive
from .._device import pick_device
from .model import Trained, TrainedModel, problems, solutions
from .objective import objective_in_float64


def geometric_grid(last, per_decade=8):
    """Whole numbers from 1 to `last`, about equally spaced in the logarithm, both ends included."""
    points = 10 ** np.arange(0, math.log10(last) + 1 / per_decade, 1 / per_decade)
    return sorted({min(last, round(p)) for p in points} | {last})


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
    ufms = problems(ufms)
    K, E = ufms[0].num_classes, len(ufms)
    dim, seed = check_integer("dim", dim, at_least=K), check_integer("seed", seed, at_least=0)
    iterations = check_integer("iterations", iterations, at_least=1)
    if tol is not None:
        tol = check_positive("tol", tol)
    device, largest = pick_device(device), max(ufm.num_samples for ufm in ufms)
    check_memory(
        "dim", f"{dim} with {largest} samples", 10 * E * max(K, dim) * max(K, largest)
    )  # there are about ten such arrays
    exact = solutions(ufms, check_choice("features", features, ("linear", "relu")))

    # Shorter members are padded with samples of weight 0, whose features start at 0 and stay there.
    sizes = [ufm.num_samples for ufm in ufms]
    target, weight = np.zeros((E, K, max(sizes))), np.zeros((E, 1, max(sizes)))
    for e, ufm in enumerate(ufms):
        target[e, ufm.labels, np.arange(sizes[e])] = 1.0
        weight[e, 0, : sizes[e]] = ufm.weights[ufm.labels] / sizes[e]
    to_device = lambda values: torch.as_tensor(values, dtype=torch.float64, device=device)
    column = lambda values: to_device(values)[:, None, None]
    Y, weight = to_device(target), to_device(weight)  # (E, K, N), (E, 1, N)
    lam = column([ufm.lam_z for ufm in ufms])
    has_bias = column([not math.isinf(ufm.lam_b) for ufm in ufms])
    lam_b = column([ufm.lam_b if math.isfinite(ufm.lam_b) else 0.0 for ufm in ufms])
    # b = unit · b̃ gives b about the curvature that W̃ and H̃ have
    steepest = column([(ufm.weights * np.sqrt(ufm.sizes)).max() for ufm in ufms])
    unit = has_bias * (steepest / column(sizes)).sqrt()

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
        return value, (
            G @ H.mT + lam * W,
            W.mT @ G + lam * H,
            unit * (G.sum(2, keepdim=True) + lam_b * unit * b),
        )

    sq = lambda array: (array**2).sum((1, 2), keepdim=True)
    rng = np.random.default_rng(seed)
    spread = [(n / (K * dim)) ** 0.25 for n in sizes]  # logits of order 1, ‖W̃‖ ≈ ‖H̃‖
    allowed = (
        (lambda W, H, b: (W, H.clamp(min=0), b)) if features == "relu" else (lambda *point: point)
    )
    x = allowed(
        to_device(rng.standard_normal((E, K, dim))) * column(spread),
        to_device(rng.standard_normal((E, dim, max(sizes))))
        * (weight > 0)
        / column(spread)
        / dim**0.5,
        to_device(np.zeros((E, K, 1))),
    )

    def finish(point):
        """(W, H, b) of the problem as posed, in NumPy, without padding."""
        W, H, b = (array.cpu().numpy() for array in (point[0], point[1], unit * point[2]))
        ratio = [ufm.lam_w**0.25 / ufm.lam_h**0.25 for ufm in ufms]
        W = np.stack([w / r for w, r in zip(W, ratio)])
        return W, [h[:, :n] * r for h, n, r in zip(H, sizes, ratio)], b[:, :, 0]

    labels = [ufm.labels for ufm in ufms]
    start = finish(x)[1]
    before, momentum = x, torch.zeros_like(lam)
    step = 2 * column(sizes) / steepest
    history, grid = [], set(geometric_grid(iterations))
    optimum = np.array([s.objective for s in exact])
    lowest = optimum - [s.gap for s in exact]
    within_tol = lambda values: tol is not None and bool((values <= (1 + tol) * lowest).all())
    t = torch.ones_like(lam)
    for iteration in range(1, iterations + 1):
        y = tuple(a + momentum * (a - b) for a, b in zip(x, before))
        value, slope = objective(y, slope=True)
        if not value.isfinite().all():  # no step would ever be short enough
            raise FloatingPointError(
                f"the objective overflows in iteration {iteration}: the penalties are too large"
            )
        while True:
            new = allowed(*(a - step * g for a, g in zip(y, slope)))
            new_value = objective(new)
            move = [n - a for n, a in zip(new, y)]
            model = sum(
                (g * m + m**2 / (2 * step)).sum((1, 2), keepdim=True) for g, m in zip(slope, move)
            )
            short = new_value <= value + model + 1e-15 * value.abs()
            if short.all():
                break
            step = torch.where(short, step, step / 2)
        uphill = (
            sum(((a - n) * (n - o)).sum((1, 2), keepdim=True) for a, n, o in zip(y, new, x)) > 0
        )
        t_new = torch.where(uphill, 1.0, (1 + (1 + 4 * t**2).sqrt()) / 2)
        momentum = torch.where(uphill, 0.0, (t - 1) / t_new)
        before, x, t, step = x, new, t_new, step * 1.1
        done = within_tol(new_value.flatten().cpu().numpy())
        if iteration in grid or done:
            W, H, b = finish(x)
            values = np.array(
                [objective_in_float64(*member) for member in zip(ufms, W, H, b, labels)]
            )
            done = done and within_tol(
                values
            )  # in which, unlike in `new_value`, tiny losses have all their digits
        if iteration in grid or done:
            history.append(
                {
                    "iteration": iteration,
                    "objective": values,
                    "gap": values / optimum - 1,
                    **_collapse(H, labels),
                }
            )
        if done:
            break
    W, H, b = finish(x)
    models = (
        TrainedModel(ufm, b[e], H[e], labels[e], exact[e], start[e], W[e])
        for e, ufm in enumerate(ufms)
    )
    return Trained(tuple(models), history)


def _collapse(features, labels):
    pairs = list(zip(features, labels))
    return {
        "nc1": np.array([metrics.nc1(*pair) for pair in pairs]),
        "trace_ratio": np.array([metrics.trace_ratio(*pair) for pair in pairs]),
    }
