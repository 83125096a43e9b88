"""The claims, checked for class sizes of one's own: what the theory predicts beside the certified
exact optimum.

A row compares numbers that come about in different ways: a closed form, the scalar equation of two
groups, the conditions of optimality, bounds from all of Z, or a trained model on one side, `solve`
on the other.
"""

import math
from dataclasses import replace

import numpy as np

from . import metrics, theory
from ._checks import check_choice, check_integer
from ._linalg import cosines_from_gram
from .exact.convex import cross_entropy
from .exact.two_groups import solve_two_groups_log
from .ledger import CERTIFIED
from .report import WORK, Report, group_name, prediction
from .training.objective import ufm_objective
from .ufm import ON_THE_LINE, UFM, Phase

CLASSES = 2000  # more make matrices (K, K) slow
RATIO = 10**6  # of w n; the certificate says little about the angles of still smaller classes
KINDS = {"logits": "columns of Z", "features": "class means", "classifier": "classifiers"}


class DoesNotApply(ValueError):
    """A claim about other class sizes than these."""


def check(claim, ufm, seed=0):
    """Check a claim for class sizes and penalties of one's own.

    Parameters
    ----------
    claim : "collapse", "angles", "threshold" or "diminishing", the paper's claims (a) to (d), the
        last for two groups of classes; "all", these four; or "relu", nonnegative features, beyond
        the paper.
    ufm : UFM of at most 2000 classes, class weights allowed.
    seed : of the start of the UFM that "collapse" and "angles" train.

    Returns a `Report`: print it, or read `passed`, `verdict`, `rows`. One without a certificate has
    not passed, which happens for "relu" with a bias. Raises ValueError where an argument is not
    allowed.

    >>> from ncutils import UFM, check
    >>> report = check("threshold", UFM.from_lam_z([500] * 5 + [100] * 5, lam_z=0.003))
    >>> print(report.passed, report.relative_gap < 1e-12)
    True True
    """
    check_choice("claim", claim, (*CLAIMS, "all"))
    if not isinstance(ufm, UFM):
        raise ValueError(f"ufm = {ufm!r}: must be a UFM")
    if ufm.num_classes > CLASSES:
        raise ValueError(
            f"class_sizes of {ufm.num_classes} classes: must be at most {CLASSES}; solve takes more"
        )
    if (share := ufm.weights * ufm.sizes).max() > RATIO * share.min():
        raise ValueError(
            f"class_sizes from {max(ufm.class_sizes)} to {min(ufm.class_sizes)}: the ratio of w n "
            f"must be at most {RATIO}; solve_two_groups takes larger ones"
        )
    seed, report = check_integer("seed", seed, at_least=0), Report(claim, ufm)
    if claim != "relu":
        report.said.append(prediction(ufm))
    for name in ("collapse", "angles", "threshold", "diminishing") if claim == "all" else (claim,):
        (report.theorem, rows), before = CLAIMS[name], len(report.rows)
        try:
            rows(report, ufm, seed)
        except DoesNotApply as error:
            if claim != "all":
                raise
            report.notes.append(str(error))
        if claim == "all":
            for row in report.rows[before:]:
                row["what"] = f"{name}: {row['what']}"
    report.about("prop-certificate", report.optima, at_most=math.inf)
    certificate = f"certificate: largest relative gap of {len(report.optima)} exact optima"
    report.check_at_most(certificate, report.relative_gap, CERTIFIED)
    return report


