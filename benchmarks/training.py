r"""The training of networks against the authors' way of doing it, and an ensemble against runs of
one network each.

The peers are written here from the description of the authors' code; it is not this project's and
is not run.

Feeding. One network, one start, one recipe (SGD, momentum 0.9), two ways of getting minibatches of
128 to it.
- Authors' way: the training set is a Python list of pairs of tensors, image (1, C, H, W) and label
(1,). Each epoch
  cuts a NumPy permutation into minibatches; each sample's tensors become lists of NumPy arrays,
  `np.array` of these lists one array, and that a new tensor, moved to the device and squeezed.
  Normalising comes before, uncounted.
- Ours: `train_network(recipe="authors")`, whose data are one tensor on the device. Seconds are from
its history, in
  which the evaluation is not counted. On a GPU it runs as it does by default, in bfloat16, and in
  float32 as the peer.
- Both take turns in each of --rounds rounds; the first epoch of each turn is not counted. Medians
of the rounds.

Until a gap. Training seconds until the relative gap to the exact optimum, of each kind of features,
is first at most 1e-2 and 1e-3, on MNIST-5000. Seconds are of training alone, without evaluation,
for both.
- The peer is `recipe="authors"` on their schedule of 2000 epochs, run to its end in our loop,
recorded every 5 epochs;
  and, labelled so, its epochs times the seconds that an epoch takes in the authors' way of feeding.
- Ours is `recipe="fast"` at settings fixed here for each gap, chosen on seeds 0 to 5, recorded
every epoch; median of
  three other seeds.

Ensemble. Eight values of λ_Z, recipe "fast". One ensemble; eight runs one after the other, which is
the peer; and eight runs in as many processes of one thread as there are cores, started and warmed
up before: the strong alternative. Seconds are of the whole calls, evaluation and exact optima
included. All take turns in each round; medians.

GPU, where there is one: ResNet18 on random images in bfloat16, images/s of our loop, and its
arithmetic as a share of the card's own rate in products of bfloat16 matrices.

    make bench    or    python benchmarks/training.py [--quick] [--threads N]
                                                      [--parts feeding gaps ensemble gpu]
"""

import argparse
import copy
import json
import math
import multiprocessing
import os
import statistics
import sys
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

# run as a script, it does not know the folder above
sys.path.append(str(Path(__file__).resolve().parent.parent))

from benchmarks.exact import environment, show_environment, show_targets
from ncutils import UFM
from ncutils._device import pick_device
from ncutils.data import load_images
from ncutils.paper.provenance import hardware
from ncutils.training.ensemble import starts
from ncutils.training.network import train_network
from ncutils.training.networks import MLP, ConvNet, ResNet18
from ncutils.training.recipes import RECIPES

PARTS = ("feeding", "gaps", "ensemble", "gpu")
PACKAGES = ("python", "numpy", "scipy", "torch")
BATCH = 128  # the authors'
GAPS = (1e-2, 1e-3)
SIZES = [500] * 5 + [100] * 5  # MNIST-5000 with K_A = 5
LAM_Z = 0.8 * 10 / 3000  # λ_Z N = 0.8 sqrt(100)


class Fast(NamedTuple):
    """Settings of the recipe "fast"."""

    epochs: int
    batch_size: int
    lr: float


class Sizes(NamedTuple):
    """How much is run. feed_epochs: counted ones in a turn. fast: {(features, gap): settings}."""

    class_sizes: list
    feed_epochs: int
    authors_epochs: int
    record_every: int
    fast: dict
    seeds: tuple
    lams: tuple
    ensemble_epochs: int


FULL = Sizes(
    SIZES,
    feed_epochs=3,
    authors_epochs=2000,
    record_every=5,
    fast={
        ("linear", 1e-2): Fast(18, 128, 6e-3),
        ("linear", 1e-3): Fast(38, 128, 6e-3),
        ("relu", 1e-2): Fast(44, 128, 6e-3),
        ("relu", 1e-3): Fast(80, 128, 6e-3),
    },
    seeds=(10, 11, 12),
    lams=(0.0015, 0.002, 0.0025, 0.003, 0.00325, 0.0037, 0.0045, 0.006),
    ensemble_epochs=20,
)
QUICK = Sizes(
    [20] * 5 + [10] * 5,
    feed_epochs=1,
    authors_epochs=6,
    record_every=2,
    fast={(kind, gap): Fast(8, 25, 4e-3) for kind in ("linear", "relu") for gap in GAPS},
    seeds=(0, 1),
    lams=(0.003, 0.006),
    ensemble_epochs=2,
)


