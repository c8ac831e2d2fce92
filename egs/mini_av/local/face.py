"""A talking face: drawn once per identity, then moved and given a mouth frame by frame."""

from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np

cv2.setNumThreads(1)  # clips are made in parallel; threads inside one only get in the way

SIZE = 224  # pixels, as LRS3's videos
FPS = 25
MOUTH = (112.0, 153.0)  # centre of the mouth in the identity's own picture
PATCH = (72, 64)  # width and height of the region redrawn for the mouth, pixels
SCALE = 3  # the mouth is drawn at this many times the resolution, then reduced


@dataclass(frozen=True)
class Identity:
    """What a speaker looks like; colours are BGR, 0 to 255.

    Attributes:
        skin, lips, hair, background, shirt, iris: colours.
        face_width, face_height: half axes of the head, pixels.
        eye_distance, eye_size, brow, nose: sizes and thicknesses, pixels.
        mouth_width: half width of the mouth at rest, pixels.
        lip_thickness: of each lip, pixels.
        hair_style: 0 short, 1 long, 2 high forehead.
        seed: of the small blemishes of the skin.
    """

    skin: tuple[float, float, float]
    lips: tuple[float, float, float]
    hair: tuple[float, float, float]
    background: tuple[float, float, float]
    shirt: tuple[float, float, float]
    iris: tuple[float, float, float]
    face_width: float
    face_height: float
    eye_distance: float
    eye_size: float
    brow: float
    nose: float
    mouth_width: float
    lip_thickness: float
    hair_style: int
    seed: int


def random_identity(rng: np.random.Generator) -> Identity:
    """Draw an identity."""
    # Skin runs from light to dark along one line, with a little variation of hue.
    light, dark = np.array([188, 208, 240.0]), np.array([60, 84, 126.0])
    tone = rng.uniform(0, 0.9)
    skin = light + tone * (dark - light) + rng.normal(0, 4, 3)
    lips = skin * (0.66, 0.60, 0.84) + rng.normal(0, 5, 3)
    hair = np.array([[25, 28, 35], [35, 55, 85], [60, 110, 150], [90, 90, 95], [20, 35, 70]])
    return Identity(
        skin=tuple(skin.clip(30, 250)),
        lips=tuple(lips.clip(15, 235)),
        hair=tuple(hair[rng.integers(len(hair))] + rng.uniform(-10, 10, 3)),
        background=tuple(rng.uniform(50, 220, 3)),
        shirt=tuple(rng.uniform(20, 230, 3)),
        iris=tuple(rng.uniform(20, 110, 3)),
        face_width=rng.uniform(51, 58),
        face_height=rng.uniform(72, 80),
        eye_distance=rng.uniform(22.5, 26),
        eye_size=rng.uniform(10, 12.5),
        brow=rng.uniform(3.0, 5.5),
        nose=rng.uniform(9, 13),
        mouth_width=rng.uniform(18.5, 23),
        lip_thickness=rng.uniform(4.0, 6.5),
        hair_style=int(rng.integers(3)),
        seed=int(rng.integers(2**31)),
    )


def _shade(image: np.ndarray, draw, colour, strength: float, blur: float) -> None:
    """Blend a colour into the image through a blurred mask that ``draw`` fills."""
    mask = np.zeros(image.shape[:2], np.float32)
    draw(mask)
    # The blurred mask is 0 further than 4 standard deviations from what was drawn; there is no need
    # to look there.
    left, top, width, height = cv2.boundingRect((mask > 0).astype(np.uint8))
    reach = int(4 * blur) + 2
    part = (
        slice(max(0, top - reach), top + height + reach),
        slice(max(0, left - reach), left + width + reach),
    )
    mask = cv2.GaussianBlur(mask[part], (0, 0), blur) * strength
    image[part] += mask[..., None] * (np.asarray(colour, np.float32) - image[part])


def _ellipse(centre, axes, angle=0.0, start=0, end=360, thickness=-1):
    def draw(mask: np.ndarray) -> None:
        shift = 4
        point = tuple(round(c * 16) for c in centre)
        size = tuple(max(1, round(a * 16)) for a in axes)
        cv2.ellipse(mask, point, size, angle, start, end, 1.0, thickness, cv2.LINE_AA, shift)

    return draw


def _polygon(points):
    def draw(mask: np.ndarray) -> None:
        cv2.fillPoly(
            mask, [np.round(np.asarray(points) * 16).astype(np.int32)], 1.0, cv2.LINE_AA, 4
        )

    return draw


