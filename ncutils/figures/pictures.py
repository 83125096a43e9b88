"""Figures of matrices and of class means: maps, planes and directions."""

import numpy as np
import seaborn as sns

from .._checks import array_of, check_array, check_features, check_square, shown
from .look import DECORATION, GREY, OTHERS, STYLES


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
            f"class_sizes = {shown(class_sizes)}: must be {len(matrix)} numbers, "
            f"as matrix is {matrix.shape}"
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
        K, hatch = len(matrix), dict(hatch="///", facecolor="none", edgecolor="#bbbbbb", lw=0)
        ax.fill_between([0, K], 0, K, **hatch, zorder=0, label=DECORATION)
    for edge in np.flatnonzero(np.diff(sizes)) + 1:
        ax.axhline(edge, color="black", lw=1.2, label=DECORATION)
        ax.axvline(edge, color="black", lw=1.2, label=DECORATION)
    ax.tick_params(length=0, labelrotation=0, labelsize="small")
    ax.grid(False)
    ax.set_title(title)


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
    features, labels = check_features("features", features, labels)
    named = array_of(classes, "iu")
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
    x, y = _in_their_plane(check_array("means", means, 2), class_sizes)
    merged = bool(np.hypot(x[1] - x[2], y[1] - y[2]) < 1e-9)
    for k in range(3):
        _direction(ax, k, x[k], y[k])
        if k < 2 or not merged:
            each = merged and k == 1
            name = f"{'classes 2 and 3' if each else f'class {k + 1}'}\n{class_sizes[k]} images"
            _end(ax, x[k], y[k], name + " each" * each, STYLES["A" if k == 0 else "B"]["color"])
    _angles(ax, x, y, merged)
    ax.plot(0, 0, "o", color=GREY, ms=6, zorder=9, label=DECORATION)
    ax.set_title(title, pad=12)
    ax.set(xlim=(-1.4, 1.4), ylim=(-1.25, 1.5), aspect="equal")
    ax.axis("off")


def _in_their_plane(means, class_sizes):
    """x and y, each (3,), of `means` (d, 3) in their plane, class 1 at (0, 1); else ValueError."""
    if means.shape[1] != 3 or array_of(class_sizes, "iuf") is None or np.shape(class_sizes) != (3,):
        raise ValueError(
            f"means {means.shape} and class_sizes = {shown(class_sizes)}: "
            "must be (d, 3) and three numbers"
        )
    unit = np.linalg.norm(means[:, 0])
    if not unit:
        raise ValueError("means: class 1 is 0 and has no direction")
    up = means[:, 0] / unit
    right = means[:, 1] - up * (up @ means[:, 1])
    across = np.linalg.norm(right)
    right = right / across if across > 1e-9 * unit else 0 * right
    x, y = np.stack([right, up]) @ means / unit
    if not np.allclose(np.hypot(x, y), np.linalg.norm(means, axis=0) / unit, atol=1e-9):
        raise ValueError("means: must lie in one plane through 0")
    return x, y


def _direction(ax, k, x, y):
    """The mean of class k + 1, a line from 0 to (x, y) with a marker at its end."""
    style, width, size = STYLES["A" if k == 0 else "B"], (3, 10, 2.5)[k], (11, 19, 8)[k]
    dashes = "-" if k < 2 else (0, (2, 1))
    line = dict(color=style["color"], lw=width, ls=dashes, solid_capstyle="butt", zorder=2 + k)
    ax.plot([0, x], [0, y], **line, label=f"_class {k + 1}")
    hollow = k == 1
    if hollow:
        line |= {"color": "white", "lw": width - 4}
        ax.plot([0, x], [0, y], **line, label=DECORATION)
    marker = dict(color=style["color"], mfc="white" if hollow else None, mew=2, ms=size)
    ax.plot(x, y, style["marker"], **marker, zorder=6 + k, label=DECORATION)


def _end(ax, x, y, text, color):
    """A text beyond (x, y), seen from 0."""
    above = y > 0
    offset = dict(xytext=(0, 14 if above else -14), textcoords="offset points")
    ax.annotate(text, (x, y), **offset, color=color, ha="center", va="bottom" if above else "top")


def _angles(ax, x, y, merged):
    """Arcs and degrees between neighbours."""
    text = dict(fontsize="large", ha="center", va="center")
    turn = np.degrees(np.arctan2(x, y))  # clockwise from the majority
    ends = [0, turn[1]] if merged else [0, turn[1], turn[2] % 360, 360]
    for start, end in zip(ends, ends[1:]):
        arc, middle = np.radians(np.linspace(start, end, 100)), np.radians((start + end) / 2)
        ax.plot(0.26 * np.sin(arc), 0.26 * np.cos(arc), color=GREY, lw=1.2, label=DECORATION)
        ax.text(0.53 * np.sin(middle), 0.45 * np.cos(middle), f"{end - start:.0f}°", **text)
    if merged:
        ax.text(-0.3, 0.6 * y[1], "0°", **text)
