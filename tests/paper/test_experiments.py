"""The paper's experiments: their settings, the command, and results that survive kills, reruns and
a second process.
"""

import contextlib
import csv
import errno
import functools
import logging
import math
import multiprocessing
import os
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import dask.distributed
import distributed
import numpy as np
import pytest
import torch

from ncutils import UFM, figures, load_images, solve
from ncutils.__main__ import main
from ncutils.paper import figures as paper_figures
from ncutils.paper import results as stored
from ncutils.paper import run as running
from ncutils.paper import task
from ncutils.paper.results import Results
from ncutils.paper.run import estimate, run
from ncutils.paper.task import Plan
from ncutils.theory import phase
from ncutils.training import arguments, checkpoint, network
from ncutils.training.network import train_network
from ncutils.training.networks import MLP, build
from ncutils.ufm import Phase

posix = pytest.mark.skipif(os.name != "posix", reason="signals and file locks of POSIX")
SMALL = "--data mnist5k --network mlp --recipe fast --pool 14 --epochs 2 --device cpu".split()
VARIES = {"seconds", "peak_mib", "date", "commit"}  # from run to run
PNG = b"\x89PNG\r\n\x1a\n"


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    """Here and in the processes that are started here: sums are in the same order everywhere."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OMP_NUM_THREADS", "1")
        patch.setattr(
            paper_figures, "solve", functools.cache(solve)
        )  # most figures here are of the same settings
        yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def forkserver():
    """A process that has imported what takes long; other processes start as its copies, without
    anything trained.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(
        ["torch._dynamo", "ncutils.paper.figures", "distributed", "pytest"]
    )
    return context


def paper(out, figure, *words):
    """The exit code of a small run; later words outrank SMALL."""
    return main(["paper", figure, *SMALL, "--out", str(out), *map(str, words)])


def small(out, figure="fig7", **options):
    known = dict(
        data="mnist5k", network="mlp", recipe="fast", pool=14, epochs=2, device="cpu", out=str(out)
    )
    return Plan(figure, **(known | options))


def quiet(plan, **options):
    said = []
    return run(plan, progress=False, say=said.append, **options), said


def table(path):
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def counted(lines):
    """Where each setting stands among all of its plan, as it was told."""
    return [line.split()[0] for line in lines if line.startswith("[")]


def csvs(folder):
    """The paths of results and history of the one plan in a folder."""
    (history,) = folder.glob("*-history.csv")
    return folder / history.name.replace("-history", ""), history


def numbers(folder, but=VARIES):
    """What two equal runs have in common: rows of both files, in one order."""
    return [
        sorted(
            tuple((name, text) for name, text in row.items() if name not in but)
            for row in table(path)
        )
        for path in csvs(folder)
    ]


def store(plan, results):
    """Results {(setting, seed): columns} that nothing was trained for, with a history of two
    epochs.
    """
    unknown = dict.fromkeys(stored.COLUMNS, "") | {
        "status": "done",
        "seconds": "0",
        "gap_relu": "0.5",
        "gap_linear": "0.5",
    }
    rows = [unknown | plan.key(*key) | columns for key, columns in results.items()]
    moments = [
        {name: row[name] for name in stored.HISTORY if name != "epoch"} | {"epoch": epoch}
        for row in rows
        for epoch in "12"
    ]
    with Results(plan) as file:
        file.add(rows, moments)


def once(rows):
    keys = [
        tuple(
            row[name]
            for name in ("setting", "seed", "epochs", "batch_size", "lr", "pool", "test_images")
        )
        for row in rows
    ]
    return len(set(keys)) == len(keys)


def fake_data(patch, held=6000, shape=(1, 4, 4)):
    """Images of a few pixels in place of a data set of `held` images a class, and 1000 more in the
    test set.
    """
    asked = []

    def load(name, class_sizes, seed=0, pool=1, test_images=False, dtype="float32"):
        asked.append((name, tuple(class_sizes), seed, pool, test_images, dtype))
        labels = np.repeat(np.arange(len(class_sizes)), class_sizes)
        rng = np.random.default_rng(seed)
        images = (
            rng.random((len(labels), *shape)) + labels.reshape(-1, 1, 1, 1) * rng.random(shape) / 5
        )
        return (255 * images / images.max()).astype("uint8") if dtype == "uint8" else images.astype(
            "float32"
        ), labels

    for module in (task, running):
        patch.setattr(module, "load_images", load)
    patch.setattr(
        task, "available", lambda name, test_images=False: np.full(10, held + 1000 * test_images)
    )
    return asked


# Settings -----------------------------------------------------------------------------------------


LAMBDA_5 = (0.0027, 0.0030, 0.0033, 0.0039, 0.0045, 0.0051, 0.0057, 0.0063, 0.0069, 0.0075)
LAMBDA_3 = (0.0037, 0.0041, 0.0045, 0.0053, 0.0062, 0.0070, 0.0078, 0.0086, 0.0094, 0.0102)
SIZES_5 = (100, 200, 300, 400, 600, 800, 1000, 1100, 1200, 1400)
SIZES_3 = (100, 400, 450, 500, 700, 1000, 1600, 2200, 2500, 2800)
ANGLES = (500, 1000, 1500, 2000, 2500, 3000, 3500, 4000, 4500, 5000, 5500)
LISTED = {  # figure, K_A asked for: name, K_A, values, epochs, weight decay of the authors
    ("fig1", None): ("block", None, (1, 2), 1000, 5e-4),
    ("fig2", None): ("block", None, (1, 2), 1000, 5e-4),
    ("fig5", None): ("lambda", 5, LAMBDA_5, 2000, 0),
    ("fig6", None): ("lambda", 3, LAMBDA_3, 2000, 0),
    ("fig5", 3): ("lambda", 3, LAMBDA_3, 2000, 0),
    ("fig8", 5): ("sizes", 5, SIZES_5, 2000, 0),
    ("fig7", None): ("sizes", 5, SIZES_5, 2000, 0),
    ("fig8", None): ("sizes", 3, SIZES_3, 2000, 0),
    ("fig9", None): ("angles", 5, ANGLES, 2000, 5e-4),
    ("fig9", 3): ("angles", 3, ANGLES, 2000, 5e-4),
}