def collapse(report, ufm, seed):
    """(a): the features of a class are one vector, and the UFM has the value of (CVX)."""
    exact, K = report.solve(ufm), ufm.num_classes
    Z, b, W, means = exact.logits, exact.bias, exact.classifier(K), exact.class_means(K)
    lower = report.lower_bound(exact)
    sums = max(*abs(Z.sum(axis=0)), abs(b.sum())) / (1 + abs(Z).max())
    report.check_at_most("largest sum of a column of Z, or of b, relatively", sums, 1e-9)
    residual = metrics.balance_residual(W, means, ufm)
    report.check_at_most("balance: ‖λ_W WᵀW − λ_H H̄DH̄ᵀ‖ / ‖λ_W WᵀW‖", residual, 1e-12)
    if ufm.num_samples * K <= WORK:
        what = "UFM with class means as features, value (CVX)"
        value = ufm_objective(ufm, W, means[:, ufm.labels], b, ufm.labels)
        report.check(what, value, exact.objective, atol=1e-14, rtol=1e-12)
    trained = report.trained(seed)
    if trained is None:
        return
    H, excess = trained.features, trained.objective / lower - 1
    spread = ufm.lam_h / 2 * ((H - trained.class_means()[:, ufm.labels]) ** 2).sum() / lower
    what = "trained UFM: objective / lower bound − 1"
    report.check_at_least(what, excess, -1e-12, evidence="trained")
    report.check_at_most(what, excess, CERTIFIED, evidence="trained")
    what = "trained UFM: (λ_H/2) Σ‖h − h̄‖² is no more"
    report.check_at_most(what, spread - excess, 1e-12, evidence="trained")
    if exact.rank:
        ratio = metrics.trace_ratio(H, ufm.labels)
        report.check_at_most("trained UFM: tr Σ_W / tr Σ_B", ratio, 1e-6, evidence="trained")


def angles(report, ufm, seed):
    """(b): Z is constant on blocks, so that there is one cosine within a group of classes and one
    for two groups.
    """
    exact, group = report.solve(report.off_lines()), np.empty(ufm.num_classes, dtype=int)
    report.lower_bound(exact)
    for g, members in enumerate(ufm.groups.values()):
        group[members] = g
    if trained := report.trained(seed):
        spread = metrics.block_range(trained.logits, group)
        what = "trained UFM: range of Z within a block (nats)"
        report.check_at_most(what, spread, 5e-3, evidence="trained")
    predicted = _cosines(report, exact, group)
    named = [(group_name(kind), members) for kind, members in report.some()]
    pairs = [(name, tuple(members[:2])) for name, members in named if len(members) > 1]
    pairs += [
        (f"{a} to {b}", (A[0], B[0])) for i, (a, A) in enumerate(named) for b, B in named[i + 1 :]
    ]
    for kind, label in KINDS.items():
        measured = exact.cosines(kind)
        if np.isnan(measured).any():
            report.notes.append(f"cosines of {label} that are zero")
        for what, pair in pairs:
            if not math.isnan(measured[pair]):
                what = f"cosine of {label}, {what}"
                report.check(what, measured[pair], predicted[kind][pair], atol=1e-7)
        off = ~np.isnan(measured)
        error = abs(measured - predicted[kind])[off].max(initial=0.0)
        report.check_at_most(f"{label}: largest error of a cosine", error, 1e-7)


