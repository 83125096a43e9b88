"""Run the notebooks: each NN_name.md beside this file becomes an executed NN_name.ipynb.

    python notebooks/run.py [--store] [--jobs N] [NAME ...]

The outputs go to _build/notebooks, with --store beside the sources, together with the ledgers (ledgers/*.json) and
the image of the cell tagged `readme` (result.png, with --store in book/_static).
A stored output holds nothing that differs from run to run, so that a change in it means that a result changed.
"""

import argparse
import asyncio
import base64
import functools
import io
import json
import os
import platform
import shutil
import sys
import tempfile
import time
from pathlib import Path

import jupytext
import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, DeadKernelError
from PIL import Image

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent

# The same on every machine; the versions that Jupyter would record are those of constraints.txt.
METADATA = {
    "jupytext": {"formats": "md:myst,ipynb"},
    "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
    "language_info": {"name": "python", "file_extension": ".py", "pygments_lexer": "ipython3"},
}


def sources(folder=HERE):
    """The notebooks' source files, in order."""
    return sorted(folder.glob("[0-9][0-9]_*.md"))


def read_source(path):
    """The notebook that a .md file describes, not yet run."""
    notebook = jupytext.read(path, fmt="md:myst")
    notebook.metadata.update(METADATA)
    notebook.nbformat, notebook.nbformat_minor = 4, 5  # the version that has cell ids
    for number, cell in enumerate(notebook.cells, start=1):
        cell.id = f"cell-{number:03d}"
    return notebook


def difference(source, stored):
    """Say where an .ipynb differs from its .md source in anything but outputs; None if nowhere."""
    wanted = read_source(source)
    found = nbformat.read(stored, as_version=4)
    if found.metadata != wanted.metadata:
        return f"{stored.name}: metadata {found.metadata} instead of {wanted.metadata}"
    if len(found.cells) != len(wanted.cells):
        return f"{stored.name}: {len(found.cells)} cells instead of {len(wanted.cells)}"
    for ours, theirs in zip(wanted.cells, found.cells):
        for part in ("id", "cell_type", "source", "metadata"):
            if ours[part] != theirs[part]:
                return f"{stored.name}, {ours.id}: {part} is {theirs[part]!r} instead of {ours[part]!r}"
    return None


def kernel_environment(ledgers):
    """The environment of a kernel that writes its ledgers to the folder `ledgers`."""
    path = [str(ROOT)] + os.environ.get("PYTHONPATH", "").split(os.pathsep)
    return os.environ | {
        "PYTHONPATH": os.pathsep.join(filter(None, path)),  # the package beside the notebooks, installed or not
        "PYTHONDONTWRITEBYTECODE": "1",
        "NCUTILS_LEDGERS": str(ledgers),
        "OMP_NUM_THREADS": "1",  # small matrices: two processes beat two threads, and sums keep their order
        "MKL_NUM_THREADS": "1",
        "TQDM_DISABLE": "1",
    }


def drop_stderr(notebook):
    """Take what cells wrote to stderr out of the notebook and return it."""
    dropped = []
    for cell in notebook.cells:
        if cell.cell_type == "code":
            dropped += [o.text for o in cell.outputs if o.get("name") == "stderr"]
            cell.outputs = [o for o in cell.outputs if o.get("name") != "stderr"]
    return "".join(dropped)


def shrink_images(notebook):
    """Give the pictures a palette of 256 colours, chosen for each: half the size, and no difference that the eye sees."""
    for cell in notebook.cells:
        for output in cell.get("outputs", []):
            if png := output.get("data", {}).get("image/png"):
                small = io.BytesIO()
                with Image.open(io.BytesIO(base64.b64decode(png))) as picture:
                    few = picture.convert("RGB").quantize(256, Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE)
                    few.save(small, "PNG", optimize=True)
                output.data["image/png"] = base64.b64encode(small.getvalue()).decode() + "\n"


def tagged_image(notebook, tag):
    """The PNG shown by the cell that carries `tag`, or None."""
    for cell in notebook.cells:
        if tag in cell.metadata.get("tags", []):
            for output in cell.get("outputs", []):
                if "image/png" in output.get("data", {}):
                    return base64.b64decode(output.data["image/png"])
    return None