def by_hand(name, k_a, value, decay=0.0):
    """The problem of a setting. With l of the authors' code, their penalties without 1/2 are 5 l,
    l/20 and 0.01.
    """
    if name == "block":
        sizes = {
            1: (5000,) * 4 + (4000,) * 3 + (3000,) * 3,
            2: (5000,) * 4 + (3000,) * 2 + (1000,) * 4,
        }[value]
        return UFM(sizes, 2e-3 + decay, 2e-6, 0.02 + decay)
    n_a, n_b, l = {
        "lambda": (500, 100, value),
        "sizes": (value, 100, 0.005),
        "angles": (value, value // 2, None),
    }[name]
    sizes = (n_a,) * k_a + (n_b,) * (10 - k_a)
    l = 0.1 / sum(sizes) if l is None else l
    return UFM(sizes, 2 * 5 * l + decay, 2 * l / 20, 2 * 0.01 + decay)


@pytest.mark.parametrize("recipe", ["authors", "fast"])
@pytest.mark.parametrize("figure, asked", LISTED)
def test_settings_are_those_of_the_paper(figure, asked, recipe):
    name, k_a, values, epochs, decay = LISTED[figure, asked]
    plan = Plan(figure, data="mnist5k", network="mlp", recipe=recipe, k_a=asked, device="cpu")
    assert (plan.experiment.name, plan.k_a, plan.values) == (name, k_a, values)
    assert plan.epochs == (epochs if recipe == "authors" else 150) and plan.weight_decay == (
        decay if recipe == "authors" else 0
    )
    assert plan.lr == (0.01 if recipe == "authors" else 2e-3) and plan.batch_size == 128
    for value in values:
        ufm, expected = plan.ufm(value), by_hand(name, k_a, value, plan.weight_decay)
        assert ufm.class_sizes == expected.class_sizes
        assert [ufm.lam_w, ufm.lam_h, ufm.lam_b] == pytest.approx(
            [expected.lam_w, expected.lam_h, expected.lam_b], rel=1e-12
        )
        if name == "angles" and recipe == "fast":
            assert ufm.lam_z * ufm.num_samples == pytest.approx(0.1)


@pytest.mark.parametrize(
    "figure, distinct", [("fig5", 3), ("fig6", 3), ("fig7", 2), ("fig8", 2), ("fig9", 11)]
)
def test_the_first_settings_are_below_the_minority_threshold_and_the_others_on_it_or_above(
    figure, distinct
):
    """K_A = 5: n_A = 300 is on it: λ_Z N = 0.005 · 2000 = sqrt(100)."""
    plan = Plan(figure, device="cpu")
    for i, value in enumerate(plan.values):
        ufm = plan.ufm(value)
        assert (ufm.lam_z * ufm.num_samples < math.sqrt(min(ufm.class_sizes)) * (1 - 1e-12)) == (
            i < distinct
        )
        if len(set(ufm.class_sizes)) == 2:
            assert (phase(ufm) is Phase.DISTINCT) == (i < distinct)
        gap = paper_figures.exact_measure(solve(ufm), plan.k_a, "a_b")
        assert gap > 0.05 if i < distinct else abs(gap) < 1e-6


@pytest.mark.parametrize(
    "figure, value, decay, warm",
    [
        ("fig1", 2, 5e-4, False),
        ("fig9", 500, 5e-4, False),
        ("fig5", 0.0027, 0, True),
        ("fig8", 100, 0, True),
    ],
)
@pytest.mark.parametrize("recipe", ["authors", "fast"])
def test_the_trainer_gets_the_plan(monkeypatch, tmp_path, figure, value, decay, warm, recipe):
    got, asked = {}, fake_data(monkeypatch)

    def trainer(model, images, labels, ufms, **options):
        got.update(options, model=model, ufms=ufms, sizes=np.bincount(labels).tolist())
        raise network.Diverged({0: "stopped"})

    monkeypatch.setattr(task, "train_network", trainer)
    plan = Plan(
        figure,
        network="mlp",
        recipe=recipe,
        values=(value,),
        features="linear",
        seeds=4,
        batch_size=77,
        lr=0.3,
        device="cpu",
        out=str(tmp_path),
        pool=2,
        test_images=True,
        compiled=True,
    )
    task.train(plan, [(value, 3)], progress=False)
    name, k_a, _, epochs, _ = LISTED[figure, None]
    decay = decay if recipe == "authors" else 0
    assert got["weight_decay"] == decay and got["warm_start"] is warm and got["recipe"] == recipe
    assert (
        got["epochs"] == (epochs if recipe == "authors" else 150)
        and got["lr"] == 0.3
        and got["batch_size"] == 77
    )
    assert (
        got["seed"] == [3]
        and got["device"] == "cpu"
        and got["progress"] is False
        and got["compiled"] is True
    )
    expected = by_hand(name, k_a, value, decay)
    assert [(u.lam_w, u.lam_h, u.lam_b) for u in got["ufms"]] == [
        pytest.approx((expected.lam_w, expected.lam_h, expected.lam_b))
    ]
    assert (
        tuple(got["sizes"]) == expected.class_sizes
        and got["checkpoint"].parent == tmp_path / "checkpoints"
    )
    assert isinstance(got["model"], MLP) and got["model"].features == "linear"
    assert asked == [("cifar10", expected.class_sizes, 3, 2, True, "float32")]


@pytest.mark.parametrize("words, amp", [([], None), (["--float32"], False)])
def test_the_number_format_is_the_devices_unless_float32_is_asked_for(
    monkeypatch, tmp_path, words, amp
):
    got = []

    def trainer(*_, **options):
        got.append(options["amp"])
        raise network.Diverged({0: "stopped"})

    monkeypatch.setattr(task, "train_network", trainer)
    assert paper(tmp_path, "fig7", "--only", 100, *words) == 1 and got == [amp]


def test_images_that_are_not_pooled_are_taken_as_stored(monkeypatch, tmp_path):
    asked = fake_data(monkeypatch)
    quiet(small(tmp_path, values=(100,), pool=1, epochs=1))
    assert asked[-1][-1] == "uint8"


def test_mlps_of_equal_class_sizes_train_together_and_other_networks_alone():
    settings = list(LAMBDA_5)
    assert small("", "fig5", seeds=2).tasks() == [
        [(value, seed) for value in settings] for seed in (0, 1)
    ]
    assert small("", "fig5", network="convnet").tasks() == [[(value, 0)] for value in settings]
    assert small("", "fig7", seeds=2).tasks() == [
        [(value, seed)] for seed in (0, 1) for value in (100, 200, 300, 400)
    ]


def test_a_checkpoint_is_named_by_all_that_its_result_depends_on(tmp_path):
    plan = lambda **options: small(tmp_path, **options)
    path = lambda plan, settings=((100, 0),): task.checkpoint(plan, list(settings))
    base = path(plan())
    assert base.parent == tmp_path / "checkpoints"
    assert base == path(plan(seeds=3)) == path(plan(values=(100,)))
    changes = [
        dict(epochs=3),
        dict(batch_size=64),
        dict(lr=1e-3),
        dict(pool=7),
        dict(test_images=True),
        dict(recipe="authors"),
        dict(features="linear"),
        dict(network="convnet"),
        dict(k_a=3),
        dict(data="cifar10"),
        dict(figure="fig9"),
        dict(compiled=True),
        dict(float32=True),
    ]
    others = [path(plan(**change)) for change in changes]
    others += [
        path(plan(), [(200, 0)]),
        path(plan(), [(100, 1)]),
        path(plan(), [(100, 0), (200, 0)]),
    ]
    assert len({base, *others}) == 1 + len(others)
    assert path(plan(figure="fig1")) == path(plan(figure="fig2"))


# The command --------------------------------------------------------------------------------------


COMMANDS = {  # words, settings, seeds, end of the picture's name
    "fig1": (
        "fig1 --recipe authors --batch-size 4000",
        (1, 2),
        1,
        "-epochs2-batch-size4000-pool14",
    ),
    "fig2": (
        "fig2 --only 2 --seeds 2 --features linear --batch-size 4000",
        (2,),
        2,
        "-epochs2-batch-size4000-pool14",
    ),
    "fig9": (
        "fig9 --only 1000 500 --batch-size 500 --recipe authors",
        (500, 1000),
        1,
        "-epochs2-batch-size500-pool14",
    ),
    "fig9 of 3": (
        "fig9 --ka 3 --only 500 1000 --features linear",
        (500, 1000),
        1,
        "-epochs2-pool14",
    ),
    "fig5": ("fig5", LAMBDA_5, 1, "-epochs2-pool14"),
    "fig6": (
        "fig6 --only 0.0037 0.0102 --seeds 2 --features linear",
        (0.0037, 0.0102),
        2,
        "-epochs2-pool14",
    ),
    "fig7": ("fig7 --only 100 200 300 --seeds 2", (100, 200, 300), 2, "-epochs2-pool14"),
    "fig8": (
        "fig8 --only 100 400 --network convnet --pool 7 --recipe authors",
        (100, 400),
        1,
        "-epochs2-pool7",
    ),
}
FAKED = {"fig1", "fig2", "fig9", "fig9 of 3"}


@pytest.fixture(scope="module")
def ran(tmp_path_factory):
    """{command: exit code, folder, plan, figure, what it printed}, each run once."""
    found = {}

    def command(name):
        if name not in found:
            words, folder, plans, drawn, said = (
                COMMANDS[name][0].split(),
                tmp_path_factory.mktemp("paper"),
                [],
                [],
                [],
            )
            with pytest.MonkeyPatch.context() as patch:
                if name in FAKED:
                    fake_data(patch)
                draw = paper_figures.draw
                patch.setattr(paper_figures, "draw", lambda plan: plans.append(plan) or draw(plan))
                patch.setattr(figures.plt, "close", drawn.append)
                patch.setattr(
                    "builtins.print", lambda *parts, **_: said.append(" ".join(map(str, parts)))
                )
                code = paper(folder, *words)
            figures.plt.close(*drawn)
            found[name] = code, folder, *plans, *drawn, said
        return found[name]

    return command


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_trains_writes_and_draws(ran, name):
    code, folder, _, _, said = ran(name)
    _, settings, seeds, options = COMMANDS[name]
    results, history = csvs(folder)
    rows = table(results)
    assert code == 0
    assert {(row["setting"], row["seed"]) for row in rows} == {
        (f"{s:g}", str(seed)) for s in settings for seed in range(seeds)
    }
    assert len(rows) == len(settings) * seeds and once(rows)
    png = folder / f"{results.stem}{options}.png"
    assert png.read_bytes()[:8] == PNG and sorted(folder.glob("*.p*")) == [png]
    assert said[-2:] == [f"results: {results}", f"figure:  {png}"] and counted(said) == [
        f"[{i + 1}/{len(rows)}]" for i in range(len(rows))
    ]
    assert list((folder / "checkpoints").iterdir()) == []
    assert len(table(history)) == 2 * len(rows)  # epochs 1 and 2


@pytest.mark.parametrize("name", COMMANDS)
def test_every_column_says_what_it_should(ran, name):
    _, folder, plan, _, _ = ran(name)
    results, history = csvs(folder)
    for row in table(results):
        experiment, k_a, decay = plan.experiment.name, plan.k_a, float(row["weight_decay"])
        ufm = by_hand(experiment, k_a, type(plan.values[0])(row["setting"]), decay)
        groups = [
            f"{n}x{ufm.class_sizes.count(n)}" for n in sorted(set(ufm.class_sizes), reverse=True)
        ]
        assert row["class_sizes"] == " ".join(groups) and row["status"] == "done"
        assert decay == (5e-4 if name in ("fig1", "fig9") else 0)
        for penalty in ("lam_w", "lam_h", "lam_b", "lam_z"):
            assert float(row[penalty]) == pytest.approx(getattr(ufm, penalty), rel=1e-5)
        assert row["phase"] == (phase(ufm).value if len(groups) == 2 else "")
        for option in ("data", "network", "features", "recipe", "batch_size", "pool"):
            assert row[option] == str(getattr(plan, option))
        assert row["epochs"] == "2" and row["test_images"] == "False"
        assert row["together"] == {"fig5": "10", "fig6": "2"}.get(name, "1")
        empty = {
            f"error_{kind}"
            for kind in ("linear", "relu")
            if not solve(ufm, features=kind).logits.any()
        }  # Z* = 0
        empty |= {"phase"} if len(groups) != 2 else set()
        assert {column for column, text in row.items() if text == ""} == empty
        assert all(
            math.isfinite(float(row[measure]))
            for measure in stored.MEASURES
            if measure not in empty
        )
        assert len(row["logits"].split()) == 100 and len(row["bias"].split()) == 10
        assert re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d", row["date"])
        last = [
            moment
            for moment in table(history)
            if all(moment[key] == row[key] for key in stored.KEY)
        ][-1]
        assert last["epoch"] == "2" and all(
            last[measure] == row[measure] for measure in stored.MEASURES
        )


def test_a_row_is_what_the_trainer_gives_alone(ran):
    """Numbers of one setting by the trainer, from arguments and formulas written out here."""
    _, folder, *_ = ran("fig7")
    (row,) = (
        row for row in table(csvs(folder)[0]) if (row["setting"], row["seed"]) == ("200", "1")
    )
    sizes = [200] * 5 + [100] * 5
    images, labels = load_images("mnist5k", sizes, seed=1, pool=14)
    ufm = UFM(sizes, 0.05, 0.0005, 0.02)
    trained = train_network(
        build("mlp", (1, 2, 2), "relu"),
        images,
        labels,
        ufm,
        epochs=2,
        batch_size=128,
        lr=2e-3,
        warm_start=True,
        seed=1,
        device="cpu",
        progress=False,
        recipe="fast",
    )
    W, b, H = trained[0].classifier(), trained[0].bias, trained[0].features
    Z = W @ np.stack([H[:, labels == k].mean(axis=1) for k in range(10)], axis=1)
    scores = W @ H + b[:, None]
    loss = np.log(np.exp(scores).sum(axis=0)).mean() - scores[labels, np.arange(1500)].mean()
    objective = loss + 0.025 * (W**2).sum() + 0.00025 * (H**2).sum() + 0.01 * (b**2).sum()
    block, number = Z[5:, 5:], lambda name: float(row[name])
    assert number("objective") == pytest.approx(objective, rel=1e-5)
    for kind in ("linear", "relu"):
        exact = solve(ufm, features=kind)
        assert number(f"gap_{kind}") == pytest.approx(objective / exact.objective - 1, rel=1e-5)
        assert number(f"error_{kind}") == pytest.approx(
            np.linalg.norm(Z - exact.logits) / np.linalg.norm(exact.logits), rel=1e-5
        )
    assert number("a_b") == pytest.approx(
        np.trace(block) / 5 - (block.sum() - np.trace(block)) / 20, rel=1e-5
    )
    assert number("length_b") == pytest.approx(
        np.mean([np.linalg.norm(Z[:, k]) for k in range(5, 10)]), rel=1e-5
    )
    assert number("accuracy_a") == pytest.approx((scores.argmax(0) == labels)[:1000].mean())
    assert np.array(row["logits"].split(), float).reshape(10, 10) == pytest.approx(Z, rel=1e-3)
    assert np.array(row["bias"].split(), float) == pytest.approx(b, rel=1e-3)


def test_the_list_shows_every_figure_with_its_settings_and_cost(capsys):
    assert main(["paper", "list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    for (figure, asked), (_, _, values, epochs, _) in LISTED.items():
        if asked in (None, 3) and (figure, asked) != ("fig5", 3):
            name = figure if asked is None else f"{figure} --ka 3"
            (line,) = (line for line in lines if name in re.split(", |  ", line))
            assert (
                " ".join(f"{value:g}" for value in values) in line
                and f" {len(values)} " in line
                and f" {epochs} " in line
            )
    assert any(
        line.startswith("fig5 ") and "60 million" in line for line in lines
    )  # 10 settings · 3000 images · 2000 epochs


@pytest.mark.parametrize(
    "words", [["fig5"], ["fig7", "--only", "100", "--batch-size", "16"], ["fig9"]]
)
def test_a_dry_run_shows_settings_and_time_and_writes_nothing(tmp_path, capsys, words):
    assert paper(tmp_path / "new", *words, "--dry-run") == 0
    out = capsys.readouterr().out
    expected = {
        "fig5": ["lam_z = 0.0027: 5 x 500 + 5 x 100 images, lam_z = 0.0027, lam_b = 0.02"],
        "fig7": ["n_a = 100: 10 x 100 images"],
        "fig9": [
            "n_a = 500: 5 x 500 + 5 x 250 images",
            "n_a = 5500: skipped, class_sizes[0] = 5500: mnist5k holds 500 images of class 0",
        ],
    }
    assert all(line in out for line in expected[words[0]]) and re.search(
        r"2 epochs, mlp on cpu: about \d+\.\d minutes", out
    )
    assert list(tmp_path.iterdir()) == []


def test_an_estimate_counts_the_steps_of_every_task(monkeypatch, tmp_path):
    asked = []
    monkeypatch.setattr(
        running, "_seconds_per_step", lambda plan, members: asked.append(members) or members / 4
    )
    plan = small(
        tmp_path, "fig5", seeds=2, epochs=30
    )  # 3000 images are 24 steps; ten networks at a time
    assert estimate(plan) == 2 * 24 * 30 * 10 / 4 and asked == [10]
    alone = small(tmp_path, "fig7", values=(100, 200), batch_size=300, epochs=7)  # 4 and 5 steps
    assert estimate(alone) == (4 + 5) * 7 / 4 and asked == [10, 1]


def test_the_time_of_a_step_is_from_steps_of_the_plan(monkeypatch, tmp_path):
    amps = []

    def trainer(model, images, labels, ufms, **options):
        assert images.shape == (2 * 50, 1, 2, 2) and len(labels) == 100 and len(ufms) == 3
        assert (
            options["batch_size"] == 50
            and options["record"] == [1, 4]
            and options["recipe"] == "authors"
        )
        amps.append(options["amp"])
        return type("Trained", (), {"history": [{"seconds": 1.0}, {"seconds": 4.0}]})

    monkeypatch.setattr(running, "train_network", trainer)
    for float32 in (False, True):
        plan = small(tmp_path, batch_size=50, recipe="authors", float32=float32)
        assert running._seconds_per_step(plan, 3) == 3.0 / 6
    assert amps == [None, False]


@pytest.mark.parametrize("batch_size", [1, 3, 4, 5])
def test_time_can_be_estimated_for_the_smallest_batches(tmp_path, batch_size):
    assert estimate(small(tmp_path, values=(100,), batch_size=batch_size)) > 0


def test_time_is_estimated_without_a_batch_of_one_image_which_batch_norm_refuses(
    monkeypatch, tmp_path
):
    fake_data(monkeypatch, shape=(1, 8, 8))
    assert estimate(small(tmp_path, network="resnet18", values=(100,), pool=1, batch_size=3)) > 0


# Results ------------------------------------------------------------------------------------------


@pytest.fixture
def trainings(monkeypatch):
    """[(largest class, seeds)] of every call of the trainer. Nothing is drawn."""
    calls, original = [], task.train_network
    monkeypatch.setattr(paper_figures, "draw", lambda plan: "no figure")
    monkeypatch.setattr(
        task,
        "train_network",
        lambda model, images, labels, ufms, **options: (
            calls.append((ufms[0].class_sizes[0], options["seed"]))
            or original(model, images, labels, ufms, **options)
        ),
    )
    return calls


def test_what_is_finished_is_not_trained_again(tmp_path, trainings, capsys):
    assert paper(tmp_path, "fig7", "--only", 100, 200) == 0 and trainings == [
        (100, [0]),
        (200, [0]),
    ]
    first = [path.read_bytes() for path in csvs(tmp_path)]
    assert paper(tmp_path, "fig7", "--only", 200, 100) == 0 and len(trainings) == 2
    assert "2 of 2 results are in" in capsys.readouterr().out
    assert [path.read_bytes() for path in csvs(tmp_path)] == first
    assert paper(tmp_path, "fig7", "--only", 100, 200, 300, "--seeds", 2) == 0
    assert trainings[2:] == [(300, [0]), (100, [1]), (200, [1]), (300, [1])]
    out = capsys.readouterr().out
    assert "2 of 6 results are in" in out and counted(out.splitlines()) == [
        "[3/6]",
        "[4/6]",
        "[5/6]",
        "[6/6]",
    ]
    assert all(path.read_bytes().startswith(before) for path, before in zip(csvs(tmp_path), first))
    assert len(table(csvs(tmp_path)[0])) == 6


def test_another_lr_batch_pool_or_number_of_epochs_is_another_result_of_the_same_file(
    tmp_path, trainings
):
    others = [("--lr", 1e-3), ("--epochs", 1), ("--batch-size", 64), ("--pool", 7)]
    for words in [(), *others, *others, ()]:
        assert paper(tmp_path, "fig7", "--only", 100, *words) == 0
    rows = table(csvs(tmp_path)[0])
    assert len(trainings) == len(rows) == 5 and once(rows)
    assert [(row["lr"], row["epochs"], row["batch_size"], row["pool"]) for row in rows] == [
        ("0.002", "2", "128", "14"),
        ("0.001", "2", "128", "14"),
        ("0.002", "1", "128", "14"),
        ("0.002", "2", "64", "14"),
        ("0.002", "2", "128", "7"),
    ]
    for row in rows:  # a figure is of one plan
        whole = {name: int(row[name]) for name in ("epochs", "batch_size", "pool")}
        plan = small(tmp_path, values=(100,), lr=float(row["lr"]), **whole)
        assert paper_figures.results_of(plan) == [row]
        assert len(paper_figures.results_of(plan, history=True)) == plan.epochs
    assert paper_figures.results_of(small(tmp_path, values=(200,))) == []


def test_test_images_are_asked_for_and_labelled(monkeypatch, tmp_path, capsys):
    """With 4900 images a class, the test set makes the difference."""
    asked = fake_data(monkeypatch, held=4900)
    words = ["fig9", "--data", "fashion-mnist", "--only", 5500, "--epochs", 1, "--batch-size", 4000]
    assert paper(tmp_path, *words) == 2
    assert (
        "every setting was skipped: class_sizes[0] = 5500: fashion-mnist holds 4900 images of class 0"
        in capsys.readouterr().err
    )
    assert paper(tmp_path, *words, "--with-test-images") == 0
    (row,) = table(csvs(tmp_path)[0])
    assert row["test_images"] == "True" and asked[-1][4] is True


def test_settings_without_images_are_skipped_by_name_and_the_others_trained(tmp_path, capsys):
    assert paper(tmp_path, "fig9", "--epochs", 1) == 0
    out = capsys.readouterr().out
    for n_a in ANGLES[1:]:
        assert re.search(
            rf"skipped: n_a = {n_a}\W+class_sizes\[0\] = {n_a}: mnist5k holds 500 images of class 0",
            out,
        )
    assert [row["setting"] for row in table(csvs(tmp_path)[0])] == ["500"]


@pytest.mark.parametrize("words", [["fig1"], ["fig7", "--only", 600, 800]])
def test_where_every_setting_is_skipped_there_is_a_message_and_exit_2(tmp_path, capsys, words):
    assert paper(tmp_path, *words) == 2
    out, err = capsys.readouterr()
    assert not out and re.search(
        r"every setting was skipped: class_sizes\[0\] = \d+: mnist5k holds 500 images .*; class_sizes",
        err,
    )
    assert not list(tmp_path.rglob("*.csv"))


@pytest.mark.parametrize("which", [0, 1], ids=["results", "history"])
def test_a_last_row_that_was_cut_is_dropped_and_redone(tmp_path, trainings, which):
    plan = small(tmp_path, values=(100, 200), epochs=1)
    quiet(plan)
    whole, good = numbers(tmp_path), [path.read_bytes() for path in csvs(tmp_path)]
    last = len(good[which]) - len(good[which].splitlines(keepends=True)[-1])
    for cut in (
        last + 1,
        last + 30,
        len(good[which]) - 1,
    ):  # as a kill leaves it: history is written first
        csvs(tmp_path)[which].write_bytes(good[which][:cut])
        if which == 1:
            csvs(tmp_path)[0].write_bytes(b"".join(good[0].splitlines(keepends=True)[:-1]))
        trainings.clear()
        quiet(plan)
        assert trainings == [(200, [0])] and numbers(tmp_path) == whole
    assert all(path.read_bytes().endswith(b"\n") for path in csvs(tmp_path))


def test_a_history_without_its_result_is_dropped_and_redone(tmp_path, trainings):
    plan = small(tmp_path, values=(100, 200))
    quiet(plan)
    whole, results = numbers(tmp_path), csvs(tmp_path)[0]
    results.write_text("".join(results.read_text().splitlines(keepends=True)[:2]))
    quiet(plan)
    assert trainings[2:] == [(200, [0])] and numbers(tmp_path) == whole


@pytest.mark.parametrize("left", [b"", b"setting,se"], ids=["empty", "half a heading"])
def test_a_file_without_a_whole_heading_is_as_good_as_none(tmp_path, left):
    plan = small(tmp_path, values=(100,), epochs=1)
    for path in (tmp_path / f"{plan.name}.csv", tmp_path / f"{plan.name}-history.csv"):
        path.write_bytes(left)
    assert [row["setting"] for row in table(quiet(plan)[0])] == ["100"]


def test_files_of_another_version_are_refused_and_kept(tmp_path, capsys):
    plan = small(tmp_path, values=(100,))
    path = tmp_path / f"{plan.name}.csv"
    path.write_text("setting,other\n100,1\n")
    for _ in range(2):  # and nothing stays locked
        assert paper(tmp_path, "fig7", "--only", 100) == 2
        assert "has other columns than this version writes" in capsys.readouterr().err
    assert path.read_text() == "setting,other\n100,1\n"


def test_a_rest_of_an_ensemble_is_trained_to_the_same_results(tmp_path):
    """Where a row was cut: the others come without the first, equal up to rounding in float32."""
    plan = small(tmp_path, "fig5", values=LAMBDA_5[:3])
    path, _ = quiet(plan)
    whole = table(path)
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:2]))
    quiet(plan)
    rows = table(path)
    assert rows[0] == whole[0] and [row["setting"] for row in rows] == ["0.0027", "0.003", "0.0033"]
    assert [row["together"] for row in rows] == ["3", "2", "2"] and len(
        table(csvs(tmp_path)[1])
    ) == 6
    for row, expected in zip(rows, whole):
        for measure in set(stored.MEASURES) - {"seconds", "peak_mib"}:
            assert float(row[measure]) == pytest.approx(float(expected[measure]), rel=1e-3)


