"""The paper's experiments with networks: settings, tasks, and results that are kept as they come.

An experiment is a list of settings; with a seed each it makes tasks, that settings of equal class
sizes share where the network trains as an ensemble. A task is trained from its checkpoint, its
results are appended to a CSV file, and what is in the file is not trained again. Source of the
settings: Hong and Ling, arXiv:2309.09725, and their code.
"""

import csv
import datetime
import functools
import hashlib
import io
import math
import os
import platform
import subprocess
import threading
import warnings
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import torch

from .data import available, load_images, shortage
from .device import named_device, pick_device, processor
from .files import named, write
from .network_training import Diverged, OtherRun, train_network, uses_bfloat16
from .networks import NETWORKS, build
from .recipes import RECIPES
from .theory import Phase, phase
from .ufm import UFM, choice, positive, whole

WEIGHT_DECAY = 5e-4  # in two of the authors' four scripts, W and b included
ENSEMBLES = ("mlp",)  # convolutions gain nothing from it on a CPU, and fill a GPU alone
DATA = ("mnist5k", "fashion-mnist", "cifar10")


@dataclass(frozen=True)
class Experiment:
    """What one script of the authors varies.

    figures : of the paper, each with the number of majority classes that it shows.   x : the name of what is varied.
    values : by number of majority classes.   ufm : k_a, value → UFM.   epochs : of the authors.
    warm_start : whether they train with smaller penalties first; where not, they use weight decay.
    """

    name: str
    about: str
    figures: dict
    x: str
    values: dict
    ufm: object
    epochs: int
    warm_start: bool


def _two_groups(k_a, n_a, n_b, lam_z):
    return UFM.from_lam_z([n_a] * k_a + [n_b] * (10 - k_a), lam_z, 0.02, balance=10)


STRUCTURES = {1: [5000] * 4 + [4000] * 3 + [3000] * 3, 2: [5000] * 4 + [3000] * 2 + [1000] * 4}
EXPERIMENTS = {
    experiment.name: experiment
    for experiment in (
        Experiment(
            "block",
            "collapse and block structure",
            {"fig1": None, "fig2": None},
            "structure",
            {None: (1, 2)},
            lambda k_a, structure: UFM(STRUCTURES[structure], 2e-3, 2e-6, 0.02),
            1000,
            False,
        ),
        Experiment(
            "lambda",
            "minority collapse over the penalty, 500/100 images a class",
            {"fig5": 5, "fig6": 3},
            "lam_z",
            {
                5: (0.0027, 0.0030, 0.0033, 0.0039, 0.0045, 0.0051, 0.0057, 0.0063, 0.0069, 0.0075),
                3: (0.0037, 0.0041, 0.0045, 0.0053, 0.0062, 0.0070, 0.0078, 0.0086, 0.0094, 0.0102),
            },
            lambda k_a, lam_z: _two_groups(k_a, 500, 100, lam_z),
            2000,
            True,
        ),
        Experiment(
            "sizes",
            "minority collapse over the majority's size, 100 images of a minority class, λ_Z = 0.005",
            {"fig7": 5, "fig8": 3},
            "n_a",
            {
                5: (100, 200, 300, 400, 600, 800, 1000, 1100, 1200, 1400),
                3: (100, 400, 450, 500, 700, 1000, 1600, 2200, 2500, 2800),
            },
            lambda k_a, n_a: _two_groups(k_a, n_a, 100, 0.005),
            2000,
            True,
        ),
        Experiment(
            "angles",
            "cosines over the majority's size, ratio 2, λ_Z N = 0.1",
            {"fig9": 5},
            "n_a",
            {k_a: tuple(range(500, 5501, 500)) for k_a in (5, 3)},
            lambda k_a, n_a: _two_groups(
                k_a, n_a, n_a // 2, 0.1 / (k_a * n_a + (10 - k_a) * n_a // 2)
            ),
            2000,
            False,
        ),
    )
}
FIGURES = {
    figure: (experiment, k_a)
    for experiment in EXPERIMENTS.values()
    for figure, k_a in experiment.figures.items()
}

