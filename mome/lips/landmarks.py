"""Follow one face through a video: dlib's HOG detector and its 68 landmarks.

As AV-HuBERT (B. Shi et al., ICLR 2022) prepares its data, but for speed the detector runs on every
k-th frame only. Between two of these the face is tracked: the landmarks of a frame give the box in
which those of the next frame are predicted.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from itertools import pairwise
from math import ceil
from pathlib import Path

import cv2
import dlib
import numpy as np

from mome.common.marks import file_digest
from mome.lips.crop import similarity

NUM_POINTS = 68
# Nose ridge, its base and the eye corners, which speech does not move, and where they lie in the
# predictor's box (units of its side, from its centre): measured as the median of what the predictor
# gives for pictures without a face, which is its mean shape.
RIGID = (27, 30, 33, 36, 39, 42, 45)
IN_BOX = np.array(
    [
        (0.0, -0.18),
        (0.0, 0.05),
        (0.0, 0.135),
        (-0.26, -0.18),
        (-0.11, -0.175),
        (0.11, -0.175),
        (0.26, -0.18),
    ]
)
# Between frames: a face that moves by this share of its size, or changes size by this factor, has
# been lost and is detected again.
MAX_SHIFT = 0.35
MAX_GROWTH = 1.3
# A tracked face whose pixels correlate less than this with the previous frame is no longer the same
# face; the correlation is above 0.9 while someone speaks.
MIN_LIKENESS = 0.6
THUMBNAIL = 24


@dataclass(frozen=True)
class Face:
    """A face in one frame: a square box, its centre and its side in pixels."""

    x: float
    y: float
    side: float

    def distance(self, other: "Face") -> float:
        """Between centres, in pixels."""
        return float(np.hypot(self.x - other.x, self.y - other.y))

    def near_next(self, other: "Face") -> bool:
        """Whether landmarks of the next frame, which gave the box ``other``, are plausible."""
        growth = other.side / self.side
        return self.distance(other) < MAX_SHIFT * self.side and 1 / MAX_GROWTH < growth < MAX_GROWTH

    def near(self, other: "Face", steps: int = 1) -> bool:
        """Whether it may be the same face ``steps`` frames later."""
        size = max(self.side, other.side)
        growth = size / min(self.side, other.side)
        # Detected boxes come in steps of 1.2, so that two frames may differ by two steps.
        return self.distance(other) < min(0.2 + 0.1 * steps, 1.0) * size and growth < 1.5


class WrongModel(ValueError):
    """A file that should hold a landmark model of 68 points; the message names it and a remedy."""


@lru_cache(maxsize=2)
def read_predictor(model: Path) -> dlib.shape_predictor:
    """dlib's landmark predictor; read once in each process, since that takes half a second.

    Raises:
        WrongModel: for a file that is no such model, or one of another number of points.
    """
    try:
        predictor = dlib.shape_predictor(str(model))
    except RuntimeError as error:
        reason = " ".join(str(error).split())
        raise WrongModel(
            f"{model} is not a dlib landmark model ({reason}); delete it and run mome-fetch-models"
        ) from error
    # It does not say how many points it has, but gives as many for any picture.
    points = predictor(np.zeros((8, 8), np.uint8), dlib.rectangle(0, 0, 7, 7))
    if points.num_parts != NUM_POINTS:
        raise WrongModel(
            f"the landmark model {model} has {points.num_parts} points, not {NUM_POINTS}: take that"
            f" of mome-fetch-models"
        )
    return predictor


class FaceTracker:
    """Tracks a face by dlib's detector and landmark predictor; a subclass may use others.

    The predictor is read when it is first needed, or by :meth:`read`.

    Args:
        model: dlib's ``shape_predictor_68_face_landmarks.dat``.
        detect_every: largest step between frames on which the detector runs; 1 is every frame.
        detect_side: frames whose longer side exceeds this are reduced for the detector.

    Raises:
        FileNotFoundError: if the model file does not exist.
    """

    name = "dlib"
    first_box = 0.85  # of the detector's box, for the first landmarks

    def __init__(self, model: str | Path, detect_every: int = 12, detect_side: int = 480):
        if not Path(model).is_file():
            raise FileNotFoundError(f"landmark model {model} does not exist; run mome-fetch-models")
        if detect_every < 1:
            raise ValueError(f"detect_every={detect_every} is not positive")
        self.files = [Path(model)]
        self.detector = dlib.get_frontal_face_detector()
        self.detect_every = detect_every
        self.detect_side = detect_side

    def read(self) -> None:
        """Read the models now.

        Raises:
            WrongModel: see :func:`read_predictor`.
        """
        read_predictor(self.files[0])

    @cached_property
    def digests(self) -> dict[str, str]:
        """Name -> SHA-256 of the files that its models were read from."""
        return {path.name: file_digest(path) for path in self.files}

    def detect(self, frame: np.ndarray) -> list[Face]:
        """All faces of a grey frame (H, W), seen by the detector at one resolution.

        The detector finds faces of 80 pixels and more; if there is none, the frame is enlarged
        twofold.
        """
        scale = min(1.0, self.detect_side / max(frame.shape))
        if scale < 1:
            frame = cv2.resize(frame, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
        boxes = self.detector(frame, 0) or self.detector(frame, 1)
        return [
            Face(
                (box.left() + box.right() + 1) / 2 / scale,
                (box.top() + box.bottom() + 1) / 2 / scale,
                box.width() / scale,
            )
            for box in boxes
        ]

    def predict(self, frame: np.ndarray, face: Face) -> np.ndarray:
        """Landmarks of a face: float64 (68, 2), x and y in pixels.

        Raises:
            WrongModel: see :func:`read_predictor`.
        """
        half = face.side / 2
        box = dlib.rectangle(
            round(face.x - half), round(face.y - half), round(face.x + half), round(face.y + half)
        )
        points = read_predictor(self.files[0])(frame, box)
        return np.array([(point.x, point.y) for point in points.parts()], dtype=np.float64)

    def __call__(self, frames: Sequence[np.ndarray]) -> list[np.ndarray | None]:
        """Landmarks of the main face of a video.

        With several faces in view it is the one that is largest, most central and longest seen.

        Args:
            frames: T grey frames, uint8 (H, W).

        Returns:
            T arrays (68, 2) of x and y in pixels; None where the face is not found.
        """
        return next(iter(self.people(frames, 1)), [None] * len(frames))

    def people(self, frames: Sequence[np.ndarray], most: int) -> list[list[np.ndarray | None]]:
        """Landmarks of several faces of a video, the main one first; as `__call__` for each.

        Args:
            frames: T grey frames, uint8 (H, W).
            most: number of faces at most; others than the main one are seen half of the time.
        """
        last = len(frames) - 1
        steps = np.linspace(0, last, ceil(last / self.detect_every) + 1)
        anchors: list[int] = steps.round().astype(int).tolist()
        detected = {i: self.detect(frames[i]) for i in anchors}
        faces = main_tracks(detected, frames[0].shape, most)
        return [self._follow(frames, anchors, of_one) for of_one in faces]

    def _follow(
        self, frames: Sequence[np.ndarray], anchors: Sequence[int], faces: dict[int, Face]
    ) -> list[np.ndarray | None]:
        """Landmarks of one face, which is known in some of the anchors."""
        landmarks: list[np.ndarray | None] = [None] * len(frames)
        for i, face in faces.items():
            landmarks[i], faces[i] = self.fit(frames[i], face)
        for left, right in pairwise(anchors):
            if left in faces and right in faces:
                self._track(frames, landmarks, faces[left], range(left + 1, right))
                if not faces[left].near(faces[right], right - left):
                    # The scene changes in between; what is left belongs to the new one.
                    lost = [i for i in range(right - 1, left, -1) if landmarks[i] is None]
                    self._search(frames, landmarks, faces[right], lost)
            elif left in faces:
                self._search(frames, landmarks, faces[left], range(left + 1, right))
            elif right in faces:
                self._search(frames, landmarks, faces[right], range(right - 1, left, -1))
        return landmarks

    def fit(self, frame: np.ndarray, face: Face) -> tuple[np.ndarray, Face]:
        """Landmarks (68, 2) of a detected face and the box they lie in.

        The detector's boxes have coarse steps of size and place, and one that is a tenth too large
        can mislead the predictor, while smaller ones seldom do: predict in a smaller box, put the
        box where the landmarks say, predict again.
        """
        inner = Face(face.x, face.y, self.first_box * face.side)
        points = self.predict(frame, box_of(self.predict(frame, inner)))
        return points, box_of(points)

    def _track(
        self,
        frames: Sequence[np.ndarray],
        landmarks: list[np.ndarray | None],
        face: Face,
        between: range,
    ) -> None:
        """Track the face between two frames that have it; detect again only where it is lost."""
        steps, current = 1, thumbnail(frames[between.start - 1], face)
        for i in between:
            points = self.predict(frames[i], face)
            moved = box_of(points)
            previous, current = current, thumbnail(frames[i], moved)
            if not face.near_next(moved) or likeness(previous, current) < MIN_LIKENESS:
                found = self._find(frames[i], face, steps)
                if found is None:
                    steps, current = steps + 1, previous
                    continue
                points, moved = self.fit(frames[i], found)
                current = thumbnail(frames[i], moved)
            landmarks[i], face, steps = points, moved, 1

    def _search(
        self,
        frames: Sequence[np.ndarray],
        landmarks: list[np.ndarray | None],
        face: Face,
        order: Iterable[int],
    ) -> None:
        """Detect in each frame, starting beside one that has the face."""
        steps = 1
        for i in order:
            found = self._find(frames[i], face, steps)
            if found is None:
                steps += 1
                continue
            landmarks[i], face = self.fit(frames[i], found)
            steps = 1

    def _find(self, frame: np.ndarray, face: Face, steps: int) -> Face | None:
        """The detected face nearest to one seen ``steps`` frames before."""
        near = [other for other in self.detect(frame) if face.near(other, steps)]
        return min(near, key=lambda other: face.distance(other), default=None)


def box_of(points: np.ndarray) -> Face:
    """The box in which the predictor's mean shape fits landmarks (68, 2) best."""
    matrix = similarity(IN_BOX, points[list(RIGID)])
    x, y = matrix[:, 2].tolist()
    return Face(x, y, float(np.hypot(*matrix[:, 0])))


