"""Figures: groups keep their look, and what is drawn is what was given."""

import itertools
import math
import tracemalloc
import warnings

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib.colors import to_hex
from pytest import approx

from ncutils import UFM, figures, solve


def test_groups_differ_in_colour_marker_and_line():
    for key in ("color", "marker", "linestyle", "label"):
        assert len({figures.STYLES[group][key] for group in ("A", "B", "AB")}) == 3
    for key in ("color", "marker", "label"):
        assert len({style[key] for style in figures.STYLES.values()}) == len(figures.STYLES)


@pytest.mark.parametrize("group", ["A", "B", "AB"])
def test_exact_is_a_line_trained_hollow_and_network_filled(ax, group):
    x, y, style = [1, 2, 3], [4.0, math.nan, 6.0], figures.STYLES[group]
    for draw in (figures.exact, figures.trained, figures.network):
        draw(ax, x, y, group)
    exact, trained, network = ax.lines
    for line in ax.lines:
        np.testing.assert_array_equal(line.get_data(), (x, y))
        assert style["label"] in line.get_label()
    look = exact.get_linestyle(), exact.get_marker(), exact.get_color()
    assert look == (style["linestyle"], "None", style["color"])
    assert trained.get_linestyle() == network.get_linestyle() == "None"
    assert trained.get_marker() == network.get_marker() == style["marker"]
    assert trained.get_markerfacecolor() == "none"
    edge, inside = trained.get_markeredgecolor(), network.get_markerfacecolor()
    assert to_hex(edge) == to_hex(inside) == style["color"].lower()
    assert len({line.get_label() for line in ax.lines}) == 3
    for draw in (figures.exact, figures.trained, figures.network):
        draw(ax, [1], [1], "A", label=draw.__name__)
    assert [line.get_label() for line in ax.lines[3:]] == ["exact", "trained", "network"]


def test_reference_lines_carry_their_label(ax):
    figures.reference(ax, "threshold", x=3.5)
    figures.reference(ax, "zero", y=0.25)
    vertical, horizontal = ax.lines
    assert set(vertical.get_xdata()) == {3.5} and set(horizontal.get_ydata()) == {0.25}
    assert [text.get_text() for text in ax.texts] == ["threshold", "zero"]


@pytest.mark.parametrize("group", ["A", "B", "AB"])
def test_limits_and_thresholds_are_dotted_lines_in_the_groups_colour(ax, group):
    figures.limit(ax, [1, 2], [3, 4], group, "limit")
    figures.threshold(ax, 1.5, group, "predicted")
    limit, threshold = ax.lines
    assert {line.get_color() for line in ax.lines} == {figures.STYLES[group]["color"]}
    assert limit.get_linestyle() == threshold.get_linestyle() == ":"
    assert list(limit.get_ydata()) == [3, 4] and set(threshold.get_xdata()) == {1.5}
    assert limit.get_label().endswith("limit") and threshold.get_label() == "predicted"


def test_a_field_hides_exact_zeros_and_nothing_else(ax):
    x, y = np.geomspace(1, 100, 9), np.geomspace(1, 10, 5)
    values = np.maximum(np.arange(45.0).reshape(5, 9) - 12, 0)
    figures.field(ax, x, y, values, "finding", "a_B (nats)")
    assert (ax.get_xscale(), ax.get_yscale()) == ("log", "log")
    drawn = np.ma.asarray(ax.collections[0].get_array()).reshape(5, 9)
    assert np.array_equal(drawn.mask, values == 0) and np.array_equal(drawn.filled(0), values)
    assert ax.get_title(loc="left") == "finding"
    assert [other.get_ylabel() for other in ax.figure.axes if other is not ax] == ["a_B (nats)"]


def test_a_boundary_can_be_seen_on_dark_and_on_light(ax):
    figures.boundary(ax, [1, 2], [3, 4], "--", "prediction")
    [line] = ax.lines
    look = line.get_linestyle(), line.get_color(), line.get_label()
    assert look == ("--", "black", "prediction") and line.get_path_effects()


@pytest.mark.parametrize("rows, columns", [(1, 1), (2, 1), (1, 3)])
def test_panels_have_the_size_asked_for(rows, columns):
    fig, axes = figures.panels(rows, columns, height=2, width=6, sharex=True)
    assert fig.get_size_inches().tolist() == [6, 2 * rows] and np.size(axes) == rows * columns
    plt.close(fig)


def test_the_theme_is_set_only_when_asked_for():
    with matplotlib.rc_context({"axes.titleweight": "normal"}):
        figures.use_theme()
        assert matplotlib.rcParams["axes.titleweight"] == "bold"
        assert not matplotlib.rcParams["axes.spines.top"]


def mesh(ax):
    return ax.collections[0].get_array()


