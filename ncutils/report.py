"""The report on one claim for one UFM: a ledger without a file, with the problem in words and the
verdict.
"""

import math
import warnings
from dataclasses import replace

from . import theory
from .exact.certificate import dual_bound
from .exact.convex import objective
from .exact.solver import solve
from .exact.two_groups import solve_two_groups
from .ledger import CERTIFIED, Ledger
from .training.free_features import train_ufm
from .ufm import ON_THE_LINE, Phase

STEP = 1e-5  # exact optima are looked at this far, relatively, below and above a predicted line
WORK = 5 * 10**6  # N K² up to which a UFM is trained: seconds on one processor
# λ_Z N over the largest w sqrt(n), within which training takes at most hundreds of iterations
QUICK = (1e-3, 1e2)
# groups that get rows of their own; of more, the two of largest and the two of smallest classes
LISTED = 4


class Report(Ledger):
    """The checks of one claim for one UFM: a `Ledger` that never writes a file. Printed it shows
    all there is.

    Attributes
    ----------
    ufm : the problem.
    said : sentences, the problem and what is predicted.
    notes : what was left out, and why.
    optima : the exact optima behind the rows.
    rows : as in `Ledger`.
    """

    def __init__(self, claim, ufm):
        super().__init__(claim)
        self.folder = None  # whatever $NCUTILS_LEDGERS says
        self.ufm, self.theorem = ufm, None
        self.said, self.notes, self.optima = [problem(ufm)], [], []

    def keep(self, optimum):
        """`optimum`; the rows that follow rest on it, too."""
        self.optima.append(optimum)
        self.about(self.theorem, self.optima, at_most=math.inf)  # the last row judges the gap
        return optimum

    def solve(self, ufm, features="linear"):
        """The exact optimum of a UFM, kept."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)  # about the same gap
            return self.keep(solve(ufm, features, tol=1e-12))

    def solve_two_groups(self):
        """The exact optimum by the scalar equation of two groups, kept."""
        (n_a, A), (n_b, B) = self.ufm.groups.items()
        sizes = len(A), len(B), float(n_a), float(n_b)
        return self.keep(solve_two_groups(*sizes, self.ufm.lam_z, self.ufm.lam_b))

    def lower_bound(self, exact):
        """A lower bound of the optimal value from all K × K entries of Z, where `solve` has one
        from the groups; and its row.
        """
        lower = dual_bound(exact.ufm, exact.logits, exact.bias, exact.rank)
        value = objective(exact.ufm, exact.logits, exact.bias)
        what = "(CVX) / lower bound − 1, both from all entries of Z"
        self.check_at_most(what, value / lower - 1, CERTIFIED)
        return lower

    def trained(self, seed):
        """The UFM, trained from a random start; None, with a note, where that is much work."""
        ufm = self.ufm
        work = ufm.num_samples * ufm.num_classes**2
        level = ufm.lam_z * ufm.num_samples / max(ufm.weights * ufm.sizes**0.5)
        reasons = []
        if work > WORK:
            reasons.append(f"N K² = {work} is above {WORK}")
        if not QUICK[0] <= level <= QUICK[1]:
            reasons.append(f"it is slow where λ_Z N is {level:.1e} of the largest w √n")
        if 1 < ufm.lam_b < math.inf:
            reasons.append(f"it is slow where λ_b is above 1, which is {ufm.lam_b:g}")
        if reasons:
            return self.notes.append("training, as " + " and ".join(reasons))
        return train_ufm(
            ufm, dim=ufm.num_classes, seed=seed, iterations=2000, tol=1e-10, device="cpu"
        )[0]

    def located(self, what, line, there, features="linear"):
        """Row: `there` is false of the exact optimum a hundred-thousandth below λ_Z N = line, and
        true as far above.
        """
        below, above = (
            there(self.solve(at_level(self.ufm, line * factor), features))
            for factor in (1 - STEP, 1 + STEP)
        )
        self.check_true(
            f"{what} from λ_Z N = {line:.6g} on, not {STEP:.0e} of it before",
            bool(above and not below),
        )

    def off_lines(self):
        """The UFM; or, where rounding decides on which side of a line it is, the one a billionth
        further up, with a sentence.
        """
        level, found = self.ufm.lam_z * self.ufm.num_samples, theory.thresholds(self.ufm)
        known = [*found.merged.values(), *found.vanished]
        known += [] if found.trivial is None else [found.trivial]
        on_it = 1 + ON_THE_LINE
        if not any(line <= level * on_it and level <= line * on_it for line in known):
            return self.ufm
        self.said.append(
            "on a line up to rounding, which counts as above it: exact optimum of a level a "
            "billionth higher"
        )
        return at_level(self.ufm, level * (1 + 1e-9))

    def some(self):
        """The groups that get rows of their own, (place in ufm.groups, classes)."""
        groups = list(self.ufm.groups.items())
        return groups if len(groups) <= LISTED else groups[: LISTED // 2] + groups[-LISTED // 2 :]

    @property
    def relative_gap(self):
        """The largest relative duality gap of the optima."""
        return max(abs(one.certificate) for one in self.optima)

    @property
    def passed(self):
        """Whether every row passed, the certificate among them."""
        return bool(self.rows) and all(row["passed"] for row in self.rows)

    @property
    def verdict(self):
        """PASS or FAIL, in a sentence."""
        failed = sum(not row["passed"] for row in self.rows)
        if not self.relative_gap <= CERTIFIED:
            known = f"a relative gap of {self.relative_gap:.1e} only"
            return f"FAIL, not certified: the optimum is known to {known}"
        if failed:
            return f"FAIL, {failed} of {len(self.rows)} checks"
        return f"PASS, all {len(self.rows)} checks"

    def __repr__(self):
        table = super().__repr__().splitlines()[1:]
        notes = [f"left out: {note}" for note in self.notes]
        return "\n".join(
            [f"{self.name}: {self.said[0]}", *self.said[1:], "", *table, "", *notes, self.verdict]
        )

    def record(self):
        """What the command prints as JSON: the rows as `Ledger.save` writes them, with problem and
        verdict.
        """
        names = ("class_sizes", "class_weights", "lam_w", "lam_h", "lam_z", "lam_b")
        values = {name: getattr(self.ufm, name) for name in names}
        values["lam_b"] = values["lam_b"] if math.isfinite(values["lam_b"]) else "inf"
        return super().record() | {
            "problem": values,
            "said": self.said,
            "left_out": self.notes,
            "optima": len(self.optima),
            "relative_gap": self.relative_gap,
            "passed": self.passed,
            "verdict": self.verdict,
        }


def at_level(ufm, level):
    """The UFM with λ_Z N = level, λ_W = λ_H."""
    return replace(ufm, lam_w=level / ufm.num_samples, lam_h=level / ufm.num_samples)


def group_name(kind):
    """A group of classes, n or (n, w), in words."""
    return "n = {}, w = {:g}".format(*kind) if isinstance(kind, tuple) else f"n = {kind}"


def problem(ufm):
    """Class sizes and penalties, in words."""
    groups = [
        f"{len(members)} class{'es' * (len(members) > 1)} of {group_name(kind)}"
        for kind, members in ufm.groups.items()
    ]
    if len(groups) > LISTED:
        most, least = max(ufm.class_sizes), min(ufm.class_sizes)
        groups = [f"{ufm.num_classes} classes in {len(groups)} groups, n = {most} to {least}"]
    bias = f"λ_b = {ufm.lam_b:g}" if math.isfinite(ufm.lam_b) else "no bias"
    return f"{' + '.join(groups)}; N = {ufm.num_samples}, λ_Z = {ufm.lam_z:.6g}, {bias}"


def prediction(ufm):
    """What the theory says happens at the UFM's λ_Z N, with features of either sign, in words."""
    phase, at = theory.phase(ufm), f"λ_Z N = {ufm.lam_z * ufm.num_samples:.6g}"
    if isinstance(phase, Phase):
        found = theory.thresholds(ufm)
        passages = [
            ("not zero again" if i % 2 else "zero" if i else "minority zero", v)
            for i, v in enumerate(found.vanished)
        ]
        levels = [*passages, ("all zero", found.trivial)]
        if (minority := min(ufm.groups)) in found.merged:
            levels.insert(0, ("minority one vector", found.merged[minority]))
        passed = ", ".join(f"{what} from {line:.6g} on" for what, line in levels)
        return f"{at}, predicted: {phase.value} ({passed})"
    if not phase.collapsed:
        return f"{at}, no two classes are alike: none merges, rank of Z at most {phase.rank[1]}"
    merged = f"{sum(phase.collapsed.values())} of {len(phase.collapsed)} groups of two classes"
    merged += " or more are one vector"
    return f"{at}, predicted: {merged}, rank of Z from {phase.rank[0]} to {phase.rank[1]}"