def threshold(report, ufm, seed):
    """(c): a group of two classes or more is one vector if and only if λ_Z N ≥ w sqrt(n)."""
    predicted, level = theory.phase(ufm), ufm.lam_z * ufm.num_samples
    lines = theory.thresholds(ufm)
    known = lines.merged
    if not known and not isinstance(predicted, Phase):
        raise DoesNotApply(
            "class_sizes without two classes of one size: "
            "threshold must have a group of them that may merge"
        )
    exact, aside = report.solve(ufm), report.off_lines()
    P = cross_entropy(exact.logits + exact.bias[:, None])[1]  # off its diagonal
    found = exact if aside is ufm else report.solve(aside)
    for kind, line in known.items():
        k, l = ufm.groups[kind][:2]
        merged, a = level * (1 + ON_THE_LINE) >= line, exact.group_gaps[kind]
        what = f"told apart, {level:.6g} < {line:.6g}"
        what = f"one vector, {level:.6g} ≥ {line:.6g}" if merged else what
        report.check_true(f"{group_name(kind)}: {what}", (found.group_gaps[kind] == 0) == merged)
        # 1 − p_own + p_other = T, the smaller of λ_Z N/(w sqrt(n)) and 1, leaves p_own/p_other = 1
        # + (1 − T)/p_other
        gap = 0.0 if merged else math.log1p((1 - level / line) / P[l, k])
        report.check(f"{group_name(kind)}: gap a (nats)", a, gap, atol=1e-8, rtol=1e-7)
    for kind, members in report.some():
        if len(members) > 1:
            what = f"{group_name(kind)}: one vector"
            report.located(what, known[kind], lambda one, kind=kind: one.group_gaps[kind] == 0)
    if not isinstance(predicted, Phase):
        report.check_at_least("rank of Z", found.rank, predicted.rank[0])
        return report.check_at_most("rank of Z", found.rank, predicted.rank[1])
    report.check_true(f"phase: {predicted.value}", found.phase == predicted)
    scalar = report.solve_two_groups().phase
    report.check_true(f"phase by the scalar equation: {predicted.value}", scalar == predicted)
    not_zero = lambda one: one.phase in (Phase.DISTINCT, Phase.MINORITY_COLLAPSE)
    for i, v in enumerate(lines.vanished):
        if i % 2:
            report.located("minority not zero again", v, not_zero)
        else:
            report.located("minority zero", v, lambda one: not not_zero(one))
    report.located("all zero", lines.trivial, lambda one: one.rank == 0)


def diminishing(report, ufm, seed):
    """(d): with λ_Z N and n_A/n_B fixed, the cosines between columns of Z tend to −1/(K−1), like
    C/ln n_B.
    """
    if len(ufm.groups) != 2 or ufm.class_weights:
        weighted = ", with class weights" if ufm.class_weights else ""
        raise DoesNotApply(
            f"class_sizes of {len(ufm.groups)} group(s){weighted}: diminishing must have two "
            "groups of classes, of different sizes and equal weights, since it keeps n_A/n_B "
            "while n_B grows"
        )
    (n_a, A), (n_b, B) = ufm.groups.items()
    K, c = ufm.num_classes, ufm.lam_z * ufm.num_samples
    log_ratio, log_n_b = math.log(n_a) - math.log(n_b), math.log(n_b)
    pairs = {"A": tuple(A[:2]), "B": tuple(B[:2]), "AB": (A[0], B[0])}
    pairs = {group: pair for group, pair in pairs.items() if len(pair) == 2}

    def cosines(log_n):
        log_tau = math.log(c) - np.asarray(log_n) / 2
        two = solve_two_groups_log(len(A), len(B), log_ratio, log_tau, ufm.lam_b)
        return report.keep(two).cosines()

    for times in (1, 10, 100, 1000):
        sizes = [n * times for n in ufm.class_sizes]
        larger = replace(ufm, class_sizes=sizes, lam_w=ufm.lam_w / times, lam_h=ufm.lam_h / times)
        measured = report.solve(larger).cosines()
        predicted = cosines(log_n_b + math.log(times))
        for group, pair in pairs.items():
            one, other = measured[pair], predicted[group]
            if not math.isnan(one + other):  # a vector that is zero has no angle
                report.check(f"n_B = {n_b * times}: cosine {group}", one, other, atol=1e-7)
    log_n = np.array([1e3, 1e4, 1e5, 5e5, 1e6, 2e6])
    far, limits = cosines(log_n), theory.deviation_constants(len(A), len(B), n_a / n_b, c)
    deviation = {group: far[group] + 1 / (K - 1) for group in pairs}
    if K > 2:
        largest = np.abs(list(deviation.values())).max(axis=0)
        falls = bool((np.diff(largest) < 0).all())
        report.check_true("ln n_B from 1e3 to 2e6: largest |cos + 1/(K−1)| falls", falls)
    report.about("prop-rate", report.optima, at_most=math.inf)
    for group in pairs:
        # C + D/ln n_B + E/ln² n_B + …: at three values, each twice the one before, D and E cancel
        extrapolated = deviation[group][3:] * log_n[3:] @ [1 / 3, -2, 8 / 3]
        what = f"(cos {group} + 1/(K−1)) ln n_B → C"
        report.check(what, extrapolated, limits[group], atol=1e-7, rtol=1e-7)


