"""The numbers behind the figures: a CSV file holds what a figure shows, for every figure of every
notebook, linked from its page.
"""

import asyncio
import io
import re
import zipfile

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
import pairs
import pandas as pd
import pytest
import run
from bs4 import BeautifulSoup
from conftest import NOTEBOOK_HEAD, ROOT
from pytest import approx

from ncutils import UFM, figures, metrics, solve, theory

NOTEBOOKS = ROOT / "notebooks"
COLUMNS = ["panel", "series", "x", "y", "value"]
NAMED = [
    (source.stem, name)
    for source in pairs.sources()
    for name in re.findall(r"^    name: (fig-\S+)", source.read_text(), re.M)
]


def table(text):
    return pd.read_csv(io.StringIO(text), comment="#")


def stored(notebook, name):
    return table((NOTEBOOKS / "data" / notebook / f"{name}.csv").read_text())


def curve(frame, series, panel=None):
    """x and y (n,) of a series, whose panel's title begins with `panel`."""
    found = frame[(frame.series == series) & frame.panel.astype(str).str.startswith(panel or "")]
    return found.x.to_numpy(), found.y.to_numpy()


# What is in a file


def test_curves_and_markers_are_there_to_eight_digits(ax):
    rng = np.random.default_rng(0)
    x, y = rng.uniform(1e-6, 1e12, 9), rng.standard_normal((3, 9))
    y[0, 4] = np.nan
    masked = np.ma.masked_greater(y[1], 0.5)
    for draw, values in ((figures.exact, y[0]), (figures.trained, masked), (figures.network, y[2])):
        draw(ax, x, values, "B")
    figures.limit(ax, x[:2], [0.1, 0.2], "B", "limit")
    frame = table(figures.data(ax.figure))
    assert frame.columns.tolist() == COLUMNS and frame.value.isna().all()
    shown = {"exact": y[0], "trained UFM": masked.filled(np.nan), "network": y[2]}
    for kind, values in shown.items():
        there = curve(frame, f"minority B, {kind}")
        np.testing.assert_allclose(there, (x, values), rtol=1e-7)
    assert curve(frame, "minority B, limit")[1].tolist() == [0.1, 0.2]


def test_lines_across_have_one_coordinate_and_their_name(ax):
    figures.reference(ax, "threshold", x=3.5)
    figures.reference(ax, "zero", y=0.25)
    figures.threshold(ax, 7, "A", "theorem")
    ax.axhline(9, color="red")
    assert figures.data(ax.figure).splitlines() == [
        "panel,series,x,y,value",
        "1,threshold,3.5,,",
        "1,zero,,0.25,",
        "1,theorem,7,,",
        "1,horizontal line,,9,",
    ]


def test_what_has_no_label_is_called_as_what_looks_the_same(ax):
    for x, group, label in ((1, "A", "first"), (2, "A", "_"), (3, "B", "_")):
        figures.trained(ax, [x], [x], group, label=label)
    ax.plot([1], [1], label="_silent")  # a name of the file alone
    series = table(figures.data(ax.figure)).series.tolist()
    assert series == ["first", "first", "unnamed", "silent"]
    assert ax.get_legend_handles_labels()[1] == ["first"]


def test_bars_points_and_areas_are_there(ax):
    ax.bar([1, 2], [3, 4], label="upright")
    ax.barh([1, 2], [5, 6], label="lying")
    ax.scatter([1, 2], [7, 8], label="points")
    ax.vlines([1, 2], [0, 1], [9, 10], label="ends")
    ax.fill_between([1, 2], [0, 1], [11, 12], label="between")
    frame = table(figures.data(ax.figure))
    assert {name: [*zip(*curve(frame, name))] for name in frame.series.unique()} == {
        "points": [(1, 7), (2, 8)],
        "ends": [(1, 0), (1, 9), (2, 1), (2, 10)],
        "upright": [(1, 3), (2, 4)],
        "between": [(1, 0), (1, 11), (2, 1), (2, 12)],
        "lying": [(5, 1), (6, 2)],
    }


def test_what_is_not_in_the_file_is_said(ax):
    ax.imshow(np.eye(2))
    ax.axvspan(0, 1)
    said = re.findall("without what is drawn as (.+)", figures.data(ax.figure))
    assert said == ["Rectangle", "AxesImage"]


def grid(frame):
    return frame.pivot(index="y", columns="x", values="value")


