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
QUICK = (
    1e-3,
    1e2,
)  # λ_Z N over the largest w sqrt(n), within which training takes at most hundreds of iterations
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
        self.ufm, self.said, self.notes, self.optima, self.theorem = (
            ufm,
            [problem(ufm)],
            [],
            [],
            None,
        )

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
        return self.keep(
            solve_two_groups(len(A), len(B), float(n_a), float(n_b), self.ufm.lam_z, self.ufm.lam_b)
        )

    def lower_bound(self, exact):
        """A lower bound of the optimal value from all K × K entries of Z, where `solve` has one
        from the groups; and its row.
        """
        lower = dual_bound(exact.ufm, exact.logits, exact.bias, exact.rank)
        value = objective(exact.ufm, exact.logits, exact.bias)
        self.check_at_most(
            "(CVX) / lower bound − 1, both from all entries of Z", value / lower - 1, CERTIFIED
        )
        return lower

    def trained(self, seed):
        """The UFM, trained from a random start; None, with a note, where that is much work."""
        ufm = self.ufm
        work, level = (
            ufm.num_samples * ufm.num_classes**2,
            ufm.lam_z * ufm.num_samples / max(ufm.weights * ufm.sizes**0.5),
        )
        reasons = {
            f"N K² = {work} is above {WORK}": work > WORK,
            f"it is slow where λ_Z N is {level:.1e} of the largest w √n": not QUICK[0]
            <= level
            <= QUICK[1],
            f"it is slow where λ_b is above 1, which is {ufm.lam_b:g}": 1 < ufm.lam_b < math.inf,
        }
        if any(reasons.values()):
            return self.notes.append(
                "training, as " + " and ".join(why for why, holds in reasons.items() if holds)
            )
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
        level, known = self.ufm.lam_z * self.ufm.num_samples, list(lines(self.ufm).values())
        if isinstance(theory.phase(self.ufm), Phase):
            vanishing, trivial = two_lines(self.ufm)
            known += [*vanishing, trivial]
        if not any(
            line <= level * (1 + ON_THE_LINE) and level <= line * (1 + ON_THE_LINE)
            for line in known
        ):
            return self.ufm
        self.said.append(
            "on a line up to rounding, which counts as above it: exact optimum of a level a billionth higher"
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
            return f"FAIL, not certified: the optimum is known to a relative gap of {self.relative_gap:.1e} only"
        return (
            f"FAIL, {failed} of {len(self.rows)} checks"
            if failed
            else f"PASS, all {len(self.rows)} checks"
        )

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


def lines(ufm):
    """{group: λ_Z N from which on its classes, two or more, are one vector}."""
    return {
        kind: ufm.weights[members[0]] * theory.minority_threshold(ufm.sizes[members[0]])
        for kind, members in ufm.groups.items()
        if len(members) > 1
    }


def two_lines(ufm):
    """For two groups: the values of λ_Z N from which on the minority is zero, is not zero again, is
    zero, …; and λ_Z N from which on everything is."""
    (n_a, A), (n_b, B) = ufm.groups.items()
    sizes = len(A), len(B), n_a, n_b, ufm.lam_b
    return theory.vanishing_thresholds(*sizes), theory.trivial_threshold(*sizes)


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
        vanishing, trivial = two_lines(ufm)
        passages = [
            ("not zero again" if i % 2 else "zero" if i else "minority zero", v)
            for i, v in enumerate(vanishing)
        ]
        levels = [*passages, ("all zero", trivial)]
        if (minority := min(ufm.groups)) in lines(ufm):
            levels.insert(0, ("minority one vector", lines(ufm)[minority]))
        return f"{at}, predicted: {phase.value} ({', '.join(f'{what} from {line:.6g} on' for what, line in levels)})"
    if not phase.collapsed:
        return f"{at}, no two classes are alike: none merges, rank of Z at most {phase.rank[1]}"
    merged = f"{sum(phase.collapsed.values())} of {len(phase.collapsed)} groups of two classes or more are one vector"
    return f"{at}, predicted: {merged}, rank of Z from {phase.rank[0]} to {phase.rank[1]}"