@lru_cache(maxsize=128)
def draw_head(identity: Identity) -> np.ndarray:
    """The identity's picture without a mouth: uint8 (SIZE, SIZE, 3)."""
    rng = np.random.default_rng(identity.seed)
    image = np.empty((SIZE, SIZE, 3), np.float32)
    image[:] = identity.background
    ramp = np.linspace(-18, 18, SIZE, dtype=np.float32)
    image += (rng.uniform(-1, 1) * ramp[:, None] + rng.uniform(-1, 1) * ramp)[..., None]
    skin, hair = np.array(identity.skin), np.array(identity.hair)
    shadow, lit = skin * 0.55, np.minimum(skin * 1.13, 255)
    cx, cy, fw, fh = 112.0, 110.0, identity.face_width, identity.face_height
    ex, ey, es = identity.eye_distance, 97.0, identity.eye_size

    if identity.hair_style == 1:
        _shade(image, _ellipse((cx, cy + 6), (fw + 15, fh + 12)), hair, 1, 1.2)
    _shade(image, _ellipse((cx, SIZE + 22), (96, 52)), identity.shirt, 1, 1.0)
    neck = [(cx - 27, 160), (cx + 27, 160), (cx + 32, 206), (cx - 32, 206)]
    _shade(image, _polygon(neck), skin * 0.72, 1, 1.5)
    for side in (-1, 1):
        _shade(image, _ellipse((cx + side * (fw + 1), 108), (6, 13)), skin * 0.85, 1, 0.8)
    _shade(image, _ellipse((cx, cy - 12), (fw + 5, fh + 4), 0, 180, 360), hair, 1, 1.0)
    # The face narrows from the cheek bones to the chin.
    angle = np.linspace(0, 2 * np.pi, 72)
    x, y = np.cos(angle) * fw, np.sin(angle) * fh
    x *= np.where(y > 0, 1 - 0.24 * (y / fh) ** 2, 1 - 0.08 * (y / fh) ** 2)
    outline = np.stack([cx + x, cy + y], 1)
    _shade(image, _polygon(outline), skin, 1, 0.7)
    if identity.hair_style != 2:
        fringe = [(cx - fw, 74), (cx - fw + 8, 50), (cx, 40), (cx + fw - 8, 50), (cx + fw, 74)]
        fringe += [(cx + 30, 58), (cx, 54), (cx - 30, 58)]
        _shade(image, _polygon(fringe), hair, 1, 1.5)

    # Light from above: forehead, cheeks, nose and chin bright, sides and sockets dark.
    for side in (-1, 1):
        _shade(image, _ellipse((cx + side * fw * 0.92, 125), (12, 45)), shadow, 0.45, 9)
        _shade(image, _ellipse((cx + side * 31, 126), (12, 9)), lit, 0.5, 6)
        _shade(image, _ellipse((cx + side * ex, ey - 3), (es + 4, 9)), shadow, 0.55, 4)
    _shade(image, _ellipse((cx, 66), (28, 10)), lit, 0.5, 8)
    _shade(image, _ellipse((cx, 178), (12, 6)), lit, 0.35, 4)
    _shade(image, _ellipse((cx, 168), (11, 2.5)), shadow, 0.35, 2)

    nose = identity.nose
    _shade(
        image, _polygon([(cx - 3, 96), (cx + 3, 96), (cx + 5, 126), (cx - 5, 126)]), lit, 0.8, 2.5
    )
    for side in (-1, 1):
        bridge = [(cx + side * 4, 92), (cx + side * 7, 96), (cx + side * (nose - 1), 126)]
        _shade(image, _polygon([*bridge, (cx + side * 5, 124)]), shadow, 0.5, 2)
        _shade(image, _ellipse((cx + side * nose * 0.85, 128), (4, 3.5)), skin * 0.78, 0.7, 1.5)
        _shade(image, _ellipse((cx + side * nose * 0.48, 131), (3.0, 1.6)), skin * 0.25, 0.9, 0.8)
        fold = [(cx + side * (nose + 4), 133), (cx + side * 25, 150)]
        fold += [(cx + side * 24, 151), (cx + side * (nose + 3), 135)]
        _shade(image, _polygon(fold), shadow, 0.5, 2)
    _shade(image, _ellipse((cx, 124), (5, 4)), lit, 0.7, 2)
    _shade(image, _ellipse((cx, 133), (nose * 0.8, 1.5)), shadow, 0.6, 1.2)
    _shade(image, _ellipse((cx, 140), (2.5, 4)), shadow, 0.25, 1.5)

    for side in (-1, 1):
        eye = (cx + side * ex, ey)
        _shade(image, _ellipse(eye, (es, es * 0.42)), (232, 234, 236), 1, 0.7)
        _shade(image, _ellipse(eye, (es * 0.42, es * 0.42)), identity.iris, 1, 0.5)
        _shade(image, _ellipse(eye, (es * 0.2, es * 0.2)), (12, 12, 12), 1, 0.4)
        lid = _ellipse(eye, (es + 0.5, es * 0.5), 0, 190, 350, 2)
        _shade(image, lid, skin * 0.22, 0.95, 0.6)
        _shade(image, _ellipse(eye, (es, es * 0.5), 0, 15, 165, 1), skin * 0.45, 0.7, 0.6)
        brow = identity.brow
        inner, outer = cx + side * (ex - es - 2), cx + side * (ex + es + 4)
        peak = cx + side * (ex + 3)
        arch = [(inner, 86), (peak, 79), (outer, 85), (outer, 86.5), (peak, 79 + brow)]
        _shade(
            image, _polygon([*arch, (inner, 86 + brow)]), np.minimum(hair, skin * 0.45), 0.95, 0.8
        )
    blemish = cv2.GaussianBlur(rng.normal(0, 1, (SIZE, SIZE)).astype(np.float32), (0, 0), 2.0)
    image += 14 * blemish[..., None]
    return image.clip(0, 255).astype(np.uint8)