def relu(report, ufm, seed):
    """Beyond the paper: with H ≥ 0 each class has a feature direction of its own or none."""
    exact, level, K = report.solve(ufm, "relu"), ufm.lam_z * ufm.num_samples, ufm.num_classes
    scale = ufm.weights * np.sqrt(ufm.sizes)
    errors = cross_entropy(exact.logits + exact.bias[:, None])[1]
    slope = scale * np.linalg.norm(errors, axis=0) / level
    alive = exact.logits.any(axis=0)
    report.said.append(
        f"λ_Z N = {level:.6g}, features H ≥ 0: {alive.sum()} of {K} classes have a feature"
    )
    what = "classes with a feature: largest error of w √n ‖e − p‖ / (λ_Z N) = 1"
    report.check_at_most(what, abs(slope[alive] - 1).max(initial=0.0), 1e-7)
    what = "classes without: largest w √n ‖e − p‖ / (λ_Z N)"
    report.check_at_most(what, slope[~alive].max(initial=0.0), 1 + 1e-9)
    ratio = exact.objective / report.solve(ufm).objective
    report.check_at_least("optimal value / that with features of either sign", ratio, 1 - 1e-12)
    if math.isfinite(ufm.lam_b):
        return report.notes.append("closed forms, which have no bias")
    for kind, members in report.some():
        k, others, name = members[0], np.arange(K) != members[0], group_name(kind)
        # classes do not interact: as in the balanced problem of one sample a class at the same λ_Z
        # N/(w sqrt(n))
        closed = theory.relu_logits([1] * K, level / scale[k] / K)[:, 0]
        a, predicted = exact.logits[k, k] - exact.logits[others, k].mean(), closed[0] - closed[1]
        report.check(f"{name}: a in z = a (e − 1/K)", a, predicted, atol=1e-8, rtol=1e-8)
        line, zero = theory.relu_vanishing_threshold(1.0, K) * scale[k], f"{name}: zero"
        report.located(zero, line, lambda one, k=k: not one.logits[:, k].any(), "relu")


CLAIMS = {
    "collapse": ("thm-collapse", collapse),
    "angles": ("thm-blocks", angles),
    "threshold": ("thm-threshold", threshold),
    "diminishing": ("thm-limit", diminishing),
    "relu": ("prop-relu", relu),
}


def _cosines(report, exact, group):
    """Cosines {kind: (K, K)} as predicted, for classes in these groups (K,). `report` says how."""
    ufm, Z = exact.ufm, exact.logits
    if len(ufm.groups) == 1:
        report.said.append("predicted cosines: simplex ETF")
        return dict.fromkeys(KINDS, theory.simplex_etf(ufm.num_classes))
    if len(ufm.groups) == 2 and not ufm.class_weights:
        report.said.append("predicted cosines: scalar equation of two groups")
        two = report.solve_two_groups()
        values = {
            kind: np.array([two.cosines(kind)[g] for g in ("A", "AB", "B")]) for kind in KINDS
        }
        same = np.eye(ufm.num_classes)
        return {
            kind: np.where(same, 1.0, value[group[:, None] + group])
            for kind, value in values.items()
        }
    # X = Z D^{1/2} = U Σ Vᵀ, G = (I − P) diag(w) D^{1/2}/N: GᵀX = λ_Z V Σ Vᵀ and XGᵀ = λ_Z U Σ Uᵀ
    # at the optimum only
    report.said.append("predicted cosines: conditions of optimality")
    errors = -cross_entropy(Z + exact.bias[:, None])[1] * ufm.weights  # (I − P) diag(w)
    features = errors.T @ Z
    return {
        "logits": cosines_from_gram(features * ufm.sizes @ features.T),
        "features": cosines_from_gram(features),
        "classifier": cosines_from_gram(Z * ufm.sizes @ errors.T),
    }
