"""Download large files over HTTP, resume interrupted downloads, and unpack archives."""

import hashlib
import os
import shutil
import tarfile
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from http.client import HTTPException
from pathlib import Path

from tqdm import tqdm

BLOCK = 1 << 20


def check(path: Path, sha256: str) -> None:
    """Compare a file with its SHA-256, or with ``md5:<digest>`` where no other is published.

    Raises:
        ValueError: if they differ.
    """
    name, expected = ("MD5", sha256[4:]) if sha256.startswith("md5:") else ("SHA-256", sha256)
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, name.replace("-", "").lower()).hexdigest()
    if digest != expected:
        raise ValueError(
            f"{path}: {name} is {digest}, expected {expected}; delete it and try again"
        )


def download(
    urls: Sequence[str],
    path: Path,
    sha256: str,
    size: int,
    attempts: int = 5,
    pause: float = 5.0,
    timeout: float = 60.0,
) -> Path:
    """Download a file unless it exists; an incomplete one in ``<path>.part`` is resumed.

    Proxies are taken from the environment (``https_proxy``).

    Args:
        urls: addresses of the same file, in order of preference.
        path: where the file is saved.
        sha256: its checksum; see `check`.
        size: its bytes; a server that announces another size is rejected before the transfer.
        attempts: how often the list of addresses is tried.
        pause: seconds between two attempts.
        timeout: seconds without data after which the next server is tried.

    Raises:
        ValueError: for a wrong checksum; the file is deleted then.
        RuntimeError: if no server sent the whole file; the message says how many bytes arrived and
            what each server answered.
    """
    if path.exists():
        check(path, sha256)
        return path
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    problems: dict[str, str] = {}
    for attempt in range(attempts):
        if attempt:
            time.sleep(pause)
        for url in urls:
            try:
                _transfer(url, part, size, timeout)
            except (OSError, HTTPException, ValueError) as error:
                problems[url] = str(error) or type(error).__name__
                continue
            try:
                check(part, sha256)
            except ValueError as error:
                part.unlink()
                raise ValueError(f"from {url}: {error} (it is deleted already)") from error
            part.rename(path)
            return path
    have = part.stat().st_size if part.exists() else 0
    raise RuntimeError(
        f"{path.name}: {have} of {size} bytes are in {part}; run the same command again to go on,"
        f" or name another mirror. What the servers said:\n"
        + "\n".join(f"  {url}: {problem}" for url, problem in problems.items())
    )


def _transfer(url: str, part: Path, size: int, timeout: float) -> None:
    """Append the missing bytes to the incomplete file.

    Raises:
        OSError, HTTPException: for a server or connection that fails.
        ValueError: for a file of another size, or one that ends early.
    """
    have = part.stat().st_size if part.exists() else 0
    if have > size:
        part.unlink()
        have = 0
    if have == size:
        return
    request = urllib.request.Request(url, headers={"Range": f"bytes={have}-"} if have else {})
    with urllib.request.urlopen(request, timeout=timeout) as response:
        if response.status != 206:  # the server ignores ranges and sends the whole file
            have = 0
        length = response.headers["Content-Length"]
        if length is not None and have + int(length) != size:
            raise ValueError(f"offers {have + int(length)} bytes in place of {size}")
        with (
            part.open("ab" if have else "wb") as file,
            tqdm(
                desc=part.stem, total=size, initial=have, unit="B", unit_scale=True, mininterval=1
            ) as bar,
        ):
            while block := response.read(BLOCK):
                file.write(block)
                bar.update(len(block))
                have += len(block)
                if have > size:
                    break
    if have != size:
        raise ValueError(f"the transfer ended at {have} of {size} bytes")


def unpack_tar(archive: Path, member: str, folder: Path) -> None:
    """Unpack one top folder of a tar archive, completely or not at all.

    Args:
        archive: the archive, compressed or not.
        member: the top folder inside.
        folder: where it is unpacked; replaced if it exists.

    Raises:
        ValueError: for an archive that is damaged, has no such folder, or has a member whose path
            lies outside the folder (Python's ``data`` filter).
    """
    temporary = folder.with_name(f".{folder.name}.{os.getpid()}.tmp")
    try:
        with tarfile.open(archive) as file:
            file.extractall(temporary, filter="data")
        if not (temporary / member).is_dir():
            raise ValueError(f"{archive} does not contain the folder {member}")
        shutil.rmtree(folder, ignore_errors=True)
        (temporary / member).rename(folder)
    except (tarfile.TarError, EOFError, OSError) as error:
        raise ValueError(f"{archive} could not be unpacked: {error}") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
