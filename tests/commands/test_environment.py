"""One list of names (pyproject.toml), one list of versions (constraints.txt), and both are what is
installed.
"""

import tomllib
from importlib.metadata import distributions, requires

import yaml
from conftest import ROOT
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

# Packages that torch brings along where it is built for a GPU: theirs to choose.
GPU = ("nvidia-", "cuda-", "triton")


def project():
    return tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def direct_requirements():
    groups = project()["dependencies"], *project()["optional-dependencies"].values()
    return [Requirement(line) for group in groups for line in group]


def pins():
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    parts = [line.split("==") for line in lines if not line.startswith("#")]
    return {canonicalize_name(name): Version(pin) for name, pin in parts}


def all_requirements():
    """The direct requirements and everything that they need in this environment."""
    open_, seen = direct_requirements(), set()
    while open_:
        requirement = open_.pop()
        key = canonicalize_name(requirement.name), frozenset(requirement.extras)
        if key in seen:
            continue
        seen.add(key)
        for line in requires(requirement.name) or []:
            needed = Requirement(line)
            extras = requirement.extras or {""}
            if canonicalize_name(needed.name).startswith(GPU):
                continue
            marker = needed.marker
            if marker is None or any(marker.evaluate({"extra": extra}) for extra in extras):
                open_.append(needed)
    return {name for name, _ in seen}


def test_conda_environment_only_refers():
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())
    python, pip, packages = environment["dependencies"]
    assert pip == "pip"
    assert packages == {"pip": ["-c constraints.txt", "-e .[book,test]"]}
    assert sorted(project()["optional-dependencies"]) == ["book", "cluster", "test"]
    name, _, wanted = python.partition("=")
    assert name == "python"
    assert Requirement(f"python{project()['requires-python']}").specifier.contains(wanted)


def test_every_pin_lies_in_its_range():
    for one in direct_requirements():
        assert one.specifier.contains(pins()[canonicalize_name(one.name)]), one


def test_everything_needed_is_pinned_and_nothing_else():
    assert all_requirements() == set(pins())


def test_what_is_pinned_is_installed():
    # .public: torch's local version (+cpu) says for which device it was built, not what it computes
    found = {canonicalize_name(d.metadata["Name"]): d.version for d in distributions()}
    for name, pin in pins().items():
        assert Version(found[name]).public == pin.public, name
