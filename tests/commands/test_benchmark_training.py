"""The benchmark of training runs, and its figures mean what they say; nothing depends on how fast
this machine is.
"""

import copy
import json

import numpy as np
import pytest
import torch
from torch import nn

from benchmarks import training
from ncutils import UFM
from ncutils.training.network import train_network
from ncutils.training.networks import MLP, ConvNet, ResNet18
from ncutils.training.objective import ufm_objective

SIZES = [5, 4, 3]
CPU = torch.device("cpu")


def shown_by(function, *arguments):
    """What it prints, and what it returns."""
    lines = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("builtins.print", lambda *words, **_: lines.append(" ".join(words)))
        found = function(*arguments)
    return "\n".join(lines), found


@pytest.fixture(scope="module")
def quick(tmp_path_factory):
    """Figures of the quick run, and what it prints."""
    file = tmp_path_factory.mktemp("benchmark") / "figures.json"
    before = torch.get_num_threads()
    options = "--quick --threads 1 --device cpu --json".split()
    shown, _ = shown_by(training.main, [*options, str(file)])
    assert torch.get_num_threads() == before
    return json.loads(file.read_text()), shown


@pytest.fixture(scope="module")
def data():
    return training.random_images(SIZES, (2, 6, 6))


def loop_of(data, model=None, **settings):
    model = model or MLP((2, 6, 6), widths=(8,), dim=4)
    return training.AuthorsLoop(model, *data, UFM(SIZES, 3e-2, 2e-3, 0.05), "cpu", **settings)


# The quick run ------------------------------------------------------------------------------------


def test_every_way_of_feeding_has_a_row(quick):
    figures, shown = quick
    assert [(row["network"], row["precision"], row["device"]) for row in figures["feeding"]] == [
        ("MLP 196-256-128-64", "float32", "cpu"),
        ("ConvNet 28 x 28", "float32", "cpu"),
    ]
    for row in figures["feeding"]:
        [line] = [line for line in shown.splitlines() if line.startswith(row["network"])]
        assert line.endswith(f" {row['ratio']:.1f}")
        assert row["authors"] > 0 and row["ours"] > 0 and row["rounds"] == 1 == len(row["all_ours"])
        assert row["ratio"] == row["authors"] / row["ours"]


def test_every_kind_of_features_and_gap_has_its_rows(quick):
    figures, shown = quick
    kinds = [(features, gap) for features in ("linear", "relu") for gap in (1e-2, 1e-3)]
    assert [(row["features"], row["gap"]) for row in figures["gaps"]] == kinds
    for row in figures["gaps"]:
        assert (row["fast_runs"], row["authors_runs"]) == (2, 1)
        assert row["authors_schedule"] == training.QUICK.authors_epochs
        assert row["fast_settings"] == list(training.QUICK.fast[row["features"], row["gap"]])
        # six epochs are not enough
        assert row["authors_reached"] == 0 and row["authors_last_gap"] > row["gap"]
        assert row["ratio"] is row["authors_seconds"] is row["authors_fed_seconds"] is None
    table = [line for line in shown.splitlines() if line.startswith(("linear ", "relu "))]
    assert len(table) == 12 and sum("authors, fed in their way" in line for line in table) == 4


def test_every_way_of_training_eight_has_a_row_and_ends_at_the_same_gaps(quick):
    figures, shown = quick
    threads = sorted({1, training.cores()})
    ways = [(way, number) for number in threads for way in ("ensemble", "one after the other")]
    ways.append(("processes", min(training.cores(), 2)))
    assert [(row["way"], row["number"]) for row in figures["ensemble"]] == ways
    singles = figures["ensemble"][1]["gaps"]
    assert len(singles) == len(training.QUICK.lams)
    for row in figures["ensemble"]:
        assert row["seconds"] > 0 and row["members"] == 2 and row["rounds"] == 1
        # each way has trained, and the same networks
        assert row["gaps"] == pytest.approx(singles, rel=1e-3)
    assert "one after the other, 1 thread " in shown


def test_machine_versions_and_what_is_not_measured_are_named(quick):
    figures, shown = quick
    facts = figures["environment"]
    assert list(facts["versions"]) == ["python", "numpy", "scipy", "torch"]
    named = facts["date"], facts["processor"], f"torch {facts['versions']['torch']}"
    assert all(name in shown for name in named)
    assert facts["threads"]["torch"] == 1 and "torch 1" in shown and "device: cpu" in shown
    assert figures["gpu"] == [] and "not measured, no GPU" in shown
    assert "targets" not in figures  # small problems have none


