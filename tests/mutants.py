"""Break the package in one place at a time, run a page, and see whether the right row of its ledger
fails.

    python tests/mutants.py [--quick] [--list] [--jobs N] [--controls N] [--json] [NAME ...]

A mutant changes one expression or statement in one function of a copy of ncutils, or one text in a
recorded result. The page's own statements are then executed up to `ledger.show()`, unchanged and in
order, in a process of their own. Left out are the statements that draw, and, to save time, those
that rest on what a mutant's `part` leaves out: "network" nothing, "trained" networks, "exact"
trained UFMs as well, "general" the batched two-group solver too. Nothing that is run is changed by
that: a row either stands in the ledger as on the page or is missing. What no page rests on, since
it is about problems harder than those of the pages, is found by a test instead; its "row" is the
name of that test. Each page or test is first run without a mutant (the control): every row has to
pass. A mutant counts as found where the row that is named for it fails, or the error that is named
for it stops the page.

This file is longer than others are since half of it is a table.
"""

import argparse
import ast
import contextlib
import io
import json
import multiprocessing
import os
import shutil
import sys
import tempfile
import time
import warnings
from dataclasses import dataclass
from pathlib import Path

import code_places

ROOT = Path(__file__).resolve().parent.parent
DRAWING = {"figures", "angles", "compare", "draw_blocks", "networks"}  # imported under these names
PARTS = {"network": set(), "trained": {"train_network"}, "exact": {"train_network", "train_ufm"}}
PARTS["general"] = PARTS["exact"] | {"solve_two_groups_log"}

SLOW = "slow"  # trains networks anew, or draws a map of a million solutions
BELOW = "ArithmeticError: objective"  # below its lower bound: `solve` refuses to return that
# the ledger refuses optima without a certificate
OPTIMA = "ValueError: optima have a relative duality gap of"

