"""Read a recording segment by segment, so that its length does not decide the memory.

A recording is read twice: first its sound, to find the pauses, then both streams side by side. At
any time no more than the segment that is being read is held. A stream that is damaged is read up to
there.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain, islice
from pathlib import Path

import av
import cv2
import numpy as np

from mome.data.audio import RATE, fit_length, iter_audio, resample
from mome.data.video import (
    LIP_RATE,
    MAX_GAP,
    MediaError,
    decodable,
    file_seconds,
    iter_video,
    moving_pictures,
    open_media,
    start_seconds,
)
from mome.lips.extract import reduce_frame
from mome.transcribe.arrays import Arrays
from mome.transcribe.segments import levels, smooth

Source = Path | Arrays
SAMPLES = RATE // LIP_RATE  # of sound for a picture
SHORTEST = 0.5  # seconds; where a stream is alone for less, no word is heard or seen

Damage = dict[str, str]  # stream -> up to where it could be read, and why not further


@dataclass(frozen=True)
class Streams:
    """Whether a recording has sound, and whether it has pictures.

    Attributes:
        audio, video: whether there is such a stream.
        seconds: length that the header announces, which may be wrong; 0 if it does not.
    """

    audio: bool
    video: bool
    seconds: float = 0.0


@dataclass(frozen=True)
class Piece:
    """One segment of a recording.

    Attributes:
        start, end: in seconds.
        speech: float32 (N,) at 16 kHz, or None without sound.
        frames: T grey pictures uint8 (H, W) at 25 a second; empty where there are none.
        notes: which stream has ended before.
    """

    start: float
    end: float
    speech: np.ndarray | None
    frames: list[np.ndarray]
    notes: list[str] = field(default_factory=list)


def probe(source: Source) -> Streams:
    """Which streams a recording has.

    Raises:
        FileNotFoundError: if it does not exist.
        MediaError: if it cannot be opened, or holds neither sound nor pictures.
    """
    if isinstance(source, Arrays):
        return Streams(source.sound is not None, source.pictures is not None, source.seconds)
    with open_media(source) as container:
        if container.format.name == "image2" or container.format.name.endswith("_pipe"):
            raise MediaError(source, "a picture, no recording")
        streams = Streams(
            decodable(container.streams.audio) is not None,
            decodable(moving_pictures(container)) is not None,
            file_seconds(container),
        )
    if not streams.audio and not streams.video:
        raise MediaError(source, "neither sound nor pictures in it that can be decoded")
    return streams


def until_damaged[T](
    items: Iterator[T], seconds: Callable[[T], float], stream: str, damage: Damage
) -> Iterator[T]:
    """What can be read of a stream.

    Args:
        items: raises MediaError where the stream is damaged.
        seconds: length of an item.
        stream: its name.
        damage: gets a line under this name if the stream is damaged.
    """
    done = 0.0
    try:
        for item in items:
            done += seconds(item)
            yield item
    except MediaError as error:
        damage[stream] = f"{stream} read to {done:.2f} s: {error.reason}" if done else error.reason


def audio_blocks(source: Source, damage: Damage) -> tuple[int, Iterator[np.ndarray]]:
    """The sound of a recording: its samples per second, and float32 (N,), some at a time.

    It begins where the first of all streams begins; see :func:`mome.data.audio.iter_audio`. It ends
    where it is damaged, which ``damage`` then tells.
    """
    read = source.blocks() if isinstance(source, Arrays) else iter_audio(source)
    blocks = until_damaged(read, lambda block: len(block[1]) / block[0], "sound", damage)
    rate, first = next(blocks, (RATE, np.zeros(0, dtype=np.float32)))
    # Where the rate changes in a recording, the rest is brought to that of the beginning.
    rest = (resample(samples, own, rate) for own, samples in blocks)
    return rate, chain([first], rest)


def cut_blocks(
    blocks: Iterator[np.ndarray], spans: Sequence[tuple[int, int]]
) -> Iterator[np.ndarray]:
    """Cut consecutive spans of samples out of blocks; what lies between is passed over.

    Args:
        blocks: (N,) each.
        spans: first sample and the one after the last, in order and without overlap.

    Yields:
        (end - begin,) for each span, shorter or empty where the blocks end before.
    """
    held = np.zeros(0, dtype=np.float32)
    offset = 0  # of what is held
    for begin, end in spans:
        parts = []
        while True:
            first = min(max(begin - offset, 0), len(held))
            parts.append(held[first : max(end - offset, 0)])
            if end <= offset + len(held):
                break
            offset += len(held)
            block = next(blocks, None)
            held = held[:0] if block is None else block
            if block is None:
                break
        yield np.concatenate(parts)


def grey_frames(source: Source, damage: Damage) -> Iterator[np.ndarray]:
    """The pictures of a recording, grey uint8 (H, W), 25 a second, up to where it is damaged."""
    if isinstance(source, Arrays):
        return source.grey()
    frames = iter_video(source, grey=True, rate=LIP_RATE)
    return until_damaged(frames, lambda _: 1 / LIP_RATE, "pictures", damage)


def read_pieces(
    source: Source,
    streams: Streams,
    spans: Sequence[tuple[float, float]],
    damage: Damage,
    check: Callable[[], None] | None = None,
) -> Iterator[Piece]:
    """Read the segments of a recording, in order, each stream as far as it goes.

    Args:
        source: the recording.
        streams: which of its streams are read.
        spans: beginnings and ends in seconds, in order and without overlap.
        damage: tells after the last segment which streams are damaged.
        check: is called before each picture, also of pauses; what it raises ends the reading.

    Yields:
        the segments; one in which the pictures end is divided, see :func:`divide`, and one where
        there is nothing is left out.
    """
    speech: Iterator[np.ndarray] = iter(())
    rate = RATE
    if streams.audio:
        rate, blocks = audio_blocks(source, damage)
        speech = cut_blocks(blocks, [(round(a * rate), round(b * rate)) for a, b in spans])
    frames = grey_frames(source, damage) if streams.video else iter(())
    if check:
        frames = checked(frames, check)
    passed = 0
    samples = None
    for start, end in spans:
        samples = next(speech, None)
        first, last = round(start * LIP_RATE), round(end * LIP_RATE)
        for _ in islice(frames, first - passed):
            pass
        pictures = [reduce_frame(frame) for frame in islice(frames, last - first)]
        # A few recordings change their picture's size on the way.
        pictures = [
            picture
            if picture.shape == pictures[0].shape
            else cv2.resize(picture, pictures[0].shape[::-1], interpolation=cv2.INTER_AREA)
            for picture in pictures
        ]
        passed = last
        notes = []
        if samples is not None and not len(samples):
            samples = None
            notes.append("the sound has ended")
        if samples is not None:
            length = (last - first) * SAMPLES
            samples = fit_length(resample(samples, rate, RATE), length)
        piece = Piece(start, end, samples, pictures, notes)
        yield from divide(piece) if streams.video else [piece]
    if spans and samples is None:
        # The last segment ends with the pictures. Whether they are cut off shows only then.
        for _ in frames:
            pass


def checked[T](items: Iterator[T], check: Callable[[], None]) -> Iterator[T]:
    """The items, before each of which ``check`` may raise an error."""
    for item in items:
        check()
        yield item


def divide(piece: Piece) -> list[Piece]:
    """A segment of pictures and sound as it is, or in two parts where the pictures end in it.

    The cut is where it is quietest in the second before, so that no word is divided. Parts of less
    than half a second hold no word: pictures that lack less stay as they are, and fewer are left
    out. A segment without sound ends with its pictures, and one of neither is none.
    """
    whole, seen = round((piece.end - piece.start) * LIP_RATE), len(piece.frames)
    if piece.speech is None:
        return [replace(piece, end=piece.start + seen / LIP_RATE)] if seen else []
    shortest = round(SHORTEST * LIP_RATE)
    if seen == whole or (seen >= shortest and whole - seen < shortest):
        return [piece]
    cut = 0
    if seen >= shortest:
        first = max(shortest, seen - LIP_RATE)
        # Two levels for each picture; the last of equally quiet places is nearest to the end.
        level = smooth(levels([piece.speech], RATE))[2 * first : 2 * seen + 1 : 2]
        cut = seen - int(level[::-1].argmin())
    place = piece.start + cut / LIP_RATE
    rest = Piece(
        place,
        piece.end,
        piece.speech[cut * SAMPLES :],
        [],
        [*piece.notes, "the pictures have ended"],
    )
    if not cut:
        return [rest]
    seen_part = replace(
        piece, end=place, speech=piece.speech[: cut * SAMPLES], frames=piece.frames[:cut]
    )
    return [seen_part, rest]


def speech_levels(
    source: Source, damage: Damage, heard: Callable[[float], None] | None = None
) -> np.ndarray:
    """Level of every 20 ms of a recording's sound, see :func:`mome.transcribe.segments.levels`.

    Args:
        source: the recording.
        damage: tells whether the sound is damaged.
        heard: called every second of sound, and at its end, with the seconds so far.
    """
    rate, blocks = audio_blocks(source, damage)

    def told() -> Iterator[np.ndarray]:
        count = last = 0
        for block in blocks:
            yield block
            count += len(block)
            if heard and count - last >= rate:
                heard(count / rate)
                last = count
        if heard:
            heard(count / rate)

    return levels(told(), rate)


def video_seconds(source: Source) -> float:
    """Length of a recording's pictures, as far as they are there.

    It is read from the times of their packets without decoding them; headers may lie or say
    nothing.

    Raises:
        FileNotFoundError, MediaError: for a file that cannot be opened.
    """
    if isinstance(source, Arrays):
        return source.video_seconds
    with open_media(source) as container:
        stream = decodable(moving_pictures(container))
        if stream is None:
            return 0.0
        start = start_seconds(container)
        step = float(1 / (stream.average_rate or stream.guessed_rate or LIP_RATE))
        end = time = 0.0
        try:
            for packet in container.demux(stream):
                if packet.is_corrupt:
                    break
                if not packet.size or packet.is_discard:
                    continue
                moment = packet.dts if packet.pts is None else packet.pts
                if moment is not None:
                    begin = float(moment * stream.time_base) - start
                    if abs(begin - time) > MAX_GAP:
                        break
                    time = begin
                time += float(packet.duration * stream.time_base) if packet.duration else step
                end = max(end, time)
        except av.error.FFmpegError:
            pass  # whatever is wrong, decoding says where
    return end
