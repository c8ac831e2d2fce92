"""MediaPipe's face detector and face mesh in place of dlib's, run by OpenCV.

The networks are BlazeFace (V. Bazarevsky et al., 2019, the short-range model) and Face Mesh (Y.
Kartynnik et al., 2019), licensed under Apache 2.0. Packages of MediaPipe that carry them need NumPy
1 and an old protobuf, and later ones come without them, so OpenCV runs them here.
"""

from itertools import product
from pathlib import Path

import cv2
import numpy as np

from mome.lips.crop import warp
from mome.lips.landmarks import Face, FaceTracker

DETECTOR_SIDE = 128
MESH_SIDE = 192
MIN_SCORE = 0.5
MIN_DISTANCE = 0.6  # between two faces, in sides of the larger one
# From a box of the detector to the box of the 68-point model, in units of its side: medians over
# photographed and generated faces.
BOX_SCALE, BOX_RISE = 1.05, 0.06
# The mesh sees one and a half times the face, as in MediaPipe.
MESH_SCALE = 1.5
# The vertices of the mesh that lie where dlib's 68 points do, by the parts of the face. dlib sees
# outer corners of eyes further inside than the mesh does: there the next vertex is nearer.
VERTICES = np.array(
    [
        *(162, 234, 93, 58, 172, 136, 149, 148, 152, 377, 378, 365, 397, 288, 323, 454, 389),  # jaw
        *(71, 63, 105, 66, 107, 336, 296, 334, 293, 301),  # brows
        *(168, 197, 5, 4, 75, 97, 2, 326, 305),  # nose
        *(7, 160, 158, 133, 153, 144, 362, 385, 387, 249, 373, 380),  # eyes
        *(61, 39, 37, 0, 267, 269, 291, 405, 314, 17, 84, 181),  # lips, outside
        *(78, 82, 13, 312, 308, 317, 14, 87),  # lips, inside
    ]
)


def anchors() -> np.ndarray:
    """Centres of the detector's 896 candidates, (896, 2) in units of the picture's side."""
    centres = []
    for cells, each in ((16, 2), (8, 6)):
        y, x = np.mgrid[:cells, :cells]
        grid = (np.stack([x, y], axis=-1).reshape(-1, 2) + 0.5) / cells
        centres.append(grid.repeat(each, axis=0))
    return np.concatenate(centres)


class MediaPipeTracker(FaceTracker):
    """Tracks a face by MediaPipe's networks; the landmarks are in dlib's order.

    Args:
        models: folder with ``face_detection_short_range.tflite`` and ``face_landmark.tflite``.
        detect_every, detect_side: as of `FaceTracker`.

    Raises:
        FileNotFoundError: if a model file does not exist.
        ValueError: for a file that OpenCV cannot read.
    """

    name = "mediapipe"
    first_box = 1.0

    def __init__(self, models: str | Path, detect_every: int = 12, detect_side: int = 480):
        if detect_every < 1:
            raise ValueError(f"detect_every={detect_every} is not positive")
        names = ("face_detection_short_range.tflite", "face_landmark.tflite")
        self.files = [Path(models, name) for name in names]
        self.detector, self.mesh = map(_load, self.files)
        self.anchors = anchors()
        self.detect_every = detect_every
        self.detect_side = detect_side

    def read(self) -> None:
        """Nothing: the networks are small, and have been read."""

    def detect(self, frame: np.ndarray) -> list[Face]:
        """All faces of a grey frame (H, W).

        The detector finds faces of a sixth of the picture and more. If it finds none, it searches
        parts of the picture, a half and then a quarter as large, which are never enlarged.
        """
        height, width = frame.shape
        side = max(height, width)
        faces = self._detect(frame, width / 2, height / 2, side)
        for part in (side / 2, side / 4):
            if not faces and part >= DETECTOR_SIDE:
                centres = product(_steps(width, part), _steps(height, part))
                faces = _without_overlap(
                    [f for x, y in centres for f in self._detect(frame, x, y, part)]
                )
        return [face for face, _ in faces]

    def _detect(
        self, frame: np.ndarray, x: float, y: float, side: float
    ) -> list[tuple[Face, float]]:
        """Faces and their scores in a square of the frame, black beyond the frame."""
        scale = side / DETECTOR_SIDE
        corner = np.array([x - side / 2, y - side / 2])
        picture = _square(frame, corner, scale, DETECTOR_SIDE)
        self.detector.setInput(_colours(picture / 127.5 - 1))
        logits = self.detector.forward("classificators").ravel()
        scores = 1 / (1 + np.exp(-np.clip(logits, -50, 50)))
        likely = np.flatnonzero(scores > MIN_SCORE)
        if len(likely) == 0:
            return []
        boxes = self.detector.forward("regressors").reshape(-1, 16)
        faces = []
        for i in likely:
            dx, dy, size = boxes[i, :3]
            centre = corner + scale * (self.anchors[i] * DETECTOR_SIDE + (dx, dy))
            size *= scale * BOX_SCALE
            face = Face(float(centre[0]), float(centre[1] - BOX_RISE * size), float(size))
            faces.append((face, float(scores[i])))
        return _without_overlap(faces)

    def predict(self, frame: np.ndarray, face: Face) -> np.ndarray:
        """Landmarks of a face: float64 (68, 2), x and y in pixels."""
        side = MESH_SCALE * face.side
        corner = np.array([face.x - side / 2, face.y + 0.02 * face.side - side / 2])
        scale = side / MESH_SIDE
        picture = _square(frame, corner, scale, MESH_SIDE)
        self.mesh.setInput(_colours(picture / 255))
        points = self.mesh.forward().reshape(-1, 3)[VERTICES, :2]
        # The mesh counts from the edge of the picture, pixels here from their centres.
        return corner - 0.5 + scale * points.astype(np.float64)


def _load(path: Path) -> cv2.dnn.Net:
    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist; run mome-fetch-models --only mediapipe")
    try:
        return cv2.dnn.readNetFromTFLite(str(path))
    except cv2.error as error:
        raise ValueError(
            f"{path} is not a TensorFlow Lite model that OpenCV {cv2.__version__} reads; delete it"
            " and run mome-fetch-models --only mediapipe"
        ) from error


def _steps(length: int, part: float) -> np.ndarray:
    """Centres of parts that cover a length and overlap by half."""
    count = max(1, round(2 * (length - part) / part) + 1)
    return np.linspace(part / 2, length - part / 2, count)  # of one, the first


def _square(frame: np.ndarray, corner: np.ndarray, scale: float, side: int) -> np.ndarray:
    """Crop a square and resample it to (side, side), from ``scale`` pixels to one."""
    shift = (0.5 - corner) / scale - 0.5
    return warp(frame, np.array([[1 / scale, 0, shift[0]], [0, 1 / scale, shift[1]]]), side)


def _colours(picture: np.ndarray) -> np.ndarray:
    """Repeat grey values as three colour channels: (H, W) -> float32 (1, 3, H, W)."""
    return np.repeat(picture[None, None].astype(np.float32), 3, axis=1)


def _without_overlap(faces: list[tuple[Face, float]]) -> list[tuple[Face, float]]:
    """Non-maximum suppression: of faces that overlap, keep the one with the highest score."""
    kept: list[tuple[Face, float]] = []
    for face, score in sorted(faces, key=lambda item: -item[1]):
        if all(face.distance(o) > MIN_DISTANCE * max(face.side, o.side) for o, _ in kept):
            kept.append((face, score))
    return kept
