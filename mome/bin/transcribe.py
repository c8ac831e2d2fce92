"""Transcribe recordings: video with sound, sound alone, or silent video.

Anything that FFmpeg reads will do, of any length. A recording is cut at pauses, a face is looked
for in each part, and both streams are read as far as they are there. --model is what mome-pack has
made. Recordings are files, or folders, of which the recordings are taken in order but not those of
folders inside; - is one on standard input.

  mome-transcribe talk.mp4 --model grid.zip
  mome-transcribe talk.mp4 lectures/ --model grid.zip --format srt json --output subtitles

Without --output the transcripts are printed. What cannot be read, or not to its end, is named at
the end; the others are done, and the exit status is 1. It is 2 if nothing is read: for want of the
model, or of what finds the faces of a recording, or by an option.
"""

import argparse
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import get_args

from tqdm import tqdm

from mome.common.atomic_files import write_bytes
from mome.common.command import in_one_line, parser_for
from mome.data.video import MediaError, reason_of
from mome.models.rates import READS
from mome.transcribe.arguments import add_model_arguments
from mome.transcribe.choice import usable
from mome.transcribe.confidence import UNKNOWN
from mome.transcribe.faces import find_tracker, missing
from mome.transcribe.opening import Progress, possible
from mome.transcribe.options import Budget, Options
from mome.transcribe.recording import probe
from mome.transcribe.transcriber import Transcriber
from mome.transcribe.transcript import FORMATS, Handling, Transcript

STANDARD_INPUT = "-"
CANNOT_BEGIN = 2  # the exit status, as where argparse refuses an option
# A file of a folder whose name ends so is meant to be a recording, whatever is in it.
SUFFIXES = {
    *(".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".mpg", ".mpeg", ".ts", ".mts", ".m2ts"),
    *(".vob", ".wmv", ".asf", ".flv", ".3gp", ".3g2", ".ogv", ".mxf", ".dv"),
    *(".wav", ".flac", ".mp3", ".m4a", ".aac", ".ogg", ".oga", ".opus", ".wma", ".aif", ".aiff"),
    *(".amr", ".caf", ".w64", ".mka"),
}


def parse(argv: list[str] | None) -> argparse.Namespace:
    """Read the command line."""
    defaults = Options()
    parser = parser_for(__doc__)
    parser.add_argument(
        "recordings",
        nargs="+",
        metavar="RECORDING",
        help="file, folder of files, or - for standard input",
    )
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
        help="take the best rates whose encoders and search cost no more for a second of speech: "
        "0.5 (seconds) or 0.2tflops, as measured when the model was packed, on that machine and "
        "with that beam. It is no real-time factor: decoding the video and finding faces come on "
        "top. With --cascade the coarse pass counts, too",
    )
    parser.add_argument(
        "--cascade",
        type=float,
        metavar="CONFIDENCE",
        help="read at the coarsest rates first, and what is less sure than this again at --rates",
    )
    parser.add_argument("--beam", type=int, default=defaults.beam, help="1 is greedy")
    parser.add_argument(
        "--batch_size", type=int, default=defaults.batch_size, help="parts read at once"
    )
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument(
        "--max_seconds", type=float, help="longest part; default: a quarter more than in training"
    )
    parser.add_argument(
        "--min_pause", type=float, default=defaults.min_pause, help="seconds between parts"
    )
    parser.add_argument(
        "--max_new_tokens",
        type=int,
        help="longest transcript of a part; default: a quarter more than in training, at least 64",
    )
    add_model_arguments(parser)
    parser.add_argument(
        "--format",
        nargs="+",
        choices=list(FORMATS),
        default=["txt"],
        help="of transcripts; default: txt",
    )
    parser.add_argument(
        "--doubtful",
        choices=get_args(Handling),
        default="mark",
        help="parts of low confidence: marked by [low confidence], left out, or shown like others; "
        "JSON has all of them with their confidence",
    )
    parser.add_argument(
        "--output", type=Path, help="folder for <recording>.<format>, such as talk.mp4.srt"
    )
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
    """The recordings of folders in order, everything else as it is.

    A file with the suffix of a recording is one, also if it is damaged, so that it is tried and
    its failure is counted. What else there is in a folder is passed over, and named on standard
    error.

    Raises:
        ValueError: if a folder holds no recording.
    """
    found: list[str] = []
    for name in names:
        if name == STANDARD_INPUT or not Path(name).is_dir():
            found.append(name)
            continue
        inside, others = [], []
        for path in sorted(Path(name).iterdir()):
            if path.name.startswith("."):
                continue
            if path.is_dir():
                others.append(f"{path.name}/")
            elif path.suffix.lower() in SUFFIXES or is_recording(path):
                inside.append(str(path))
            else:
                others.append(path.name)
        if others:
            print(f"{name}: passed over, as no recordings: {', '.join(others)}", file=sys.stderr)
        if not inside:
            raise ValueError(f"{name} holds no recordings")
        found += inside
    return found


def is_recording(path: Path) -> bool:
    """Whether a file, whatever its name, has sound or pictures that can be decoded."""
    try:
        probe(path)
    except (MediaError, OSError):
        return False
    return True


def check_names(recordings: list[str]) -> None:
    """See that no transcript would replace another one's.

    Raises:
        ValueError: naming the recordings.
    """
    by_stem: dict[str, list[str]] = {}
    for name in recordings:
        by_stem.setdefault(stem_of(name), []).append(name)
    for same in by_stem.values():
        if len(same) > 1:
            raise ValueError(f"{' and '.join(same)} have one name: give them one --output each")


