"""One trained model, answering to the names of an exact `Solution`; and a sequence of them."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from .. import metrics
from .._checks import array_of, check_choice, shown
from ..exact.solution import Solution
from ..exact.solver import solve
from ..ufm import UFM
from .objective import objective_in_float64


@dataclass(frozen=True, eq=False, repr=False)
class TrainedModel:
    """A trained model of one UFM: classifier W (K, d), features H (d, N) and bias b (K,). Made by
    `train_ufm` and `train_network`; one of the members of `Trained`.

    Attributes
    ----------
    ufm : the problem.
    bias : b (K,), in nats.
    features : H (d, N), columns in the order of `labels`.
    labels : class indices (N,).
    exact : the `Solution` to compare with, of (CVX) or, for nonnegative features, of (CVX+).
    start : H (d, N) before training.
    diverged : None, or why the training diverged: relative gap and history are then NaN, the
        weights whatever they became.

    Source: ours.

    >>> from ncutils import UFM, train_ufm
    >>> [model] = train_ufm(UFM.from_lam_z([20, 20, 10], lam_z=0.01), dim=4, tol=1e-9)
    >>> model.relative_gap < 1e-8, model.error < 1e-2
    (True, True)
    >>> model
    TrainedModel(3 classes in 2 groups, 50 samples, 4 features)
    """

    ufm: UFM
    bias: np.ndarray
    features: np.ndarray
    labels: np.ndarray
    exact: Solution
    start: np.ndarray
    _classifier: np.ndarray
    diverged: str | None = None

    def __repr__(self):
        K, G, (d, N) = self.ufm.num_classes, len(self.ufm.groups), self.features.shape
        problem = f"{K} classes in {G} group{'s' * (G > 1)}, {N} samples, {d} features"
        return f"TrainedModel({problem}{', diverged' * (self.diverged is not None)})"

    @cached_property
    def objective(self):
        """The UFM's objective at (W, H, b), in nats and float64."""
        return objective_in_float64(
            self.ufm, self._classifier, self.features, self.bias, self.labels
        )

    @property
    def relative_gap(self):
        """objective / exact.objective − 1: how far the model is from the optimum, ≥ 0 up to
        rounding; NaN where training diverged.

        Where `exact` is not certified, which happens with nonnegative features, exact.objective is
        only an upper bound of the optimum: a better model has a gap below 0, though never below
        −certificate.
        """
        if self.diverged is not None:
            return math.nan
        return float(metrics.relative_gap(self.objective, self.exact.objective))

    @property
    def certificate(self):
        """The relative duality gap of the exact optimum, a float."""
        return self.exact.certificate

    @cached_property
    def logits(self):
        """Z = W H̄ (K, K), mean logits in nats, without the bias."""
        return self._classifier @ self.class_means()

    @property
    def error(self):
        """‖Z − Z*‖_F / ‖Z*‖_F against the exact Z*; NaN where Z* = 0."""
        return _relative_error(self.logits, self.exact.logits)

    @property
    def group_gaps(self):
        """{n: a_g in nats}, the mean diagonal minus the mean off-diagonal entry of a group's block
        of Z, of groups of two classes at least; the keys are those of `UFM.groups`.
        """
        return {
            kind: metrics.minority_gap(self.logits, members)
            for kind, members in self.ufm.groups.items()
            if len(members) > 1
        }

    @property
    def dead_features(self):
        """Number of features, rows of H, that are exactly 0 on every sample: ReLU units that have
        died.
        """
        return int((self.features == 0).all(axis=1).sum())

    def class_means(self):
        """H̄ (d, K), the class means of the features.

        >>> from ncutils import UFM, train_ufm
        >>> [model] = train_ufm(UFM.from_lam_z([20, 20, 10], lam_z=0.01), dim=4, tol=1e-9)
        >>> model.class_means().shape
        (4, 3)
        """
        return metrics.class_means(self.features, self.labels)

    def classifier(self):
        """W (K, d).

        >>> from ncutils import UFM, train_ufm
        >>> [model] = train_ufm(UFM.from_lam_z([20, 20, 10], lam_z=0.01), dim=4, tol=1e-9)
        >>> model.classifier().shape
        (3, 4)
        """
        return self._classifier

    def cosines(self, of="logits"):
        """Cosines (K, K), as `metrics.cosines`: `of` the "logits", "features" (class means) or
        "classifier" (rows of W). Raises ValueError where `of` is another word.

        >>> from ncutils import UFM, train_ufm
        >>> [model] = train_ufm(UFM.from_lam_z([20, 20, 10], lam_z=0.01), dim=4, tol=1e-9)
        >>> model.cosines("classifier").shape
        (3, 3)
        """
        check_choice("of", of, ("logits", "features", "classifier"))
        if of == "logits":
            return metrics.cosines(self.logits)
        return metrics.cosines(self.class_means() if of == "features" else self._classifier.T)

    def accuracy(self, classes):
        """Fraction of the training samples of `classes`, class indices, that are classified right.

        `classes` is a list, a range or an array. Raises ValueError where the model has no sample of
        these classes.

        >>> from ncutils import UFM, train_ufm
        >>> [model] = train_ufm(UFM.from_lam_z([20, 20, 10], lam_z=0.01), dim=4, tol=1e-9)
        >>> model.accuracy(classes=[0, 2])
        1.0
        """
        scores = self._classifier @ self.features + self.bias[:, None]
        named = array_of(classes, "iu")
        chosen = np.isin(self.labels, [] if named is None else named)
        if not chosen.any():
            raise ValueError(f"classes = {shown(classes)}: must name classes of the problem")
        return float((scores.argmax(axis=0) == self.labels)[chosen].mean())

    def measures(self, exact):
        """Every number that is recorded of a network, by name; A are the largest classes, B the
        smallest.

        objective; gap_KIND, its relative gap to `exact[KIND]`, the solutions of (CVX) "linear" and
        of (CVX+) "relu", and error_KIND = ‖Z − Z*‖/‖Z*‖, NaN where Z* = 0; nc1, trace_ratio; a_b;
        length_a, length_b, the mean lengths of the columns of Z in nats; cos_a, cos_b, cos_ab, the
        mean cosines of the columns of Z; accuracy_a, accuracy_b.

        >>> from ncutils import UFM, train_ufm
        >>> [model] = train_ufm(UFM.from_lam_z([20, 20, 10], lam_z=0.01), dim=4, tol=1e-9)
        >>> found = model.measures({"linear": model.exact})
        >>> bool(found["gap_linear"] < 1e-8), round(found["objective"], 4), found["accuracy_b"]
        (True, 0.3372, 1.0)
        """
        Z, found = self.logits, {"objective": self.objective}
        for kind, solution in exact.items():
            found[f"gap_{kind}"] = self.objective / solution.objective - 1
            found[f"error_{kind}"] = _relative_error(Z, solution.logits)
        groups = list(self.ufm.groups.values())
        A, B = groups[0], groups[-1]
        cosines, lengths = metrics.cosines(Z), np.linalg.norm(Z, axis=0)
        return found | {
            "nc1": metrics.nc1(self.features, self.labels),
            "trace_ratio": metrics.trace_ratio(self.features, self.labels),
            "a_b": metrics.minority_gap(Z, B) if len(B) > 1 else math.nan,
            "length_a": float(lengths[A].mean()),
            "length_b": float(lengths[B].mean()),
            "cos_a": _mean_of_pairs(cosines, A, A),
            "cos_b": _mean_of_pairs(cosines, B, B),
            "cos_ab": _mean_of_pairs(cosines, A, B),
            "accuracy_a": self.accuracy(A),
            "accuracy_b": self.accuracy(B),
        }