def _lens(width: float, up: float, down: float, points: int = 17) -> tuple[np.ndarray, np.ndarray]:
    """Upper and lower edge of a mouth-shaped opening: (points, 2) each, left to right."""
    x = np.linspace(-1, 1, points)
    bulge = np.sqrt(np.maximum(0, 1 - np.abs(x) ** 2.2))
    return np.stack([x * width, -up * bulge], 1), np.stack([x * width, down * bulge], 1)


def draw_mouth(patch: np.ndarray, identity: Identity, shape: np.ndarray) -> np.ndarray:
    """Draw the mouth into the patch of skin around ``MOUTH``.

    Args:
        patch: uint8 (PATCH[1], PATCH[0], 3).
        identity: the speaker.
        shape: (7,) as ``visemes.PARAMETERS``.

    Returns:
        uint8 picture of the same size.
    """
    opening, _, spread, rounding, teeth, tongue, tuck = shape
    canvas = cv2.resize(patch, None, fx=SCALE, fy=SCALE, interpolation=cv2.INTER_LINEAR)
    centre = np.array([PATCH[0] / 2, PATCH[1] * 0.42])
    width = identity.mouth_width * (0.78 + 0.34 * spread) * (1 - 0.22 * rounding)
    gap = 21.0 * opening
    up, down = 0.36 * gap, 0.64 * gap
    thick = identity.lip_thickness * (1 + 0.35 * rounding) * (0.72 + 0.28 * min(1, opening * 6))
    lift = 2.6 * tuck  # the lower lip rises under the upper teeth
    inner_width = width * (0.90 if opening > 0.02 else 0.96)
    inner_up, inner_down = _lens(inner_width, up, down)
    outer_up, outer_down = _lens(width, up + thick, down + thick * 1.25 - lift)
    x = np.linspace(-1, 1, len(outer_up))
    outer_up[:, 1] += 0.30 * thick * np.exp(-((x / 0.16) ** 2))  # Cupid's bow
    inner_down[:, 1] -= lift * (1 - x**2)
    inner_down[:, 1] = np.maximum(inner_down[:, 1], inner_up[:, 1])

    def fill(points: np.ndarray, colour) -> None:
        points = np.round((points + centre) * SCALE * 16).astype(np.int32)
        cv2.fillPoly(canvas, [points], tuple(float(c) for c in colour), cv2.LINE_AA, 4)

    lips = np.array(identity.lips)
    fill(np.concatenate([outer_up, outer_down[::-1]]), lips)
    middle = (outer_up + inner_up) / 2
    fill(np.concatenate([middle, inner_up[::-1]]), lips * 0.84)
    gloss = outer_down * (0.55, 1) - (0, thick * 0.55)
    bright = np.concatenate([gloss - (0, thick * 0.16), gloss[::-1] + (0, thick * 0.16)])
    fill(bright, np.minimum(lips * 1.16 + 8, 255))
    if opening > 0.02:
        inside = np.concatenate([inner_up, inner_down[::-1]])
        fill(inside, (28, 22, 48))
        if tongue > 0.05:
            height = (inner_down[:, 1] - inner_up[:, 1]) * (0.25 + 0.5 * tongue)
            top = inner_down - np.stack([0 * height, height], 1)
            keep = np.abs(x) < 0.62
            shape_ = np.concatenate([top[keep], inner_down[keep][::-1]])
            fill(shape_, np.array((105, 95, 178)) * (0.55 + 0.4 * tongue))
        if teeth > 0.05:
            height = np.minimum(inner_down[:, 1] - inner_up[:, 1], 5.0 * teeth + 0.5)
            bottom = inner_up + np.stack([0 * height, height], 1)
            keep = np.abs(x) < 0.8
            shape_ = np.concatenate([inner_up[keep], bottom[keep][::-1]])
            fill(shape_, np.array((205, 218, 224)) * (0.62 + 0.38 * teeth))
    else:
        line = np.round((inner_up + centre) * SCALE * 16).astype(np.int32)
        colour = tuple(float(c) for c in lips * 0.42)
        cv2.polylines(canvas, [line], False, colour, SCALE, cv2.LINE_AA, 4)
    return cv2.resize(canvas, PATCH, interpolation=cv2.INTER_AREA)


