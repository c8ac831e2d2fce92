"""Who of several people speaks: the one whose mouth says what is heard, or moves with the sound."""

from collections.abc import Sequence

import numpy as np

from mome.data.audio import RATE
from mome.data.video import LIP_RATE

SMOOTH = 5  # frames over which motion and sound are averaged
LAGS = range(-3, 4)  # frames by which sound may be early or late
CLEAR = 0.1  # by which a correlation must be higher to tell one from another
CERTAIN = 1.0  # nats for a token, by which a mouth must be likelier than all others
MOUTH = slice(24, 72)  # rows and columns of the middle of a crop
SAMPLES = RATE // LIP_RATE


def motion(crops: np.ndarray) -> np.ndarray:
    """How much the mouth changes from frame to frame: uint8 (T, 96, 96) -> (T,)."""
    middle = crops[:, MOUTH, MOUTH].astype(np.float32)
    change = np.abs(np.diff(middle, axis=0)).mean(axis=(1, 2))
    return np.concatenate([change[:1], change])


def loudness(speech: np.ndarray, count: int) -> np.ndarray:
    """Level of the sound in dB by video frame: float32 (N,) at 16 kHz -> (T,)."""
    padded = np.pad(speech[: count * SAMPLES], (0, max(0, count * SAMPLES - len(speech))))
    power = np.square(padded, dtype=np.float64).reshape(count, SAMPLES).mean(axis=1)
    return 10 * np.log10(power + 1e-8)


def synchrony(crops: np.ndarray, speech: np.ndarray) -> float:
    """Correlation of mouth motion and sound, the highest of some lags; 0 where nothing changes."""
    size = len(crops)
    if size < 2 * SMOOTH + len(LAGS):
        return 0.0
    window = np.ones(SMOOTH) / SMOOTH
    moved = np.convolve(motion(crops), window, mode="valid")
    heard = np.convolve(loudness(speech, size), window, mode="valid")
    reach = LAGS.stop - 1
    inner = moved[reach : len(moved) - reach]
    best = 0.0
    for lag in LAGS:
        shifted = heard[reach + lag : len(heard) - reach + lag]
        if inner.std() > 0 and shifted.std() > 0:
            best = max(best, float(np.corrcoef(inner, shifted)[0, 1]))
    return best


def who_speaks(
    candidates: Sequence[np.ndarray],
    speech: np.ndarray | None,
    said: Sequence[float] | None = None,
) -> int:
    """Which of several mouths speaks.

    Args:
        candidates: crops uint8 (T, 96, 96), those of the largest face first.
        speech: float32 (N,) at 16 kHz, or None without sound.
        said: how well each says what is heard, see :func:`mome.transcribe.alignment.lips_say`; None
            if that is not known.

    Returns:
        place of the one that says it; if none does clearly, of the one that moves with the sound;
        and the first if that is not clear either.
    """
    if speech is None or len(candidates) < 2:
        return 0
    if said is not None:
        second, first = np.argsort(said)[-2:]
        if said[first] > said[second] + CERTAIN:
            return int(first)
    scores = [synchrony(crops, speech) for crops in candidates]
    best = int(np.argmax(scores))
    return best if scores[best] > scores[0] + CLEAR else 0
