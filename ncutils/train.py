"""Training UFMs from random starts; what is measured of a trained model."""

import math
from dataclasses import dataclass, field

import numpy as np
import torch

from . import metrics
from .convex import solve
from .device import pick_device
from .ufm import (
    UFM,
    array_of,
    choice,
    class_labels,
    positive,
    problem,
    real_array,
    room,
    shown,
    whole,
)


@dataclass(frozen=True)
class Trained:
    """A batch of E trained models, member e for problem `ufms[e]`. Made by `train_ufm` and
    `train_network`.

    Attributes
    ----------
    ufms : the problems.
    classifiers : W (E, K, d).
    biases : b (E, K).
    features : list of H (d, N_e), columns in the order of `labels[e]`.
    labels : list of class indices (N_e,).
    history : list of dicts, one per recorded moment, with "iteration" or "epoch" and arrays (E,):
        "objective", "gap" (relative, against the exact optimum), "nc1", "trace_ratio"; of networks,
        all that `measures` names.
    exact : list of exact `Solution`s, of (CVX) or, for nonnegative features, of (CVX+).
    start : list of H (d, N_e) before training.
    diverged : {member: message} of networks whose training diverged. Their gaps and history are
        NaN, their weights whatever they became.

    Source: ours.

    >>> from ncutils import UFM, train_ufm
    >>> ufms = [UFM.from_lam_z([20, 20, 10], lam_z) for lam_z in (0.01, 0.02)]
    >>> trained = train_ufm(ufms, dim=4, tol=1e-9)
    >>> trained.objectives.round(4), bool((trained.gaps < 1e-8).all())
    (array([0.3372, 0.5546]), True)
    """

    ufms: list
    classifiers: np.ndarray
    biases: np.ndarray
    features: list
    labels: list
    exact: list
    start: list
    history: list = field(default_factory=list)
    diverged: dict = field(default_factory=dict)

    @property
    def objectives(self):
        """UFM objectives (E,), in float64."""
        members = zip(self.ufms, self.classifiers, self.features, self.biases, self.labels)
        return np.array([_objective(*member) for member in members])

    @property
    def gaps(self):
        """objective / exact.objective − 1 (E,): how far each is from the optimum, ≥ 0 up to
        rounding.

        Where `exact` is not certified, which happens with nonnegative features, exact.objective is
        only an upper bound of the optimum: a better model has a gap below 0, though never below
        −exact.relative_gap.
        """
        alive = [e for e in range(len(self.ufms)) if e not in self.diverged]
        gaps = np.full(len(self.ufms), math.nan)
        gaps[alive] = metrics.relative_gap(
            self.objectives[alive], np.array([self.exact[e].objective for e in alive])
        )
        return gaps

    def _place(self, member):
        """`member` if there is one of this number, else ValueError."""
        if (
            not isinstance(member, (int, np.integer))
            or isinstance(member, bool)
            or not 0 <= member < len(self.ufms)
        ):
            raise ValueError(
                f"member = {shown(member)}: must be a whole number from 0 to {len(self.ufms) - 1}"
            )
        return member

    def dead_features(self, member):
        """Number of features, rows of H of this `member`, that are exactly 0 on every sample: ReLU
        units that have died.

        Raises ValueError unless 0 ≤ member < E, as do the methods that follow.

        >>> from ncutils import UFM, train_ufm
        >>> trained = train_ufm(UFM.from_lam_z([20, 20, 10], lam_z=0.01), dim=4, tol=1e-9)
        >>> trained.dead_features(0)
        0
        """
        return int((self.features[self._place(member)] == 0).all(axis=1).sum())

    def class_means(self, member):
        """H̄ (d, K), the class means of this `member`'s features; `member` as in `dead_features`.

        >>> from ncutils import UFM, train_ufm
        >>> trained = train_ufm(UFM.from_lam_z([20, 20, 10], lam_z=0.01), dim=4, tol=1e-9)
        >>> trained.class_means(0).shape
        (4, 3)
        """
        return metrics.class_means(self.features[self._place(member)], self.labels[member])

    def logits(self, member):
        """Z = W H̄ (K, K), mean logits of this `member` in nats, without the bias; `member` as in
        `dead_features`.

        >>> from ncutils import UFM, train_ufm
        >>> trained = train_ufm(UFM.from_lam_z([20, 20, 10], lam_z=0.01), dim=4, tol=1e-9)
        >>> bool(abs(trained.logits(0) - trained.exact[0].logits).max() < 1e-2)
        True
        """
        return self.classifiers[self._place(member)] @ self.class_means(member)

    def cosines(self, member, of="logits"):
        """Cosines (K, K) of this `member`, as `metrics.cosines`: `of` the "logits", "features"
        (class means) or "classifier" (rows of W). Raises ValueError where `of` is another word.

        >>> from ncutils import UFM, train_ufm
        >>> trained = train_ufm(UFM.from_lam_z([20, 20, 10], lam_z=0.01), dim=4, tol=1e-9)
        >>> trained.cosines(0, of="classifier").shape
        (3, 3)
        """
        choice("of", of, ("logits", "features", "classifier")), self._place(member)
        if of == "logits":
            return metrics.cosines(self.logits(member))
        return metrics.cosines(
            self.class_means(member) if of == "features" else self.classifiers[member].T
        )

    def accuracy(self, member, classes):
        """Fraction of this `member`'s training samples of `classes`, class indices, that are
        classified right.

        `classes` is a list, a range or an array. Raises ValueError where the member has no sample
        of these classes.

        >>> from ncutils import UFM, train_ufm
        >>> trained = train_ufm(UFM.from_lam_z([20, 20, 10], lam_z=0.01), dim=4, tol=1e-9)
        >>> trained.accuracy(0, classes=[0, 2])
        1.0
        """
        scores = (
            self.classifiers[self._place(member)] @ self.features[member]
            + self.biases[member][:, None]
        )
        named = array_of(classes, "iu")
        chosen = np.isin(self.labels[member], [] if named is None else named)
        if not chosen.any():
            raise ValueError(f"classes = {shown(classes)}: must name classes of the problem")
        return float((scores.argmax(axis=0) == self.labels[member])[chosen].mean())

    def measures(self, member, exact):
        """Every number that is recorded of a network, by name, for one `member`; A are the largest
        classes, B the smallest.

        objective; gap_KIND, its relative gap to `exact[KIND]`, the solutions of (CVX) "linear" and
        of (CVX+) "relu", and error_KIND = ‖Z − Z*‖/‖Z*‖, NaN where Z* = 0; nc1, trace_ratio; a_b;
        length_a, length_b, the mean lengths of the columns of Z in nats; cos_a, cos_b, cos_ab, the
        mean cosines of the columns of Z; accuracy_a, accuracy_b.

        >>> from ncutils import UFM, train_ufm
        >>> trained = train_ufm(UFM.from_lam_z([20, 20, 10], lam_z=0.01), dim=4, tol=1e-9)
        >>> found = trained.measures(0, {"linear": trained.exact[0]})
        >>> bool(found["gap_linear"] < 1e-8), round(found["objective"], 4), found["accuracy_b"]
        (True, 0.3372, 1.0)
        """
        ufm, Z, H = self.ufms[member], self.logits(member), self.features[member]
        objective = _objective(
            ufm, self.classifiers[member], H, self.biases[member], self.labels[member]
        )
        found = {"objective": objective}
        for kind, solution in exact.items():
            size = np.linalg.norm(solution.logits)
            found[f"gap_{kind}"] = objective / solution.objective - 1
            found[f"error_{kind}"] = (
                float(np.linalg.norm(Z - solution.logits) / size) if size > 0 else math.nan
            )
        sizes = list(ufm.groups)
        A, B = ufm.groups[sizes[0]], ufm.groups[sizes[-1]]
        cosines, lengths = metrics.cosines(Z), np.linalg.norm(Z, axis=0)
        different = ~np.eye(ufm.num_classes, dtype=bool)
        mean = lambda rows, columns: _mean(
            cosines[np.ix_(rows, columns)][different[np.ix_(rows, columns)]]
        )
        return found | {
            "nc1": metrics.nc1(H, self.labels[member]),
            "trace_ratio": metrics.trace_ratio(H, self.labels[member]),
            "a_b": metrics.minority_gap(Z, B) if len(B) > 1 else math.nan,
            "length_a": float(lengths[A].mean()),
            "length_b": float(lengths[B].mean()),
            "cos_a": mean(A, A),
            "cos_b": mean(B, B),
            "cos_ab": mean(A, B),
            "accuracy_a": self.accuracy(member, A),
            "accuracy_b": self.accuracy(member, B),
        }