# Slips, by the page that finds them and the part of it that is run ("tests" where a test does):
# name: ("where: old → new", row). `where` is a function of ncutils by the end of its dotted name:
# "phase", "Solution.phase" and "exact.solution.Solution.phase" are one as long as no other ends so.
# A class or a module may stand there, too. `old` is an expression, a statement, or an argument with
# its value or default ("tol=1e-10"). It is compared as syntax: line breaks, brackets and comments
# do not count. It must stand there once. A `where` with a "/" is a file, in which `old` is text.
# `row` is how the text of the row that must fail begins, the name of the test, or how an error
# begins. `python tests/mutants.py --list` says where each stands, or why it stands nowhere.
TABLE = {
    ("01_collapse", "exact"): {
        "certificate with the sign flipped": ("duality_gap: primal - dual → dual - primal", BELOW),
        "bias term added to the dual, not subtracted": (
            "Blocks.dual_value: value -= slope @ (slope / self.counts) / (2 * self.lam_b) "
            "→ value += slope @ (slope / self.counts) / (2 * self.lam_b)",
            BELOW,
        ),
        "bias term of the dual left out": (
            "Blocks.dual_value: slope @ (slope / self.counts) / (2 * self.lam_b) → 0.0",
            BELOW,
        ),
        "solver stopped after 3 steps": (
            "solve: max_iterations=200 → max_iterations=3",
            "exact: relative duality gap",
        ),
        "singular values shrunk by half of λ_Z": (
            "Norm.lengths: self.t * self.weights → self.t * self.weights / 2",
            OPTIMA,
        ),
        "λ_W for λ_W/2, as in the authors' code": (
            "objective_in_float64: ufm.lam_w / 2 → ufm.lam_w",
            "exact: UFM objective at the factors of Z",
        ),
        "class means without D^{-1/2}": (
            "Solution.class_means: np.sqrt(self.ufm.sizes) → 1.0",
            "exact: UFM objective at the factors of Z",
        ),
        "(λ_W/λ_H)^{1/2} for ^{1/4}": (
            "Solution.class_means: self.ufm.lam_w**0.25 / self.ufm.lam_h**0.25 "
            "→ self.ufm.lam_w**0.5 / self.ufm.lam_h**0.5",
            "exact: balance residual",
        ),
        "bias with the wrong sign": (
            "Solution.bias: self._group_bias[self._group] → -self._group_bias[self._group]",
            "exact: UFM objective at the factors of Z",
        ),
        "balance without D": (
            "balance_residual: ufm.sizes → np.ones(ufm.num_classes)",
            "exact: balance residual",
        ),
    },
    ("01_collapse", "trained"): {
        "NC1 of the class means, not of the features": (
            "_deviations: features - means[:, index] → means[:, index] - means[:, index]",
            "trained UFM, 3 starts: least NC1",
        ),
        "labels of the trained UFM shuffled": (
            "free_features._models: ufm.labels → np.random.default_rng(0).permutation(ufm.labels)",
            "trained UFM, 3 starts: largest NC1",
        ),
        "training stopped at a tenth": (
            "train_ufm: iterations + 1 → iterations // 10 + 1",
            "trained UFM, 3 starts: largest relative gap",
        ),
        "training with λ_Z for λ_Z/2": (
            "objective.objective: (lam.lam_w * square(W) + lam.lam_h * square(H)) / 2 "
            "→ lam.lam_w * square(W) + lam.lam_h * square(H)",
            "trained UFM, 3 starts: largest relative gap",
        ),
        "mean logits with the bias in them": (
            "TrainedModel.logits: self._classifier @ self.class_means() "
            "→ self._classifier @ self.class_means() + self.bias[:, None]",
            "trained UFM, 3 starts: largest ‖Z − Z exact‖",
        ),
    },
    ("01_collapse", "network", SLOW): {
        "images with shuffled labels": (
            "load_images: np.repeat(np.arange(len(sizes)), sizes) "
            "→ np.random.default_rng(seed).permutation(np.repeat(np.arange(len(sizes)), sizes))",
            "network: relative gap to the exact optimum",
        ),
        "network: penalty on H of the batch only": (
            "train_step: run.lam.lam_h * N / B → run.lam.lam_h",
            "network: relative gap to the exact optimum",
        ),
        "network: no penalty on W": (
            "train_step: lam_h=run.lam.lam_h * N / B → lam_w=0.0, lam_h=run.lam.lam_h * N / B",
            "network: balance residual",
        ),
        "network: learning rate that never falls": (
            "fast_rate: 1 + math.cos(math.pi * done / epochs) → 2.0",
            "network: relative gap to the exact optimum",
        ),
        "network: last layer always a ReLU": (
            "MLP.__init__: layers if features == 'relu' else layers[:-1] → layers",
            "network: relative gap to the exact optimum",
        ),
    },
    ("02_angles", "trained"): {
        "cosines of centred rows, not of raw ones": (
            "cosines: matrix.T @ matrix → np.cov(matrix, rowvar=False)",
            "trained UFM, r = 1 … 100: largest error of any cosine",
        ),
        "features and classifier exchanged": (
            "TrainedModel.cosines: of == 'features' → of != 'features'",
            "trained UFM, r = 1 … 100: largest error of any cosine",
        ),
    },
    ("02_angles", "exact"): {
        "N as if all classes were the largest": (
            "UFM.num_samples: sum(self.class_sizes) "
            "→ len(self.class_sizes) * max(self.class_sizes)",
            "5000×4, 4000×3, 3000×3: largest relative error",
        ),
        "off-diagonal mean of K entries too many": (
            "minority_gap: k * (k - 1) → k * k",
            "r = 1: a in Z = a (I − 11ᵀ/K)",
        ),
        "a_g not divided by sqrt(n_g)": (
            "Solution.group_gaps: x / np.sqrt(self._blocks.sizes) → x",
            "5000×4, 4000×3, 3000×3: largest difference of a_g",
        ),
    },
    ("00_summary", "exact"): {
        "features from U, not from V": (
            "Solution.cosines: Vt.T * s @ Vt → U * s @ U.T",
            "500/50/50: angle between classes 2 and 3",
        ),
        "simplex at −1/K": (
            "simplex_etf: (K * np.eye(K) - 1) / (K - 1) → ((K + 1) * np.eye(K) - 1) / K",
            "500/500/500: angle between classes 1 and 2",
        ),
        "n of the wrong class in D, blocks": (
            "Blocks.logit_scale: self.sizes * self.counts[:, None] "
            "→ self.sizes[:, None] * self.counts[:, None]",
            OPTIMA,
        ),
        "D for D^{1/2} within a group": (
            "Blocks.gap_scale: np.sqrt(np.maximum(self.siblings, 1) * self.sizes) "
            "→ np.sqrt(np.maximum(self.siblings, 1)) * self.sizes",
            OPTIMA,
        ),
        "λ_W = 2 λ_Z": (
            "UFM.from_lam_z: lam_z * balance → 2 * lam_z * balance",
            "most images at which classes 2 and 3 are one",
        ),
        "r for 1/r in λ_Z N of the scalar equation": (
            "solve_two_groups: np.log(lam_z) + np.log(n_b) / 2 + log_ratio "
            "→ np.log(lam_z) + np.log(n_b) / 2 - log_ratio",
            "500/50/50: angle between classes 2 and 3",
        ),
        "scalar equation: K_A for K_B": (
            "_scalar_equations.prepare: log_all + log_k.flip(0) → log_all + log_k",
            OPTIMA,
        ),
    },
    ("03_threshold", "general"): {
        "threshold × 1.02": (
            "minority_threshold: math.sqrt(check_positive('n_b', n_b)) → 1.02 * math.sqrt(n_b)",
            "bisection, 5+5 classes, 500/100, λ_b = 0.02",
        ),
        "2 λ_Z for λ_Z": (
            "UFM.lam_z: math.sqrt(product) → 2 * math.sqrt(product)",
            "bisection, 5+5 classes, 500/100, λ_b = 0.02",
        ),
        "rank without the K_g − 1 of a group": (
            "NuclearNorm.rank: self.blocks.siblings @ y → np.count_nonzero(y)",
            "ValueError: holds is True at low",
        ),
        "v with K_A and K_B exchanged": (
            "ZeroMinority.excess: self.log_k + self.log_k_b → self.log_k + self.log_k_a",
            "3+7 classes, λ_b = inf: ‖z_B‖",
        ),
        "v with λ_b/2 for λ_b": (
            "ZeroMinority.__init__: math.log(lam_b) → math.log(lam_b / 2)",
            "5+5 classes, λ_b = 0.02: ‖z_B‖",
        ),
        "minority zero from the first crossing on, whatever follows": (
            "_vanishes: any(minority.excess_at(min(log_x + shift, 0.0)) <= 0 for shift in shifts) "
            "→ level >= vanishing_threshold(k_a, k_b, n_a, n_b, lam_b)",
            "10+10000 classes, 10000/1, λ_b = 0.0016, λ_Z N = 10",
        ),
    },
    ("03_threshold", "exact"): {
        "one crossing taken for granted": (
            "ZeroMinority.crossings: self.unique() → True",
            "10+10000 classes: zero from the first crossing on, not from the second",
        )
    },
    ("03_threshold", "exact", SLOW): {
        "trivial from sqrt(n_B) on": (
            "trivial_threshold: math.sqrt(n_a) → math.sqrt(n_b)",
            "general solver on the pixels beside",
        ),
        "trivial threshold × 1.02": (
            "trivial_threshold: math.sqrt(n_a) → 1.02 * math.sqrt(n_a)",
            "general solver on the pixels beside",
        ),
        "phase read off the majority's columns": (
            "Solution.phase: self._point[:, 1].any() → self._point[:, 0].any()",
            "general solver on the pixels beside",
        ),
        "phases of the map: distinct and collapsed exchanged": (
            "solve_two_groups_log: np.where(a_b == 0, 1, 0) → np.where(a_b == 0, 0, 1)",
            "map of a million, λ_b = inf: solutions out of",
        ),
        "phases of the map: vanished and trivial exchanged": (
            "solve_two_groups_log: np.where((a_a == 0) | (problems['k_a'] == 1), 3, 2) "
            "→ np.where((a_a == 0) | (problems['k_a'] == 1), 2, 3)",
            "map of a million, λ_b = 0.02: solutions out of",
        ),
        "map: a_g = 0 from 0.9 of the line on": (
            "_two_group_values.logits: -ON_THE_LINE → -0.1",
            OPTIMA,
        ),
    },
    ("03_threshold", "network", SLOW): {
        "networks without a warm start": (
            "train_network: warm_start=True → warm_start=False",
            "λ_Z = 0.00325: minority accuracy 0, minority means still 0.2 nats apart",
        ),
        "accuracy without the bias": (
            "TrainedModel.accuracy: self.bias[:, None] → 0.0",
            "λ_Z = 0.00325: minority accuracy 0",
        ),
    },
    ("04_diminishing", "exact"): {
        "C without the factor 2": (
            "deviation_constants: 2 * first → first",
            "r = 2: (cos A + 1/9) · ln n_B → C",
        ),
        "S with n_B for n_A": (
            "limit_logits_log: cross = log_n_a / 2 - log_c + math.log(root) "
            "→ cross = log_n_b / 2 - log_c + math.log(root)",
            "ln n_B = 3000: |Z − ½ ln(n_B) (I − 11ᵀ/K) − S|",
        ),
        "S with K_A and K_B exchanged": (
            "limit_logits_log: log_n_b / 2 - log_c - math.log1p(-share) + math.log(k_b) "
            "→ log_n_b / 2 - log_c - math.log1p(-share * k_b / k_a) + math.log(k_a)",
            "3+7 classes, ln n_B = 3000: |Z − ½ ln(n_B) (I − 11ᵀ/K) − S|",
        ),
        "SELI with D for D^{1/2}": (
            "seli: np.sqrt(n) → n",
            "features at ln n_B = 3000: largest distance",
        ),
        "SELI: features and classifier exchanged": (
            "seli: (cosines_from_gram(features), cosines_from_gram(U * s @ U.T)) "
            "→ (cosines_from_gram(U * s @ U.T), cosines_from_gram(features))",
            "classifier at ln n_B = 3000: largest distance",
        ),
        "mean cosines with the diagonal in them": (
            "group_means: ~np.eye(K, dtype=bool) → np.ones((K, K), dtype=bool)",
            "scalar equation against the general solver",
        ),
        "scalar equation: 2 λ_b for λ_b": (
            "_scalar_equations.prepare: lam_b → 2 * lam_b",
            "ArithmeticError: a dual bound above",
        ),
    },
    ("05_relu", "exact"): {
        "ReLU threshold without 1 − 1/K": (
            "relu_vanishing_threshold: n_k * (1 - 1 / K) → n_k",
            "5+5 classes, no bias, ReLU: λ_Z N / sqrt(n_B)",
        ),
        "ReLU closed form: K for K − 1": (
            "relu_logits: K * (K - 1) → K * K",
            "no bias, ReLU, 5+5, 500/100: largest difference of Z",
        ),
        "(CVX+) with one class a group": (
            "ColumnNorm.weights: np.sqrt(self.blocks.counts) → np.ones(self.blocks.G)",
            "ValueError: holds is False at low",
        ),
        "ReLU certificate: dual not scaled to its norm": (
            "solve: blocks.feasible(probabilities, nonnegative_norm) → found.probabilities",
            "certificate open, tail 5000 to 50",
        ),
    },
    ("05_relu", "trained", SLOW): {
        "relative gap with the sign flipped": (
            "relative_gap: objective / optimum - 1 → 1 - objective / optimum",
            "certificate open, 40, 40, 5, 5: training ends",
        ),
        "trained features not kept ≥ 0": (
            "free_features._step: H.clamp(min=0) if nonnegative else H → H",
            "trained UFM, H ≥ 0, d = 160: largest |cosine|",
        ),
        "dead features: 0 on any sample": (
            "TrainedModel.dead_features: (self.features == 0).all → (self.features == 0).any",
            "trained UFM, H ≥ 0, 48 starts: features that are 0",
        ),
    },
    ("09_networks", "exact"): {
        "experiments with λ_b = 0.04": (
            "paper.settings: LAM_B = 0.02 → LAM_B = 0.04",
            "gaps and distances as recorded",
        ),
        "experiments with λ_W : λ_H of 25, not 100": (
            "paper.settings: BALANCE = 10.0 → BALANCE = 5.0",
            "recorded runs with other class sizes or penalties",
        ),
        "experiments with K_A and K_B exchanged": (
            "settings.two_groups: [n_a] * k_a + [n_b] * (CLASSES - k_a) "
            "→ [n_a] * (CLASSES - k_a) + [n_b] * k_a",
            "recorded runs with other class sizes or penalties",
        ),
        "a recorded run that diverged": (
            "notebooks/results/lambda-ka5-fashion-mnist-mlp-linear-fast.csv: "
            "distinct,done,1.44781,0.000114015, → distinct,diverged,1.44781,0.000114015,",
            "recorded runs that are missing or diverged",
        ),
        "a recorded objective, one digit changed": (
            "notebooks/results/lambda-ka5-fashion-mnist-mlp-linear-fast.csv: "
            "distinct,done,1.44781,0.000114015, → distinct,done,1.45781,0.000114015,",
            "gaps and distances as recorded",
        ),
    },
    ("tests",): {
        "dual point not scaled to its norm": (
            "Blocks.feasible: q * (self.lam / size if size > self.lam else 1.0) → q",
            "test_problems_that_went_wrong_once",
        ),
        "dual point not kept in the simplex": (
            "_dual: total if total > 1 else 1.0 → 1.0",
            "test_the_bound_from_any_logits_is_finite",
        ),
        "a negative gap clipped": (
            "duality_gap: primal - dual → max(primal - dual, 0.0)",
            "test_a_bound_above_the_objective_is_an_error",
        ),
        "a wrong direction left out of M": (
            "Blocks.centred: complement(self.ones) → complement(self.ones[::-1])",
            "test_problems_that_went_wrong_once",
        ),
        "1 − p by subtraction in the preconditioner": (
            "SmoothPart.shifted_inverse: "
            "b.inverse_weights * alpha * (multiplicity * p * inverse).sum(0) "
            "→ b.inverse_weights - (s**2 * inverse).sum(0)",
            "test_problems_that_went_wrong_once",
        ),
        "stopped at a gap, whatever the active set": (
            "minimise: now.norm.clearance > CLEAR → True",
            "test_the_phase_beside_a_threshold_is_right_at_the_default_tolerance",
        ),
        "stopped at a gap, whatever small classes do": (
            "minimise: now.change**2 <= tol → True",
            "test_problems_that_went_wrong_once",
        ),
        "two groups: a root finder that only follows slopes": (
            "increasing_roots: number >= PATIENCE → number >= STEPS",
            "test_a_root_where_the_equation_is_all_but_flat",
        ),
        "cosine across as 1 − (1 − f)": (
            "TwoGroups.cosines: np.where(some, between / np.where(some, length, 1.0), alone) "
            "→ np.sqrt(1 - np.where(some, within / np.where(some, length, 1.0), 0.0)**2)",
            "test_a_cosine_across_of_1e_9_does_not_cancel",
        ),
        "objective with a logarithm near 1": (
            "_losses: np.log1p(np.exp(margins, out=margins).sum(axis=0)) "
            "→ np.log(1 + np.exp(margins, out=margins).sum(axis=0))",
            "test_the_objective_is_right_where_the_losses_are_tiny",
        ),
    },
    ("tests", None, SLOW): {
        "no damping": (
            "line_search: damping = max(DAMPING_FACTOR * damping, FIRST_DAMPING) → break",
            "test_steps_are_damped_where_a_singular_value_would_pass_0",
        )
    },
}