@pytest.mark.parametrize("row", [1, 2, 7, 8, 9])
def test_rows_of_an_ensemble_get_into_a_file_all_or_none(monkeypatch, tmp_path, row):
    """Stopped before its n-th row of six moments and then three results."""
    plan, line, written = small(tmp_path, "fig5", values=LAMBDA_5[:3]), stored._line, []
    rows = task.train(plan, plan.tasks()[0], progress=False)

    def stop(columns, values):
        written.append(1)
        if len(written) == row:
            raise KeyboardInterrupt
        return line(columns, values)

    with Results(plan) as results:
        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setattr(stored, "_line", stop)
            results.add(*rows)
        assert [len(table(path)) for path in csvs(tmp_path)] == [0, 6 if row > 6 else 0]
    with Results(plan) as results:
        results.add(*rows)
    assert [len(table(path)) for path in csvs(tmp_path)] == [3, 6]


def test_training_goes_on_from_the_checkpoint_and_ends_the_same(monkeypatch, tmp_path):
    whole, cut = (small(tmp_path / name, values=(100,), epochs=9) for name in ("whole", "cut"))
    quiet(whole)
    epochs, original, save = [], network.find_diverged, checkpoint.write_state
    monkeypatch.setattr(
        network,
        "find_diverged",
        lambda diverged, epoch, *rest: epochs.append(epoch) or original(diverged, epoch, *rest),
    )

    def stop_after_four(path, state):
        save(path, state)
        if state["epoch"] == 4:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "write_state", stop_after_four)
        patch.setattr(task, "train_network", functools.partial(train_network, checkpoint_seconds=0))
        with pytest.raises(KeyboardInterrupt):
            quiet(cut)
    assert task.checkpoint(cut, [(100, 0)]).exists()
    quiet(cut)
    assert epochs == [1, 2, 3, 4, 5, 6, 7, 8, 9] and numbers(tmp_path / "cut") == numbers(
        tmp_path / "whole"
    )
    assert not task.checkpoint(cut, [(100, 0)]).exists()


