"""A notebook is a pair: NN_name.md, which is edited, and NN_name.ipynb, the same text, executed.

Here is what a pair has to be, without running anything: the .ipynb is what its .md says, run once
from top to bottom, and the code is laid out by ruff.
"""

import difflib
import re
import subprocess
import sys
import textwrap
from pathlib import Path

import jupytext
import nbformat

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent

# Of code in notebooks. On a page 83 characters fit into a cell where the window has 1366 pixels,
# and 87 from 1440 on; a longer line scrolls sideways.
COLUMNS = 80

# The same on every machine; the versions that Jupyter would record are those of constraints.txt.
METADATA = {
    "jupytext": {"formats": "md:myst,ipynb"},
    "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
    "language_info": {"name": "python", "file_extension": ".py", "pygments_lexer": "ipython3"},
}
CODE_CELL = re.compile(r"^(`{3,})\{code-cell\}.*\n((?s:.*?))^\1$", re.MULTILINE)


def sources(folder=HERE):
    """The notebooks' source files, in order."""
    return sorted(folder.glob("[0-9][0-9]_*.md"))


def chosen(parser, names):
    """The sources of the notebooks that are named on the command line; all if none is."""
    paths = {path.stem: path for path in sources()}
    if unknown := sorted(set(names) - set(paths)):
        parser.error(f"no notebook {', '.join(unknown)}; there are {', '.join(paths)}")
    return [paths[name] for name in names or paths]


def read_source(path):
    """The notebook that a .md file describes, not yet run."""
    notebook = jupytext.read(path, fmt="md:myst")
    notebook.metadata.update(METADATA)
    notebook.nbformat, notebook.nbformat_minor = 4, 5  # the version that has cell ids
    for number, cell in enumerate(notebook.cells, start=1):
        cell.id = f"cell-{number:03d}"
    return notebook


def read_stored(path):
    """The notebook in an .ipynb file."""
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)  # what is wrong with it, `read` only logs
    return notebook


def written(notebook):
    """The bytes of an .ipynb file."""
    return (nbformat.writes(notebook) + "\n").encode()


def code_cells(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def difference(source, stored):
    """Say where an .ipynb differs from its .md source in anything but outputs; None if nowhere."""
    wanted, found = read_source(source), read_stored(stored)
    if found.metadata != wanted.metadata:
        return f"{stored.name}: metadata {found.metadata} instead of {wanted.metadata}"
    if len(found.cells) != len(wanted.cells):
        return f"{stored.name}: {len(found.cells)} cells instead of {len(wanted.cells)}"
    for ours, theirs in zip(wanted.cells, found.cells):
        place = f"{stored.name}, {ours.id}"
        for part in ("id", "cell_type", "metadata"):
            there = theirs.get(part)  # a notebook that was saved elsewhere may have no ids
            if ours[part] != there:
                return f"{place}: {part} is {there!r} instead of {ours[part]!r}"
        if ours.source != theirs.source:
            texts = theirs.source.splitlines(), ours.source.splitlines()
            lines = difflib.unified_diff(*texts, stored.name, source.name, n=0, lineterm="")
            return "\n".join([f"{place}: another text", *lines])
    return None


def fault(source):
    """Say what is wrong with a .md source and the .ipynb beside it: missing, no notebook,
    different, not run in order.

    None if nothing is.
    """
    stored = source.with_suffix(".ipynb")
    if not stored.exists():
        return f"{stored.name}: missing"
    for path, read in ((source, read_source), (stored, read_stored)):
        try:
            read(path)
        # of any kind: the marks of a merge, another encoding, JSON that is something else
        except Exception as error:
            return f"{path.name}: not a notebook ({textwrap.shorten(str(error), 90)})"
    if found := difference(source, stored):
        return found
    counts = [cell.execution_count for cell in code_cells(read_stored(stored))]
    if counts != list(range(1, len(counts) + 1)):
        return f"{stored.name}: its cells were run as {counts}, not once from top to bottom"
    return None


def ruff(name, content, *command):
    """What ruff makes of the bytes of an .ipynb; ValueError, with the `name`, if a cell is no
    Python.
    """
    settings = ["--config", ROOT / "pyproject.toml", "--config", f"line-length={COLUMNS}"]
    result = subprocess.run(
        [sys.executable, "-m", "ruff", *command, *settings, "--stdin-filename", "x.ipynb", "-"],
        input=content,
        capture_output=True,
        cwd=ROOT,  # where it sees which imports are of the package
    )
    if result.returncode:
        raise ValueError(f"{name}: {result.stderr.decode().strip()}")
    return result.stdout


def laid_out(source):
    """The code of each cell of a .md source as ruff lays it out, imports sorted; ValueError if it
    is no Python.
    """
    content = written(read_source(source))
    content = ruff(source.name, content, "check", "--select=I", "--fix", "--exit-zero", "--quiet")
    content = ruff(source.name, content, "format")
    return [cell.source for cell in code_cells(nbformat.reads(content.decode(), 4))]


def layout_fault(source):
    """Say which cells of a .md source are not as ruff lays them out; None if all are."""
    try:
        wanted = laid_out(source)
    except ValueError as error:
        return str(error)
    cells = code_cells(read_source(source))
    if other := [cell.id for cell, code in zip(cells, wanted) if cell.source != code]:
        return f"{source.name}: not laid out by ruff: {', '.join(other)}"
    return None


def lay_out(source):
    """Lay out the code of a .md source, and of the .ipynb beside it if that is its pair: what the
    code does, and so every output, stays. Returns whether anything changed.
    """
    codes, cells = laid_out(source), code_cells(read_source(source))
    if codes == [cell.source for cell in cells]:
        return False
    stored = source.with_suffix(".ipynb")
    pair = stored.exists() and fault(source) is None
    news = iter(zip(cells, codes))

    def replaced(block):
        cell, code = next(news)
        body = block[2].removesuffix(f"{cell.source}\n")  # options of the cell
        return block[0].removesuffix(f"{block[2]}{block[1]}") + f"{body}{code}\n{block[1]}"

    text = CODE_CELL.sub(replaced, source.read_text(encoding="utf-8"))
    source.write_text(text, encoding="utf-8")
    if [cell.source for cell in code_cells(read_source(source))] != codes:
        raise ValueError(f"{source.name}: its cells were not found in its text")
    if pair:
        notebook = read_stored(stored)
        for cell, code in zip(code_cells(notebook), codes):
            cell.source = code
        stored.write_bytes(written(notebook))
    return True


def check(paths):
    """Print what is wrong with the notebooks of these sources, and how to mend it. Returns the exit
    status.
    """
    status = 0
    for path in paths:
        if found := fault(path):
            mend = f"{path.name} is what counts. If it is right: .venv/bin/python notebooks/run.py"
            print(f"{found}\n    {mend} --store {path.stem}")
        elif found := layout_fault(path):
            print(f"{found}\n    make format")
        status |= bool(found)
    return status
