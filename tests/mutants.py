"""Break the package in one place at a time, run a page, and see whether the right row of its ledger
fails.

    python tests/mutants.py [--quick] [--jobs N] [--json] [NAME ...]

A mutant is one exact replacement in one file of a copy of ncutils (or of the recorded results). The
page's own statements are then executed up to `ledger.show()`, unchanged and in order, in a process
of their own. Left out are the statements that draw, and, to save time, those that rest on what a
mutant's `part` leaves out: "network" nothing, "trained" networks, "exact" trained UFMs as well,
"general" the batched two-group solver too. Nothing that is run is changed by that: a row either
stands in the ledger as on the page or is missing. What no page rests on, since it is about problems
harder than those of the pages, is run as a file of tests instead: its "rows" are the names of the
tests. Each page or file is first run without a mutant (the control): every row has to pass. A
mutant counts as found where the row that is named for it fails, or the error that is named for it
stops the page.
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

ROOT = Path(__file__).resolve().parent.parent
DRAWING = {"figures", "angles", "compare", "draw_blocks", "networks"}  # imported under these names
PARTS = {"network": set(), "trained": {"train_network"}, "exact": {"train_network", "train_ufm"}}
PARTS["general"] = PARTS["exact"] | {"solve_two_groups_log"}


@dataclass(frozen=True)
class Mutant:
    """What is broken: in `file`, `old` becomes `new`. Found if on `page`, of which `part` is run,
    `row` fails.

    page : a page by its name, or a file of tests by its path, of which `part` is what pytest takes
        for -k.
    row : how the text of a row, or the name of a test, that must fail begins; of an error where it
        begins with the name of one.
    quick : whether it is run by `make test`; all are by `make mutants`.
    """

    name: str
    file: str
    old: str
    new: str
    page: str
    row: str
    part: str = "exact"
    quick: bool = True


BELOW = "ArithmeticError: objective"  # below its lower bound: `solve` refuses to return that
# the ledger refuses optima without a certificate
OPTIMA = "ValueError: optima have a relative duality gap of"

# Replacements as slips would make them, by claim. Rows are named by how their text begins.
MUTANTS = [
    # (a) collapse: the convex program, its certificate, and training
    Mutant(
        "certificate with the sign flipped",
        "ncutils/convex.py",
        "return primal - dual +",
        "return dual - primal +",
        "01_collapse",
        BELOW,
    ),
    Mutant(
        "bias term added to the dual, not subtracted",
        "ncutils/blocks.py",
        "value -= slope @ (slope / self.counts) / (2 * self.lam_b)",
        "value += slope @ (slope / self.counts) / (2 * self.lam_b)",
        "01_collapse",
        BELOW,
    ),
    Mutant(
        "bias term of the dual left out",
        "ncutils/blocks.py",
        "value -= slope @ (slope / self.counts) / (2 * self.lam_b)",
        "value -= 0.0",
        "01_collapse",
        BELOW,
    ),
    Mutant(
        "solver stopped after 3 steps",
        "ncutils/convex.py",
        "tol=1e-10, max_iterations=200",
        "tol=1e-10, max_iterations=3",
        "01_collapse",
        "exact: relative duality gap",
    ),
    Mutant(
        "singular values shrunk by half of λ_Z",
        "ncutils/newton.py",
        "shrink(lengths, t * weight), np.minimum",
        "shrink(lengths, t * weight / 2), np.minimum",
        "01_collapse",
        OPTIMA,
    ),
    Mutant(
        "λ_W for λ_W/2, as in the authors' code",
        "ncutils/train.py",
        "ufm.lam_w / 2 * (W**2).sum()",
        "ufm.lam_w * (W**2).sum()",
        "01_collapse",
        "exact: UFM objective at the factors of Z",
    ),
    Mutant(
        "class means without D^{-1/2}",
        "ncutils/convex.py",
        "self._in_dimension(dim, self._factors[1]) / np.sqrt(self.ufm.sizes)",
        "self._in_dimension(dim, self._factors[1])",
        "01_collapse",
        "exact: UFM objective at the factors of Z",
    ),
    Mutant(
        "(λ_W/λ_H)^{1/2} for ^{1/4}",
        "ncutils/convex.py",
        "scale = self.ufm.lam_w**0.25 / self.ufm.lam_h**0.25",
        "scale = self.ufm.lam_w**0.5 / self.ufm.lam_h**0.5",
        "01_collapse",
        "exact: balance residual",
    ),
    Mutant(
        "bias with the wrong sign",
        "ncutils/convex.py",
        "return self._group_bias[self._group]",
        "return -self._group_bias[self._group]",
        "01_collapse",
        "exact: UFM objective at the factors of Z",
    ),
    Mutant(
        "balance without D",
        "ncutils/metrics.py",
        "weights = ufm.sizes if",
        "weights = np.ones(ufm.num_classes) if",
        "01_collapse",
        "exact: balance residual",
    ),
    Mutant(
        "NC1 of the class means, not of the features",
        "ncutils/metrics.py",
        "within = features - means[:, index]",
        "within = means[:, index] - means[:, index]",
        "01_collapse",
        "trained UFM, 3 starts: least NC1",
        "trained",
    ),
    Mutant(
        "labels of the trained UFM shuffled",
        "ncutils/train.py",
        "    labels = [ufm.labels for ufm in ufms]\n",
        "    labels = [np.random.default_rng(0).permutation(ufm.labels) for ufm in ufms]\n",
        "01_collapse",
        "trained UFM, 3 starts: largest NC1",
        "trained",
    ),
    Mutant(
        "training stopped at a tenth",
        "ncutils/train.py",
        "for iteration in range(1, iterations + 1):",
        "for iteration in range(1, iterations // 10 + 1):",
        "01_collapse",
        "trained UFM, 3 starts: largest relative gap",
        "trained",
    ),
    Mutant(
        "training with λ_Z for λ_Z/2",
        "ncutils/train.py",
        "penalty = lam / 2 * (sq(W) + sq(H))",
        "penalty = lam * (sq(W) + sq(H))",
        "01_collapse",
        "trained UFM, 3 starts: largest relative gap",
        "trained",
    ),
    Mutant(
        "mean logits with the bias in them",
        "ncutils/train.py",
        "] @ self.class_means(member)\n",
        "] @ self.class_means(member) + self.biases[member][:, None]\n",
        "01_collapse",
        "trained UFM, 3 starts: largest ‖Z − Z exact‖",
        "trained",
    ),
    Mutant(
        "images with shuffled labels",
        "ncutils/data.py",
        "return images, np.repeat(np.arange(len(sizes)), sizes)",
        "return images, one.permutation(np.repeat(np.arange(len(sizes)), sizes))",
        "01_collapse",
        "network: relative gap to the exact optimum",
        "network",
        quick=False,
    ),
    Mutant(
        "network: penalty on H of the batch only",
        "ncutils/network_training.py",
        "lam_h * N / batch.shape[-1] * (H**2)",
        "lam_h * (H**2)",
        "01_collapse",
        "network: relative gap to the exact optimum",
        "network",
        quick=False,
    ),
    Mutant(
        "network: no penalty on W",
        "ncutils/network_training.py",
        "penalty = (lam_w * (W**2).sum((1, 2)) + ",
        "penalty = (",
        "01_collapse",
        "network: balance residual",
        "network",
        quick=False,
    ),
    Mutant(
        "network: learning rate that never falls",
        "ncutils/recipes.py",
        "return min(1.0, done / (0.03 * epochs)) * (1 + math.cos(math.pi * done / epochs)) / 2",
        "return min(1.0, done / (0.03 * epochs))",
        "01_collapse",
        "network: relative gap to the exact optimum",
        "network",
        quick=False,
    ),
    Mutant(
        "network: last layer always a ReLU",
        "ncutils/networks.py",
        'super().__init__(*(layers if features == "relu" else layers[:-1]))',
        "super().__init__(*layers)",
        "01_collapse",
        "network: relative gap to the exact optimum",
        "network",
        quick=False,
    ),
    # (b) angles
    Mutant(
        "cosines of centred rows, not of raw ones",
        "ncutils/metrics.py",
        "return cosines_from_gram(matrix.T @ matrix)",
        "return cosines_from_gram(np.cov(matrix, rowvar=False))",
        "02_angles",
        "trained UFM, r = 1 … 100: largest error of any cosine",
        "trained",
    ),
    Mutant(
        "features and classifier exchanged",
        "ncutils/train.py",
        'self.class_means(member) if of == "features" else',
        'self.class_means(member) if of != "features" else',
        "02_angles",
        "trained UFM, r = 1 … 100: largest error of any cosine",
        "trained",
    ),
    Mutant(
        "N as if all classes were the largest",
        "ncutils/ufm.py",
        "return sum(self.class_sizes)",
        "return len(self.class_sizes) * max(self.class_sizes)",
        "02_angles",
        "5000×4, 4000×3, 3000×3: largest relative error",
    ),
    Mutant(
        "off-diagonal mean of K entries too many",
        "ncutils/metrics.py",
        "(k * (k - 1)))",
        "(k * k))",
        "02_angles",
        "r = 1: a in Z = a (I − 11ᵀ/K)",
    ),
    Mutant(
        "a_g not divided by sqrt(n_g)",
        "ncutils/convex.py",
        "zip(self.ufm.groups, x / np.sqrt(self._blocks.sizes), self._blocks.counts)",
        "zip(self.ufm.groups, x, self._blocks.counts)",
        "02_angles",
        "5000×4, 4000×3, 3000×3: largest difference of a_g",
    ),
    Mutant(
        "features from U, not from V",
        "ncutils/convex.py",
        "(Vt.T * s) @ Vt) / np.outer",
        "(U * s) @ U.T) / np.outer",
        "00_summary",
        "500/50/50: angle between classes 2 and 3",
    ),
    Mutant(
        "simplex at −1/K",
        "ncutils/theory.py",
        "return (K * np.eye(K) - 1) / (K - 1)",
        "return ((K + 1) * np.eye(K) - 1) / K",
        "00_summary",
        "500/500/500: angle between classes 1 and 2",
    ),
    Mutant(
        "n of the wrong class in D, blocks",
        "ncutils/blocks.py",
        "self.root = np.sqrt(sizes * counts[:, None] * counts)",
        "self.root = np.sqrt(sizes[:, None] * counts[:, None] * counts)",
        "00_summary",
        OPTIMA,
    ),
    Mutant(
        "D for D^{1/2} within a group",
        "ncutils/blocks.py",
        "np.sqrt(np.maximum(self.more, 1) * sizes)",
        "np.sqrt(np.maximum(self.more, 1)) * sizes",
        "00_summary",
        OPTIMA,
    ),
    Mutant(
        "λ_W = 2 λ_Z",
        "ncutils/ufm.py",
        "return cls(class_sizes, lam_z * balance,",
        "return cls(class_sizes, 2 * lam_z * balance,",
        "00_summary",
        "most images at which classes 2 and 3 are one",
    ),
    Mutant(
        "r for 1/r in λ_Z N of the scalar equation",
        "ncutils/two_groups.py",
        "log_tau = np.log(lam_z) + np.log(n_b) / 2 + log_ratio",
        "log_tau = np.log(lam_z) + np.log(n_b) / 2 - log_ratio",
        "00_summary",
        "500/50/50: angle between classes 2 and 3",
    ),
    Mutant(
        "scalar equation: K_A for K_B",
        "ncutils/two_groups.py",
        "log_reach = log_tau - log_c - (log_all + log_k.flip(0)) / 2",
        "log_reach = log_tau - log_c - (log_all + log_k) / 2",
        "00_summary",
        OPTIMA,
    ),
    # (c) threshold and phases
    Mutant(
        "threshold × 1.02",
        "ncutils/theory.py",
        'return math.sqrt(positive("n_b", n_b))',
        'return 1.02 * math.sqrt(positive("n_b", n_b))',
        "03_threshold",
        "bisection, 5+5 classes, 500/100, λ_b = 0.02",
        "general",
    ),
    Mutant(
        "2 λ_Z for λ_Z",
        "ncutils/ufm.py",
        "return math.sqrt(product) if",
        "return 2 * math.sqrt(product) if",
        "03_threshold",
        "bisection, 5+5 classes, 500/100, λ_b = 0.02",
        "general",
    ),
    Mutant(
        "rank without the K_g − 1 of a group",
        "ncutils/newton.py",
        "return round(self.blocks.norm_weight**2 @ (self.shrunk > 0))",
        "return int((self.shrunk > 0).sum())",
        "03_threshold",
        "bisection, 3+7 classes, 500/100, λ_b = inf",
        "general",
    ),
    Mutant(
        "v with K_A and K_B exchanged",
        "ncutils/theory.py",
        "math.exp(self.log_k + self.log_k_b - self.log_r",
        "math.exp(self.log_k + self.log_k_a - self.log_r",
        "03_threshold",
        "3+7 classes, λ_b = inf: ‖z_B‖",
        "general",
    ),
    Mutant(
        "v with λ_b/2 for λ_b",
        "ncutils/theory.py",
        "log_odds - math.log(lam_b)",
        "log_odds - math.log(lam_b / 2)",
        "03_threshold",
        "5+5 classes, λ_b = 0.02: ‖z_B‖",
        "general",
    ),
    Mutant(
        "minority zero from the first crossing on, whatever follows",
        "ncutils/theory.py",
        "    return any(minority.excess_at(min(log_x + shift, 0.0)) <= 0 for shift in (0.0, -2 * ON_THE_LINE))\n",
        "    return level >= vanishing_threshold(k_a, k_b, n_a, n_b, lam_b)\n",
        "03_threshold",
        "10+10000 classes, 10000/1, λ_b = 0.0016, λ_Z N = 10",
        "general",
    ),
    Mutant(
        "one crossing taken for granted",
        "ncutils/theory.py",
        "if minority.unique() else minority.steps(*minority.span)",
        "",
        "03_threshold",
        "10+10000 classes: zero from the first crossing on, not from the second",
    ),
    Mutant(
        "trivial from sqrt(n_B) on",
        "ncutils/theory.py",
        "    return math.sqrt(n_a)\n",
        "    return math.sqrt(n_b)\n",
        "03_threshold",
        "general solver on the pixels beside",
        quick=False,
    ),
    Mutant(
        "trivial threshold × 1.02",
        "ncutils/theory.py",
        "    return math.sqrt(n_a)\n",
        "    return 1.02 * math.sqrt(n_a)\n",
        "03_threshold",
        "general solver on the pixels beside",
        quick=False,
    ),
    Mutant(
        "phase read off the majority's columns",
        "ncutils/convex.py",
        "if not self._point[:, 1].any():",
        "if not self._point[:, 0].any():",
        "03_threshold",
        "general solver on the pixels beside",
        quick=False,
    ),
    Mutant(
        "phases of the map: distinct and collapsed exchanged",
        "ncutils/two_groups.py",
        "np.where(a_b == 0, 1, 0)",
        "np.where(a_b == 0, 0, 1)",
        "03_threshold",
        "map of a million, λ_b = inf: solutions out of",
        quick=False,
    ),
    Mutant(
        "phases of the map: vanished and trivial exchanged",
        "ncutils/two_groups.py",
        "np.where((a_a == 0) | (arguments[0] == 1), 3, 2)",
        "np.where((a_a == 0) | (arguments[0] == 1), 2, 3)",
        "03_threshold",
        "map of a million, λ_b = 0.02: solutions out of",
        quick=False,
    ),
    Mutant(
        "map: a_g = 0 from 0.9 of the line on",
        "ncutils/two_groups.py",
        "a = torch.where((p.k > 1) & (p.log_tau < -ON_THE_LINE), a, 0.0)",
        "a = torch.where((p.k > 1) & (p.log_tau < -0.1), a, 0.0)",
        "03_threshold",
        OPTIMA,
        quick=False,
    ),
    Mutant(
        "networks without a warm start",
        "ncutils/network_training.py",
        "lr=None, warm_start=True,",
        "lr=None, warm_start=False,",
        "03_threshold",
        "λ_Z = 0.00325: minority accuracy 0, minority means still 0.2 nats apart",
        "network",
        quick=False,
    ),
    Mutant(
        "accuracy without the bias",
        "ncutils/train.py",
        "@ self.features[member] + self.biases[member][:, None]\n",
        "@ self.features[member]\n",
        "03_threshold",
        "λ_Z = 0.00325: minority accuracy 0",
        "network",
        quick=False,
    ),
    # (d) the limit
    Mutant(
        "C without the factor 2",
        "ncutils/theory.py",
        "slope = 2 * first /",
        "slope = first /",
        "04_diminishing",
        "r = 2: (cos A + 1/9) · ln n_B → C",
    ),
    Mutant(
        "S with n_B for n_A",
        "ncutils/theory.py",
        "cross = log_n_a / 2 -",
        "cross = log_n_b / 2 -",
        "04_diminishing",
        "ln n_B = 3000: |Z − ½ ln(n_B) (I − 11ᵀ/K) − S|",
    ),
    Mutant(
        "S with K_A and K_B exchanged",
        "ncutils/theory.py",
        "math.log1p(-k_a * math.exp(-log_ratio / 2) / root) + math.log(k_b)",
        "math.log1p(-k_b * math.exp(-log_ratio / 2) / root) + math.log(k_a)",
        "04_diminishing",
        "3+7 classes, ln n_B = 3000: |Z − ½ ln(n_B) (I − 11ᵀ/K) − S|",
    ),
    Mutant(
        "SELI with D for D^{1/2}",
        "ncutils/theory.py",
        "(np.eye(K) - 1 / K) * np.sqrt(n))",
        "(np.eye(K) - 1 / K) * n)",
        "04_diminishing",
        "features at ln n_B = 3000: largest distance",
    ),
    Mutant(
        "SELI: features and classifier exchanged",
        "ncutils/theory.py",
        "return cosines_from_gram(features), cosines_from_gram((U * s) @ U.T)",
        "return cosines_from_gram((U * s) @ U.T), cosines_from_gram(features)",
        "04_diminishing",
        "classifier at ln n_B = 3000: largest distance",
    ),
    Mutant(
        "mean cosines with the diagonal in them",
        "ncutils/metrics.py",
        "different = ~np.eye(K, dtype=bool)\n",
        "different = np.ones((K, K), dtype=bool)\n",
        "04_diminishing",
        "scalar equation against the general solver",
    ),
    Mutant(
        "scalar equation: 2 λ_b for λ_b",
        "ncutils/two_groups.py",
        "(k * torch.exp(2 * log_root)).sum(0) / lam_b",
        "(k * torch.exp(2 * log_root)).sum(0) / (2 * lam_b)",
        "04_diminishing",
        "ArithmeticError: a dual bound above",
    ),
    # ReLU features
    Mutant(
        "ReLU threshold without 1 − 1/K",
        "ncutils/theory.py",
        "return math.sqrt(n_k * (1 - 1 / K))",
        "return math.sqrt(n_k)",
        "05_relu",
        "5+5 classes, no bias, ReLU: λ_Z N / sqrt(n_B)",
    ),
    Mutant(
        "ReLU closed form: K for K − 1",
        "ncutils/theory.py",
        "math.log(K * (K - 1))",
        "math.log(K * K)",
        "05_relu",
        "no bias, ReLU, 5+5, 500/100: largest difference of Z",
    ),
    Mutant(
        "(CVX+) with one class a group",
        "ncutils/newton.py",
        "weight = blocks.lam * np.sqrt(blocks.counts)",
        "weight = blocks.lam * np.ones(blocks.G)",
        "05_relu",
        "80 values of λ_Z: the optimal value",
    ),
    Mutant(
        "ReLU certificate: dual not scaled to its norm",
        "ncutils/convex.py",
        "probabilities = blocks.feasible(probabilities, _nonnegative_norm)",
        "probabilities = found.probabilities",
        "05_relu",
        "certificate open, tail 5000 to 50",
    ),
    Mutant(
        "relative gap with the sign flipped",
        "ncutils/metrics.py",
        "return objective / optimum - 1",
        "return 1 - objective / optimum",
        "05_relu",
        "certificate open, 40, 40, 5, 5: training ends",
        "trained",
        quick=False,
    ),
    Mutant(
        "trained features not kept ≥ 0",
        "ncutils/train.py",
        "(lambda W, H, b: (W, H.clamp(min=0), b)) if",
        "(lambda *point: point) if",
        "05_relu",
        "trained UFM, H ≥ 0, d = 160: largest |cosine|",
        "trained",
        quick=False,
    ),
    Mutant(
        "dead features: 0 on any sample",
        "ncutils/train.py",
        "== 0).all(axis=1).sum()",
        "== 0).any(axis=1).sum()",
        "05_relu",
        "trained UFM, H ≥ 0, 48 starts: features that are 0",
        "trained",
        quick=False,
    ),
    # The paper's experiments, recorded
    Mutant(
        "experiments with λ_b = 0.04",
        "ncutils/experiments.py",
        "lam_z, 0.02, balance=10)",
        "lam_z, 0.04, balance=10)",
        "09_networks",
        "gaps and distances as recorded",
    ),
    Mutant(
        "experiments with λ_W : λ_H of 25, not 100",
        "ncutils/experiments.py",
        "lam_z, 0.02, balance=10)",
        "lam_z, 0.02, balance=5)",
        "09_networks",
        "recorded runs with other class sizes or penalties",
    ),
    Mutant(
        "experiments with K_A and K_B exchanged",
        "ncutils/experiments.py",
        "UFM.from_lam_z([n_a] * k_a + [n_b] * (10 - k_a)",
        "UFM.from_lam_z([n_a] * (10 - k_a) + [n_b] * k_a",
        "09_networks",
        "recorded runs with other class sizes or penalties",
    ),
    Mutant(
        "a recorded run that diverged",
        "notebooks/results/lambda-ka5-fashion-mnist-mlp-linear-fast.csv",
        "distinct,done,1.44781,0.000114015,",
        "distinct,diverged,1.44781,0.000114015,",
        "09_networks",
        "recorded runs that are missing or diverged",
    ),
    Mutant(
        "a recorded objective, one digit changed",
        "notebooks/results/lambda-ka5-fashion-mnist-mlp-linear-fast.csv",
        "distinct,done,1.44781,0.000114015,",
        "distinct,done,1.45781,0.000114015,",
        "09_networks",
        "gaps and distances as recorded",
    ),
]


CERTIFICATE, TWO_GROUPS = "tests/test_certificate.py", "tests/test_two_groups.py"
MUTANTS += [  # what once went wrong on hard problems
    Mutant(
        "dual point not scaled to its norm",
        "ncutils/blocks.py",
        "return q * (self.lam / size if size > self.lam else 1.0)",
        "return q",
        CERTIFICATE,
        "test_problems_that_went_wrong_once",
        "went_wrong or wrong_dual_point",
    ),
    Mutant(
        "dual point not kept in the simplex",
        "ncutils/convex.py",
        "Q = Q / (total if total > 1 else 1.0)",
        "Q = Q / 1.0",
        CERTIFICATE,
        "test_the_bound_from_any_logits_is_finite",
        "any_logits",
    ),
    Mutant(
        "a negative gap clipped",
        "ncutils/convex.py",
        "return primal - dual +",
        "return max(primal - dual, 0.0) +",
        CERTIFICATE,
        "test_a_bound_above_the_objective_is_an_error",
        "bound_above",
    ),
    Mutant(
        "a wrong direction left out of M",
        "ncutils/blocks.py",
        "self.balanced = complement(self.unit)",
        "self.balanced = complement(self.unit[::-1])",
        CERTIFICATE,
        "test_problems_that_went_wrong_once",
        "went_wrong",
    ),
    Mutant(
        "1 − p by subtraction in the preconditioner",
        "ncutils/blocks.py",
        "np.sqrt(b.per * alpha * (multiplicity * p * inverse).sum(0))",
        "np.sqrt(b.per - (s**2 * inverse).sum(0))",
        CERTIFICATE,
        "test_problems_that_went_wrong_once",
        "went_wrong",
    ),
    Mutant(
        "stopped at a gap, whatever the active set",
        "ncutils/newton.py",
        "now.change**2 <= tol and now.term.clearance > CLEAR, still",
        "now.change**2 <= tol, still",
        CERTIFICATE,
        "test_the_phase_beside_a_threshold",
        "phase_beside",
    ),
    Mutant(
        "stopped at a gap, whatever small classes do",
        "ncutils/newton.py",
        "now.change**2 <= tol and now.term.clearance > CLEAR, still",
        "now.term.clearance > CLEAR, still",
        CERTIFICATE,
        "test_problems_that_went_wrong_once",
        "went_wrong",
    ),
    Mutant(
        "no damping",
        "ncutils/newton.py",
        "damping = max(TIMES * damping, STRONG)",
        "break",
        CERTIFICATE,
        "test_steps_are_damped_where_a_singular_value_would_pass_0",
        "damped",
        quick=False,
    ),
    Mutant(
        "two groups: a root finder that only follows slopes",
        "ncutils/two_groups.py",
        "if number >= PATIENCE:",
        "if number >= STEPS:",
        TWO_GROUPS,
        "test_a_root_where_the_equation_is_all_but_flat",
        "all_but_flat",
    ),
    Mutant(
        "cosine across as 1 − (1 − f)",
        "ncutils/two_groups.py",
        "root = np.where(some, between / np.where(some, length, 1.0), alone)",
        "root = np.sqrt(1 - np.where(some, within / np.where(some, length, 1.0), 0.0) ** 2)",
        TWO_GROUPS,
        "test_a_cosine_across_of_1e_9_does_not_cancel",
        "does_not_cancel",
    ),
    Mutant(
        "objective with a logarithm near 1",
        "ncutils/train.py",
        "return np.log1p(np.exp(margins, out=margins).sum(axis=0)) + excess",
        "return np.log(1 + np.exp(margins, out=margins).sum(axis=0)) + excess",
        "tests/test_train.py",
        "test_the_objective_is_right_where_the_losses_are_tiny",
        "losses_are_tiny",
    ),
]


def control(page, part):
    return Mutant("control", "", "", "", page, "", part)


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
            bound = {n.id for n in names if isinstance(n.ctx, ast.Store)} | {
                getattr(node, "name", None)
            }
            local = {n.arg for n in ast.walk(node) if isinstance(n, ast.arg)}
            if {n.id for n in names} - bound - local & missing:
                missing |= bound
                continue
            missing -= bound
            yield code
            if ast.unparse(node) == "ledger.show()":
                return


def replaced(text, mutant):
    """`text` of the file with the replacement made; ValueError unless there is exactly one place
    for it.
    """
    if text.count(mutant.old) != 1:
        raise ValueError(
            f"mutant {mutant.name!r}: {mutant.file} holds {text.count(mutant.old)} times {mutant.old!r}: must be once; "
            "the file has changed, so change the mutant in tests/mutants.py, too"
        )
    return text.replace(mutant.old, mutant.new)


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
        for part in parts:
            shutil.copytree(
                ROOT / part, Path(folder, part), ignore=shutil.ignore_patterns("__pycache__")
            )
        if mutant.file:
            file = Path(folder, mutant.file)
            file.write_text(replaced(file.read_text(encoding="utf-8"), mutant), encoding="utf-8")
        sys.path.insert(0, folder)
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            yield Path(folder)
        os.chdir(ROOT)
        assert Path(sys.modules["ncutils"].__file__).is_relative_to(folder), (
            "the mutant is not what was run"
        )


def test_outcome(mutant):
    """As `outcome`, of a file of tests."""
    import pytest

    start, names = time.process_time(), _Names()
    with broken(mutant, "ncutils", "tests") as folder:
        (folder / "pytest.ini").write_text(
            "[pytest]\n", encoding="utf-8"
        )  # nothing of the checkout's settings
        os.chdir(folder)
        status = pytest.main(
            ["-q", "-p", "no:cacheprovider", "-k", mutant.part, mutant.page], plugins=[names]
        )
    error = {0: None, 1: "LedgerError: tests failed"}.get(
        int(status), f"UsageError: pytest ended with status {int(status)}"
    )
    return {
        "rows": names.rows,
        "failed": names.failed,
        "error": error,
        "seconds": round(time.process_time() - start, 1),
    }


def outcome(mutant):
    """Run the page with the mutant: its rows, those that fail, the error that stopped it or None,
    and seconds.

    To be called in a process of its own, which has not imported ncutils yet."""
    if mutant.page.endswith(".py"):
        return test_outcome(mutant)
    start = time.process_time()
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
            except (
                Exception
            ) as raised:  # a LedgerError where a row fails; any other is reported as it is
                error = f"{type(raised).__name__}: {raised}"
    rows = space["ledger"].rows if "ledger" in space else []
    return {
        "rows": [row["what"] for row in rows],
        "failed": [row["what"] for row in rows if not row["passed"]],
        "error": error,
        "seconds": round(time.process_time() - start, 1),
    }


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


def faults():
    """What is wrong with the table: replacements that cannot be made, since a file was changed, and
    names given twice.
    """
    names = [mutant.name for mutant in MUTANTS]
    found = [
        f"mutant {name!r} is there twice" for name in sorted(set(names)) if names.count(name) > 1
    ]
    for mutant in MUTANTS:
        try:
            replaced((ROOT / mutant.file).read_text(encoding="utf-8"), mutant)
        except ValueError as error:
            found.append(str(error))
    return found


def chosen(quick=False, names=()):
    """The mutants asked for, each page that they run before them as a control."""
    if unknown := sorted(set(names) - {mutant.name for mutant in MUTANTS}):
        raise ValueError(f"no mutant {', '.join(map(repr, unknown))}")
    wanted = [m for m in MUTANTS if (m.quick or not quick) and (m.name in names or not names)]
    return [control(*key) for key in dict.fromkeys((m.page, m.part) for m in wanted)] + wanted


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
    method = (
        "fork" if "fork" in multiprocessing.get_all_start_methods() else None
    )  # without it, they import anew
    with multiprocessing.get_context(method).Pool(jobs, maxtasksperchild=1) as pool:
        yield from zip(mutants, pool.imap(outcome, mutants, chunksize=1))


def line(mutant, result):
    """One line of the table."""
    where = mutant.file.removeprefix("ncutils/").removeprefix("notebooks/") or "-"
    if mutant.name == "control":
        what = (
            f"all {len(result['rows'])} rows of part {mutant.part!r} pass"
            if found(mutant, result)
            else result["error"]
        )
    elif found(mutant, result):
        [first, *_] = [what for what in result["failed"] if what.startswith(mutant.row)] or [
            result["error"]
        ]
        what = first + (
            f" (and {len(result['failed']) - 1} more)" if len(result["failed"]) > 1 else ""
        )
    else:
        what = f"NOT FOUND by {mutant.row!r}: {result['error'] or 'every row passes'}"
    return f"{mutant.name:48.48s}  {where:22.22s}  {mutant.page:14s} {result['seconds']:5.1f} s  {what:.160s}"


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help="of mutants; all if none is given")
    parser.add_argument("--quick", action="store_true", help="only those that `make test` runs")
    parser.add_argument(
        "--jobs",
        type=int,
        default=os.cpu_count(),
        help="processes at a time (default: one per core)",
    )
    parser.add_argument(
        "--json", action="store_true", help="print the outcomes as JSON, one a line"
    )
    options = parser.parse_args(arguments)
    try:
        mutants = chosen(options.quick, options.names)
    except ValueError as error:
        parser.error(str(error))
    if found_faults := faults():
        print("\n".join(found_faults), file=sys.stderr)
        return 2
    # before torch is imported: one thread and no GPU, as for the stored outputs
    os.environ.update(
        OMP_NUM_THREADS="1",
        MKL_NUM_THREADS="1",
        CUDA_VISIBLE_DEVICES="",
        TQDM_DISABLE="1",
        PYTHONDONTWRITEBYTECODE="1",
    )
    missed = 0
    for mutant, result in run_all(mutants, options.jobs):
        missed += not found(mutant, result)
        print(
            json.dumps({"name": mutant.name, "page": mutant.page, "part": mutant.part} | result)
            if options.json
            else line(mutant, result),
            flush=True,
        )
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