def test_a_checkpoint_of_another_kind_of_device_is_no_dead_end(monkeypatch, tmp_path):
    """As a GPU leaves it, where networks train in bfloat16, for a CPU: workers of a cluster may
    differ.
    """
    whole, plan = (small(tmp_path / name, values=(100,), epochs=4) for name in ("whole", "cut"))
    quiet(whole)
    save, file = checkpoint.write_state, task.checkpoint(plan, [(100, 0)])

    def stop(path, state):
        save(path, state)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "write_state", stop)
        patch.setattr(arguments, "uses_bfloat16", lambda device: True)
        patch.setattr(task, "train_network", functools.partial(train_network, checkpoint_seconds=0))
        with pytest.raises(KeyboardInterrupt):
            quiet(plan)
    assert file.exists()
    with pytest.warns(
        RuntimeWarning,
        match=f"{re.escape(str(file))} is of another version or device: training starts anew",
    ):
        quiet(plan)
    assert numbers(tmp_path / "cut") == numbers(tmp_path / "whole") and not file.exists()


# Kills and a second process -----------------------------------------------------------------------


def run_until(moment, plan):
    """In a process of its own: a plan, killed when something is about to get its place on the disk
    for the n-th time.
    """
    torch.set_num_threads(1)
    left = [moment]

    def counted(original):
        def call(*args, **options):
            if left[0] == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            left[0] -= 1
            return original(*args, **options)

        return call

    os.fsync, os.replace, Path.unlink = counted(os.fsync), counted(os.replace), counted(Path.unlink)
    run(plan, progress=False, say=lambda text: None)


