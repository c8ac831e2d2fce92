"""Which faces dlib and MediaPipe find, where their landmarks lie, and what they cost.

Each clip is looked at as it is and changed: in a larger picture, as it is and at half its size; 2
and 4 stops darker; turned in the picture's plane. Both detectors see the same frames, in turns, in
one thread, with the settings of stage 2.

- found: share of the frames that are searched in which a face is found
- kept: share of clips that stage 2 would keep (--max_lost 0.5), by each detector and by either
- apart: how far the centre of the mouth moves from where the same detector sees it in the clip as
  it is, in pixels of the crop of 96x96; in the rows "as it is", how far the detectors lie apart.
  Median and 95th percentile over frames. A wrong face, or none, shows as a large number.
- size: the same of the crop's side, as a ratio, without those of other faces
- ms: the processor's milliseconds for a frame of video, a third of which are searched
"""

import argparse
import os
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import cv2
import numpy as np
from timing import machine
from tqdm import tqdm

from mome.data.corrupt import darkness
from mome.data.video import LIP_SIZE
from mome.lips.crop import CROP_SIDE, MEAN_FACE, MOUTH, STABLE, similarity, smooth
from mome.lips.detectors import DETECTORS, LANDMARKS, load_tracker
from mome.lips.extract import FaceLost, crop_face, read_frames, reduce_frame, seen_frames
from mome.lips.landmarks import FaceTracker, fill_missing

SUFFIXES = {".mp4", ".mpg", ".avi", ".mov", ".mkv", ".webm"}
LANDMARK_EVERY, WINDOW, MAX_LOST = 3, 12, 0.5  # stage 2's
SCREEN = (720, 1280)
GREY = 110

Frames = list[np.ndarray]


