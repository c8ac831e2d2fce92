"""Cut a recording into segments at pauses of the speech."""

from collections.abc import Iterable
from itertools import pairwise

import cv2
import numpy as np

FRAME = 0.02  # seconds of a level
QUIET = -70.0  # dB below full scale that counts as silence whatever else there is
SPEECH_FROM = 0.4  # share of the way from the level of pauses to that of speech
MIN_CONTRAST = 6.0  # dB between the two; with less there are no pauses
SMOOTH = 5  # frames over which levels are averaged
MARGIN = 0.25  # seconds kept before and after the speech of a segment, at most
MIN_SPEECH = 0.1  # seconds; what is shorter is a click


def levels(blocks: Iterable[np.ndarray], rate: int) -> np.ndarray:
    """Level of every 20 ms, in dB below full scale.

    Args:
        blocks: consecutive samples (N,) of one channel, of any lengths.
        rate: samples per second.

    Returns:
        float32 (T,), the last frame filled up by zeros; a block is not needed after the next one
        was taken, so that the length of a recording does not decide the memory.
    """
    rest = np.zeros(0, dtype=np.float32)
    powers: list[np.ndarray] = []
    begin = count = 0  # of the rest: its first sample, and the frames before it
    for block in blocks:
        rest = np.concatenate([rest, block])
        # A frame need not be a whole number of samples; its boundaries are rounded.
        whole = int((begin + len(rest)) / (FRAME * rate)) - count
        bounds = np.rint((count + np.arange(whole + 1)) * FRAME * rate).astype(int) - begin
        if whole < 1 or bounds[-1] > len(rest):
            continue
        sums = np.add.reduceat(np.square(rest[: bounds[-1]]), bounds[:-1])
        powers.append(sums / np.diff(bounds))
        rest, begin, count = rest[bounds[-1] :], begin + int(bounds[-1]), count + whole
    if len(rest):
        powers.append(np.array([np.square(rest).sum() / (FRAME * rate)]))
    power = np.concatenate(powers) if powers else np.zeros(0)
    return (10 * np.log10(np.maximum(power, 1e-12))).astype(np.float32)


def find_segments(
    level: np.ndarray, max_seconds: float, min_pause: float = 0.4
) -> list[tuple[float, float]]:
    """Where somebody speaks.

    A recording that is not longer than ``max_seconds`` is one segment, as it is. Of a longer one,
    speech with pauses below ``min_pause`` is a segment, with a margin around it, and what is
    longer than ``max_seconds`` is cut where it is quietest.

    Args:
        level: (T,) of every 20 ms, see :func:`levels`.
        max_seconds: longest segment.
        min_pause: shortest pause between segments, in seconds.

    Returns:
        beginnings and ends in seconds, in order and without overlap; none for a silent recording.
    """
    total = len(level) * FRAME
    if not len(level) or level.max() < QUIET:
        return []
    if total <= max_seconds:
        return [(0.0, total)]
    speech = is_speech(level)
    edges = np.flatnonzero(np.diff(speech.astype(np.int8), prepend=0, append=0))
    runs: list[list[int]] = []
    for begin, end in zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True):
        if runs and begin - runs[-1][1] < min_pause / FRAME:
            runs[-1][1] = end
        else:
            runs.append([begin, end])
    runs = [run for run in runs if speech[slice(*run)].sum() * FRAME >= MIN_SPEECH]
    if not runs:
        runs = [[0, len(level)]]  # as loud throughout: whatever it is, it has no pauses
    longest = round(max_seconds / FRAME)
    segments = []
    for number, (begin, end) in enumerate(runs):
        margin = min(round(MARGIN / FRAME), max(0, longest - (end - begin)) // 2)
        before = runs[number - 1][1] if number else 0
        after = runs[number + 1][0] if number + 1 < len(runs) else len(level)
        first = max(begin - margin, (before + begin + 1) // 2 if number else 0)
        last = min(end + margin, (end + after) // 2 if number + 1 < len(runs) else len(level))
        segments += split_at_quietest(level, first, last, longest)
    return [(begin * FRAME, end * FRAME) for begin, end in segments]


def is_speech(level: np.ndarray) -> np.ndarray:
    """Which frames are speech: bool (T,).

    The levels are divided into those of pauses and those of speech by Otsu's method (1979), which
    makes both as alike as possible; digital silence, which is in no room, does not count there.
    Recordings differ in both: a sentence may stand 20 or 60 dB above its room.
    """
    heard = np.clip(smooth(level), QUIET, 0)
    sound = heard[heard > QUIET]
    step = -QUIET / 255
    split, _ = cv2.threshold(
        np.rint((sound - QUIET) / step).astype(np.uint8),
        0,
        255,
        cv2.THRESH_BINARY | cv2.THRESH_OTSU,
    )
    loud = sound > QUIET + split * step
    if not loud.any() or loud.all() or sound[loud].mean() - sound[~loud].mean() < MIN_CONTRAST:
        return heard > QUIET
    pauses, speech = float(sound[~loud].mean()), float(sound[loud].mean())
    return heard > pauses + SPEECH_FROM * (speech - pauses)


def smooth(level: np.ndarray) -> np.ndarray:
    """Levels (T,) averaged over neighbours; at the ends over those that there are."""
    window = np.ones(SMOOTH)
    counts = np.convolve(np.ones(len(level)), window, mode="same")
    return np.convolve(np.maximum(level, QUIET), window, mode="same") / counts


def split_at_quietest(
    level: np.ndarray, begin: int, end: int, longest: int
) -> list[tuple[int, int]]:
    """Halve frames ``begin`` to ``end`` at their quietest place until none is over ``longest``."""
    if end - begin <= longest:
        return [(begin, end)]
    # Not near the ends, so that each part is worth reading, and the number of cuts is bounded.
    quarter = (end - begin) // 4
    inner = slice(begin + quarter, end - quarter)
    cut = begin + quarter + int(smooth(level)[inner].argmin())
    return [
        *split_at_quietest(level, begin, cut, longest),
        *split_at_quietest(level, cut, end, longest),
    ]


def even_segments(total: float, max_seconds: float) -> list[tuple[float, float]]:
    """Equal parts of a recording without sound, none longer than ``max_seconds``."""
    count = max(1, int(np.ceil(total / max_seconds - 1e-9)))
    return list(pairwise(np.linspace(0, total, count + 1).tolist()))