@posix
def test_after_a_kill_at_any_moment_the_same_command_completes_the_results(tmp_path, forkserver):
    settings = dict(values=(100, 200), epochs=1)
    quiet(small(tmp_path / "whole", **settings))
    whole = numbers(tmp_path / "whole")
    for moment in range(100):
        plan = small(tmp_path / str(moment), **settings)
        process = forkserver.Process(target=run_until, args=(moment, plan))
        process.start()
        process.join(60)
        if process.exitcode == 0:
            break
        assert process.exitcode == -signal.SIGKILL
        quiet(plan)
        assert numbers(tmp_path / str(moment)) == whole, f"killed at moment {moment}"
        assert list(tmp_path.glob(f"{moment}/checkpoints/*.part")) == []
    # 2 files with their names when opened; checkpoint, its name, 2 files and the unlink of 2 tasks
    assert moment == 2 * 2 + 2 * (2 + 2 + 1)
    assert numbers(tmp_path / str(moment)) == whole


@posix
def test_a_running_command_keeps_others_out_and_can_be_killed_and_started_again(
    tmp_path, capsys, trainings
):
    words = ["--only", "100", "200", "300", "--epochs", "20"]
    command = [
        sys.executable,
        "-m",
        "ncutils",
        "paper",
        "fig7",
        *SMALL,
        *words,
        "--out",
        str(tmp_path / "killed"),
    ]
    results = tmp_path / "killed" / "sizes-ka5-mnist5k-mlp-relu-fast.csv"
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        end = time.monotonic() + 120
        while not (results.exists() and results.read_text().count("\n") >= 2):
            assert process.poll() is None and time.monotonic() < end
            time.sleep(0.01)
        process.send_signal(signal.SIGSTOP)  # until it is killed
        assert paper(tmp_path / "killed", "fig7", *words) == 2
        assert (
            f"{results} is being written by another process: wait for it, or choose another folder"
            in capsys.readouterr().err
        )
        assert process.poll() is None and trainings == []
    finally:
        process.kill()
        process.wait(60)
    kept = table(results)
    assert 1 <= len(kept) < 3
    assert (
        paper(tmp_path / "killed", "fig7", *words) == paper(tmp_path / "whole", "fig7", *words) == 0
    )
    assert table(results)[: len(kept)] == kept and len(trainings) == 3 - len(kept) + 3
    assert numbers(tmp_path / "killed") == numbers(tmp_path / "whole")


@posix
def test_a_folder_without_locks_is_not_taken_for_one_in_use(monkeypatch, tmp_path, capsys):
    def flock(*_):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr("fcntl.flock", flock)
    assert paper(tmp_path, "fig7", "--only", 100) == 2
    assert (
        capsys.readouterr().err
        == f"python -m ncutils paper: [Errno {errno.ENOLCK}] No locks available\n"
    )


@posix
def test_the_results_stay_locked_until_they_are_closed(tmp_path, capsys):
    plan = small(tmp_path, values=(100, 200), epochs=1)
    with Results(plan) as first:
        assert paper(tmp_path, "fig7", "--only", 100, "--epochs", 1) == 2
        assert "is being written by another process" in capsys.readouterr().err
        first.add(*task.train(plan, [(200, 0)], progress=False))
        quiet(small(tmp_path, "fig8", values=(100,), epochs=1))  # another file of the folder
    assert paper(tmp_path, "fig7", "--only", 100, 200, "--epochs", 1) == 0
    assert [row["setting"] for row in table(tmp_path / f"{plan.name}.csv")] == ["200", "100"]


def test_an_interrupt_keeps_what_is_finished(monkeypatch, tmp_path, capsys, trainings):
    original = task.train

    def interrupted(plan, task, progress=None):
        if task == [(200, 0)]:
            raise KeyboardInterrupt
        return original(plan, task, progress)

    with monkeypatch.context() as patch:
        patch.setattr(running, "train", interrupted)
        assert paper(tmp_path, "fig7", "--only", 100, 200, 300) == 130
    assert (
        "interrupted: what is finished is kept, and the same command goes on"
        in capsys.readouterr().err
    )
    assert [row["setting"] for row in table(csvs(tmp_path)[0])] == ["100"]
    assert paper(tmp_path, "fig7", "--only", 100, 200, 300) == 0
    assert [size for size, _ in trainings] == [100, 200, 300]


# Divergence ---------------------------------------------------------------------------------------


def test_a_wholly_diverged_plan_says_so_with_exit_1(tmp_path, capsys):
    assert paper(tmp_path, "fig7", "--only", 100, 200, "--lr", 1e9) == 1
    out, err = capsys.readouterr()
    assert out.count("training diverged in epoch 1") == 2 and "no result to draw" in out + err
    rows, history = map(table, csvs(tmp_path))
    assert history == [] and len(rows) == 2
    for row in rows:
        assert re.match(
            r"training diverged in epoch \d: objective .*: try a smaller lr$", row["status"]
        )
        assert {row[column] for column in (*stored.MEASURES, "logits", "bias")} == {""} and row[
            "lam_z"
        ] == "0.005"


def test_the_exit_code_is_of_this_plan(tmp_path):
    """A file holds the results of other learning rates as well."""
    paper(tmp_path, "fig7", "--only", 100, "--lr", 1e9)
    assert paper(tmp_path, "fig7", "--only", 200) == 0


@pytest.mark.parametrize(
    "words, code",
    [("100", 0), ("100 --seeds 2", 1), ("200", 1), ("100 200", 1), ("300 --seeds 2", 0)],
)
def test_the_exit_code_is_of_the_settings_and_seeds_asked_for(tmp_path, trainings, words, code):
    """Of stored results, some of which diverged."""
    statuses = {
        (100, 0): "done",
        (100, 1): "training diverged",
        (200, 0): "training diverged",
        (300, 0): "done",
        (300, 1): "done",
    }
    store(small(tmp_path), {key: {"status": status} for key, status in statuses.items()})
    assert paper(tmp_path, "fig7", "--only", *words.split()) == code and trainings == []


def test_a_member_that_diverges_leaves_the_others_as_they_are(monkeypatch, tmp_path, capsys):
    """With the authors' SGD, a huge penalty on W is too much."""
    quiet(small(tmp_path / "well", "fig5", values=LAMBDA_5[:2], recipe="authors"))
    good, ufm = table(csvs(tmp_path / "well")[0]), Plan.ufm
    monkeypatch.setattr(
        Plan,
        "ufm",
        lambda plan, value: (
            UFM([500] * 5 + [100] * 5, 1e9, 1e-3, 0.02)
            if value == LAMBDA_5[2]
            else ufm(plan, value)
        ),
    )
    with pytest.warns(RuntimeWarning, match="training diverged in epoch 1"):
        assert paper(tmp_path / "ill", "fig5", "--recipe", "authors", "--only", *LAMBDA_5[:3]) == 1
    *others, bad = table(csvs(tmp_path / "ill")[0])
    assert bad["setting"] == "0.0033" and bad["status"].startswith("training diverged in epoch 1")
    assert bad["objective"] == bad["logits"] == ""
    for row, expected in zip(others, good, strict=True):
        assert row["status"] == "done" and row["together"] == "3"
        assert float(row["objective"]) == pytest.approx(float(expected["objective"]), rel=1e-4)
    picture = re.search("^figure:  (.*)$", capsys.readouterr().out, re.M)[1]
    assert Path(picture).parent == tmp_path / "ill" and Path(picture).read_bytes()[:8] == PNG
    x, *_ = paper_figures.over_seeds(
        paper_figures.results_of(small(tmp_path / "ill", "fig5", recipe="authors")), "a_b"
    )
    assert x.tolist() == [0.0027, 0.003]


# Bad input ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "words, message",
    [
        ("--ka 4", r"k_a = 4: must be one of 5, 3"),
        ("--ka 4 --only 100", r"k_a = 4: must be one of 5, 3"),
        ("--only 7", r"--only 7: must be among 100 200 300 400 600 800 1000 1100 1200 1400"),
        ("--only 100 7", r"--only 7: must be among"),
        ("--ka 3 --only 200", r"--only 200: must be among 100 400 450"),
        ("--only nan", r"--only nan: must be among"),
        ("--seeds 0", r"seeds = 0: must be a whole number >= 1"),
        ("--epochs 0", r"epochs = 0: must be a whole number >= 1"),
        ("--batch-size 0", r"batch_size = 0: must be a whole number >= 1"),
        ("--pool 0", r"pool = 0: must be a whole number >= 1"),
        ("--pool 3", r"pool = 3: must divide the image size 28 × 28 of mnist5k"),
        ("--lr -1", r"lr = -1.0: must be a positive number, finite"),
        ("--lr nan", r"lr = nan: must be a positive number"),
        ("--lr 0", r"lr = 0.0: must be a positive number"),
        ("--device tpu", r"device = 'tpu': must be None, 'cpu' or 'cuda'"),
        ("--device cuda", r"device = 'cuda': must be None, 'cpu' or, where there is a GPU, 'cuda'"),
        (
            "--with-test-images",
            r"test_images = True: mnist5k has none; only fashion-mnist and cifar10 have",
        ),
        ("--network vgg11 --pool 1", r"image_shape = \(1, 28, 28\): must be \(C, 32, 32\)"),
        ("--network resnet18 --pool 7", r"image_shape\[1\] = 4: must be a whole number >= 8"),
    ],
)
def test_bad_options_are_refused_before_any_work(
    monkeypatch, tmp_path, capsys, trainings, words, message
):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert paper(tmp_path / "new", "fig7", *words.split()) == 2
    err = capsys.readouterr().err
    assert re.search(f"^python -m ncutils paper: {message}", err) and err.count("\n") == 1
    assert trainings == [] and list(tmp_path.iterdir()) == []