def test_maps_are_there_with_their_zeros_and_without_nan(ax):
    matrix = np.arange(9.0).reshape(3, 3)
    matrix[1, 2] = np.nan
    figures.heatmap(ax, matrix, "heat", [2, 1, 1], unit="nats")
    text = figures.data(ax.figure)
    assert '# panel "heat": x is column; y is row; value is nats\n' in text
    frame = table(text)
    assert len(frame) == 9  # neither the lines between groups nor the hatch
    np.testing.assert_array_equal(grid(frame), matrix)

    fig, other = figures.panels()
    x, y, values = np.geomspace(1, 100, 3), np.geomspace(1, 10, 4), np.arange(12.0).reshape(4, 3)
    figures.field(other, x, y, values, "field", "nats")
    frame = grid(table(figures.data(fig)))
    np.testing.assert_array_equal(frame, values)
    np.testing.assert_allclose(frame.columns, x, rtol=1e-7)
    np.testing.assert_allclose(frame.index, y, rtol=1e-7)


def test_maps_of_others_have_the_middles_of_their_pixels(ax):
    ax.pcolormesh([0, 1, 3], [0, 2, 8], np.ma.masked_equal([[1, 2], [3, 4]], 4))
    pixels = table(figures.data(ax.figure)).fillna(-1)[["x", "y", "value"]].values.tolist()
    assert pixels == [[0.5, 1, 1], [2, 1, 2], [0.5, 5, 3], [2, 5, -1]]


def test_large_figures_are_thinned_and_say_so(ax):
    n = np.arange(1, 1001.0)
    figures.field(ax, n, n, np.outer(n, n), "", "product")
    figures.boundary(ax, n, n, "-", "diagonal")
    text = figures.data(ax.figure)
    pixels, (x, y) = table(text).dropna(), curve(table(text), "diagonal")
    assert "# maps: one row and column of every 45\n" in text
    assert "diagonal: one point of every 10\n" in text
    assert np.array_equal(pixels.value, pixels.x * pixels.y)
    assert sorted(set(pixels.x)) == list(range(1, 1001, 45))
    assert np.array_equal(x, y) and x.tolist() == list(range(1, 1001, 10))
    assert len(text) < 50_000


def test_panels_are_told_apart_and_axes_said_also_where_a_label_stands_at_a_neighbour():
    fig, axes = figures.panels(2, 2, sharex=True, sharey=True)
    for ax in axes.flat:
        ax.plot([1, 2], [3, 4], label="curve")
        ax.set_title("same\ntitle")
    axes[1, 0].set(xlabel="n (#)", ylabel="lower")
    axes[0, 0].set_ylabel("upper")
    axes[1, 1].set_xticks([1, 2], ["one", "two"])
    text = figures.data(fig)
    plt.close(fig)
    words = "(1: one, 2: two)"  # the ticks are shared
    n = f"n ( ) {words}"
    said = [(n, "upper"), (words, "upper"), (n, "lower"), (words, "lower")]
    assert text.splitlines()[:4] == [
        f'# panel "{i + 1} same title": x is {x}; y is {y}' for i, (x, y) in enumerate(said)
    ]
    assert table(text).panel.unique().tolist() == [f"{n} same title" for n in (1, 2, 3, 4)]


def test_a_figure_is_not_changed():
    def picture(look):
        fig, (left, right) = figures.panels(1, 2)
        figures.heatmap(left, np.eye(3), "title", [2, 2, 1], unit="nats")
        figures.exact(right, [1, 2], [3, 4], "A")
        look(fig)
        content = io.BytesIO()
        fig.savefig(content, format="png")
        plt.close(fig)
        return content.getvalue()

    assert picture(figures.data) == picture(id)


# What a run writes

SMALL = (
    NOTEBOOK_HEAD
    + """
# Small

```{code-cell} ipython3
import matplotlib.pyplot as plt
plt.plot([0, 1], [0, 0.5], label="nameless")
_ = plt.title("nameless")
```

```{code-cell} ipython3
---
mystnb:
  figure:
    caption: Two pictures,
      one file.
    name: fig-two
---
for power in (1, 2):
    _, ax = plt.subplots()
    ax.plot([1, 2, 3], [n**power for n in (1, 2, 3)], label="curve")
    _ = ax.set_title(f"power {power}")
```
"""
)


def test_a_run_keeps_the_data_of_named_figures_and_changes_nothing_else(tmp_path):
    source, data = tmp_path / "01_small.md", tmp_path / "out" / "data" / "01_small"
    source.write_text(SMALL)
    data.mkdir(parents=True)
    (data / "fig-no-more.csv").write_text("")
    notebook = asyncio.run(run.run(source, tmp_path / "out"))
    assert [file.name for file in data.iterdir()] == ["fig-two.csv"]
    text = (data / "fig-two.csv").read_text()
    head = "# fig-two of 01_small: Two pictures, one file.\n# by the companion's authors, CC BY 4.0"
    assert text.startswith(head + "\n")
    points = [[f"power {power}", x, x**power] for power in (1, 2) for x in (1, 2, 3)]
    assert table(text)[["panel", "x", "y"]].values.tolist() == points
    first, second = (cell for cell in notebook.cells if cell.cell_type == "code")
    assert (first.execution_count, second.execution_count) == (1, 2)
    pictures = lambda cell: sum("image/png" in output.data for output in cell.outputs)
    assert (pictures(first), pictures(second)) == (1, 2)