def _relative_error(logits, exact):
    """‖Z − Z*‖_F / ‖Z*‖_F, NaN where Z* = 0."""
    size = np.linalg.norm(exact)
    return float(np.linalg.norm(logits - exact) / size) if size > 0 else math.nan


def _mean_of_pairs(matrix, rows, columns):
    """Mean over the pairs of different classes, one of `rows` and one of `columns`; NaN if none."""
    block = np.ix_(rows, columns)
    values = matrix[block][~np.eye(len(matrix), dtype=bool)[block]]
    return float(values.mean()) if values.size else math.nan


@dataclass(frozen=True, eq=False)
class Trained(Sequence):
    """A sequence of E trained models, `TrainedModel` e for the UFM e that was asked for. Made by
    `train_ufm` and `train_network`.

    Attributes
    ----------
    models : tuple of the E models; `trained[0]`, `trained[2:]`, `len(trained)` and iteration work
        as with a list, a slice being `Trained` again.
    history : list of dicts, one per recorded moment, with "iteration" or "epoch" and arrays (E,):
        "objective", "gap" (relative, against the exact optimum), "nc1", "trace_ratio"; of networks,
        all that `TrainedModel.measures` names.

    Source: ours.

    >>> from ncutils import UFM, train_ufm
    >>> ufms = [UFM.from_lam_z([20, 20, 10], lam_z) for lam_z in (0.01, 0.02)]
    >>> trained = train_ufm(ufms, dim=4, tol=1e-9)
    >>> trained.objectives.round(4), bool((trained.gaps < 1e-8).all())
    (array([0.3372, 0.5546]), True)
    >>> [round(model.ufm.lam_z, 2) for model in trained if model.error < 1e-2]
    [0.01, 0.02]
    """

    models: tuple
    history: list

    def __len__(self):
        return len(self.models)

    def __getitem__(self, place):
        if not isinstance(place, slice):
            return self.models[place]
        part = lambda value: value[place] if isinstance(value, np.ndarray) else value
        history = [{name: part(value) for name, value in row.items()} for row in self.history]
        return Trained(self.models[place], history)

    def __repr__(self):
        return f"Trained({len(self)} models)"

    @property
    def objectives(self):
        """UFM objectives (E,), in float64."""
        return np.array([model.objective for model in self])

    @property
    def gaps(self):
        """The relative gaps (E,) of the models, NaN where training diverged."""
        return np.array([model.relative_gap for model in self])

    @property
    def certificate(self):
        """The largest relative duality gap of their exact optima, NaN if one is."""
        return float(np.abs([model.certificate for model in self]).max(initial=0.0))


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
