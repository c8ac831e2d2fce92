"""What a stage leaves out of a set, and why: a list beside the set, and a limit."""

import re
from collections import Counter
from collections.abc import Collection
from pathlib import Path

from mome.data.kaldi import without_blanks, write_text

FILE = "excluded"
# The list of stage 1, which stage 2 hands on beside its own.
OF_STAGE_1 = "excluded_stage1"
# How many clips a corpus has in its test set, a number; stage 2 hands it on, too.
OFFICIAL_SIZE = "official_size"
# What stands for a detector in the list `detectors` where none has found a face.
WHOLE_PICTURE = "whole_picture"


def write_excluded(folder: Path, excluded: Collection[tuple[str, str]]) -> None:
    """List utterances or files, each with its reason, in ``<folder>/excluded``.

    A name ends at its first blank there; blanks within are written as ``_``. Of names of files,
    line breaks are blanks, and bytes that are no UTF-8 are written as numbers.
    """
    lines = sorted(
        f"{without_blanks(name)} {' '.join(why.splitlines())}\n" for name, why in excluded
    )
    text = "".join(lines).encode(errors="backslashreplace").decode()
    write_text(folder / FILE, text)


def print_reasons(excluded: Collection[tuple[str, str]]) -> None:
    """Print how many are left out for each kind of reason, the most frequent first."""
    for kind, count in Counter(kind_of(why) for _, why in excluded).most_common():
        print(f"  excluded {count}: {kind}")


def kind_of(reason: str) -> str:
    """A reason without the file that it is about, what stands in brackets, and numbers.

    Never nothing: of what has no words beside these, all is kept, or said that there is none.
    """
    if reason.endswith(" does not exist"):
        return "does not exist"
    file, _, why = reason.partition(": ")
    reason = why if why.strip() and re.search("[./]", file) else reason
    reason = re.sub(r" \([^()]*\)", "", reason).strip() or reason.strip() or "no reason is given"
    return re.sub(r"(?<!mp)\d+(\.\d+)?", "N", reason)  # mp4 is no number


def count_excluded(path: Path) -> int | None:
    """How many a list names; None if there is none."""
    return path.read_bytes().count(b"\n") if path.is_file() else None


def check_excluded(
    folder: Path, excluded: int, kept: int, limit: float, option: str, of_recipe: str
) -> None:
    """See that no more than a share ``limit`` of a set is left out, and not all of it.

    Args:
        folder: of the set and its list.
        excluded: how many are left out.
        kept: how many are not.
        limit: largest share.
        option: that sets the limit.
        of_recipe: how it is given to a recipe.

    Raises:
        SystemExit: with the list and the remedy.
    """
    total = kept + excluded
    if not total:
        raise SystemExit(f"{folder}: no utterance is left; see {folder / FILE}")
    if not kept or excluded > limit * total:
        raise SystemExit(
            f"{folder}: {excluded} of {total} utterances are excluded, more than {option} {limit:g}"
            f" allows; see {folder / FILE}, fix what can be, and allow the rest by"
            f" {option} <share> ({of_recipe})"
        )


def leave_out(
    folder: Path,
    excluded: Collection[tuple[str, str]],
    kept: int,
    limit: float,
    test: bool = False,
    hours: float | None = None,
) -> None:
    """List what stage 1 leaves out of a set, say how much it is and why, and hold it to a limit.

    Args:
        folder: of the set.
        excluded: utterances or files, each with its reason.
        kept: how many are not left out.
        limit: largest share, as of the option ``--test_max_excluded`` of a test set, or
            ``--max_excluded`` of another one.
        test: whether it is a test set.
        hours: of the utterances, if they are known.

    Raises:
        SystemExit: as of :func:`check_excluded`.
    """
    write_excluded(folder, excluded)
    length = "" if hours is None else f" {hours:.2f} h,"
    print(f"{folder}: {kept} utterances,{length} {len(excluded)} excluded")
    print_reasons(excluded)
    option = "--test_max_excluded" if test else "--max_excluded"
    of_recipe = f'of a recipe: --prepare_opts "{option} <share>"'
    check_excluded(folder, len(excluded), kept, limit, option, of_recipe)
