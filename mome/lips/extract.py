"""Extract the mouth crop of a video file."""

from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from mome.data.video import LIP_RATE, MediaError, cut_video, iter_video
from mome.lips.crop import crop_mouth
from mome.lips.landmarks import FaceTracker, fill_missing

# Larger pictures are reduced to this longer side: a face that fills a quarter of it still has more
# pixels than the crop.
FRAME_SIDE = 720
REMEDY = "look at it; --detector, --detect_side or --max_lost may help"


@dataclass(frozen=True)
class Lips:
    """Mouth crop, uint8 (T, 96, 96) at 25 frames per second.

    The face was searched for in ``seen`` frames and not found in ``lost`` of these.
    """

    frames: np.ndarray
    seen: int
    lost: int


def extract_lips(
    path: str | Path,
    tracker: FaceTracker,
    landmark_every: int = 3,
    window: int = 12,
    max_lost: float = 0.5,
    span: tuple[int, int] | None = None,
) -> Lips:
    """Find the face in a video and crop its mouth.

    Args:
        path: video of any size and frame rate.
        tracker: finds the landmarks.
        landmark_every: landmarks are found in every k-th frame and interpolated linearly; they are
            averaged over ``window`` frames anyway.
        window: frames over which landmarks are averaged.
        max_lost: largest share of frames without a face; these are interpolated.
        span: first frame and the one after the last, at 25 frames per second; None is all.

    Raises:
        FileNotFoundError: if the file does not exist.
        MediaError: for a corrupt video, one without video stream, or without a face.
    """
    frames = read_frames(path, span)
    seen = sorted({*range(0, len(frames), landmark_every), len(frames) - 1})
    landmarks: list[np.ndarray | None] = [None] * len(frames)
    for i, points in zip(seen, tracker([frames[i] for i in seen]), strict=True):
        landmarks[i] = points
    lost = sum(landmarks[i] is None for i in seen)
    if lost == len(seen):
        raise MediaError(path, f"no face in any frame; {REMEDY}")
    if lost > max_lost * len(seen):
        raise MediaError(path, f"no face in {lost} of {len(seen)} frames; {REMEDY}")
    return Lips(crop_mouth(frames, fill_missing(landmarks), window), len(seen), lost)


def read_frames(path: str | Path, span: tuple[int, int] | None = None) -> list[np.ndarray]:
    """Grey frames at 25 a second, large ones reduced; errors and ``span`` as `extract_lips`."""
    decoded = cut_video(path, span, True, LIP_RATE) if span else iter_video(path, True, LIP_RATE)
    return [reduce_frame(frame) for frame in decoded]


def reduce_frame(frame: np.ndarray) -> np.ndarray:
    """A grey frame (H, W) as it is, or with a longer side of FRAME_SIDE pixels if that is less."""
    scale = FRAME_SIDE / max(frame.shape)
    if scale >= 1:
        return frame
    return cv2.resize(frame, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
