"""What transcribing a long recording costs: where the time goes, and the most memory.

Joins short clips of one kind, such as GRID's, to a recording of the length asked for, without
encoding them again, and transcribes it at each pair of rates in a process of its own.
"""

import argparse
import itertools
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import av
from timing import clocks, machine

from mome.transcribe import transcriber
from mome.transcribe.options import Options
from mome.transcribe.transcriber import Transcriber

# What is timed, by part.
PARTS = {
    "find pauses": [(transcriber, "speech_levels"), (transcriber, "find_segments")],
    "decode": [(transcriber, "read_pieces")],
    "faces and lips": [(Transcriber, "mouth")],
    "encoders": [(Transcriber, "encode")],
    "LLM": [(Transcriber, "search")],
    "other": [(Transcriber, "__call__")],
}


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


def measure(args: argparse.Namespace) -> dict[str, float]:
    """Seconds of each part, of all, and the peak memory in MB, in this process."""
    read = Transcriber.load(args.model, downloads=[args.downloads] if args.downloads else [])
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    started = time.perf_counter()
    with clocks(PARTS) as spent:
        transcript = read(args.recording, Options(rates=args.rates[0], beam=args.beam))
    found = {part: spent[part] for part in PARTS}
    found["all"] = time.perf_counter() - started
    found["seconds"] = transcript.segments[-1].end
    found["segments"] = len(transcript.segments)
    found["loaded"] = before / 1024
    found["peak"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return found


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clips", type=Path, help="folder of clips of one kind")
    parser.add_argument("--model", required=True, help="packed model")
    parser.add_argument("--downloads", type=Path, help="folder of frozen parts; default: as always")
    parser.add_argument("--seconds", type=float, default=600, help="length of the recording")
    parser.add_argument("--rates", nargs="+", default=["a4_v2", "a16_v5"])
    parser.add_argument("--beam", type=int, default=1)
    parser.add_argument("--recording", type=Path, help=argparse.SUPPRESS)  # in a process of its own
    args = parser.parse_args()
    if args.recording:
        print(json.dumps(measure(args)))
        return
    clips = sorted(path for path in args.clips.iterdir() if path.is_file())
    columns = {}
    with tempfile.TemporaryDirectory() as folder:
        recording = Path(folder, "joined.mkv")
        join(clips, args.seconds, recording)
        for rates in args.rates:
            command = [sys.executable, __file__, "--recording", str(recording), "--rates", rates]
            command += ["--model", args.model, "--beam", str(args.beam)]
            command += ["--downloads", str(args.downloads)] if args.downloads else []
            said = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout
            columns[rates] = json.loads(said.splitlines()[-1])
    print(f"{machine()}, {os.cpu_count()} cores")
    for rates, found in columns.items():
        length, segments = found.pop("seconds"), found.pop("segments")
        peak, loaded = found.pop("peak"), found.pop("loaded")
        print(f"\n{rates}: {length:.0f} s in {segments} segments; memory at most {peak:.0f} MB,")
        print(f"{loaded:.0f} MB when the model was loaded")
        print("\n| part | seconds a second of the recording | share % |\n| --- | ---: | ---: |")
        for part, value in found.items():
            print(f"| {part} | {value / length:.4f} | {100 * value / found['all']:.0f} |")


if __name__ == "__main__":
    main()
