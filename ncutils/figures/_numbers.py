"""What a figure shows, in numbers: the text of a CSV file. See `figures.data`."""

import csv
import io
import math
import re

import numpy as np
from matplotlib.collections import LineCollection, PathCollection, PolyCollection, QuadMesh
from matplotlib.colors import to_hex
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedFormatter, FixedLocator, FuncFormatter

from .look import DECORATION

MOST = 2500  # points and pixels of a figure that are given in full


def text_of(figs):
    """The rows of all panels of figures, behind lines with "#" that say what they mean."""
    axes = [ax for fig in figs for ax in fig.axes if ax.get_label() != "<colorbar>"]
    thinning = _Thinning(axes)
    text, notes, names = io.StringIO(), [], {}
    table = csv.writer(text, lineterminator="\n")
    table.writerow(["panel", "series", "x", "y", "value"])
    for title, ax in zip(_titles(axes), axes):
        series, unknown = _series(ax, thinning.step, names)
        if series and (meaning := _meaning(ax)):
            notes.append(_words(f'panel "{title}": {meaning}'))
        notes += [f'panel "{title}": without what is drawn as {name}' for name in unknown]
        for name, *columns in series:
            name, every = _words(name), thinning.every(columns)
            if every > 1:
                notes.append(f'panel "{title}", {name}: one point of every {every}')
            for point in zip(*(column[::every] for column in columns)):
                numbers = ["" if np.isnan(number) else f"{number:.8g}" for number in point]
                table.writerow([title, name, *numbers])
    if thinning.step > 1:
        notes.append(f"maps: one row and column of every {thinning.step}")
    return "".join(f"# {note}\n" for note in notes) + text.getvalue()


class _Thinning:
    """How many points and pixels of large figures are left out.

    step : of the rows and columns of a map, one of every so many is kept.
    """

    def __init__(self, axes):
        maps = [one for ax in axes for one in ax.collections if isinstance(one, QuadMesh)]
        pixels = sum(one.get_array().size for one in maps)
        points = sum(len(line.get_xdata()) for ax in axes for line in ax.lines)
        self.full = pixels + points <= MOST
        self.step = 1 if self.full else max(1, math.ceil(math.sqrt(pixels / (MOST / 5))))

    def every(self, columns):
        """Of the points of a series with these x, y and value one of every so many is kept."""
        x, _, value = columns
        return 1 if self.full or not np.isnan(value).all() else math.ceil(len(x) / (MOST / 25))


def _words(text):
    return " ".join(text.replace("#", " ").split())  # "#" begins a comment


def _titles(axes):
    """The panels' titles, numbered where they do not tell panels apart."""
    titles = [_words(ax.get_title("left") or ax.get_title()) for ax in axes]
    if len(set(titles)) == len(titles) and "" not in titles:
        return titles
    return [f"{number} {title}".rstrip() for number, title in enumerate(titles, start=1)]


def _is_map(ax):
    return any(isinstance(one, QuadMesh) for one in ax.collections)


def _meaning(ax):
    """What x, y and value of a panel are. A label that is not there stands below, or to the left,
    in the same grid.
    """
    place = ax.get_subplotspec()
    others = [o for o in ax.figure.axes if o.get_subplotspec() and _is_map(o) == _is_map(ax)]
    grid = [(o, o.get_subplotspec()) for o in others if place]
    below = [o.get_xlabel() for o, at in grid if at.colspan.start == place.colspan.start]
    left = [o.get_ylabel() for o, at in grid if at.rowspan.start == place.rowspan.start]
    x = ax.get_xlabel() or next(filter(None, reversed(below)), "")
    y = ax.get_ylabel() or next(filter(None, left), "")
    if _is_map(ax):
        maps = [one for o in (ax, *others) for one in o.collections if one.colorbar]
        values = next(filter(None, (one.colorbar.ax.get_ylabel() for one in maps)), "")
        meaning = {"x": x or "column", "y": y or "row", "value": values}
    else:
        meaning = {"x": x + _ticks(ax.xaxis), "y": y + _ticks(ax.yaxis)}
    return "; ".join(f"{name} is {label}" for name, label in meaning.items() if label)


