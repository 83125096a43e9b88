"""The claims, checked for class sizes of one's own: what the theory predicts beside the certified exact optimum.

A row compares numbers that come about in different ways: a closed form, the scalar equation of two groups, the conditions
of optimality, bounds from all of Z, or a trained model on one side, `solve` on the other.
"""

import math
from dataclasses import replace

import numpy as np

from . import metrics, theory
from .convex import cross_entropy, dual_bound, objective
from .ledger import CERTIFIED
from .report import Report, at_level, group_name, lines, prediction, two_lines
from .theory import Phase
from .train import train_ufm, ufm_objective
from .two_groups import solve_two_groups, solve_two_groups_log
from .ufm import UFM, choice, cosines_from_gram, whole

CLASSES = 2000  # more make matrices (K, K) slow
WORK = 10**7  # N K² up to which a UFM is trained: seconds on one processor
QUICK = 1e-3, 1e2  # λ_Z N over the largest w sqrt(n), within which training takes at most hundreds of iterations
RATIO = 10**6  # of w n; the certificate of the whole says little about the angles of still smaller classes
KINDS = {"logits": "columns of Z", "features": "class means", "classifier": "classifiers"}


class NotTwoGroups(ValueError):
    """A claim about two groups of classes was asked for others."""


def check(claim, ufm, seed=0):
    """Check a claim for class sizes and penalties of one's own.

    Parameters
    ----------
    claim : "collapse", "angles", "threshold" or "diminishing", the paper's claims (a) to (d), the last for two groups of
        classes; "all", these four; or "relu", nonnegative features, beyond the paper.
    ufm : UFM of at most 2000 classes, class weights allowed.
    seed : of the start of the UFM that "collapse" and "angles" train.

    Returns a `Report`: print it, or read `passed`, `verdict`, `rows`. One without a certificate has not passed, which
    happens for "relu" with a bias. Raises ValueError where an argument is not allowed.

    >>> from ncutils import UFM, check
    >>> report = check("threshold", UFM.from_lam_z([500] * 5 + [100] * 5, lam_z=0.003))
    >>> print(report.passed, report.relative_gap < 1e-12)
    True True
    """
    choice("claim", claim, (*CLAIMS, "all"))
    if not isinstance(ufm, UFM):
        raise ValueError(f"ufm = {ufm!r}: must be a UFM")
    if ufm.num_classes > CLASSES:
        raise ValueError(f"class_sizes of {ufm.num_classes} classes: must be at most {CLASSES}; solve takes more")
    if (share := ufm.weights * ufm.sizes).max() > RATIO * share.min():
        raise ValueError(f"class_sizes from {max(ufm.class_sizes)} to {min(ufm.class_sizes)}: the ratio of w n must be at most {RATIO}; "
                         "solve_two_groups takes larger ones")
    seed, report = whole("seed", seed, at_least=0), Report(claim, ufm)
    if claim != "relu":
        report.said.append(prediction(ufm))
    for name in ("collapse", "angles", "threshold", "diminishing") if claim == "all" else (claim,):
        report.theorem, rows = CLAIMS[name]
        try:
            rows(report, ufm, seed)
        except NotTwoGroups as error:
            if claim != "all":
                raise
            report.notes.append(str(error))
    report.about("prop-certificate", report.optima, at_most=math.inf)
    report.check_at_most(f"largest relative duality gap, exact optima solved: {len(report.optima)}", report.relative_gap, CERTIFIED)
    return report


