"""Results that are kept as they come: two CSV files, whole after any kill."""

import csv
import io
import math
import os
from pathlib import Path

import numpy as np

from .._files import named, write

MEASURES = (
    "objective",
    "gap_linear",
    "gap_relu",
    "error_linear",
    "error_relu",
    "nc1",
    "trace_ratio",
    "a_b",
    "length_a",
    "length_b",
    "cos_a",
    "cos_b",
    "cos_ab",
    "accuracy_a",
    "accuracy_b",
    "seconds",
    "peak_mib",
)
# what tells results in one file apart
KEY = ("setting", "seed", "epochs", "batch_size", "lr", "pool", "test_images")
COLUMNS = (
    *KEY,
    "data",
    "network",
    "features",
    "recipe",
    "class_sizes",
    "lam_z",
    "lam_w",
    "lam_h",
    "lam_b",
    "weight_decay",
    "phase",
    "status",
    *MEASURES,
    "together",
    "hardware",
    "versions",
    "commit",
    "date",
    "logits",
    "bias",
)
HISTORY = (*KEY, "epoch", *MEASURES)


class Results:
    """The two CSV files of a plan, NAME.csv and NAME-history.csv, open to be written by one process
    at a time.

    A row is on the disk before `add` returns. A row that was cut by a kill is dropped when the
    files are opened, and so is the history of a setting without a result.
    """

    def __init__(self, plan):
        self.folder, self.plan = Path(plan.out), plan
        self.path, self.history_path = (
            self.folder / f"{plan.name}{part}.csv" for part in ("", "-history")
        )

    def __enter__(self):
        self.folder.mkdir(parents=True, exist_ok=True)
        self._lock_file = open(self.folder / f".{self.plan.name}.lock", "w")
        try:
            _lock(self._lock_file, self.path)
            self._tidy()
        except BaseException:
            self._lock_file.close()
            raise
        return self

    def _tidy(self):
        rows = read(self.path, COLUMNS)
        keys = {key_of(row) for row in rows}
        history = [row for row in read(self.history_path, HISTORY) if key_of(row) in keys]
        _replace(self.path, COLUMNS, rows), _replace(self.history_path, HISTORY, history)

    def __exit__(self, *_):
        # and let go of; the file stays, as another process may be about to lock it
        self._lock_file.close()

    def finished(self):
        """Keys of all results in the file: they need no training any more."""
        return {key_of(row) for row in read(self.path, COLUMNS)}

    def add(self, results, history):
        """Append a task's rows, the history first: a result is there only once its history is."""
        new = {key_of(row) for row in results} - self.finished()
        for path, columns, rows in (
            (self.history_path, HISTORY, history),
            (self.path, COLUMNS, results),
        ):
            text = "".join(_line(columns, row) for row in rows if key_of(row) in new)
            try:
                with open(path, "a", newline="", encoding="utf-8") as file:
                    file.write(text)  # all of a task at once
                    file.flush()
                    os.fsync(file.fileno())
            except OSError as error:
                raise named(error, path) from None


def _lock(file, path):
    """Keep other processes out until `file` is closed; RuntimeError, naming `path`, where one is
    in.
    """
    try:
        import fcntl
    except ImportError:  # Windows: nothing keeps a second process out
        return
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise RuntimeError(
            f"{path} is being written by another process: wait for it, or choose another folder"
        ) from None


def key_of(row):
    """What tells a row of results or history apart."""
    return tuple(row[name] for name in KEY)


def as_text(row, columns):
    """A row as it is written: NaN and what is missing are empty, numbers have six digits."""

    def text(value):
        if isinstance(value, (float, np.floating)):
            return "" if math.isnan(value) else f"{value:.6g}"
        return "" if value is None else str(value)

    return {name: text(row.get(name)) for name in columns}


def _line(columns, row):
    text = io.StringIO()
    csv.DictWriter(text, columns, lineterminator="\n").writerow(row)
    return text.getvalue()


def read(path, columns=None):
    """Rows of a results file as dicts of strings; none where there is no file. A last row without
    its end is left out.
    """
    if not Path(path).exists():
        return []
    # A cut may be in the middle of a character.
    text = Path(path).read_text(encoding="utf-8", errors="replace")
    rows = csv.DictReader(io.StringIO(text[: text.rfind("\n") + 1]))
    if columns is not None and rows.fieldnames is not None and tuple(rows.fieldnames) != columns:
        raise ValueError(
            f"{path} has other columns than this version writes: move it away, "
            "or choose another folder"
        )
    return list(rows)


def belongs(plan, row):
    """Whether a row of a results file is one of the plan's settings, trained as the plan has it,
    with whatever seed.
    """
    key = {name: row[name] for name in KEY}
    return any(plan.key(value, row["seed"]) == key for value in plan.values)


def results_of(plan, history=False):
    """Rows of a plan's results, all its seeds, that did not diverge; or of their history."""
    folder = Path(plan.out)
    rows = [
        row
        for row in read(folder / f"{plan.name}.csv")
        if row["status"] == "done" and belongs(plan, row)
    ]
    if not history:
        return rows
    keys = {key_of(row) for row in rows}
    return [row for row in read(folder / f"{plan.name}-history.csv") if key_of(row) in keys]


def _replace(path, columns, rows):
    lines = [_line(columns, row) for row in [dict(zip(columns, columns)), *rows]]
    write(path, "".join(lines).encode())