def _mean(values):
    return float(values.mean()) if values.size else math.nan


def ufm_objective(ufm, W, H, b, labels):
    """The UFM's objective, in nats and float64, at W (K, d), H (d, N), b (K,) for the class indices
    `labels` (N,).

    It is the formula of `UFM`, infinite where no float can hold it. Raises ValueError where shapes
    or types are others or a number is not finite.

    >>> import numpy as np
    >>> from ncutils import UFM, ufm_objective
    >>> ufm = UFM.from_lam_z([2, 1], lam_z=0.1)
    >>> W, H, b = np.zeros((2, 3)), np.zeros((3, 3)), np.zeros(2)
    >>> round(ufm_objective(ufm, W, H, b, ufm.labels), 6)  # ln 2
    0.693147
    """
    K = problem(ufm).num_classes
    W, H, b = real_array("W", W, 2), real_array("H", H, 2), real_array("b", b, 1)
    if W.shape != (K, len(H)) or b.shape != (K,):
        raise ValueError(
            f"W {W.shape}, H {H.shape}, b {b.shape}: must be ({K}, d), (d, N) and ({K},)"
        )
    labels = class_labels(labels, H.shape[1], K)
    with np.errstate(over="ignore"):
        return _objective(ufm, W, H, b, labels)


CHUNK = 2**18  # logits that are held at once: 2 MiB, which a cache holds
LARGE = 600.0  # a margin whose exponential does not overflow, yet is far above 1