# The authors' way of feeding ----------------------------------------------------------------------


@pytest.mark.parametrize(
    "model", [MLP((2, 6, 6), widths=(8,), dim=4), ConvNet((2, 6, 6), widths=(3,), dim=4)]
)
def test_two_steps_from_one_start_are_those_of_the_trainer(data, model):
    images, labels = data
    loop = loop_of(data, copy.deepcopy(model), batch_size=len(images), seed=7)
    loop.epoch(), loop.epoch()  # the second has momentum
    whole = dict(epochs=2, batch_size=len(images), record=[2], device="cpu", progress=False)
    authors = dict(warm_start=False, seed=7, recipe="authors")
    ours = train_network(model, images, labels, loop.ufm, **whole, **authors)
    with torch.no_grad():
        H = loop.body(torch.cat([x for x, _ in loop.samples])).T
    assert np.abs(ours[0].features - ours[0].start).max() > 1e-3  # it has moved
    expected = ours[0].classifier(), ours[0].bias, ours[0].features
    for found, wanted in zip((loop.W, loop.b, H), expected):
        assert found.detach().numpy() == pytest.approx(wanted, abs=1e-6)  # measured 1e-7


def test_objective_of_all_samples_is_the_ufms_and_minibatches_average_to_it(data):
    loop = loop_of(data)
    x, y = (torch.cat(part) for part in zip(*loop.samples))
    with torch.no_grad():
        W, b, H = (part.double().numpy() for part in (loop.W, loop.b, loop.body(x).T))
        expected = ufm_objective(loop.ufm, W, H, b, y.numpy())
        assert loop.objective(x, y).item() == pytest.approx(expected, rel=1e-5)
        parts = [loop.objective(x[i : i + 4], y[i : i + 4]).item() for i in range(0, 12, 4)]
        assert np.mean(parts) == pytest.approx(expected, rel=1e-5)


def test_minibatches_are_the_samples_one_by_one(data):
    samples = training.sample_list(*data)
    assert [(x.shape, y.shape) for x, y in samples] == [((1, 2, 6, 6), (1,))] * 12
    together = torch.cat([x for x, _ in samples])
    assert together.mean((0, 2, 3)).abs().max() < 1e-5
    assert (together.std((0, 2, 3)) - 1).abs().max() < 1e-5
    for chosen in [3, 0, 11], [5]:
        x, y = (training.stacked(part, CPU) for part in zip(*[samples[i] for i in chosen]))
        assert torch.equal(x, together[chosen]) and x.dtype == torch.float32
        assert y.tolist() == data[1][chosen].tolist() and y.dtype == torch.int64


def test_an_epoch_has_every_sample_once_and_a_shorter_last_minibatch(data, monkeypatch):
    loop, seen = loop_of(data, batch_size=5), []
    objective = loop.objective
    monkeypatch.setattr(loop, "objective", lambda x, y: seen.append(x.clone()) or objective(x, y))
    loop.epoch(), loop.epoch()
    assert [len(x) for x in seen] == [5, 5, 2] * 2
    rows = lambda tensors: sorted(torch.cat(tensors).flatten(1).tolist())
    assert rows(seen[:3]) == rows(seen[3:]) == rows([x for x, _ in loop.samples])
    assert not torch.equal(seen[0], seen[3])  # another order


def test_the_first_epoch_is_not_counted(data, monkeypatch):
    clock, lengths = [0.0], iter([100.0, 3.0, 5.0])
    loop = loop_of(data)
    monkeypatch.setattr(loop, "epoch", lambda: clock.__setitem__(0, clock[0] + next(lengths)))
    monkeypatch.setattr(training.time, "perf_counter", lambda: clock[0])
    assert training.authors_seconds(loop, 2) == 4.0

    class Trained:
        history = [{"epoch": 1, "seconds": 100.0}, {"epoch": 3, "seconds": 108.0}]

    asked = {}
    train = lambda *_, **settings: asked.update(settings) or Trained
    monkeypatch.setattr(training, "train_network", train)
    assert training.our_seconds(None, None, None, None, epochs=2, device="cpu") == 4.0
    asked = {key: asked[key] for key in ("recipe", "epochs", "record", "batch_size")}
    assert asked == {"recipe": "authors", "epochs": 3, "record": [1], "batch_size": 128}


