"""One look for all figures: majority, minority and across keep colour and marker on every page;
a line is exact, a hollow marker a trained UFM, a filled marker a network on images."""

import matplotlib.pyplot as plt
import numpy as np
import seaborn as sns
from IPython import get_ipython
from matplotlib.patheffects import withStroke
from matplotlib_inline.backend_inline import set_matplotlib_formats

# Okabe and Ito's palette, told apart by colour-blind readers; markers tell them apart in grey.
STYLES = {
    "A": {"color": "#0072B2", "marker": "o", "linestyle": "-", "label": "majority A"},
    "B": {"color": "#D55E00", "marker": "s", "linestyle": "--", "label": "minority B"},
    "AB": {"color": "#007A5A", "marker": "^", "linestyle": "-.", "label": "across A, B"},
}
# Two curves that are both about the minority, for two numbers of majority classes.
STYLES |= {
    "K_A = 5": {"color": "#7A3E9D", "marker": "D", "linestyle": "-", "label": "K_A = 5"},
    "K_A = 3": {"color": "#8A6D00", "marker": "v", "linestyle": "--", "label": "K_A = 3"},
}
# The two kinds of last features.
STYLES |= {
    "linear": {"color": "#3F4A5A", "marker": "P", "linestyle": "-", "label": "linear features"},
    "relu": {"color": "#B5176B", "marker": "X", "linestyle": "--", "label": "ReLU features"},
}
GREY = "#555555"
# (colour, marker) of things that are no groups, such as starts, measures or single classes.
OTHERS = [("#1B1B1B", "x"), ("#56B4E9", "d"), ("#CC79A7", "*")]


def use_theme():
    """Set the companion's seaborn theme for this Python session; in a notebook, pictures of twice the resolution."""
    sns.set_theme(context="notebook", style="ticks", palette=[color for color, _ in OTHERS], font_scale=0.85, rc={
        "figure.dpi": 110, "figure.constrained_layout.use": True, "axes.spines.top": False,
        "axes.spines.right": False, "axes.titlesize": "medium", "axes.titleweight": "bold",
        "axes.titlelocation": "left", "legend.frameon": False, "axes.grid": True, "grid.color": "#e6e6e6"})
    if get_ipython() is not None:
        set_matplotlib_formats("retina")


def panels(rows=1, columns=1, height=3.2, width=7.6, **options):
    """Figure and axes, `width` inches for all columns together and `height` for each row."""
    fig, axes = plt.subplots(rows, columns, figsize=(width, height * rows), **options)
    for ax in fig.axes:
        ax.locator_params(nbins=6)  # tick labels stay apart
    return fig, axes


def exact(ax, x, y, group, label=None, width=1.8):
    """Exact values as a line."""
    style = STYLES[group]
    ax.plot(x, y, color=style["color"], linestyle=style["linestyle"], lw=width,
            label=label or f"{style['label']}, exact")


def trained(ax, x, y, group, label=None):
    """Trained UFMs as hollow markers."""
    style = STYLES[group]
    ax.plot(x, y, linestyle="none", marker=style["marker"], mfc="none", mec=style["color"], mew=1.4, ms=8,
            label=label or f"{style['label']}, trained UFM")


def network(ax, x, y, group, label=None, size=5):
    """Networks on images as filled markers."""
    style = STYLES[group]
    ax.plot(x, y, linestyle="none", marker=style["marker"], color=style["color"], ms=size, mec="white", mew=0.6,
            label=label or f"{style['label']}, network")


def limit(ax, x, y, group, label):
    """A limit or asymptote of exact values, as a thin dotted line."""
    style = STYLES[group]
    ax.plot(x, y, color=style["color"], linestyle=":", lw=1.2, label=f"{style['label']}, {label}")


def reference(ax, label, x=None, y=None, at=0.98):
    """A dotted grey line at x or y, with its label along it, at fraction `at` of the other axis."""
    if x is not None:
        ax.axvline(x, color=GREY, ls=":", lw=1.4)
        ax.annotate(label, (x, at), xycoords=("data", "axes fraction"), xytext=(3, 0),
                    textcoords="offset points", color=GREY, size="small", va="top")
    else:
        ax.axhline(y, color=GREY, ls=":", lw=1.4)
        ax.annotate(label, (at, y), xycoords=("axes fraction", "data"), xytext=(0, -3),
                    textcoords="offset points", color=GREY, size="small", ha="right", va="top")


def threshold(ax, x, group, label):
    """A predicted threshold as a vertical dotted line in the group's colour, named in the legend."""
    ax.axvline(x, color=STYLES[group]["color"], ls=":", lw=1.6, label=label)


def heatmap(ax, matrix, title, class_sizes, limits=None, unit="", bar=True):
    """A (K, K) matrix with lines between groups of equal class size; NaN is hatched.

    `bar` draws a colour bar and names the classes; without it `limits` ought to be those of a neighbour."""
    ax.set_facecolor("white")
    bound = np.abs(limits or matrix[np.isfinite(matrix)]).max(initial=1e-12)
    sns.heatmap(matrix, ax=ax, cmap="RdBu_r", vmin=-bound, vmax=bound, square=True, xticklabels=int(bar),
                yticklabels=int(bar), cbar=bar, cbar_kws={"label": unit, "shrink": 0.8} if bar else None)
    if np.isnan(matrix).any():
        K = len(matrix)
        ax.fill_between([0, K], 0, K, hatch="///", facecolor="none", edgecolor="#bbbbbb", lw=0, zorder=0)
    for edge in np.flatnonzero(np.diff(class_sizes)) + 1:
        ax.axhline(edge, color="black", lw=1.2)
        ax.axvline(edge, color="black", lw=1.2)
    ax.tick_params(length=0, labelrotation=0, labelsize="small")
    ax.grid(False)
    ax.set_title(title)


