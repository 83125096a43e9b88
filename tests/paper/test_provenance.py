"""What a result was made with: commit, hardware, versions."""

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from ncutils.paper import provenance

commit = provenance.commit.__wrapped__


def git(folder, *words):
    name = ["-c", "user.name=a", "-c", "user.email=a@b"]
    result = subprocess.run(
        ["git", *name, *words], cwd=folder, check=True, capture_output=True, text=True
    )
    return result.stdout.strip()


@pytest.fixture
def package(monkeypatch, tmp_path):
    """package(place): the package in a folder below tmp_path, whose commit is looked for."""
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))

    def at(place):
        file = tmp_path / place / "ncutils" / "paper" / "provenance.py"
        file.parent.mkdir(parents=True)
        file.write_text("one")
        monkeypatch.setattr(provenance, "__file__", str(file))
        return file

    return at


def test_the_commit_is_that_of_the_checkout_dirty_where_it_was_changed(
    monkeypatch, tmp_path, package
):
    file = package("")
    assert commit() == "unknown"  # no repository
    git(tmp_path, "init")
    assert commit() == "unknown"  # no commit
    git(tmp_path, "add", "."), git(tmp_path, "commit", "-m", "one")
    git(tmp_path, "tag", "-a", "v1", "-m", "v1")
    head = git(tmp_path, "rev-parse", "HEAD")
    assert commit() == head[:12]
    file.write_text("two")
    assert commit() == f"{head[:12]}-dirty"
    monkeypatch.setenv("PATH", str(tmp_path))
    assert commit() == "unknown"  # no git


@pytest.mark.parametrize("place", ["", ".venv/lib/site-packages", "vendor"])
def test_the_commit_of_a_repository_that_is_not_the_packages_is_not_recorded(
    tmp_path, package, place
):
    """It was installed or unpacked in somebody's repository: at its root, but not in its commits,
    or further down.
    """
    (tmp_path / "theirs").write_text("theirs")
    git(tmp_path, "init"), git(tmp_path, "add", "."), git(tmp_path, "commit", "-m", "theirs")
    package(place)
    assert commit() == "unknown"
    git(tmp_path, "add", "."), git(tmp_path, "commit", "-m", "with a copy")
    assert (commit() == "unknown") == bool(place)


def test_hardware_is_the_processor_with_its_threads_or_the_gpu(monkeypatch):
    known, threads = Path("/proc/cpuinfo"), f", {torch.get_num_threads()} threads"
    lines = known.read_text() if known.exists() else ""
    model = re.search(r"^model name\s*:\s*(.*)$", lines, re.M)
    text = provenance.hardware(torch.device("cpu"))
    assert text.endswith(threads) and (model is None or text.startswith(model[1].strip()))
    assert provenance.hardware(torch.device("cpu"), True) == text
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: f"a GPU, {device}")
    for able in (True, False):
        for float32 in (True, False):
            monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda *_, able=able, **__: able)
            number = "bfloat16" if able and not float32 else "float32"
            gpu = torch.device("cuda:1")
            assert provenance.hardware(gpu, float32) == f"a GPU, cuda:1, {number}"

    def missing(*_, **__):
        raise OSError

    monkeypatch.setattr(Path, "read_text", missing)
    monkeypatch.setattr("platform.processor", lambda: "")
    monkeypatch.setattr("platform.machine", lambda: "riscv")
    assert provenance.hardware(torch.device("cpu")) == f"riscv{threads}"


def test_versions_are_those_that_run():
    python = sys.version.split()[0]
    expected = f"python {python}, torch {torch.__version__}, numpy {np.__version__}"
    assert provenance.versions() == expected