MEASURES = (
    "objective",
    "gap_linear",
    "gap_relu",
    "error_linear",
    "error_relu",
    "nc1",
    "trace_ratio",
    "a_b",
    "length_a",
    "length_b",
    "cos_a",
    "cos_b",
    "cos_ab",
    "accuracy_a",
    "accuracy_b",
    "seconds",
    "peak_mib",
)
KEY = (
    "setting",
    "seed",
    "epochs",
    "batch_size",
    "lr",
    "pool",
    "test_images",
)  # what tells results in one file apart
COLUMNS = (
    *KEY,
    "data",
    "network",
    "features",
    "recipe",
    "class_sizes",
    "lam_z",
    "lam_w",
    "lam_h",
    "lam_b",
    "weight_decay",
    "phase",
    "status",
    *MEASURES,
    "together",
    "hardware",
    "versions",
    "commit",
    "date",
    "logits",
    "bias",
)
HISTORY = (*KEY, "epoch", *MEASURES)


@dataclass(frozen=True)
class Plan:
    """One experiment as it is to be run: `--help` of `python -m ncutils paper` says what each field
    is.

    Raises ValueError naming the field, its value and what is allowed.
    """

    figure: str
    data: str = "cifar10"
    network: str = "resnet18"
    features: str = "relu"
    recipe: str = "authors"
    k_a: int | None = None
    values: tuple | None = None
    seeds: int = 1
    epochs: int | None = None
    batch_size: int = 128
    lr: float | None = None
    pool: int = 1
    test_images: bool = False
    device: str | None = None
    compiled: bool = False
    float32: bool = False
    out: str = "results"

    def __post_init__(self):
        put = lambda name, value: object.__setattr__(self, name, value)
        experiment, k_a = FIGURES[choice("figure", self.figure, tuple(FIGURES))]
        choice("data", self.data, DATA), choice("network", self.network, tuple(NETWORKS))
        (
            choice("features", self.features, ("linear", "relu")),
            choice("recipe", self.recipe, tuple(RECIPES)),
        )
        k_a = k_a if self.k_a is None else self.k_a
        if k_a not in experiment.values:
            allowed = (
                "left out"
                if None in experiment.values
                else f"one of {', '.join(map(str, experiment.values))}"
            )
            raise ValueError(f"k_a = {self.k_a!r}: must be {allowed} in {self.figure}")
        put("k_a", k_a)
        known = experiment.values[k_a]
        put(
            "values",
            known
            if self.values is None
            else tuple(choice("values", value, known) for value in self.values),
        )
        for name in ("seeds", "batch_size", "pool"):
            put(name, whole(name, getattr(self, name), 1))
        put(
            "epochs",
            self.default_epochs if self.epochs is None else whole("epochs", self.epochs, 1),
        )
        put("lr", RECIPES[self.recipe].lr if self.lr is None else positive("lr", self.lr))
        named_device(self.device)

    @property
    def experiment(self):
        """The `Experiment` of the figure."""
        return FIGURES[self.figure][0]

    @property
    def default_epochs(self):
        """The authors', or 150 in the recipe "fast"."""
        return self.experiment.epochs if self.recipe == "authors" else 150

    @property
    def weight_decay(self):
        """As the authors' script has it; none in ours."""
        return WEIGHT_DECAY if self.recipe == "authors" and not self.experiment.warm_start else 0.0

    @property
    def name(self):
        """Of the result files: two plans with one name have results that can be drawn together."""
        variant = "" if self.k_a is None else f"-ka{self.k_a}"
        number = "-float32" if self.float32 else ""  # on a GPU another result than in bfloat16
        return f"{self.experiment.name}{variant}-{self.data}-{self.network}-{self.features}-{self.recipe}{number}"

    def ufm(self, value):
        """The problem of a setting. The authors' weight decay on W and b is part of it."""
        ufm = self.experiment.ufm(self.k_a, value)
        return UFM(
            ufm.class_sizes, ufm.lam_w + self.weight_decay, ufm.lam_h, ufm.lam_b + self.weight_decay
        )

    def settings(self):
        """{value: UFM} of the settings that the data have images for, and {value: reason} of those
        skipped.
        """
        found, skipped, held = {}, {}, available(self.data, self.test_images)
        for value in self.values:
            ufm = self.ufm(value)
            if (np.array(ufm.class_sizes) > held).any():
                skipped[value] = shortage(self.data, ufm.class_sizes, held, self.test_images)
            else:
                found[value] = ufm
        return found, skipped

    def key(self, value, seed):
        """What a result of this plan is found by in its file: KEY as strings."""
        known = {
            "setting": value,
            "seed": seed,
            "epochs": self.epochs,
            "batch_size": self.batch_size,
            "lr": self.lr,
            "pool": self.pool,
            "test_images": self.test_images,
        }
        return _strings(known, KEY)

    def tasks(self, finished=()):
        """Lists of (value, seed), each to be trained as one program; those with their key in
        `finished` are left out.
        """
        found, _ = self.settings()
        tasks = {}
        for seed in range(self.seeds):
            for value, ufm in found.items():
                if _key(self.key(value, seed)) not in finished:
                    together = ufm.class_sizes if self.network in ENSEMBLES else value
                    tasks.setdefault((seed, together), []).append((value, seed))
        return list(tasks.values())


