"""Face detectors, chosen by name."""

from functools import lru_cache

from mome.lips.landmarks import FaceTracker
from mome.lips.mediapipe import MediaPipeTracker

# Where the models of each lie in a folder of downloads.
LANDMARKS = {"dlib": "dlib/shape_predictor_68_face_landmarks.dat", "mediapipe": "mediapipe"}
DETECTORS = tuple(LANDMARKS)


@lru_cache(maxsize=2)
def load_tracker(
    model: str, detect_every: int = 12, detect_side: int = 480, detector: str = "dlib"
) -> FaceTracker:
    """A tracker, one in each process for the same arguments.

    Args:
        model: dlib's landmark model, or the folder with those of MediaPipe.
        detect_every, detect_side: as of `FaceTracker`.
        detector: ``dlib`` or ``mediapipe``.
    """
    if detector == "mediapipe":
        return MediaPipeTracker(model, detect_every, detect_side)
    return FaceTracker(model, detect_every, detect_side)
