"""Read and write video with PyAV.

Grey values are luma expanded to the full range 0..255, which is what a conversion to RGB and then
to grey gives, so clips cropped elsewhere and here are read alike.
"""

import io
from collections.abc import Generator, Iterable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, cast

import av
import cv2
import numpy as np
from av import AudioStream, VideoStream
from av.container import InputContainer
from av.sidedata.sidedata import Type as SideData
from av.video.reformatter import ColorRange

from mome.common.atomic_files import write_bytes
from mome.common.memory import OutOfMemory

LIP_SIZE = 96
LIP_RATE = 25
# A stream that lacks more than this of the length that its header announces is truncated: seconds,
# and a share of the length, whichever is more. Only these containers announce lengths; FFmpeg
# guesses those of others from bit rates, and those of AVI from what is left of the file. Counts in
# headers say nothing: of PCM they are samples, of which a packet holds many.
MISSING = 0.2, 0.02
MATROSKA = "matroska,webm"
WITH_LENGTHS = ("mov,mp4,m4a,3gp,3g2,mj2", MATROSKA, "flv", "asf")
# Timestamps that jump by more seconds are wrong. Filling the gap would also take much memory.
MAX_GAP = 10.0
# How crops, and clips of reports, are written: see write_lips.
X264 = {"preset": "veryfast", "tune": "fastdecode", "threads": "1", "bf": "0", "mbtree": "0"}
# No pixel is wider or higher than this; a damaged header makes pictures that fill the memory.
MAX_ASPECT = 8
# By what share the ratio of width and height may differ where a recording changes its size: sides
# are rounded to blocks of the codec.
SAME_SHAPE = 0.05

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


def reason_of(error: Exception) -> str:
    """Why a recording is excluded, in one line; an error that nobody expected is named as such."""
    text = " ".join(str(error).split())
    explained = isinstance(error, MediaError | FileNotFoundError | OutOfMemory)
    expected = explained or type(error) is ValueError
    return text if expected and text else f"{type(error).__name__}: {text or 'no message'}"


@dataclass(frozen=True)
class VideoInfo:
    """Properties of a recording, read from its header.

    Lengths in seconds; audio fields are 0 without an audio stream. The comment is what `write_lips`
    was given.
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
    comment: str


def video_info(path: str | Path) -> VideoInfo:
    """Read the header of a recording.

    Raises:
        FileNotFoundError: if the file does not exist.
        MediaError: for an unreadable file or one without a video stream.
    """
    with open_media(path) as container:
        stream = _video_stream(container, path)
        fps = float(stream.average_rate or stream.guessed_rate or 0)
        if fps <= 0:
            raise MediaError(path, "the video has no frame rate")
        seconds = stream_seconds(stream, container)
        audio = decodable(container.streams.audio)
        return VideoInfo(
            fps=fps,
            # Counts in headers are of other things too: of frames that an edit list leaves out,
            # or of the first fragment.
            num_frames=round(seconds * fps) or stream.frames,
            width=stream.codec_context.width,
            height=stream.codec_context.height,
            seconds=seconds,
            has_audio=audio is not None,
            audio_rate=audio.rate if audio else 0,
            audio_channels=audio.channels if audio else 0,
            audio_seconds=stream_seconds(audio, container) if audio else 0.0,
            comment=container.metadata.get("comment", ""),
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
        uint8 (H, W) or (H, W, 3) in RGB, all of the size of the first: recorded calls change theirs
        with the network.

    Raises:
        FileNotFoundError: if the file does not exist.
        MediaError: for a file that is corrupt or truncated, has no video stream or no frame, or
            whose picture changes its shape.
    """
    convert = _grey if grey else _rgb
    with open_media(path) as container:
        stream = _video_stream(container, path)
        if (aspect := stream.sample_aspect_ratio) and not 1 / MAX_ASPECT <= aspect <= MAX_ASPECT:
            raise MediaError(path, f"pixels of an aspect of {aspect}; fix its header")
        # Decoding in this thread only: callers run one process a core.
        stream.codec_context.thread_type = "NONE"
        stream.codec_context.thread_count = 1
        frames = decode(container, stream, path)
        if rate is not None:
            frames = _at_rate(frames, container, stream, rate, path)
        size: tuple[int, int] | None = None
        for frame in frames:
            image = _upright(convert(frame), frame, stream)
            size = size or image.shape[:2]
            yield image if image.shape[:2] == size else _resized(image, size, path)


def start_seconds(container: InputContainer) -> float:
    """Start time of a recording in seconds: that of its earliest stream."""
    return (container.start_time or 0) / av.time_base


def check_gap(seconds: float, path: str | Path) -> None:
    """Raise MediaError if timestamps jump by so many seconds that they must be wrong."""
    if abs(seconds) > MAX_GAP:
        raise MediaError(
            path, f"timestamps jump by {seconds:.1f} s; cut the recording there, or remux it"
        )