def collapse(report, ufm, seed):
    """(a): the features of a class are one vector, and the UFM has the value of (CVX)."""
    exact, K = report.solve(ufm), ufm.num_classes
    Z, b, W, means = exact.logits, exact.bias, exact.classifier(K), exact.class_means(K)
    lower = _lower_bound(report, exact)
    report.check_at_most("largest sum of a column of Z, or of b, relatively", max(*abs(Z.sum(0)), abs(b.sum())) / (1 + abs(Z).max()), 1e-9)
    report.check_at_most("balance: ‖λ_W WᵀW − λ_H H̄DH̄ᵀ‖ / ‖λ_W WᵀW‖", metrics.balance_residual(W, means, ufm), 1e-12)
    trained = _trained(report, ufm, seed)
    if trained is None:
        return
    report.check("UFM with class means as features, value (CVX)", ufm_objective(ufm, W, means[:, ufm.labels], b, ufm.labels),
                 exact.objective, atol=1e-14, rtol=1e-12)
    H, excess = trained.features[0], trained.objectives[0] / lower - 1
    spread = ufm.lam_h / 2 * ((H - trained.class_means(0)[:, ufm.labels]) ** 2).sum() / lower
    report.check_at_least("trained UFM: objective / lower bound − 1", excess, -1e-12, evidence="trained")
    report.check_at_most("trained UFM: objective / lower bound − 1", excess, CERTIFIED, evidence="trained")
    report.check_at_most("trained UFM: (λ_H/2) Σ‖h − h̄‖² is no more", spread - excess, 1e-12, evidence="trained")
    if exact.rank:
        report.check_at_most("trained UFM: tr Σ_W / tr Σ_B", metrics.trace_ratio(H, ufm.labels), 1e-8, evidence="trained")


def angles(report, ufm, seed):
    """(b): Z is constant on blocks, so that there is one cosine within a group of classes and one for two groups."""
    exact, group = report.solve(ufm), np.empty(ufm.num_classes, dtype=int)
    _lower_bound(report, exact)
    for g, members in enumerate(ufm.groups.values()):
        group[members] = g
    if trained := _trained(report, ufm, seed):
        report.check_at_most("trained UFM: range of Z within a block (nats)", metrics.block_range(trained.logits(0), group), 2e-3,
                             evidence="trained")
    predicted = _cosines(report, exact, group)
    named = [(group_name(kind), members) for kind, members in report.some()]
    pairs = [(name, members[:2]) for name, members in named if len(members) > 1]
    pairs += [(f"{a} to {b}", (A[0], B[0])) for i, (a, A) in enumerate(named) for b, B in named[i + 1:]]
    for kind, label in KINDS.items():
        measured = exact.cosines(kind)
        if np.isnan(measured).any():
            report.notes.append(f"cosines of {label} that are zero")
        if len(named) == len(ufm.groups):
            for what, (k, l) in pairs:
                if not math.isnan(measured[k, l]):
                    report.check(f"cosine of {label}, {what}", measured[k, l], predicted[kind][k, l], atol=1e-7)
        off = ~np.isnan(measured)
        report.check_at_most(f"{label}: largest error of a cosine", abs(measured - predicted[kind])[off].max(initial=0.0), 1e-7)


def threshold(report, ufm, seed):
    """(c): a group of two classes or more is one vector if and only if λ_Z N ≥ w sqrt(n)."""
    exact, predicted, level = report.solve(ufm), theory.phase(ufm), ufm.lam_z * ufm.num_samples
    P = cross_entropy(exact.logits + exact.bias[:, None])[1]  # off its diagonal
    known = lines(ufm)
    found, touched = exact, [*known.values(), *(two_lines(ufm) if isinstance(predicted, Phase) else ())]
    if any(line <= level * (1 + 1e-12) and level <= line * (1 + 1e-12) for line in touched):
        report.said.append("on a line up to rounding, which counts as above it: phases are those a billionth further up")
        found = report.solve(at_level(ufm, level * (1 + 1e-9)))
    for kind, line in known.items():
        k, l = ufm.groups[kind][:2]
        merged, a = level * (1 + 1e-12) >= line, exact.group_gaps[kind]
        what = f"{group_name(kind)}: {'one vector' if merged else 'told apart'}, {level:.6g} {'≥' if merged else '<'} {line:.6g}"
        report.check_true(what, (found.group_gaps[kind] == 0) == merged)
        # 1 − p_own + p_other = T, the smaller of λ_Z N/(w sqrt(n)) and 1, leaves p_own/p_other = 1 + (1 − T)/p_other
        report.check(f"{group_name(kind)}: gap a (nats)", a, 0.0 if merged else math.log1p((1 - level / line) / P[l, k]), 1e-8, 1e-7)
    for kind, members in report.some():
        if len(members) > 1:
            report.located(f"{group_name(kind)}: one vector", known[kind], lambda one, kind=kind: one.group_gaps[kind] == 0)
    if not isinstance(predicted, Phase):
        report.check_at_least("rank of Z", found.rank, predicted.rank[0])
        return report.check_at_most("rank of Z", found.rank, predicted.rank[1])
    report.check_true(f"phase: {predicted.value}", found.phase == predicted)
    report.check_true(f"phase by the scalar equation: {predicted.value}", list(Phase)[int(_scalar(report, ufm).phase)] == predicted)
    minority, (v, trivial) = list(ufm.groups.values())[1], two_lines(ufm)
    report.located("minority zero", v, lambda one: not one.logits[:, minority].any())
    report.located("all zero", trivial, lambda one: one.rank == 0)