def test_a_number_of_majority_classes_is_refused_where_a_figure_has_none(tmp_path, capsys):
    assert paper(tmp_path / "new", "fig1", "--ka", 5) == 2
    err = capsys.readouterr().err
    assert "k_a = 5" in err and "fig1" in err and "one of None" not in err


@pytest.mark.parametrize(
    "words",
    [
        "paper fig3",
        "paper",
        "",
        "paper fig7 --epochs many",
        "paper fig7 --data mnist",
        "paper fig7 --network vit",
        "paper fig7 --recipe slow",
        "paper fig7 --features sigmoid",
        "paper fig7 --only",
    ],
)
def test_words_that_are_none_of_the_commands_are_refused(capsys, words):
    with pytest.raises(SystemExit) as stop:
        main(words.split())
    assert stop.value.code == 2 and "usage: python -m ncutils" in capsys.readouterr().err


@pytest.mark.parametrize(
    "options, message",
    [
        (
            dict(figure="fig3"),
            "figure = 'fig3': must be one of 'fig1', 'fig2', 'fig5', 'fig6', 'fig7', 'fig8', 'fig9'",
        ),
        (
            dict(data="digits"),
            "data = 'digits': must be one of 'mnist5k', 'fashion-mnist', 'cifar10'",
        ),
        (dict(network="vit"), "network = 'vit'"),
        (dict(features="sigmoid"), "features = 'sigmoid'"),
        (dict(recipe="slow"), "recipe = 'slow'"),
        (dict(device="tpu"), "device = 'tpu'"),
        (dict(values=(100, 7)), "values = 7|value = 7"),
        (dict(seeds=1.5), "seeds = 1.5"),
        (dict(lr="fast"), "lr = 'fast'"),
    ],
)
def test_a_plan_refuses_what_the_command_cannot_say(options, message):
    with pytest.raises(ValueError, match=message):
        Plan(**{"figure": "fig7", "device": "cpu", **options})


def test_whole_numbers_of_any_type_are_the_same_plan(tmp_path):
    plan = small(
        tmp_path, seeds=2.0, epochs=2.0, batch_size=128.0, pool=np.int64(14), values=(100.0,)
    )
    assert plan.tasks() == [[(100, 0)], [(100, 1)]] and plan.key(100, 0) == small(tmp_path).key(
        100, 0
    )


def test_data_that_cannot_be_had_are_a_message(monkeypatch, tmp_path, capsys):
    def fails(*_):
        raise RuntimeError("cifar10 cannot be downloaded: put it into $NCUTILS_DATA")

    monkeypatch.setattr(task, "available", fails)
    for more in ([], ["--dry-run"]):
        assert paper(tmp_path / "new", "fig7", *more) == 2
        assert (
            capsys.readouterr().err
            == "python -m ncutils paper: cifar10 cannot be downloaded: put it into $NCUTILS_DATA\n"
        )
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_made_is_a_message(tmp_path, capsys):
    (tmp_path / "file").write_text("in the way")
    for out in (tmp_path / "file", tmp_path / "file" / "results"):
        assert paper(out, "fig7", "--only", 100) == 2
        assert str(out) in capsys.readouterr().err
    assert (tmp_path / "file").read_text() == "in the way"


# Dask ---------------------------------------------------------------------------------------------


@contextlib.contextmanager
def at_most(seconds):
    def stop(*_):
        raise TimeoutError(f"takes more than {seconds} s")

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


@pytest.fixture(scope="module")
def cluster(forkserver):
    """Two worker processes of one thread on this machine."""
    with dask.config.set({"distributed.worker.multiprocessing-method": "forkserver"}), at_most(180):
        cluster = distributed.LocalCluster(
            n_workers=2,
            threads_per_worker=1,
            processes=True,
            host="127.0.0.1",
            dashboard_address=None,
            silence_logs=logging.CRITICAL,
        )
    with cluster:
        yield cluster.scheduler_address


DASKED = dict(values=(100, 200), seeds=3, epochs=15)


@pytest.fixture(scope="module")
def undasked(tmp_path_factory):
    folder = tmp_path_factory.mktemp("undasked")
    quiet(small(folder, **DASKED))
    return numbers(folder, VARIES | {"hardware"})


@posix
def test_a_cluster_gives_the_same_results(monkeypatch, tmp_path, capsys, cluster, undasked):
    words = ["fig7", "--only", 100, 200, "--seeds", 3, "--epochs", 15, "--dask", cluster]
    monkeypatch.chdir(tmp_path)  # the workers are in another folder
    with at_most(180):
        assert paper(".", *words) == 0
        assert sum(line.startswith("[") for line in capsys.readouterr().out.splitlines()) == 6
        assert paper(".", *words) == 0
    assert "6 of 6 results are in" in capsys.readouterr().out
    assert numbers(tmp_path, VARIES | {"hardware"}) == undasked and once(table(csvs(tmp_path)[0]))
    assert list((tmp_path / "checkpoints").iterdir()) == []


@posix
def test_a_killed_worker_costs_no_result(monkeypatch, tmp_path, cluster, undasked):
    killed, original = [], dask.distributed.as_completed

    def as_completed(futures):
        while not killed:
            found = client.run(lambda dask_worker: (os.getpid(), len(dask_worker.state.executing)))
            for pid in [pid for pid, tasks in found.values() if tasks][:1]:
                os.kill(pid, signal.SIGKILL)
                killed.append(pid)
        return original(futures)

    monkeypatch.setattr(dask.distributed, "as_completed", as_completed)
    with at_most(180), distributed.Client(cluster) as client:
        quiet(small(tmp_path, **DASKED), dask=cluster)
        assert len(killed) == 1 and killed[0] not in client.run(os.getpid).values()
    assert numbers(tmp_path, VARIES | {"hardware"}) == undasked and once(table(csvs(tmp_path)[0]))


@pytest.mark.parametrize(
    "error",
    [
        lambda: distributed.KilledWorker(
            "task", type("Worker", (), {"address": "tcp://127.0.0.1:1"}), 3
        ),
        lambda: distributed.client.FutureCancelledError("task", "scheduler-connection-lost"),
    ],
    ids=["worker", "scheduler"],
)
def test_a_cluster_that_is_lost_is_a_message_and_keeps_what_is_finished(
    monkeypatch, tmp_path, capsys, error
):
    class Future:
        def __init__(self, train, plan, task, progress, **_):
            self.made = lambda: train(plan, task, progress)

        def result(self):
            if csvs(tmp_path)[0].read_text().count("\n") > 1:
                raise error()
            return self.made()

    client = type(
        "Client",
        (contextlib.nullcontext,),
        {"submit": Future, "wait_for_workers": lambda *_, **__: None},
    )
    monkeypatch.setattr(dask.distributed, "Client", lambda *_, **__: client())
    monkeypatch.setattr(dask.distributed, "as_completed", list)
    assert paper(tmp_path, "fig7", "--only", 100, 200, "--dask", "tcp://127.0.0.1:1") == 2
    assert capsys.readouterr().err.startswith("python -m ncutils paper: dask")
    assert [row["setting"] for row in table(csvs(tmp_path)[0])] == ["100"]


def test_an_address_without_a_scheduler_is_a_message(monkeypatch, tmp_path, capsys):
    client = dask.distributed.Client
    monkeypatch.setattr(
        dask.distributed, "Client", lambda address, timeout: client(address, timeout=0.5)
    )
    for address in ("tcp://127.0.0.1:1", "nowhere"):
        assert paper(tmp_path, "fig7", "--only", 100, "--dask", address) == 2
        assert f"dask = '{address}': no scheduler answers there" in capsys.readouterr().err


def test_a_scheduler_without_workers_is_a_message(monkeypatch, tmp_path, capsys):
    asked = []

    def wait(_, number, timeout):
        asked.append((number, timeout))
        raise TimeoutError("Only 0/1 workers arrived")

    client = type("Client", (contextlib.nullcontext,), {"wait_for_workers": wait})
    monkeypatch.setattr(dask.distributed, "Client", lambda *_, **__: client())
    assert paper(tmp_path, "fig7", "--only", 100, "--dask", "tcp://127.0.0.1:1") == 2
    assert (
        capsys.readouterr().err
        == "python -m ncutils paper: dask = 'tcp://127.0.0.1:1': the scheduler has no worker\n"
    )
    assert asked == [(1, 20)] and table(csvs(tmp_path)[0]) == []