# Training
# ---------------------------------------------------------------------------------------------


def train(plan, task, progress=None):
    """Train the settings of one task. Returns rows for the two files, results and history, as dicts
    of strings.

    It goes on from the task's checkpoint where there is one. Members that diverge have their
    message as status. Raises ValueError and RuntimeError where images cannot be had.
    """
    commit()
    values, seed = [value for value, _ in task], task[0][1]
    ufms = [plan.ufm(value) for value in values]
    images, labels = load_images(
        plan.data,
        ufms[0].class_sizes,
        seed=seed,
        pool=plan.pool,
        test_images=plan.test_images,
        dtype="uint8" if plan.pool == 1 else "float32",
    )
    model = build(plan.network, images.shape[1:], plan.features)
    file = checkpoint(plan, task)
    work = functools.partial(
        train_network,
        model,
        images,
        labels,
        ufms,
        epochs=plan.epochs,
        batch_size=plan.batch_size,
        lr=plan.lr,
        warm_start=plan.experiment.warm_start,
        seed=[seed] * len(ufms),
        device=plan.device,
        progress=progress,
        recipe=plan.recipe,
        weight_decay=plan.weight_decay,
        amp=False if plan.float32 else None,
        compiled=plan.compiled,
        checkpoint=file,
    )
    try:
        try:
            trained = work()
        except (
            OtherRun
        ):  # of another version, or another device's number format: its name holds the settings
            warnings.warn(
                f"{file} is of another version or device: training starts anew", RuntimeWarning
            )
            file.unlink()
            trained = work()
        history, diverged = trained.history, trained.diverged
    except Diverged as error:  # all of them: there is no model to measure
        trained, history, diverged = None, [], error.members
    results, moments = [], []
    for e, (value, ufm) in enumerate(zip(values, ufms)):
        key = plan.key(value, seed)
        last = _member(history[-1], e) if history and e not in diverged else {}
        more = (
            {}
            if e in diverged
            else {
                "logits": " ".join(f"{z:.4g}" for z in trained.logits(e).ravel()),
                "bias": " ".join(f"{b:.4g}" for b in trained.biases[e]),
            }
        )
        results.append(
            _strings(
                key
                | _facts(plan, ufm, len(ufms))
                | last
                | more
                | {"status": diverged[e].replace("\n", " ") if e in diverged else "done"},
                COLUMNS,
            )
        )
        moments += [_strings(key | _member(row, e), HISTORY) for row in history]
    return results, moments


def checkpoint(plan, task):
    """File of a task's checkpoint: its name holds everything that the result depends on but the
    versions.
    """
    settings = asdict(plan) | {
        "figure": plan.experiment.name,
        "values": None,
        "seeds": None,
        "out": None,
        "device": None,
    }
    digest = hashlib.sha256(repr((sorted(settings.items()), task)).encode()).hexdigest()[:16]
    return Path(plan.out) / "checkpoints" / f"{plan.name}-{digest}.pt"


def _member(row, e):
    return {
        name: value[e] if isinstance(value, np.ndarray) else value for name, value in row.items()
    }


def _strings(row, columns):
    def text(value):
        if isinstance(value, (float, np.floating)):
            return "" if math.isnan(value) else f"{value:.6g}"
        return "" if value is None else str(value)

    return {name: text(row.get(name)) for name in columns}


def _facts(plan, ufm, together):
    """What a result was measured with."""
    predicted = phase(ufm)
    return {
        "data": plan.data,
        "network": plan.network,
        "features": plan.features,
        "recipe": plan.recipe,
        "class_sizes": " ".join(f"{n}x{len(group)}" for n, group in ufm.groups.items()),
        "lam_z": ufm.lam_z,
        "lam_w": ufm.lam_w,
        "lam_h": ufm.lam_h,
        "lam_b": ufm.lam_b,
        "weight_decay": plan.weight_decay,
        "phase": predicted.value if isinstance(predicted, Phase) else "",
        "together": together,
        "hardware": hardware(pick_device(plan.device), plan.float32),
        "versions": versions(),
        "commit": commit(),
        "date": datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M"),
    }


