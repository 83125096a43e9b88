"""`make lint` and the hooks before a commit are the same commands, and each finds what it is there
for.
"""

import os
import re
import shutil
import subprocess
import sys

import pytest
import yaml
from conftest import ROOT

HOOKS = {
    hook["id"]: hook
    for repo in yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"]
    for hook in repo["hooks"]
}
MISSPELT = "rec" + "ieve"  # in two parts, as this file is read, too

# What is planted where, and which command finds it, in which words.
NB, IMPORT = "notebooks/00_summary", "import numpy as np\n"
IN_CELL = (f'"{IMPORT[:-1]}\\n"', f'"import json\\n", "{IMPORT[:-1]}\\n"')
THEME, HEADING = ("figures.use_theme()", "figures.use_theme( )"), "## Setting"
IN_TEXT = (rf'"{HEADING}\n"', rf'"{HEADING}\n", "{MISSPELT}"')
SOURCE, NOT_RUN = (
    "notebooks/03_threshold.md",
    "04_diminishing.ipynb: its cells were run as [1, 2, None",
)
FAULTS = {
    "unused import": (
        "ruff",
        {"ncutils/ufm.py": ("import math\n", "import json\nimport math\n")},
        ["F401", "ncutils/ufm.py:"],
    ),
    "undefined name": (
        "ruff",
        {"tests/test_ufm.py": ("def ", "def f():\n    return nowhere\n\n\ndef ")},
        ["F821", "nowhere"],
    ),
    "unused import in a notebook": (
        "ruff",
        {f"{NB}.md": (IMPORT, f"import json\n{IMPORT}"), f"{NB}.ipynb": IN_CELL},
        ["F401", f"{NB}.ipynb:cell 2"],
    ),
    "badly laid out code": (
        "format",
        {"ncutils/ledger.py": ("import math\n", "import math\n\nx = [ 1,2 ]\n")},
        ["ncutils/ledger.py"],
    ),
    "badly laid out notebook": (
        "pairs",
        {"notebooks/01_collapse.md": THEME, "notebooks/01_collapse.ipynb": THEME},
        ["01_collapse.md: not laid out by ruff: cell-002\n", "make format"],
    ),
    "misspelt word": (
        "codespell",
        {"book/setting.md": ("\n\n", f"\n\nThey {MISSPELT} it. ")},
        ["book/setting.md:", MISSPELT],
    ),
    "misspelt word in a notebook": (
        "codespell",
        {
            "notebooks/02_angles.md": (f"{HEADING}\n", f"{HEADING}\n\n{MISSPELT}\n"),
            "notebooks/02_angles.ipynb": IN_TEXT,
        },
        ["notebooks/02_angles.md:", MISSPELT],
    ),
    "misspelt word in a hidden folder": (
        "codespell",
        {".ci/run": ("# What", f"# {MISSPELT} What")},
        [".ci/run:", MISSPELT],
    ),
    "pair out of step": (
        "pairs",
        {SOURCE: ("The paper's experiments", "My experiments")},
        ["03_threshold.ipynb, cell-", "-The paper's", "+My experiments", "--store 03_threshold"],
    ),
    "cell not run": (
        "pairs",
        {"notebooks/04_diminishing.ipynb": ('"execution_count": 3', '"execution_count": null')},
        [f"{NOT_RUN}, 4", "--store 04_diminishing"],
    ),
}
SETTINGS = [".pre-commit-config.yaml", "pyproject.toml", "notebooks/run.py", "notebooks/pairs.py"]


@pytest.fixture
def checkout(tmp_path):
    """The settings and the files in which faults are planted, with a .venv/bin/python that is the
    Python which runs this.
    """
    folder = tmp_path / "copy"
    # all of it, or imports from it would be sorted elsewhere
    shutil.copytree(ROOT / "ncutils", folder / "ncutils")
    planted = {name for _, changes, _ in FAULTS.values() for name in changes}
    pairs = {name.replace(".md", ".ipynb") for name in planted if name.startswith("notebooks/")}
    for name in {*SETTINGS, *planted, *pairs, *(n.replace(".ipynb", ".md") for n in pairs)}:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, folder / name)
    python = folder / ".venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')
    python.chmod(0o755)
    return folder


