#!/usr/bin/env python3
"""What becomes of a transcript when the recording is not like a corpus's.

Makes copies of real clips as people record them: rotated, mirrored, at a variable frame rate,
without sound, with late sound, without a face, beside somebody else, small in a large picture, and
all in one long recording with pauses. Transcribes them, and clips of people that the model never
saw, by a packed model. Prints for each kind what should have come out and what did, and writes
every transcript to <out>/transcripts.tsv.

  local/hostile.py --data data/test --model exp/mome/packed --out hostile --corpus <GRID>
"""

import argparse
import logging
import os
import runpy
from collections import Counter
from collections.abc import Callable, Collection
from dataclasses import dataclass
from difflib import SequenceMatcher
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np

from mome.analysis.wer import score
from mome.common.markdown import markdown_table
from mome.data.audio import RATE, read_audio
from mome.data.kaldi import read_scp
from mome.data.video import LIP_RATE, MediaError, read_video
from mome.models.rates import READS
from mome.transcribe.options import Options
from mome.transcribe.transcriber import Transcriber
from mome.transcribe.transcript import Segment

CLOCK = Fraction(1, 90000)
LATE = 0.3  # seconds
PAUSE = 1.0

Clip = tuple[np.ndarray, np.ndarray]  # RGB frames (T, H, W, 3) at 25 a second, samples at 16 kHz


def write(path: Path, clip: Clip, times: np.ndarray | None = None, rotation: int = 0) -> None:
    """Write an mp4; frames are shown at ``times`` in seconds, or at 25 a second.

    Without frames, or without samples, the file has no such stream.
    """
    frames, samples = clip
    with av.open(str(path), "w") as container:
        video = sound = None
        if len(frames):
            video = container.add_stream("libx264", rate=LIP_RATE, options={"crf": "18"})
            video.height, video.width = frames.shape[1:3]
            video.pix_fmt = "yuv420p"
            video.codec_context.time_base = CLOCK
            if rotation:
                video.set_display_rotation(rotation)
        if len(samples):
            sound = container.add_stream("aac", rate=RATE, layout="mono")
        times = np.arange(len(frames)) / LIP_RATE if times is None else times
        for image, time in zip(frames, times, strict=True):
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format="rgb24")
            frame.pts, frame.time_base = round(float(time) / CLOCK), CLOCK
            container.mux(video.encode(frame))
        if video is not None:
            container.mux(video.encode(None))
        for start in range(0, len(samples), 1024):
            block = samples[None, start : start + 1024].astype(np.float32)
            frame = av.AudioFrame.from_ndarray(block, format="fltp", layout="mono")
            frame.rate, frame.pts = RATE, start
            container.mux(sound.encode(frame))
        if sound is not None:
            container.mux(sound.encode(None))


def variable_rate(path: Path, clip: Clip, rng: np.random.Generator) -> None:
    """Every frame is kept with three chances in four, and shown when it was taken."""
    kept = np.flatnonzero(rng.random(len(clip[0])) < 0.75)
    write(path, (clip[0][kept], clip[1]), kept / LIP_RATE)


def two_people(path: Path, clip: Clip, other: np.ndarray, rng: np.random.Generator) -> None:
    """Beside the speaker, on either side, is somebody else: frames (T, H, W, 3), of any T."""
    count, height, width = clip[0].shape[:3]
    beside = np.stack([cv2.resize(other[i % len(other)], (width, height)) for i in range(count)])
    pair = [clip[0], beside][:: int(rng.choice([-1, 1]))]
    write(path, (np.concatenate(pair, axis=2), clip[1]))


def small(path: Path, clip: Clip, rng: np.random.Generator) -> None:
    """The clip as a small part of a grey picture of 1280x720."""
    count, height, width = clip[0].shape[:3]
    top, left = int(rng.integers(0, 720 - height)), int(rng.integers(0, 1280 - width))
    large = np.full((count, 720, 1280, 3), 90, dtype=np.uint8)
    large[:, top : top + height, left : left + width] = clip[0]
    write(path, (large, clip[1]))


def makers(
    other: np.ndarray, rng: np.random.Generator
) -> dict[str, tuple[set[str], Callable[[Path, Clip], None]]]:
    """Kind -> the streams that are there, and what writes a clip of it.

    Args:
        other: frames (T, H, W, 3) of somebody else who speaks.
        rng: draws frames, sides and places.
    """
    silence = np.zeros(round(LATE * RATE), dtype=np.float32)
    both, sound, sight = {"audio", "video"}, {"audio"}, {"video"}
    return {
        "MP4 of the same": (both, write),
        "rotated by the camera": (
            both,
            lambda p, c: write(p, (np.rot90(c[0], 1, (1, 2)), c[1]), None, -90),
        ),
        "mirrored": (both, lambda p, c: write(p, (c[0][:, :, ::-1], c[1]))),
        "variable frame rate": (both, lambda p, c: variable_rate(p, c, rng)),
        "no sound": (sight, lambda p, c: write(p, (c[0], c[1][:0]))),
        "no video": (sound, lambda p, c: write(p, (c[0][:0], c[1]))),
        "no face": (sound, lambda p, c: write(p, (np.full_like(c[0], 60), c[1]))),
        "sound 0.3 s late": (
            both,
            lambda p, c: write(p, (c[0], np.concatenate([silence, c[1]]))),
        ),
        "two people, one keeps still": (both, lambda p, c: two_people(p, c, other[:1], rng)),
        "two people, both mouths move": (both, lambda p, c: two_people(p, c, other, rng)),
        "small in 1280x720": (both, lambda p, c: small(p, c, rng)),
    }


