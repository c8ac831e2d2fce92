"""Where somebody speaks in clean speech, by its level."""

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from mome.data.audio import RATE
from mome.data.video import LIP_RATE

HOP = RATE // LIP_RATE  # samples of a video frame, of which each has a value


def speech_activity(
    speech: np.ndarray, share: float = 0.35, max_range: float = 40.0, spread: int = 2
) -> np.ndarray:
    """Which 25ths of a second hold speech: those well above the recording's own noise floor.

    It errs towards speech. What is quieter than the threshold between two loud places, such as the
    closure of a stop, is covered by ``spread``; a longer pause is not speech.

    Args:
        speech: (N,) samples at 16 kHz, without added noise.
        share: threshold, as a share of the way in dB from the floor to the loudest 200 ms.
        max_range: the floor lies at the quietest tenth, but not further below that, in dB.
        spread: values that speech reaches further, in both directions.

    Returns:
        int64 (ceil(N / 640),) of 0 and 1; all 1 where the level never changes.
    """
    frames = np.pad(speech.astype(np.float64), (0, -len(speech) % HOP)).reshape(-1, HOP)
    level = 10 * np.log10(np.square(frames).mean(1) + 1e-12)
    # A click is louder than speech, but not for a fifth of a second.
    held = sliding_window_view(level, min(5, len(level))).mean(-1).max()
    floor = max(np.quantile(level, 0.1), held - max_range)
    active = level >= floor + share * (held - floor)
    near = sliding_window_view(np.pad(active, spread), 2 * spread + 1)
    return near.any(-1).astype(np.int64)
