"""Write files atomically.

A file is written to a temporary name and renamed when it is complete. If the process is killed or
the disk is full, no incomplete file has the final name.
"""

import os
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
        reason = (
            f"{error.strerror}; nothing is half-written: mend it and run the same command again"
        )
        raise OSError(error.errno, reason, str(path)) from error


def remove_partial(folder: str | Path) -> None:
    """Delete the temporary files that a killed process left below a folder."""
    for path in Path(folder).rglob(".*.tmp"):
        path.unlink(missing_ok=True)