@pytest.mark.parametrize("locked", [True, False])
def test_two_threads_of_a_worker_give_what_each_gives_alone(monkeypatch, tmp_path, locked):
    """The first starts the second between its seed and its start. Without the lock, the second
    seeds too, and both differ.
    """
    tasks, names = (
        [[(100, 0)], [(100, 1)]],
        [name for name in stored.COLUMNS if name not in VARIES],
    )
    alone, plan = (small(tmp_path / name, values=(100,), seeds=2) for name in ("alone", "threads"))
    expected = [task.train(alone, settings, False) for settings in tasks]
    found, second_seeded, first_done, order = {}, threading.Event(), threading.Event(), []
    starts, reset = network.starts, torch.nn.Linear.reset_parameters

    def work(i):
        found[i] = running._train_alone(plan, tasks[i], False)

    second = threading.Thread(target=work, args=(1,))

    def seeded(layer):
        order.append(threading.current_thread() is second)
        monkeypatch.setattr(torch.nn.Linear, "reset_parameters", reset)
        if order == [False]:
            second.start()
            second_seeded.wait(1 if locked else 60)  # with the lock, in vain
        else:
            second_seeded.set()
            first_done.wait(60)
        reset(layer)

    def starting(*arguments):
        monkeypatch.setattr(torch.nn.Linear, "reset_parameters", seeded)
        return starts(*arguments)

    monkeypatch.setattr(network, "starts", starting)
    if not locked:
        monkeypatch.setattr(running, "_ALONE", contextlib.nullcontext())
    work(0)
    first_done.set()
    second.join()
    assert order == [False, True]
    for i in range(2):
        (row,), (known,) = found[i][0], expected[i][0]
        assert ([row[name] for name in names] == [known[name] for name in names]) is locked


def test_without_the_package_the_message_says_how_to_get_it(monkeypatch, tmp_path, capsys):
    monkeypatch.setitem(sys.modules, "dask.distributed", None)
    assert paper(tmp_path, "fig7", "--only", 100, "--dask", "tcp://127.0.0.1:1") == 2
    assert "pip install -e '.[cluster]' in the checkout" in capsys.readouterr().err


# What a result was measured with ------------------------------------------------------------------


def git(folder, *words):
    subprocess.run(
        ["git", "-c", "user.name=a", "-c", "user.email=a@b", *words],
        cwd=folder,
        check=True,
        capture_output=True,
    )


def test_the_commit_is_that_of_the_checkout_dirty_where_it_was_changed(monkeypatch, tmp_path):
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    monkeypatch.setattr(task, "__file__", str(tmp_path / "package" / "paper" / "task.py"))
    (tmp_path / "package" / "paper").mkdir(parents=True)
    (tmp_path / "package" / "paper" / "task.py").write_text("one")
    commit = task.commit.__wrapped__
    assert commit() == "unknown"  # no repository
    git(tmp_path, "init")
    assert commit() == "unknown"  # no commit
    (
        git(tmp_path, "add", "."),
        git(tmp_path, "commit", "-m", "one"),
        git(tmp_path, "tag", "-a", "v1", "-m", "v1"),
    )
    head = subprocess.run(
        ["git", "rev-parse", "HEAD"], cwd=tmp_path, capture_output=True, text=True
    ).stdout.strip()
    assert commit() == head[:12]
    (tmp_path / "package" / "paper" / "task.py").write_text("two")
    assert commit() == f"{head[:12]}-dirty"
    monkeypatch.setenv("PATH", str(tmp_path))
    assert commit() == "unknown"  # no git


@pytest.mark.parametrize("place", ["", ".venv/lib/site-packages", "vendor"])
def test_the_commit_of_a_repository_that_is_not_the_packages_is_not_recorded(
    monkeypatch, tmp_path, place
):
    """It was installed or unpacked in somebody's repository: at its root, but not in its commits,
    or further down.
    """
    folder = tmp_path / place / "ncutils" / "paper"
    folder.mkdir(parents=True)
    monkeypatch.setattr(task, "__file__", str(folder / "task.py"))
    (tmp_path / "theirs").write_text("theirs")
    git(tmp_path, "init"), git(tmp_path, "add", "."), git(tmp_path, "commit", "-m", "theirs")
    (folder / "task.py").write_text("ours")
    commit = task.commit.__wrapped__
    assert commit() == "unknown"
    git(tmp_path, "add", "."), git(tmp_path, "commit", "-m", "with a copy")
    assert (commit() == "unknown") == bool(place)


def test_hardware_is_the_processor_with_its_threads_or_the_gpu(monkeypatch):
    known = Path("/proc/cpuinfo")
    model = (
        re.search(r"^model name\s*:\s*(.*)$", known.read_text(), re.M) if known.exists() else None
    )
    text = task.hardware(torch.device("cpu"))
    assert text.endswith(f", {torch.get_num_threads()} threads") and (
        model is None or text.startswith(model[1].strip())
    )
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: f"a GPU, {device}")
    for able, float32, number in (
        (True, False, "bfloat16"),
        (True, True, "float32"),
        (False, False, "float32"),
        (False, True, "float32"),
    ):
        monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda *_, **__: able)
        assert task.hardware(torch.device("cuda:1"), float32) == f"a GPU, cuda:1, {number}"
    assert task.hardware(torch.device("cpu"), True) == text

    def missing(*_, **__):
        raise OSError

    monkeypatch.setattr(Path, "read_text", missing)
    monkeypatch.setattr(task.platform, "processor", lambda: "")
    monkeypatch.setattr(task.platform, "machine", lambda: "riscv")
    assert task.hardware(torch.device("cpu")) == f"riscv, {torch.get_num_threads()} threads"


def test_versions_are_those_that_run():
    assert (
        task.versions()
        == f"python {sys.version.split()[0]}, torch {torch.__version__}, numpy {np.__version__}"
    )


# Figures ------------------------------------------------------------------------------------------


def measured(ufm, k_a, features, measure):
    """A measure of the exact optimum, entry by entry."""
    Z, K = solve(ufm, features=features).logits, 10
    minority = range(k_a, K)
    if measure == "a_b":
        own = np.mean([Z[k, k] for k in minority])
        return own - np.mean([Z[j, k] for j in minority for k in minority if j != k])
    if measure == "length_b":
        return np.mean([math.sqrt((Z[:, k] ** 2).sum()) for k in minority])
    pick = {
        "cos_a": lambda j, k: k < j < k_a,
        "cos_b": lambda j, k: k_a <= k < j,
        "cos_ab": lambda j, k: k < k_a <= j,
    }[measure]
    cosine = lambda u, v: u @ v / math.sqrt((u @ u) * (v @ v))
    return np.mean([cosine(Z[:, j], Z[:, k]) for j in range(K) for k in range(K) if pick(j, k)])


@pytest.mark.parametrize("features", ["linear", "relu"])
@pytest.mark.parametrize("measure", ["a_b", "length_b", "cos_a", "cos_b", "cos_ab"])
def test_a_measure_of_the_exact_optimum_is_as_by_hand(features, measure):
    for name, k_a, value in (("lambda", 3, 0.0037), ("sizes", 5, 200), ("angles", 3, 1500)):
        ufm = by_hand(name, k_a, value)
        assert paper_figures.exact_measure(solve(ufm, features), k_a, measure) == pytest.approx(
            measured(ufm, k_a, features, measure), rel=1e-6, abs=1e-9
        )


def test_other_measures_are_refused():
    with pytest.raises(
        ValueError,
        match="measure = 'nc1': must be one of 'a_b', 'length_b', 'cos_a', 'cos_b', 'cos_ab'",
    ):
        paper_figures.exact_measure(None, 5, "nc1")


@pytest.mark.parametrize(
    "figure, values", [("fig6", (0.0045, 0.0037, 0.0102)), ("fig7", (300, 100)), ("fig9", (1500,))]
)
def test_a_curve_goes_from_the_least_to_the_largest_setting_of_all_whatever_is_run(figure, values):
    plan = Plan(figure, values=values, recipe="authors", device="cpu")
    name, k_a, known, _, decay = LISTED[figure, None]
    x, y = paper_figures.exact_curve(plan, "length_b", "relu", points=7)
    assert x[0] == known[0] and x[-1] == known[-1] and (np.diff(x) > 0).all() and len(x) == 7
    for n, height in zip(x[[0, -1]].tolist(), y[[0, -1]]):
        assert height == pytest.approx(
            measured(by_hand(name, k_a, n, decay), k_a, "relu", "length_b"), rel=1e-6
        )
    if name != "lambda":
        assert (x % 2 == 0).all() and x.dtype.kind == "i"  # n_B = n_A/2 is a number of images


def test_seeds_are_averaged_setting_by_setting():
    rows = [
        {"setting": setting, "gap": text}
        for setting, texts in (("200", ["3"]), ("100", ["0.5", "1.5", "4"]), ("300", ["2", ""]))
        for text in texts
    ]
    x, mean, low, high = paper_figures.over_seeds(rows, "gap")
    assert x.tolist() == [100, 200, 300] and mean[:2].tolist() == [2, 3]
    assert low[:2].tolist() == [0.5, 3] and high[:2].tolist() == [4, 3]
    assert np.isnan([mean[2], low[2], high[2]]).all()


def test_mean_logits_are_of_one_setting_in_the_order_of_their_rows():
    Z = np.arange(9.0).reshape(3, 3)
    text = lambda matrix: " ".join(f"{z:.4g}" for z in matrix.ravel())
    rows = [
        {"setting": "1", "logits": text(Z)},
        {"setting": "1", "logits": text(Z + 2)},
        {"setting": "2", "logits": text(-Z)},
    ]
    assert (paper_figures.logits_of(rows, 1.0) == Z + 1).all() and (
        paper_figures.logits_of(rows, 2) == -Z
    ).all()