def problem(class_sizes, lam_z=None):
    """λ_Z N = 0.8 sqrt(n_B) unless λ_Z is given, λ_b and λ_W/λ_Z as in the authors' experiments."""
    lam_z = 0.8 * math.sqrt(min(class_sizes)) / sum(class_sizes) if lam_z is None else lam_z
    return UFM.from_lam_z(class_sizes, lam_z, 0.02, balance=10)


# The authors' way of feeding ----------------------------------------------------------------------


def sample_list(images, labels):
    """The training set as a list of pairs: image (1, C, H, W), normalised, and label (1,)."""
    x, y = RECIPES["authors"].scale(torch.as_tensor(images).float()), torch.as_tensor(labels)
    return [(x[i : i + 1].clone(), y[i : i + 1].clone()) for i in range(len(x))]


def stacked(tensors, device):
    """(B, …) from a minibatch of tensors (1, …), sample by sample."""
    rows = [list(tensor.numpy()) for tensor in tensors]  # of one array (C, H, W) each
    return torch.tensor(np.array(rows), dtype=tensors[0].dtype).to(device).squeeze(1)


class AuthorsLoop:
    """A network with W (K, d), b (K,), trained by SGD from `train_network`'s start for this seed.
    λ_b < ∞.
    """

    def __init__(self, model, images, labels, ufm, device=None, seed=0, batch_size=BATCH):
        self.samples, self.ufm, self.batch_size = sample_list(images, labels), ufm, batch_size
        self.device, self.rng = pick_device(device), np.random.default_rng(seed)
        [self.body], W, b = starts(model, RECIPES["authors"].classifier, ufm.num_classes, [seed], 1)
        self.body.to(self.device)
        self.W, self.b = (nn.Parameter(part[0].to(self.device)) for part in (W, b))
        self.optimizer = torch.optim.SGD(
            [*self.body.parameters(), self.W, self.b], lr=0.01, momentum=0.9
        )

    def objective(self, x, y):
        """Of a minibatch: (1/B) Σ CE + λ_W/2 ‖W‖² + λ_b/2 ‖b‖² + λ_H/2 N/B ‖H‖²."""
        H, ufm = self.body(x), self.ufm
        loss = nn.functional.cross_entropy(nn.functional.linear(H, self.W, self.b), y)
        penalty = (
            ufm.lam_w * (self.W**2).sum() + ufm.lam_h * ufm.num_samples / len(x) * (H**2).sum()
        )
        return loss + (penalty + ufm.lam_b * (self.b**2).sum()) / 2

    def epoch(self):
        order = self.rng.permutation(len(self.samples))
        for first in range(0, len(order), self.batch_size):
            batch = [self.samples[i] for i in order[first : first + self.batch_size]]
            x, y = (stacked(part, self.device) for part in zip(*batch))
            self.optimizer.zero_grad()
            self.objective(x, y).backward()
            self.optimizer.step()


def synchronise(device):
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def authors_seconds(loop, epochs):
    """Seconds per epoch, without a first one."""
    loop.epoch()
    synchronise(loop.device)
    start = time.perf_counter()
    for _ in range(epochs):
        loop.epoch()
    synchronise(loop.device)
    return (time.perf_counter() - start) / epochs


def our_seconds(
    model, images, labels, ufm, epochs, device=None, amp=None, recipe="authors", batch_size=BATCH
):
    """Seconds per epoch, without a first one."""
    first, last = train_network(
        model,
        images,
        labels,
        ufm,
        epochs=1 + epochs,
        batch_size=batch_size,
        warm_start=False,
        recipe=recipe,
        amp=amp,
        device=device,
        progress=False,
        record=[1],
    ).history
    return (last["seconds"] - first["seconds"]) / epochs


