"""mome.lips.extract: which frames are searched, how many may lack a face, what is lit."""

import numpy as np
import pytest

from mome.lips.extract import (
    FRAME_SIDE,
    FaceLost,
    crop_face,
    lit_box,
    reduce_frame,
    seen_frames,
    whole_picture,
)


@pytest.mark.parametrize(
    ("count", "every", "expected"),
    [(10, 3, [0, 3, 6, 9]), (11, 3, [0, 3, 6, 9, 10]), (1, 3, [0]), (4, 1, [0, 1, 2, 3])],
)
def test_every_third_frame_and_the_last_are_searched(count, every, expected):
    assert seen_frames(count, every) == expected


def face(x: float = 100.0, y: float = 100.0) -> np.ndarray:
    """Landmarks (68, 2) of a face whose eyes are 74 pixels apart, the mouth at a place."""
    points = np.full((68, 2), (x, y))
    points[[33, 36, 39, 42, 45]] += [(0, -20), (-37, -63), (-16, -62), (16, -62), (37, -63)]
    return points


FRAMES = [np.full((200, 200), 100, np.uint8)] * 10


@pytest.mark.parametrize(("lost", "kept"), [(0, True), (2, True), (3, False), (4, False)])
def test_half_of_the_searched_frames_may_lack_the_face(lost, kept):
    found = {i: None if place < lost else face() for place, i in enumerate((0, 3, 6, 9))}
    if kept:
        lips = crop_face(FRAMES, "a.mp4", found)
        assert (lips.frames.shape, lips.seen, lips.lost) == ((10, 96, 96), 4, lost)
    else:
        why = "in any frame" if lost == 4 else "in 3 of 4 frames"
        with pytest.raises(FaceLost, match=rf"a\.mp4: no face {why}; look at it"):
            crop_face(FRAMES, "a.mp4", found)
        with pytest.raises(FaceLost, match=why):
            crop_face(FRAMES, "a.mp4", found, max_lost=0.74)
        if lost == 3:
            assert crop_face(FRAMES, "a.mp4", found, max_lost=0.75).lost == 3


def test_what_is_lit_is_within_the_black_around_it():
    frames = [np.full((60, 80), 23, np.uint8) for _ in range(3)]
    assert lit_box(frames) is None
    frames[0][10, 20] = 24
    frames[2][30:40, 50:70] = 200
    assert lit_box(frames) == (20, 10, 70, 40)
    assert lit_box([frames[0]]) == (20, 10, 21, 11)
    assert lit_box([frames[0], frames[2][:, :40]]) is None


@pytest.mark.parametrize(
    ("shape", "reduced"),
    [((720, 720), (720, 720)), ((1080, 1920), (405, 720)), ((1440, 721), (720, 360))],
)
def test_large_pictures_are_reduced_to_a_longer_side_of_720(shape, reduced):
    assert FRAME_SIDE == 720
    half = np.zeros(shape, np.uint8)
    half[:, shape[1] // 2 :] = 200
    small = reduce_frame(half)
    assert small.shape == reduced
    assert (small > 100).mean() == pytest.approx(0.5, abs=0.01)
    if shape == reduced:
        assert small is half


def test_the_whole_picture_is_averaged_to_the_size_of_a_crop():
    frame = np.random.default_rng(0).integers(0, 256, (192, 384), dtype=np.uint8)
    (small,) = whole_picture([frame])
    blocks = frame.reshape(96, 2, 96, 4).mean((1, 3))
    assert np.abs(small - blocks).max() <= 1
