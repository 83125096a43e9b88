"""Build the pages from executed notebooks.

    python book/build_site.py [--notebooks FOLDER]

Collects the book's text, FOLDER/*.ipynb and FOLDER/ledgers (default: the stored ones in notebooks/) in _build/source
and turns them into _build/html. It starts afresh each time: no page outlives its source. A warning is a failure.
"""

import argparse
import shutil
from pathlib import Path

from jupyter_book.cli.main import main as jupyter_book

ROOT = Path(__file__).resolve().parent.parent


def stage(notebooks, target, root=ROOT):
    """Put everything that makes up the pages into the folder `target`, and nothing else."""
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(root / "book", target / "book", ignore=shutil.ignore_patterns("__pycache__", "build_site.py"))
    for name in ("_config.yml", "_toc.yml"):
        shutil.copy(root / name, target)
    (target / "notebooks" / "ledgers").mkdir(parents=True)
    for made in [*notebooks.glob("*.ipynb"), *notebooks.glob("ledgers/*.json")]:
        shutil.copy(made, target / "notebooks" / made.relative_to(notebooks))


def build(notebooks, output):
    """Build `output`/_build/html. Raises SystemExit with a status other than 0 if a page has a fault."""
    folder = output / "_build"
    stage(notebooks, folder / "source")
    for former in ("html", ".doctrees"):
        shutil.rmtree(folder / former, ignore_errors=True)
    arguments = ["build", str(folder / "source"), "--path-output", str(output), "-W", "--keep-going"]
    jupyter_book(arguments, standalone_mode=False)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--notebooks", type=Path, default=ROOT / "notebooks", help="folder of executed notebooks")
    build(parser.parse_args().notebooks, ROOT)
    print("The page is _build/html/index.html")
