"""The stored notebooks: made from their sources, run from top to bottom, and really compared by
nbval.
"""

import asyncio
import io
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import pairs
import pytest
import run
import yaml
from conftest import NOTEBOOK_HEAD, ROOT

NOTEBOOKS = ROOT / "notebooks"
STORED = sorted(NOTEBOOKS.glob("*.ipynb"))

SMALL = (
    NOTEBOOK_HEAD
    + """
# A small notebook

```{code-cell} ipython3
:tags: [readme]

import sys

print("a warning", file=sys.stderr)
print("value", 0.1250)
```

```{code-cell} ipython3
import json
import os
import pathlib

if folder := os.environ.get("NCUTILS_LEDGERS"):
    pathlib.Path(folder, "small.json").write_text(json.dumps({"rows": []}))
```
"""
)


def each_notebook(function):
    return pytest.mark.parametrize("path", STORED, ids=lambda path: path.stem)(function)


def code_cells(path):
    return [cell for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code"]


def refused(*notebooks):
    """Which of these notebooks, all in one folder, nbval refuses, run as in `make test`."""
    folder = str(notebooks[0].parent)
    options = ["-p", "no:cacheprovider", "-p", "no:cov", "-c", os.devnull, "--rootdir", folder]
    command = [sys.executable, "-m", "pytest", "--nbval", "--nbval-current-env", "-rf", *options]
    path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    setting = dict(env=os.environ | {"PYTHONPATH": path}, capture_output=True, text=True)
    result = subprocess.run([*command, *map(str, notebooks)], **setting)
    # anything else: no test was run
    assert result.returncode in (0, 1), result.stdout + result.stderr
    return set(re.findall(r"^FAILED .*?([^:/]+)::", result.stdout, re.MULTILINE))


def test_every_source_is_stored_and_listed():
    parts = yaml.safe_load((ROOT / "_toc.yml").read_text())["parts"]
    listed = [Path(chapter["file"]) for part in parts for chapter in part["chapters"]]
    pages = [path.stem for path in listed if path.parent.name == "notebooks"]
    assert [path.stem for path in pairs.sources()] == [path.stem for path in STORED] == pages
    ledgers = {path.stem for path in NOTEBOOKS.glob("ledgers/*.json")}
    assert ledgers == {page.split("_", 1)[1] for page in pages}


@each_notebook
def test_a_stored_notebook_is_its_source_run_in_order(path):
    assert pairs.fault(path.with_suffix(".md")) is None


@each_notebook
def test_stored_outputs_hold_no_error_and_no_warning_and_no_cell_a_last_semicolon(path):
    """nbval does not honour a semicolon: it would find the value that Jupyter hides. Write
    `_ = ax.legend()` instead.
    """
    for cell in code_cells(path):
        for output in cell.outputs:
            assert output.output_type != "error" and output.get("name") != "stderr"
        assert "execution" not in cell.metadata
        assert not cell.source.rstrip().endswith(";"), cell.id


@each_notebook
def test_the_ledger_shown_is_the_ledger_stored(path):
    ledger = json.loads((NOTEBOOKS / "ledgers" / f"{path.stem.split('_', 1)[1]}.json").read_text())
    assert ledger["rows"] and all(row["passed"] is True for row in ledger["rows"])
    outputs = [output for cell in code_cells(path) for output in cell.outputs]
    shown = [output.data["text/plain"] for output in outputs if "data" in output]
    table = next(text for text in shown if text.startswith(f"Ledger: {ledger['ledger']}\n"))
    verdicts = [line.split()[-1] for line in table.splitlines()[2:]]
    assert verdicts == ["PASS"] * len(ledger["rows"])
    assert all(row["what"] in table for row in ledger["rows"])


@pytest.fixture(scope="module")
def executed(tmp_path_factory):
    """The folders of a small notebook and of its executed pair, made as the stored ones are."""
    folder = tmp_path_factory.mktemp("executed")
    source = folder / "source" / "01_small.md"
    source.parent.mkdir()
    source.write_text(SMALL)
    asyncio.run(run.run(source, folder / "output"))
    return folder


@pytest.fixture
def small(executed, tmp_path):
    """A copy: the source and its executed pair."""
    shutil.copytree(executed, tmp_path, dirs_exist_ok=True)
    return tmp_path / "source" / "01_small.md", tmp_path / "output" / "01_small.ipynb"


def test_a_second_run_gives_the_same_bytes_on_a_terminal_without_the_ellipsis(
    small, tmp_path, capsys, monkeypatch
):
    source, stored = small
    terminal = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    again = lambda: 1 - len(asyncio.run(run.run_all([source], tmp_path / "again", jobs=1)))
    with monkeypatch.context() as patch, pytest.raises(SystemExit) as end:
        patch.setattr(sys, "stdout", terminal)
        run.leave(again, "notebooks/run.py")
    terminal.flush()
    assert end.value.code == 0
    assert re.fullmatch(rb"01_small \? [\d.]+ s\n", terminal.buffer.getvalue())
    assert (tmp_path / "again" / "01_small.ipynb").read_bytes() == stored.read_bytes()
    assert (tmp_path / "again" / "ledgers" / "small.json").exists()
    assert "a warning" in capsys.readouterr().err and "a warning\\n" not in stored.read_text()


def test_a_changed_source_is_noticed(small):
    source, stored = small
    assert pairs.difference(source, stored) is None
    changes = [("# A small", "# Another"), ("0.1250", "0.1251"), ("[readme]", "[hide]")]
    for old, new in [*changes, ("```{code", "x\n\n```{code")]:
        source.write_text(SMALL.replace(old, new, 1))
        assert pairs.difference(source, stored)


def test_cells_are_laid_out_in_both_of_a_pair(small):
    source, made = small
    stored = source.with_suffix(".ipynb")
    loose = SMALL.replace('print("value", 0.1250)', "x = [  1,\n 2 ]  # why\nprint('value',0.1250)")
    source.write_text(loose)
    notebook = nbformat.reads(made.read_text(), 4)
    notebook.cells[1].source = pairs.read_source(source).cells[1].source
    stored.write_bytes(pairs.written(notebook))
    assert pairs.fault(source) is None
    assert pairs.layout_fault(source) == "01_small.md: not laid out by ruff: cell-002"
    outputs = notebook.cells[1].outputs
    assert pairs.lay_out(source) and not pairs.lay_out(source)
    laid_out = SMALL.replace('print("value"', 'x = [1, 2]  # why\nprint("value"')
    assert source.read_text() == laid_out  # options, prose and header as they were
    assert pairs.fault(source) is pairs.layout_fault(source) is None
    assert pairs.read_stored(stored).cells[1].outputs == outputs
    source.write_text(SMALL.replace("import json\n", "import (\n"))
    assert "01_small.md: error: Failed to parse" in pairs.layout_fault(source)
    long = f'print("{"word " * 10}", {"0, " * 12}0)'
    source.write_text(SMALL.replace('print("value", 0.1250)', long))
    pairs.lay_out(source)
    lines = "\n".join(cell.source for cell in pairs.code_cells(pairs.read_source(source)))
    assert 60 < max(map(len, lines.splitlines())) <= pairs.COLUMNS


def test_what_is_wrong_with_a_pair_is_said(small):
    source, made = small
    stored = source.with_suffix(".ipynb")
    assert pairs.fault(source) == "01_small.ipynb: missing"
    text = made.read_text()
    stored.write_text(text)
    assert pairs.fault(source) is None
    for old, new, said in [
        ('"execution_count": 2', '"execution_count": null', "its cells were run as [1, None]"),
        ('"execution_count": 1', '"execution_count": 3', "its cells were run as [3, 2]"),
        ("^{", "<<<<<<< ours\n{", "not a notebook"),
        # as Colab would store it
        (r'"id": "cell-\d+",|(?<="nbformat_minor": )5', "", "cell-001: id is None"),
        ("0.1250", "0.1251", 'value", 0.1251)\n+print("value", 0.1250)'),
    ]:
        changed = re.sub(old, new, text).replace('"nbformat_minor": \n', '"nbformat_minor": 0\n')
        assert changed != text
        stored.write_text(changed)
        assert said in pairs.fault(source)


def test_a_fault_of_one_pair_hides_no_other(small, capsys):
    """Whatever is in a file, it is a line, and the others are looked at."""
    source, made = small
    text = made.read_text()
    broken = {
        "02_merge.ipynb": text.replace('"cells": [', '"cells": [\n<<<<<<< ours', 1).encode(),
        "03_latin.ipynb": b'{"\xe9t\xe9": 1}',
        "04_empty.ipynb": b"{}",
        "05_list.ipynb": b"[]",
        "06_cells.ipynb": text.replace('"cells"', '"cell"').encode(),
        "07_later.ipynb": b'{"nbformat": 99, "nbformat_minor": 0, "metadata": {}, "cells": []}',
        "08_cell.ipynb": text.replace('"source":', '"sauce":', 1).encode(),
        "09_count.ipynb": text.replace('"execution_count": 1,', "", 1).encode(),
        "10_merge.md": SMALL.replace("kernelspec:", "<<<<<<< ours\nkernelspec:").encode(),
        "11_latin.md": SMALL.encode() + b"\xe9",
        "12_tags.md": SMALL.replace("[readme]", "[[readme]").encode(),
    }
    names = [*broken, "13_missing.md", source.name]
    paths = [source.with_name(name).with_suffix(".md") for name in names]
    for path in paths:
        path.write_text(SMALL)
        path.with_suffix(".ipynb").write_text(text)
    for name, content in broken.items():
        source.with_name(name).write_bytes(content)
    (source.parent / "13_missing.ipynb").unlink()
    assert pairs.check(paths) == 1
    said = capsys.readouterr().out.splitlines()
    assert len(said) == 2 * len(paths[:-1])  # what is wrong and how to mend it; nothing of 01_small
    for name, line in zip(broken, said[::2]):
        assert line.startswith(f"{name}: not a notebook (") and len(line) < 140
    assert said[-2] == "13_missing.ipynb: missing"


FIGURES = (
    NOTEBOOK_HEAD
    + """
```{code-cell} ipython3
:mystnb: {figure: {name: fig-one, caption: One.}}

import sys
import matplotlib.pyplot as plt
print("foreign" in sys._xoptions, sys.executable)
_ = plt.subplots()[1].plot([1, 2], label="one")
```

```{code-cell} ipython3
:mystnb: {figure: {name: fig-two, caption: Two.}}

_ = plt.subplots()[1].plot([3, 4], label="two")
```
"""
)


def test_the_kernel_is_this_python_and_shows_pictures_whatever_the_environment_says(
    tmp_path, monkeypatch
):
    foreign = tmp_path / "jupyter" / "kernels" / "python3" / "kernel.json"
    foreign.parent.mkdir(parents=True)
    argv = [sys.executable, "-X", "foreign", "-m", "ipykernel_launcher", "-f", "{connection_file}"]
    foreign.write_text(json.dumps({"argv": argv, "display_name": "Foreign", "language": "python"}))
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path / "jupyter"))
    monkeypatch.setenv("MPLBACKEND", "Agg")
    source = tmp_path / "01_figures.md"
    source.write_text(FIGURES)
    cells = asyncio.run(run.run(source, tmp_path / "output")).cells
    assert cells[0].outputs[0].text == f"False {sys.executable}\n"
    assert ["image/png" in cell.outputs[-1].get("data", {}) for cell in cells] == [True, True]
    data = tmp_path / "output" / "data" / "01_figures"
    lines = [(data / f"fig-{name}.csv").read_text().splitlines()[3:] for name in ("one", "two")]
    series = [{line.split(",")[1] for line in found} for found in lines]
    assert series == [{"one"}, {"two"}]  # each the figure of its own cell


