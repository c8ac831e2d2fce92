"""Corruptions of lip video: blur, occlusion, darkness, dropped frames.

Each corruption has three strengths, for mouth crops of 96x96 pixels, of which the mouth is about 48
wide:

- blur: a Gaussian of 1, 2, 4 pixels, then 1/2, 1/4, 1/8 of the resolution: a face far away.
- occlusion: a textured patch of 1/3, 1/2, 2/3 of the crop's width over the mouth, on 40, 60, 80 %
  of the frames, in spans of about a second: a hand, a microphone.
- darkness: 2, 4, 6 photographic stops less light (1/4, 1/16, 1/64) on a sensor with shot and read
  noise: a dim room and a camera that does not adapt.
- drop: 20, 40, 60 % of the frames lost in bursts of about 4, 8, 16: a bad connection.

Patches over the mouth for part of the time, and blur, are what AV-RelScore (J. Hong et al., CVPR
2023) and CAV2vec (S. Kim et al., ICLR 2025) test with; their patches are photographs of objects,
ours are drawn, so that no images have to be downloaded. A lost frame repeats the last one received,
as video calls show it, so that the number and the timing of frames do not change.

A generator in the same state draws the same patch and position at every strength.
"""

import cv2
import numpy as np

STRENGTHS = (1, 2, 3)

BLUR_FACTOR = (2, 4, 8)  # of resolution; the Gaussian's sigma is half of it, in pixels
PATCH_WIDTH = (1 / 3, 1 / 2, 2 / 3)  # of the crop's width
PATCH_SHARE = (0.4, 0.6, 0.8)  # of frames
PATCH_FRAMES = 25  # in a span
STOPS = (2, 4, 6)
DROP_SHARE = (0.2, 0.4, 0.6)  # of frames
DROP_FRAMES = (4, 8, 16)  # in a burst

GAMMA = 2.2
WELL = 2000  # electrons of a white pixel in good light
READ_NOISE = 2.0  # electrons, standard deviation


def corrupt(frames: np.ndarray, kind: str, strength: int, rng: np.random.Generator) -> np.ndarray:
    """Corrupt a mouth crop.

    Args:
        frames: uint8 (T, H, W), grey, the mouth in the middle.
        kind: one of CORRUPTIONS.
        strength: 1, 2 or 3.
        rng: draws what is random.

    Returns:
        A copy, uint8 (T, H, W).

    Raises:
        ValueError: for an unknown kind or strength.
    """
    if kind not in CORRUPTIONS or strength not in STRENGTHS:
        raise ValueError(
            f"corruption {kind!r} at strength {strength!r}: known are {', '.join(CORRUPTIONS)}"
            f" at {', '.join(map(str, STRENGTHS))}"
        )
    return CORRUPTIONS[kind](frames, strength - 1, rng)


def describe(kind: str, strength: int) -> str:
    """A corruption in words, for tables."""
    level = strength - 1
    if kind == "blur":
        return f"lips at 1/{BLUR_FACTOR[level]} resolution"
    if kind == "occlusion":
        width, share = 100 * PATCH_WIDTH[level], 100 * PATCH_SHARE[level]
        return f"patch of {width:.0f} % width on {share:.0f} % of lip frames"
    if kind == "darkness":
        return f"lips {STOPS[level]} stops darker"
    return f"{100 * DROP_SHARE[level]:.0f} % of lip frames dropped"