@dataclass(frozen=True)
class Mutant:
    """What is broken: in `where`, `old` becomes `new`. Found if on `page`, of which `part` is run,
    `row` fails. The comment on `TABLE` says what these are.

    quick : whether it takes a second or two.
    """

    name: str
    where: str
    old: str
    new: str
    page: str
    row: str
    part: str
    quick: bool = True


def mutant_of(name, change, row, page, part=None, speed=None):
    """The mutant of an entry of `TABLE`. The `part` of a test is the test."""
    where, _, change = change.partition(": ")
    old, _, new = change.partition(" → ")
    return Mutant(name, where, old, new, page, row, part or row, speed != SLOW)


MUTANTS = [
    mutant_of(name, *entry, *key) for key, page in TABLE.items() for name, entry in page.items()
]


def control(page, part):
    return Mutant("control", "", "", "", page, "", part)


def placed(mutant):
    """(file, line, text of the file with `new` in it); ValueError unless there is one place."""
    if "/" not in mutant.where:
        return code_places.replaced(mutant.where, mutant.old, mutant.new)
    before, *after = (ROOT / mutant.where).read_text(encoding="utf-8").split(mutant.old)
    if len(after) != 1:
        raise ValueError(f"{mutant.where} holds {len(after)} times {mutant.old!r}: must be once")
    return ROOT / mutant.where, before.count("\n") + 1, before + mutant.new + after[0]


