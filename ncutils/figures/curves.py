"""Panels, curves, markers and lines."""

import matplotlib.pyplot as plt
import seaborn as sns
from IPython import get_ipython
from matplotlib.patheffects import withStroke
from matplotlib_inline.backend_inline import set_matplotlib_formats

from . import _numbers
from .look import GREY, OTHERS, style_of


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
    style = style_of(group)
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
    style = style_of(group)
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
    style = style_of(group)
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
    style = style_of(group)
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
    ax.axvline(x, color=style_of(group)["color"], ls=":", lw=1.6, label=label)


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
    return _numbers.text_of(figs)
