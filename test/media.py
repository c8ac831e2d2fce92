"""Small recordings for tests."""

import os
import re
import struct
from collections.abc import Sequence
from fractions import Fraction
from functools import lru_cache
from pathlib import Path

import av
import cv2
import numpy as np

from mome.lips.detectors import LANDMARKS

CLOCK = Fraction(1, 90000)
DOWNLOADS = Path(os.environ.get("MOME_DOWNLOADS", Path(__file__).parents[1] / "downloads"))


def quick_detector() -> str:
    """The detector of faces that is loaded fastest, for tests to which it does not matter which.

    MediaPipe's networks are read in no time, dlib's landmark model takes the better part of a
    second in each process. It stands in where MediaPipe's are not, as on ARM.
    """
    return "mediapipe" if (DOWNLOADS / LANDMARKS["mediapipe"]).is_dir() else "dlib"


def quick_options() -> list[object]:
    """Options of mome.bin.prepare_media that ask for :func:`quick_detector`."""
    detector = quick_detector()
    return ["--detector", detector, "--landmarks", DOWNLOADS / LANDMARKS[detector]]


def write_clip(
    path: Path,
    frames: np.ndarray | None = None,
    num_frames: int = 10,
    fps: int | Fraction = 25,
    audio: bool = True,
    audio_seconds: float | None = None,
    samples: np.ndarray | None = None,
    size: int = 64,
    times: Sequence[float] | None = None,
    audio_start: float = 0.0,
    rotation: int = 0,
    aspect: Fraction | None = None,
    codecs: tuple[str, str] = ("libx264", "aac"),
    rate: int = 16000,
    layout: str = "mono",
    audio_times: Sequence[float] | None = None,
) -> None:
    """A clip of RGB frames (noise by default) and 16 kHz mono sound (a tone by default).

    The suffix of ``path`` names the container, ``codecs`` what is in it. Frames are shown at
    ``times`` (seconds), or at steps of ``1 / fps``; blocks of 1024 samples, the same in all
    channels of ``layout``, are heard at ``audio_times``, or one after the other. ``rotation``
    (degrees, counter-clockwise) and the ``aspect`` of a pixel are notes for the player.
    """
    rng = np.random.default_rng(0)
    if frames is None:
        frames = rng.integers(0, 255, (num_frames, size, size, 3), dtype=np.uint8)
    seconds = audio_seconds if audio_seconds is not None else max(len(frames), 1) / fps
    if samples is None:
        samples = 0.1 * np.sin(2 * np.pi * 440 / rate * np.arange(round(seconds * rate)))
    options = {"movflags": "faststart"} if path.suffix in (".mp4", ".mov") else {}
    with av.open(str(path), "w", options=options) as container:
        if len(frames):
            # Looking ahead, x264 writes other bytes each time on some processors.
            x264 = {"crf": "10", "x264-params": "sync-lookahead=0:rc-lookahead=0"}
            quality = x264 if codecs[0] == "libx264" else {"qmin": "1", "qmax": "3"}
            video = container.add_stream(codecs[0], rate=fps, options=quality | {"threads": "1"})
            video.height, video.width = frames.shape[1:3]
            video.pix_fmt = "yuvj420p" if codecs[0] == "mjpeg" else "yuv420p"
            if times is not None:
                video.codec_context.time_base = CLOCK
            if rotation:
                video.set_display_rotation(rotation)
            if aspect:
                video.codec_context.sample_aspect_ratio = aspect
        if audio:
            sound = container.add_stream(codecs[1], rate=rate, layout=layout)
        for number, image in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format="rgb24")
            frame.pts = number
            if times is not None:
                frame.pts, frame.time_base = round(times[number] / CLOCK), CLOCK
            container.mux(video.encode(frame))
        if len(frames):
            container.mux(video.encode(None))
        if audio:
            channels = av.AudioLayout(layout).nb_channels
            for number, start in enumerate(range(0, len(samples), 1024)):
                block = np.tile(samples[start : start + 1024].astype(np.float32), (channels, 1))
                frame = av.AudioFrame.from_ndarray(block, format="fltp", layout=layout)
                frame.rate, frame.pts = rate, start + round(rate * audio_start)
                if audio_times is not None:
                    frame.pts = round(rate * audio_times[number])
                container.mux(sound.encode(frame))
            container.mux(sound.encode(None))


def patch_avi(path: Path, kind: bytes, field: int, seconds: float) -> None:
    """Add seconds to a number of an AVI's stream headers of a kind: 28 is dwStart, 32 dwLength."""
    content = bytearray(path.read_bytes())
    for begin in (at.start() + 8 for at in re.finditer(b"strh", content)):
        if content[begin : begin + 4] == kind:
            scale, rate = struct.unpack_from("<2I", content, begin + 20)
            (ticks,) = struct.unpack_from("<I", content, begin + field)
            struct.pack_into("<I", content, begin + field, ticks + round(seconds * rate / scale))
    path.write_bytes(content)


@lru_cache
def photograph() -> np.ndarray:
    """A portrait, RGB (600, 512, 3); the face is 210 pixels wide with its middle at (268, 250)."""
    from matplotlib import cbook

    image = cv2.imread(str(cbook.get_sample_data("grace_hopper.jpg", asfileobj=False)))
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB)


def head_motion(num_frames: int, size: int) -> np.ndarray:
    """Similarities (T, 2, 3) from the photograph to frames of size x size: a moving head."""
    time = np.arange(num_frames)
    scale = size / 224 * 0.5 * (1 + 0.05 * np.sin(time / 9))
    angle = 0.06 * np.sin(time / 7)
    centre = size * np.stack([0.5 + 0.04 * np.sin(time / 10), 0.5 + 0.03 * np.cos(time / 8)], 1)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    matrix = (scale * turn).transpose(2, 0, 1)
    shift = centre - matrix @ np.array([268.0, 250.0])
    return np.concatenate([matrix, shift[:, :, None]], axis=2)


def talking_head(num_frames: int, size: int) -> np.ndarray:
    """RGB frames (T, size, size, 3) of the photograph with head motion."""
    # Drawn at twice the size and averaged, so that a smaller clip is the reduced larger one.
    frames = [
        cv2.warpAffine(photograph(), 2 * m, (2 * size, 2 * size), borderMode=cv2.BORDER_REPLICATE)
        for m in head_motion(num_frames, size)
    ]
    return np.stack([cv2.resize(f, (size, size), interpolation=cv2.INTER_AREA) for f in frames])


# Ends the process that opens a file of this name, as a fault of a decoder does.
CRASH = """
import os, signal, av, soundfile
names = tuple(os.environ["CRASHING"].split())
def fragile(opened, place=0):
    def open(*args, **kwargs):
        if str(args[place]).endswith(names):
            os.kill(os.getpid(), signal.SIGSEGV)
        return opened(*args, **kwargs)
    return open
av.open = fragile(av.open)
soundfile.SoundFile._open = fragile(soundfile.SoundFile._open, 1)
"""


def let_workers_crash(folder: Path, monkeypatch, names: str = "crash.mp4") -> None:
    """Let worker processes, and not this one, end by a fault where they open such a file.

    Args:
        folder: of this test.
        monkeypatch: pytest's.
        names: how the files' names end, with blanks between.
    """
    monkeypatch.setenv("CRASHING", names)
    (folder / "sitecustomize.py").write_text(CRASH)
    monkeypatch.setenv("PYTHONPATH", f"{folder}:{os.environ.get('PYTHONPATH', '')}")