def diminishing(report, ufm, seed):
    """(d): with λ_Z N and n_A/n_B fixed, the cosines between columns of Z tend to −1/(K−1), like C/ln n_B."""
    if len(ufm.groups) != 2 or ufm.class_weights:
        weighted = ", with class weights" if ufm.class_weights else ""
        raise NotTwoGroups(f"class_sizes of {len(ufm.groups)} group(s){weighted}: diminishing must have two groups of classes, of "
                           "different sizes and equal weights, since it keeps n_A/n_B while n_B grows")
    (n_a, A), (n_b, B) = ufm.groups.items()
    K, c = ufm.num_classes, ufm.lam_z * ufm.num_samples
    log_ratio, log_n_b = math.log(n_a) - math.log(n_b), math.log(n_b)
    pairs = {"A": tuple(A[:2]), "B": tuple(B[:2]), "AB": (A[0], B[0])}

    def cosines(log_n):
        return report.keep(solve_two_groups_log(
            len(A), len(B), log_ratio, math.log(c) - np.asarray(log_n) / 2, ufm.lam_b)).cosines()

    for times in (1, 10, 100, 1000):
        sizes = [n * times for n in ufm.class_sizes]
        measured = report.solve(replace(ufm, class_sizes=sizes, lam_w=ufm.lam_w / times, lam_h=ufm.lam_h / times)).cosines()
        for group, value in cosines(log_n_b + math.log(times)).items():
            if not math.isnan(value):
                report.check(f"n_B = {n_b * times}: cosine {group}", measured[pairs[group]], value, atol=1e-7)
    log_n = np.array([1e3, 1e4, 1e5, 5e5, 1e6, 2e6])
    deviation = {group: value + 1 / (K - 1) for group, value in cosines(log_n).items()}
    if K > 2:
        largest = np.nanmax(np.abs(list(deviation.values())), axis=0)
        report.check_true("ln n_B from 1e3 to 2e6: largest |cos + 1/(K−1)| falls", bool((np.diff(largest) < 0).all()))
    report.theorem = "prop-rate"
    report.keep(report.optima[-1])
    for group, limit in theory.deviation_constants(len(A), len(B), n_a / n_b, c).items():
        if not math.isnan(limit):
            # C + D/ln n_B + E/ln² n_B + …: at three values, each twice the one before, D and E cancel
            extrapolated = deviation[group][3:] * log_n[3:] @ [1 / 3, -2, 8 / 3]
            report.check(f"(cos {group} + 1/(K−1)) ln n_B → C", extrapolated, limit, atol=1e-7, rtol=1e-7)