# Figures from given measurements ------------------------------------------------------------------


def feeding(ratio, device="cuda", precision="bfloat16"):
    authors, ours = [ratio, 9 * ratio, ratio], [1.0, 0.1, 1.0]
    return training.feeding_row("MLP", precision, device, 3, authors, ours)


def test_feeding_compares_medians():
    row = feeding(12.0)
    assert (row["authors"], row["ours"], row["ratio"], row["rounds"]) == (12.0, 1.0, 12.0, 3)


def test_a_gap_is_reached_where_it_is_first_recorded():
    gaps = enumerate((0.1, 0.01, 0.02, 0.001))
    history = [{"epoch": e, "seconds": 2.0 * e, "gap": np.array([gap])} for e, gap in gaps]
    assert training.first_reached(history, 1e-2) == (1, 2.0)
    assert training.first_reached(history, 1e-3) == (3, 6.0)
    assert training.first_reached(history, 1e-4) is None
    unknown = [{"epoch": 1, "seconds": 1.0, "gap": np.array([np.nan])}]
    assert training.first_reached(unknown, 1.0) is None


FAST = training.Fast(20, 64, 4e-3)


def test_ratios_of_a_reached_gap():
    runs = [(9, 0.5), (10, 0.7), (12, 0.9)]
    row = training.gap_row("relu", 1e-2, FAST, [(355, 21.0)], runs, authors_epoch_seconds=0.2)
    assert (row["authors_epochs"], row["authors_seconds"]) == (355, 21.0)
    assert (row["fast_epochs"], row["fast_seconds"]) == (10, 0.7)
    assert row["ratio"] == pytest.approx(30) and row["fed_ratio"] == pytest.approx(355 * 0.2 / 0.7)
    fast, authors, fed = training.gap_lines(row)
    assert fast.split() == "relu 0.01 fast, 20 x 64, lr 0.004 3 10 0.70".split()
    assert authors.split() == "relu 0.01 authors 1 355 21.00 0.70 30.0".split()
    assert "authors, fed in their way" in fed and fed.split()[-3:] == ["71.00", "0.70", "101.4"]
    # feeding was not measured
    unknown = training.gap_row("relu", 1e-2, FAST, [(355, 21.0)], [(10, 0.7)])
    assert unknown["ratio"] == pytest.approx(30)
    assert unknown["authors_fed_seconds"] is unknown["fed_ratio"] is None


@pytest.mark.parametrize(
    "authors, fast, words, answer",
    [
        ([None], [(10, 0.7)], "not by 1 of 1", ("theirs: not reached", None)),
        ([(355, 21.0)], [(10, 0.7), None, (9, 0.1)], "not by 1 of 3", ("ours: not reached", False)),
        ([None], [None], "not by 1 of 1", ("ours: not reached", False)),
    ],
)
def test_a_gap_that_is_never_reached_has_no_ratio(authors, fast, words, answer):
    row = training.gap_row("linear", 1e-3, FAST, authors, fast, authors_epoch_seconds=0.2)
    assert row["ratio"] is row["fed_ratio"] is None
    said = "\n".join(training.gap_lines(row))
    assert words in said and "nan" not in said and "inf" not in said
    assert training.targets([], [row], [])[1][1:] == answer


ENSEMBLE = {
    ("ensemble", 1): [4.0, 4.0, 9.0],
    ("one after the other", 1): [7.0, 8.0, 9.0],
    ("ensemble", 2): [3.0] * 3,
    ("one after the other", 2): [6.0] * 3,
    ("processes", 2): [2.0, 4.5, 9.0],
}


def test_the_ensemble_is_compared_at_the_same_threads_and_processes_with_the_faster_ensemble():
    rows = training.ensemble_rows(ENSEMBLE, members=8, epochs=20)
    assert [(row["way"], row["number"], row["seconds"], row["ratio"]) for row in rows] == [
        ("ensemble", 1, 4.0, 2.0),
        ("one after the other", 1, 8.0, 1.0),
        ("ensemble", 2, 3.0, 2.0),
        ("one after the other", 2, 6.0, 1.0),
        ("processes", 2, 4.5, 1.5),
    ]


