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
FAULTS = {
    "unused import": (
        "ruff",
        {"ncutils/theory.py": ("import math\n", "import json\nimport math\n")},
        ["F401", "ncutils/theory.py:"],
    ),
    "badly laid out code": (
        "format",
        {"ncutils/theory.py": ("import math\n", "import math\n\n\nx = [ 1,2 ]\n")},
        ["ncutils/theory.py", "x = [1, 2]"],
    ),
    "badly laid out notebook": (
        "pairs",
        {
            "notebooks/00_summary.md": ("figures.use_theme()\n", "figures.use_theme( )\n"),
            "notebooks/00_summary.ipynb": ('"figures.use_theme()\\n"', '"figures.use_theme( )\\n"'),
        },
        ["00_summary.md: not laid out by ruff: cell-002\n", "make format"],
    ),
    "undefined name": (
        "ruff",
        {"tests/test_theory.py": ("def ", "def f():\n    return nowhere\n\n\ndef ")},
        ["F821", "nowhere"],
    ),
    "unused import in a notebook": (
        "ruff",
        {
            "notebooks/00_summary.md": (
                "import numpy as np\n",
                "import json\nimport numpy as np\n",
            ),
            "notebooks/00_summary.ipynb": (
                r'"import numpy as np\n"',
                r'"import json\n", "import numpy as np\n"',
            ),
        },
        ["F401", "notebooks/00_summary.ipynb:cell 2"],
    ),
    "misspelt word": (
        "codespell",
        {"book/setting.md": ("\n\n", f"\n\nThey {MISSPELT} it. ")},
        ["book/setting.md:", MISSPELT],
    ),
    "misspelt word in a notebook": (
        "codespell",
        {
            "notebooks/03_threshold.md": ("The paper's experiments", f"The {MISSPELT}"),
            "notebooks/03_threshold.ipynb": ("The paper's experiments", f"The {MISSPELT}"),
        },
        ["notebooks/03_threshold.md:", MISSPELT],
    ),
    "misspelt word in a hidden folder": (
        "codespell",
        {".ci/run": ("# What", f"# {MISSPELT} What")},
        [".ci/run:", MISSPELT],
    ),
    "pair out of step": (
        "pairs",
        {"notebooks/03_threshold.md": ("The paper's experiments", "My experiments")},
        [
            "03_threshold.ipynb, cell-",
            "-The paper's experiments",
            "+My experiments",
            "--store 03_threshold",
        ],
    ),
    "cell not run": (
        "pairs",
        {"notebooks/03_threshold.ipynb": ('"execution_count": 3', '"execution_count": null')},
        ["03_threshold.ipynb: its cells were run as [1, 2, None, 4", "--store 03_threshold"],
    ),
}


@pytest.fixture
def checkout(tmp_path):
    """A copy, in which .venv/bin/python is the Python that runs this."""
    leave = shutil.ignore_patterns(
        ".git", ".venv", "_build", "__pycache__", "*.csv", ".ipynb_checkpoints"
    )
    folder = shutil.copytree(ROOT, tmp_path / "copy", ignore=leave)
    python = folder / ".venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')
    python.chmod(0o755)
    return folder


def plant(folder, changes):
    for name, (old, new) in changes.items():
        text = (folder / name).read_text()
        assert old in text
        (folder / name).write_text(text.replace(old, new, 1))


def complaints(folder):
    """{hook: what it says} of the hooks whose command fails in this folder."""
    results = {
        name: subprocess.run(hook["entry"].split(), cwd=folder, capture_output=True, text=True)
        for name, hook in HOOKS.items()
    }
    return {
        name: result.stdout + result.stderr
        for name, result in results.items()
        if result.returncode != 0
    }


def test_the_hooks_are_the_commands_of_make_lint():
    kept = {
        key: value
        for key, value in os.environ.items()
        if key not in ("MAKEFLAGS", "MFLAGS", "MAKELEVEL")
    }
    shown = subprocess.run(
        ["make", "-n", "lint"], cwd=ROOT, env=kept, capture_output=True, text=True, check=True
    ).stdout
    *_, commands = shown.partition("status=0; \\\n")
    assert (
        commands
        == "".join(f"{hook['entry']} || status=1; \\\n" for hook in HOOKS.values())
        + "exit $status\n"
    )
    for hook in HOOKS.values():  # of .venv, on all files: nothing to fetch
        assert (hook["language"], hook["pass_filenames"], hook["always_run"]) == (
            "system",
            False,
            True,
        )
        assert hook["entry"].startswith(".venv/bin/python ")


def test_nothing_is_found_here(checkout):
    assert complaints(checkout) == {}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_found_by_one_command(checkout, fault):
    hook, changes, words = FAULTS[fault]
    plant(checkout, changes)
    found = complaints(checkout)
    assert list(found) == [hook], found
    assert [word for word in words if word not in found[hook]] == [], found[hook]


def test_a_commit_with_a_fault_is_refused(checkout, tmp_path):
    who = {
        f"GIT_{role}_{key}": "a@b.example"
        for role in ("AUTHOR", "COMMITTER")
        for key in ("NAME", "EMAIL")
    }
    own = {
        "PRE_COMMIT_HOME": str(tmp_path / "home"),
        "GIT_CONFIG_GLOBAL": os.devnull,
        "GIT_CONFIG_NOSYSTEM": "1",
    }
    environment = (
        {
            key: value
            for key, value in os.environ.items()
            if not key.startswith("GIT_") and key != "SKIP"
        }
        | who
        | own
    )

    def call(*command):
        result = subprocess.run(
            command, cwd=checkout, env=environment, capture_output=True, text=True
        )
        return result.returncode, result.stdout + result.stderr

    _, changes, words = FAULTS["unused import"]
    for command in (
        ["git", "init", "-q"],
        [sys.executable, "-m", "pre_commit", "install"],
        ["git", "add", "-A"],
    ):
        status, said = call(*command)
        assert status == 0, said
    plant(checkout, changes)
    call("git", "add", "-A")
    status, said = call("git", "commit", "-m", "x")
    assert status != 0 and re.findall(r"\.(Passed|Failed)", said) == ["Failed", "Passed", "Passed"]
    assert all(word in said for word in words)
    assert call("git", "log")[0] != 0  # there is no commit
    plant(checkout, {name: (new, old) for name, (old, new) in changes.items()})
    call("git", "add", "-A")
    status, said = call("git", "commit", "-m", "x")
    assert status == 0 and re.findall(r"\.(Passed|Failed)", said) == ["Passed"] * 3, said
    assert call("git", "log", "--format=%s") == (0, "x\n")