def test_a_failed_run_changes_nothing_and_shows_the_cell(small, capsys):
    source, stored = small
    before = stored.read_bytes()
    source.write_text(SMALL.replace("import json\n", "1 / 0\n"))
    assert asyncio.run(run.run_all([source], stored.parent, jobs=1)) == {}
    shown = capsys.readouterr().out
    assert "01_small FAILED" in shown and "1 / 0" in shown and "ZeroDivisionError" in shown
    assert stored.read_bytes() == before
    assert sorted(file.name for file in stored.parent.iterdir()) == ["01_small.ipynb", "ledgers"]


def changed_copy(path, notebook, output):
    """A copy of a notebook in which the last digit of an output is another."""
    output.text = re.sub(r"\d(?=\D*$)", lambda digit: str((int(digit[0]) + 1) % 10), output.text)
    nbformat.write(notebook, copy := path.with_name("changed.ipynb"))
    return copy


def test_nbval_notices_a_changed_digit(small):
    path = small[1]
    notebook = nbformat.read(path, as_version=4)
    cell = pairs.code_cells(notebook)[0]
    cell.source = cell.source.replace('print("a warning", file=sys.stderr)', "")
    nbformat.write(notebook, path)
    assert refused(path, changed_copy(path, notebook, cell.outputs[0])) == {"changed.ipynb"}


@pytest.mark.depth
def test_nbval_notices_a_changed_digit_in_a_stored_notebook(tmp_path):
    """On the first notebook up to the first number that it prints."""
    notebook = nbformat.read(STORED[0], as_version=4)
    cells = enumerate(notebook.cells, 1)
    printed = ((n, output) for n, cell in cells for output in cell.get("outputs", []))
    end, output = next((n, out) for n, out in printed if re.search(r"\d", out.get("text", "")))
    del notebook.cells[end:]
    nbformat.write(notebook, path := tmp_path / STORED[0].name)
    assert refused(path, changed_copy(path, notebook, output)) == {"changed.ipynb"}