def test_targets_compare_the_measured_figures():
    given = [("linear", 1e-2, 1.0), ("linear", 1e-3, 2.0), ("relu", 1e-2, 1.5)]
    gaps = [training.gap_row(f, gap, FAST, [(355, 30.0)], [(10, s)]) for f, gap, s in given]
    feedings = [feeding(12.0), feeding(3.0, precision="float32"), feeding(9.9)]
    feedings.append(feeding(50.0, "cpu", "float32"))
    ensemble = training.ensemble_rows(ENSEMBLE | {("ensemble", 2): [4.0]}, 8, 20)
    rows = training.targets(feedings, gaps, ensemble)
    measured = "1/12.0 1/9.9 1/30.0 1/15.0 1/20.0 - 1/2.00 1/1.50".replace("-", "None")
    assert " ".join(str(row[1]) for row in rows) == measured
    assert [row[2] for row in rows] == [True, False, True, False, True, None, True, False]
    assert max(len(target) for target, _, _ in rows) <= 65  # the column
    assert all(row[1:] == (None, None) for row in training.targets([], [], []))
    assert len(training.targets([], [], [])) == 5


# What needs a GPU, at small sizes -----------------------------------------------------------------


def test_operations_are_counted_forward_and_backward():
    linear = nn.Sequential(nn.Flatten(), nn.Linear(12, 5))
    two = nn.Sequential(*linear, nn.Linear(5, 7))
    # the gradient of its weights; images need none
    assert training.flops_per_image(linear, (3, 2, 2)) == 2 * 2 * 12 * 5
    assert training.flops_per_image(two, (3, 2, 2)) == 4 * 12 * 5 + 6 * 5 * 7
    assert training.flops_per_image(ResNet18(), (3, 32, 32)) == pytest.approx(6 * 0.56e9, rel=0.02)


def test_rate_of_matrix_products_counts_all_of_them(monkeypatch):
    ticks = iter([0.0, 4.0, 10.0, 12.0])
    monkeypatch.setattr(training.time, "perf_counter", lambda: next(ticks))
    assert training.matmul_rate(CPU, size=8, repeats=3, series=2) == 3 * 2 * 8**3 / 2.0


def test_throughput_is_measured_for_each_batch_size_and_is_a_share_of_the_rate():
    model = ConvNet((3, 8, 8), widths=(4,), dim=10)
    setting = (3, 8, 8), [3] * 10, (10, 15), 1, 2, CPU
    rows = training.measure_throughput("small", model, *setting, rate=1e9)
    kinds = [(row["batch_size"], row["rounds"], row["epochs"]) for row in rows]
    assert kinds == [(10, 2, 1), (15, 2, 1)]
    for row in rows:
        assert row["share"] == row["images_per_second"] * row["flops_per_image"] / 1e9 > 0
    measured = dict(images=600, epochs=3, seconds=[2.0, 3.0, 100.0], flops=5e6, rate=1e10)
    row = training.throughput_row("small", 128, **measured)
    assert row["images_per_second"] == 200 and row["share"] == pytest.approx(0.1)


def test_a_row_for_each_precision_on_a_gpu(data, monkeypatch):
    asked = []
    monkeypatch.setattr(training, "AuthorsLoop", lambda *_: None)
    monkeypatch.setattr(training, "authors_seconds", lambda *_: 6.0)
    seconds = {None: 1.0, False: 2.0}
    ours = lambda *_, amp=None: asked.append(amp) or seconds[amp]
    monkeypatch.setattr(training, "our_seconds", ours)
    rows = training.compare_feeding("MLP", MLP((2, 6, 6)), *data, None, 2, 3, torch.device("cuda"))
    assert {row["precision"]: row["ratio"] for row in rows} == {"bfloat16": 6.0, "float32": 3.0}
    assert asked == [None, False] * 2


def test_rows_of_the_gpu_are_shown(monkeypatch):
    monkeypatch.setattr(training, "matmul_rate", lambda device: 7e14)
    monkeypatch.setattr(training, "flops_per_image", lambda model, shape: 3.5e9)
    monkeypatch.setattr(training, "our_seconds", lambda *_, **settings: 10240 / 20000)
    shown, rows = shown_by(training.show_gpu, 2, torch.device("cuda"))
    assert "700 TFLOP/s" in shown and len(rows) == 2
    for row, line in zip(rows, shown.splitlines()[-2:]):
        assert line.split() == [str(row["batch_size"]), "2", "20000", "10.0%"]
