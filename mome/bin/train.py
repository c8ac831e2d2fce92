"""Train a model of the AVSR task with ESPnet's trainer; all options are ESPnet's (--help).

A configuration may name the one that it differs from (`base: train.yaml`). Data are named by
folder: `--train_data dump/train --valid_data dump/valid --tasks "avsr asr vsr"`. With `--dry_run
true` it is only checked, without data and weights: parameters, tokens and TFLOPs at each rate pair,
and the GPU memory that training will take.
"""

from torch.multiprocessing import ProcessExitedException

from mome.analysis.dry_run import report
from mome.common.command import in_one_line
from mome.common.extras import extra
from mome.tasks.config import parse

with extra("mome-train"):
    from mome.tasks.avsr import AVSRTask


@in_one_line("mome-train")
def main(argv: list[str] | None = None) -> None:
    """Train, or report what would be trained."""
    args = parse(argv)
    try:
        if args.dry_run:
            print(report(args))
        else:
            AVSRTask.main(args=args)
    except ProcessExitedException as error:
        # Of a GPU's process PyTorch knows no more than that; it has said itself what failed.
        raise SystemExit(
            f"mome-train: error: {error}; what it said stands above, and in the log in"
            f" {args.output_dir}"
        ) from None


if __name__ == "__main__":
    main()
