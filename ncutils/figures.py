"""One look for all figures: majority, minority and across keep colour and marker on every page;
a line is exact, a hollow marker a trained UFM, a filled marker a network on images.

`data` gives what a figure shows in numbers. A label of an artist that begins with "_" stands there
alone, not in the legend; what is labelled "_decoration" stands nowhere.

`group` is a key of `STYLES`: "A", "B", "AB", "linear", "relu", "K_A = 5" or "K_A = 3". `ax` are
Matplotlib's axes. Where nothing is said of it, a function draws on `ax` and returns nothing.
Source: ours.
"""

import matplotlib.pyplot as plt
import numpy as np
import seaborn as sns
from IPython import get_ipython
from matplotlib.patheffects import withStroke
from matplotlib_inline.backend_inline import set_matplotlib_formats

from . import _figure_data
from ._checks import array_of, check_array, check_choice, check_labels, check_square, shown
from ._figure_data import DECORATION

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
    """Set the companion's seaborn theme for this Python session; in a notebook, pictures of twice
    the resolution.

    >>> import matplotlib
    >>> from ncutils import figures
    >>> figures.use_theme()
    >>> matplotlib.rcParams["axes.grid"]
    True
    """
    sns.set_theme(
        context="notebook",
        style="ticks",
        palette=[color for color, _ in OTHERS],
        font_scale=0.85,
        rc={
            "figure.dpi": 110,
            "figure.constrained_layout.use": True,
            "axes.spines.top": False,
            "axes.spines.right": False,
            "axes.titlesize": "medium",
            "axes.titleweight": "bold",
            "axes.titlelocation": "left",
            "legend.frameon": False,
            "axes.grid": True,
            "grid.color": "#e6e6e6",
        },
    )
    if get_ipython() is not None:
        set_matplotlib_formats("retina")


def panels(rows=1, columns=1, height=3.2, width=7.6, **options):
    """Figure and axes, `rows` × `columns`, `width` inches for all columns together and `height` for
    each row.

    `options` go to Matplotlib's `subplots`.

    >>> from ncutils import figures
    >>> fig, axes = figures.panels(rows=2, columns=3, sharex=True)
    >>> axes.shape, fig.get_size_inches().tolist()
    ((2, 3), [7.6, 6.4])
    """
    fig, axes = plt.subplots(rows, columns, figsize=(width, height * rows), **options)
    for ax in fig.axes:
        ax.locator_params(nbins=6)  # tick labels stay apart
    return fig, axes


def _style(group):
    return STYLES[check_choice("group", group, tuple(STYLES))]


def exact(ax, x, y, group, label=None, width=1.8):
    """Exact values `y` over `x`, each (n,), as a line of `width` points.

    `label` names it in the legend; None means the name of `group` and "exact". Raises ValueError
    for an unknown group.

    >>> from ncutils import figures
    >>> fig, ax = figures.panels()
    >>> figures.exact(ax, [0, 1], [0, 2], "A")
    >>> ax.get_legend_handles_labels()[1]
    ['majority A, exact']
    """
    style = _style(group)
    ax.plot(
        x,
        y,
        color=style["color"],
        linestyle=style["linestyle"],
        lw=width,
        label=label or f"{style['label']}, exact",
    )


def trained(ax, x, y, group, label=None):
    """Values `y` over `x`, each (n,), of trained UFMs as hollow markers; `group` and `label` as in
    `exact`.

    >>> from ncutils import figures
    >>> fig, ax = figures.panels()
    >>> figures.trained(ax, [0, 1], [0, 2], "B")
    >>> ax.get_legend_handles_labels()[1]
    ['minority B, trained UFM']
    """
    style = _style(group)
    ax.plot(
        x,
        y,
        linestyle="none",
        marker=style["marker"],
        mfc="none",
        mec=style["color"],
        mew=1.4,
        ms=8,
        label=label or f"{style['label']}, trained UFM",
    )


def network(ax, x, y, group, label=None, size=5):
    """Values `y` over `x`, each (n,), of networks on images as filled markers of `size` points;
    `group`, `label` as in `exact`.

    >>> from ncutils import figures
    >>> fig, ax = figures.panels()
    >>> figures.network(ax, [0, 1], [0, 2], "AB")
    >>> ax.get_legend_handles_labels()[1]
    ['across A, B, network']
    """
    style = _style(group)
    ax.plot(
        x,
        y,
        linestyle="none",
        marker=style["marker"],
        color=style["color"],
        ms=size,
        mec="white",
        mew=0.6,
        label=label or f"{style['label']}, network",
    )


