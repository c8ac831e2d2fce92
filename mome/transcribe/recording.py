"""Read a recording segment by segment, so that its length does not decide the memory.

A recording is read twice: first its sound, to find the pauses, then both streams side by side. At
any time no more than the segment that is being read is held.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import av
import numpy as np

from mome.data.audio import RATE, fit_length, resample
from mome.data.video import LIP_RATE, MediaError, iter_video, start_seconds
from mome.lips.extract import reduce_frame
from mome.transcribe.segments import levels

GAP = 0.1  # seconds by which timestamps may differ from the samples before them


@dataclass(frozen=True)
class Streams:
    """What a recording holds: whether it has sound and pictures, and its length in seconds.

    The length is what the header says, and 0 if it does not say.
    """

    audio: bool
    video: bool
    seconds: float


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
    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist")
    try:
        with av.open(str(path)) as container:
            cover = int(av.stream.Disposition.attached_pic)
            audio = bool(container.streams.audio)
            video = any(not int(s.disposition) & cover for s in container.streams.video)
            seconds = (container.duration or 0) / av.time_base
    except av.error.FFmpegError as error:
        raise MediaError(
            path, f"no recording that can be read, or a corrupt one ({error.strerror})"
        ) from error
    if not audio and not video:
        raise MediaError(path, "neither sound nor pictures in it")
    return Streams(audio, video, seconds)


def audio_rate(path: Path) -> int:
    """Samples per second of a recording's sound."""
    with av.open(str(path)) as container:
        return container.streams.audio[0].rate


def audio_blocks(path: Path) -> Iterator[np.ndarray]:
    """The sound of a recording from where its first stream starts: float32 (N,), some at a time.

    Channels are averaged. Where timestamps leave a gap there is silence, and where they go back,
    samples are left out, so that sound and pictures stay together.

    Raises:
        MediaError: for a corrupt file.
    """
    try:
        with av.open(str(path)) as container:
            stream = container.streams.audio[0]
            rate, begin = stream.rate, start_seconds(container)
            given, convert, known = 0, None, None
            for frame in container.decode(stream):
                kind = frame.format.name, frame.layout.name, frame.sample_rate
                if kind != known:  # some streams change in the middle
                    known = kind
                    convert = av.AudioResampler(format="fltp", layout=frame.layout, rate=rate)
                assert convert is not None
                skip = 0
                if frame.time is not None:
                    late = frame.time - begin - given / rate
                    skip = max(0, round(-late * rate)) if late < -GAP else 0
                    missing = round(late * rate) if late > GAP or not given else 0
                    while missing > 0:
                        count = min(missing, rate)
                        yield np.zeros(count, dtype=np.float32)
                        given, missing = given + count, missing - count
                for block in convert.resample(frame):
                    samples = block.to_ndarray().mean(axis=0)[skip:]
                    skip = max(0, skip - block.samples)
                    given += len(samples)
                    yield samples
    except av.error.FFmpegError as error:
        raise MediaError(
            path, f"corrupt or truncated file ({error.strerror}); copy it again"
        ) from error


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
        rate = audio_rate(path)
        speech = cut_blocks(
            audio_blocks(path), [(round(a * rate), round(b * rate)) for a, b in spans]
        )
    frames = iter_video(path, grey=True, rate=LIP_RATE) if streams.video else iter(())
    passed = 0
    for start, end in spans:
        samples = next(speech, None)
        first, last = round(start * LIP_RATE), round(end * LIP_RATE)
        for _ in islice(frames, first - passed):
            pass
        pictures = [reduce_frame(frame) for frame in islice(frames, last - first)]
        passed = last
        if samples is not None:
            length = (last - first) * (RATE // LIP_RATE)
            samples = fit_length(resample(samples, rate, RATE), length)
        yield Piece(start, end, samples, pictures)


def speech_levels(path: Path) -> np.ndarray:
    """Level of every 20 ms of a recording's sound, see :func:`mome.transcribe.segments.levels`."""
    return levels(audio_blocks(path), audio_rate(path))


def video_seconds(path: Path) -> float:
    """Length of a recording's pictures by decoding them; headers may lie or say nothing."""
    return sum(1 for _ in iter_video(path, grey=True, rate=LIP_RATE)) / LIP_RATE
