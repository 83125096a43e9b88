"""Build the pages from executed notebooks.

    python book/build_site.py [--notebooks FOLDER] [--only NAME ...] [--output FOLDER]
    [--check-links]

Collects the book's text, FOLDER/*.ipynb and FOLDER/ledgers (default: the stored ones in notebooks/)
in _build/source and turns them into _build/html (of --output, default: the checkout). With --only
these notebooks come from FOLDER, the others are the stored ones. It starts afresh each time: no
page outlives its source. A warning is a failure. With --check-links it makes no page but asks every
other host that is linked to whether the address still exists.
"""

import argparse
import json
import os
import shutil
import sys
from pathlib import Path

from jupyter_book.cli.main import main as jupyter_book

ROOT = Path(__file__).resolve().parent.parent
STORED = ROOT / "notebooks"


def stage(notebooks, only, target):
    """Put everything that makes up the pages into the folder `target`, and nothing else. With names
    in `only`, these notebooks are taken from the folder `notebooks` and the others as they are
    stored."""
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(
        ROOT / "book",
        target / "book",
        ignore=shutil.ignore_patterns("__pycache__", Path(__file__).name),
    )
    for name in ("_config.yml", "_toc.yml"):
        shutil.copy(ROOT / name, target)
    (target / "notebooks" / "ledgers").mkdir(parents=True)
    folder = STORED if only else notebooks
    taken = [
        (folder, made)
        for kind in ("*.ipynb", "ledgers/*.json", "data/*/*.csv")
        for made in folder.glob(kind)
    ]
    # figures that a new run has not
    taken = [(folder, made) for folder, made in taken if made.parent.name not in only]
    for name in only:
        files = [f"{name}.ipynb", f"ledgers/{name.partition('_')[2]}.json"]
        taken += [(notebooks, notebooks / file) for file in files] + [
            (notebooks, made) for made in notebooks.glob(f"data/{name}/*.csv")
        ]
    for folder, made in taken:
        copy = target / "notebooks" / made.relative_to(folder)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(made, copy)
    downloads = target / "downloads"  # what a reader may take home, beside the pages
    shutil.copytree(
        target / "notebooks", downloads / "notebooks", ignore=shutil.ignore_patterns("ledgers")
    )
    (downloads / "book").mkdir()
    for folder in ("book", "notebooks"):
        for text in (ROOT / folder).glob("*.md"):
            if folder == "book" or (downloads / folder / f"{text.stem}.ipynb").exists():
                shutil.copy(text, downloads / folder)
    if (image := notebooks / "result.png").exists():  # of this run, instead of the stored one
        shutil.copy(image, target / "book" / "_static")


def check_links(source, output):
    """Report the links to other hosts that lead nowhere; return the exit status."""
    arguments = [
        "build",
        str(source),
        "--path-output",
        str(output),
        "-qq",
        "--builder",
        "custom",
        "--custom-builder",
        "linkcheck",
    ]
    status = 0
    try:
        jupyter_book(arguments, standalone_mode=False)
    except SystemExit as end:  # also where a link is broken: the report says which
        status = end.code
    lines = (
        (output / "_build" / "linkcheck" / "output.json").read_text(encoding="utf-8").splitlines()
    )
    asked = [
        link
        for link in map(json.loads, lines)
        if link["status"] not in ("ignored", "local", "unchecked")
    ]
    broken = [link for link in asked if link["status"] in ("broken", "timeout")]
    if status and not broken:
        raise SystemExit(
            f"the check of links ended with status {status} before its report was complete"
        )
    print(f"{len(broken)} of {len(asked)} links to other hosts are broken")
    for link in broken:
        print(f"{link['filename']}:{link['lineno']}: {link['uri']}\n    {link['info']}")
    return int(bool(broken))


def main():
    parser = argparse.ArgumentParser(  # in words: -OO drops the docstring
        description="Build the pages from executed notebooks."
    )
    parser.add_argument(
        "--notebooks", type=Path, default=STORED, help="folder of executed notebooks"
    )
    parser.add_argument(
        "--only",
        action="append",
        default=[],
        metavar="NAME",
        help="take this one from there, the others as stored",
    )
    parser.add_argument(
        "--output", type=Path, default=ROOT, help="folder in which _build/html is made"
    )
    parser.add_argument(
        "--check-links",
        action="store_true",
        help="check links to other hosts (this needs the network) and make no page",
    )
    options = parser.parse_args()
    if __doc__ is None:
        parser.error("python -OO drops the docstrings that the reference shows")

    folder = options.output / "_build"
    for former in ("linkcheck" if options.check_links else "html", ".doctrees", "jupyter_execute"):
        shutil.rmtree(folder / former, ignore_errors=True)
    stage(options.notebooks, options.only, folder / "source")
    if options.check_links:
        sys.exit(check_links(folder / "source", options.output))
    arguments = [
        "build",
        str(folder / "source"),
        "--path-output",
        str(options.output),
        "-q",
        "-W",
        "--keep-going",
    ]
    # leaves with a status other than 0 if a page has a fault
    jupyter_book(arguments, standalone_mode=False)
    print(f"The page is {os.path.relpath(folder / 'html' / 'index.html')}")


if __name__ == "__main__":
    try:
        main()
    except OSError as error:  # the disk is full, or a folder may not be written or is not there
        # the first of many files
        one = error.args[0][0][2] if isinstance(error, shutil.Error) else error
        sys.exit(f"book/build_site.py: {one}")