def file_of_test(row):
    """The file of tests, from ROOT, that has the test of this name."""
    holding = [
        file
        for file in sorted((ROOT / "tests").rglob("test_*.py"))
        if f"\ndef {row}(" in file.read_text(encoding="utf-8")
    ]
    if len(holding) != 1:
        raise ValueError(f"{len(holding)} files of tests define {row!r}: must be one")
    return holding[0].relative_to(ROOT)


def stored_rows(page):
    """The rows of the ledger of a page, as stored."""
    ledger = ROOT / "notebooks" / "ledgers" / f"{page.split('_', 1)[1]}.json"
    return json.loads(ledger.read_text(encoding="utf-8"))["rows"]


def fault(mutant):
    """Why a mutant cannot be run, as something that it names has changed; None if it can."""
    try:
        placed(mutant)
        if mutant.page == "tests":
            file_of_test(mutant.row)
        elif "Error: " not in mutant.row:
            rows = [row["what"] for row in stored_rows(mutant.page)]
            if not any(what.startswith(mutant.row) for what in rows):
                raise ValueError(f"no row of {mutant.page} begins {mutant.row!r}")
    except (OSError, SyntaxError, ValueError) as error:
        return f"mutant {mutant.name!r}: {error}"


def faults():
    """What is wrong with the table: mutants that cannot be run, names given twice."""
    names = [mutant.name for mutant in MUTANTS]
    twice = sorted({name for name in names if names.count(name) > 1})
    told = [f"mutant {name!r} is there twice" for name in twice]
    return told + [text for text in map(fault, MUTANTS) if text]


