"""The command `python -m ncutils paper`: train the networks of one of the paper's figures."""

from .._device import pick_device
from .run import estimate
from .settings import EXPERIMENTS, FIGURES
from .task import Plan


def listing():
    """The table of figures: settings, trainings a seed, passes of an image through a network."""
    lines = [
        "figure      k_a  settings                                                       networks  epochs  passes of an image"
    ]
    for experiment in EXPERIMENTS.values():
        shown = {
            k_a: [f for f in experiment.figures if experiment.figures[f] in (k_a, None)]
            for k_a in experiment.values
        }
        for k_a, values in experiment.values.items():
            passes = (
                sum(experiment.ufm(k_a, value).num_samples for value in values) * experiment.epochs
            )
            names = ", ".join(shown[k_a]) or f"{next(iter(experiment.figures))} --ka {k_a}"
            settings = f"{experiment.x} {' '.join(f'{value:g}' for value in values)}"
            lines.append(
                f"{names:11s} {k_a or '-':>3}  {settings:62s} {len(values):8d}  {experiment.epochs:6d}  "
                f"{passes / 1e6:9.0f} million"
            )
    return "\n".join(
        [
            *lines,
            "",
            "Epochs and passes are the authors'; --recipe fast takes 150 epochs. One seed. Time: --dry-run.",
        ]
    )


def plan_of(arguments):
    """The `Plan` that parsed arguments describe, else ValueError."""
    chosen = {
        name: value
        for name, value in vars(arguments).items()
        if name not in ("command", "only", "dask", "dry_run")
    }
    if arguments.only is not None:
        experiment, k_a = FIGURES[arguments.figure]
        known = experiment.values.get(arguments.k_a or k_a)
        if known is None:
            Plan(**chosen)  # which refuses k_a
        unknown = [value for value in arguments.only if value not in known]
        if unknown:
            raise ValueError(
                f"--only {unknown[0]:g}: must be among {' '.join(f'{value:g}' for value in known)}"
            )
        chosen["values"] = tuple(value for value in known if value in arguments.only)
    return Plan(**chosen)


def dry_run(plan):
    """Print each setting, and an estimate of the time for all."""
    found, skipped = plan.settings()
    for value in plan.values:
        if value in skipped:
            print(f"{plan.experiment.x} = {value:g}: skipped, {skipped[value]}")
        else:
            ufm = found[value]
            sizes = " + ".join(f"{len(group)} x {n}" for n, group in ufm.groups.items())
            print(
                f"{plan.experiment.x} = {value:g}: {sizes} images, lam_z = {ufm.lam_z:.4g}, lam_b = {ufm.lam_b:.4g}"
            )
    seconds = estimate(plan)
    hours = f"{seconds / 3600:.1f} hours" if seconds > 5400 else f"{seconds / 60:.1f} minutes"
    print(
        f"{plan.seeds} seed(s), {plan.epochs} epochs, {plan.network} on {pick_device(plan.device)}: about {hours} of training, "
        "from timed steps on this device"
    )