def limit(ax, x, y, group, label):
    """A limit or asymptote `y` over `x`, each (n,), of exact values, as a thin dotted line.

    `label` comes behind the name of `group`, as in `exact`, in the legend.

    >>> from ncutils import figures
    >>> fig, ax = figures.panels()
    >>> figures.limit(ax, [0, 1], [0, 2], "A", "limit")
    >>> ax.get_legend_handles_labels()[1]
    ['majority A, limit']
    """
    style = _style(group)
    ax.plot(x, y, color=style["color"], linestyle=":", lw=1.2, label=f"{style['label']}, {label}")


def reference(ax, label, x=None, y=None, at=0.98):
    """A dotted grey line at `x` or `y`, with its `label` along it, at fraction `at` of the other
    axis.

    >>> from ncutils import figures
    >>> fig, ax = figures.panels()
    >>> figures.reference(ax, "simplex ETF", y=-1 / 9)
    >>> [text.get_text() for text in ax.texts]
    ['simplex ETF']
    """
    if x is not None:
        ax.axvline(x, color=GREY, ls=":", lw=1.4, label=f"_{label}")
        ax.annotate(
            label,
            (x, at),
            xycoords=("data", "axes fraction"),
            xytext=(3, 0),
            textcoords="offset points",
            color=GREY,
            size="small",
            va="top",
        )
    else:
        ax.axhline(y, color=GREY, ls=":", lw=1.4, label=f"_{label}")
        ax.annotate(
            label,
            (at, y),
            xycoords=("axes fraction", "data"),
            xytext=(0, -3),
            textcoords="offset points",
            color=GREY,
            size="small",
            ha="right",
            va="top",
        )


def threshold(ax, x, group, label):
    """A predicted threshold at `x` as a vertical dotted line in the colour of `group`, as in
    `exact`; `label` in the legend.

    >>> from ncutils import figures
    >>> fig, ax = figures.panels()
    >>> figures.threshold(ax, 10, "B", "minority collapse")
    >>> ax.get_legend_handles_labels()[1]
    ['minority collapse']
    """
    ax.axvline(x, color=_style(group)["color"], ls=":", lw=1.6, label=label)


def legend_below(ax, columns=3, **options):
    """A legend of what is labelled on `ax`, in so many `columns` below all panels of its figure.

    `options` go to Matplotlib's `legend`.

    >>> from ncutils import figures
    >>> fig, (left, right) = figures.panels(1, 2)
    >>> figures.exact(left, [0, 1], [0, 2], "A")
    >>> figures.legend_below(left)
    >>> [text.get_text() for text in fig.legends[0].get_texts()]
    ['majority A, exact']
    """
    entries = ax.get_legend_handles_labels()
    ax.figure.legend(*entries, loc="outside lower center", ncols=columns, **options)


def heatmap(ax, matrix, title, class_sizes, limits=None, unit="", bar=True):
    """A (K, K) `matrix` below a `title`, with lines where `class_sizes` (K,) change; NaN is
    hatched.

    Colours reach to ± the largest size of `limits`, or without these of the matrix. `bar` draws a
    colour bar, which says `unit`, and names the classes; without it `limits` ought to be those of a
    neighbour. Raises ValueError unless `matrix` and `class_sizes` fit each other.

    >>> from ncutils import figures, theory
    >>> fig, ax = figures.panels()
    >>> figures.heatmap(ax, theory.simplex_etf(4), "ETF", [9, 9, 5, 5], unit="cosine")
    >>> len(ax.lines)  # between the second class and the third
    2
    """
    matrix, sizes = check_square("matrix", matrix), array_of(class_sizes, "iuf")
    if sizes is None or sizes.shape != matrix.shape[:1]:
        raise ValueError(
            f"class_sizes = {shown(class_sizes)}: must be {len(matrix)} numbers, as matrix is {matrix.shape}"
        )
    ax.set_facecolor("white")
    bound = np.abs(limits or matrix[np.isfinite(matrix)]).max(initial=1e-12)
    sns.heatmap(
        matrix,
        ax=ax,
        cmap="RdBu_r",
        vmin=-bound,
        vmax=bound,
        square=True,
        xticklabels=int(bar),
        yticklabels=int(bar),
        cbar=bar,
        cbar_kws={"label": unit, "shrink": 0.8} if bar else None,
    )
    ax.collections[0].pixels = range(matrix.shape[1]), range(matrix.shape[0]), matrix  # for `data`
    if np.isnan(matrix).any():
        K = len(matrix)
        ax.fill_between(
            [0, K],
            0,
            K,
            hatch="///",
            facecolor="none",
            edgecolor="#bbbbbb",
            lw=0,
            zorder=0,
            label=DECORATION,
        )
    for edge in np.flatnonzero(np.diff(sizes)) + 1:
        ax.axhline(edge, color="black", lw=1.2, label=DECORATION)
        ax.axvline(edge, color="black", lw=1.2, label=DECORATION)
    ax.tick_params(length=0, labelrotation=0, labelsize="small")
    ax.grid(False)
    ax.set_title(title)


