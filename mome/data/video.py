"""Read and write video with PyAV.

Grey values are luma expanded to the full range 0..255, which is what a conversion to RGB and then
to grey gives, so clips cropped elsewhere and here are read alike.
"""

import io
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from fractions import Fraction
from itertools import islice
from pathlib import Path

import av
import cv2
import numpy as np
from av import AudioStream, VideoStream
from av.container import InputContainer
from av.video.reformatter import ColorRange

from mome.common.atomic_files import write_bytes

LIP_SIZE = 96
LIP_RATE = 25
# A file with a smaller share of the frames or packets that its header announces is truncated.
COMPLETE = 0.9

_LIMITED_TO_FULL = np.clip(np.rint((np.arange(256) - 16) * (255 / 219)), 0, 255).astype(np.uint8)
_FULL_TO_LIMITED = np.rint(16 + np.arange(256) * (219 / 255)).astype(np.uint8)


class MediaError(ValueError):
    """A recording that cannot be used; the message names the file and the reason."""

    def __init__(self, path: str | Path, reason: str):
        super().__init__(path, reason)
        self.path = str(path)
        self.reason = reason

    def __str__(self) -> str:
        return f"{self.path}: {self.reason}"


@dataclass(frozen=True)
class VideoInfo:
    """Properties of a recording, read from its header.

    Lengths in seconds; audio fields are 0 without an audio stream.
    """

    fps: float
    num_frames: int
    width: int
    height: int
    seconds: float
    has_audio: bool
    audio_rate: int
    audio_channels: int
    audio_seconds: float


def video_info(path: str | Path) -> VideoInfo:
    """Read the header of a recording.

    Raises:
        FileNotFoundError: if the file does not exist.
        MediaError: for an unreadable file or one without a video stream.
    """
    with _open(path) as container:
        stream = _video_stream(container, path)
        fps = float(stream.average_rate or stream.guessed_rate or 0)
        if fps <= 0:
            raise MediaError(path, "the video has no frame rate")
        seconds = _stream_seconds(stream, container)
        audio = container.streams.audio[0] if container.streams.audio else None
        return VideoInfo(
            fps=fps,
            num_frames=stream.frames or round(seconds * fps),
            width=stream.codec_context.width,
            height=stream.codec_context.height,
            seconds=seconds,
            has_audio=audio is not None,
            audio_rate=audio.rate if audio else 0,
            audio_channels=audio.channels if audio else 0,
            audio_seconds=_stream_seconds(audio, container) if audio else 0.0,
        )


def iter_video(
    path: str | Path, grey: bool = False, rate: float | None = None
) -> Generator[np.ndarray, None, None]:
    """Decode a video frame by frame.

    Args:
        path: the recording.
        grey: luma only, without decoding to colours.
        rate: frames per second wanted; each output frame is the source frame nearest in time by
            its timestamp, counted from where the first stream of the file (video or audio) starts.
            None keeps the frames as they are.

    Yields:
        uint8 (H, W) or (H, W, 3) in RGB.

    Raises:
        FileNotFoundError: if the file does not exist.
        MediaError: for a file that is corrupt or truncated, or has no video stream or no frame.
    """
    convert = _grey if grey else _rgb
    with _open(path) as container:
        stream = _video_stream(container, path)
        # Decoding in this thread only: callers run one process a core.
        stream.codec_context.thread_type = "NONE"
        stream.codec_context.thread_count = 1
        frames = _decode(container, stream, path)
        for frame in frames if rate is None else _at_rate(frames, container, stream, rate):
            yield _upright(convert(frame), frame, stream)


def start_seconds(container: InputContainer) -> float:
    """Start time of a recording in seconds: that of its earliest stream."""
    return (container.start_time or 0) / av.time_base


def _at_rate(
    frames: Iterator[av.VideoFrame], container: InputContainer, stream: VideoStream, rate: float
) -> Iterator[av.VideoFrame]:
    """For each time of the constant output rate, the frame whose timestamp is nearest."""
    step = float(1 / (stream.average_rate or stream.guessed_rate or Fraction(LIP_RATE)))
    start = start_seconds(container)
    written, time = 0, -step
    previous: av.VideoFrame | None = None
    for frame in frames:
        previous_time = time
        time = previous_time + step if frame.time is None else frame.time - start
        # These output frames are nearer to the previous source frame than to this one.
        while previous is not None and written / rate < (previous_time + time) / 2:
            yield previous
            written += 1
        previous = frame
    assert previous is not None, "_decode raises an error for a video without frames"
    if previous.duration and previous.time_base:
        step = float(previous.duration * previous.time_base)
    while written / rate < time + step - 1e-6:
        yield previous
        written += 1


def _upright(image: np.ndarray, frame: av.VideoFrame, stream: VideoStream) -> np.ndarray:
    """Apply pixel aspect ratio and rotation as a player does; phones store video rotated."""
    aspect = stream.sample_aspect_ratio
    if aspect and aspect != 1:
        height, width = image.shape[:2]
        size = max(1, round(width * aspect)), height
        image = cv2.resize(image, size, interpolation=cv2.INTER_LINEAR)
    turns = round(frame.rotation / 90) % 4
    return np.ascontiguousarray(np.rot90(image, turns)) if turns else image


def cut_video(
    path: str | Path, span: tuple[int, int], grey: bool = False, rate: float | None = None
) -> Iterator[np.ndarray]:
    """Decode the frames from ``span[0]`` up to, excluding, ``span[1]``; otherwise as `iter_video`.

    Frames are counted from the beginning of the recording, so that the cut is exact; later
    frames are not decoded.

    Raises:
        MediaError: if the recording ends before the span begins.
    """
    frames = iter_video(path, grey, rate)
    wanted = islice(frames, *span)
    first = next(wanted, None)
    if first is None:
        raise MediaError(path, f"ends before frame {span[0]}, where a segment begins")
    yield first
    yield from wanted
    frames.close()


