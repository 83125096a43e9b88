"""The command `python -m ncutils paper`: train the networks of one of the paper's figures."""

import sys
from dataclasses import fields

from .._device import pick_device
from ..training.networks import NETWORKS
from ..training.recipes import RECIPES
from .results import belongs, read
from .run import estimate, run
from .settings import DATA, EXPERIMENTS, FIGURES
from .task import Plan

OPTIONS = {  # as argparse takes them; where they are no fields of a Plan, `paper` uses them
    "figure": dict(
        choices=["list", *FIGURES], metavar="FIGURE", help=f"list, {', '.join(FIGURES)}"
    ),
    "--data": dict(choices=DATA, default="cifar10", help="images (default: cifar10)"),
    "--network": dict(choices=tuple(NETWORKS), default="resnet18", help="default: resnet18"),
    "--features": dict(
        choices=("relu", "linear"),
        default="relu",
        help="last features; the authors' are relu (default)",
    ),
    "--recipe": dict(
        choices=tuple(RECIPES),
        default="authors",
        help="authors (default): SGD, their schedule as it runs, 1000 or 2000 epochs; "
        "fast: Adam, 150 epochs",
    ),
    "--ka": dict(
        type=int,
        dest="k_a",
        metavar="K_A",
        help="number of majority classes, 3 or 5 (default: the figure's)",
    ),
    "--only": dict(
        nargs="+", type=float, metavar="VALUE", help="only these settings, as 'list' shows them"
    ),
    "--seeds": dict(
        type=int, default=1, metavar="S", help="seeds 0 to S - 1: images, start, order (default: 1)"
    ),
    "--epochs": dict(type=int, help="default: that of the recipe"),
    "--batch-size": dict(type=int, default=128, help="default: 128"),
    "--lr": dict(type=float, help="largest learning rate (default: that of the recipe)"),
    "--pool": dict(type=int, default=1, help="average blocks of so many pixels (default: 1, none)"),
    "--with-test-images": dict(
        action="store_true",
        dest="test_images",
        help="top up classes that are too small from the test set, as the authors do; "
        "results are labelled so",
    ),
    "--device": dict(help="cpu or cuda (default: cuda if there is one)"),
    "--float32": dict(
        action="store_true",
        help="train in float32 on a GPU too, as the authors do, instead of bfloat16",
    ),
    "--compile": dict(
        action="store_true",
        dest="compiled",
        help="compile the network by torch.compile (worth it on a GPU)",
    ),
    "--out": dict(
        default="results",
        metavar="DIR",
        help="folder of the results and checkpoints (default: results)",
    ),
    "--dask": dict(
        metavar="ADDRESS",
        help="send the settings to the Dask cluster with this scheduler; DIR must be shared",
    ),
    "--dry-run": dict(
        action="store_true",
        help="print the settings and an estimate of the time; train nothing (images are read)",
    ),
}


def add_paper(commands):
    """Add the command with its options to those of argparse."""
    command = commands.add_parser(
        "paper",
        help="the paper's experiments with networks",
        description="Train the networks of one of the paper's figures and compare them with the "
        "exact optimum. What is finished is kept: the same command goes on where it was stopped. "
        "'list' shows the figures, their settings and cost.",
    )
    command.set_defaults(main=paper)
    for name, how in OPTIONS.items():
        command.add_argument(name, **how)


def paper(arguments):
    """Run the command. Returns the exit status: 0, 1 if a setting diverged, 2 if it was refused,
    130 if interrupted.
    """
    if arguments.figure == "list":
        print(listing())
        return 0
    try:
        plan = plan_of(arguments)
        if arguments.dry_run:
            dry_run(plan)
            return 0
        return train_and_draw(plan, arguments.dask)
    except KeyboardInterrupt:
        message, status = "interrupted: what is finished is kept, and the same command goes on", 130
    except (ValueError, RuntimeError, OSError) as error:
        message, status = f"python -m ncutils paper: {error}", 2
    print(message, file=sys.stderr)
    return status


def train_and_draw(plan, dask=None):
    """Run a plan and draw its figure. Returns the exit status: 1 if a setting that was asked for
    diverged.
    """
    found, skipped = plan.settings()
    if not found:
        raise ValueError("every setting was skipped: " + "; ".join(skipped.values()))
    path = run(plan, dask=dask, say=lambda text: print(text, flush=True))
    print(f"results: {path}")
    failed = [
        row["status"] != "done"
        for row in read(path)
        if belongs(plan, row) and int(row["seed"]) < plan.seeds
    ]
    if failed and all(failed):
        print("no result to draw: every setting diverged", file=sys.stderr)
        return 1
    from .figures import draw  # seaborn takes seconds to import

    print(f"figure:  {draw(plan)}")
    return 1 if any(failed) else 0


def plan_of(arguments):
    """The `Plan` that parsed arguments describe, else ValueError."""
    names = {field.name for field in fields(Plan)}
    chosen = {name: value for name, value in vars(arguments).items() if name in names}
    if arguments.only is not None:
        known = Plan(**chosen).values
        unknown = [value for value in arguments.only if value not in known]
        if unknown:
            allowed = " ".join(f"{value:g}" for value in known)
            raise ValueError(f"--only {unknown[0]:g}: must be among {allowed}")
        chosen["values"] = tuple(value for value in known if value in arguments.only)
    return Plan(**chosen)


def listing():
    """The table of figures: settings, trainings a seed, passes of an image through a network."""
    lines = [
        f"figure      k_a  {'settings':62s} networks  epochs  passes of an image",
        *(
            _line(experiment, k_a, values)
            for experiment in EXPERIMENTS.values()
            for k_a, values in experiment.values.items()
        ),
        "",
        "Epochs and passes are the authors'; --recipe fast takes 150 epochs. One seed. "
        "Time: --dry-run.",
    ]
    return "\n".join(lines)


def _line(experiment, k_a, values):
    figures = [name for name, shown in experiment.figures.items() if shown in (k_a, None)]
    names = ", ".join(figures) or f"{next(iter(experiment.figures))} --ka {k_a}"
    settings = f"{experiment.x} {' '.join(f'{value:g}' for value in values)}"
    images = sum(experiment.ufm(k_a, value).num_samples for value in values)
    return (
        f"{names:11s} {k_a or '-':>3}  {settings:62s} {len(values):8d}  {experiment.epochs:6d}  "
        f"{images * experiment.epochs / 1e6:9.0f} million"
    )


def dry_run(plan):
    """Print each setting, and an estimate of the time for all."""
    found, skipped = plan.settings()
    for value in plan.values:
        setting = f"{plan.experiment.x} = {value:g}"
        if value in skipped:
            print(f"{setting}: skipped, {skipped[value]}")
            continue
        ufm = found[value]
        sizes = " + ".join(f"{len(group)} x {n}" for n, group in ufm.groups.items())
        print(f"{setting}: {sizes} images, lam_z = {ufm.lam_z:.4g}, lam_b = {ufm.lam_b:.4g}")
    seconds = estimate(plan)
    hours = f"{seconds / 3600:.1f} hours" if seconds > 5400 else f"{seconds / 60:.1f} minutes"
    print(
        f"{plan.seeds} seed(s), {plan.epochs} epochs, {plan.network} on "
        f"{pick_device(plan.device)}: about {hours} of training, from timed steps on this device"
    )