def random_images(class_sizes, shape, seed=0):
    images = np.random.default_rng(seed).random((sum(class_sizes), *shape), dtype=np.float32)
    return images, np.repeat(np.arange(len(class_sizes)), class_sizes)


def feeding_cases(sizes, device):
    """(name, model, images, labels)."""
    small, labels = load_images("mnist5k", sizes.class_sizes, pool=2)
    large, _ = load_images("mnist5k", sizes.class_sizes)
    cases = [
        ("MLP 196-256-128-64", MLP(small.shape[1:]), small, labels),
        ("ConvNet 28 x 28", ConvNet(large.shape[1:]), large, labels),
    ]
    if device.type == "cuda":
        cases.append(
            ("ResNet18 32 x 32", ResNet18(), *random_images(sizes.class_sizes, (3, 32, 32)))
        )
    return cases


def compare_feeding(name, model, images, labels, ufm, rounds, epochs, device):
    """One row for each precision of ours: the default, and on a GPU also float32, as the authors'
    has.
    """
    loop = AuthorsLoop(copy.deepcopy(model), images, labels, ufm, device)
    ways = {"float32": lambda: our_seconds(model, images, labels, ufm, epochs, device, amp=False)}
    if device.type == "cuda":
        ways = {"bfloat16": lambda: our_seconds(model, images, labels, ufm, epochs, device)} | ways
    theirs, ours = [], {precision: [] for precision in ways}
    for _ in range(rounds):
        theirs.append(authors_seconds(loop, epochs))
        for precision, way in ways.items():
            ours[precision].append(way())
    return [
        feeding_row(name, precision, device.type, epochs, theirs, times)
        for precision, times in ours.items()
    ]


def feeding_row(name, precision, device, epochs, theirs, ours):
    authors, mine = statistics.median(theirs), statistics.median(ours)
    return {
        "network": name,
        "precision": precision,
        "device": device,
        "rounds": len(ours),
        "epochs": epochs,
        "authors": authors,
        "ours": mine,
        "ratio": authors / mine,
        "all_authors": theirs,
        "all_ours": ours,
    }


FEED_COLUMNS = "{:<20} {:<10} {:>7} {:>7} {:>13} {:>10} {:>8}"


def show_feeding(sizes, rounds, device):
    print(
        "\nSeconds per epoch, fed in the authors' way and in ours: medians of rounds of so many "
        "epochs each\n"
    )
    print(
        FEED_COLUMNS.format(
            "network", "ours in", "rounds", "epochs", "authors' way", "ours", "ratio"
        )
    )
    rows, ufm = [], problem(sizes.class_sizes)
    for case in feeding_cases(sizes, device):
        for row in compare_feeding(*case, ufm, rounds, sizes.feed_epochs, device):
            rows.append(row)
            print(
                FEED_COLUMNS.format(
                    row["network"],
                    row["precision"],
                    row["rounds"],
                    row["epochs"],
                    f"{row['authors']:.4f}",
                    f"{row['ours']:.4f}",
                    f"{row['ratio']:.1f}",
                ),
                flush=True,
            )
    return rows


# Until a gap --------------------------------------------------------------------------------------


def first_reached(history, gap):
    """(epoch, seconds) of the first record of a network alone with at most this gap, or None."""
    return next(((row["epoch"], row["seconds"]) for row in history if row["gap"][0] <= gap), None)


def middle(found):
    """Medians of (epoch, seconds) of several runs, None if one of them has not reached the gap."""
    return None if None in found else tuple(statistics.median(values) for values in zip(*found))


