"""Convert an AV-HuBERT checkpoint of fairseq to safetensors; fairseq is not needed.

Pretrained and fine-tuned checkpoints, Base and Large, from
https://facebookresearch.github.io/av_hubert. Nothing that the file pickles is executed. The output
folder is what `video_encoder_conf: {weights: <folder>}` takes.
"""

import argparse
import json
from pathlib import Path

from mome.common.extras import demand_installed
from mome.encoders.avhubert_conversion import convert


def main(argv: list[str] | None = None) -> None:
    """Convert and print what was kept, left out and assumed."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--checkpoint", type=Path, required=True, help="e.g. large_vox_iter5.pt")
    parser.add_argument("--output", type=Path, required=True, help="e.g. downloads/avhubert-large")
    args = parser.parse_args(argv)
    demand_installed("mome-convert-avhubert", "espnet2")
    try:
        print(json.dumps(convert(args.checkpoint, args.output), indent=2))
    except (OSError, ValueError) as error:
        raise SystemExit(f"mome-convert-avhubert: {error}") from None


if __name__ == "__main__":
    main()