def lines(ax):
    return {line.get_label(): np.array(line.get_xydata()) for line in ax.lines}


def seeds_mean(rows, setting, measure):
    return np.mean([float(row[measure]) for row in rows if float(row["setting"]) == setting])


@pytest.mark.parametrize("name", ["fig5", "fig6", "fig7", "fig8"])
def test_a_figure_shows_both_exact_curves_the_threshold_and_the_networks(ran, name):
    _, folder, plan, fig, _ = ran(name)
    rows, settings, k_a = table(csvs(folder)[0]), COMMANDS[name][1], plan.k_a
    known = LISTED[name, None][2]
    threshold = {"fig5": 10 / 3000, "fig6": 10 / 2200, "fig7": 300, "fig8": 1300 / 3}[name]
    for ax, measure in zip(fig.axes, ("a_b", "length_b"), strict=True):
        shown = lines(ax)
        for kind, program in (("linear", "exact, (CVX)"), ("relu", "exact, (CVX+)")):
            curve = shown[program]
            assert curve[0, 0] == known[0] and curve[-1, 0] == known[-1] and len(curve) > 50
            for setting, y in zip((known[0], known[-1]), curve[[0, -1], 1]):
                expected = measured(by_hand(plan.experiment.name, k_a, setting), k_a, kind, measure)
                assert y == pytest.approx(expected, rel=1e-5, abs=1e-8)
        label = {"linear": "linear features, network", "relu": "ReLU features, network"}[
            plan.features
        ]
        assert shown[label] == pytest.approx(
            np.array([(s, seeds_mean(rows, s, measure)) for s in settings])
        )
        assert sum("network" in other for other in shown) == 1
        assert any(
            xy[:, 0] == pytest.approx(threshold)
            for xy in shown.values()
            if len(xy) == 2 and xy[0, 0] == xy[1, 0]
        )
        bars = ax.collections[0].get_segments()
        assert [bar[0][0] for bar in bars] == pytest.approx(settings)
        for bar, setting in zip(bars, settings):
            of_seeds = [float(row[measure]) for row in rows if float(row["setting"]) == setting]
            assert [bar[0][1], bar[1][1]] == pytest.approx([min(of_seeds), max(of_seeds)])


@pytest.mark.parametrize("name", ["fig9", "fig9 of 3"])
def test_the_figure_of_angles_shows_three_cosines_and_the_gap(ran, name):
    _, folder, plan, fig, _ = ran(name)
    rows, (left, right), decay = table(csvs(folder)[0]), fig.axes, 5e-4 if name == "fig9" else 0
    for group, label in (
        ("cos_a", "majority A"),
        ("cos_b", "minority B"),
        ("cos_ab", "across A, B"),
    ):
        curve, points = lines(left)[f"{label}, exact"], lines(left)[f"{label}, network"]
        assert curve[[0, -1], 0].tolist() == [500, 5500]
        for n, y in curve[[0, -1]]:
            expected = measured(
                by_hand("angles", plan.k_a, int(n), decay), plan.k_a, plan.features, group
            )
            assert y == pytest.approx(expected, rel=1e-5)
        assert points == pytest.approx(
            np.array([(n, seeds_mean(rows, n, group)) for n in (500, 1000)])
        )
    (gap,) = (xy for xy in lines(right).values())
    assert gap == pytest.approx(
        np.array([(n, seeds_mean(rows, n, f"gap_{plan.features}")) for n in (500, 1000)])
    )
    assert right.get_yscale() == "log"


@pytest.mark.parametrize("name", ["fig1", "fig2"])
def test_the_figure_of_blocks_shows_collapse_and_both_matrices(ran, name):
    _, folder, plan, fig, _ = ran(name)
    rows, history = map(table, csvs(folder))
    settings = COMMANDS[name][1]
    panels = [ax for ax in fig.axes if ax.get_label() != "<colorbar>"]
    assert len(panels) == 3 * len(settings)
    matrix = lambda ax: np.asarray(ax.collections[0].get_array()).reshape(10, 10)
    for structure, left, middle, right in zip(settings, panels[::3], panels[1::3], panels[2::3]):
        mine = [row for row in history if row["setting"] == str(structure)]
        for measure, label in (("nc1", "NC1"), ("trace_ratio", "tr Σ_W / tr Σ_B")):
            expected = [
                (
                    epoch,
                    np.mean([float(row[measure]) for row in mine if row["epoch"] == str(epoch)]),
                )
                for epoch in (1, 2)
            ]
            assert lines(left)[label] == pytest.approx(np.array(expected))
        found = [
            np.array(row["logits"].split(), float)
            for row in rows
            if row["setting"] == str(structure)
        ]
        assert matrix(middle) == pytest.approx(np.mean(found, axis=0).reshape(10, 10))
        ufm = by_hand("block", None, structure, 5e-4 if name == "fig1" else 0)
        assert matrix(right) == pytest.approx(solve(ufm, features=plan.features).logits, abs=1e-6)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(
    "figure, values", [("fig9", (500, 1000)), ("fig1", (1, 2)), ("fig5", (0.0027, 0.0030))]
)
def test_networks_without_any_direction_are_drawn_too(tmp_path, figure, values):
    """A network that has gone to Z = 0 has no cosines and no NC1: its other measures are shown."""
    plan = small(tmp_path, figure, values=values)
    store(
        plan,
        {
            (value, 0): {"a_b": "0", "length_b": "0", "logits": " ".join(["0"] * 100)}
            for value in values
        },
    )
    assert paper_figures.draw(plan).read_bytes()[:8] == PNG


@pytest.fixture
def saved(monkeypatch):
    """[(path, figure)] of all that is drawn, instead of the pictures."""
    drawn, found = [], []
    monkeypatch.setattr(figures.plt.Figure, "savefig", lambda fig, *_, **__: drawn.append(fig))
    monkeypatch.setattr(paper_figures, "write", lambda path, _: found.append((path, drawn[-1])))
    return found


def test_a_figure_shows_all_settings_and_seeds_that_its_options_have_given(tmp_path, saved):
    plan = small(tmp_path, values=(200,))
    store(
        plan,
        {
            (100, 0): {"a_b": "1"},
            (100, 1): {"a_b": "3"},
            (200, 0): {"a_b": "5"},
            (300, 0): {"status": "diverged"},
        },
    )
    store(small(tmp_path, lr=1e-3), {(400, 0): {"a_b": "7"}})
    picture, other = paper_figures.draw(plan), paper_figures.draw(small(tmp_path, lr=1e-3, seeds=3))
    (path, fig), (other_path, other_fig) = saved
    assert (path, other_path) == (picture, other) and path != other_path
    assert lines(fig.axes[0])["ReLU features, network"].tolist() == [[100, 2], [200, 5]]
    assert lines(other_fig.axes[0])["ReLU features, network"].tolist() == [[400, 7]]


@pytest.mark.parametrize(
    "options, name, title",
    [
        (
            dict(epochs=150, pool=1),
            "sizes-ka5-mnist5k-mlp-relu-fast",
            "mlp on mnist5k, relu features, recipe fast, 150 epochs",
        ),
        (
            dict(epochs=2000, pool=1, recipe="authors", seeds=3, lr=0.01, batch_size=128),
            "sizes-ka5-mnist5k-mlp-relu-authors",
            "mlp on mnist5k, relu features, recipe authors, 2000 epochs",
        ),
        (
            dict(epochs=2000, pool=1, compiled=True),
            "sizes-ka5-mnist5k-mlp-relu-fast-epochs2000",
            "mlp on mnist5k, relu features, recipe fast, 2000 epochs",
        ),
        (
            dict(figure="fig8", features="linear", lr=1e-3, batch_size=64),
            "sizes-ka3-mnist5k-mlp-linear-fast-epochs2-batch-size64-lr0.001-pool14",
            "mlp on mnist5k, linear features, recipe fast, 2 epochs",
        ),
        (
            dict(data="cifar10", network="convnet", pool=1, epochs=None, test_images=True),
            "sizes-ka5-cifar10-convnet-relu-fast-test-images",
            "convnet on cifar10 with test images, relu features, recipe fast, 150 epochs",
        ),
        (
            dict(figure="fig5", features="linear", pool=7),
            "lambda-ka5-mnist5k-mlp-linear-fast-epochs2-pool7",
            "mlp on mnist5k, linear features, recipe fast, 2 epochs",
        ),
    ],
)
def test_a_picture_is_named_by_the_options_that_are_not_the_default_and_titled_by_its_networks(
    tmp_path, saved, options, name, title
):
    plan = small(tmp_path, **options)
    store(plan, {(plan.values[0], 0): {"a_b": "1", "length_b": "1"}})
    paper_figures.draw(plan)
    ((path, fig),) = saved
    assert path == tmp_path / f"{name}.png" and fig.get_suptitle() == title


@pytest.mark.parametrize(
    "name, title",
    [
        ("fig1", "mlp on mnist5k, relu features, recipe authors, 2 epochs"),
        ("fig9 of 3", "mlp on mnist5k, linear features, recipe fast, 2 epochs"),
        ("fig8", "convnet on mnist5k, relu features, recipe authors, 2 epochs"),
    ],
)
def test_every_kind_of_figure_has_a_title(ran, name, title):
    assert ran(name)[3].get_suptitle() == title
