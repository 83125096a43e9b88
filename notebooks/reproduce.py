"""Does another run print the same? Run the notebooks under other conditions and compare them with
the stored ones.

    python notebooks/reproduce.py [--jobs N] [NAME ...]

Each notebook runs as it is stored, a second time, with two threads, with other seeds of the
trainers, and with other images drawn from the data set. What it prints must be what is stored, in
every condition, the ledger included: of trained models it shows bounds, not digits. Measured values
and pictures may differ, and the table says how many do; but a second run must give the same ones,
and a value that the ledger calls exact may depend on no seed. The runs go to _build/reproduce.
"""

import argparse
import asyncio
import inspect
import json
import os
import re
import shutil
import sys
from pathlib import Path

import nbformat

sys.path.insert(0, str(Path(__file__).resolve().parent))  # which Python's safe path leaves out
import run
from pairs import HERE, ROOT, chosen


def shift_seeds(by, *names):
    """In a kernel: the functions of ncutils that are named take other seeds than the notebook gives
    them.
    """
    import functools
    import inspect
    import sys

    import ncutils

    def shifted(function):
        @functools.wraps(function)
        def call(*arguments, **options):
            given = inspect.signature(function).bind(*arguments, **options)
            given.apply_defaults()
            seed = given.arguments["seed"]
            given.arguments["seed"] = (
                [s + by for s in seed] if hasattr(seed, "__iter__") else seed + by
            )
            return function(*given.args, **given.kwargs)

        return call

    for name in names:
        function = getattr(ncutils, name)
        for module in (ncutils, sys.modules[function.__module__]):
            setattr(module, name, shifted(function))


def with_seeds(*names):
    return f"{inspect.getsource(shift_seeds)}\nshift_seeds(1000, {', '.join(map(repr, names))})"


CONDITIONS = {
    "as stored": {},
    "again": {},
    "two threads": {"threads": 2},
    "other seeds": {"before": with_seeds("train_ufm", "train_network")},
    "other images": {"before": with_seeds("load_images")},
}


def outputs(notebook, pictures):
    """What each code cell has printed and shown, {cell: list}: its pictures, or everything else."""
    chosen = lambda data: {
        kind: content for kind, content in data.items() if kind.startswith("image/") == pictures
    }
    text = lambda output: (
        None if pictures else [output.get(part) for part in ("text", "ename", "evalue")]
    )
    return {
        cell.id: [(text(output), chosen(output.get("data", {}))) for output in cell.outputs]
        for cell in notebook.cells
        if cell.cell_type == "code"
    }


def differences(ours, theirs):
    """Keys of what is not the same in two dicts."""
    return [key for key in ours | theirs if ours.get(key) != theirs.get(key)]


class Run:
    """An executed notebook in a folder, and the rows of its ledger."""

    def __init__(self, folder, name):
        notebook = nbformat.read(folder / f"{name}.ipynb", as_version=4)
        self.text, self.pictures = outputs(notebook, False), outputs(notebook, True)
        self.pictures = {
            cell: shown for cell, shown in self.pictures.items() if any(data for _, data in shown)
        }
        ledger = folder / "ledgers" / f"{name.partition('_')[2]}.json"
        rows = json.loads(ledger.read_text(encoding="utf-8"))["rows"] if ledger.exists() else []
        self.values = {row["what"]: (row["evidence"], row["measured"]) for row in rows}


def compare(condition, found, wanted):
    """What is at fault, or "same"; how many pictures, how many measured values are the same."""
    text, pictures, values = (
        differences(getattr(found, part), getattr(wanted, part))
        for part in ("text", "pictures", "values")
    )
    faults = (
        [f"another text in {len(text)} of {len(wanted.text)} cells: {', '.join(text)}"]
        if text
        else []
    )
    if condition == "again" and (pictures or values):
        faults.append(
            "not the first run's " + ", ".join([f"picture in {cell}" for cell in pictures] + values)
        )
    if condition.startswith("other"):
        faults += [
            f"called exact, but depends on it: {what}"
            for what in values
            if found.values.get(what, wanted.values.get(what))[0] == "exact"
        ]
    same = lambda part, changed: f"{len(part) - len(changed)} of {len(part)}"
    return "; ".join(faults) or "same", same(wanted.pictures, pictures), same(wanted.values, values)


def plain(text):
    """A line of a traceback without its colours."""
    return re.sub(r"\x1b\[[0-9;]*m", "", text)


def reproduce(paths, stored, output, jobs):
    """Run notebooks under all conditions and print the table. Returns whether all is well."""
    shutil.rmtree(output, ignore_errors=True)
    lines = []
    for condition, how in CONDITIONS.items():
        print(f"{condition}:", flush=True)
        folder = output / condition.replace(" ", "-")
        failed = {}
        asyncio.run(
            run.run_all(paths, folder, max(1, jobs // how.get("threads", 1)), failed, **how)
        )
        for path in paths:
            wanted = output / "as-stored" if condition == "again" else stored
            if path in failed:
                line = f"FAILED: {plain(failed[path])}", "", ""
            elif not (wanted / f"{path.stem}.ipynb").exists():
                line = f"there is no {path.stem}.ipynb to compare with", "", ""
            else:
                line = compare(condition, Run(folder, path.stem), Run(wanted, path.stem))
            lines.append((path.stem, condition, *line))
    width = max(len(path.stem) for path in paths)
    print(f"\n{'notebook':{width}s}  condition     same pictures  same values  printed text")
    for name, condition, text, pictures, values in sorted(lines, key=lambda line: line[0]):
        print(f"{name:{width}s}  {condition:12s}  {pictures:>13s}  {values:>11s}  {text}")
    return all(line[2] == "same" for line in lines)


def main(arguments=None):
    parser = argparse.ArgumentParser(  # in words: -OO drops the docstring
        description="Does another run print the same? "
        "Run the notebooks under other conditions and compare them with the stored ones."
    )
    parser.add_argument(
        "names", nargs="*", metavar="NAME", help="for example 03_threshold; all if none is given"
    )
    parser.add_argument(
        "--jobs",
        type=int,
        default=os.cpu_count(),
        help="notebooks at a time (default: one per core)",
    )
    options = parser.parse_args(arguments)
    return (
        0
        if reproduce(
            chosen(parser, options.names), HERE, ROOT / "_build" / "reproduce", options.jobs
        )
        else 1
    )


if __name__ == "__main__":
    run.leave(main, "notebooks/reproduce.py")
