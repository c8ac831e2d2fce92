"""Draw clips and text into pictures: filmstrips, captions, PNG."""

from pathlib import Path

import cv2
import numpy as np

from mome.common.atomic_files import write_bytes

CAPTION_HEIGHT = 16  # pixels
Colour = tuple[int, int, int]  # blue, green, red
BLACK: Colour = (0, 0, 0)


def filmstrip(frames: np.ndarray, columns: int, scale: float = 1.0) -> np.ndarray:
    """Frames at equal steps in time, side by side, from the first to the last.

    Args:
        frames: uint8 (T, H, W).
        columns: how many are shown; a short clip repeats some.
        scale: size of a frame, as a factor.

    Returns:
        uint8 (scale * H, columns * scale * W), sides rounded.
    """
    chosen = frames[np.linspace(0, len(frames) - 1, columns).round().astype(int)]
    if scale != 1:
        size = round(scale * frames.shape[2]), round(scale * frames.shape[1])
        chosen = np.stack([cv2.resize(f, size, interpolation=cv2.INTER_AREA) for f in chosen])
    return np.concatenate(list(chosen), axis=1)


def caption(text: str, width: int) -> np.ndarray:
    """A white band with black text, uint8 (CAPTION_HEIGHT, width)."""
    band = np.full((CAPTION_HEIGHT, width), 255, np.uint8)
    put_text(band, text, (3, CAPTION_HEIGHT - 4), size=0.4)
    return band


def put_text(
    picture: np.ndarray, text: str, at: tuple[int, int], size: float, colour: Colour = BLACK
) -> None:
    """Write into a picture in place.

    Args:
        picture: uint8 (H, W), or (H, W, 3) in OpenCV's order of colours.
        text: one line.
        at: x of its left end and y of its base line, in pixels.
        size: of the font; 0.5 makes capitals of about 11 pixels.
        colour: a picture without colours takes the first value.
    """
    cv2.putText(picture, text, at, cv2.FONT_HERSHEY_SIMPLEX, size, colour, 1, cv2.LINE_AA)


def text_width(text: str, size: float) -> int:
    """Pixels from the left end of a line of text to its right end."""
    return cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, size, 1)[0][0]


def encode_png(picture: np.ndarray) -> bytes:
    """A picture, uint8 (H, W) or (H, W, 3) in OpenCV's order of colours, as a small PNG."""
    _, data = cv2.imencode(".png", picture, [cv2.IMWRITE_PNG_COMPRESSION, 9])
    return data.tobytes()


def write_png(path: str | Path, picture: np.ndarray) -> None:
    """Write a picture atomically; it is as for `encode_png`."""
    write_bytes(path, encode_png(picture))
