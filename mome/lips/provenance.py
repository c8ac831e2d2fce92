"""What the mouth crops of a set were made with.

A model reads lips as they were cut for its training: with another detector, landmark model or mean
face, mouths lie elsewhere in the crop. Stage 2 leaves this record in the folder of each set, and a
packed model has it of the set that it was trained on.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mome.common.json_files import read_json
from mome.data.kaldi import write_text
from mome.data.video import LIP_RATE, LIP_SIZE
from mome.lips.crop import CROP_SIDE, MEAN_FACE
from mome.lips.landmarks import FaceTracker

FILE = "crops.json"
# What landmarks become crops by. Raise the version where crops change while the numbers stay.
GEOMETRY = {
    "version": 1,
    "size": LIP_SIZE,
    "rate": LIP_RATE,
    "side": CROP_SIDE,
    "mean_face": MEAN_FACE.tolist(),
}

Crops = Mapping[str, Any]


def describe(
    detector: str, trackers: Mapping[str, FaceTracker], landmark_every: int, window: int
) -> dict[str, Any]:
    """The record of crops that are made here.

    Args:
        detector: the one that is asked first.
        trackers: detector -> tracker, of all that may be asked.
        landmark_every, window: as of :func:`mome.lips.extract.crop_lips`.

    Returns:
        These; ``landmarks``, detector -> file -> SHA-256; and ``geometry``.
    """
    return {
        "detector": detector,
        "landmarks": {name: tracker.digests for name, tracker in trackers.items()},
        "geometry": GEOMETRY,
        "landmark_every": landmark_every,
        "window": window,
    }


def elsewhere() -> dict[str, Any]:
    """The record of crops that somebody else made, about which nothing is known."""
    return {"elsewhere": True}


def outdated(earlier: Crops, now: Crops) -> bool:
    """Whether crops of an earlier run differ from those that would be made now.

    A landmark model counts where both know one: it may be there only since, and earlier versions
    recorded none.
    """
    landmarks = now.get("landmarks", {})
    changed = any(
        digests != landmarks.get(name, digests)
        for name, digests in earlier.get("landmarks", {}).items()
    )
    return changed or earlier.get("geometry", GEOMETRY) != GEOMETRY


def joined(earlier: Crops, now: Crops) -> dict[str, Any]:
    """The record of crops that are made now beside those that were finished earlier."""
    if "landmarks" not in now:
        return dict(now)
    return {**now, "landmarks": {**earlier.get("landmarks", {}), **now["landmarks"]}}


def write_crops(folder: Path, crops: Crops) -> None:
    """Write the record into a set's folder; none where there are no crops."""
    if crops:
        write_text(folder / FILE, json.dumps(crops, indent=1) + "\n")
    else:
        (folder / FILE).unlink(missing_ok=True)


def read_crops(folder: Path) -> dict[str, Any]:
    """The record of a set; of one that an earlier version made, what its settings tell.

    Returns:
        What :func:`describe` or :func:`elsewhere` gave, and ``clips``, detector -> number of crops,
        once all are made. Empty if nothing is known.

    Raises:
        ValueError: for a file that cannot be read; names it and the remedy.
    """
    path = folder / FILE
    settings = folder / "settings.json"
    remedy = "run stage 2 again"
    if path.is_file():
        return read_json(path, remedy)
    if not settings.is_file():
        return {}
    values = read_json(settings, remedy)
    if values.get("lip_dir"):
        return elsewhere()
    known = ("detector", "landmark_every", "window")
    return {key: values[key] for key in known if key in values}
