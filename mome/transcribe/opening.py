"""Open recordings: by which tasks they can be read, and where they are cut into segments."""

import math
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import CancelledError
from dataclasses import dataclass
from pathlib import Path

from mome.data.video import LIP_RATE, MediaError, reason_of
from mome.models.rates import READS
from mome.transcribe.arrays import Arrays
from mome.transcribe.choice import Info, Pairs, limits, usable
from mome.transcribe.clips import Clip, MouthCropper
from mome.transcribe.faces import differences, missing
from mome.transcribe.options import Options
from mome.transcribe.recording import (
    SHORTEST,
    Damage,
    Source,
    Streams,
    probe,
    read_pieces,
    speech_levels,
    video_seconds,
)
from mome.transcribe.segments import FRAME, even_segments, find_segments

LONGER = 1.25  # than in training, segments may be

Progress = Callable[[str, float, float], None]


@dataclass(frozen=True)
class Recording:
    """A recording cut into segments, which are read one after the other.

    Attributes:
        name: path of the file, or name of the arrays.
        spans: of the segments, in seconds. Where a stream ends in one, two clips are made of it.
        clips: the segments, prepared as they are asked for.
        notes: what holds for all of it.
        damage: stream -> up to where it could be read, and why not further; known when all clips
            were taken.
    """

    name: str
    spans: list[tuple[float, float]]
    clips: Iterator[Clip]
    notes: list[str]
    damage: Damage


def name_of(source: str | Path | Arrays) -> str:
    """What errors call a recording."""
    return source.name if isinstance(source, Arrays) else str(source)


def possible(
    source: Source, options: Options, pairs: Pairs, info: Info
) -> tuple[Streams, list[str]]:
    """The streams of a recording, and the tasks that may be used and read them.

    Raises:
        FileNotFoundError, MediaError: for a file that cannot be opened, or has nothing that the
            model reads.
        ValueError: for options that do not fit the model.
    """
    streams = probe(source)
    tasks = usable(options, pairs, info)
    there = {kind for kind in ("audio", "video") if getattr(streams, kind)}
    found = [task for task in tasks if there.issuperset(READS[task])]
    if not found:
        lacking = " and no ".join(sorted({"audio", "video"} - there))
        who = f"{' and '.join(tasks)} {'reads' if len(tasks) == 1 else 'read'}"
        raise MediaError(name_of(source), f"no {lacking}, which {who}; {limits(tasks, pairs)}")
    return streams, found


def open_recording(
    source: str | Path | Arrays,
    options: Options,
    pairs: Pairs,
    info: Info,
    cropper: MouthCropper,
    progress: Progress | None = None,
    check: Callable[[], None] | None = None,
) -> Recording:
    """Find the segments of a recording and prepare to read them.

    Args:
        source: any file that FFmpeg reads, or arrays.
        options: how; of these the tasks and where to cut.
        pairs, info: of the model, see :mod:`mome.transcribe.choice`.
        cropper: cuts out the mouths.
        progress: as of a call of the transcriber.
        check: is called now and then, here and while the segments are read; what it raises ends
            that.

    Raises:
        FileNotFoundError, MediaError, ValueError: as of `possible`; a ValueError also if pictures
            would be read, and the models that find faces are not there.
    """
    source = source if isinstance(source, Arrays) else Path(source)
    name = name_of(source)
    streams, tasks = possible(source, options, pairs, info)
    notes = [] if streams.audio else ["no sound: lips alone"]
    notes += [] if streams.video else ["no video: sound alone"]
    pictures = any("video" in READS[task] for task in tasks)
    if pictures:
        if cropper.tracker is None:
            raise ValueError(missing(cropper.crops))
        notes += differences(cropper.crops, cropper.tracker)
    longest = options.max_seconds or LONGER * float(info.get("max_seconds", 15.0))
    damage: Damage = {}
    spans: list[tuple[float, float]] = []
    heard = 0.0
    if streams.audio:
        # Whatever the task: sound also tells where to cut and who speaks.

        def listening(seconds: float) -> None:
            if check:
                check()
            if progress:
                progress("listening", seconds, streams.seconds)

        level = speech_levels(source, damage, listening)
        spans = find_segments(level, longest, options.min_pause)
        if spans:
            heard = len(level) * FRAME
        elif len(level):
            notes.append("silent throughout")
    alone = lips_alone(source, heard, longest) if pictures else []
    if alone and "vsr" not in tasks:
        after = f"after the sound, from {heard:.1f} s on, " if heard else ""
        reason = limits(usable(options, pairs, info), pairs)
        notes.append(f"{after}lips alone are not read: {reason}")
        if not spans:
            raise MediaError(name, "; ".join([*damage.values(), *notes]))
        alone = []
    # Segments begin and end with frames, so that both streams are equally long.
    spans = [
        (round(a * LIP_RATE) / LIP_RATE, round(b * LIP_RATE) / LIP_RATE) for a, b in spans + alone
    ]
    pieces = read_pieces(source, Streams(heard > 0, pictures), spans, damage, check)
    return Recording(name, spans, cropper.clips(pieces, name), notes, damage)


def lips_alone(source: Source, heard: float, longest: float) -> list[tuple[float, float]]:
    """The segments of a recording's pictures that go on after its sound, or have none.

    Args:
        source: the recording.
        heard: seconds of its sound.
        longest: segment, in seconds.
    """
    alone = video_seconds(source) - heard
    if heard and alone < SHORTEST:
        return []
    if not alone:
        alone = longest  # reading will show how long they are, or what is wrong with them
    # The first frame after the sound, so that nothing of it is in these segments.
    begin = math.ceil(heard * LIP_RATE - 1e-6) / LIP_RATE
    return [(begin + a, begin + b) for a, b in even_segments(heard + alone - begin, longest)]


def clips_of(
    sources: Iterable[str | Path | Arrays],
    opened: list[Recording],
    open_one: Callable[[str | Path | Arrays], Recording],
) -> Iterator[tuple[int, Clip]]:
    """The segments of recordings, which are opened one after the other, with their places.

    ``opened`` gets each when its turn comes. Whatever is wrong with it, the others are still to be
    read, unless it is that the reading is in vain (CancelledError).
    """
    for place, source in enumerate(sources):
        read = ""
        try:
            opened.append(open_one(source))
            for clip in opened[place].clips:
                yield place, clip
                read = f"read to {clip.end:.2f} s: "
        except CancelledError:
            raise
        except Exception as error:
            reason = error.reason if isinstance(error, MediaError) else reason_of(error)
            if place == len(opened):
                opened.append(Recording(name_of(source), [], iter(()), [], {}))
            opened[place].damage[""] = f"{read}{reason}"