def plane_of_means(ax, features, labels, classes, title):
    """Features (d, N) of three classes, projected on the plane through their class means; means as stars."""
    groups = [features[:, labels == k] for k in classes]
    means = np.stack([group.mean(axis=1) for group in groups], axis=1)
    center = means.mean(axis=1, keepdims=True)
    plane = np.linalg.svd(means - center)[0][:, :2]
    plane = plane * np.sign(plane.sum(axis=0))  # the sign of a singular vector is arbitrary
    for k, group, mean, (color, marker) in zip(classes, groups, means.T, OTHERS):
        x, y = plane.T @ (group - center)
        ax.plot(x, y, linestyle="none", marker=marker, color=color, ms=3, alpha=0.25)
        x, y = plane.T @ (mean - center[:, 0])
        ax.plot(x, y, linestyle="none", marker=marker, color=color, ms=12, mew=2.5, label=f"class {k}")
    ax.set(title=title, xlabel="first coordinate in the plane", ylabel="second coordinate")
    ax.set_aspect("equal", adjustable="datalim")


def field(ax, x, y, values, title, unit):
    """Values (len(y), len(x)) ≥ 0 over log axes, one pixel each; what is exactly 0 is grey."""
    mesh = ax.pcolormesh(x, y, np.ma.masked_equal(values, 0.0), cmap="YlGnBu", vmin=0.0, rasterized=True)
    ax.set_facecolor("#c8c8c8")
    ax.figure.colorbar(mesh, ax=ax, label=unit, shrink=0.9)
    ax.set(xscale="log", yscale="log", title=title, xlim=(x[0], x[-1]), ylim=(y[0], y[-1]))
    ax.grid(False)


def boundary(ax, x, y, linestyle, label):
    """A predicted boundary over a field: black, edged in white."""
    ax.plot(x, y, color="black", ls=linestyle, lw=1.4, label=label,
            path_effects=[withStroke(linewidth=3, foreground="white")])


def directions(ax, means, class_sizes, title):
    """Class means (d, 3) of a majority class and two minority classes, in the plane that holds them: nothing is projected,
    since Z has rank 2 at most. Class 1, the majority, points up and has length 1; class 2, to the right, is a hollow line and
    class 3 a dashed one, so that both are seen where they coincide. Angles are written between neighbours."""
    unit = np.linalg.norm(means[:, 0])
    if not unit:
        raise ValueError("means: class 1 is 0 and has no direction")
    up = means[:, 0] / unit
    right = means[:, 1] - up * (up @ means[:, 1])
    across = np.linalg.norm(right)
    right = right / across if across > 1e-9 * unit else 0 * right
    x, y = np.stack([right, up]) @ means / unit
    length = np.hypot(x, y)
    if not np.allclose(length, np.linalg.norm(means, axis=0) / unit, atol=1e-9):
        raise ValueError("means: must lie in one plane through 0")
    merged = bool(np.hypot(x[1] - x[2], y[1] - y[2]) < 1e-9)

    for k, (width, size) in enumerate(((3, 11), (10, 19), (2.5, 8))):
        style = STYLES["A" if k == 0 else "B"]
        line = dict(color=style["color"], lw=width, ls="-" if k < 2 else (0, (2, 1)), solid_capstyle="butt", zorder=2 + k)
        ax.plot([0, x[k]], [0, y[k]], **line)
        if k == 1:
            ax.plot([0, x[k]], [0, y[k]], **line | {"color": "white", "lw": width - 4})
        ax.plot(x[k], y[k], style["marker"], color=style["color"], mfc="white" if k == 1 else None, mew=2, ms=size, zorder=6 + k)
        if k < 2 or not merged:
            name = "classes 2 and 3" if merged and k else f"class {k + 1}"
            ax.annotate(
                f"{name}\n{class_sizes[k]} images{' each' if merged and k else ''}", (x[k], y[k]),
                xytext=(0, 14 if y[k] > 0 else -14), textcoords="offset points", color=style["color"],
                ha="center", va="bottom" if y[k] > 0 else "top")

    turn = np.degrees(np.arctan2(x, y))  # clockwise from the majority
    ends = [0, turn[1]] if merged else [0, turn[1], turn[2] % 360, 360]
    for start, end in zip(ends, ends[1:]):
        arc, middle = np.radians(np.linspace(start, end, 100)), np.radians((start + end) / 2)
        ax.plot(0.26 * np.sin(arc), 0.26 * np.cos(arc), color=GREY, lw=1.2)
        ax.text(0.53 * np.sin(middle), 0.45 * np.cos(middle), f"{end - start:.0f}°", fontsize="large", ha="center", va="center")
    if merged:
        ax.text(-0.3, 0.6 * y[1], "0°", fontsize="large", ha="center", va="center")
    ax.plot(0, 0, "o", color=GREY, ms=6, zorder=9)
    ax.set_title(title, pad=12)
    ax.set(xlim=(-1.4, 1.4), ylim=(-1.25, 1.5), aspect="equal")
    ax.axis("off")
