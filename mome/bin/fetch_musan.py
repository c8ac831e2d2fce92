"""Fetch the MUSAN corpus (D. Snyder et al., arXiv 1510.08484; OpenSLR 17): music, speech and noise.

Downloads musan.tar.gz (11 GB), checks it, unpacks it to <downloads>/musan (12 GB) and deletes the
archive. The same command goes on where it was interrupted, and does nothing once it is done.
An archive that was brought along as <downloads>/musan.tar.gz is used in place of a download.

Licence: Creative Commons Attribution 4.0 for the corpus; single recordings name their own.
"""

import os
from collections.abc import Sequence
from pathlib import Path

from mome.common.command import in_one_line, parser_for
from mome.common.download import download, unpack_tar
from mome.data.noise import MUSAN_FOLDERS

PATH = "resources/17/musan.tar.gz"
MIRRORS = (
    "https://www.openslr.org",
    "https://openslr.trmal.net",
    "https://openslr.elda.org",
    "https://openslr.magicdatatech.com",
)
# OpenSLR publishes the archive's MD5, 0c472d4fc0c5141eca47ad1ffeb2a7df. Size and SHA-256 are those
# that several independent projects record for the file of that MD5.
SIZE = 11086114085
SHA256 = "86d1061c7e15b5c9e906777685c519701df51bfde3001e1070dcc9ffac955ee1"


def fetch_musan(
    downloads: Path, urls: Sequence[str], sha256: str = SHA256, size: int = SIZE
) -> Path:
    """Download and unpack MUSAN unless done before; returns its folder.

    Raises:
        ValueError, RuntimeError: as `mome.common.download`; or for an archive without MUSAN's
            folders.
    """
    folder, mark = downloads / "musan", downloads / ".musan.done"
    if mark.exists() and folder.is_dir():
        return folder
    archive = download(urls, downloads / "musan.tar.gz", sha256, size)
    unpack_tar(archive, "musan", folder)
    if missing := [name for name in MUSAN_FOLDERS if not (folder / name).is_dir()]:
        raise ValueError(f"{archive} has no folder {', '.join(missing)}")
    mark.touch()
    archive.unlink()
    return folder


@in_one_line("mome-fetch-musan", RuntimeError)
def main(argv: list[str] | None = None) -> None:
    """Fetch it."""
    default = os.environ.get("MOME_DOWNLOADS", "downloads")
    parser = parser_for(__doc__)
    parser.add_argument(
        "--downloads",
        type=Path,
        default=Path(default),
        help="folder in which it becomes musan/; default: $MOME_DOWNLOADS or downloads",
    )
    parser.add_argument(
        "--mirror",
        nargs="+",
        default=[f"{mirror}/{PATH}" for mirror in MIRRORS],
        metavar="URL",
        help="of musan.tar.gz, tried in turn; default: OpenSLR and its mirrors",
    )
    args = parser.parse_args(argv)
    folder = fetch_musan(args.downloads, args.mirror)
    print(f"{folder}: MUSAN is there")


if __name__ == "__main__":
    main()
