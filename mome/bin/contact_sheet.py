"""Write a picture of mouth crops, so that one look tells whether cropping worked.

One row an utterance under its id, frames at equal steps in time from left to right.
"""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from mome.common.command import in_one_line, parser_for
from mome.data.kaldi import read_scp
from mome.data.pictures import caption, filmstrip, write_png
from mome.data.video import read_video


def contact_sheet(clips: Mapping[str, np.ndarray], columns: int) -> np.ndarray:
    """Tile clips, uint8 (T, H, W) of one size each: (len(clips) * (16 + H), columns * W)."""
    rows = []
    for utterance, frames in clips.items():
        row = filmstrip(frames, columns)
        rows += [caption(utterance, row.shape[1]), row]
    return np.concatenate(rows)


@in_one_line("mome-contact-sheet")
def main(argv: list[str] | None = None) -> None:
    """Draw utterances at random and write the sheet."""
    parser = parser_for(__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder with lip.scp")
    parser.add_argument("--output", type=Path, required=True, help="e.g. lips.png")
    parser.add_argument("--rows", type=int, default=10, help="utterances")
    parser.add_argument("--columns", type=int, default=12, help="frames of each")
    parser.add_argument(
        "--seed", type=int, default=0, help="draws the utterances; default: %(default)s"
    )
    args = parser.parse_args(argv)
    paths = read_scp(args.data / "lip.scp")
    rng = np.random.default_rng(args.seed)
    chosen = sorted(rng.choice(list(paths), min(args.rows, len(paths)), replace=False))
    clips = {utterance: read_video(paths[utterance], grey=True) for utterance in chosen}
    write_png(args.output, contact_sheet(clips, args.columns))
    print(f"{args.output}: " + " ".join(chosen))


if __name__ == "__main__":
    main()