def gap_row(features, gap, settings, authors, fast, authors_epoch_seconds=None):
    """`authors` and `fast`: a list of (epoch, seconds) or None, one a run. Ratios only where all
    have reached it.

    `authors_epoch_seconds`: of an epoch in the authors' way of feeding, if that was measured.
    """
    peer, ours = middle(authors), middle(fast)
    row = {
        "features": features,
        "gap": gap,
        "fast_settings": settings,
        "authors_runs": len(authors),
        "authors_reached": len(authors) - authors.count(None),
        "fast_runs": len(fast),
        "fast_reached": len(fast) - fast.count(None),
    }
    for name, found in ("authors", peer), ("fast", ours):
        row[f"{name}_epochs"], row[f"{name}_seconds"] = found or (None, None)
    row["authors_fed_seconds"] = None
    if peer and authors_epoch_seconds is not None:
        row["authors_fed_seconds"] = peer[0] * authors_epoch_seconds
    over = lambda seconds: seconds / ours[1] if ours and seconds is not None else None
    return row | {
        "ratio": over(row["authors_seconds"]),
        "fed_ratio": over(row["authors_fed_seconds"]),
    }


GAP_COLUMNS = "{:<8} {:>6}  {:<26} {:>5} {:>12} {:>8} {:>10} {:>8}"


def show_gaps(sizes, device, feeding):
    """`feeding`: the rows of that part, whose MLP's seconds per epoch are taken."""
    fed = next((row["authors"] for row in feeding if row["network"].startswith("MLP")), None)
    images, labels = load_images("mnist5k", sizes.class_sizes, pool=2)
    ufm, rows = problem(sizes.class_sizes), []
    print("\nTraining seconds until a relative gap to the exact optimum: MLP on MNIST-5000\n")
    print(
        GAP_COLUMNS.format(
            "features", "gap", "recipe", "runs", "epochs", "seconds", "ours", "ratio"
        )
    )
    for features in ("linear", "relu"):
        model = MLP(images.shape[1:], features=features)
        train = lambda recipe, epochs, **settings: (
            train_network(
                model,
                images,
                labels,
                ufm,
                epochs=epochs,
                recipe=recipe,
                device=device,
                progress=False,
                **settings,
            ).history
        )
        train("fast", 2), train("authors", 2)  # warm-up
        fast = {gap: [] for gap in GAPS}
        for gap, seed in [(gap, seed) for seed in sizes.seeds for gap in GAPS]:
            epochs, batch_size, lr = sizes.fast[features, gap]
            history = train(
                "fast", epochs, batch_size=batch_size, lr=lr, seed=seed, record=range(1, epochs + 1)
            )
            fast[gap].append(first_reached(history, gap))
        every = range(sizes.record_every, sizes.authors_epochs + 1, sizes.record_every)
        history = train("authors", sizes.authors_epochs, record=every)
        for gap in GAPS:
            row = gap_row(
                features,
                gap,
                sizes.fast[features, gap],
                [first_reached(history, gap)],
                fast[gap],
                fed,
            )
            last = float(history[-1]["gap"][0])
            rows.append(row | {"authors_schedule": sizes.authors_epochs, "authors_last_gap": last})
            print("\n".join(gap_lines(rows[-1])), flush=True)
    print(
        "\nruns: each with another seed, medians. The authors' schedule has "
        f"{sizes.authors_epochs} epochs."
    )
    return rows


def gap_lines(row):
    """The lines of the table for one gap."""
    epochs, batch_size, lr = row["fast_settings"]
    seconds = lambda name: "-" if row[name] is None else f"{row[name]:.2f}"
    ratio = lambda name: "-" if row[name] is None else f"{row[name]:.1f}"

    def reached(name):
        if row[f"{name}_epochs"] is not None:
            return f"{row[f'{name}_epochs']:g}"
        return f"not by {row[f'{name}_runs'] - row[f'{name}_reached']} of {row[f'{name}_runs']}"

    ours = seconds("fast_seconds")
    lines = [
        (
            f"fast, {epochs} x {batch_size}, lr {lr:g}",
            row["fast_runs"],
            reached("fast"),
            ours,
            "",
            "",
        ),
        (
            "authors",
            row["authors_runs"],
            reached("authors"),
            seconds("authors_seconds"),
            ours,
            ratio("ratio"),
        ),
        (
            "authors, fed in their way",
            row["authors_runs"],
            reached("authors"),
            seconds("authors_fed_seconds"),
            ours,
            ratio("fed_ratio"),
        ),
    ]
    return [
        GAP_COLUMNS.format(row["features"], f"{row['gap']:g}", *line).rstrip() for line in lines
    ]


