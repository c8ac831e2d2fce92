"""mome.lips.extract: which frames are searched, how many may lack a face, what is lit or jumps."""

import numpy as np
import pytest
from media import write_clip

from mome.lips.extract import (
    BLACK,
    FRAME_SIDE,
    FaceLost,
    Lips,
    crop_face,
    crop_lips,
    find_jumps,
    lit_box,
    read_frames,
    read_spans,
    reduce_frame,
    seen_frames,
    whole_picture,
)
from mome.lips.landmarks import IN_BOX, RIGID


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


def test_half_of_the_searched_frames_is_what_is_meant_without_a_number():
    """Three of five frames are too many; every third frame and the last of 13 are five."""
    frames = [*FRAMES, *FRAMES[:3]]

    def find(lost):
        return lambda seen: [*[None] * lost, *[face()] * (len(seen) - lost)]

    lips = crop_lips(frames, "a.mp4", find(2))
    assert (lips.frames.shape, lips.seen, lips.lost) == ((13, 96, 96), 5, 2)
    found = dict(zip((0, 3, 6, 9, 12), find(3)(range(5)), strict=True))
    for crop in (
        lambda: crop_lips(frames, "a.mp4", find(3)),
        lambda: crop_face(frames, "a.mp4", found),
    ):
        with pytest.raises(FaceLost, match="no face in 3 of 5 frames"):
            crop()


@pytest.mark.parametrize(("seen", "lost", "often"), [(100, 10, False), (100, 11, True)])
def test_more_than_a_tenth_of_the_frames_is_often(seen, lost, often):
    assert Lips(np.zeros((100, 96, 96), np.uint8), seen, lost).often_lost == often


@pytest.mark.parametrize(("width", "kept"), [(100, True), (97, False)])
def test_a_crop_of_which_half_shows_the_picture_is_kept(width, kept):
    """The face looks at us from column 100, where the picture ends, or from 3 columns beyond."""
    frames = [frame[:, :width] for frame in FRAMES]
    found = dict.fromkeys(range(10), face())
    if kept:
        crops = crop_face(frames, "a.mp4", found).frames
        assert (crops >= BLACK).mean() == pytest.approx(0.5, abs=0.01)
    else:
        with pytest.raises(FaceLost, match="10 of 10 crops lie mostly outside of the picture"):
            crop_face(frames, "a.mp4", found)


def test_a_picture_that_is_not_black_has_no_black_crop():
    """However little it is lit: 24 is not black, 23 is."""
    found = dict.fromkeys(range(10), face())
    for level in (24, 23):
        frames = [np.full((200, 200), level, np.uint8) for _ in range(10)]
        assert (crop_face(frames, "a.mp4", found).frames == level).all()
    for frame in frames[:4]:
        frame[:, [0, -1]] = 24
    with pytest.raises(FaceLost, match="4 of 10 crops are black beside the face"):
        crop_face(frames, "a.mp4", found)


def test_a_jump_lies_between_the_landmarks_that_differ_at_the_greatest_change_of_the_picture():
    """Within three frames a face moves by half its size: by 0.2, and 0.1 for each."""
    points = np.zeros((68, 2))
    points[list(RIGID)] = 100 * IN_BOX
    for levels, jump in (([60, 90, 90, 250], 31), ([10, 10, 90, 250], 33)):
        # The greatest change of all comes later, within one place.
        levels = [*[10] * 31, *levels, *[250] * 5]
        frames = [np.full((8, 8), level, np.uint8) for level in levels]
        landmarks: list[np.ndarray | None] = [None] * 40
        for shift, jumps in ((49, []), (51, [jump])):
            landmarks[27] = landmarks[30] = points
            landmarks[33] = landmarks[36] = points + (0.6 * shift, -0.8 * shift)
            assert find_jumps(frames, landmarks) == jumps


def test_large_recordings_are_reduced_as_they_are_read(tmp_path):
    """In grey, at 25 frames a second, as a whole and in parts."""
    path = tmp_path / "a.mp4"
    write_clip(path, np.full((20, 16, 1440, 3), 90, np.uint8), fps=50, audio=False)
    assert [frame.shape for frame in read_frames(path)] == [(8, 720)] * 10
    ((_, part),) = read_spans(path, [(2, 5)])
    assert [frame.shape for frame in part] == [(8, 720)] * 3


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
    small = whole_picture([frame, frame])
    assert (small.shape, small.dtype) == ((2, 96, 96), np.uint8)
    blocks = frame.reshape(96, 2, 96, 4).mean((1, 3))
    assert np.abs(small - blocks).max() <= 1
