"""Small runs of the paper's experiments, and their settings written out by hand, for the tests."""

import csv
import functools

import numpy as np
import pytest
import torch

from ncutils import UFM, solve
from ncutils.__main__ import main
from ncutils.paper import figures as paper_figures
from ncutils.paper import results as stored
from ncutils.paper import run as running
from ncutils.paper import task
from ncutils.paper.results import Results
from ncutils.paper.run import run
from ncutils.paper.task import Plan

SMALL = "--data mnist5k --network mlp --recipe fast --pool 14 --epochs 2 --device cpu".split()
VARIES = {"seconds", "peak_mib", "date", "commit"}  # from run to run
PNG = b"\x89PNG\r\n\x1a\n"
solved = functools.cache(solve)

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
        few = (4000,) * 3 + (3000,) * 3 if value == 1 else (3000,) * 2 + (1000,) * 4
        return UFM((5000,) * 4 + few, 2e-3 + decay, 2e-6, 0.02 + decay)
    known = {"lambda": (500, 100, value), "sizes": (value, 100, 0.005)}
    n_a, n_b, l = known.get(name, (value, value // 2, None))  # the last of "angles"
    sizes = (n_a,) * k_a + (n_b,) * (10 - k_a)
    l = 0.1 / sum(sizes) if l is None else l
    return UFM(sizes, 2 * 5 * l + decay, 2 * l / 20, 2 * 0.01 + decay)


def one_thread():
    """Of a fixture for a module: sums are in the same order everywhere, and exact optima, most of
    them of the same settings, are solved once.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OMP_NUM_THREADS", "1")
        patch.setattr(paper_figures, "solve", solved)
        yield
    torch.set_num_threads(threads)


def paper(out, figure, *words):
    """The exit code of a small run; later words outrank SMALL."""
    return main(["paper", figure, *SMALL, "--out", str(out), *map(str, words)])


def small(out, figure="fig7", **options):
    known = dict(data="mnist5k", network="mlp", recipe="fast", pool=14, epochs=2, device="cpu")
    return Plan(figure, **({"out": str(out)} | known | options))


def quiet(plan, **options):
    """Run a plan. Returns the path of its results."""
    return run(plan, progress=False, say=lambda text: None, **options)


def table(path):
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def csvs(folder):
    """The paths of results and history of the one plan in a folder."""
    (history,) = folder.glob("*-history.csv")
    return folder / history.name.replace("-history", ""), history


def numbers(folder, but=VARIES):
    """What two equal runs have in common: rows of both files, in one order."""
    of = lambda row: tuple((name, text) for name, text in row.items() if name not in but)
    return [sorted(map(of, table(path))) for path in csvs(folder)]


def once(rows):
    """Whether no two rows are of one setting, seed and options."""
    keys = [tuple(row[name] for name in stored.KEY) for row in rows]
    return len(set(keys)) == len(keys)


def store(plan, results):
    """Results {(setting, seed): columns}, not trained for, with a history of two epochs."""
    unknown = dict.fromkeys(stored.COLUMNS, "")
    unknown |= {"status": "done", "seconds": "0", "gap_relu": "0.5", "gap_linear": "0.5"}
    rows = [unknown | plan.key(*key) | columns for key, columns in results.items()]
    moments = [row | {"epoch": epoch} for row in rows for epoch in "12"]
    with Results(plan) as file:
        file.add(rows, [{name: moment[name] for name in stored.HISTORY} for moment in moments])


def count_trainings(patch):
    """[(largest class, seeds)] of every call of the trainer from now on. Nothing is drawn."""
    calls, original = [], task.train_network

    def trainer(model, images, labels, ufms, **options):
        calls.append((ufms[0].class_sizes[0], options["seed"]))
        return original(model, images, labels, ufms, **options)

    patch.setattr(paper_figures, "draw", lambda plan: "no figure")
    patch.setattr(task, "train_network", trainer)
    return calls


def fake_data(patch, held=6000, shape=(1, 4, 4)):
    """Images of a few pixels in place of a data set of `held` images a class, and 1000 more in the
    test set. Returns what is asked of it.
    """
    asked = []

    def load(name, class_sizes, seed=0, pool=1, test_images=False, dtype="float32"):
        asked.append((name, tuple(class_sizes), seed, pool, test_images, dtype))
        labels = np.repeat(np.arange(len(class_sizes)), class_sizes)
        rng = np.random.default_rng(seed)
        images = rng.random((len(labels), *shape))
        images += labels.reshape(-1, 1, 1, 1) * rng.random(shape) / 5
        if dtype == "uint8":
            return (255 * images / images.max()).astype("uint8"), labels
        return images.astype("float32"), labels

    for module in (task, running):
        patch.setattr(module, "load_images", load)
    available = lambda name, test_images=False: np.full(10, held + 1000 * test_images)
    patch.setattr(task, "available", available)
    return asked


def measured(ufm, k_a, features, measure):
    """A measure of the exact optimum, entry by entry."""
    Z, K = solved(ufm, features).logits, 10
    minority = range(k_a, K)
    if measure == "a_b":
        own = np.mean([Z[k, k] for k in minority])
        return own - np.mean([Z[j, k] for j in minority for k in minority if j != k])
    if measure == "length_b":
        return np.mean([(Z[:, k] ** 2).sum() ** 0.5 for k in minority])
    pick = {
        "cos_a": lambda j, k: k < j < k_a,
        "cos_b": lambda j, k: k_a <= k < j,
        "cos_ab": lambda j, k: k < k_a <= j,
    }[measure]
    cosine = lambda u, v: u @ v / ((u @ u) * (v @ v)) ** 0.5
    return np.mean([cosine(Z[:, j], Z[:, k]) for j in range(K) for k in range(K) if pick(j, k)])


def lines(ax):
    """{label: points (n, 2)} of the lines of an axes."""
    return {line.get_label(): np.array(line.get_xydata()) for line in ax.lines}


def few_points(patch):
    """Curves that are drawn, but not looked at, have three points."""
    curve = paper_figures.exact_curve
    patch.setattr(paper_figures, "exact_curve", lambda *which: curve(*which, points=3))
