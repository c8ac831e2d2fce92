"""Marks of finished work: what it was made with, so that it is never taken for other work.

A mark is a JSON file beside the work, ``{"state": ..., "settings": {name: value}}``; the state is
``started``, ``made`` (all is written, and not found valid) or ``done``. Settings name everything
that decides the result: options, contents of configurations, and the fingerprints of the marks of
what it was made from. A rerun compares them with its own.
"""

import hashlib
import json
import logging
import os
import re
import tokenize
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path

from mome.common.atomic_files import write_bytes

Settings = Mapping[str, object]
STATES = ("started", "made", "done")
# What the name of a setting begins with that says which raw files were there.
SOURCE = "source "
# Tokens of which it counts that they are there, and not how they are written.
LAYOUT = (tokenize.INDENT, tokenize.DEDENT, tokenize.NEWLINE)
# What names the digests of the user's own modules. Marks of before do not have it, and still hold.
MODULES = "modules"
# Options and configuration keys that do not change what is trained: how many processes and devices
# compute, what keeps within the memory, what is logged, and where outputs and frozen tools are. Of
# num_workers depends what is drawn at random, such as noise, as it does of the number of devices.
# Marks of before name some of them, which are left out there, too.
NEUTRAL = frozenset(
    "nj parallel ngpu num_nodes device resume force multiprocessing_distributed unused_parameters"
    " gradient_checkpointing fused valid_batch_size valid_batch_bins num_workers"
    " log_interval log_level num_att_plot use_tensorboard use_matplotlib use_wandb push_to"
    " out dump output output_dir landmarks other_landmarks max_excluded test_max_excluded".split()
)


class OtherSettings(ValueError):
    """Work is there that was made with other settings than those asked for."""


def read_mark(path: str | Path) -> dict | None:
    """A mark's content; None if there is none, or with a warning, if it cannot be read."""
    path = Path(path)
    try:
        mark = json.loads(path.read_text(encoding="utf-8"))
        if mark["state"] in STATES and isinstance(mark["settings"], dict):
            return mark
    except FileNotFoundError:
        return None
    except (ValueError, TypeError, KeyError, OSError):
        pass
    logging.warning("%s cannot be read as a mark: it counts as not done", path)
    return None


def write_mark(path: str | Path, settings: Settings, state: str = "done") -> None:
    """Write a mark; a reader sees the old or the new one, never half of it."""
    mark = {"state": state, "settings": settings}
    write_bytes(path, (json.dumps(mark, indent=1, sort_keys=True) + "\n").encode())


def fingerprint(path: str | Path) -> str:
    """What stands for an input in the settings of the work that is made from it.

    That is the digest of a mark's settings, of a program's code, or of the content of another file;
    of a folder, what :func:`listing` says; ``absent`` of what is not there. Raw files are no part
    of a mark's digest: what is made from the work depends on what came of them, which it compares
    itself.
    """
    path = Path(path)
    if path.is_dir():
        return listing(path)
    if not path.is_file():
        return "absent"
    if path.suffix == ".py":
        return code_digest(path)
    mark = read_mark(path) if path.name.endswith(".done") else None
    if mark is None:
        return file_digest(path)
    return digest_of({k: v for k, v in mark["settings"].items() if not k.startswith(SOURCE)})