def blur(frames: np.ndarray, level: int, rng: np.random.Generator) -> np.ndarray:
    """Defocus and low resolution; nothing is random. See `corrupt`; ``level`` counts from 0."""
    height, width = frames.shape[1:]
    factor = BLUR_FACTOR[level]
    small = (max(1, width // factor), max(1, height // factor))
    result = np.empty_like(frames)
    for output, frame in zip(result, frames, strict=True):
        soft = cv2.GaussianBlur(frame, (0, 0), factor / 2, borderType=cv2.BORDER_REPLICATE)
        soft = cv2.resize(soft, small, interpolation=cv2.INTER_AREA)
        output[:] = cv2.resize(soft, (width, height), interpolation=cv2.INTER_CUBIC)
    return result


def occlusion(frames: np.ndarray, level: int, rng: np.random.Generator) -> np.ndarray:
    """A textured patch that sways over the mouth; arguments as of `blur`."""
    num_frames, height, width = frames.shape
    start = rng.uniform(-width / 12, width / 12, 2)
    sway, phase = rng.uniform(0, width / 24, 2), rng.uniform(0, 2 * np.pi, 2)
    patch_rng, time_rng = rng.spawn(2)
    texture, alpha = _patch(round(PATCH_WIDTH[level] * width), patch_rng)
    covered = _random_spans(num_frames, PATCH_SHARE[level], PATCH_FRAMES, time_rng)
    result = frames.copy()
    for t in np.flatnonzero(covered):
        # A sway of two seconds.
        shift = start + sway * np.sin(2 * np.pi * t / 50 + phase)
        corner = np.array([width, height]) / 2 + shift - np.array(texture.shape) / 2
        move = np.array([[1, 0, corner[0]], [0, 1, corner[1]]])
        cover = cv2.warpAffine(alpha, move, (width, height))
        above = cv2.warpAffine(texture, move, (width, height), borderMode=cv2.BORDER_REPLICATE)
        result[t] = np.rint(cover * above + (1 - cover) * frames[t])
    return result


def darkness(frames: np.ndarray, level: int, rng: np.random.Generator) -> np.ndarray:
    """Less light on a sensor with shot and read noise; arguments as of `blur`."""
    light = (frames / 255) ** GAMMA * (WELL / 2.0 ** STOPS[level])
    electrons = rng.poisson(light) + rng.normal(0, READ_NOISE, frames.shape)
    signal = np.clip(electrons / WELL, 0, 1) ** (1 / GAMMA)
    return np.rint(255 * signal).astype(np.uint8)


def drop(frames: np.ndarray, level: int, rng: np.random.Generator) -> np.ndarray:
    """Bursts of lost frames; the first frame is never lost. Arguments as of `blur`."""
    lost = np.zeros(len(frames), bool)
    lost[1:] = _random_spans(len(frames) - 1, DROP_SHARE[level], DROP_FRAMES[level], rng)
    received = np.where(lost, 0, np.arange(len(frames)))
    return frames[np.maximum.accumulate(received)]


CORRUPTIONS = {"blur": blur, "occlusion": occlusion, "darkness": darkness, "drop": drop}


def _random_spans(length: int, share: float, typical: int, rng: np.random.Generator) -> np.ndarray:
    """bool (length,): a ``share`` of it is true, in random spans of about ``typical``."""
    total = round(share * length)
    if total == 0:
        return np.zeros(length, bool)
    number = max(1, round(total / typical))
    runs = 1 + rng.multinomial(total - number, np.full(number, 1 / number))
    gaps = rng.multinomial(length - total, np.full(number + 1, 1 / (number + 1)))
    lengths = np.append(np.column_stack([gaps[:-1], runs]).ravel(), gaps[-1])
    return np.repeat(np.arange(len(lengths)) % 2 == 1, lengths)


def _patch(diameter: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Grey levels and opacity, float32 (S, S), of a blob with an uneven outline and a texture."""
    brightness, folds = rng.uniform(60, 200), rng.normal(0, 25, (5, 5))
    lobes, phases = rng.uniform(0.03, 0.12, 3), rng.uniform(0, 2 * np.pi, 3)
    side = round(1.5 * diameter)
    y, x = np.mgrid[:side, :side] - (side - 1) / 2
    angle = np.arctan2(y, x)
    outline = 1 + sum(
        lobe * np.cos(k * angle + phase)
        for k, lobe, phase in zip((2, 3, 4), lobes, phases, strict=True)
    )
    # One pixel from transparent to opaque.
    alpha = np.clip(diameter / 2 * outline - np.hypot(x, y) + 0.5, 0, 1)
    shades = cv2.resize(folds, (side, side), interpolation=cv2.INTER_CUBIC)
    grain = cv2.GaussianBlur(rng.normal(0, 16, (side, side)), (0, 0), 1)
    texture = np.clip(brightness + shades + grain, 0, 255)
    return texture.astype(np.float32), alpha.astype(np.float32)
