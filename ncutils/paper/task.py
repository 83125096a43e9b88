"""A plan of one experiment, its tasks, and the training of one task from its checkpoint."""

import datetime
import hashlib
import warnings
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from .._checks import check_choice, check_integer, check_positive
from .._device import named_device, pick_device
from ..data import available, load_images, shortage
from ..theory import phase
from ..training.checkpoint import OtherRun
from ..training.network import Diverged, train_network
from ..training.networks import NETWORKS, build
from ..training.recipes import RECIPES
from ..ufm import UFM, Phase
from .provenance import commit, hardware, versions
from .results import COLUMNS, HISTORY, KEY, as_text, key_of
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
        for name, allowed in (
            ("figure", FIGURES),
            ("data", DATA),
            ("network", NETWORKS),
            ("features", ("linear", "relu")),
            ("recipe", RECIPES),
        ):
            check_choice(name, getattr(self, name), tuple(allowed))
        put("k_a", self._majority_classes())
        known = self.experiment.values[self.k_a]
        values = known if self.values is None else self.values
        put("values", tuple(check_choice("values", value, known) for value in values))
        for name in ("seeds", "batch_size", "pool"):
            put(name, check_integer(name, getattr(self, name), 1))
        epochs = self.default_epochs if self.epochs is None else self.epochs
        put("epochs", check_integer("epochs", epochs, 1))
        put("lr", check_positive("lr", RECIPES[self.recipe].lr if self.lr is None else self.lr))
        named_device(self.device)

    def _majority_classes(self):
        """The K_A that is asked for, or the figure's, else ValueError."""
        known = self.experiment.values
        k_a = FIGURES[self.figure][1] if self.k_a is None else self.k_a
        if k_a not in known:
            allowed = "left out" if None in known else f"one of {', '.join(map(str, known))}"
            raise ValueError(f"k_a = {self.k_a!r}: must be {allowed} in {self.figure}")
        return k_a

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
        parts = self.data, self.network, self.features, self.recipe
        return f"{self.experiment.name}{variant}-{'-'.join(parts)}{number}"

    def ufm(self, value):
        """The problem of a setting. The authors' weight decay on W and b is part of it."""
        ufm, decay = self.experiment.ufm(self.k_a, value), self.weight_decay
        return UFM(ufm.class_sizes, ufm.lam_w + decay, ufm.lam_h, ufm.lam_b + decay)

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
        options = ("epochs", "batch_size", "lr", "pool", "test_images")
        known = {name: getattr(self, name) for name in options}
        return as_text(known | {"setting": value, "seed": seed}, KEY)

    def tasks(self, finished=()):
        """Lists of (value, seed), each to be trained as one program; those with their key in
        `finished` are left out.
        """
        found, _ = self.settings()
        tasks = {}
        for seed in range(self.seeds):
            for value, ufm in found.items():
                if key_of(self.key(value, seed)) not in finished:
                    together = ufm.class_sizes if self.network in ENSEMBLES else value
                    tasks.setdefault((seed, together), []).append((value, seed))
        return list(tasks.values())


def checkpoint(plan, task):
    """File of a task's checkpoint: its name holds everything that the result depends on but the
    versions.
    """
    without = dict.fromkeys(("values", "seeds", "out", "device"))
    settings = asdict(plan) | {"figure": plan.experiment.name} | without
    digest = hashlib.sha256(repr((sorted(settings.items()), task)).encode()).hexdigest()[:16]
    return Path(plan.out) / "checkpoints" / f"{plan.name}-{digest}.pt"


def train(plan, task, progress=None):
    """Train the settings of one task. Returns rows for the two files, results and history, as dicts
    of strings.

    It goes on from the task's checkpoint where there is one. Members that diverge have their
    message as status. Raises ValueError and RuntimeError where images cannot be had.
    """
    commit()
    seed, ufms = task[0][1], [plan.ufm(value) for value, _ in task]
    try:
        trained = _trained(plan, ufms, seed, checkpoint(plan, task), progress)
        history = trained.history
        diverged = {e: model.diverged for e, model in enumerate(trained) if model.diverged}
    except Diverged as error:  # all of them: there is no model to measure
        trained, history, diverged = None, [], error.members
    results, moments = [], []
    for e, (value, _) in enumerate(task):
        row = plan.key(value, seed) | _facts(plan, ufms[e], len(ufms))
        if e in diverged:
            row["status"] = diverged[e].replace("\n", " ")
        else:
            row |= {"status": "done"} | _member(history[-1], e) | _weights(trained, e)
        results.append(as_text(row, COLUMNS))
        moments += [
            as_text(plan.key(value, seed) | _member(moment, e), HISTORY) for moment in history
        ]
    return results, moments


def _trained(plan, ufms, seed, file, progress):
    """What `train_network` gives for problems of the same images, from the checkpoint `file` on."""
    images, labels = load_images(
        plan.data,
        ufms[0].class_sizes,
        seed=seed,
        pool=plan.pool,
        test_images=plan.test_images,
        dtype="uint8" if plan.pool == 1 else "float32",
    )
    model = build(plan.network, images.shape[1:], plan.features)
    options = dict(
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
        return train_network(model, images, labels, ufms, **options)
    except OtherRun:  # of another version or number format: its name holds the settings
        message = f"{file} is of another version or device: training starts anew"
        warnings.warn(message, RuntimeWarning)
        file.unlink()
        return train_network(model, images, labels, ufms, **options)


def _member(row, e):
    """What a row of the training's history says of one member."""
    return {
        name: value[e] if isinstance(value, np.ndarray) else value for name, value in row.items()
    }


def _weights(trained, e):
    """Z and b of one member, as text of four digits."""
    text = lambda array: " ".join(f"{number:.4g}" for number in array.ravel())
    return {"logits": text(trained[e].logits), "bias": text(trained[e].bias)}


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
