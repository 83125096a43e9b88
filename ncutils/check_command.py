"""The command `python -m ncutils check`: a claim, for class sizes and penalties of one's own."""

import argparse
import json
import re
import sys

from ._checks import check_integer, check_positive
from .claims import CLAIMS, CLASSES, check
from .ufm import UFM

OPTIONS = {  # as argparse takes them; read as text, so that a refusal is one line that names them
    "claim": dict(metavar="CLAIM", help=f"{', '.join(CLAIMS)} or all"),
    "--class-sizes": dict(
        required=True,
        metavar="SIZES",
        help="samples of each class: 500x5,100x5 (5 classes of 500, 5 of 100) or 5000,3000,1000",
    ),
    "--lam-z": dict(metavar="X", help="penalty lambda_Z = sqrt(lambda_W lambda_H)"),
    "--lam-w": dict(metavar="X", help="penalty lambda_W; with --lam-h in place of --lam-z"),
    "--lam-h": dict(metavar="X", help="penalty lambda_H"),
    "--lam-b": dict(default="inf", metavar="X", help="penalty on the bias (default: no bias)"),
    "--class-weights": dict(
        metavar="WEIGHTS",
        help="weights of the classes in the loss, written as the sizes: 1x5,4x5 (default: 1 each)",
    ),
    "--seed": dict(
        default="0",
        metavar="S",
        help="start of the UFM that collapse and angles train (default: 0)",
    ),
    "--json": dict(action="store_true", help="print JSON instead, with every number in full"),
}
DESCRIPTION = """\
Check a claim for class sizes and penalties of your own: what the theory predicts, the exact
optimum with its certificate, and PASS or FAIL. Nothing is written. Exit status: 0 all checks
passed, 1 one failed, 2 bad input."""
EPILOG = """\
collapse, angles, threshold, diminishing are the paper's claims (a) to (d); all means these four.
relu is about nonnegative features, beyond the paper; with a bias its certificate may stay open,
and the check then fails.

example: python -m ncutils check threshold --class-sizes 500x5,100x5 --lam-z 0.003 --lam-b 0.02"""


def add_check(commands):
    """Add the command with its options to those of argparse."""
    command = commands.add_parser(
        "check",
        help="a claim, for class sizes of your own",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        description=DESCRIPTION,
        epilog=EPILOG,
    )
    command.set_defaults(main=run_check)
    for name, how in OPTIONS.items():
        command.add_argument(name, **how)


def run_check(arguments):
    """Run the command. Returns the exit status: 0, 1 if a check failed, 2 if it was refused, 130 if
    interrupted.
    """
    try:
        seed = _number("--seed", arguments.seed, check_integer, at_least=0)
        report = check(arguments.claim, ufm_of(arguments), seed)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    except ValueError as error:
        print(f"python -m ncutils check: {error}", file=sys.stderr)
        return 2
    _say(_json(report) if arguments.json else repr(report))
    return 0 if report.passed else 1


def _json(report):
    return json.dumps(report.record(), indent=1, ensure_ascii=False, allow_nan=False)


def _say(text):
    """Print, with ? for what the terminal's encoding lacks."""
    encoding = sys.stdout.encoding or "utf-8"
    print(text.encode(encoding, "replace").decode(encoding))


def ufm_of(arguments):
    """The `UFM` that the options describe, else ValueError."""
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
            f"--class-weights = {arguments.class_weights!r}: must be {len(sizes)} weights, "
            f"one a class, not {len(weights)}"
        )
    given = [name for name in ("lam_z", "lam_w", "lam_h") if getattr(arguments, name) is not None]
    option = {name: "--" + name.replace("_", "-") for name in given}
    if given not in (["lam_z"], ["lam_w", "lam_h"]):
        raise ValueError(
            "penalties: must be either --lam-z, or both --lam-w and --lam-h; "
            f"{', '.join(option.values()) or 'neither'} given"
        )
    lam = {name: _number(option[name], getattr(arguments, name)) for name in given}
    lam["lam_b"] = _number("--lam-b", arguments.lam_b, infinite=True)
    make = UFM.from_lam_z if "lam_z" in lam else UFM
    return make(sizes, **lam, class_weights=weights)


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
                f"{option} {part!r}: must be a number, or a number x how many classes, "
                "as in 500x5,100x5"
            )
        values += [number(option, match[1])] * min(int(match[2] or 1), CLASSES + 1)
        if len(values) > CLASSES:
            raise ValueError(f"{option} = {text!r}: must be at most {CLASSES} classes")
    return values
