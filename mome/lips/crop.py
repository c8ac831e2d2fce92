"""Crop the mouth from a video: smooth the landmarks, align them to a mean face, crop.

As AV-HuBERT does, the transform of each frame is the similarity that brings five points which
speech does not move (nose base and eye corners) to those of a mean face. Here the mean face has
units of its own, the distance between the outer eye corners, so that the crop shows the same part
of the face at every resolution of the video.
"""

from collections.abc import Iterable

import cv2
import numpy as np

from mome.data.video import LIP_SIZE

STABLE = (33, 36, 39, 42, 45)  # nose base, outer and inner corners of both eyes
MOUTH = slice(48, 68)
# Frontal face in units of the distance between the outer eye corners, x to the right, y down, from
# the point midway between them: round proportions of what the 68-point model marks.
MEAN_FACE = np.array([(0.0, 0.58), (-0.5, 0.0), (-0.22, 0.01), (0.22, 0.01), (0.5, 0.0)])
# Side of the crop in the same units: the scale of AV-HuBERT's and Auto-AVSR's crops, 96 pixels of a
# face with 74 pixels between the outer eye corners.
CROP_SIDE = 1.3


def smooth(landmarks: np.ndarray, window: int = 12) -> np.ndarray:
    """Moving average over time, with a shorter window at both ends.

    Args:
        landmarks: (T, 68, 2).
        window: number of frames averaged; AV-HuBERT takes 12.

    Returns:
        (T, 68, 2).
    """
    frames = np.arange(len(landmarks))
    # The window is symmetric, so that the average does not lag behind a steady motion.
    reach = np.minimum(window // 2, np.minimum(frames, len(landmarks) - 1 - frames))
    sums = np.concatenate([np.zeros_like(landmarks[:1]), np.cumsum(landmarks, axis=0)])
    counts = (2 * reach + 1).reshape(-1, *[1] * (landmarks.ndim - 1))
    return (sums[frames + reach + 1] - sums[frames - reach]) / counts


def similarity(source: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Least-squares rotation, scale and shift that bring source points to target points.

    In the plane this has a closed form (S. Umeyama, PAMI 1991).

    Args:
        source: (N, 2).
        target: (N, 2).

    Returns:
        (2, 3) matrix as OpenCV takes it.

    Raises:
        ValueError: if all source points coincide.
    """
    from_mean, to_mean = source.mean(0), target.mean(0)
    a, b = source - from_mean, target - to_mean
    spread = (a**2).sum()
    if spread == 0:
        raise ValueError("the points to align coincide")
    cosine = (a * b).sum() / spread
    sine = (a[:, 0] * b[:, 1] - a[:, 1] * b[:, 0]).sum() / spread
    matrix = np.array([[cosine, -sine], [sine, cosine]])
    return np.column_stack([matrix, to_mean - matrix @ from_mean])


def crop_matrices(landmarks: np.ndarray, window: int = 12, size: int = LIP_SIZE) -> np.ndarray:
    """Similarities (T, 2, 3) from the frames to the crops; arguments as of `crop_mouth`."""
    matrices = []
    for points in smooth(landmarks, window):
        matrix = similarity(points[list(STABLE)], MEAN_FACE * (size / CROP_SIDE))
        mouth = matrix[:, :2] @ points[MOUTH].mean(0) + matrix[:, 2]
        matrix[:, 2] += (size - 1) / 2 - mouth
        matrices.append(matrix)
    return np.stack(matrices)


def shares_within(
    matrices: np.ndarray, box: tuple[int, int, int, int], size: int = LIP_SIZE
) -> np.ndarray:
    """How much of each crop shows a part of the frame, of which the rest is black.

    Args:
        matrices: (T, 2, 3), see `crop_matrices`.
        box: first column and row of the part, and those after its last.
        size: side of the crop in pixels.

    Returns:
        (T,), from 0 to 1, measured at every fourth pixel.
    """
    pixels = np.stack(np.meshgrid(*[np.arange(1.5, size, 4)] * 2), axis=-1).reshape(-1, 2)
    back = np.linalg.inv(matrices[:, :, :2])
    places = (pixels - matrices[:, None, :, 2]) @ back.transpose(0, 2, 1)
    first, last = np.array(box[:2]) - 0.5, np.array(box[2:]) - 0.5
    return ((places >= first) & (places < last)).all(axis=2).mean(axis=1)


def crop_mouth(
    frames: Iterable[np.ndarray], landmarks: np.ndarray, window: int = 12, size: int = LIP_SIZE
) -> np.ndarray:
    """Crop the mouth from every frame.

    Args:
        frames: T grey frames, uint8 (H, W).
        landmarks: (T, 68, 2) of x and y in pixels.
        window: frames over which landmarks are averaged.
        size: side of the crop in pixels.

    Returns:
        uint8 (T, size, size), the mouth centre in the middle; black beyond the picture.
    """
    matrices = crop_matrices(landmarks, window, size)
    return np.stack([warp(f, matrix, size) for f, matrix in zip(frames, matrices, strict=True)])


def warp(frame: np.ndarray, matrix: np.ndarray, size: int) -> np.ndarray:
    """Apply a similarity (2, 3) to a grey frame: (H, W) -> (size, size).

    A frame that shrinks twofold or more is first reduced by averaging, to avoid aliasing.
    """
    shrink = int(1 / np.hypot(matrix[0, 0], matrix[1, 0]))
    if shrink >= 2:
        height, width = (side // shrink * shrink for side in frame.shape)
        frame = cv2.resize(
            frame[:height, :width],
            (width // shrink, height // shrink),
            interpolation=cv2.INTER_AREA,
        )
        # Pixel centres: x_full = shrink * x_small + (shrink - 1) / 2.
        offset = np.full(2, (shrink - 1) / 2)
        matrix = np.column_stack([matrix[:, :2] * shrink, matrix[:, :2] @ offset + matrix[:, 2]])
    return cv2.warpAffine(frame, matrix, (size, size), flags=cv2.INTER_LINEAR)