def thumbnail(frame: np.ndarray, face: Face) -> np.ndarray:
    """A small picture of a face, of mean 0 and norm 1: (THUMBNAIL, THUMBNAIL); 0 if it is flat."""
    top, left = (max(0, round(centre - face.side / 2)) for centre in (face.y, face.x))
    part = frame[top : top + round(face.side), left : left + round(face.side)]
    if part.size == 0:
        return np.zeros((THUMBNAIL, THUMBNAIL))
    small = cv2.resize(part, (THUMBNAIL, THUMBNAIL), interpolation=cv2.INTER_AREA).astype(float)
    small -= small.mean()
    return small / max(float(np.linalg.norm(small)), 1.0)


def likeness(one: np.ndarray, other: np.ndarray) -> float:
    """Correlation of two thumbnails."""
    return float(np.vdot(one, other))


def main_tracks(
    detected: Mapping[int, list[Face]], shape: tuple[int, ...], most: int
) -> list[dict[int, Face]]:
    """Link detections of frames into tracks and choose some, each with its continuations.

    Where a scene changes, a face jumps, and a track ends where another one begins. Tracks that do
    not overlap in time are therefore one.

    Args:
        detected: frame -> its faces, in order of time.
        shape: (H, W) of the frames.
        most: number of tracks at most.

    Returns:
        frame -> face, in order of time, of the track with the largest sum of sides, each weighted
        from 1 in the centre of the picture to 0 in its corners, and of those before and after it
        and one another, in the order of their sums. Then the same of tracks that are not part of
        that, if they are seen in half of the frames.
    """
    tracks: list[dict[int, Face]] = []
    for i, faces in detected.items():
        free = list(tracks)
        for face in sorted(faces, key=lambda face: -face.side):
            fitting = [t for t in free if t[max(t)].near(face, i - max(t))]
            if fitting:
                track = min(fitting, key=lambda t: t[max(t)].distance(face))
                free.remove(track)
            else:
                track = {}
                tracks.append(track)
            track[i] = face
    height, width = shape[:2]
    centre = Face(width / 2, height / 2, 1.0)
    corner = np.hypot(width, height) / 2

    def weight(track: dict[int, Face]) -> float:
        return sum(f.side * max(0.0, 1 - f.distance(centre) / corner) for f in track.values())

    tracks.sort(key=weight, reverse=True)
    mains: list[dict[int, Face]] = []
    taken: list[dict[int, Face]] = []
    for track in tracks:
        if len(mains) == most:
            break
        if any(track is other for other in taken):
            continue
        if mains and 2 * len(track) < len(detected):
            continue
        parts = [track]
        for other in tracks:
            if any(other is part for part in taken):
                continue
            if all(max(other) < min(part) or min(other) > max(part) for part in parts):
                parts.append(other)
        taken += parts
        joined = {i: face for part in parts for i, face in part.items()}
        mains.append({i: joined[i] for i in sorted(joined)})
    return mains


def fill_missing(landmarks: Sequence[np.ndarray | None]) -> np.ndarray:
    """Interpolate missing frames linearly between their neighbours; repeat at both ends.

    Args:
        landmarks: T arrays (68, 2) or None.

    Returns:
        (T, 68, 2).

    Raises:
        ValueError: if all frames are missing.
    """
    known = {i: points for i, points in enumerate(landmarks) if points is not None}
    if not known:
        raise ValueError("no frame has a face")
    flat = np.stack(list(known.values())).reshape(len(known), -1)
    times = np.arange(len(landmarks))
    filled = np.stack([np.interp(times, list(known), column) for column in flat.T], axis=1)
    return filled.reshape(len(landmarks), -1, 2)