def statements(page, part):
    """The statements of a page up to `ledger.show()`, each as code, without drawing and what `part`
    leaves out.

    A statement goes if it uses a name that is left out, and then the names that it would bind are
    left out, too."""
    import pairs

    [source] = [path for path in pairs.sources() if path.stem == page]
    left_out, missing = DRAWING | PARTS[part], set()
    for cell in pairs.read_source(source).cells:
        for node in ast.parse(cell.source).body if cell.cell_type == "code" else []:
            code = compile(ast.Module([node], []), f"{page}, {cell.id}", "exec")
            if isinstance(node, (ast.Import, ast.ImportFrom)):
                missing |= left_out & {alias.name for alias in node.names}
                yield code
                continue
            names = [n for n in ast.walk(node) if isinstance(n, ast.Name)]
            bound = {n.id for n in names if isinstance(n.ctx, ast.Store)}
            bound |= {getattr(node, "name", None)}
            local = {n.arg for n in ast.walk(node) if isinstance(n, ast.arg)}
            if {n.id for n in names} - bound - local & missing:
                missing |= bound
                continue
            missing -= bound
            yield code
            if ast.unparse(node) == "ledger.show()":
                return


class _Names:
    """What pytest calls: the names of the tests that were run, and of those that failed."""

    def __init__(self):
        self.rows, self.failed = [], []

    def pytest_runtest_logreport(self, report):
        name = report.nodeid.rpartition("::")[2]
        if report.when == "call":
            self.rows.append(name)
        if report.failed:
            self.failed.append(name)