def hardware(device, float32=False):
    """Name of a torch.device's GPU and the number format of the network, or the processor's and its
    number of threads.
    """
    if device.type == "cuda":
        number = "bfloat16" if uses_bfloat16(device) and not float32 else "float32"
        return f"{torch.cuda.get_device_name(device)}, {number}"
    return f"{processor()}, {torch.get_num_threads()} threads"


def versions():
    """Of Python, torch and NumPy."""
    return f"python {platform.python_version()}, torch {torch.__version__}, numpy {np.__version__}"


@functools.cache  # of the start: files may change while a network trains
def commit():
    """Of the package's own checkout, "-dirty" where it was changed; "unknown" in a repository that
    it was only put into.
    """
    here = Path(__file__)

    def git(*words):
        return subprocess.run(
            ["git", *words], cwd=here.parent, capture_output=True, text=True, check=True
        ).stdout.strip()

    try:
        # The path from the root of the repository, if it is tracked: a copy in somebody's
        # repository lies deeper, or is not.
        if (
            git("ls-files", "--full-name", "--error-unmatch", here.name)
            != f"{here.parent.name}/{here.name}"
        ):
            return "unknown"
        return git("describe", "--always", "--dirty", "--abbrev=12", "--exclude", "*")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


# Results
# ----------------------------------------------------------------------------------------------


class Results:
    """The two CSV files of a plan, NAME.csv and NAME-history.csv, open to be written by one process
    at a time.

    A row is on the disk before `add` returns. A row that was cut by a kill is dropped when the
    files are opened, and so is the history of a setting without a result.
    """

    def __init__(self, plan):
        self.folder, self.plan = Path(plan.out), plan
        self.path, self.history_path = (
            self.folder / f"{plan.name}{part}.csv" for part in ("", "-history")
        )

    def __enter__(self):
        self.folder.mkdir(parents=True, exist_ok=True)
        self._lock = open(self.folder / f".{self.plan.name}.lock", "w")
        try:
            import fcntl
        except ImportError:  # Windows: nothing keeps a second process out
            pass
        else:
            try:
                fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                self._lock.close()
                if isinstance(error, BlockingIOError):
                    raise RuntimeError(
                        f"{self.path} is being written by another process: wait for it, or choose another folder"
                    ) from None
                raise
        try:
            self._tidy()
        except BaseException:
            self._lock.close()
            raise
        return self

    def _tidy(self):
        rows = read(self.path, COLUMNS)
        keys = {_key(row) for row in rows}
        history = [row for row in read(self.history_path, HISTORY) if _key(row) in keys]
        _replace(self.path, COLUMNS, rows), _replace(self.history_path, HISTORY, history)

    def __exit__(self, *_):
        # and let go of; the file stays, as another process may be about to lock it
        self._lock.close()

    def finished(self):
        """Keys of all results in the file: they need no training any more."""
        return {_key(row) for row in read(self.path, COLUMNS)}

    def add(self, results, history):
        """Append a task's rows, the history first: a result is there only once its history is."""
        new = {_key(row) for row in results} - self.finished()
        for path, columns, rows in (
            (self.history_path, HISTORY, history),
            (self.path, COLUMNS, results),
        ):
            try:
                with open(path, "a", newline="", encoding="utf-8") as file:
                    file.write(
                        "".join(_line(columns, row) for row in rows if _key(row) in new)
                    )  # all of a task at once
                    file.flush()
                    os.fsync(file.fileno())
            except OSError as error:
                raise named(error, path) from None


def _key(row):
    return tuple(row[name] for name in KEY)


def _line(columns, row):
    text = io.StringIO()
    csv.DictWriter(text, columns, lineterminator="\n").writerow(row)
    return text.getvalue()


def read(path, columns=None):
    """Rows of a results file as dicts of strings; none where there is no file. A last row without
    its end is left out.
    """
    if not Path(path).exists():
        return []
    text = Path(path).read_text(
        encoding="utf-8", errors="replace"
    )  # a cut may be in the middle of a character
    rows = csv.DictReader(io.StringIO(text[: text.rfind("\n") + 1]))
    if columns is not None and rows.fieldnames is not None and tuple(rows.fieldnames) != columns:
        raise ValueError(
            f"{path} has other columns than this version writes: move it away, or choose another folder"
        )
    return list(rows)


def _replace(path, columns, rows):
    lines = [_line(columns, row) for row in [dict(zip(columns, columns)), *rows]]
    write(path, "".join(lines).encode())


