"""Imports run one way, so that the theory and the exact solver, which agree, know nothing of each other."""

import ast

import pytest
from conftest import ROOT

PACKAGE = ROOT / "ncutils"
FLOORS = {"ufm": 1, "theory": 2, "metrics": 2, "exact": 3, "training": 4, "report": 5, "paper": 5}
FLOORS |= {"claims": 6, "check_command": 7, "__main__": 8}
# They know helpers only, and so no problem; everything else but helpers may know them.
LEAVES = {"data", "figures", "ledger", "training.networks"}
MODULES = {
    ".".join(path.relative_to(PACKAGE).with_suffix("").parts): path
    for path in PACKAGE.rglob("*.py")
    if path.name != "__init__.py"
}


def imported(name):
    """The modules of the package that one of them imports, at its top or later."""
    found, package = set(), name.split(".")[:-1]
    for node in ast.walk(ast.parse(MODULES[name].read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.level:
            base = package[: len(package) + 1 - node.level]
            base += node.module.split(".") if node.module else []
            parts = [".".join([*base, alias.name]) for alias in node.names]
            found |= {part if part in MODULES else ".".join(base) for part in parts}
    return found


def allowed(name, other):
    room, others = (module.split(".")[0] for module in (name, other))
    helper, helpers = (r.startswith("_") and r not in FLOORS for r in (room, others))
    if helper or helpers or name in LEAVES:
        return helpers
    if {room, others} == {"exact", "theory"}:
        return False
    return other in LEAVES or room == others or FLOORS[room] > FLOORS[others]


@pytest.mark.parametrize("name", sorted(MODULES))
def test_a_module_imports_only_from_below(name):
    assert [other for other in sorted(imported(name)) if not allowed(name, other)] == []


def test_imports_are_seen():
    assert {"exact.convex", "metrics", "training.objective", "ufm"} <= imported("claims")
    assert "paper.command" in imported("__main__") and "_checks" in imported("training.networks")
