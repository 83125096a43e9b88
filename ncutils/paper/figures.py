"""Figures of the paper's experiments: recorded networks beside the exact curves of (CVX) and
(CVX+).
"""

import io
import warnings
from dataclasses import replace
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

from .. import figures, metrics
from .._checks import check_choice
from .._files import write
from ..exact.convex import FEATURES
from ..exact.solver import solve
from ..theory import minority_threshold
from .results import results_of
from .settings import CLASSES, N_B, SIZES_LAM_Z
from .task import Plan

PROGRAM = {"linear": "exact, (CVX)", "relu": "exact, (CVX+)"}
AXES = {"lam_z": "λ_Z", "n_a": "n_A, images of a majority class", "structure": "structure"}
UNITS = {
    "cos_a": "cosine within A",
    "cos_b": "cosine within B",
    "cos_ab": "cosine across A and B",
    "a_b": "a_B (nats)",
    "length_b": "‖z_B‖ (nats)",
    "nc1": "NC1",
    "trace_ratio": "tr Σ_W / tr Σ_B",
}


def over_seeds(rows, measure):
    """Settings in order, and mean, least and largest of a measure over the seeds: four arrays."""
    groups = {}
    for row in rows:
        groups.setdefault(float(row["setting"]), []).append(float(row[measure] or "nan"))
    x = np.array(sorted(groups))
    parts = [np.array([f(groups[value]) for value in x]) for f in (np.mean, np.min, np.max)]
    return x, *parts


def exact_curve(plan, measure, features, points=100):
    """x, from the experiment's least to its largest setting, and the exact value of a measure
    there: "a_b", "length_b", "cos_a", "cos_b" or "cos_ab"."""
    if plan.k_a is None:
        raise ValueError(
            f"figure = {plan.figure!r}: has no curve over its structures; `draw_blocks` shows them"
        )
    values = plan.experiment.values[plan.k_a]  # all of the experiment's, also where fewer are run
    x = np.linspace(min(values), max(values), points)
    if plan.experiment.x == "n_a":
        x = np.unique((x / 2).round().astype(int) * 2)
    return x, np.array(
        [exact_measure(solve(plan.ufm(value), features), plan.k_a, measure) for value in x.tolist()]
    )


def exact_measure(solution, k_a, measure):
    """A measure of the exact solution, with the first `k_a` classes as A."""
    check_choice("measure", measure, ("a_b", "length_b", "cos_a", "cos_b", "cos_ab"))
    if measure == "a_b":
        return metrics.minority_gap(solution.logits, range(k_a, solution.ufm.num_classes))
    if measure == "length_b":
        return float(np.linalg.norm(solution.logits[:, k_a:], axis=0).mean())
    return metrics.group_means(solution.cosines(), k_a)[measure.removeprefix("cos_").upper()]


def networks(ax, rows, measure, style, label):
    """Networks: filled markers at the mean over seeds, with a bar from the least to the largest."""
    if not rows:
        raise ValueError(f"rows of {label!r} is empty: no such network was recorded")
    x, mean, low, high = over_seeds(rows, measure)
    color, band = figures.STYLES[style]["color"], f"_{label}, least and largest"
    ax.vlines(x, low, high, color=color, lw=1.2, label=band)
    figures.network(ax, x, mean, style, label, size=7)


def compare(ax, plan, measure, rows):
    """A measure over the settings: both exact curves, and the networks of each kind of features in
    `rows` {kind: rows}.
    """
    for kind in FEATURES:
        figures.exact(ax, *exact_curve(plan, measure, kind), kind, PROGRAM[kind])
    for kind, found in rows.items():
        networks(ax, found, measure, kind, f"{figures.STYLES[kind]['label']}, network")
    level = minority_threshold(N_B)
    if plan.experiment.name == "lambda":
        figures.reference(ax, "√n_B / N", x=level / plan.ufm(plan.values[0]).num_samples, at=0.55)
    elif plan.experiment.name == "sizes":  # λ_Z N = sqrt(n_B), N linear in n_A
        n_a = (level / SIZES_LAM_Z - (CLASSES - plan.k_a) * N_B) / plan.k_a
        figures.reference(ax, "λ_Z N = √n_B", x=n_a, at=0.55)
    ax.set(xlabel=AXES[plan.experiment.x], ylabel=UNITS[measure])


def angles(ax, plan, rows, kind):
    """Cosines within A, within B and across, over the settings: exact curves of `kind` and
    networks.
    """
    for group in ("A", "B", "AB"):
        measure = f"cos_{group.lower()}"
        figures.exact(ax, *exact_curve(plan, measure, kind), group)
        networks(ax, rows, measure, group, f"{figures.STYLES[group]['label']}, network")
    ax.set(xlabel=AXES["n_a"], ylabel="cosine of mean logits")


