"""From a video file to its mouth crop."""

from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from mome.data.video import LIP_RATE, MediaError, iter_video
from mome.lips.crop import crop_mouth
from mome.lips.landmarks import FaceTracker, fill_lost

# Larger pictures are reduced to this longer side: a face that fills a quarter of it still has more
# pixels than the crop.
FRAME_SIDE = 720


@dataclass(frozen=True)
class Lips:
    """Mouth crop, uint8 (T, 96, 96) at 25 frames per second, and how many frames had no face."""

    frames: np.ndarray
    lost: int


def extract_lips(
    path: str | Path, tracker: FaceTracker, window: int = 12, max_lost: float = 0.5
) -> Lips:
    """Find the face of a video and cut its mouth.

    Args:
        path: video of any size and frame rate.
        tracker: finds the landmarks.
        window: frames over which landmarks are averaged.
        max_lost: largest share of frames without a face; these are interpolated.

    Raises:
        FileNotFoundError: without the file.
        MediaError: for a corrupt video, one without video stream, or without a face.
    """
    frames = [_reduce(frame) for frame in iter_video(path, grey=True, rate=LIP_RATE)]
    landmarks = tracker(frames)
    lost = sum(points is None for points in landmarks)
    if lost == len(frames):
        raise MediaError(path, "no face in any frame")
    if lost > max_lost * len(frames):
        raise MediaError(path, f"no face in {lost} of {len(frames)} frames")
    return Lips(crop_mouth(frames, fill_lost(landmarks), window), lost)


def _reduce(frame: np.ndarray) -> np.ndarray:
    scale = FRAME_SIDE / max(frame.shape)
    if scale >= 1:
        return frame
    return cv2.resize(frame, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