def read_video(path: str | Path, grey: bool = False, rate: float | None = None) -> np.ndarray:
    """Read a whole video; arguments and errors as `iter_video`.

    Returns:
        uint8 (T, H, W) when ``grey``, else (T, H, W, 3) in RGB.
    """
    return np.stack(list(iter_video(path, grey, rate)))


def write_lips(path: str | Path, frames: np.ndarray, rate: int = LIP_RATE, crf: int = 18) -> None:
    """Write grey frames as H.264 in MP4, atomically.

    Equal frames give equal bytes: the encoder runs in one thread, and without macroblock-tree rate
    control, which x264 computes in AVX-512 with results that change from run to run.

    Args:
        path: output, ``.mp4``.
        frames: uint8 (T, H, W) with even H and W.
        rate: frames per second.
        crf: x264's constant rate factor; 18 loses about 1 grey level.

    Raises:
        OSError: if the disk is full; the message names the file.
        ValueError: for frames of another type or shape.
    """
    path = Path(path)
    if frames.ndim != 3 or frames.dtype != np.uint8 or len(frames) == 0:
        raise ValueError(f"{path}: frames {frames.dtype} {frames.shape}, not uint8 (T, H, W)")
    height, width = frames.shape[1:]
    if height % 2 or width % 2:
        raise ValueError(f"{path}: H.264 needs even sides, not {width}x{height}")
    chroma = np.full((height // 2, width), 128, dtype=np.uint8)
    # Encode to memory first, because FFmpeg does not report a full disk.
    data = io.BytesIO()
    with av.open(data, "w", format="mp4") as container:
        stream = container.add_stream(
            "libx264",
            rate=rate,
            options={
                "preset": "veryfast",
                "crf": str(crf),
                "threads": "1",
                "bf": "0",
                "mbtree": "0",
            },
        )
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        for number, luma in enumerate(_FULL_TO_LIMITED[frames]):
            frame = av.VideoFrame.from_ndarray(np.concatenate([luma, chroma]), format="yuv420p")
            frame.pts = number
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    write_bytes(path, data.getvalue())


def read_lips(path: str | Path, size: int = LIP_SIZE) -> np.ndarray:
    """Read a mouth crop.

    Returns:
        uint8 (T, size, size), grey, at 25 frames per second.

    Raises:
        FileNotFoundError: if the file does not exist.
        MediaError: for an unreadable video or one of another size.
    """
    frames = read_video(path, grey=True, rate=LIP_RATE)
    if frames.shape[1:] != (size, size):
        height, width = frames.shape[1:]
        raise MediaError(
            path, f"{width}x{height} pixels, not a crop of {size}x{size}; crop it again"
        )
    return frames


def _open(path: str | Path) -> InputContainer:
    if not Path(path).is_file():
        raise FileNotFoundError(f"{path} does not exist")
    try:
        return av.open(str(path))
    except av.error.FFmpegError as error:
        raise MediaError(
            path, f"corrupt or truncated file ({error.strerror}); copy it again"
        ) from error


def _video_stream(container: InputContainer, path: str | Path) -> VideoStream:
    for stream in container.streams.video:
        # A cover picture is stored as a video stream of one frame.
        if not int(stream.disposition) & int(av.stream.Disposition.attached_pic):
            return stream
    raise MediaError(path, "no video stream; name a video in video.scp, or drop the utterance")


def _stream_seconds(stream: VideoStream | AudioStream, container: InputContainer) -> float:
    if stream.duration is not None:
        return float(stream.duration * stream.time_base)
    if container.duration is not None:
        return container.duration / av.time_base
    return 0.0


def _decode(
    container: InputContainer, stream: VideoStream, path: str | Path
) -> Iterator[av.VideoFrame]:
    packets = frames = 0
    try:
        for packet in container.demux(stream):
            packets += bool(packet.size)
            if packet.is_corrupt:
                raise MediaError(path, "truncated file; copy it again")
            for frame in packet.decode():
                frames += 1
                yield frame
    except av.error.FFmpegError as error:
        raise MediaError(
            path, f"corrupt or truncated file ({error.strerror}); copy it again"
        ) from error
    if packets < COMPLETE * stream.frames:
        raise MediaError(
            path, f"truncated file: {packets} of {stream.frames} frames; copy it again"
        )
    if frames == 0:
        raise MediaError(path, "the video has no frame")


def _grey(frame: av.VideoFrame) -> np.ndarray:
    """(H, W) luma in the full range."""
    name = frame.format.name
    if name.startswith(("yuv4", "yuvj4", "nv12", "nv21", "gray")) and not _over_eight_bits(frame):
        plane = frame.planes[0]
        luma = np.frombuffer(plane, dtype=np.uint8).reshape(plane.height, plane.line_size)
        luma = luma[:, : plane.width]
        full = name.startswith(("yuvj", "gray")) or frame.color_range == ColorRange.JPEG
        return luma.copy() if full else cv2.LUT(luma, _LIMITED_TO_FULL)
    return cv2.cvtColor(_rgb(frame), cv2.COLOR_RGB2GRAY)


def _over_eight_bits(frame: av.VideoFrame) -> bool:
    return any(component.bits > 8 for component in frame.format.components)


def _rgb(frame: av.VideoFrame) -> np.ndarray:
    return frame.to_ndarray(format="rgb24")
