"""Filmstrips, captions and PNG."""

import cv2
import numpy as np

from mome.data.pictures import CAPTION_HEIGHT, caption, filmstrip, text_width, write_png

FRAMES = np.repeat(np.arange(9, dtype=np.uint8), 4 * 6).reshape(9, 4, 6)


def test_frames_stand_at_equal_steps_in_time():
    strip = filmstrip(FRAMES, 3)
    assert strip.shape == (4, 18)
    assert [int(part.min()) for part in np.split(strip, 3, axis=1)] == [0, 4, 8]
    assert [int(part.max()) for part in np.split(strip, 3, axis=1)] == [0, 4, 8]


def test_a_short_clip_repeats_frames_and_smaller_frames_keep_their_values():
    strip = filmstrip(FRAMES[:2], 4, 0.5)
    assert strip.shape == (2, 12)
    assert [int(part.mean()) for part in np.split(strip, 4, axis=1)] == [0, 0, 1, 1]


def test_a_caption_is_as_wide_as_its_text(tmp_path):
    band = caption("s1_bbaf2n", 200)
    assert band.shape == (CAPTION_HEIGHT, 200)
    ink = np.flatnonzero(band.min(0) < 128)
    assert ink.size
    assert abs(ink[-1] - 3 - text_width("s1_bbaf2n", 0.4)) <= 3
    write_png(tmp_path / "band.png", band)
    assert np.array_equal(cv2.imread(str(tmp_path / "band.png"), cv2.IMREAD_GRAYSCALE), band)
