"""The command line: check a claim for class sizes of your own, or train the networks of one of the
paper's figures.
"""

import argparse
import os
import sys

from .check_command import add_check
from .paper.command import add_paper


def parser():
    """The options, with what they mean and what they are unless given."""
    top = argparse.ArgumentParser(  # in words: -OO drops the docstring
        prog="python -m ncutils",
        description="Check a claim for class sizes of your own, or train the networks of one of "
        "the paper's figures.",
    )
    commands = top.add_subparsers(dest="command", required=True)
    add_check(commands)
    add_paper(commands)
    return top


def main(words=None):
    """Run a command line. Returns the exit status: 0, 1 if a check failed or a setting diverged, 2
    if it was refused, 130 if interrupted."""
    arguments = parser().parse_args(words)
    return arguments.main(arguments)


def program():
    """Run the shell's command line. Returns the exit status, 141 if the output's reader goes away,
    as `head -1` does.
    """
    try:
        try:
            status = main()
        except SystemExit as end:  # after --help
            status = end.code
        # else Python writes what is left at its end, where nothing can be caught
        print(end="", flush=True)
        return status
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for what is left
        return 141  # as a shell counts a program that the closed pipe's signal ended


if __name__ == "__main__":
    sys.exit(program())