def relu(report, ufm, seed):
    """Beyond the paper: with H ≥ 0 each class has a feature direction of its own or none."""
    exact, level, K = report.solve(ufm, "relu"), ufm.lam_z * ufm.num_samples, ufm.num_classes
    scale = ufm.weights * np.sqrt(ufm.sizes)
    slope = scale * np.linalg.norm(cross_entropy(exact.logits + exact.bias[:, None])[1], axis=0) / level
    alive = exact.logits.any(axis=0)
    report.said.append(f"λ_Z N = {level:.6g}, features H ≥ 0: {alive.sum()} of {K} classes have a feature")
    report.check_at_most("classes with a feature: largest error of w √n ‖e − p‖ / (λ_Z N) = 1",
                         abs(slope[alive] - 1).max(initial=0.0), 1e-7)
    report.check_at_most("classes without: largest w √n ‖e − p‖ / (λ_Z N)", slope[~alive].max(initial=0.0), 1 + 1e-9)
    report.check_at_least("optimal value / that with features of either sign", exact.objective / report.solve(ufm).objective, 1 - 1e-12)
    if math.isfinite(ufm.lam_b):
        return report.notes.append("closed forms, which have no bias")
    for kind, members in report.some():
        k, others = members[0], np.arange(K) != members[0]
        # classes do not interact: as in the balanced problem of one sample a class at the same λ_Z N/(w sqrt(n))
        closed = theory.relu_logits([1] * K, level / scale[k] / K)[:, 0]
        report.check(f"{group_name(kind)}: a in z = a (e − 1/K)", exact.logits[k, k] - exact.logits[others, k].mean(),
                     closed[0] - closed[1], atol=1e-8, rtol=1e-8)
        report.located(f"{group_name(kind)}: zero", theory.relu_vanishing_threshold(1.0, K) * scale[k],
                       lambda one, k=k: not one.logits[:, k].any(), "relu")


CLAIMS = {"collapse": ("thm-collapse", collapse), "angles": ("thm-blocks", angles), "threshold": ("thm-threshold", threshold),
          "diminishing": ("thm-limit", diminishing), "relu": ("prop-relu", relu)}


def _lower_bound(report, exact):
    """A lower bound from all K × K entries of Z, where `solve` has one from the groups; and its row."""
    lower = dual_bound(exact.ufm, exact.logits, exact.bias, exact.rank)
    value = objective(exact.ufm, exact.logits, exact.bias)
    report.check_at_most("(CVX) / lower bound − 1, both from all entries of Z", value / lower - 1, CERTIFIED)
    return lower


def _trained(report, ufm, seed):
    """A UFM trained from a random start, or None and a note where that is much work."""
    work, level = ufm.num_samples * ufm.num_classes**2, ufm.lam_z * ufm.num_samples / (ufm.weights * np.sqrt(ufm.sizes)).max()
    slow = {f"N K² = {work} is above {WORK}": work > WORK,
            f"λ_Z N is {level:.1e} of the largest w √n, and training slow": not QUICK[0] <= level <= QUICK[1],
            f"λ_b = {ufm.lam_b:g} is above 1, and training slow": 1 < ufm.lam_b < math.inf}
    for why in slow:
        if slow[why]:
            return report.notes.append(f"rows with all N features: {why}")
    return train_ufm(ufm, dim=ufm.num_classes, seed=seed, iterations=2000, tol=1e-10, device="cpu")


def _scalar(report, ufm):
    """The solution of two groups by the scalar equation."""
    (n_a, A), (n_b, B) = ufm.groups.items()
    return report.keep(solve_two_groups(len(A), len(B), float(n_a), float(n_b), ufm.lam_z, ufm.lam_b))


def _cosines(report, exact, group):
    """Cosines {kind: (K, K)} as predicted, for classes in these groups (K,)."""
    ufm, Z = exact.ufm, exact.logits
    if len(ufm.groups) == 1:
        report.said.append("predicted cosines: simplex ETF")
        return dict.fromkeys(KINDS, theory.simplex_etf(ufm.num_classes))
    if len(ufm.groups) == 2 and not ufm.class_weights:
        report.said.append("predicted cosines: scalar equation of two groups")
        two = _scalar(report, ufm)
        values = {kind: np.array([two.cosines(kind)[g] for g in ("A", "AB", "B")]) for kind in KINDS}
        return {kind: np.where(np.eye(ufm.num_classes), 1.0, value[group[:, None] + group]) for kind, value in values.items()}
    # λ_W W = G D^{1/2} H̄ᵀ and λ_H H̄ D^{1/2} = WᵀG with G = (I − P) diag(w) D^{1/2}/N give Gram matrices without factors of Z
    report.said.append("predicted cosines: conditions of optimality")
    errors = -cross_entropy(Z + exact.bias[:, None])[1] * ufm.weights  # (I − P) diag(w)
    return {"logits": metrics.cosines(Z), "features": cosines_from_gram(errors.T @ Z),
            "classifier": cosines_from_gram(Z * ufm.sizes @ errors.T)}