@contextlib.contextmanager
def broken(mutant, *parts):
    """A folder with copies of these parts of the checkout and the mutant in them, from which
    ncutils is then imported.
    """
    with tempfile.TemporaryDirectory() as folder:
        without = shutil.ignore_patterns("__pycache__")
        for part in parts:
            shutil.copytree(ROOT / part, Path(folder, part), ignore=without)
        if mutant.where:
            file, _, text = placed(mutant)
            Path(folder, file.relative_to(ROOT)).write_text(text, encoding="utf-8")
        sys.path.insert(0, folder)
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            yield Path(folder)
        os.chdir(ROOT)
        ran = sys.modules.get("ncutils")  # None where pytest found no test
        assert ran is None or Path(ran.__file__).is_relative_to(folder), "another ncutils was run"


def test_outcome(mutant):
    """Of a test: as `page_outcome`."""
    import pytest

    names = _Names()
    with broken(mutant, "ncutils", "tests") as folder:
        # nothing of the checkout's settings
        (folder / "pytest.ini").write_text("[pytest]\n", encoding="utf-8")
        os.chdir(folder)
        test = f"{file_of_test(mutant.part)}::{mutant.part}"
        status = int(pytest.main(["-q", "-p", "no:cacheprovider", test], plugins=[names]))
    ended = f"UsageError: pytest ended with status {status}"
    error = {0: None, 1: "LedgerError: tests failed"}.get(status, ended)
    return {"rows": names.rows, "failed": names.failed, "error": error}