def plant(folder, changes):
    for name, (old, new) in changes.items():
        text = (folder / name).read_text()
        assert old in text, (name, old)
        (folder / name).write_text(text.replace(old, new, 1))


def complaints(folder, python=".venv/bin/python"):
    """{hook: what it says} of the hooks whose command fails in this folder."""
    setting, found = dict(cwd=folder, capture_output=True, text=True), {}
    for name, hook in HOOKS.items():
        result = subprocess.run([python, *hook["entry"].split()[1:]], **setting)
        if result.returncode != 0:
            found[name] = result.stdout + result.stderr
    return found


def test_the_hooks_are_the_commands_of_make_lint():
    outer = "MAKEFLAGS", "MFLAGS", "MAKELEVEL"
    kept = {key: value for key, value in os.environ.items() if key not in outer}
    shown = subprocess.check_output(["make", "-n", "lint"], cwd=ROOT, env=kept, text=True)
    *_, commands = shown.partition("status=0; \\\n")
    wanted = [f"{hook['entry']} || status=1; \\\n" for hook in HOOKS.values()]
    assert commands == "".join(wanted) + "exit $status\n"
    for hook in HOOKS.values():  # of .venv, on all files: nothing to fetch
        how = hook["language"], hook["pass_filenames"], hook["always_run"]
        assert how == ("system", False, True)
        assert hook["entry"].startswith(".venv/bin/python ")


def test_nothing_is_found_here():
    assert complaints(ROOT, sys.executable) == {}


def test_every_fault_is_found_by_its_command(checkout):
    assert complaints(checkout) == {}
    for _, changes, _ in FAULTS.values():
        plant(checkout, changes)
    found = complaints(checkout)
    words = [(hook, word) for hook, _, words in FAULTS.values() for word in words]
    missed = [(hook, word) for hook, word in words if word not in found.get(hook, "")]
    assert missed == [] and sorted(found) == sorted(HOOKS), found


def test_a_commit_with_a_fault_is_refused(checkout, tmp_path):
    who = "AUTHOR_NAME AUTHOR_EMAIL COMMITTER_NAME COMMITTER_EMAIL".split()
    own = {f"GIT_{name}": "a@b.example" for name in who}
    own |= {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_NOSYSTEM": "1"}
    own |= {"PRE_COMMIT_HOME": str(tmp_path / "home")}
    kept = {k: v for k, v in os.environ.items() if not k.startswith("GIT_") and k != "SKIP"}

    def call(*command):
        setting = dict(cwd=checkout, env=kept | own, capture_output=True, text=True)
        result = subprocess.run(command, **setting)
        return result.returncode, result.stdout + result.stderr

    _, changes, words = FAULTS["unused import"]
    install = [sys.executable, "-m", "pre_commit", "install"]
    for command in (["git", "init", "-q"], install, ["git", "add", "-A"]):
        status, said = call(*command)
        assert status == 0, said
    plant(checkout, changes)
    call("git", "add", "-A")
    status, said = call("git", "commit", "-m", "x")
    verdicts = re.findall(r"\.(Passed|Failed)", said)
    assert status != 0 and verdicts == ["Failed", "Passed", "Passed", "Passed"]
    assert all(word in said for word in words)
    assert call("git", "log")[0] != 0  # there is no commit
    plant(checkout, {name: (new, old) for name, (old, new) in changes.items()})
    call("git", "add", "-A")
    status, said = call("git", "commit", "-m", "x")
    assert status == 0 and re.findall(r"\.(Passed|Failed)", said) == ["Passed"] * 4, said
    assert call("git", "log", "--format=%s") == (0, "x\n")