def check_output(folder: Path) -> None:
    """Make the folder of the transcripts, and see that files can be written there.

    Raises:
        ValueError: if they cannot.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise ValueError(
            f"--output {folder}: no file can be written there ({error.strerror}); name another "
            f"folder, or change its permissions"
        ) from error


def check_faces(
    recordings: list[str], transcribe: Transcriber, options: Options, downloads: list[Path]
) -> None:
    """See that faces can be found if a recording has pictures that would be read.

    What else is wrong with one is told when its turn comes, as is what standard input holds.

    Raises:
        ValueError: if they cannot; names the first such recording, and the remedy.
    """
    if transcribe.tracker is not None:
        return
    for name in recordings:
        if name == STANDARD_INPUT:
            continue
        try:
            _, tasks = possible(Path(name), options, transcribe.model.pairs, transcribe.info)
        except (MediaError, OSError):
            continue
        if any("video" in READS[task] for task in tasks):
            raise ValueError(f"{name} has pictures: {missing(transcribe.crops, downloads)}")


def stem_of(name: str) -> str:
    """What the transcripts of a recording are called."""
    return "stdin" if name == STANDARD_INPUT else Path(name).name


def transcribe_one(
    name: str, transcribe: Transcriber, options: Options, report: Progress
) -> Transcript:
    """Transcribe a file, or standard input, which is stored first, as it is read twice."""
    if name != STANDARD_INPUT:
        return transcribe(name, options, report)
    with tempfile.NamedTemporaryFile(prefix="mome-", suffix=".input") as file:
        shutil.copyfileobj(sys.stdin.buffer, file)
        file.flush()
        return replace(transcribe(file.name, options, report), source="stdin")


def write(transcript: Transcript, name: str, args: argparse.Namespace) -> None:
    """Write or print a transcript in the forms asked for."""
    for kind in args.format:
        text = FORMATS[kind](transcript, args.doubtful)
        if args.output:
            path = args.output / f"{stem_of(name)}.{kind}"
            write_bytes(path, text.encode(errors="surrogateescape"))
        else:
            print(text, end="", flush=True)


@in_one_line("mome-transcribe")
def main(argv: list[str] | None = None) -> None:
    """Transcribe one recording after the other."""
    args = parse(argv)
    try:
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
        recordings = find_recordings(args.recordings)
        if args.output:
            check_names(recordings)
            check_output(args.output)
        elif len(args.format) > 1 or (len(recordings) > 1 and args.format != ["txt"]):
            raise ValueError(
                f"--format {' '.join(args.format)} of {len(recordings)} recordings makes several "
                f"files: give --output, a folder for them"
            )
        tracker = None
        if args.task != "asr" and args.detector:
            tracker = find_tracker(args.detector, args.downloads)
        transcribe = Transcriber.load(
            args.model, args.device, tracker, args.imports, args.downloads
        )
        usable(options, transcribe.model.pairs, transcribe.info)
        check_faces(recordings, transcribe, options, args.downloads)
    except Exception as error:
        stop = SystemExit(f"mome-transcribe: {reason_of(error)}")
        print(stop, file=sys.stderr)
        stop.code = CANNOT_BEGIN
        raise stop from None
    if trained_on := transcribe.info.get("trained_on"):
        print(f"model: {trained_on}. {UNKNOWN}", file=sys.stderr)
    failures = []
    for name in recordings:
        started = time.perf_counter()
        try:
            with progress_bar(name) as report:
                transcript = transcribe_one(name, transcribe, options, report)
        except Exception as error:
            # Whatever is wrong with one recording, the others are still to be done.
            reason = error.reason if isinstance(error, MediaError) else reason_of(error)
            failures.append(f"{name}: {reason}")
            continue
        try:
            write(transcript, name, args)
        except BrokenPipeError:  # nobody reads the transcripts any longer
            raise
        except Exception as error:
            failures.append(f"{name}: {reason_of(error)}")
            continue
        if not transcript.complete:
            failures.append(f"{name}: {transcript.notes[-1]}")
        describe(name, transcript, time.perf_counter() - started, args.doubtful)
    if failures:
        done = len(recordings) - len(failures)
        print(
            f"{done} of {len(recordings)} recordings transcribed; not, or not to the end:",
            file=sys.stderr,
        )
        for failure in failures:
            print(f"  {failure}", file=sys.stderr)
        raise SystemExit(1)


@contextmanager
def progress_bar(name: str) -> Iterator[Progress]:
    """Shows on a terminal what is being done to a recording and how far it is."""
    with tqdm(unit="s", disable=not sys.stderr.isatty()) as bar:
        before = ""

        def report(doing: str, done: float, total: float) -> None:
            nonlocal before
            if doing != before:
                before = doing
                bar.set_description(f"{name}: {doing}", refresh=False)
                bar.reset(total=round(total, 1))
            bar.update(round(done, 1) - bar.n)

        yield report


def describe(name: str, transcript: Transcript, seconds: float, doubtful: Handling) -> None:
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
    if doubtful == "drop" and (left_out := sum(segment.doubtful for segment in segments)):
        notes.append(f"{left_out} of {len(segments)} left out of the text")
    how = f"read as {', '.join(read) or 'nothing'}, confidence {sure:.2f}"
    count = f"{len(segments)} segment{'' if len(segments) == 1 else 's'}"
    line = "; ".join([f"{count} in {seconds:.1f} s, {how}", *notes])
    print(f"{name}: {line}", file=sys.stderr)


if __name__ == "__main__":
    main()
