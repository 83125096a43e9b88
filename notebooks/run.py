"""Run the notebooks: each NN_name.md beside this file becomes an executed NN_name.ipynb.

    python notebooks/run.py [--store | --check | --format] [--jobs N] [NAME ...]

The outputs go to _build/notebooks, with --store beside the sources, together with the ledgers
(ledgers/*.json), the data of the figures that have a name (data/NN_name/*.csv) and the image of the
cell tagged `readme` (result.png, with --store in book/_static). A stored output holds nothing that
differs from run to run, so that a change in it means that a result changed. With --check nothing is
run: every stored .ipynb must be what its .md says, run from top to bottom, and laid out; --format
lays both out.
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

import nbformat
from jupyter_client.kernelspec import KernelSpecManager
from jupyter_client.manager import AsyncKernelManager
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, DeadKernelError
from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parent))  # which Python's safe path leaves out
from pairs import HERE, ROOT, check, chosen, code_cells, lay_out, read_source, written


def kernel_environment(ledgers, figures, threads=1):
    """The environment of a kernel that writes its ledgers and the data of its figures to these
    folders.
    """
    path = [str(ROOT)] + os.environ.get("PYTHONPATH", "").split(os.pathsep)
    # With another backend of Matplotlib than ipykernel's own no cell would show its figures, nor
    # close them.
    inherited = {name: value for name, value in os.environ.items() if name != "MPLBACKEND"}
    return inherited | {
        # the package beside the notebooks, installed or not
        "PYTHONPATH": os.pathsep.join(filter(None, path)),
        "PYTHONDONTWRITEBYTECODE": "1",
        "NCUTILS_LEDGERS": str(ledgers),
        "NCUTILS_FIGURES": str(figures),
        "OMP_NUM_THREADS": str(threads),
        "MKL_NUM_THREADS": str(threads),
        # or two threads that wait for each other keep the cores from who else needs them
        "OMP_WAIT_POLICY": "PASSIVE",
        "TQDM_DISABLE": "1",
    }


def kernel_manager():
    """What starts a kernel in this Python: of no folder, such as those in $JUPYTER_PATH, is another
    kernel taken.
    """
    return AsyncKernelManager(
        kernel_name="python3", kernel_spec_manager=KernelSpecManager(kernel_dirs=[])
    )


def drop_stderr(notebook):
    """Take what cells wrote to stderr out of the notebook and return it."""
    dropped = []
    for cell in code_cells(notebook):
        dropped += [o.text for o in cell.outputs if o.get("name") == "stderr"]
        cell.outputs = [o for o in cell.outputs if o.get("name") != "stderr"]
    return "".join(dropped)


def shrink_images(notebook):
    """Give the pictures a palette of 256 colours, chosen for each: half the size, and no difference
    that the eye sees.
    """
    for cell in notebook.cells:
        for output in cell.get("outputs", []):
            if png := output.get("data", {}).get("image/png"):
                small = io.BytesIO()
                with Image.open(io.BytesIO(base64.b64decode(png))) as picture:
                    few = picture.convert("RGB").quantize(
                        256, Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE
                    )
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


def figure_data(notebook, folder, page):
    """{name: CSV} of the figures with a name, from the files that notebooks/figure_data.py wrote to
    a folder.
    """
    found = {}
    for cell in notebook.cells:
        figure = cell.metadata.get("mystnb", {}).get("figure", {})
        file = folder / f"{cell.get('execution_count')}.csv"
        if "name" in figure and file.exists():
            caption = " ".join(figure.get("caption", "").split())
            about = f"# {figure['name']} of {page}: {caption}\n"
            about += "# by the companion's authors, CC BY 4.0\n"
            found[figure["name"]] = about + file.read_text(encoding="utf-8")
    return found


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

    from ncutils._device import processor

    gpu = [torch.cuda.get_device_name()] if torch.cuda.is_available() else []
    hardware = ", ".join([processor(), f"{os.cpu_count()} cores", *gpu])
    return {
        "hardware": hardware,
        "versions": f"Python {platform.python_version()}, torch {torch.__version__}",
    }


def replace(path, content):
    """Write a file whole or not at all."""
    from ncutils._files import write

    write(path, content)


def check_writable(folder):
    """OSError, naming the folder, unless files can be written there: better known before notebooks
    run than after.
    """
    from ncutils._files import named

    probe = folder / "ledgers" / ".probe"
    try:
        replace(probe, bytes(4096))  # a full disk may still take an empty file
    except OSError as error:
        raise named(error, folder) from None
    probe.unlink()


async def execute(notebook, folder, ledgers, figures, threads):
    """Run the cells of a notebook in `folder`, in a kernel of its own, which writes to two other
    folders.
    """
    client = NotebookClient(
        notebook,
        km=kernel_manager(),
        timeout=None,
        record_timing=False,
        # of the log only what a reader can act on
        extra_arguments=["--log-level=ERROR", "--ext=notebooks.figure_data"],
        coalesce_streams=True,  # how a stream is cut into messages depends on the clock
        resources={"metadata": {"path": str(folder)}},
    )
    # the kernel, which we gave it, ends with it
    await client.async_execute(env=kernel_environment(ledgers, figures, threads), cleanup_kc=True)


def keep(notebook, source, output, ledgers, figures, seconds):
    """Put what a run of a notebook wrote to two folders into the folder `output`."""
    how = {"cell": ledger_cell(notebook), "seconds": round(seconds, 1)} | machine()
    for ledger in sorted(Path(ledgers).glob("*.json")):
        content = json.loads(ledger.read_text(encoding="utf-8")) | {"run": how}
        text = json.dumps(content, indent=1, ensure_ascii=False) + "\n"
        replace(output / "ledgers" / ledger.name, text.encode())
    folder = output / "data" / source.stem
    data = figure_data(notebook, Path(figures), source.stem)
    for name, text in data.items():
        replace(folder / f"{name}.csv", text.encode())
    for former in folder.glob("*.csv"):  # of a figure that is no more
        if former.stem not in data:
            former.unlink()


async def run(source, output, threads=1, before=None):
    """Run one notebook and put it, its ledgers and its figures' data into the folder `output`.
    Returns the notebook.

    One thread by default: with small matrices two processes beat two threads, and sums keep their
    order. `before` is code that runs ahead of the first cell. Nothing in `output` changes before
    every cell has passed.
    """
    notebook = read_source(source)
    if before is not None:
        notebook.cells.insert(0, nbformat.v4.new_code_cell(before))
    start = time.monotonic()
    with tempfile.TemporaryDirectory() as ledgers, tempfile.TemporaryDirectory() as figures:
        await execute(notebook, source.parent, ledgers, figures, threads)
        if before is not None:
            del notebook.cells[0]
        # the kernel added its version
        notebook.metadata = nbformat.from_dict(read_source(source).metadata)
        shrink_images(notebook)
        if warnings := drop_stderr(notebook):
            print(f"{source.stem} wrote to stderr:\n{warnings}", file=sys.stderr)
        keep(notebook, source, output, ledgers, figures, time.monotonic() - start)
    replace(output / f"{source.stem}.ipynb", written(notebook))
    return notebook


async def run_all(paths, output, jobs, failed=None, **conditions):
    """Run notebooks, `jobs` at a time, under the conditions of `run`. Returns {source: notebook} of
    those that passed; the dict `failed` gets {source: reason} of the others."""
    free, passed, failed = asyncio.Semaphore(jobs), {}, {} if failed is None else failed
    check_writable(output)
    machine()  # before the clock runs

    async def one(source):
        async with free:
            start = time.monotonic()
            try:
                passed[source] = await run(source, output, **conditions)
                print(f"{source.stem} … {time.monotonic() - start:.1f} s", flush=True)
            except (CellExecutionError, DeadKernelError) as error:
                print(f"{source.stem} FAILED in this cell:\n{error}", flush=True)
                failed[source] = str(error).strip().splitlines()[-1]
            except OSError as error:
                print(f"{source.stem} FAILED and is not kept: {error}", flush=True)
                failed[source] = str(error)

    # All of them, also after a failure: one run then shows everything that is broken.
    await asyncio.gather(*map(one, paths))
    return passed


def main(arguments=None):
    parser = argparse.ArgumentParser(  # in words: -OO drops the docstring
        description="Run the notebooks: each NN_name.md beside this file becomes "
        "an executed NN_name.ipynb."
    )
    parser.add_argument(
        "names", nargs="*", metavar="NAME", help="for example 03_threshold; all if none is given"
    )
    what = parser.add_mutually_exclusive_group()
    what.add_argument(
        "--store",
        action="store_true",
        help="write beside the sources instead of to _build/notebooks",
    )
    what.add_argument(
        "--check",
        action="store_true",
        help="run nothing; say which stored .ipynb is not its .md, executed, or not laid out",
    )
    what.add_argument("--format", action="store_true", help="run nothing; lay out the code by ruff")
    parser.add_argument(
        "--jobs",
        type=int,
        default=os.cpu_count(),
        help="notebooks at a time (default: one per core)",
    )
    options = parser.parse_args(arguments)

    paths = chosen(parser, options.names)
    if options.check:
        return check(paths)
    if options.format:
        for path in paths if options.names else [*paths, HERE / "template.md"]:
            if lay_out(path):
                print(f"{path.name}: laid out")
        return 0
    output = HERE if options.store else ROOT / "_build" / "notebooks"
    if not options.store and not options.names:
        shutil.rmtree(output, ignore_errors=True)  # nothing of a notebook that is no more
    passed = asyncio.run(run_all(paths, output, options.jobs))
    for notebook in passed.values():
        if image := tagged_image(notebook, "readme"):
            replace((ROOT / "book" / "_static" if options.store else output) / "result.png", image)
    return 0 if len(passed) == len(paths) else 1


def leave(main, script):
    """End a script with the status of its `main`, or a line that says what cannot be written."""
    if sys.stdout:  # None where it was closed
        # ? for what the terminal's encoding lacks, as it may the … of a run
        sys.stdout.reconfigure(errors="replace")
    try:
        sys.exit(main())
    except OSError as error:  # the disk is full, or the folder may not be written
        sys.exit(f"{script}: {error}")


if __name__ == "__main__":
    leave(main, "notebooks/run.py")