def joined(path: Path, clips: list[Clip]) -> None:
    """All clips in one recording, with pauses in which the picture stands still."""
    frames, samples = [], []
    for pictures, sound in clips:
        still = np.repeat(pictures[-1:], round(PAUSE * LIP_RATE), axis=0)
        frames += [pictures, still]
        length = (len(pictures) + len(still)) * RATE // LIP_RATE
        samples.append(np.pad(sound[:length], (0, max(0, length - len(sound)))))
    write(path, (np.concatenate(frames), np.concatenate(samples)))


@dataclass(frozen=True)
class Spoken:
    """A recording and the sentences that are said in it."""

    path: Path
    sentences: list[str]


def expected(streams: Collection[str], tasks: Collection[str], count: int) -> str:
    """What should come of so many sentences with these streams, in a table's words."""
    task = max(
        (task for task in tasks if set(streams).issuperset(READS[task])),
        key=lambda task: len(READS[task]),
        default=None,
    )
    if task is None:
        return "no text, and why"
    return f"{count} sentences by {task}"


class Table:
    """Rows of kinds of recordings, made by transcribing them.

    Args:
        transcribe: the model.
        options: how.
        details: gets a line for each recording.
    """

    header = ("recording", "should come out", "came out", "WER", "read as", "confidence", "low")

    def __init__(self, transcribe: Transcriber, options: Options, details: Path):
        self.transcribe = transcribe
        self.options = options
        self.details = details
        self.rows: list[list[str]] = []
        details.write_text("kind\trecording\tsaid\ttranscript\tconfidence\tnotes\n")

    def read(self, kind: str, name: str, spoken: Spoken) -> tuple[list[Segment], str]:
        """The segments of a recording, and why there are none or not all."""
        try:
            transcript = self.transcribe(spoken.path, self.options)
            segments = transcript.segments
            wrong = "" if transcript.complete else transcript.notes[-1]
        except MediaError as error:
            segments, wrong = [], error.reason
        cells = [
            *(kind, name, " / ".join(spoken.sentences), " / ".join(s.text for s in segments)),
            ", ".join(f"{s.confidence:.2f}" for s in segments),
            "; ".join(dict.fromkeys([*([wrong] if wrong else []), *notes_of(segments)])),
        ]
        with self.details.open("a") as file:
            file.write("\t".join(cells) + "\n")
        return segments, wrong

    def add(self, kind: str, streams: Collection[str], recordings: dict[str, Spoken]) -> None:
        """Transcribe recordings of a kind, with these streams."""
        found = {name: self.read(kind, name, spoken) for name, spoken in recordings.items()}
        segments = [segment for of_one, _ in found.values() for segment in of_one]
        said = {name: " ".join(spoken.sentences) for name, spoken in recordings.items()}
        heard = {name: " ".join(s.text for s in of_one) for name, (of_one, _) in found.items()}
        count = sum(len(spoken.sentences) for spoken in recordings.values())
        right = sum(
            block.size
            for name, (of_one, _) in found.items()
            for block in SequenceMatcher(
                None, recordings[name].sentences, [s.text for s in of_one], autojunk=False
            ).get_matching_blocks()
        )
        wrong = Counter(reason for _, reason in found.values() if reason)
        came = [f"{right} of {count} as said"] if any(heard.values()) else []
        came += [f"{number} times: {reason}" for reason, number in wrong.items()]
        notes = Counter(note for segment in segments for note in notes_of([segment]))
        came += [f"{note} in {number}" for note, number in notes.items() if segment_note(note)]
        result = score(said, heard)
        error_rate = f"{result.wer:.1f}"
        if len(recordings) > 1:
            error_rate += f" [{result.low:.1f}, {result.high:.1f}]"
        read = Counter(f"{s.task} {s.rates}" if s.task else "nothing" for s in segments)
        words = [word.confidence for segment in segments for word in segment.words]
        doubtful = sum(segment.doubtful for segment in segments)
        self.rows.append(
            [
                *(kind, expected(streams, self.transcribe.model.pairs, count), "; ".join(came)),
                error_rate if any(heard.values()) else "–",
                ", ".join(f"{how}: {number}" for how, number in read.most_common()) or "nothing",
                f"{np.mean(words):.2f}" if words else "–",
                f"{doubtful} of {len(segments)}",
            ]
        )
        print(" | ".join(self.rows[-1]), flush=True)


def notes_of(segments: list[Segment]) -> list[str]:
    """What was unusual in segments."""
    return [note for segment in segments for note in segment.notes]