def ledger_cell(notebook):
    """The id of the cell that shows the ledger, or None."""
    for cell in notebook.cells:
        for output in cell.get("outputs", []):
            if '<table class="ledger"' in output.get("data", {}).get("text/html", ""):
                return cell.id
    return None


@functools.cache
def machine():
    """What kernels run on, as text, and the versions that matter."""
    import torch  # here, as the import takes longer than everything else

    from ncutils.device import processor

    gpu = [torch.cuda.get_device_name()] if torch.cuda.is_available() else []
    hardware = ", ".join([processor(), f"{os.cpu_count()} cores", *gpu])
    return {"hardware": hardware, "versions": f"Python {platform.python_version()}, torch {torch.__version__}"}


def replace(path, content):
    """Write a file in one step: whatever interrupts it, `path` holds the former or the new content."""
    part = path.with_name(path.name + ".part")
    part.write_bytes(content)
    os.replace(part, path)


async def run(source, output):
    """Run one notebook and put it and its ledgers into the folder `output`. Returns the notebook.

    Nothing in `output` changes before every cell has passed.
    """
    notebook = read_source(source)
    start = time.monotonic()
    with tempfile.TemporaryDirectory() as ledgers:
        client = NotebookClient(
            notebook,
            timeout=None,
            kernel_name="python3",
            record_timing=False,
            extra_arguments=["--log-level=ERROR"],  # only what a reader can act on
            coalesce_streams=True,  # how a stream is cut into messages depends on the clock
            resources={"metadata": {"path": str(source.parent)}},
        )
        await client.async_execute(env=kernel_environment(ledgers))
        notebook.metadata = nbformat.from_dict(read_source(source).metadata)  # the kernel added its version
        shrink_images(notebook)
        if warnings := drop_stderr(notebook):
            print(f"{source.stem} wrote to stderr:\n{warnings}", file=sys.stderr)
        (output / "ledgers").mkdir(parents=True, exist_ok=True)
        how = {"cell": ledger_cell(notebook), "seconds": round(time.monotonic() - start, 1)} | machine()
        for ledger in sorted(Path(ledgers).glob("*.json")):
            content = json.loads(ledger.read_text(encoding="utf-8")) | {"run": how}
            replace(output / "ledgers" / ledger.name, (json.dumps(content, indent=1, ensure_ascii=False) + "\n").encode())
    replace(output / f"{source.stem}.ipynb", (nbformat.writes(notebook) + "\n").encode())
    return notebook


async def run_all(paths, output, jobs):
    """Run notebooks, `jobs` at a time. Returns {source: notebook} of those that passed."""
    free, passed = asyncio.Semaphore(jobs), {}
    machine()  # before the clock runs

    async def one(source):
        async with free:
            start = time.monotonic()
            try:
                passed[source] = await run(source, output)
                print(f"{source.stem} … {time.monotonic() - start:.1f} s", flush=True)
            except (CellExecutionError, DeadKernelError) as error:
                print(f"{source.stem} FAILED in this cell:\n{error}", flush=True)

    # All of them, also after a failure: one run then shows everything that is broken.
    await asyncio.gather(*map(one, paths))
    return passed


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help="for example 03_threshold; all if none is given")
    parser.add_argument("--store", action="store_true", help="write beside the sources instead of to _build/notebooks")
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="notebooks at a time (default: one per core)")
    options = parser.parse_args(arguments)

    paths = {path.stem: path for path in sources()}
    if unknown := sorted(set(options.names) - set(paths)):
        parser.error(f"no notebook {', '.join(unknown)}; there are {', '.join(paths)}")
    chosen = [paths[name] for name in options.names or paths]

    output = HERE if options.store else ROOT / "_build" / "notebooks"
    if not options.store and not options.names:
        shutil.rmtree(output, ignore_errors=True)  # nothing of a notebook that is no more
    passed = asyncio.run(run_all(chosen, output, options.jobs))
    for notebook in passed.values():
        if image := tagged_image(notebook, "readme"):
            replace((ROOT / "book" / "_static" if options.store else output) / "result.png", image)
    return 0 if len(passed) == len(chosen) else 1


if __name__ == "__main__":
    sys.exit(main())
