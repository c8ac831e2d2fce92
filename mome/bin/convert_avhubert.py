"""Convert an AV-HuBERT checkpoint of fairseq to safetensors; fairseq is not needed.

Pretrained and fine-tuned checkpoints, Base and Large, from
https://facebookresearch.github.io/av_hubert. Nothing that the file pickles is executed. The output
folder is what `video_encoder_conf: {weights: <folder>}` takes.
"""

import json
from pathlib import Path

from mome.common.command import in_one_line, parser_for
from mome.common.extras import demand_installed
from mome.encoders.avhubert_conversion import convert


@in_one_line("mome-convert-avhubert")
def main(argv: list[str] | None = None) -> None:
    """Convert and print what was kept, left out and assumed."""
    parser = parser_for(__doc__)
    parser.add_argument("--checkpoint", type=Path, required=True, help="e.g. large_vox_iter5.pt")
    parser.add_argument("--output", type=Path, required=True, help="e.g. downloads/avhubert-large")
    args = parser.parse_args(argv)
    demand_installed("mome-convert-avhubert", "espnet2")
    print(json.dumps(convert(args.checkpoint, args.output), indent=2))


if __name__ == "__main__":
    main()
