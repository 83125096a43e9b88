"""The command line: check a claim for class sizes of your own, or train the networks of one of the
paper's figures.
"""

import argparse
import json
import os
import re
import sys

from ._checks import check_integer, check_positive
from .claims import CLAIMS, CLASSES, check
from .paper.command import dry_run, listing, plan_of
from .paper.results import read
from .paper.run import run
from .paper.settings import DATA, FIGURES
from .training.networks import NETWORKS
from .training.recipes import RECIPES
from .ufm import UFM


def parser():
    """The options, with what they mean and what they are unless given."""
    top = argparse.ArgumentParser(  # in words: -OO drops the docstring
        prog="python -m ncutils",
        description="Check a claim for class sizes of your own, or train the networks of one of the paper's figures.",
    )
    commands = top.add_subparsers(dest="command", required=True)
    _add_check(commands)
    paper = commands.add_parser(
        "paper",
        help="the paper's experiments with networks",
        description="Train the networks of one of the paper's figures and compare them with the exact optimum. What is "
        "finished is kept: the same command goes on where it was stopped. 'list' shows the figures, their settings and cost.",
    )
    add = paper.add_argument
    add("figure", choices=["list", *FIGURES], metavar="FIGURE", help=f"list, {', '.join(FIGURES)}")
    add("--data", choices=DATA, default="cifar10", help="images (default: cifar10)")
    add("--network", choices=tuple(NETWORKS), default="resnet18", help="default: resnet18")
    add(
        "--features",
        choices=("relu", "linear"),
        default="relu",
        help="last features; the authors' are relu (default)",
    )
    add(
        "--recipe",
        choices=tuple(RECIPES),
        default="authors",
        help="authors (default): SGD, their schedule as it runs, 1000 or 2000 epochs; fast: Adam, 150 epochs",
    )
    add(
        "--ka",
        type=int,
        dest="k_a",
        metavar="K_A",
        help="number of majority classes, 3 or 5 (default: the figure's)",
    )
    add(
        "--only",
        nargs="+",
        type=float,
        metavar="VALUE",
        help="only these settings, as 'list' shows them",
    )
    add(
        "--seeds",
        type=int,
        default=1,
        metavar="S",
        help="seeds 0 to S - 1: images, start, order (default: 1)",
    )
    add("--epochs", type=int, help="default: that of the recipe")
    add("--batch-size", type=int, default=128, help="default: 128")
    add("--lr", type=float, help="largest learning rate (default: that of the recipe)")
    add("--pool", type=int, default=1, help="average blocks of so many pixels (default: 1, none)")
    add(
        "--with-test-images",
        action="store_true",
        dest="test_images",
        help="top up classes that are too small from the test set, as the authors do; results are labelled so",
    )
    add("--device", help="cpu or cuda (default: cuda if there is one)")
    add(
        "--float32",
        action="store_true",
        help="train in float32 on a GPU too, as the authors do, instead of bfloat16",
    )
    add(
        "--compile",
        action="store_true",
        dest="compiled",
        help="compile the network by torch.compile (worth it on a GPU)",
    )
    add(
        "--out",
        default="results",
        metavar="DIR",
        help="folder of the results and checkpoints (default: results)",
    )
    add(
        "--dask",
        metavar="ADDRESS",
        help="send the settings to the Dask cluster with this scheduler; DIR must be shared",
    )
    add(
        "--dry-run",
        action="store_true",
        help="print the settings and an estimate of the time; train nothing (images are read)",
    )
    return top


def _add_check(commands):
    """The options of `check`. They are read as text, so that a refusal is one line that names the
    option.
    """
    add = commands.add_parser(
        "check",
        help="a claim, for class sizes of your own",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        description="Check a claim for class sizes and penalties of your own: what the theory predicts, the exact optimum with its\n"
        "certificate, and PASS or FAIL. Nothing is written. Exit status: 0 all checks passed, 1 one failed, 2 bad input.",
        epilog="collapse, angles, threshold, diminishing are the paper's claims (a) to (d); all means these four. relu is about\n"
        "nonnegative features, beyond the paper; with a bias its certificate may stay open, and the check then fails.\n\n"
        "example: python -m ncutils check threshold --class-sizes 500x5,100x5 --lam-z 0.003 --lam-b 0.02",
    ).add_argument
    add("claim", metavar="CLAIM", help=f"{', '.join(CLAIMS)} or all")
    add(
        "--class-sizes",
        required=True,
        metavar="SIZES",
        help="samples of each class: 500x5,100x5 (5 classes of 500, 5 of 100) or 5000,3000,1000",
    )
    add("--lam-z", metavar="X", help="penalty lambda_Z = sqrt(lambda_W lambda_H)")
    add("--lam-w", metavar="X", help="penalty lambda_W; with --lam-h in place of --lam-z")
    add("--lam-h", metavar="X", help="penalty lambda_H")
    add("--lam-b", default="inf", metavar="X", help="penalty on the bias (default: no bias)")
    add(
        "--class-weights",
        metavar="WEIGHTS",
        help="weights of the classes in the loss, written as the sizes: 1x5,4x5 (default: 1 each)",
    )
    add(
        "--seed",
        default="0",
        metavar="S",
        help="start of the UFM that collapse and angles train (default: 0)",
    )
    add("--json", action="store_true", help="print JSON instead, with every number in full")


