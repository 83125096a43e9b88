"""Files that are written whole or not at all, whatever interrupts it."""

import contextlib
import glob
import os
import shutil
import threading
import time
from pathlib import Path

HOUR = 3600.0  # in seconds


def write(path, content):
    """Give the file `path` the new `content`, bytes: it takes its name once it is on the disk.

    Where that fails the former file is as it was, nothing is left beside it, and the OSError names
    `path`.
    """
    path = Path(path)
    # another may write the same
    part = path.with_name(f"{path.name}.{os.getpid()}-{threading.get_ident()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        remove_leftovers(path.parent, f"{glob.escape(path.name)}.*.part")
        with open(part, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, path)
    except BaseException as error:
        with contextlib.suppress(OSError):  # the first error counts
            part.unlink()
        raise named(error, path) from None


def named(error, path):
    """An OSError that says which file it is about, where Python knows only the reason; other errors
    as they are.
    """
    if isinstance(error, OSError) and error.errno is not None:
        return OSError(error.errno, error.strerror, str(path))
    return error


def remove_leftovers(folder, pattern):
    """Remove matching files and folders in which nothing was written for an hour: whoever wrote
    them was killed.
    """
    for left in Path(folder).glob(pattern):
        with contextlib.suppress(OSError):  # another process may remove the same
            written = max(path.stat().st_mtime for path in [left, *left.glob("*")])
            if time.time() - written > HOUR:
                shutil.rmtree(left) if left.is_dir() else left.unlink()