def test_a_heatmap_shows_the_matrix_symmetric_about_zero_with_lines_between_groups(ax):
    matrix = np.arange(16.0).reshape(4, 4) - 3
    figures.heatmap(ax, matrix, "title", class_sizes=[5, 5, 3, 1])
    assert np.array_equal(mesh(ax).reshape(4, 4), matrix)
    assert ax.collections[0].get_clim() == (-12, 12)
    assert ax.get_title(loc="left") + ax.get_title() == "title"
    ends = [line.get_data() for line in ax.lines]
    horizontal = sorted(y[0] for _, y in ends if len(set(y)) == 1)
    vertical = sorted(x[0] for x, _ in ends if len(set(x)) == 1)
    assert horizontal == vertical == [2, 3]
    assert not any(c.get_hatch() for c in ax.collections)  # nothing is NaN


def test_heatmap_limits_can_be_given(ax):
    figures.heatmap(ax, np.zeros((2, 2)), "", [1, 1], limits=(-0.5, 1), unit="cosine")
    assert ax.collections[0].get_clim() == (-1, 1)
    assert "cosine" in [axis.get_ylabel() for axis in ax.figure.axes]
    assert not ax.lines


def test_a_class_without_direction_is_hatched(ax):
    matrix = np.eye(3)
    matrix[2] = math.nan
    figures.heatmap(ax, matrix, "", [2, 2, 1])
    assert np.ma.getmaskarray(mesh(ax)).sum() == 3
    assert [c.get_hatch() for c in ax.collections if c.get_hatch()] == ["///"]
    assert ax.collections[0].get_clim() == (-1, 1)


def test_cosines_of_the_trivial_solution_can_be_drawn_without_a_warning(ax):
    trivial = solve(UFM.from_lam_z([4, 4, 2], 1.0))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        figures.heatmap(ax, trivial.cosines(), "", trivial.ufm.class_sizes)
        ax.figure.canvas.draw()
    assert any(c.get_hatch() for c in ax.collections)


def test_the_plane_of_means_keeps_their_distances(ax):
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(4), [6, 5, 4, 3])
    features = 5 * rng.standard_normal((7, 4))[:, labels] + rng.standard_normal((7, 18))
    figures.plane_of_means(ax, features, labels, [0, 2, 3], "title")
    clouds, stars = ax.lines[::2], ax.lines[1::2]
    assert [len(cloud.get_xdata()) for cloud in clouds] == [6, 4, 3]
    assert [star.get_label() for star in stars] == ["class 0", "class 2", "class 3"]
    drawn = [np.ravel(star.get_data()) for star in stars]
    means = [features[:, labels == k].mean(axis=1) for k in (0, 2, 3)]
    for i, j in itertools.combinations(range(3), 2):
        assert math.dist(drawn[i], drawn[j]) == approx(math.dist(means[i], means[j]), rel=1e-12)
    for cloud, point in zip(clouds, drawn):
        assert np.mean(cloud.get_data(), axis=1) == approx(point, abs=1e-12)


def test_the_plane_of_means_of_many_features_asks_for_no_square_of_them(ax):
    tracemalloc.start()
    try:
        figures.plane_of_means(ax, np.eye(3000, 6), np.arange(6) // 2, [0, 1, 2], "title")
        assert tracemalloc.get_traced_memory()[1] < 10 * 2**20  # a matrix (d, d) has 69 MiB
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("n", [500, 50, 30])
def test_directions_show_the_angles_of_the_optimum(ax, n):
    solution = solve(UFM.from_lam_z([500, n, n], 0.01), tol=1e-13)
    figures.directions(ax, solution.class_means(3), solution.ufm.class_sizes, "title")
    degrees = np.degrees(np.arccos(np.clip(solution.cosines("features"), -1, 1)))
    texts = [text.get_text() for text in ax.texts]
    shown = [text for text in texts if text.endswith("°")]
    if n == 30:  # both minority means are one, opposite to the majority's
        assert shown == ["180°", "0°"] and "classes 2 and 3\n30 images each" in texts
        majority, minority, _ = np.linalg.norm(solution.class_means(3), axis=0)
        ends = [np.ravel(line.get_data()) for line in ax.lines if line.get_marker() == "s"]
        assert ends[0] == approx([0, -minority / majority]) and ends[1] == approx(ends[0])
    else:
        pairs = degrees[0, 1], degrees[0, 1], degrees[1, 2]
        assert sorted(shown) == sorted(f"{angle:.0f}°" for angle in pairs)
        assert f"class 3\n{n} images" in texts
    tips = [line.get_xydata()[1] for line in ax.lines if len(line.get_xdata()) == 2]
    assert tips[0] == approx([0, 1])  # the majority points up and has length 1
    turned = np.degrees(np.arctan2(*tips[-1]))
    assert abs(turned) == approx(degrees[0, 2], abs=1e-5)  # arccos near −1


@pytest.mark.parametrize(
    "means, message", [(np.eye(3), "must lie in one plane"), (np.zeros((3, 3)), "class 1 is 0")]
)
def test_directions_are_refused_where_a_plane_does_not_hold_them(ax, means, message):
    with pytest.raises(ValueError, match=f"means: {message}"):
        figures.directions(ax, means, [5, 4, 4], "title")
