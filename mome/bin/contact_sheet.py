"""Write a picture of mouth crops, so that one look tells whether cropping worked.

One row an utterance, frames at equal steps in time from left to right.
"""

import argparse
from pathlib import Path

import cv2
import numpy as np

from mome.data.kaldi import read_scp
from mome.data.video import read_video


def contact_sheet(clips: list[np.ndarray], columns: int) -> np.ndarray:
    """Tile clips, uint8 (T, H, W) of one size each, to (len(clips) * H, columns * W)."""
    rows = []
    for frames in clips:
        chosen = np.linspace(0, len(frames) - 1, columns).round().astype(int)
        rows.append(np.concatenate(list(frames[chosen]), axis=1))
    return np.concatenate(rows)


def main(argv: list[str] | None = None) -> None:
    """Draw utterances at random and write the sheet."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True, help="folder with lip.scp")
    parser.add_argument("--output", type=Path, required=True, help="picture, e.g. crops.png")
    parser.add_argument("--rows", type=int, default=10, help="utterances")
    parser.add_argument("--columns", type=int, default=12, help="frames of each")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args(argv)
    paths = read_scp(args.data / "lip.scp")
    rng = np.random.default_rng(args.seed)
    chosen = sorted(rng.choice(list(paths), min(args.rows, len(paths)), replace=False))
    sheet = contact_sheet([read_video(paths[u], grey=True) for u in chosen], args.columns)
    args.output.parent.mkdir(parents=True, exist_ok=True)
    if not cv2.imwrite(str(args.output), sheet):
        raise SystemExit(f"{args.output} could not be written")
    print(f"{args.output}: " + " ".join(chosen))


if __name__ == "__main__":
    main()
