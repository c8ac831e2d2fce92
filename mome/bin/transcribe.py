"""Transcribe recordings: video with sound, sound alone, or silent video.

Anything that FFmpeg reads will do, of any length. A recording is cut at pauses, a face is looked
for in each part, and both streams are read as far as they are there. --model is what mome-pack has
made. Recordings are files, or folders whose files are taken in order; - is one on standard input.

  mome-transcribe talk.mp4 --model grid.zip
  mome-transcribe talk.mp4 lectures/ --model grid.zip --format srt json --output subtitles

Without --output the transcripts are printed. What cannot be read is named at the end; the others
are done, and the exit status is 1.
"""

import argparse
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from tqdm import tqdm

from mome.common.atomic_files import write_bytes
from mome.lips.detectors import load_tracker
from mome.transcribe.transcriber import Budget, Options, Transcriber
from mome.transcribe.transcript import FORMATS, Transcript

STANDARD_INPUT = "-"
LANDMARKS = {"dlib": "dlib/shape_predictor_68_face_landmarks.dat", "mediapipe": "mediapipe"}


def parse(argv: list[str] | None) -> argparse.Namespace:
    """Read the command line."""
    defaults = Options()
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("recordings", nargs="+", metavar="RECORDING")
    parser.add_argument("--model", type=Path, required=True, help="packed model, folder or .zip")
    parser.add_argument(
        "--task",
        choices=("auto", "avsr", "asr", "vsr"),
        default=defaults.task,
        help="streams that are read; auto takes those that are there",
    )
    parser.add_argument("--rates", help="compression rates such as a4_v2 (or 4,2); default: finest")
    parser.add_argument(
        "--budget",
        type=budget,
        help="take the best rates that cost no more for a second of speech: 0.5 seconds of "
        "computation, or 0.2tflops, as measured when the model was packed",
    )
    parser.add_argument(
        "--cascade",
        type=float,
        metavar="CONFIDENCE",
        help="read at the coarsest rates first, and what is less sure than this again at --rates",
    )
    parser.add_argument("--beam", type=int, default=defaults.beam, help="1 is greedy")
    parser.add_argument("--batch_size", type=int, default=defaults.batch_size)
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument(
        "--max_seconds", type=float, help="longest part; default: that of the model's training"
    )
    parser.add_argument(
        "--min_pause", type=float, default=defaults.min_pause, help="seconds between parts"
    )
    parser.add_argument("--max_new_tokens", type=int, default=defaults.max_new_tokens)
    parser.add_argument("--detector", choices=list(LANDMARKS), default="dlib")
    parser.add_argument(
        "--downloads",
        type=Path,
        default=Path(os.environ.get("MOME_DOWNLOADS", "downloads")),
        help="folder with the models that find faces; $MOME_DOWNLOADS or ./downloads",
    )
    parser.add_argument("--format", nargs="+", choices=list(FORMATS), default=["txt"])
    parser.add_argument("--output", type=Path, help="folder for <name>.<format>")
    return parser.parse_args(argv)


def budget(text: str) -> Budget:
    """A budget on the command line."""
    try:
        return Budget.parse(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def rates_of(text: str | None) -> str | None:
    """Rates as a model names them: ``4,2`` is ``a4_v2``."""
    if text is None or "," not in text:
        return text
    audio, _, video = text.partition(",")
    return f"a{audio.strip()}_v{video.strip()}"


def find_recordings(names: list[str]) -> list[str]:
    """Files of folders in order, everything else as it is."""
    found: list[str] = []
    for name in names:
        if name != STANDARD_INPUT and Path(name).is_dir():
            inside = [p for p in sorted(Path(name).iterdir()) if p.is_file()]
            found += [str(path) for path in inside if not path.name.startswith(".")]
        else:
            found.append(name)
    return found


def transcribe_one(
    name: str, transcribe: Transcriber, options: Options, report: Callable[[float, float], None]
) -> Transcript:
    """Transcribe a file, or standard input, which is stored first, as it is read twice."""
    if name != STANDARD_INPUT:
        return transcribe(name, options, report)
    with tempfile.NamedTemporaryFile(prefix="mome-", suffix=".input") as file:
        shutil.copyfileobj(sys.stdin.buffer, file)
        file.flush()
        return transcribe(file.name, options, report)


def write(transcript: Transcript, name: str, args: argparse.Namespace) -> None:
    """Write or print a transcript in the forms asked for."""
    stem = "stdin" if name == STANDARD_INPUT else Path(name).name
    for kind in args.format:
        text = FORMATS[kind](transcript)
        if args.output:
            write_bytes(args.output / f"{stem}.{kind}", text.encode())
        else:
            print(text, end="")


def main(argv: list[str] | None = None) -> None:
    """Transcribe one recording after the other."""
    args = parse(argv)
    options = Options(
        task=args.task,
        rates=rates_of(args.rates),
        budget=args.budget,
        cascade=args.cascade,
        beam=args.beam,
        batch_size=args.batch_size,
        max_seconds=args.max_seconds,
        min_pause=args.min_pause,
        max_new_tokens=args.max_new_tokens,
    )
    try:
        if args.output:
            args.output.mkdir(parents=True, exist_ok=True)
        transcribe = Transcriber.load(args.model, args.device)
        if transcribe.reads("video") and options.task != "asr":
            landmarks = args.downloads / LANDMARKS[args.detector]
            transcribe.tracker = load_tracker(str(landmarks), detector=args.detector)
        if options.rates or options.budget:
            transcribe.check_rates(options)
    except (OSError, ValueError) as error:
        raise SystemExit(f"mome-transcribe: {error}") from None
    if trained_on := transcribe.info.get("trained_on"):
        print(f"model: {trained_on}", file=sys.stderr)
    failures = []
    recordings = find_recordings(args.recordings)
    for name in recordings:
        started = time.perf_counter()
        with tqdm(desc=name, unit="s", disable=not sys.stderr.isatty()) as bar:

            def report(done: float, total: float, bar: tqdm = bar) -> None:
                bar.total = round(total, 1)
                bar.update(round(done, 1) - bar.n)

            try:
                transcript = transcribe_one(name, transcribe, options, report)
                write(transcript, name, args)
            except (OSError, ValueError) as error:
                failures.append(f"{name}: {error}")
                continue
        describe(name, transcript, time.perf_counter() - started)
    if failures:
        done = len(recordings) - len(failures)
        print(f"{done} of {len(recordings)} recordings transcribed; not:", file=sys.stderr)
        for failure in failures:
            print(f"  {failure}", file=sys.stderr)
        raise SystemExit(1)


def describe(name: str, transcript: Transcript, seconds: float) -> None:
    """Say on standard error what was read, how sure it is, and what was unusual."""
    segments = transcript.segments
    counted: dict[str, int] = {}
    for segment in segments:
        for note in segment.notes:
            counted[note] = counted.get(note, 0) + 1
    read = sorted({f"{s.task} {s.rates}" for s in segments if s.task})
    spoken = [s for s in segments if s.words]
    sure = sum(s.confidence for s in spoken) / max(1, len(spoken))
    notes = [
        *transcript.notes,
        *(f"{note} in {n} of {len(segments)}" for note, n in counted.items()),
    ]
    how = f"read as {', '.join(read) or 'nothing'}, confidence {sure:.2f}"
    line = "; ".join([f"{len(segments)} segments in {seconds:.1f} s, {how}", *notes])
    print(f"{name}: {line}", file=sys.stderr)


if __name__ == "__main__":
    main()