def page_outcome(mutant):
    """Of a page: its rows, those that fail, and the error that stopped it or None."""
    sys.path.insert(0, str(ROOT / "notebooks"))
    codes = list(statements(mutant.page, mutant.part))
    with broken(mutant, "ncutils", "notebooks/results") as folder:
        os.chdir(folder / "notebooks")
        os.environ.pop("NCUTILS_LEDGERS", None)  # nothing is stored
        space, error = {"__name__": "__main__"}, None
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                for code in codes:
                    exec(code, space)
            except Exception as raised:  # a LedgerError where a row fails; others as they are
                error = f"{type(raised).__name__}: {raised}"
    rows = space["ledger"].rows if "ledger" in space else []
    return {
        "rows": [row["what"] for row in rows],
        "failed": [row["what"] for row in rows if not row["passed"]],
        "error": error,
    }


def outcome(mutant):
    """What comes of a page or test with the mutant, and seconds. To be called in a process of its
    own, which has not imported ncutils yet.
    """
    start = time.process_time()
    result = test_outcome(mutant) if mutant.page == "tests" else page_outcome(mutant)
    return result | {"seconds": round(time.process_time() - start, 1)}


def found(mutant, result):
    """Whether the row or the error that is named for the mutant is what failed; a control must
    pass.
    """
    if mutant.name == "control":
        return bool(result["rows"]) and result["error"] is None
    if result["error"] is not None and result["error"].startswith("LedgerError"):
        return any(what.startswith(mutant.row) for what in result["failed"])
    return (
        result["error"] is not None
        and "Error: " in mutant.row
        and result["error"].startswith(mutant.row)
    )