# The stored files


def test_every_figure_has_its_file_and_no_file_is_left_over():
    there = {(path.parent.name, path.stem) for path in NOTEBOOKS.glob("data/*/*")}
    assert there == set(NAMED) and len(NAMED) == len({name for _, name in NAMED}) >= 24


@pytest.mark.parametrize("notebook, name", NAMED)
def test_a_file_is_complete_and_small(notebook, name):
    path = NOTEBOOKS / "data" / notebook / f"{name}.csv"
    text, frame = path.read_text(), stored(notebook, name)
    assert text.startswith(f"# {name} of {notebook}: ") and path.stat().st_size < 170_000
    assert frame.columns.tolist() == COLUMNS and len(frame) >= 4
    assert all(frame[column].dtype.kind in "fi" for column in ("x", "y", "value"))
    assert frame[["panel", "series"]].notna().all(axis=None)
    assert frame[["x", "y"]].notna().any(axis=None)
    assert "unnamed" not in set(frame.series) and "without what is drawn as" not in text


def test_all_files_together_are_small():
    assert sum(path.stat().st_size for path in NOTEBOOKS.glob("data/*/*.csv")) < 2.5e6


@pytest.mark.parametrize("k_a", [3, 5])
def test_the_curves_of_the_threshold_are_those_of_the_solver(k_a):
    frame = stored("03_threshold", "fig-threshold")
    sizes, B = [500] * k_a + [100] * (10 - k_a), range(k_a, 10)
    lam_z, gaps = curve(frame, f"K_A = {k_a}, exact", "1")
    again, cosines = curve(frame, f"K_A = {k_a}, exact", "2")
    assert len(lam_z) == 60 and np.array_equal(lam_z, again)
    for value, gap, cosine in zip(lam_z[::4], gaps[::4], cosines[::4]):
        solution = solve(UFM.from_lam_z(sizes, value, lam_b=0.02))
        assert gap == approx(metrics.minority_gap(solution.logits, B), rel=3e-6, abs=1e-7)
        between = metrics.group_means(solution.cosines(), k_a)["B"]
        assert (np.isnan(between) and np.isnan(cosine)) or cosine == approx(between, rel=1e-6)
    [theorem], _ = curve(frame, f"K_A = {k_a}, theorem", "1")
    assert theorem == approx(theory.minority_threshold(100) / sum(sizes), rel=1e-7)


def test_the_maps_of_the_threshold_are_those_of_the_solver():
    text = (NOTEBOOKS / "data/03_threshold/fig-threshold-heatmaps.csv").read_text()
    frame = table(text)
    assert frame.panel.nunique() == 10
    for title in ("0.0027", "0.0039", "0.0075"):
        assert f'# panel "{title}": x is column; y is row; value is Z (nats)' in text
        Z = grid(frame[frame.panel == float(title)]).to_numpy()
        exact = solve(UFM.from_lam_z([500] * 5 + [100] * 5, float(title), lam_b=0.02)).logits
        np.testing.assert_allclose(Z, exact, rtol=1e-5, atol=2e-5 * abs(exact).max() + 1e-8)


def test_the_phases_are_those_of_the_solver():
    frame = stored("03_threshold", "fig-phases")
    pixels = frame[frame.panel.str.startswith("a_B") & frame.value.notna()]
    assert len(pixels) > 100 and 0 < (pixels.value == 0).sum() < len(pixels)
    # the map depends on λ_Z N / √n_B and the ratio alone; few solutions, by the solver that knows
    # nothing of the map
    n_b = 10**8
    for _, pixel in pixels[pixels.value > 0][::8].iterrows():
        sizes = [round(pixel.x * n_b)] * 5 + [n_b] * 5
        solution = solve(UFM.from_lam_z(sizes, pixel.y * np.sqrt(n_b) / sum(sizes)))
        assert pixel.value == approx(metrics.minority_gap(solution.logits, range(5, 10)), rel=1e-5)
    assert (pixels.y[pixels.value > 0] < 1).all() and (pixels.y[pixels.value == 0] >= 1).all()


# The pages


def test_every_figure_links_to_its_data(site):
    links = set()
    for path in site.glob("notebooks/*.html"):
        page = BeautifulSoup(path.read_text(), "html.parser")
        for link in page.select("a.figure-data[download]"):
            file, figure = path.parent / link["href"], link.find_parent("figure")
            assert link.find_parent("figcaption") and file.stem == figure["id"]
            assert file.read_bytes() == (NOTEBOOKS / link["href"]).read_bytes()
            links.add((path.stem, figure["id"]))
    assert links == set(NAMED)
    files = {f"neural-collapse/notebooks/data/{notebook}/{name}.csv" for notebook, name in NAMED}
    with zipfile.ZipFile(site / "site.zip") as archive:
        assert files <= set(archive.namelist())
