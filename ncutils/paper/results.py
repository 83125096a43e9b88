"""Results that are kept as they come: two CSV files, whole after any kill."""

import csv
import io
import os
from pathlib import Path

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
KEY = (
    "setting",
    "seed",
    "epochs",
    "batch_size",
    "lr",
    "pool",
    "test_images",
)  # what tells results in one file apart
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
        self._lock = open(self.folder / f".{self.plan.name}.lock", "w")
        try:
            import fcntl
        except ImportError:  # Windows: nothing keeps a second process out
            pass
        else:
            try:
                fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                self._lock.close()
                if isinstance(error, BlockingIOError):
                    raise RuntimeError(
                        f"{self.path} is being written by another process: wait for it, or choose another folder"
                    ) from None
                raise
        try:
            self._tidy()
        except BaseException:
            self._lock.close()
            raise
        return self

    def _tidy(self):
        rows = read(self.path, COLUMNS)
        keys = {_key(row) for row in rows}
        history = [row for row in read(self.history_path, HISTORY) if _key(row) in keys]
        _replace(self.path, COLUMNS, rows), _replace(self.history_path, HISTORY, history)

    def __exit__(self, *_):
        # and let go of; the file stays, as another process may be about to lock it
        self._lock.close()

    def finished(self):
        """Keys of all results in the file: they need no training any more."""
        return {_key(row) for row in read(self.path, COLUMNS)}

    def add(self, results, history):
        """Append a task's rows, the history first: a result is there only once its history is."""
        new = {_key(row) for row in results} - self.finished()
        for path, columns, rows in (
            (self.history_path, HISTORY, history),
            (self.path, COLUMNS, results),
        ):
            try:
                with open(path, "a", newline="", encoding="utf-8") as file:
                    file.write(
                        "".join(_line(columns, row) for row in rows if _key(row) in new)
                    )  # all of a task at once
                    file.flush()
                    os.fsync(file.fileno())
            except OSError as error:
                raise named(error, path) from None


def _key(row):
    return tuple(row[name] for name in KEY)


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
    text = Path(path).read_text(
        encoding="utf-8", errors="replace"
    )  # a cut may be in the middle of a character
    rows = csv.DictReader(io.StringIO(text[: text.rfind("\n") + 1]))
    if columns is not None and rows.fieldnames is not None and tuple(rows.fieldnames) != columns:
        raise ValueError(
            f"{path} has other columns than this version writes: move it away, or choose another folder"
        )
    return list(rows)


def _replace(path, columns, rows):
    lines = [_line(columns, row) for row in [dict(zip(columns, columns)), *rows]]
    write(path, "".join(lines).encode())