def segment_note(note: str) -> bool:
    """Whether a note belongs into the column of what came out: doubt has one of its own."""
    return not note.startswith(("low confidence", "not read"))


def mean_mouth(transcribe: Transcriber, path: Path) -> np.ndarray | None:
    """The mouth that is read of a clip, float64 (96, 96), averaged over it; None without."""
    lips = next(transcribe.open(path).clips).streams.get("lips")
    return None if lips is None else lips.mean(axis=0)


def faces_right(
    transcribe: Transcriber, other: Path, alone: dict[str, Path], beside: dict[str, Path]
) -> int:
    """Of how many recordings of two people the mouth that is read is that of the speaker.

    Args:
        transcribe: the model, whose crops are compared.
        other: a clip of the second person.
        alone: the clips of the speaker.
        beside: the same with the second person in the picture.
    """
    theirs = mean_mouth(transcribe, other)
    right = 0
    for name, path in beside.items():
        own, read = mean_mouth(transcribe, alone[name]), mean_mouth(transcribe, path)
        if own is None or theirs is None or read is None:
            continue
        likeness = [np.corrcoef(read.ravel(), each.ravel())[0, 1] for each in (own, theirs)]
        right += bool(likeness[0] > likeness[1])
    return right


def main(argv: list[str] | None = None) -> None:
    """Make the copies, transcribe them, print a table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True, help="data folder with video.scp, text")
    parser.add_argument("--model", type=Path, required=True, help="packed model")
    parser.add_argument("--out", type=Path, required=True, help="folder for the copies")
    parser.add_argument("--count", type=int, default=20, help="clips, of equal distance in the set")
    parser.add_argument(
        "--corpus",
        type=Path,
        required=True,
        help="GRID, <speaker>/<code>.mpg; the first clip of another speaker is that of the second "
        "person, and all are read as those of strangers",
    )
    parser.add_argument(
        "--speakers", nargs="+", default=["s1"], help="of the training: folders of the corpus"
    )
    parser.add_argument("--kinds", nargs="+", help="of copies, by their names; default: all")
    parser.add_argument("--rates", help="such as a4_v2; default: finest")
    parser.add_argument(
        "--beam",
        type=int,
        default=1,
        help="hypotheses of the search, 1 is greedy; default: %(default)s",
    )
    args = parser.parse_args(argv)
    logging.basicConfig(level=logging.WARNING)
    downloads = Path(os.environ.get("MOME_DOWNLOADS", "../../downloads"))
    transcribe = Transcriber.load(args.model, downloads=[downloads])
    strangers = sorted(
        p for p in args.corpus.glob("s*/*.mpg") if p.parent.name not in args.speakers
    )
    if not strangers:
        parser.error(
            f"{args.corpus} has no clip of another speaker than {', '.join(args.speakers)}"
        )
    args.out.mkdir(parents=True, exist_ok=True)
    table = Table(
        transcribe, Options(beam=args.beam, rates=args.rates), args.out / "transcripts.tsv"
    )

    videos, texts = (read_scp(args.data / name) for name in ("video.scp", "text"))
    utterances = list(videos)[:: max(1, len(videos) // args.count)][: args.count]
    rng = np.random.default_rng(0)
    other = read_video(strangers[0], rate=LIP_RATE)
    clips = {u: (read_video(videos[u], rate=LIP_RATE), read_audio(videos[u])) for u in utterances}
    both = {"audio", "video"}

    if not args.kinds:
        table.add("as it is", both, {u: Spoken(Path(videos[u]), [texts[u]]) for u in utterances})
    for kind, (streams, make) in makers(other, rng).items():
        if args.kinds and kind not in args.kinds:
            continue
        folder = args.out / kind.replace(" ", "_").replace(",", "")
        folder.mkdir(exist_ok=True)
        paths = {u: folder / f"{u}.mp4" for u in utterances}
        for utterance, clip in clips.items():
            make(paths[utterance], clip)
        table.add(kind, streams, {u: Spoken(paths[u], [texts[u]]) for u in utterances})
        if kind.startswith("two people"):
            alone = {u: Path(videos[u]) for u in utterances}
            right = faces_right(transcribe, strangers[0], alone, paths)
            table.rows[-1][2] += f"; the speaker's mouth in {right} of {len(paths)}"
    if not args.kinds:
        joined(args.out / "joined.mp4", list(clips.values()))
        spoken = Spoken(args.out / "joined.mp4", [texts[u] for u in utterances])
        table.add(f"all {len(clips)} in one recording, with pauses", both, {"joined": spoken})
        sentence = runpy.run_path(str(Path(__file__).with_name("data.py")))["sentence"]
        recordings = {
            f"{path.parent.name}/{path.stem}": Spoken(path, [sentence(path.stem)])
            for path in strangers
        }
        people = len({path.parent.name for path in strangers})
        table.add(f"{people} people it never saw", both, recordings)
    print("\n".join(markdown_table(list(table.header), table.rows)))


if __name__ == "__main__":
    main()