def _at_rate(
    frames: Iterator[av.VideoFrame],
    container: InputContainer,
    stream: VideoStream,
    rate: float,
    path: str | Path,
) -> Iterator[av.VideoFrame]:
    """For each time of the constant output rate, the frame whose timestamp is nearest."""
    step = float(1 / (stream.average_rate or stream.guessed_rate or Fraction(LIP_RATE)))
    start = start_seconds(container)
    written, time = 0, -step
    previous: av.VideoFrame | None = None
    for frame in frames:
        previous_time = time
        time = previous_time + step if frame.time is None else frame.time - start
        check_gap(time - previous_time, path)
        # These output frames are nearer to the previous source frame than to this one.
        while previous is not None and written / rate < (previous_time + time) / 2:
            yield previous
            written += 1
        previous = frame
    assert previous is not None, "decode raises an error for a video without frames"
    if previous.duration and previous.time_base:
        step = float(previous.duration * previous.time_base)
        check_gap(step, path)
    while written / rate < time + step - 1e-6:
        yield previous
        written += 1


def _upright(image: np.ndarray, frame: av.VideoFrame, stream: VideoStream) -> np.ndarray:
    """Apply pixel aspect ratio, rotation and mirroring as a player does.

    Phones store video rotated, and front cameras mirrored besides.
    """
    aspect = stream.sample_aspect_ratio
    if aspect and aspect != 1:
        height, width = image.shape[:2]
        size = max(1, round(width * aspect)), height
        image = cv2.resize(image, size, interpolation=cv2.INTER_LINEAR)
    shown = frame.side_data.get(SideData.DISPLAYMATRIX)
    if shown is None:
        return image
    # The pixel at (x, y) is shown in the direction of (a x + c y, b x + d y).
    (a, b), (c, d) = np.frombuffer(shown, dtype=np.int32)[:9].reshape(3, 3)[:2, :2].tolist()
    if abs(b) + abs(c) > abs(a) + abs(d):
        image = image.swapaxes(0, 1)
        to_right, to_bottom = c, b
    else:
        to_right, to_bottom = a, d
    image = image[:: -1 if to_bottom < 0 else 1, :: -1 if to_right < 0 else 1]
    return np.ascontiguousarray(image)


def _resized(image: np.ndarray, size: tuple[int, int], path: str | Path) -> np.ndarray:
    """A picture at another size, (height, width), of the same shape but for rounding."""
    height, width = image.shape[:2]
    if abs(width * size[0] / (height * size[1]) - 1) > SAME_SHAPE:
        was, now = f"{size[1]}x{size[0]}", f"{width}x{height}"
        raise MediaError(path, f"the picture changes from {was} to {now}; cut the recording there")
    return cv2.resize(image, size[::-1], interpolation=cv2.INTER_AREA)


def read_video(path: str | Path, grey: bool = False, rate: float | None = None) -> np.ndarray:
    """Read a whole video; arguments and errors as `iter_video`.

    Returns:
        uint8 (T, H, W) when ``grey``, else (T, H, W, 3) in RGB.
    """
    return np.stack(list(iter_video(path, grey, rate)))


def write_lips(
    path: str | Path, frames: np.ndarray, rate: int = LIP_RATE, crf: int = 18, comment: str = ""
) -> None:
    """Write grey frames as H.264 in MP4, atomically.

    Equal frames give equal bytes: the encoder runs in one thread, and without macroblock-tree rate
    control, which x264 computes in AVX-512 with results that change from run to run. Without the
    arithmetic coding and the deblocking filter of H.264 they are read in three quarters of the
    time, which is once an epoch, and are as large (tools/bench/crops.py).

    Args:
        path: output, ``.mp4``.
        frames: uint8 (T, H, W) with even H and W.
        rate: frames per second.
        crf: x264's constant rate factor; 18 loses about 1 grey level.
        comment: a note that is stored in the file.

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
        if comment:
            container.metadata["comment"] = comment
        stream = container.add_stream(
            "libx264",
            rate=rate,
            options={**X264, "crf": str(crf)},
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


# What FFmpeg takes for a recording and is a list of others, here or in the network, which a file
# from somewhere else shall not make anyone read.
PLAYLISTS = {"concat", "dash", "hls", "imf", "rtp", "rtsp", "sdp", "webm_dash_manifest", "lavfi"}
RECORDINGS = ",".join(sorted(av.formats_available - PLAYLISTS))


def open_media(path: str | Path) -> InputContainer:
    """Open a recording; playlists are none.

    Raises:
        FileNotFoundError: if the file does not exist.
        MediaError: if it is no recording.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"{path} does not exist")
    try:
        # FFmpeg takes what comes before a colon in a relative name for a protocol.
        container = av.open(str(Path(path).absolute()), options={"format_whitelist": RECORDINGS})
    except av.error.FFmpegError as error:
        raise _damaged(path, error) from error
    return container


def _lacks_bytes(path: str | Path) -> bool:
    """Whether an AVI ends before its chunks do, each of which begins with a name and a size."""
    length = Path(path).stat().st_size
    with open(path, "rb") as file:
        while (begin := file.tell()) + 8 <= length:
            size = int.from_bytes(file.read(8)[4:], "little")
            if size in (0, 2**32 - 1):  # the camera never came back to write it
                return False
            if begin + 8 + size > length:
                return True
            file.seek(begin + 8 + size + size % 2)
    return False