def _number(option, text, convert=check_positive, **allowed):
    """The number that an option's text means, else ValueError."""
    try:
        text = float(text)
    except ValueError:
        pass  # convert refuses it, as text
    return convert(option, text, **allowed)


def _classes(option, text, number):
    """One number a class: '500x5,100x5' or '5000,3000,1000'."""
    values = []
    for part in map(str.strip, text.split(",")):
        match = re.fullmatch("([^x]+)(?:x([1-9][0-9]{0,8}))?", part)
        if not match:
            raise ValueError(
                f"{option} {part!r}: must be a number, or a number x how many classes, as in 500x5,100x5"
            )
        values += [number(option, match[1])] * min(int(match[2] or 1), CLASSES + 1)
        if len(values) > CLASSES:
            raise ValueError(f"{option} = {text!r}: must be at most {CLASSES} classes")
    return values


def ufm_of(arguments):
    """The `UFM` that the options of `check` describe, else ValueError."""
    sizes = _classes(
        "--class-sizes",
        arguments.class_sizes,
        lambda option, text: _number(option, text, check_integer, at_least=1),
    )
    if len(sizes) < 2:
        raise ValueError(f"--class-sizes = {arguments.class_sizes!r}: must be at least 2 classes")
    weights = arguments.class_weights and _classes(
        "--class-weights", arguments.class_weights, _number
    )
    if weights and len(weights) != len(sizes):
        raise ValueError(
            f"--class-weights = {arguments.class_weights!r}: must be {len(sizes)} weights, one a class, not {len(weights)}"
        )
    given = [name for name in ("lam_z", "lam_w", "lam_h") if getattr(arguments, name) is not None]
    if given not in (["lam_z"], ["lam_w", "lam_h"]):
        had = ", ".join("--" + name.replace("_", "-") for name in given) or "neither"
        raise ValueError(
            f"penalties: must be either --lam-z, or both --lam-w and --lam-h; {had} given"
        )
    lam = {name: _number("--" + name.replace("_", "-"), getattr(arguments, name)) for name in given}
    make = UFM.from_lam_z if given == ["lam_z"] else UFM
    return make(
        sizes,
        **lam,
        lam_b=_number("--lam-b", arguments.lam_b, infinite=True),
        class_weights=weights,
    )


def say(text):
    """Print, with ? for what the terminal's encoding lacks."""
    encoding = sys.stdout.encoding or "utf-8"
    print(text.encode(encoding, "replace").decode(encoding))


def run_check(arguments):
    """The command `check`. Returns the exit status."""
    try:
        seed = _number("--seed", arguments.seed, check_integer, at_least=0)
        report = check(arguments.claim, ufm_of(arguments), seed)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    except ValueError as error:
        print(f"python -m ncutils check: {error}", file=sys.stderr)
        return 2
    say(
        json.dumps(report.record(), indent=1, ensure_ascii=False, allow_nan=False)
        if arguments.json
        else repr(report)
    )
    return 0 if report.passed else 1


def main(words=None):
    """Run a command line. Returns the exit status: 0, 1 if a check failed or a setting diverged, 2
    if it was refused, 130 if interrupted."""
    arguments = parser().parse_args(words)
    if arguments.command == "check":
        return run_check(arguments)
    if arguments.figure == "list":
        print(listing())
        return 0
    try:
        plan = plan_of(arguments)
        if arguments.dry_run:
            dry_run(plan)
            return 0
        if not plan.settings()[0]:
            raise ValueError("every setting was skipped: " + "; ".join(plan.settings()[1].values()))
        path = run(plan, dask=arguments.dask, say=lambda text: print(text, flush=True))
        print(f"results: {path}")
        from .paper.figures import belongs, draw  # seaborn takes seconds to import

        failed = [
            row["status"] != "done"
            for row in read(path)
            if belongs(plan, row) and int(row["seed"]) < plan.seeds
        ]
        if failed and all(failed):
            print("no result to draw: every setting diverged", file=sys.stderr)
            return 1
        print(f"figure:  {draw(plan)}")
        return 1 if any(failed) else 0
    except KeyboardInterrupt:
        print(
            "interrupted: what is finished is kept, and the same command goes on", file=sys.stderr
        )
        return 130
    except (ValueError, RuntimeError, OSError) as error:
        print(f"python -m ncutils paper: {error}", file=sys.stderr)
        return 2


def program():
    """Run the shell's command line. Returns the exit status, 141 if the output's reader goes away,
    as `head -1` does.
    """
    try:
        try:
            status = main()
        except SystemExit as end:  # after --help
            status = end.code
        print(
            end="", flush=True
        )  # else Python writes what is left at its end, where nothing can be caught
        return status
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for what is left
        return 141  # as a shell counts a program that the closed pipe's signal ended


if __name__ == "__main__":
    sys.exit(program())
