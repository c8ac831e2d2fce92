"""Write files and folders atomically.

They are written to a temporary name and renamed when they are complete. If the process is killed or
the disk is full, nothing incomplete has the final name.
"""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def write_bytes(path: str | Path, data: bytes) -> None:
    """Write to a temporary name in the same folder, then rename it.

    Raises:
        OSError: if the file cannot be written completely, for example because the disk is full; the
            message names the file.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        partial.write_bytes(data)
        partial.replace(path)
    except OSError as error:
        partial.unlink(missing_ok=True)
        reason = f"{error.strerror}; nothing is half-written: fix it and run the same command again"
        raise OSError(error.errno, reason, str(path)) from error


@contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """A temporary name for a file or folder, which takes the place of ``path`` after the context.

    What an error leaves there is deleted, and so is what a killed process has left: one process at
    a time may write a path.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.tmp")
    old = path.with_name(f".{path.name}.old.tmp")
    _delete(partial)
    _delete(old)
    try:
        yield partial
        if path.is_dir():  # which nothing can replace
            path.rename(old)
        partial.replace(path)
    finally:
        _delete(partial)
        _delete(old)


def _delete(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def remove_partial(folder: str | Path) -> None:
    """Delete the temporary files that a killed process left below a folder."""
    for path in Path(folder).rglob(".*.tmp"):
        path.unlink(missing_ok=True)
