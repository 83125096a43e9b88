"""A batch of trained models, and what is measured of them."""

import math
from dataclasses import dataclass, field

import numpy as np

from .. import metrics
from .._checks import array_of, check_choice, shown
from ..exact.solver import solve
from ..ufm import UFM
from .objective import _objective


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
        check_choice("of", of, ("logits", "features", "classifier")), self._place(member)
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
