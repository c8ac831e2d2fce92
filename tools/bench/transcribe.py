"""What transcribing a long recording costs: where the time goes, and the most memory.

Joins short clips of one kind, such as GRID's, to a recording of the length asked for, without
encoding them again, and transcribes it at each pair of rates in a process of its own:
alternately with the reading ahead, in a thread of its own, and one after the other.
"""

import argparse
import itertools
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from unittest import mock

import av
from timing import clocks, machine

from mome.transcribe import opening, transcriber
from mome.transcribe.ahead import Ahead
from mome.transcribe.clips import MouthCropper
from mome.transcribe.options import Options
from mome.transcribe.transcriber import Transcriber
from mome.transcribe.transcript import Transcript

# What is timed, by part. With the reading ahead, "decoding" and "faces and lips" run in a thread of
# their own beside the others, so that the parts may be more than the whole.
PARTS = {
    "sound and pauses": [
        (opening, "speech_levels"),
        (opening, "find_segments"),
        (opening, "video_seconds"),
    ],
    "decoding": [(opening, "read_pieces")],
    "faces and lips": [(MouthCropper, "mouth")],
    "encoders": [(Transcriber, "encode")],
    "LLM": [(Transcriber, "search")],
    "waiting for what is read": [(Ahead, "__call__")],
    "other": [(Transcriber, "__call__")],
}
VARIANTS = {"ahead": "reading ahead", "turns": "one after the other"}


def join(clips: list[Path], seconds: float, output: Path) -> None:
    """One recording of the clips, again and again, until it has the length: packets as they are."""
    with av.open(str(output), "w") as target:
        streams: dict[str, av.stream.Stream] = {}
        begin = 0.0
        for clip in itertools.cycle(clips):
            if begin >= seconds:
                return
            with av.open(str(clip)) as source:
                for kind in ("video", "audio"):
                    if kind not in streams:
                        streams[kind] = target.add_stream_from_template(
                            getattr(source.streams, kind)[0]
                        )
                first = None
                end = begin
                for packet in source.demux(video=0, audio=0):
                    if packet.dts is None or packet.pts is None:
                        continue
                    if first is None:
                        first = float(packet.pts * packet.time_base)
                    shift = round((begin - first) / packet.time_base)
                    packet.pts, packet.dts = packet.pts + shift, packet.dts + shift
                    length = (packet.duration or 0) * packet.time_base
                    end = max(end, float(packet.pts * packet.time_base + length))
                    packet.stream = streams[packet.stream.type]
                    target.mux(packet)
                begin = end


class Turns(Ahead):
    """Fetches no item before it is asked for, as if there were no thread."""

    def __call__[T](self, items: Iterator[T]) -> Iterator[T]:
        yield from items


def peak() -> float:
    """The most memory of this process so far, in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def content(transcript: Transcript) -> str:
    """All of a transcript, which the variants shall share."""
    return repr((transcript.segments, transcript.notes))


def measure(args: argparse.Namespace) -> dict[str, dict[str, list[float]]]:
    """Seconds of each part, of all, and the peak memory in MB, by variant and round."""
    read = Transcriber.load(args.model, downloads=[args.downloads] if args.downloads else [])
    options = Options(rates=args.rates[0], beam=args.beam)
    read(args.warm_up, options)
    loaded = peak()
    found: dict[str, dict[str, list[float]]] = {name: {} for name in args.variants}
    contents = set()
    for number in range(args.rounds):
        for name in args.variants[:: -1 if number % 2 else 1]:
            variant = mock.patch.object(transcriber, "Ahead", Turns if name == "turns" else Ahead)
            started = time.perf_counter()
            with variant, clocks(PARTS) as spent:
                transcript = read(args.recording, options)
            row = {part: spent[part] for part in PARTS}
            row |= {"all": time.perf_counter() - started, "seconds": transcript.segments[-1].end}
            row |= {"segments": len(transcript.segments), "loaded": loaded, "peak": peak()}
            for key, value in row.items():
                found[name].setdefault(key, []).append(value)
            contents.add(content(transcript))
    if len(contents) > 1:
        raise SystemExit(f"{args.recording}: transcripts differ, which they must not")
    return found


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clips", type=Path, help="folder of clips of one kind")
    parser.add_argument("--model", required=True, help="packed model")
    parser.add_argument("--downloads", type=Path, help="folder of frozen parts; default: as always")
    parser.add_argument("--seconds", type=float, default=600, help="length of the recording")
    parser.add_argument(
        "--rates",
        nargs="+",
        default=["a4_v2", "a16_v5"],
        help="pairs of rates, in a process each; default: a4_v2 a16_v5",
    )
    parser.add_argument(
        "--beam", type=int, default=1, help="hypotheses, 1 is greedy; default: %(default)s"
    )
    parser.add_argument(
        "--variants",
        nargs="+",
        choices=list(VARIANTS),
        default=list(VARIANTS),
        metavar="VARIANT",
        help="ahead, turns; default: both",
    )
    parser.add_argument("--rounds", type=int, default=1, help="of all variants, alternately")
    # Of the process of each pair of rates.
    parser.add_argument("--recording", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--warm_up", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.recording:
        print(json.dumps(measure(args)))
        return
    if args.clips is None:
        parser.error("--clips is needed")
    clips = sorted(path for path in args.clips.iterdir() if path.is_file())
    columns = {}
    with tempfile.TemporaryDirectory() as folder:
        recording = Path(folder, "joined.mkv")
        join(clips, args.seconds, recording)
        for rates in args.rates:
            command = [sys.executable, __file__, "--recording", str(recording), "--rates", rates]
            command += ["--warm_up", str(clips[0]), "--model", args.model]
            command += ["--beam", str(args.beam), "--rounds", str(args.rounds)]
            command += ["--variants", *args.variants]
            command += ["--downloads", str(args.downloads)] if args.downloads else []
            said = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout
            columns[rates] = json.loads(said.splitlines()[-1])
    print(f"{machine()}, {len(os.sched_getaffinity(0))} cores, {args.rounds} rounds, medians")
    for rates, found in columns.items():
        of_one = next(iter(found.values()))
        length, segments = of_one["seconds"][0], of_one["segments"][0]
        most = max(max(row["peak"]) for row in found.values())
        print(
            f"\n{rates}: {length:.0f} s in {segments} segments; memory at most {most:.0f} MB, "
            f"{of_one['loaded'][0]:.0f} MB when the model was loaded and had read a clip"
        )
        print(f"\n| seconds a second of the recording | {' | '.join(VARIANTS[n] for n in found)} |")
        print("| --- |" + " ---: |" * len(found))
        for part in [*PARTS, "all"]:
            values = [statistics.median(row[part]) / length for row in found.values()]
            print(f"| {part} | {' | '.join(f'{value:.4f}' for value in values)} |")
        if len(found) > 1:
            both = zip(found["ahead"]["all"], found["turns"]["all"], strict=True)
            gains = [ahead / turns for ahead, turns in both]
            print(
                f"\nreading ahead takes {statistics.median(gains):.2f} of the time "
                f"({min(gains):.2f} to {max(gains):.2f})"
            )


if __name__ == "__main__":
    main()
