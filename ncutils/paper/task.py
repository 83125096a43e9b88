"""A plan of one experiment, its tasks, and the training of one task from its checkpoint."""

import datetime
import functools
import hashlib
import math
import platform
import subprocess
import warnings
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch

from .._checks import check_choice, check_integer, check_positive
from .._device import named_device, pick_device, processor
from ..data import available, load_images, shortage
from ..theory import phase
from ..training.checkpoint import OtherRun
from ..training.modes import uses_bfloat16
from ..training.network import Diverged, train_network
from ..training.networks import NETWORKS, build
from ..training.recipes import RECIPES
from ..ufm import UFM, Phase
from .results import COLUMNS, HISTORY, KEY, _key
from .settings import DATA, FIGURES, WEIGHT_DECAY

ENSEMBLES = ("mlp",)  # convolutions gain nothing from it on a CPU, and fill a GPU alone


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
        experiment, k_a = FIGURES[check_choice("figure", self.figure, tuple(FIGURES))]
        (
            check_choice("data", self.data, DATA),
            check_choice("network", self.network, tuple(NETWORKS)),
        )
        (
            check_choice("features", self.features, ("linear", "relu")),
            check_choice("recipe", self.recipe, tuple(RECIPES)),
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
            else tuple(check_choice("values", value, known) for value in self.values),
        )
        for name in ("seeds", "batch_size", "pool"):
            put(name, check_integer(name, getattr(self, name), 1))
        put(
            "epochs",
            self.default_epochs if self.epochs is None else check_integer("epochs", self.epochs, 1),
        )
        put("lr", RECIPES[self.recipe].lr if self.lr is None else check_positive("lr", self.lr))
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
        history = trained.history
        diverged = {e: model.diverged for e, model in enumerate(trained) if model.diverged}
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
                "logits": " ".join(f"{z:.4g}" for z in trained[e].logits.ravel()),
                "bias": " ".join(f"{b:.4g}" for b in trained[e].bias),
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
    path = "/".join(here.parts[-3:])  # from the folder that the package is in

    def git(*words):
        return subprocess.run(
            ["git", *words], cwd=here.parent, capture_output=True, text=True, check=True
        ).stdout.strip()

    try:
        # The path from the root of the repository, if it is tracked: a copy in somebody's
        # repository lies deeper, or is not.
        if git("ls-files", "--full-name", "--error-unmatch", here.name) != path:
            return "unknown"
        return git("describe", "--always", "--dirty", "--abbrev=12", "--exclude", "*")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
