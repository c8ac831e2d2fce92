"""The options with which a recipe calls avsr.sh, found without running it."""

import subprocess
from pathlib import Path

EGS = Path(__file__).parents[1] / "egs"


def recipe_options(recipe: str, *options: str) -> dict[str, str]:
    """What ``egs/<recipe>/run.sh`` gives avsr.sh; of two options of a name the last one counts."""
    # The script ends with `exec avsr.sh ...`, in the place of which the words are printed.
    script = 'exec() { printf "%s\\0" "$@"; }; . "$0"'
    command = ["bash", "-c", script, str(EGS / recipe / "run.sh"), "--dry_run", "true", *options]
    printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    _, *words = printed.removesuffix("\0").split("\0")
    names = [word.removeprefix("--") for word in words[::2]]
    return dict(zip(names, words[1::2], strict=True))