def plane_of_means(ax, features, labels, classes, title):
    """Features (d, N) of three classes, projected on the plane through their class means; means as
    larger markers.

    Of all `features` with their `labels`, an array (N,), those of the three class indices `classes`
    are drawn, below a `title`. Raises ValueError unless there are three that `labels` holds.

    >>> import numpy as np
    >>> from ncutils import figures
    >>> fig, ax = figures.panels()
    >>> labels = np.repeat([0, 1, 2], 4)
    >>> figures.plane_of_means(ax, np.eye(3)[:, labels], labels, [0, 1, 2], "collapsed")
    >>> ax.get_legend_handles_labels()[1]
    ['class 0', 'class 1', 'class 2']
    """
    features, named = check_array("features", features, 2), array_of(classes, "iu")
    labels = check_labels(labels, features.shape[1])
    if named is None or named.shape != (3,) or not np.isin(named, labels).all():
        raise ValueError(
            f"classes = {shown(classes)}: must be three class indices that labels hold"
        )
    groups = [features[:, labels == k] for k in classes]
    means = np.stack([group.mean(axis=1) for group in groups], axis=1)
    center = means.mean(axis=1, keepdims=True)
    plane = np.linalg.svd(means - center, full_matrices=False)[0][:, :2]  # no matrix (d, d)
    plane = plane * np.sign(plane.sum(axis=0))  # the sign of a singular vector is arbitrary
    for k, group, mean, (color, marker) in zip(classes, groups, means.T, OTHERS):
        x, y = plane.T @ (group - center)
        ax.plot(
            x,
            y,
            linestyle="none",
            marker=marker,
            color=color,
            ms=3,
            alpha=0.25,
            label=f"_features of class {k}",
        )
        x, y = plane.T @ (mean - center[:, 0])
        ax.plot(
            x, y, linestyle="none", marker=marker, color=color, ms=12, mew=2.5, label=f"class {k}"
        )
    ax.set(title=title, xlabel="first coordinate in the plane", ylabel="second coordinate")
    ax.set_aspect("equal", adjustable="datalim")


def field(ax, x, y, values, title, unit):
    """Array `values` (len(y), len(x)) ≥ 0 over log axes `x` and `y`, one pixel each; what is
    exactly 0 is grey.

    A colour bar says `unit`, and `title` is above.

    >>> from ncutils import figures
    >>> fig, ax = figures.panels()
    >>> figures.field(ax, [1, 10, 100], [1, 10], [[0, 1, 2], [1, 2, 3]], "gap", "nats")
    >>> ax.get_xscale(), ax.get_xlim() == (1, 100)
    ('log', True)
    """
    mesh = ax.pcolormesh(
        x, y, np.ma.masked_equal(values, 0.0), cmap="YlGnBu", vmin=0.0, rasterized=True
    )
    mesh.pixels = x, y, values  # for `data`: the mesh keeps the pixels' edges, and hides the zeros
    ax.set_facecolor("#c8c8c8")
    ax.figure.colorbar(mesh, ax=ax, label=unit, shrink=0.9)
    ax.set(xscale="log", yscale="log", title=title, xlim=(x[0], x[-1]), ylim=(y[0], y[-1]))
    ax.grid(False)


def boundary(ax, x, y, linestyle, label):
    """A predicted boundary `y` over `x`, each (n,), on a `field`: black, edged in white.

    `linestyle` is Matplotlib's, and `label` is shown in the legend.

    >>> from ncutils import figures
    >>> fig, ax = figures.panels()
    >>> figures.boundary(ax, [1, 10], [1, 10], "--", "minority collapse")
    >>> ax.get_legend_handles_labels()[1]
    ['minority collapse']
    """
    ax.plot(
        x,
        y,
        color="black",
        ls=linestyle,
        lw=1.4,
        label=label,
        path_effects=[withStroke(linewidth=3, foreground="white")],
    )


