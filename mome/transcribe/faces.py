"""Who finds the faces of recordings: the detector that cut the lips a model was trained on.

Where it finds none, the other one is tried, whose crops are much the same (docs/robustness.md).
"""

import logging
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from mome.lips.detectors import DETECTORS, LANDMARKS, load_tracker
from mome.lips.landmarks import FaceTracker
from mome.lips.provenance import GEOMETRY, Crops
from mome.pretrained.places import find_download
from mome.tasks.frozen_parts import PackedModelError

LANDMARK_EVERY = 3  # frames, and frames of smoothing, as stage 2 has them by default
WINDOW = 12
FETCH = {"dlib": "landmarks", "mediapipe": "mediapipe"}  # what mome-fetch-models calls them


def crops_of(info: Mapping[str, Any], name: Path) -> dict[str, Any]:
    """What a packed model says of the crops it was trained on, as stage 2 has recorded it.

    Args:
        info: what its mome.json says.
        name: of the model, for errors.

    Returns:
        See :mod:`mome.lips.provenance`, with ``detector``, ``landmark_every`` and ``window`` in any
        case.

    Raises:
        PackedModelError: for a record that cannot be meant.
    """
    try:
        crops: dict[str, Any] = {
            "detector": "dlib",
            "landmark_every": LANDMARK_EVERY,
            "window": WINDOW,
        }
        crops |= info.get("crops", {})
        crops |= {key: int(crops[key]) for key in ("landmark_every", "window")}
        dict(crops.get("landmarks", {}))
    except (TypeError, ValueError) as error:
        raise PackedModelError(f"{name}: its crops cannot be read ({error})") from None
    if crops["detector"] not in DETECTORS or min(crops["landmark_every"], crops["window"]) < 1:
        raise PackedModelError(f"{name}: its crops cannot be as mome.json says: {info['crops']}")
    return crops


def find_tracker(detector: str, downloads: Collection[str | Path] = ()) -> FaceTracker:
    """A detector of faces, whose models are looked for as frozen parts are.

    Raises:
        FileNotFoundError: if they are in none of the folders; names the first place.
        ValueError: for files that are no such models.
    """
    tracker = load_tracker(str(find_download(LANDMARKS[detector], downloads)), detector=detector)
    tracker.read()
    return tracker


def own_tracker(
    crops: Crops, name: Path, downloads: Collection[str | Path] = ()
) -> FaceTracker | None:
    """The detector that cut the lips of a model's training; None if its models are not there.

    Args:
        crops: what :func:`crops_of` gives.
        name: of the model, for errors.
        downloads: folders to look in, see :func:`mome.pretrained.places.download_folders`.

    Raises:
        PackedModelError: if it would cut other crops than those; says why and what can be done.
    """
    detector = crops["detector"]
    if not find_download(LANDMARKS[detector], downloads).exists():
        return None
    if not (crops.get("landmarks") or crops.get("elsewhere")):
        logging.warning(
            "%s does not say what cut the lips it was trained on: %s is taken, and not checked. "
            "Models that are packed again say it, if stage 2 does",
            *(name, detector),
        )
    tracker = find_tracker(detector, downloads)
    if not crops.get("elsewhere") and (reasons := differences(crops, tracker)):
        raise PackedModelError(
            f"{name}: {'; '.join(reasons)}. Its landmark model comes by `mome-fetch-models --only "
            f"{FETCH[detector]}`, another geometry with another version of mome; --detector "
            f"{detector} (tracker= in Python) takes what is there all the same"
        )
    return tracker


def other_tracker(crops: Crops, downloads: Collection[str | Path] = ()) -> FaceTracker | None:
    """The detector that is tried where that of the training finds no face, as stage 2 does.

    Args:
        crops, downloads: as of :func:`own_tracker`.

    Returns:
        None if its models are not there, or are others than stage 2 had, of which a warning says.
    """
    (detector,) = (name for name in DETECTORS if name != crops["detector"])
    models = find_download(LANDMARKS[detector], downloads)
    if not models.exists():
        return None
    tracker = find_tracker(detector, downloads)
    if crops.get("landmarks", {}).get(detector, tracker.digests) != tracker.digests:
        logging.warning(
            "where %s finds no face, %s is not tried: stage 2 had other models of it than %s",
            *(crops["detector"], detector, ", ".join(map(str, tracker.files))),
        )
        return None
    return tracker


def missing(crops: Crops, downloads: Collection[str | Path] = ()) -> str:
    """What is missing where :func:`own_tracker` gives none, and how to get it.

    Args:
        crops, downloads: as of :func:`own_tracker`.
    """
    detector = crops["detector"]
    places = " or ".join([*map(str, downloads), "./downloads", "$MOME_DOWNLOADS"])
    there = f" --downloads {next(iter(downloads))}" if downloads else ""
    return (
        f"to find faces, {LANDMARKS[detector]} is needed in {places}: run mome-fetch-models --only "
        f"{FETCH[detector]}{there}, or read the sound alone (task asr)"
    )


def differences(crops: Crops, tracker: FaceTracker) -> list[str]:
    """How the crops that a tracker leads to differ from those of a model's training.

    Args:
        crops: what :func:`crops_of` gives. What it does not say is not compared.
        tracker: finds the faces now.

    Returns:
        A clause for each difference, for people.
    """
    if crops.get("elsewhere"):
        return [f"trained on lips that were not cut by mome, and these are, by {tracker.name}"]
    found = []
    if crops["detector"] != tracker.name:
        found.append(f"trained on lips cut by {crops['detector']}, and these are by {tracker.name}")
    recorded = crops.get("landmarks", {}).get(tracker.name, tracker.digests)
    if recorded != tracker.digests:
        found.append(
            f"trained on lips cut by another landmark model of {tracker.name} than "
            f"{', '.join(map(str, tracker.files))}"
        )
    if crops.get("geometry", GEOMETRY) != GEOMETRY:
        found.append("trained on lips of another geometry than this version of mome cuts")
    return found
