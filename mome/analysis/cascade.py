"""What a cascade of rates costs and gains, from transcripts at coarse and at fine rates.

All is read at coarse rates, and what is doubtful again at fine ones, of the same encoders' output.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mome.analysis.wer import error_rate


@dataclass(frozen=True)
class Read:
    """A set of U utterances read at one rate pair.

    Attributes:
        errors: (U,) words that are wrong.
        confidences: (U,), 0 to 1.
        tflops: (U,) of projectors and LLM.
    """

    errors: np.ndarray
    confidences: np.ndarray
    tflops: np.ndarray


@dataclass(frozen=True)
class Point:
    """A cascade at one threshold: share of utterances read again, WER in %, TFLOPs for one.

    The threshold is None if all is read again, or if chance chooses.
    """

    threshold: float | None
    share: float
    wer: float
    tflops: float


def cascade(
    coarse: Read, fine: Read, words: np.ndarray, encoders: np.ndarray, threshold: float | None
) -> Point:
    """Read again what has a lower confidence than the threshold.

    Args:
        coarse: what all is read at.
        fine: what the doubtful is read at.
        words: (U,) of the references.
        encoders: (U,) TFLOPs of the encoders, whose output both read.
        threshold: confidence below which an utterance is doubtful; None reads all again.
    """
    again = coarse.confidences < (np.inf if threshold is None else threshold)
    errors = np.where(again, fine.errors, coarse.errors)
    tflops = encoders + coarse.tflops + again * fine.tflops
    wer = error_rate(errors, words)
    return Point(threshold, float(again.mean()), wer, float(tflops.mean()))


def curve(coarse: Read, fine: Read, words: np.ndarray, encoders: np.ndarray) -> list[Point]:
    """The cascade at every threshold that makes a difference, from none to all read again."""
    thresholds = [*np.unique(coarse.confidences).tolist(), None]
    return [cascade(coarse, fine, words, encoders, each) for each in thresholds]


def choose(points: Sequence[Point], wer: float) -> Point:
    """The cheapest cascade whose WER is at most ``wer``; without one, that of the lowest WER.

    For choosing a threshold on validation data.
    """
    good = [point for point in points if point.wer <= wer]
    if not good:
        return min(points, key=lambda point: (point.wer, point.tflops))
    return min(good, key=lambda point: point.tflops)


def by_chance(
    coarse: Read, fine: Read, words: np.ndarray, encoders: np.ndarray, share: float
) -> Point:
    """What reading a share of the utterances again gives if chance chooses them, on average."""
    wers = [error_rate(read.errors, words) for read in (coarse, fine)]
    tflops = encoders + coarse.tflops + share * fine.tflops
    return Point(None, share, wers[0] + share * (wers[1] - wers[0]), float(tflops.mean()))