def directions(ax, means, class_sizes, title):
    """Class `means` (d, 3) of a majority class and two minority classes, in the plane that holds
    them: nothing is projected, since Z has rank 2 at most. Class 1, the majority, points up and has
    length 1; class 2, to the right, is a hollow line and class 3 a dashed one, so that both are
    seen where they coincide. Angles are written between neighbours, `class_sizes` (3,) at the ends,
    and `title` above.

    Raises ValueError where the first mean is 0 or the three do not lie in a plane through 0.

    >>> from ncutils import UFM, figures, solve
    >>> exact = solve(UFM.from_lam_z([20, 10, 10], lam_z=0.01))
    >>> fig, ax = figures.panels()
    >>> figures.directions(ax, exact.class_means(3), [20, 10, 10], "three classes")
    >>> [text.get_text() for text in ax.texts][:1]
    ['class 1\\n20 images']
    """
    means = check_array("means", means, 2)
    if means.shape[1] != 3 or array_of(class_sizes, "iuf") is None or np.shape(class_sizes) != (3,):
        raise ValueError(
            f"means {means.shape} and class_sizes = {shown(class_sizes)}: must be (d, 3) and three numbers"
        )
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
        line = dict(
            color=style["color"],
            lw=width,
            ls="-" if k < 2 else (0, (2, 1)),
            solid_capstyle="butt",
            zorder=2 + k,
        )
        ax.plot([0, x[k]], [0, y[k]], **line, label=f"_class {k + 1}")
        if k == 1:
            ax.plot(
                [0, x[k]], [0, y[k]], **line | {"color": "white", "lw": width - 4}, label=DECORATION
            )
        ax.plot(
            x[k],
            y[k],
            style["marker"],
            color=style["color"],
            mfc="white" if k == 1 else None,
            mew=2,
            ms=size,
            zorder=6 + k,
            label=DECORATION,
        )
        if k < 2 or not merged:
            name = "classes 2 and 3" if merged and k else f"class {k + 1}"
            ax.annotate(
                f"{name}\n{class_sizes[k]} images{' each' if merged and k else ''}",
                (x[k], y[k]),
                xytext=(0, 14 if y[k] > 0 else -14),
                textcoords="offset points",
                color=style["color"],
                ha="center",
                va="bottom" if y[k] > 0 else "top",
            )

    turn = np.degrees(np.arctan2(x, y))  # clockwise from the majority
    ends = [0, turn[1]] if merged else [0, turn[1], turn[2] % 360, 360]
    for start, end in zip(ends, ends[1:]):
        arc, middle = np.radians(np.linspace(start, end, 100)), np.radians((start + end) / 2)
        ax.plot(0.26 * np.sin(arc), 0.26 * np.cos(arc), color=GREY, lw=1.2, label=DECORATION)
        ax.text(
            0.53 * np.sin(middle),
            0.45 * np.cos(middle),
            f"{end - start:.0f}°",
            fontsize="large",
            ha="center",
            va="center",
        )
    if merged:
        ax.text(-0.3, 0.6 * y[1], "0°", fontsize="large", ha="center", va="center")
    ax.plot(0, 0, "o", color=GREY, ms=6, zorder=9, label=DECORATION)
    ax.set_title(title, pad=12)
    ax.set(xlim=(-1.4, 1.4), ylim=(-1.25, 1.5), aspect="equal")
    ax.axis("off")


def data(*figs):
    """What figures `figs` show, as the text of a CSV file: a row "panel, series, x, y, value" for
    each point of a curve (without a value) and for each pixel of a map, eight digits, empty where
    nothing is drawn.

    Lines that begin with "#" say what the axes of a panel mean, and name what is not in the file. A
    line across the panel has no x, or no y. A figure of more than 2500 points and pixels is
    thinned evenly, and a line says how.

    >>> from ncutils import figures
    >>> fig, ax = figures.panels()
    >>> figures.exact(ax, [0, 1], [0, 2 / 3], "A")
    >>> figures.reference(ax, "limit", y=1)
    >>> _ = ax.set(title="Gap", xlabel="λ_Z", ylabel="nats")
    >>> print(figures.data(fig))
    # panel "Gap": x is λ_Z; y is nats
    panel,series,x,y,value
    Gap,"majority A, exact",0,0,
    Gap,"majority A, exact",1,0.66666667,
    Gap,limit,,1,
    <BLANKLINE>
    """
    return _figure_data.text_of(figs)
