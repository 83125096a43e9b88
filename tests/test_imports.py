"""Imports run one way, so that the theory and the exact solver, which agree, know nothing of each
other.
"""

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
WINGS = {path.parent.name for path in PACKAGE.glob("*/__init__.py")}


def imported(name, source=None):
    """The modules of the package that one imports, at its top or later; "" is the whole."""
    found, package = set(), ["ncutils", *name.split(".")[:-1]]
    for node in ast.walk(ast.parse(source or MODULES[name].read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            paths = [alias.name.split(".") for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) + 1 - node.level] if node.level else []
            base += node.module.split(".") if node.module else []
            paths = [[*base, alias.name] for alias in node.names]
        else:
            continue
        for path in (path[1:] for path in paths if path[0] == "ncutils"):
            full = ".".join(path)
            found.add(full if full in WINGS | set(MODULES) else ".".join(path[:-1]))
    return found


def allowed(name, other):
    room, others = (module.split(".")[0] for module in (name, other))
    helper, helpers = (r.startswith("_") and r not in FLOORS for r in (room, others))
    if room in LEAVES or name in LEAVES:
        return helpers or room == others != "training"
    if helper or helpers:
        return helpers
    if {room, others} == {"exact", "theory"} or not others:
        return False
    return {other, others} & LEAVES or room == others or FLOORS[room] > FLOORS[others]


@pytest.mark.parametrize("name", sorted(MODULES))
def test_a_module_imports_only_from_below(name):
    assert [other for other in sorted(imported(name)) if not allowed(name, other)] == []


def test_imports_are_seen():
    assert {"exact.convex", "metrics", "training.objective", "ufm"} <= imported("claims")
    assert "paper.command" in imported("__main__") and "_checks" in imported("training.networks")
    source = (
        "def f():\n    import ncutils.theory\n    from ncutils import data, solve\nimport numpy"
    )
    assert imported("exact.solver", source) == {"theory", "data", ""}


def test_the_tree_of_the_house_names_every_file():
    house = (ROOT / "CONTRIBUTING.md").read_text().split("```")
    tree = next(part for part in house if part.startswith("\nncutils/"))
    named, wing = [], ""
    for line in tree.splitlines()[2:]:
        name = line.split()[0]
        wing = name.replace("/", ".") if name.endswith("/") else wing if line[2] == " " else ""
        named += [] if name.endswith("/") else [wing + name]
    assert sorted(named) == sorted([*MODULES, "__init__"])
