"""Figures of stored results: which rows, which curves, which name."""

import matplotlib.pyplot as plt
import numpy as np
import pytest
import runs
from pytest import approx
from runs import LISTED, PNG, by_hand, lines, measured, one_thread, small, store

from ncutils import solve
from ncutils.paper import figures as paper_figures
from ncutils.paper.task import Plan

alone = pytest.fixture(autouse=True, scope="module")(one_thread)


few_points = pytest.fixture(lambda monkeypatch: runs.few_points(monkeypatch))


@pytest.mark.parametrize("features", ["linear", "relu"])
@pytest.mark.parametrize("measure", ["a_b", "length_b", "cos_a", "cos_b", "cos_ab"])
def test_a_measure_of_the_exact_optimum_is_as_by_hand(features, measure):
    for name, k_a, value in (("lambda", 3, 0.0037), ("sizes", 5, 200), ("angles", 3, 1500)):
        ufm = by_hand(name, k_a, value)
        found = paper_figures.exact_measure(solve(ufm, features), k_a, measure)
        assert found == approx(measured(ufm, k_a, features, measure), rel=1e-6, abs=1e-9)


def test_other_measures_and_curves_are_refused():
    allowed = "must be one of 'a_b', 'length_b', 'cos_a', 'cos_b', 'cos_ab'"
    with pytest.raises(ValueError, match=f"measure = 'nc1': {allowed}"):
        paper_figures.exact_measure(None, 5, "nc1")
    with pytest.raises(ValueError, match="figure = 'fig1': has no curve over its structures"):
        paper_figures.exact_curve(Plan("fig1", device="cpu"), "a_b", "relu")


@pytest.mark.parametrize(
    "figure, values", [("fig6", (0.0045, 0.0037, 0.0102)), ("fig7", (300, 100)), ("fig9", (1500,))]
)
def test_a_curve_goes_from_the_least_to_the_largest_setting_of_all_whatever_is_run(figure, values):
    plan = Plan(figure, values=values, recipe="authors", device="cpu")
    name, k_a, known, _, decay = LISTED[figure, None]
    x, y = paper_figures.exact_curve(plan, "length_b", "relu", points=7)
    assert x[0] == known[0] and x[-1] == known[-1] and (np.diff(x) > 0).all() and len(x) == 7
    for n, height in zip(x[[0, -1]].tolist(), y[[0, -1]]):
        expected = measured(by_hand(name, k_a, n, decay), k_a, "relu", "length_b")
        assert height == approx(expected, rel=1e-6)
    if name != "lambda":
        assert (x % 2 == 0).all() and x.dtype.kind == "i"  # n_B = n_A/2 is a number of images


def test_seeds_are_averaged_setting_by_setting():
    of = lambda setting, *texts: [{"setting": setting, "gap": text} for text in texts]
    rows = [*of("200", "3"), *of("100", "0.5", "1.5", "4"), *of("300", "2", "")]
    x, mean, low, high = paper_figures.over_seeds(rows, "gap")
    assert x.tolist() == [100, 200, 300] and mean[:2].tolist() == [2, 3]
    assert low[:2].tolist() == [0.5, 3] and high[:2].tolist() == [4, 3]
    assert np.isnan([mean[2], low[2], high[2]]).all()


def test_mean_logits_are_of_one_setting_in_the_order_of_their_rows():
    Z = np.arange(9.0).reshape(3, 3)
    text = lambda matrix: " ".join(f"{z:.4g}" for z in matrix.ravel())
    stored = (("1", Z), ("1", Z + 2), ("2", -Z))
    rows = [{"setting": setting, "logits": text(matrix)} for setting, matrix in stored]
    assert (paper_figures.logits_of(rows, 1.0) == Z + 1).all()
    assert (paper_figures.logits_of(rows, 2) == -Z).all()


SOME = [("fig9", (500, 1000)), ("fig1", (1,))]
SOME += [pytest.param("fig5", (0.0027, 0.0030), marks=pytest.mark.depth)]


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("figure, values", SOME)
def test_networks_without_any_direction_are_drawn_too(tmp_path, few_points, figure, values):
    """A network that has gone to Z = 0 has no cosines and no NC1: its other measures are shown."""
    plan = small(tmp_path, figure, values=values)
    zero = {"a_b": "0", "length_b": "0", "logits": " ".join(["0"] * 100)}
    store(plan, {(value, 0): zero for value in values})
    assert paper_figures.draw(plan).read_bytes()[:8] == PNG


@pytest.fixture
def saved(monkeypatch, few_points):
    """[(path, figure)] of all that is drawn, instead of the pictures."""
    drawn, found = [], []
    monkeypatch.setattr(plt.Figure, "savefig", lambda fig, *_, **__: drawn.append(fig))
    monkeypatch.setattr(paper_figures, "write", lambda path, _: found.append((path, drawn[-1])))
    return found


def test_a_figure_shows_all_settings_and_seeds_that_its_options_have_given(tmp_path, saved):
    plan, slow = small(tmp_path, values=(200,)), small(tmp_path, lr=1e-3, seeds=3)
    gaps = {(100, 0): "1", (100, 1): "3", (200, 0): "5"}
    known = {key: {"a_b": gap} for key, gap in gaps.items()}
    store(plan, known | {(300, 0): {"status": "diverged"}})
    store(slow, {(400, 0): {"a_b": "7"}})
    paths = [paper_figures.draw(plan), paper_figures.draw(slow)]
    assert [path for path, _ in saved] == paths and paths[0] != paths[1]
    shown = [lines(fig.axes[0])["ReLU features, network"].tolist() for _, fig in saved]
    assert shown == [[[100, 2], [200, 5]], [[400, 7]]]


NAMED = {  # name, title: options
    (
        "sizes-ka5-mnist5k-mlp-relu-fast",
        "mlp on mnist5k, relu features, recipe fast, 150 epochs",
    ): dict(epochs=150, pool=1),
    (
        "sizes-ka5-mnist5k-mlp-relu-authors",
        "mlp on mnist5k, relu features, recipe authors, 2000 epochs",
    ): dict(epochs=2000, pool=1, recipe="authors", seeds=3, lr=0.01, batch_size=128),
    (
        "sizes-ka5-mnist5k-mlp-relu-fast-epochs2000",
        "mlp on mnist5k, relu features, recipe fast, 2000 epochs",
    ): dict(epochs=2000, pool=1, compiled=True),
    (
        "sizes-ka3-mnist5k-mlp-linear-fast-epochs2-batch-size64-lr0.001-pool14",
        "mlp on mnist5k, linear features, recipe fast, 2 epochs",
    ): dict(figure="fig8", features="linear", lr=1e-3, batch_size=64),
    (
        "sizes-ka5-cifar10-convnet-relu-fast-test-images",
        "convnet on cifar10 with test images, relu features, recipe fast, 150 epochs",
    ): dict(data="cifar10", network="convnet", pool=1, epochs=None, test_images=True),
}


@pytest.mark.parametrize("said, options", NAMED.items())
def test_a_picture_is_named_by_the_options_that_are_not_the_default_and_titled_by_its_networks(
    tmp_path, saved, said, options
):
    plan = small(tmp_path, **options)
    store(plan, {(plan.values[0], 0): {"a_b": "1", "length_b": "1"}})
    paper_figures.draw(plan)
    ((path, fig),) = saved
    assert (path, fig.get_suptitle()) == (tmp_path / f"{said[0]}.png", said[1])
