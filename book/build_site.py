"""Build the pages from executed notebooks.

    python book/build_site.py [--notebooks FOLDER] [--output FOLDER]

Collects the book's text, FOLDER/*.ipynb and FOLDER/ledgers (default: the stored ones in notebooks/) in _build/source
and turns them into _build/html (of --output, default: the checkout). It starts afresh each time: no page outlives its source. A warning is a failure.
"""

import argparse
import os
import shutil
from pathlib import Path

from jupyter_book.cli.main import main as jupyter_book

ROOT = Path(__file__).resolve().parent.parent


def stage(notebooks, target):
    """Put everything that makes up the pages into the folder `target`, and nothing else."""
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(ROOT / "book", target / "book", ignore=shutil.ignore_patterns("__pycache__", Path(__file__).name))
    for name in ("_config.yml", "_toc.yml"):
        shutil.copy(ROOT / name, target)
    (target / "notebooks" / "ledgers").mkdir(parents=True)
    for made in [*notebooks.glob("*.ipynb"), *notebooks.glob("ledgers/*.json")]:
        shutil.copy(made, target / "notebooks" / made.relative_to(notebooks))
    if (image := notebooks / "result.png").exists():  # of this run, instead of the stored one
        shutil.copy(image, target / "book" / "_static")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--notebooks", type=Path, default=ROOT / "notebooks", help="folder of executed notebooks")
    parser.add_argument("--output", type=Path, default=ROOT, help="folder in which _build/html is made")
    options = parser.parse_args()

    folder = options.output / "_build"
    for former in ("html", ".doctrees"):
        shutil.rmtree(folder / former, ignore_errors=True)
    stage(options.notebooks, folder / "source")
    arguments = ["build", str(folder / "source"), "--path-output", str(options.output), "-q", "-W", "--keep-going"]
    jupyter_book(arguments, standalone_mode=False)  # leaves with a status other than 0 if a page has a fault
    print(f"The page is {os.path.relpath(folder / 'html' / 'index.html')}")


if __name__ == "__main__":
    main()
