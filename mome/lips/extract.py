"""Read the frames of a video and crop the mouth of the face in them."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np

from mome.data.video import LIP_RATE, LIP_SIZE, MediaError, iter_video
from mome.lips.crop import crop_matrices, crop_mouth, shares_within
from mome.lips.landmarks import FaceTracker, box_of, fill_missing

# Larger pictures are reduced to this longer side: a face that fills a quarter of it still has more
# pixels than the crop.
FRAME_SIDE = 720
REMEDY = "look at it; --detector, --detect_side or --max_lost may help"
# A picture whose grey values all lie below this is black, as far as compression keeps black.
BLACK = 24
# Where more than this share of the frames has no face, another detector is worth asking.
OFTEN_LOST = 0.1
# Share of a crop that must show the picture. With less, the middle of the mouth is hardly in it.
MIN_VISIBLE = 0.5


class FaceLost(MediaError):
    """A video in which a detector finds no face, or too seldom; another one may find it."""


@dataclass(frozen=True)
class Lips:
    """Mouth crop, uint8 (T, 96, 96) at 25 frames per second.

    The face was searched for in ``seen`` frames and not found in ``lost`` of these.
    """

    frames: np.ndarray
    seen: int
    lost: int

    @property
    def often_lost(self) -> bool:
        """Whether so much is interpolated that another detector should be asked."""
        return self.lost > OFTEN_LOST * self.seen


def crop_lips(
    frames: Sequence[np.ndarray],
    path: str | Path,
    tracker: FaceTracker,
    landmark_every: int = 3,
    window: int = 12,
    max_lost: float = 0.5,
) -> Lips:
    """Find the face in frames and crop its mouth.

    Args:
        frames: T grey frames, uint8 (H, W).
        path: where they are from, for errors.
        tracker: finds the landmarks.
        landmark_every: landmarks are found in every k-th frame and interpolated linearly; they are
            averaged over ``window`` frames anyway. Neither goes across a jump of the face.
        window: frames over which landmarks are averaged.
        max_lost: largest share of frames without a face; these are interpolated.

    Raises:
        FaceLost: if the face is not found often enough, or a crop lies mostly beside the picture.
    """
    seen = seen_frames(len(frames), landmark_every)
    landmarks = tracker([frames[i] for i in seen])
    return crop_face(frames, path, dict(zip(seen, landmarks, strict=True)), window, max_lost)


def seen_frames(count: int, every: int) -> list[int]:
    """The frames, of ``count``, in which landmarks are found: each ``every``-th and the last."""
    return sorted({*range(0, count, every), count - 1})


def crop_face(
    frames: Sequence[np.ndarray],
    path: str | Path,
    found: Mapping[int, np.ndarray | None],
    window: int = 12,
    max_lost: float = 0.5,
) -> Lips:
    """Crop the mouth of a face whose landmarks are known; as `crop_lips`.

    Args:
        found: of each frame that was searched, (68, 2) or None.
        frames, path, window, max_lost: as of `crop_lips`.
    """
    seen = list(found)
    landmarks = [found.get(i) for i in range(len(frames))]
    lost = sum(landmarks[i] is None for i in seen)
    if lost == len(seen):
        raise FaceLost(path, f"no face in any frame; {REMEDY}")
    if lost > max_lost * len(seen):
        raise FaceLost(path, f"no face in {lost} of {len(seen)} frames; {REMEDY}")
    parts = pairwise([0, *find_jumps(frames, landmarks), len(frames)])
    filled = [(frames[a:b], fill_missing(landmarks[a:b])) for a, b in parts]
    crops = np.concatenate([crop_mouth(part, points, window) for part, points in filled])
    if box := lit_box(frames):
        shares = np.concatenate(
            [shares_within(crop_matrices(points, window), box) for _, points in filled]
        )
        if outside := int((shares < MIN_VISIBLE).sum()):
            where = f"{outside} of {len(frames)} crops lie mostly outside of the picture"
            raise FaceLost(path, f"{where}; {REMEDY}")
    beside = sum(
        crop.max() < BLACK <= frame.max() for crop, frame in zip(crops, frames, strict=True)
    )
    if beside:
        raise FaceLost(path, f"{beside} of {len(frames)} crops are black beside the face; {REMEDY}")
    return Lips(crops, len(seen), lost)


def lit_box(frames: Sequence[np.ndarray]) -> tuple[int, int, int, int] | None:
    """The picture without what is black around it throughout, as bars are.

    Args:
        frames: T grey frames, uint8 (H, W).

    Returns:
        first column and row, and those after the last; None for frames that are all black or
        differ in size.
    """
    if any(frame.shape != frames[0].shape for frame in frames):
        return None
    lit = reduce(np.maximum, frames) >= BLACK
    columns, rows = np.flatnonzero(lit.any(axis=0)), np.flatnonzero(lit.any(axis=1))
    if len(columns) == 0:
        return None
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1


def find_jumps(frames: Sequence[np.ndarray], landmarks: Sequence[np.ndarray | None]) -> list[int]:
    """The frames at which the face is all at once elsewhere, as where a scene changes.

    Args:
        frames: T grey frames, uint8 (H, W).
        landmarks: T arrays (68, 2) or None.

    Returns:
        First frames of the new places, in order; between two known landmarks, the one that differs
        most from the frame before it.
    """
    known = [(i, box_of(points)) for i, points in enumerate(landmarks) if points is not None]
    jumps = []
    for (left, face), (right, other) in pairwise(known):
        if not face.near(other, right - left):
            changes = [
                float(cv2.absdiff(frames[i - 1], frames[i]).mean())
                for i in range(left + 1, right + 1)
            ]
            jumps.append(left + 1 + int(np.argmax(changes)))
    return jumps


def read_frames(path: str | Path) -> list[np.ndarray]:
    """Grey frames at 25 a second, large ones reduced; errors as of `iter_video`."""
    return [reduce_frame(frame) for frame in iter_video(path, True, LIP_RATE)]


def read_spans(
    path: str | Path, spans: Sequence[tuple[int, int]]
) -> Iterator[tuple[int, list[np.ndarray] | Exception]]:
    """Frames of several parts of a recording, which is decoded once, up to the end of the last.

    Frames are as of `read_frames` and counted from the beginning of the recording, so that parts
    are exact. Only the frames of parts that are being read are kept.

    Args:
        path: the recording.
        spans: first frame and the one after the last of each part; they may overlap.

    Yields:
        Place in ``spans`` and its frames, as soon as they are there; a part that goes beyond the
        end of the recording is cut there. An error in the place of frames if the recording ends
        before the part begins, or cannot be read until the part ends.
    """
    waiting = sorted(range(len(spans)), key=lambda place: spans[place], reverse=True)
    reading: dict[int, list[np.ndarray]] = {}
    frames = iter_video(path, True, LIP_RATE)
    number = 0
    try:
        while waiting or reading:
            frame = next(frames, None)
            if frame is None:
                break
            while waiting and spans[waiting[-1]][0] == number:
                reading[waiting.pop()] = []
            if reading:
                frame = reduce_frame(frame)
            number += 1
            for place, part in list(reading.items()):
                part.append(frame)
                if number == spans[place][1]:
                    yield place, reading.pop(place)
    except Exception as error:
        # Whatever is wrong with a recording, it is the parts of that recording which are lost.
        for place in [*reading, *waiting]:
            yield place, error
        return
    finally:
        frames.close()
    yield from reading.items()
    for place in waiting:
        start = spans[place][0]
        yield place, MediaError(path, f"ends before frame {start}, where a segment begins")


def whole_picture(frames: Sequence[np.ndarray]) -> np.ndarray:
    """Frames (H, W) as they are in the size of a crop, whatever their proportions.

    That is what AV-HuBERT reads of clips without a face.

    Returns:
        uint8 (T, 96, 96).
    """
    size = (LIP_SIZE, LIP_SIZE)
    return np.stack([cv2.resize(frame, size, interpolation=cv2.INTER_AREA) for frame in frames])


def reduce_frame(frame: np.ndarray) -> np.ndarray:
    """A grey frame (H, W) as it is, or with a longer side of FRAME_SIDE pixels if that is less."""
    scale = FRAME_SIDE / max(frame.shape)
    if scale >= 1:
        return frame
    return cv2.resize(frame, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