@dataclass(frozen=True)
class Motion:
    """How the head moves in a clip: (T,) pixels, pixels, degrees, factor, gain and offset."""

    x: np.ndarray
    y: np.ndarray
    roll: np.ndarray
    scale: np.ndarray
    gain: np.ndarray
    offset: float


def random_motion(frames: int, rng: np.random.Generator) -> Motion:
    """Slow, smooth head motion, with another framing and light for every clip."""
    time = np.arange(frames) / FPS

    def wave(amplitude: float) -> np.ndarray:
        parts = [
            rng.uniform(0.3, 1)
            * np.sin(2 * np.pi * rng.uniform(0.15, 0.9) * time + rng.uniform(0, 7))
            for _ in range(2)
        ]
        return amplitude * sum(parts) / 2

    return Motion(
        x=rng.uniform(-10, 10) + wave(5),
        y=rng.uniform(-8, 6) + wave(4),
        roll=rng.uniform(-5, 5) + wave(4),
        scale=rng.uniform(0.86, 1.1) * (1 + wave(0.03)),
        gain=rng.uniform(0.75, 1.12) * (1 + wave(0.03)),
        offset=rng.uniform(-12, 12),
    )


def render(identity: Identity, shapes: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Render a clip.

    Args:
        identity: the speaker.
        shapes: (T, 7) mouth parameters of each frame.
        rng: for motion, light, blinks and sensor noise.

    Returns:
        uint8 (T, SIZE, SIZE, 3), BGR.
    """
    head = draw_head(identity)
    motion = random_motion(len(shapes), rng)
    noise = rng.normal(0, 2.5, (4, SIZE, SIZE)).astype(np.int8)
    left, top = round(MOUTH[0] - PATCH[0] / 2), round(MOUTH[1] - PATCH[1] * 0.42)
    blink_at = rng.integers(0, max(1, len(shapes))) if rng.random() < 0.4 else -10
    frames = np.empty((len(shapes), SIZE, SIZE, 3), np.uint8)
    split = round(MOUTH[1]) + 2
    for index, shape in enumerate(shapes):
        picture = head.copy()
        # The jaw drops: what lies below the mouth is stretched downwards.
        drop = round(9 * float(shape[1]))
        below = cv2.resize(head[split:200], (SIZE, 200 - split + drop))
        picture[split:] = (
            below[: SIZE - split]
            if split + len(below) >= SIZE
            else np.concatenate([below, head[split + len(below) :]])
        )
        region = (slice(top, top + PATCH[1]), slice(left, left + PATCH[0]))
        picture[region] = draw_mouth(picture[region], identity, shape)
        if abs(index - blink_at) <= 1:
            for side in (-1, 1):
                centre = (round((112 + side * identity.eye_distance) * 16), 97 * 16)
                axes = (round(identity.eye_size * 17), round(identity.eye_size * 8))
                skin = tuple(0.8 * c for c in identity.skin)
                cv2.ellipse(picture, centre, axes, 0, 0, 360, skin, -1, cv2.LINE_AA, 4)
        matrix = cv2.getRotationMatrix2D(
            (112, 118), float(motion.roll[index]), float(motion.scale[index])
        )
        matrix[:, 2] += motion.x[index], motion.y[index]
        picture = cv2.warpAffine(
            picture, matrix, (SIZE, SIZE), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
        )
        picture = cv2.convertScaleAbs(picture, alpha=float(motion.gain[index]), beta=motion.offset)
        grain = cv2.merge([noise[index % len(noise)]] * 3)
        frames[index] = cv2.add(picture, grain, dtype=cv2.CV_8U)
    return frames
