"""Training augmentation of audio and lips, with an explicit random generator.

Masking and cropping as Auto-AVSR (P. Ma et al., ICASSP 2023) does them; noise as AV-HuBERT (B. Shi
et al., Interspeech 2022).
"""

import math

import numpy as np

SILENT = "the noise is empty or silent; leave it out"
MEAN, STD = 0.421, 0.165  # of lip pixels in [0, 1], from AV-HuBERT


def power(samples: np.ndarray) -> float:
    """Mean square of (N,) samples."""
    return float(np.mean(np.square(samples, dtype=np.float64)))


def snr_of(speech: np.ndarray, noisy: np.ndarray) -> float:
    """Signal-to-noise ratio in dB of a mixture, given its clean speech; infinite without noise."""
    noise = power(noisy.astype(np.float64) - speech)
    return float(10 * np.log10(power(speech) / noise)) if noise else math.inf


def cut_noise(noise: np.ndarray, length: int, rng: np.random.Generator) -> np.ndarray:
    """Take ``length`` samples from a random offset, repeating the noise where it is too short.

    If the cut is digital silence, it is taken from the loudest sample on instead.

    Raises:
        ValueError: for a noise that is empty or silent throughout.
    """
    if len(noise) == 0:
        raise ValueError(SILENT)
    # A noise longer than the speech is not wrapped around, which would leave a discontinuity.
    last = len(noise) - length if len(noise) > length else len(noise) - 1
    offset = int(rng.integers(last + 1))
    cut = np.take(noise, np.arange(offset, offset + length), mode="wrap")
    return cut if np.any(cut) else cut_loudest(noise, length)


def cut_loudest(noise: np.ndarray, length: int) -> np.ndarray:
    """Take ``length`` samples from the loudest one on, repeating the noise where it is too short.

    Raises:
        ValueError: for a noise that is silent throughout.
    """
    if not np.any(noise):
        raise ValueError(SILENT)
    offset = int(np.argmax(np.abs(noise)))
    return np.take(noise, np.arange(offset, offset + length), mode="wrap")


def add_noise(
    speech: np.ndarray, noise: np.ndarray, snr_db: float, rng: np.random.Generator
) -> np.ndarray:
    """Mix noise into speech at a signal-to-noise ratio.

    The ratio is 10 log10 of the mean power of the speech over that of the noise as mixed, both over
    the whole utterance. The speech keeps its level and nothing is clipped: the mixture may leave
    [-1, 1]. Silent speech is returned as it is.

    Args:
        speech: float (N,).
        noise: float (M,), any length; cut or repeated from a random offset.
        snr_db: ratio in dB.
        rng: draws the offset.

    Returns:
        float32 (N,).

    Raises:
        ValueError: for a noise that is empty or silent.
    """
    return mix(speech, cut_noise(noise, len(speech), rng), snr_db)


def mix(speech: np.ndarray, cut: np.ndarray, snr_db: float) -> np.ndarray:
    """`add_noise` of noise that has been cut: (N,) and (N,) to float32 (N,)."""
    gain = np.sqrt(power(speech) / (power(cut) * 10 ** (snr_db / 10)))
    return (speech + gain * cut).astype(np.float32)


def mask_audio(
    speech: np.ndarray,
    rng: np.random.Generator,
    rate: int = 16000,
    max_seconds: float = 0.4,
    per_seconds: float = 1.0,
) -> np.ndarray:
    """Zero random spans, one for each ``per_seconds`` of speech, each up to ``max_seconds``.

    Args:
        speech: (N,).
        rng: draws lengths (uniform) and positions.
        rate: samples per second.
        max_seconds: longest span.
        per_seconds: length of speech for each span.

    Returns:
        A copy, (N,).
    """
    return _mask(speech, rng, round(max_seconds * rate), round(per_seconds * rate))


def mask_video(
    frames: np.ndarray, rng: np.random.Generator, max_frames: int = 10, per_frames: int = 25
) -> np.ndarray:
    """Set random spans of frames to black, one for each ``per_frames``, each up to ``max_frames``.

    Args:
        frames: (T, H, W).
        rng: draws lengths (uniform) and positions.
        max_frames: longest span.
        per_frames: number of frames for each span.

    Returns:
        A copy, (T, H, W).
    """
    return _mask(frames, rng, max_frames, per_frames)


def _mask(data: np.ndarray, rng: np.random.Generator, longest: int, per: int) -> np.ndarray:
    data = data.copy()
    for _ in range(-(-len(data) // per)):
        width = min(int(rng.integers(longest + 1)), len(data))
        start = int(rng.integers(len(data) - width + 1))
        data[start : start + width] = 0
    return data


def random_crop(
    frames: np.ndarray,
    size: int,
    rng: np.random.Generator,
    flip: bool = True,
    shift: int | None = None,
) -> np.ndarray:
    """Crop the same random square from all frames, and mirror half of the clips.

    Args:
        frames: (T, H, W).
        size: side of the square.
        rng: draws position and mirroring.
        flip: mirror left and right with probability one half.
        shift: pixels that the square moves from the middle, at most and in each direction; None
            takes any square inside the frames.

    Returns:
        (T, size, size).

    Raises:
        ValueError: if the frames are smaller than ``size``.
    """
    top, left = (_start(space - size, rng, shift) for space in _check_size(frames, size))
    frames = frames[:, top : top + size, left : left + size]
    return frames[:, :, ::-1] if flip and rng.random() < 0.5 else frames


def _start(space: int, rng: np.random.Generator, shift: int | None) -> int:
    """Where a crop begins that leaves ``space`` pixels of a side."""
    if shift is None:
        return int(rng.integers(space + 1))
    middle = space // 2
    return int(rng.integers(max(0, middle - shift), min(space, middle + shift) + 1))


def center_crop(frames: np.ndarray, size: int) -> np.ndarray:
    """Crop the central square: (T, H, W) -> (T, size, size).

    Raises:
        ValueError: if the frames are smaller than ``size``.
    """
    height, width = _check_size(frames, size)
    top, left = (height - size) // 2, (width - size) // 2
    return frames[:, top : top + size, left : left + size]


def normalize(frames: np.ndarray) -> np.ndarray:
    """uint8 pixels -> float32 of about zero mean and unit variance, of the same shape."""
    return (frames.astype(np.float32) / 255 - MEAN) / STD


def _check_size(frames: np.ndarray, size: int) -> tuple[int, int]:
    height, width = frames.shape[1:]
    if height < size or width < size:
        raise ValueError(f"frames of {width}x{height} are too small for a crop of {size}x{size}")
    return height, width
