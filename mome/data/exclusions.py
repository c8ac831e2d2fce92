"""What a stage leaves out of a set, and why: a list beside the set, and a limit."""

from collections.abc import Collection
from pathlib import Path

from mome.data.kaldi import write_text

FILE = "excluded"
# The list of stage 1, which stage 2 hands on beside its own.
OF_STAGE_1 = "excluded_stage1"


def write_excluded(folder: Path, excluded: Collection[tuple[str, str]]) -> None:
    """List utterances or files, each with its reason, in ``<folder>/excluded``."""
    lines = sorted(f"{name} {why}\n" for name, why in excluded)
    write_text(folder / FILE, "".join(lines))


def count_excluded(path: Path) -> int | None:
    """How many a list names; None if there is none."""
    return len(path.read_text(encoding="utf-8").splitlines()) if path.is_file() else None


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
    if not kept or excluded > limit * total:
        raise SystemExit(
            f"{folder}: {excluded} of {total} utterances are excluded, more than {option} {limit:g}"
            f" allows; see {folder / FILE}, mend what can be, and allow the rest by"
            f" {option} <share> ({of_recipe})"
        )
