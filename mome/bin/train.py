"""Train a model of the AVSR task with ESPnet's trainer; all options are ESPnet's (--help).

A configuration may name the one that it differs from (`base: train.yaml`). Data are named by
folder: `--train_data dump/train --valid_data dump/valid --tasks "avsr asr vsr"`. With `--dry_run
true` it is only checked, without data and weights: parameters, tokens and TFLOPs at each rate pair,
and the GPU memory that training will take.
"""

import traceback
from pathlib import Path

from mome.analysis.dry_run import report
from mome.common.extras import extra
from mome.tasks.config import parse

with extra("mome-train"):
    from mome.tasks.avsr import AVSRTask

PACKAGE = Path(__file__).resolve().parents[1]


def main(argv: list[str] | None = None) -> None:
    """Train, or report what would be trained."""
    args = parse(argv)
    try:
        if args.dry_run:
            print(report(args))
        else:
            AVSRTask.main(args=args)
    except (ValueError, OSError) as error:
        if not explains_itself(error):
            raise
        raise SystemExit(f"mome-train: error: {error}") from None


def explains_itself(error: BaseException) -> bool:
    """Whether this package has raised an error, whose message then says what to do.

    One that a library or a module of the user's raises needs its traceback. So does one of a
    function in C, such as NumPy's, which has no frame of its own: the last one is that of its
    caller, where no ``raise`` stands.
    """
    last = traceback.extract_tb(error.__traceback__)[-1]
    raised = (last.line or "").startswith("raise ")
    return raised and Path(last.filename).resolve().is_relative_to(PACKAGE)


if __name__ == "__main__":
    main()