def digest_of(values: Mapping[str, object]) -> str:
    """SHA-256 of names and plain values in whatever order, in hexadecimal digits."""
    text = json.dumps(values, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def stamp_of(path: str | Path) -> str:
    """A file with its size in bytes and the time of its last change in nanoseconds."""
    try:
        found = Path(path).stat()
    except OSError:
        return f"{path} absent"
    return f"{path} {found.st_size} {found.st_mtime_ns}"


def listing(folder: Path) -> str:
    """How many files are below a folder, of how many bytes, and a digest of names and sizes.

    Contents are not read, so that it is cheap for hundreds of thousands of files.
    """
    digest, count, total = hashlib.sha256(), 0, 0
    for name, size in _files_below(folder):
        digest.update(f"{name}\0{size}\0".encode(errors="surrogateescape"))
        count, total = count + 1, total + size
    return f"{count} files of {total} bytes, {digest.hexdigest()[:12]}"


def _files_below(folder: Path) -> Iterator[tuple[str, int]]:
    """Name and size of each file below a folder, in order, without hidden files and folders.

    Links are followed; of folders that are reached in several ways, the first one counts.
    """
    seen: set[tuple[int, int]] = set()
    for path, folders, files in os.walk(folder, followlinks=True):
        found = os.stat(path)
        if (found.st_dev, found.st_ino) in seen:
            folders.clear()
            continue
        seen.add((found.st_dev, found.st_ino))
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(name for name in files if not name.startswith(".")):
            file = os.path.join(path, name)
            with suppress(OSError):  # a link may lead nowhere, or to itself
                yield os.path.relpath(file, folder), os.stat(file).st_size


def file_digest(path: str | Path) -> str:
    """SHA-256 of a file's content, in hexadecimal digits."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def code_digest(path: str | Path) -> str:
    """SHA-256 of what a Python file says to Python: comments and blank lines do not count.

    Of a file that is no Python, its content's.
    """
    digest = hashlib.sha256()
    try:
        with tokenize.open(path) as file:
            for token in tokenize.generate_tokens(file.readline):
                if token.type not in (tokenize.COMMENT, tokenize.NL):
                    text = "" if token.type in LAYOUT else token.string
                    digest.update(f"{tokenize.tok_name[token.type]}\0{text}\0".encode())
    except (tokenize.TokenError, SyntaxError, UnicodeError):
        return file_digest(path)
    return digest.hexdigest()


def is_neutral(name: str) -> bool:
    """Whether a setting changes no result: ``--nj``, ``configuration decoder_conf.nj`` and such."""
    said = re.fullmatch(r"(?:--|configuration )(.+)", name)
    return said is not None and not NEUTRAL.isdisjoint(re.split(r"[ .]", said[1]))


def differences(old: Settings, new: Settings) -> list[str]:
    """What differs between two settings, a line for each name; empty if they are the same.

    What changes no result is left out, and so are modules if only one of the two says what they
    were: the other was written by an earlier version, or imports none, which other names say.
    """
    # As a mark would give them back: tuples are lists, and keys are words.
    old, new = (json.loads(json.dumps(settings)) for settings in (old, new))
    lines = []
    for name in sorted(old.keys() | new.keys()):
        if is_neutral(name) or (name == MODULES and (name in old) != (name in new)):
            continue
        if old.get(name) != new.get(name) or (name in old) != (name in new):
            was, now = (_shown(settings, name) for settings in (old, new))
            lines.append(f"{name}: was {was}, is {now}")
    return lines


def _shown(settings: Settings, name: str) -> str:
    if name not in settings:
        return "not given"
    value = settings[name]
    text = value if isinstance(value, str) else json.dumps(value)
    if len(text) == 64 and not text.strip("0123456789abcdef"):
        return text[:12]  # of a digest, enough to tell it from another
    return text or "empty"


def demand_same(what: object, old: Settings, new: Settings, elsewhere: str) -> None:
    """Compare the settings of existing work with those asked for.

    Args:
        what: the work, as the error names it.
        old: settings that it was made with.
        new: settings asked for.
        elsewhere: options that put new work beside it, such as ``--expdir or --tag``.

    Raises:
        OtherSettings: if they differ; says what differs and how to go on.
    """
    if lines := differences(old, new):
        shown = "".join(f"\n  {line}" for line in lines)
        raise OtherSettings(
            f"{what} was made with other settings:{shown}\n"
            f"Keep it and give another {elsewhere}, or redo it with --force true."
        )


def is_done(
    path: str | Path,
    settings: Settings,
    elsewhere: str,
    force: bool = False,
    checkpoint: str | Path | None = None,
) -> bool:
    """Whether work is finished that was made with these settings.

    Args:
        path: its mark.
        settings: those asked for.
        elsewhere: options that put new work beside it.
        force: nothing counts as done. The checkpoint of finished work is deleted, that of
            unfinished work is kept under another name, which a warning says.
        checkpoint: file that unfinished work goes on from; while it exists, work that was only
            started with other settings may not go on either.

    Raises:
        OtherSettings: if the work, or the checkpoint, is of other settings, unless forced.
    """
    mark = read_mark(path)
    finished = mark is not None and mark["state"] == "done"
    begun = checkpoint is not None and Path(checkpoint).exists()
    if force:
        if checkpoint is not None and begun:
            put_away(Path(checkpoint), path, finished)
        return False
    if mark is None:
        return False
    try:
        demand_same(path, mark["settings"], settings, elsewhere)
    except OtherSettings:
        if finished or begun:
            raise
        return False
    return finished


def is_made(path: str | Path, settings: Settings) -> bool:
    """Whether work was made with these settings, and only found not valid."""
    mark = read_mark(path)
    if mark is None or mark["state"] != "made":
        return False
    return not differences(mark["settings"], settings)


def put_away(checkpoint: Path, mark: str | Path, finished: bool) -> None:
    """Let work begin anew: delete the checkpoint of finished work, rename that of unfinished."""
    if finished:
        checkpoint.unlink()
        return
    kept = checkpoint.with_name(f"{checkpoint.name}.unfinished")
    checkpoint.replace(kept)
    logging.warning(
        "%s: the work was not finished and begins anew, as --force true asks. Its checkpoint is"
        " kept as %s; to go on from that after all, delete %s, rename it to %s and leave out"
        " --force true",
        *(mark, kept, mark, checkpoint.name),
    )
