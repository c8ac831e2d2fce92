"""Train a model of the AVSR task with ESPnet's trainer; all options are ESPnet's (--help).

A configuration may name the one that it differs from (`base: train.yaml`). Data are named by
folder: `--train_data dump/train --valid_data dump/valid --tasks "avsr asr vsr"`. With `--dry_run
true` it is only checked, without data and weights: parameters, tokens and TFLOPs at each rate pair,
and the GPU memory that training will take.
"""

from mome.analysis.dry_run import report
from mome.common.extras import extra
from mome.tasks.config import parse

with extra("mome-train"):
    from mome.tasks.avsr import AVSRTask


def main(argv: list[str] | None = None) -> None:
    """Train, or report what would be trained."""
    args = parse(argv)
    if args.dry_run:
        print(report(args))
    else:
        AVSRTask.main(args=args)


if __name__ == "__main__":
    main()