def chosen(quick=False, names=(), controls=None):
    """The mutants asked for, each page that they run before them as a control, or the first few."""
    if unknown := sorted(set(names) - {mutant.name for mutant in MUTANTS}):
        raise ValueError(f"no mutant {', '.join(map(repr, unknown))}")
    wanted = [m for m in MUTANTS if (m.quick or not quick) and (m.name in names or not names)]
    pages = list(dict.fromkeys((m.page, m.part) for m in wanted))
    return [control(*page) for page in pages[:controls]] + wanted


def run_all(mutants, jobs):
    """(mutant, outcome) of each in turn. Processes begin as copies of one that has imported all but
    ncutils.
    """
    import IPython.display  # noqa: F401
    import matplotlib
    import pandas  # noqa: F401
    import scipy.optimize  # noqa: F401
    import seaborn  # noqa: F401
    import torch

    matplotlib.use("Agg")
    torch.set_num_threads(1)
    fork = "fork" in multiprocessing.get_all_start_methods()  # without it, they import anew
    context = multiprocessing.get_context("fork" if fork else None)
    with context.Pool(jobs, maxtasksperchild=1) as pool:
        yield from zip(mutants, pool.imap(outcome, mutants, chunksize=1))


def line(mutant, result):
    """One line of what is printed."""
    failed = result["failed"]
    if not found(mutant, result):
        what = result["error"] or "every row passes"
        what = what if mutant.name == "control" else f"NOT FOUND by {mutant.row!r}: {what}"
    elif mutant.name == "control":
        what = f"all {len(result['rows'])} rows of part {mutant.part!r} pass"
    else:
        [what, *_] = [row for row in failed if row.startswith(mutant.row)] or [result["error"]]
        what += f" (and {len(failed) - 1} more)" if len(failed) > 1 else ""
    where = mutant.where.removeprefix("notebooks/") or "-"
    head = f"{mutant.name:48.48s}  {where:22.22s}  {mutant.page:14s}"
    return f"{head} {result['seconds']:5.1f} s  {what:.160s}"


def show_places(mutants):
    """Print where each stands, or why it cannot be run; the number of those that cannot."""
    count = 0
    for mutant in mutants:
        text = fault(mutant)
        count += text is not None
        file, number, _ = (Path(), 0, "") if text else placed(mutant)
        print(text or f"{file.relative_to(ROOT)}:{number}: {mutant.name} ({mutant.where})")
    return count


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("names", nargs="*", metavar="NAME", help="of mutants; all if none is given")
    add("--quick", action="store_true", help="only those that take a second or two")
    add("--list", action="store_true", help="say where each stands, or why nowhere; run nothing")
    add("--jobs", type=int, default=os.cpu_count(), help="at a time (default: one per core)")
    add("--controls", type=int, metavar="N", help="so many controls at most (default: all)")
    add("--json", action="store_true", help="print the outcomes as JSON, one a line")
    options = parser.parse_args(arguments)
    try:
        mutants = chosen(options.quick, options.names, options.controls)
    except ValueError as error:
        parser.error(str(error))
    if options.list:
        return 1 if show_places(m for m in mutants if m.name != "control") else 0
    if found_faults := faults():
        print("\n".join(found_faults), file=sys.stderr)
        return 2
    # before torch is imported: one thread and no GPU, as for the stored outputs
    one = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    os.environ.update(one, CUDA_VISIBLE_DEVICES="", TQDM_DISABLE="1", PYTHONDONTWRITEBYTECODE="1")
    missed = 0
    for mutant, result in run_all(mutants, options.jobs):
        missed += not found(mutant, result)
        told = {"name": mutant.name, "page": mutant.page, "part": mutant.part} | result
        print(json.dumps(told) if options.json else line(mutant, result), flush=True)
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