def _objective(ufm, W, H, b, labels):
    most = max(1, CHUNK // len(W))
    parts = [slice(first, first + most) for first in range(0, len(labels), most)]
    loss = np.concatenate([_losses(W @ H[:, part] + b[:, None], labels[part]) for part in parts])
    loss = ufm.weights[labels] * loss
    bias = 0.0 if math.isinf(ufm.lam_b) else ufm.lam_b / 2 * (b**2).sum()
    return float(loss.mean() + ufm.lam_w / 2 * (W**2).sum() + ufm.lam_h / 2 * (H**2).sum() + bias)


def _losses(logits, labels):
    """Cross-entropy (N,) of `logits` (K, N), which are overwritten. Nothing cancels when the loss
    is tiny.
    """
    sample = np.arange(len(labels))
    margins = np.subtract(logits, logits[labels, sample], out=logits)
    margins[labels, sample] = -np.inf  # the other classes only
    excess = (
        np.maximum(margins.max(axis=0), LARGE) - LARGE
    )  # where it is not 0, the own class is nothing in the sum
    margins -= excess
    return np.log1p(np.exp(margins, out=margins).sum(axis=0)) + excess


def problems(ufms):
    """A UFM or a list of them, equal in their number of classes, as a list, else ValueError."""
    ufms = (
        [ufms] if isinstance(ufms, UFM) else list(ufms) if isinstance(ufms, (list, tuple)) else []
    )
    if not ufms or not all(isinstance(ufm, UFM) for ufm in ufms):
        raise ValueError("ufms must be a UFM or a list of at least one UFM")
    if len({ufm.num_classes for ufm in ufms}) > 1:
        raise ValueError("ufms differ in their number of classes: all must have the same")
    return ufms


def solutions(ufms, features):
    """The `Solution` of each, those of equal ones solved once."""
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
    dim, seed = whole("dim", dim, at_least=K), whole("seed", seed, at_least=0)
    iterations = whole("iterations", iterations, at_least=1)
    if tol is not None:
        tol = positive("tol", tol)
    device, largest = pick_device(device), max(ufm.num_samples for ufm in ufms)
    room(
        "dim", f"{dim} with {largest} samples", 10 * E * max(K, dim) * max(K, largest)
    )  # there are about ten such arrays
    exact = solutions(ufms, choice("features", features, ("linear", "relu")))

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
            values = np.array([_objective(*member) for member in zip(ufms, W, H, b, labels)])
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
    return Trained(ufms, W, b, H, labels, exact, start, history)


def _collapse(features, labels):
    pairs = list(zip(features, labels))
    return {
        "nc1": np.array([metrics.nc1(*pair) for pair in pairs]),
        "trace_ratio": np.array([metrics.trace_ratio(*pair) for pair in pairs]),
    }