# Ensemble -----------------------------------------------------------------------------------------

SHARED = {}  # in a process of the pool: what all its runs have in common


def cores():
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()


def run_one(ufms, images, labels, epochs, device):
    """The final gaps (E,) of an ensemble. Each member is what it would be alone."""
    trained = train_network(
        MLP(images.shape[1:]),
        images,
        labels,
        ufms,
        epochs=epochs,
        seed=[0] * len(ufms),
        device=device,
        progress=False,
        record=[epochs],
    )
    return trained.gaps.tolist()


def prepare(images, labels, epochs, device):
    """A process's start: one thread, and a short run as warm-up."""
    torch.set_num_threads(1)
    SHARED.update(images=images, labels=labels, epochs=epochs, device=device)
    run_one([problem(np.bincount(labels).tolist())], images, labels, 2, device)


def answer(_):
    """The process's number, once it is ready."""
    time.sleep(0.05)
    return os.getpid()


def run_shared(ufm):
    return run_one([ufm], **SHARED)


def compare_ensemble(ufms, images, labels, epochs, rounds, device, threads):
    """{way: seconds of all rounds} for an ensemble and runs one after the other, for each number of
    threads, and in processes; and the gaps that each way had at its end."""
    count = min(cores(), len(ufms))
    shared = images, labels, epochs, str(device)
    ways = {}
    for number in threads:
        ways["ensemble", number] = lambda: run_one(ufms, *shared)
        ways["one after the other", number] = lambda: [
            gap for ufm in ufms for gap in run_one([ufm], *shared)
        ]
    context = multiprocessing.get_context("spawn")
    before = torch.get_num_threads()
    times, gaps = {way: [] for way in [*ways, ("processes", count)]}, {}
    with context.Pool(count, prepare, shared) as pool:
        try:
            while len(set(pool.map_async(answer, range(count), chunksize=1).get(300))) < count:
                # not yet all are ready; one that fails at its start is started again, but not for
                # ever
                pass
            ways["processes", count] = lambda: [
                gap for [gap] in pool.map(run_shared, ufms, chunksize=1)
            ]
            run_one(ufms, images, labels, 2, device)
            run_one(ufms[:1], images, labels, 2, device)
            for _ in range(rounds):
                for (name, number), way in ways.items():
                    torch.set_num_threads(1 if name == "processes" else number)
                    start = time.perf_counter()
                    gaps[name, number] = way()
                    times[name, number].append(time.perf_counter() - start)
        finally:
            torch.set_num_threads(before)
    return times, gaps


def ensemble_rows(times, members, epochs):
    """Rows of medians. ratio: to the runs one after the other at the same number of threads, the
    ensemble's target; processes have that of the ensemble at its best number of threads: above 1,
    the ensemble is faster."""
    medians = {way: statistics.median(seconds) for way, seconds in times.items()}
    best = min(seconds for (name, _), seconds in medians.items() if name == "ensemble")
    rows = []
    for (name, number), seconds in medians.items():
        if name == "processes":
            ratio = seconds / best
        else:
            ratio = medians["one after the other", number] / seconds
        rows.append(
            {
                "way": name,
                "number": number,
                "members": members,
                "epochs": epochs,
                "rounds": len(times[name, number]),
                "seconds": seconds,
                "ratio": ratio,
                "all_seconds": times[name, number],
            }
        )
    return rows


ENSEMBLE_COLUMNS = "{:<36} {:>7} {:>9}  {}"