def decodable[Stream: (AudioStream, VideoStream)](streams: Iterable[Stream]) -> Stream | None:
    """The first of a recording's streams whose codec FFmpeg knows."""
    return next((stream for stream in streams if stream.codec_context is not None), None)


def unknown_codec(path: str | Path, stream: str) -> MediaError:
    """The error for a stream that FFmpeg cannot decode."""
    return MediaError(path, f"{stream} in a codec that FFmpeg does not know; convert it")


def moving_pictures(container: InputContainer) -> list[VideoStream]:
    """The video streams of a recording but for cover pictures, which are streams of one frame."""
    cover = int(av.stream.Disposition.attached_pic)
    return [each for each in container.streams.video if not int(each.disposition) & cover]


def _video_stream(container: InputContainer, path: str | Path) -> VideoStream:
    streams = moving_pictures(container)
    if not streams:
        raise MediaError(path, "no video stream; name a video in video.scp, or drop the utterance")
    stream = decodable(streams)
    if stream is None:
        raise unknown_codec(path, "video")
    return stream


def stream_seconds(
    stream: VideoStream | AudioStream, container: InputContainer, end: float = 0.0
) -> float:
    """Length of a stream by its header, in seconds; of a stream without one, as `file_seconds`."""
    if stream.duration is not None:
        return float(stream.duration * stream.time_base)
    return file_seconds(container, end)


def file_seconds(container: InputContainer, end: float = 0.0) -> float:
    """Length of a recording by its header, in seconds; 0 if it does not say it.

    Of what Matroska announces, FFmpeg writes the time when the recording ends, and mkvmerge how
    long it lasts. These differ if the timestamps do not begin with 0, as after ``-copyts``.

    Args:
        container: the recording.
        end: timestamp, in seconds, up to which there are frames, if that is known. One beyond
            what is announced shows that this is a length.
    """
    announced = (container.duration or 0) / av.time_base
    start = start_seconds(container)
    by_ffmpeg = container.metadata.get("ENCODER", "").startswith("Lavf")
    is_end = by_ffmpeg and max(start, end - MISSING[0]) < announced
    if container.format.name == MATROSKA and is_end:
        return announced - start
    return announced


def decode(
    container: InputContainer, stream: VideoStream | AudioStream, path: str | Path
) -> Iterator[Any]:
    """Decode all frames of a stream.

    Yields:
        Video or audio frames.

    Raises:
        MediaError: for a stream that is corrupt, truncated or without a frame.
    """
    # Without a length of its own, a stream may well end before the recording does. What other
    # streams hold is then needed to tell whether the end of the recording is there.
    whole = stream.duration is None
    step = 1 / (stream.average_rate or LIP_RATE) if isinstance(stream, VideoStream) else 0
    start = start_seconds(container)
    if not whole and stream.start_time is not None:
        start = float(stream.start_time * stream.time_base)
    end, decoded_end, frames = start, start, 0
    try:
        for packet in container.demux() if whole else container.demux(stream):
            if packet.stream.index != stream.index:
                if packet.pts is not None and packet.time_base:
                    end = max(end, float((packet.pts + (packet.duration or 0)) * packet.time_base))
                continue
            if packet.is_corrupt:
                raise MediaError(path, "truncated file; copy it again")
            for frame in cast(list[av.VideoFrame | av.AudioFrame], packet.decode()):
                frames += 1
                length = _frame_seconds(frame) or float(step)
                decoded_end = (decoded_end if frame.time is None else frame.time) + length
                end = max(end, decoded_end)
                yield frame
    except av.error.FFmpegError as error:
        raise _damaged(path, error) from error
    if container.format.name == "avi" and _lacks_bytes(path):
        raise MediaError(path, "truncated file: the end of an AVI is missing; copy it again")
    if frames == 0:
        kind = "video has no frame" if isinstance(stream, VideoStream) else "audio has no samples"
        raise MediaError(path, f"the {kind}")
    if container.format.name in WITH_LENGTHS:
        announced = stream_seconds(stream, container, end)
        if lacks(end - start, announced):
            raise truncated(path, end - start, announced)


def lacks(found: float, announced: float) -> bool:
    """Whether so many seconds of those that a header announces are a part only."""
    seconds, share = MISSING
    return announced - found > max(seconds, share * announced)


def truncated(path: str | Path, found: float, announced: float) -> MediaError:
    """The error for a file of which so many seconds are there."""
    return MediaError(path, f"truncated file: {found:.2f} of {announced:.2f} s; copy it again")


def _frame_seconds(frame: av.VideoFrame | av.AudioFrame) -> float:
    """Length of a frame; 0 if a video frame does not say it."""
    if isinstance(frame, av.AudioFrame):
        return frame.samples / frame.rate
    return float(frame.duration * frame.time_base) if frame.duration and frame.time_base else 0.0


def _damaged(path: str | Path, error: av.error.FFmpegError) -> MediaError:
    return MediaError(path, f"corrupt or truncated file ({error.strerror}); copy it again")


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