def run(plan, dask=None, progress=None, say=print):
    """Train what is not finished of a plan, one task after the other or on the Dask cluster at
    address `dask`.

    Every result is written when it comes. Returns the path of the results. Raises RuntimeError
    where another process is at the same file.
    """
    commit()
    if not dask:
        pick_device(plan.device)
    _, skipped = plan.settings()
    for value, reason in skipped.items():
        say(f"skipped: {plan.experiment.x} = {value} ({reason})")
    if plan.tasks():  # pool and network fit the images, before a folder is made
        images, _ = load_images(plan.data, [1] * 10, pool=plan.pool)
        build(plan.network, images.shape[1:], plan.features)
    with Results(plan) as results:
        tasks, wanted = plan.tasks(results.finished()), sum(map(len, plan.tasks()))
        if kept := wanted - sum(map(len, tasks)):
            say(f"{kept} of {wanted} results are in {results.path} already")
        done = kept
        for task, rows in _by_dask(dask, plan, tasks) if dask else _here(plan, tasks, progress):
            results.add(*rows)
            for left in checkpoint(plan, task).parent.glob(
                checkpoint(plan, task).name + "*"
            ):  # and what a kill cut
                left.unlink(missing_ok=True)
            for row in rows[0]:
                done += 1
                told = (
                    row["status"]
                    if row["status"] != "done"
                    else (
                        f"relative gap {float(row[f'gap_{plan.features}']):.1e}, {float(row['seconds']):.0f} s"
                    )
                )
                say(
                    f"[{done}/{wanted}] {plan.experiment.x} = {row['setting']}, seed {row['seed']}: {told}"
                )
        return results.path


def _here(plan, tasks, progress):
    for task in tasks:
        yield task, train(plan, task, progress)


_ALONE = threading.Lock()


def _train_alone(*arguments):
    """`train`, one at a time in a worker with several threads: the starts come from torch's
    generator, one a process.
    """
    with _ALONE:
        return train(*arguments)


def _by_dask(address, plan, tasks):
    try:
        from dask.distributed import CancelledError, Client, KilledWorker, as_completed
    except ImportError:
        raise ValueError(
            "dask needs the package distributed: pip install -e '.[cluster]' in the checkout, or leave it out"
        ) from None
    plan = replace(plan, out=str(Path(plan.out).resolve()))  # workers have another working folder
    try:
        client = Client(address, timeout=20)
    except (OSError, ValueError) as error:
        raise ValueError(f"dask = {address!r}: no scheduler answers there ({error})") from None
    with client:
        try:
            client.wait_for_workers(1, timeout=20)
        except TimeoutError:
            raise ValueError(f"dask = {address!r}: the scheduler has no worker") from None
        futures = {
            client.submit(
                _train_alone, plan, task, False, key=checkpoint(plan, task).stem, pure=False
            ): task
            for task in tasks
        }
        for future in as_completed(futures):
            try:
                rows = future.result()
            except (KilledWorker, CancelledError) as error:
                raise RuntimeError(f"dask: {error}; what is finished is kept") from None
            yield futures[future], rows


def estimate(plan):
    """Seconds that the plan's training would take on its device, all settings, from three timed
    epochs of two batches; without evaluation."""
    cost, total = {}, 0.0
    for task in plan.tasks():
        ufm = plan.ufm(task[0][0])
        if len(task) not in cost:
            cost[len(task)] = _seconds_per_step(plan, len(task))
        total += cost[len(task)] * math.ceil(ufm.num_samples / plan.batch_size) * plan.epochs
    return total


def _seconds_per_step(plan, members):
    sizes = [1] * 9 + [max(2 * plan.batch_size - 9, 1)]
    sizes[0] += (sum(sizes) - 1) % plan.batch_size == 0  # no batch of one image
    images, _ = load_images(plan.data, [2] * 10, pool=plan.pool)
    noise = np.random.default_rng(0).random((sum(sizes), *images.shape[1:]), dtype=np.float32)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        trained = train_network(
            build(plan.network, images.shape[1:], plan.features),
            noise,
            np.repeat(np.arange(10), sizes),
            [UFM.from_lam_z(sizes, 1e-3, 0.02)] * members,
            epochs=4,
            batch_size=plan.batch_size,
            lr=1e-6,
            device=plan.device,
            progress=False,
            recipe=plan.recipe,
            amp=False if plan.float32 else None,
            compiled=plan.compiled,
            record=[1, 4],
        )
    first, last = (row["seconds"] for row in trained.history)
    return (last - first) / 3 / math.ceil(sum(sizes) / plan.batch_size)
