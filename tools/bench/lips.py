"""What lip preparation costs: clips a second of the command, and where the time of a clip goes."""

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path
from unittest import mock

from timing import clocks, machine

from mome.bin import prepare_media
from mome.data.kaldi import read_scp, write_scp
from mome.lips import extract, landmarks, mediapipe, preparation

PARTS = {
    "decode video": [(preparation, "read_frames")],
    "detect": [(landmarks.FaceTracker, "detect"), (mediapipe.MediaPipeTracker, "detect")],
    "landmarks": [(landmarks.FaceTracker, "__call__")],
    "warp": [(extract, "crop_mouth")],
    "encode": [(preparation, "write_lips")],
    "audio": [(preparation, "read_audio"), (preparation, "write_flac")],
    "other": [(preparation, "prepare_recording")],
}


def in_this_process(function, items, *_, **__):
    """Stands for the processes of the command, whose clocks nobody could read."""
    return [function(item) for item in items]


def first_clips(data: Path, output: Path, count: int) -> None:
    """A data folder of the first utterances of another."""
    for path in data.iterdir():
        if path.name in ("video.scp", "wav.scp", "text", "utt2spk"):
            write_scp(output / path.name, dict(list(read_scp(path).items())[:count]))


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder with video.scp, not cut")
    parser.add_argument("--landmarks", required=True, help="as of mome.bin.prepare_media")
    parser.add_argument(
        "--clips",
        type=int,
        default=100,
        help="of the folder, from its first on; default: %(default)s",
    )
    parser.add_argument("--nj", type=int, default=2, help="processes of the whole command")
    parser.add_argument(
        "--repetitions", type=int, default=3, help="runs of the command; default: %(default)s"
    )
    parser.add_argument("options", nargs="*", help="after --: options of mome.bin.prepare_media")
    args = parser.parse_args()
    parts, rates = defaultdict(list), []
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder, "data")
        first_clips(args.data, data, args.clips)
        command = ["--data", str(data), "--landmarks", args.landmarks, *args.options]

        for repetition in range(args.repetitions):
            started = time.perf_counter()
            subprocess.run(
                [sys.executable, "-m", "mome.bin.prepare_media", *command, "--nj", str(args.nj)]
                + ["--dump", str(Path(folder, f"whole{repetition}"))],
                check=True,
                capture_output=True,
            )
            rates.append(args.clips / (time.perf_counter() - started))
            here = mock.patch.object(prepare_media, "map_items", in_this_process)
            with here, clocks(PARTS) as spent:
                prepare_media.main([*command, "--dump", str(Path(folder, f"parts{repetition}"))])
            for part in PARTS:
                parts[part].append(spent[part] / args.clips)
        seconds = read_scp(Path(folder, "whole0", "utt2dur")).values()
    medians = {part: statistics.median(values) for part, values in parts.items()}
    length = statistics.mean(map(float, seconds))
    print(f"{args.clips} clips of {length:.2f} s; {machine()}")
    print(f"with its start, {args.nj} processes: {statistics.median(rates):.1f} clips/s\n")
    print("| part | median s a clip, one process | share % |\n| --- | ---: | ---: |")
    total = sum(medians.values())
    for part, value in {**medians, "all": total}.items():
        print(f"| {part} | {value:.4f} | {100 * value / total:.0f} |")


if __name__ == "__main__":
    main()
