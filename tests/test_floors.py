"""A module of the package imports only from lower floors, so there are no circles."""

import ast
import re
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parent.parent / "ncutils"
FLOORS = {
    "ufm": 0,
    "files": 0,
    "device": 1,
    "theory": 1,
    "metrics": 1,
    "blocks": 0,
    "newton": 1,
    "two_groups": 2,
    "convex": 2,
    "networks": 2,
    "recipes": 2,
    "originals": 1,
    "data": 2,
    "train": 3,
    "network_training": 4,
    "figures": 4,
    "ledger": 4,
    "experiments": 5,
    "report": 5,
    "paper_figures": 6,
    "claims": 6,
    "__main__": 7,
}
MODULES = sorted(path for path in PACKAGE.glob("*.py") if path.stem != "__init__")


def imported(path):
    """Names of the package's modules that a module imports."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.level:
            yield from [node.module] if node.module else [alias.name for alias in node.names]


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.stem)
def test_imports_come_from_lower_floors(path):
    assert all(FLOORS[name] < FLOORS[path.stem] for name in imported(path))


def test_imports_are_found():
    assert set(imported(PACKAGE / "train.py")) == {"metrics", "convex", "device", "ufm"}


def test_contributors_are_told_the_same_floors():
    rows = re.findall(
        r"^\| (\d+) \| (`.*`) \|",
        (PACKAGE.parent / "CONTRIBUTING.md").read_text(),
        flags=re.MULTILINE,
    )
    assert {
        module: int(floor) for floor, modules in rows for module in re.findall(r"`(\w+)`", modules)
    } == FLOORS
