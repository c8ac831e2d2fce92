"""Writing and reading mouth crops: x264's options, in time, size and loss.

  python tools/bench/crops.py --data egs/mini_av/dump/test

Every variant writes and reads the crops of a data folder, in turns; times are the processor's.
"""

import argparse
import statistics
import tempfile
import time
from pathlib import Path
from unittest import mock

import numpy as np
from timing import machine

from mome.data import video
from mome.data.kaldi import read_scp

VARIANTS = {
    "as written": {},
    "arithmetic coding, deblocking": {"tune": ""},
    "superfast": {"preset": "superfast"},
    "ultrafast": {"preset": "ultrafast"},
}


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder with lip.scp")
    parser.add_argument(
        "--clips",
        type=int,
        default=40,
        help="of the folder, from its first on; default: %(default)s",
    )
    parser.add_argument(
        "--repetitions", type=int, default=3, help="rounds of all variants; default: %(default)s"
    )
    args = parser.parse_args()
    paths = list(read_scp(args.data / "lip.scp").values())[: args.clips]
    clips = [video.read_lips(path) for path in paths]
    measured: dict[str, list[tuple[float, float, int, float]]] = {name: [] for name in VARIANTS}
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "crop.mp4")
        for _ in range(args.repetitions):
            for name, options in VARIANTS.items():
                for clip in clips:
                    with mock.patch.dict(video.X264, options):
                        started = time.process_time()
                        video.write_lips(file, clip)
                    written = time.process_time()
                    read = video.read_lips(file)
                    done = time.process_time()
                    loss = float(np.abs(read.astype(int) - clip).mean())
                    size = file.stat().st_size
                    measured[name].append((written - started, done - written, size, loss))
    frames = statistics.mean(map(len, clips))
    print(f"{machine()}; {len(clips)} clips of {frames:.0f} frames")
    print("| variant | ms to write | ms to read | kB | grey levels lost |")
    print("| --- | ---: | ---: | ---: | ---: |")
    for name, rows in measured.items():
        write, read, size, loss = (statistics.mean(column) for column in zip(*rows, strict=True))
        print(f"| {name} | {1e3 * write:.1f} | {1e3 * read:.1f} | {size / 1e3:.1f} | {loss:.2f} |")


if __name__ == "__main__":
    main()