def moved(frame: np.ndarray, matrix: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """A grey frame after a similarity (2, 3), with its own edge repeated beyond it."""
    return cv2.warpAffine(
        frame, matrix, shape[::-1], flags=cv2.INTER_AREA, borderMode=cv2.BORDER_REPLICATE
    )


def in_screen(frames: Frames, scale: float) -> tuple[Frames, np.ndarray]:
    """The clip off the centre of a larger grey picture, reduced as stage 2 reduces that."""
    height, width = (round(scale * side) for side in frames[0].shape)
    top, left = (SCREEN[0] - height) // 3, 2 * (SCREEN[1] - width) // 3
    screens = []
    for frame in frames:
        screen = np.full(SCREEN, GREY, np.uint8)
        small = cv2.resize(frame, (width, height), interpolation=cv2.INTER_AREA)
        screen[top : top + height, left : left + width] = small
        screens.append(reduce_frame(screen))
    factor = screens[0].shape[1] / SCREEN[1]
    return screens, factor * np.array([[scale, 0, left], [0, scale, top]])


def turned(frames: Frames, degrees: float) -> tuple[Frames, np.ndarray]:
    """The clip turned around the centre of its picture."""
    height, width = frames[0].shape
    matrix = cv2.getRotationMatrix2D(((width - 1) / 2, (height - 1) / 2), degrees, 1.0)
    return [moved(frame, matrix, (height, width)) for frame in frames], matrix


def darker(frames: Frames, level: int) -> tuple[Frames, np.ndarray]:
    """The clip with less light, on a sensor with noise; see `mome.data.corrupt`."""
    dark = darkness(np.stack(frames), level, np.random.default_rng(0))
    return list(dark), np.eye(2, 3)


CHANGES: dict[str, Callable[[Frames], tuple[Frames, np.ndarray]]] = {
    "as it is": lambda frames: (frames, np.eye(2, 3)),
    "in 1280x720": partial(in_screen, scale=1.0),
    "half as large in 1280x720": partial(in_screen, scale=0.5),
    "2 stops darker": partial(darker, level=0),
    "4 stops darker": partial(darker, level=1),
    "turned by 20 degrees": partial(turned, degrees=20),
    "turned by 30 degrees": partial(turned, degrees=-30),
}


@dataclass
class Sums:
    """What a detector did with the clips of a row."""

    found: int = 0
    searched: int = 0
    kept: list[bool] = field(default_factory=list)
    apart: list[np.ndarray] = field(default_factory=list)
    sizes: list[np.ndarray] = field(default_factory=list)
    seconds: float = 0.0
    frames: int = 0


def mouths(landmarks: Sequence[np.ndarray | None]) -> tuple[np.ndarray, np.ndarray] | None:
    """Centres of the mouth (T, 2) and sides of the crop (T,) in pixels; None without any face."""
    if all(points is None for points in landmarks):
        return None
    points = smooth(fill_missing(landmarks), WINDOW // LANDMARK_EVERY)
    scales = [np.hypot(*similarity(p[list(STABLE)], MEAN_FACE)[:, 0]) for p in points]
    return points[:, MOUTH].mean(1), CROP_SIDE / np.array(scales)


def look(tracker: FaceTracker, frames: Frames, sums: Sums) -> list[np.ndarray | None]:
    """Search the face as stage 2 does, and count."""
    seen = seen_frames(len(frames), LANDMARK_EVERY)
    started = time.process_time()
    landmarks = tracker([frames[i] for i in seen])
    sums.seconds += time.process_time() - started
    sums.frames += len(frames)
    sums.searched += len(seen)
    sums.found += sum(points is not None for points in landmarks)
    try:
        crop_face(frames, "a clip", dict(zip(seen, landmarks, strict=True)), WINDOW, MAX_LOST)
        sums.kept.append(True)
    except FaceLost:
        sums.kept.append(False)
    return landmarks


def compare(
    clips: Sequence[Path], length: int, trackers: dict[str, FaceTracker]
) -> dict[str, dict[str, Sums]]:
    """Change -> detector -> what it did in the first ``length`` frames of clips."""
    rows: dict[str, dict[str, Sums]] = {
        name: {detector: Sums() for detector in trackers} for name in CHANGES
    }
    for number, clip in enumerate(tqdm(clips, mininterval=10)):
        original = read_frames(clip)[:length]
        reference: dict[str, tuple[np.ndarray, np.ndarray] | None] = {}
        for name, change in CHANGES.items():
            frames, matrix = change(original)
            places = {}
            order = list(trackers) if number % 2 == 0 else list(trackers)[::-1]
            for detector in order:
                sums = rows[name][detector]
                places[detector] = mouths(look(trackers[detector], frames, sums))
            if not reference:
                reference = places
                other = dict(zip(trackers, [places[d] for d in reversed(trackers)], strict=True))
            else:
                other = reference
            for detector, place in places.items():
                expected = other[detector]
                if place is None or expected is None:
                    continue
                centre = expected[0] @ matrix[:, :2].T + matrix[:, 2]
                side = expected[1] * np.hypot(*matrix[:, 0])
                apart = np.hypot(*(place[0] - centre).T) / side * LIP_SIZE
                sums = rows[name][detector]
                sums.apart.append(apart)
                sums.sizes.append((place[1] / side)[apart < LIP_SIZE / 2])
    return rows


def choose(folder: Path, count: int) -> list[Path]:
    """The first clip of each subfolder (a speaker's), then the second of each, up to ``count``."""
    paths = sorted(path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES)
    seen: Counter[Path] = Counter()
    places = {}
    for path in paths:
        places[path] = seen[path.parent]
        seen[path.parent] += 1
    return sorted(paths, key=lambda path: (places[path], path))[:count]


def print_table(rows: dict[str, dict[str, Sums]]) -> None:
    """In Markdown."""
    print("| clips | detector | found % | kept % | either % | apart, median (95 %) | size | ms |")
    print("| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: |")
    for name, row in rows.items():
        either = np.mean([any(kept) for kept in zip(*(s.kept for s in row.values()), strict=True)])
        for place, (detector, sums) in enumerate(row.items()):
            apart = np.concatenate(sums.apart) if sums.apart else np.full(1, np.nan)
            sizes = np.concatenate(sums.sizes) if sums.sizes else np.full(1, np.nan)
            cells = [
                *("" if place else name, detector),
                f"{100 * sums.found / sums.searched:.1f}",
                f"{100 * np.mean(sums.kept):.0f}",
                "" if place else f"{100 * either:.0f}",
                f"{np.median(apart):.1f} ({np.percentile(apart, 95):.1f})",
                f"{np.median(sizes) if len(sizes) else np.nan:.2f}",
                f"{1000 * sums.seconds / sums.frames:.1f}",
            ]
            print(f"| {' | '.join(cells)} |")


def main() -> None:
    """Print a table for each group of clips."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folders", nargs="+", type=Path, help="of clips, also in their subfolders")
    default = Path(os.environ.get("MOME_DOWNLOADS", "downloads"))
    parser.add_argument("--downloads", type=Path, default=default, help="with both models")
    parser.add_argument("--clips", type=int, default=40, help="of a folder")
    parser.add_argument("--frames", type=int, default=25, help="of a clip, from its first on")
    args = parser.parse_args()
    cv2.setNumThreads(1)
    trackers = {
        name: load_tracker(str(args.downloads / LANDMARKS[name]), detector=name)
        for name in DETECTORS
    }
    print(f"{machine()}; OpenCV {cv2.__version__}")
    for folder in args.folders:
        chosen = choose(folder, args.clips)
        if not chosen:
            parser.error(f"{folder} holds no clips")
        print(f"\n{folder.name}: {len(chosen)} clips, {args.frames} frames of each\n")
        print_table(compare(chosen, args.frames, trackers))


if __name__ == "__main__":
    main()