def logits_of(rows, setting):
    """Mean Z (K, K) over the seeds of a setting."""
    found = [
        np.array(row["logits"].split(), dtype=float)
        for row in rows
        if float(row["setting"]) == setting
    ]
    K = round(len(found[0]) ** 0.5)
    return np.mean(found, axis=0).reshape(K, K)


def draw(plan):
    """Draw the results that a plan's options have given so far, all settings and seeds, beside the
    exact curves.

    Options that are not the default are part of the picture's name. Returns its path; ValueError
    where there is no result.
    """
    figures.use_theme()
    plan = replace(plan, values=None)
    rows = results_of(plan)
    if not rows:
        raise ValueError(
            f"{plan.name}.csv in {plan.out} holds no result to draw: "
            "every setting was skipped or diverged"
        )
    panels = {"block": draw_blocks, "angles": draw_angles}.get(plan.experiment.name, draw_minority)
    fig = panels(plan, rows)
    fig.suptitle(
        f"{plan.network} on {plan.data}{' with test images' * plan.test_images}, "
        f"{plan.features} features, recipe {plan.recipe}, {plan.epochs} epochs",
        fontsize="medium",
        color=figures.GREY,
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # fonts without a glyph of the labels
        picture = io.BytesIO()
        fig.savefig(picture, format="png", dpi=160)
    plt.close(fig)
    path = picture_path(plan)
    write(path, picture.getbuffer())
    return path


def picture_path(plan):
    """The file of a plan's picture, named by the options that are not the default."""
    usual = Plan(plan.figure, recipe=plan.recipe)
    options = [
        f"-{name.replace('_', '-')}{getattr(plan, name)}"
        for name in ("epochs", "batch_size", "lr", "pool")
        if getattr(plan, name) != getattr(usual, name)
    ] + ["-test-images"] * plan.test_images
    return Path(plan.out) / f"{plan.name}{''.join(options)}.png"


def draw_minority(plan, rows):
    """Minority gap and length of the minority's mean logits, over the settings. Returns the
    figure.
    """
    fig, axes = figures.panels(1, 2, height=3.6, width=9.6)
    titles = ("Minority gap", "Length of the minority's mean logits")
    for ax, measure, title in zip(axes, ("a_b", "length_b"), titles):
        compare(ax, plan, measure, {plan.features: rows})
        ax.set_title(title)
    axes[1].legend(fontsize="small")
    return fig


def draw_angles(plan, rows):
    """Cosines, and the gap of the objective, over the settings. Returns the figure."""
    fig, (left, right) = figures.panels(1, 2, height=3.6, width=9.6)
    angles(left, plan, rows, plan.features)
    networks(right, rows, f"gap_{plan.features}", plan.features, "network")
    right.set(xlabel=AXES["n_a"], ylabel="relative gap of the objective", yscale="log")
    left.set_title("Cosines against the majority's size")
    right.set_title("Distance from the exact optimum")
    left.legend(fontsize="small")
    return fig


def draw_blocks(plan, rows):
    """A row of panels for each structure: NC1 and trace ratio over the epochs, Z of the network, Z
    exact. Returns the figure.
    """
    settings = sorted({float(row["setting"]) for row in rows})
    history = results_of(plan, history=True)
    fig, axes = figures.panels(len(settings), 3, height=3.3, width=11, squeeze=False)
    for structure, (left, middle, right) in zip(settings, axes):
        mine = [row for row in history if float(row["setting"]) == structure]
        _collapse(left, mine, f"Structure {structure:g}: features collapse")
        ufm = plan.ufm(int(structure))
        Z, exact = logits_of(rows, structure), solve(ufm, plan.features).logits
        bound, size = max(np.abs(Z).max(), np.abs(exact).max()), np.linalg.norm(exact)
        far = f", {np.linalg.norm(Z - exact) / size:.0%} off" if size else ""
        for ax, matrix, title in (
            (middle, Z, f"Z of the network{far}"),
            (right, exact, f"Z, {PROGRAM[plan.features]}"),
        ):
            figures.heatmap(ax, matrix, title, ufm.class_sizes, limits=bound, unit="nats")
    return fig


def _collapse(ax, moments, title):
    """NC1 and trace ratio over the epochs, with a band from the least to the largest seed."""
    rows = [row | {"setting": row["epoch"]} for row in moments]
    for measure, (color, _), line in zip(("nc1", "trace_ratio"), figures.OTHERS, ("-", "--")):
        x, mean, low, high = over_seeds(rows, measure)
        if np.isnan(mean).all():  # Z = 0 throughout
            continue
        band = f"_{UNITS[measure]}, least and largest"
        ax.fill_between(x, low, high, color=color, alpha=0.2, lw=0, label=band)
        ax.plot(x, mean, color=color, ls=line, marker=".", label=UNITS[measure])
    ax.set(xlabel="epoch", ylabel="variability within over between", title=title)
    if ax.lines:
        ax.set(xscale="log", yscale="log")
        ax.legend(fontsize="small")
