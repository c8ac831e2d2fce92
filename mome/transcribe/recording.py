"""Read a recording segment by segment, so that its length does not decide the memory.

A recording is read twice: first its sound, to find the pauses, then both streams side by side. At
any time no more than the segment that is being read is held.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path

import cv2
import numpy as np

from mome.data.audio import RATE, fit_length, iter_audio, resample
from mome.data.video import (
    LIP_RATE,
    MediaError,
    decodable,
    iter_video,
    moving_pictures,
    open_media,
)
from mome.lips.extract import reduce_frame
from mome.transcribe.segments import levels


@dataclass(frozen=True)
class Streams:
    """Whether a recording has sound, and whether it has pictures."""

    audio: bool
    video: bool


@dataclass(frozen=True)
class Piece:
    """One segment of a recording.

    Attributes:
        start, end: in seconds.
        speech: float32 (N,) at 16 kHz, or None without sound.
        frames: T grey pictures uint8 (H, W) at 25 a second; empty where there are none.
    """

    start: float
    end: float
    speech: np.ndarray | None
    frames: list[np.ndarray]


def probe(path: Path) -> Streams:
    """Which streams a recording has.

    Raises:
        FileNotFoundError: if it does not exist.
        MediaError: if it cannot be opened, or holds neither sound nor pictures.
    """
    with open_media(path) as container:
        if container.format.name == "image2" or container.format.name.endswith("_pipe"):
            raise MediaError(path, "a picture, no recording")
        streams = Streams(
            decodable(container.streams.audio) is not None,
            decodable(moving_pictures(container)) is not None,
        )
    if not streams.audio and not streams.video:
        raise MediaError(path, "neither sound nor pictures in it that can be decoded")
    return streams


def audio_blocks(path: Path) -> tuple[int, Iterator[np.ndarray]]:
    """The sound of a recording: its samples per second, and float32 (N,), some at a time.

    It begins where the first of all streams begins; see :func:`mome.data.audio.iter_audio`.

    Raises:
        MediaError: for a corrupt file, also later while it is read.
    """
    blocks = iter_audio(path)
    rate, first = next(blocks)
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


def read_pieces(
    path: Path, streams: Streams, spans: Sequence[tuple[float, float]]
) -> Iterator[Piece]:
    """Read the segments of a recording, in order.

    Args:
        path: the recording.
        streams: which of its streams are read.
        spans: beginnings and ends in seconds, in order and without overlap.

    Raises:
        MediaError: for a corrupt file; the segments before were given.
    """
    speech: Iterator[np.ndarray] = iter(())
    rate = RATE
    if streams.audio:
        rate, blocks = audio_blocks(path)
        speech = cut_blocks(blocks, [(round(a * rate), round(b * rate)) for a, b in spans])
    frames = iter_video(path, grey=True, rate=LIP_RATE) if streams.video else iter(())
    passed = 0
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
        if samples is not None:
            length = (last - first) * (RATE // LIP_RATE)
            samples = fit_length(resample(samples, rate, RATE), length)
        yield Piece(start, end, samples, pictures)


def speech_levels(path: Path) -> np.ndarray:
    """Level of every 20 ms of a recording's sound, see :func:`mome.transcribe.segments.levels`."""
    rate, blocks = audio_blocks(path)
    return levels(blocks, rate)


def video_seconds(path: Path) -> float:
    """Length of a recording's pictures by decoding them; headers may lie or say nothing."""
    return sum(1 for _ in iter_video(path, grey=True, rate=LIP_RATE)) / LIP_RATE