def show_ensemble(sizes, rounds, device):
    images, labels = load_images("mnist5k", sizes.class_sizes, pool=2)
    ufms = [problem(sizes.class_sizes, lam_z) for lam_z in sizes.lams]
    threads = sorted({1, cores()})
    epochs = f"{sizes.ensemble_epochs} epochs"
    title = f"{len(ufms)} values of λ_Z, MLP, {epochs}: seconds of whole calls, medians"
    print(f"\n{title}\n", flush=True)
    times, gaps = compare_ensemble(
        ufms, images, labels, sizes.ensemble_epochs, rounds, device, threads
    )
    rows = ensemble_rows(times, len(ufms), sizes.ensemble_epochs)
    print(ENSEMBLE_COLUMNS.format("way", "rounds", "seconds", "ratio"))
    for row in rows:
        row["gaps"] = gaps[row["way"], row["number"]]
        plural = "s" * (row["number"] > 1)
        if row["way"] == "processes":
            name = f"{row['number']} process{'es' * (row['number'] > 1)} of 1 thread at a time"
            meaning = "times the seconds of the faster ensemble"
        else:
            name, meaning = f"{row['way']}, {row['number']} thread{plural}", ""
            if row["way"] == "ensemble":
                meaning = "times as fast as one after the other"
        ratio = f"{row['ratio']:.2f} {meaning}".rstrip()
        print(
            ENSEMBLE_COLUMNS.format(name, row["rounds"], f"{row['seconds']:.3f}", ratio), flush=True
        )
    return rows


# GPU ----------------------------------------------------------------------------------------------


def flops_per_image(model, shape, batch_size=2):
    """Floating-point operations of one training step, forward and backward, for an image; a
    multiplication and the addition after it are two. W and b have a share below 1e-4 and are left
    out."""
    model = copy.deepcopy(model).cpu().train()
    counter = FlopCounterMode(display=False)
    with counter:
        model(torch.zeros(batch_size, *shape)).sum().backward()
    return counter.get_total_flops() / batch_size


def matmul_rate(device, size=8192, repeats=20, series=5):
    """Operations per second in products of two (size, size) matrices in bfloat16: the best of some
    series.
    """
    a, b = (torch.randn(size, size, device=device).bfloat16() for _ in range(2))
    a @ b
    rates = []
    for _ in range(series):
        synchronise(device)
        start = time.perf_counter()
        for _ in range(repeats):
            a @ b
        synchronise(device)
        rates.append(repeats * 2 * size**3 / (time.perf_counter() - start))
    return max(rates)


def throughput_row(name, batch_size, images, epochs, seconds, flops, rate):
    """From the seconds per epoch of some rounds: `images` in an epoch, `flops` of an image, `rate`
    of the card.
    """
    per_second = images / statistics.median(seconds)
    return {
        "network": name,
        "batch_size": batch_size,
        "rounds": len(seconds),
        "epochs": epochs,
        "images_per_second": per_second,
        "flops_per_image": flops,
        "matmul_rate": rate,
        "share": per_second * flops / rate,
    }


def measure_throughput(name, model, shape, class_sizes, batch_sizes, epochs, rounds, device, rate):
    """One row for each batch size."""
    images, labels = random_images(class_sizes, shape)
    flops, ufm = flops_per_image(model, shape), problem(class_sizes)
    times = {batch_size: [] for batch_size in batch_sizes}
    for _ in range(rounds):
        for batch_size in batch_sizes:
            times[batch_size].append(
                our_seconds(
                    model,
                    images,
                    labels,
                    ufm,
                    epochs,
                    device,
                    amp=True,
                    recipe="fast",
                    batch_size=batch_size,
                )
            )
    return [
        throughput_row(name, batch_size, len(images), epochs, seconds, flops, rate)
        for batch_size, seconds in times.items()
    ]


GPU_COLUMNS = "{:>10} {:>7} {:>10} {:>14}"


def show_gpu(rounds, device):
    if device.type != "cuda":
        print("\nImages/s of ResNet18: not measured, no GPU")
        return []
    rate = matmul_rate(device)
    print(
        "\nResNet18 in bfloat16, random images 3 x 32 x 32; the card's matrix products: "
        f"{rate / 1e12:.0f} TFLOP/s\n"
    )
    rows = measure_throughput(
        "ResNet18", ResNet18(), (3, 32, 32), [1024] * 10, (128, 512), 3, rounds, device, rate
    )
    print(GPU_COLUMNS.format("batch size", "rounds", "images/s", "share of that"))
    for row in rows:
        print(
            GPU_COLUMNS.format(
                row["batch_size"],
                row["rounds"],
                f"{row['images_per_second']:.0f}",
                f"{row['share']:.1%}",
            ),
            flush=True,
        )
    return rows