def _ticks(axis):
    """The words that an axis has in place of numbers, if it has."""
    where, word = axis.get_major_locator(), axis.get_major_formatter()
    if not isinstance(where, FixedLocator) or not isinstance(word, (FixedFormatter, FuncFormatter)):
        return ""
    return f" ({', '.join(f'{at:g}: {word(at, number)}' for number, at in enumerate(where()))})"


def _series(ax, step, names):
    """[(name, x, y, value)] of what a panel shows, each (n,), and the kinds of artists that are not
    among it. What has no label takes the name of what looks the same, as `names` remembers from one
    panel to the next."""
    groups = {
        id(part): group.get_label() for group in ax.containers for part in group.get_children()
    }
    series, unknown = [], []
    for artist in (*ax.lines, *ax.collections, *ax.patches, *ax.images):
        label = str(groups.get(id(artist), artist.get_label()))
        points = _points(ax, artist, step)
        if label == DECORATION:
            continue
        if points is None:
            unknown.append(type(artist).__name__)
            continue
        look = _look(artist) if isinstance(artist, Line2D) else artist
        if not re.fullmatch(r"_(child\d+|nolegend_)?", label):
            names[look] = label.removeprefix("_")
        series.append((names.get(look, _unnamed(artist, points)), *points))
    return series, unknown


def _unnamed(artist, points):
    """What an artist without a label is called."""
    across = [np.isnan(part).all() for part in points[:2]]
    if across[0]:
        return "horizontal line"
    if isinstance(artist, QuadMesh):
        return "map"
    return "vertical line" if across[1] else "unnamed"


def _look(line):
    """What tells one line, or one kind of markers, from another."""
    color = line.get_color() if line.get_linestyle() != "None" else "none"
    edge = face = "none"
    if line.get_marker() != "None":
        edge, face = line.get_markeredgecolor(), line.get_markerfacecolor()
    colors = (to_hex(one, keep_alpha=True) for one in (color, edge, face))
    return (line.get_linestyle(), line.get_marker(), *colors)


def _points(ax, artist, step):
    """x, y and value of what an artist shows, each (n,), of maps every `step`-th row and column;
    None for kinds not known.
    """
    if isinstance(artist, QuadMesh):
        return _pixels(artist, step)
    bars = [group for group in ax.containers if artist in group.get_children()]
    if isinstance(artist, Line2D):
        x, y = _line(ax, artist)
    elif isinstance(artist, PathCollection):
        x, y = np.ma.filled(artist.get_offsets(), np.nan).T
    elif isinstance(artist, LineCollection):
        x, y = np.concatenate([np.empty((0, 2)), *artist.get_segments()]).T
    elif isinstance(artist, PolyCollection) and artist.get_array() is None:
        # between two curves: both ends at each x
        corners = {tuple(corner) for path in artist.get_paths() for corner in path.vertices}
        x, y = np.array(sorted(corners)).reshape(-1, 2).T
    elif bars:
        lying = bars[0].orientation == "horizontal"
        x = [artist.get_x() + artist.get_width() * (1 if lying else 0.5)]
        y = [artist.get_y() + artist.get_height() * (0.5 if lying else 1)]
    else:
        return None
    return x, y, np.full(len(x), np.nan)


def _line(ax, line):
    """x and y of a line; of one across the panel the coordinate that it has."""
    x, y = (np.ma.filled(np.ma.asarray(part, float), np.nan) for part in line.get_data(orig=False))
    if line.get_transform() == ax.get_xaxis_transform("grid"):  # from the bottom to the top
        return x[:1], [np.nan]
    if line.get_transform() == ax.get_yaxis_transform("grid"):
        return [np.nan], y[:1]
    return x, y


def _pixels(mesh, step):
    """x, y and value of the pixels of a map, every `step`-th row and column."""
    if hasattr(mesh, "pixels"):
        x, y, value = mesh.pixels
        x, y = np.meshgrid(x, y)
    else:
        corners, value = mesh.get_coordinates(), mesh.get_array()
        sums = corners[:-1, :-1] + corners[1:, :-1] + corners[:-1, 1:] + corners[1:, 1:]
        x, y = np.moveaxis(sums, 2, 0) / 4
    value = np.ma.filled(np.ma.asarray(value, float), np.nan).reshape(x.shape)
    return tuple(np.asarray(part, float)[::step, ::step].ravel() for part in (x, y, value))