# Targets ------------------------------------------------------------------------------------------


def targets(feeding, gaps, ensemble):
    """(target, measured, reached) for each; measured and reached are None where a part was not run.

    Where a recipe has not reached a gap there is no ratio and `measured` says so: the target is
    missed if it is ours, and unknown if it is only theirs.
    """
    rows = []
    for row in feeding:
        if row["device"] == "cuda" and row["precision"] == "bfloat16":  # no target without a GPU
            target = f"{row['network']}: an epoch at most 1/10 of the authors' way"
            rows.append((target, f"1/{row['ratio']:.1f}", row["ratio"] >= 10))
    for features in ("linear", "relu"):
        for gap in GAPS:
            target = f"gap {gap:g}, {features}: at most 1/20 of the authors' recipe"
            row = next(
                (row for row in gaps if (row["features"], row["gap"]) == (features, gap)), None
            )
            if row is None:
                rows.append((target, None, None))
            elif row["ratio"] is None:
                ours = row["fast_seconds"] is not None
                rows.append(
                    (
                        target,
                        "theirs: not reached" if ours else "ours: not reached",
                        None if ours else False,
                    )
                )
            else:
                rows.append((target, f"1/{row['ratio']:.1f}", row["ratio"] >= 20))
    found = [row for row in ensemble if row["way"] == "ensemble"]
    for row in found:
        target = (
            f"ensemble of {row['members']}, threads: {row['number']}: "
            "at most 1/2 of one after the other"
        )
        rows.append((target, f"1/{row['ratio']:.2f}", row["ratio"] >= 2))
    return rows if found else [*rows, ("ensemble: at most 1/2 of one after the other", None, None)]


# The whole ----------------------------------------------------------------------------------------


def facts(device):
    found = environment()
    found["versions"] = {name: found["versions"][name] for name in PACKAGES}
    found["threads"]["torch"] = torch.get_num_threads()
    return found | {
        "cores": cores(),
        "device": hardware(device) if device.type == "cuda" else "cpu",
    }


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--quick", action="store_true", help="few images and epochs, one round: shows that it works"
    )
    parser.add_argument(
        "--rounds", type=int, default=3, help="rounds in which the ways of a part take turns (3)"
    )
    parser.add_argument(
        "--parts", nargs="+", choices=PARTS, default=PARTS, help="what to measure (all)"
    )
    parser.add_argument(
        "--threads", type=int, help="torch's threads in the first two parts (as it is)"
    )
    parser.add_argument("--device", help="cpu or cuda (cuda if present)")
    parser.add_argument("--json", metavar="FILE", type=Path, help="also write all figures there")
    options = parser.parse_args(arguments)
    before = torch.get_num_threads()
    try:
        if options.threads is not None:
            torch.set_num_threads(options.threads)
        measure(options)
    finally:
        torch.set_num_threads(before)


def measure(options):
    device, sizes = pick_device(options.device), QUICK if options.quick else FULL
    rounds = 1 if options.quick else options.rounds
    figures = {"environment": facts(device), "feeding": [], "gaps": [], "ensemble": [], "gpu": []}
    show_environment(figures["environment"])
    print(f"device: {figures['environment']['device']}, cores: {cores()}", flush=True)
    if "feeding" in options.parts:
        figures["feeding"] = show_feeding(sizes, rounds, device)
    if "gaps" in options.parts:
        figures["gaps"] = show_gaps(sizes, device, figures["feeding"])
    if "ensemble" in options.parts:
        figures["ensemble"] = show_ensemble(sizes, rounds, device)
    if "gpu" in options.parts:
        figures["gpu"] = show_gpu(rounds, device)
    if not options.quick:
        figures["targets"] = targets(figures["feeding"], figures["gaps"], figures["ensemble"])
        show_targets(figures["targets"])
    if options.json:
        options.json.write_text(json.dumps(figures, indent=1) + "\n")


if __name__ == "__main__":
    main()
