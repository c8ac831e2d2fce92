"""mome.lips.landmarks: when two faces are one, boxes, likeness of pictures, tracks, detections."""

import os
from pathlib import Path

import dlib
import numpy as np
import pytest

from mome.lips.landmarks import (
    IN_BOX,
    RIGID,
    Face,
    FaceTracker,
    box_of,
    fill_missing,
    likeness,
    main_tracks,
    thumbnail,
)

ROOT = Path(__file__).resolve().parents[2]
DOWNLOADS = Path(os.environ.get("MOME_DOWNLOADS", ROOT / "downloads"))
MODEL = DOWNLOADS / "dlib" / "shape_predictor_68_face_landmarks.dat"
FACE = Face(200.0, 200.0, 100.0)


@pytest.fixture(autouse=True)
def _without_detector(monkeypatch):
    """dlib's detector takes half a second to load, and no test here asks it for faces."""
    monkeypatch.setattr(dlib, "get_frontal_face_detector", lambda: None)


@pytest.mark.parametrize("axis", [(1, 0), (0, 1), (-0.6, 0.8)])
@pytest.mark.parametrize(("shift", "near"), [(34.9, True), (35.1, False)])
def test_landmarks_of_the_next_frame_are_plausible_within_a_third_of_the_face(axis, shift, near):
    moved = Face(200 + shift * axis[0], 200 + shift * axis[1], 100.0)
    assert FACE.near_next(moved) == near


@pytest.mark.parametrize(("side", "near"), [(129, True), (131, False), (77.5, True), (76.5, False)])
def test_landmarks_of_the_next_frame_are_plausible_at_a_like_size(side, near):
    assert FACE.near_next(Face(200.0, 200.0, side)) == near


@pytest.mark.parametrize(
    ("steps", "reach"),
    [(1, 30), (2, 40), (7, 90), (8, 100), (50, 100)],
)
def test_a_face_may_be_farther_away_the_longer_it_was_not_seen(steps, reach):
    """Up to its own size, whatever the time."""
    for shift, near in ((reach - 0.1, True), (reach + 0.1, False)):
        assert FACE.near(Face(200 + 0.6 * shift, 200 - 0.8 * shift, 100.0), steps) == near
    assert FACE.near(Face(200 + 29.9, 200, 100.0))  # one step is what is meant without a number


@pytest.mark.parametrize(("side", "near"), [(149, True), (151, False), (67, True), (66, False)])
def test_a_face_is_another_one_at_half_as_much_again(side, near):
    """Distances are those in sides of the larger face."""
    assert FACE.near(Face(200.0, 200.0, side)) == near
    reach = 0.3 * max(side, 100)
    assert FACE.near(Face(200 + reach - 0.1, 200.0, side)) == near
    assert not FACE.near(Face(200 + reach + 0.1, 200.0, side))


def test_the_box_of_landmarks_is_found_again():
    turn = np.deg2rad(15)
    axes = 80 * np.array([[np.cos(turn), np.sin(turn)], [-np.sin(turn), np.cos(turn)]])
    points = np.random.default_rng(0).uniform(0, 300, (68, 2))
    points[list(RIGID)] = IN_BOX @ axes + (150, 120)
    box = box_of(points)
    assert (box.x, box.y, box.side) == pytest.approx((150, 120, 80))


def test_the_box_of_the_predictors_mean_shape_is_the_box_it_was_given():
    """Of a picture without anything it says the mean shape of its training."""
    given = Face(200.0, 180.0, 160.0)
    points = FaceTracker(MODEL).predict(np.zeros((400, 400), np.uint8), given)
    box = box_of(points)
    assert (box.x, box.y) == pytest.approx((given.x, given.y), abs=1.5)
    assert box.side == pytest.approx(given.side, rel=0.02)
    expected = IN_BOX * given.side + (given.x, given.y)
    # The mean shape is not quite symmetric, as what is measured here is.
    differences = np.abs(points[list(RIGID)] - expected).max(axis=0) / given.side
    assert (differences < (0.02, 0.01)).all()


def test_likeness_is_that_of_the_picture_within_the_box():
    rng = np.random.default_rng(0)
    frame = rng.integers(0, 120, (300, 400)).astype(np.uint8)
    there = Face(250.0, 100.0, 96.0)
    one = thumbnail(frame, there)
    assert one.shape == (24, 24)
    assert one.mean() == pytest.approx(0, abs=1e-12)
    assert np.linalg.norm(one) == pytest.approx(1)

    def averaged(top, left):
        """Pixels of the box are those averaged: four by four of them here."""
        blocks = frame[top : top + 96, left : left + 96].reshape(24, 4, 24, 4).mean((1, 3))
        blocks -= blocks.mean()
        return blocks / np.linalg.norm(blocks)

    assert likeness(one, averaged(52, 202)) == pytest.approx(1, abs=2e-3)
    # Neither light nor contrast counts, and a negative is the contrary.
    assert likeness(one, thumbnail(2 * frame + 10, there)) == pytest.approx(1, abs=2e-3)
    assert likeness(one, thumbnail(255 - frame, there)) == pytest.approx(-1, abs=2e-3)
    assert abs(likeness(one, thumbnail(frame, Face(100.0, 200.0, 96.0)))) < 0.2
    # What is flat or lies beside the picture is like nothing.
    assert not thumbnail(np.full((300, 400), 9, np.uint8), there).any()
    assert not thumbnail(frame, Face(900.0, 100.0, 96.0)).any()
    # A box across the edge is moved into the picture.
    edge = thumbnail(frame, Face(10.0, 20.0, 96.0))
    assert likeness(edge, averaged(0, 0)) == pytest.approx(1, abs=2e-3)


@pytest.mark.parametrize(("side", "main"), [(59, "centre"), (62, "edge")])
def test_the_main_face_is_weighed_by_size_and_place(side, main):
    """Two fifths of the way to a corner, a face counts three fifths of its size."""
    faces = {"centre": Face(150.0, 200.0, 36.0), "edge": Face(150 + 0.4 * 150, 200 - 80.0, side)}
    expected = dict.fromkeys(range(3), faces[main])
    detected = {i: list(faces.values()) for i in range(3)}
    assert main_tracks(detected, (400, 300), 1) == [expected]


class Scripted(FaceTracker):
    """A tracker whose detector finds what it is told to, and whose landmarks lie as in their box.

    Args:
        frames: of the clip.
        detected: number of a frame -> faces found in it; none in others.
        moved: number of a frame -> how far to the right of their box its landmarks lie.
    """

    first_box = 1.0

    def __init__(self, frames, detected, moved=None, **options):
        super().__init__(__file__, **options)  # any file: it is not read
        self.frames, self.detected, self.moved = frames, detected, moved or {}
        self.asked, self.sides = [], []

    def number(self, frame):
        return next(i for i, other in enumerate(self.frames) if other is frame)

    def detect(self, frame):
        self.asked.append(self.number(frame))
        return self.detected.get(self.asked[-1], [])

    def predict(self, frame, face):
        self.sides.append(face.side)
        points = np.zeros((68, 2))
        points[list(RIGID)] = (face.x, face.y) + face.side * IN_BOX
        return points + (self.moved.get(self.number(frame), 0), 0)


def patterns() -> tuple[np.ndarray, np.ndarray]:
    """Two pictures of 24x24 cells, of mean 0 and uncorrelated."""
    rng = np.random.default_rng(0)
    one, other = rng.choice([-1.0, 1.0], (2, 24, 24))
    one -= one.mean()
    other -= other.mean()
    other -= np.vdot(one, other) / np.vdot(one, one) * one
    return one, other


def picture(pattern: np.ndarray, shift: int = 0) -> np.ndarray:
    """A grey frame (300, 500) with a pattern in the box of `THERE`, or to the right of that."""
    frame = np.full((300, 500), 128, np.uint8)
    cells = np.round(128 + 40 * pattern / pattern.std())
    frame[102:198, 52 + shift : 148 + shift] = np.kron(cells, np.ones((4, 4)))
    return frame


THERE = Face(100.0, 150.0, 96.0)


def right_of(face: Face, shift: float) -> Face:
    return Face(face.x + shift, face.y, face.side)


def found_by(tracker: Scripted) -> dict[int, float]:
    """Frames with landmarks, and how far to the right of `THERE` they are."""
    landmarks = tracker(tracker.frames)
    return {i: round(box_of(p).x - THERE.x, 6) for i, p in enumerate(landmarks) if p is not None}


@pytest.mark.parametrize(
    ("count", "anchors"),
    [(1, [0]), (2, [0, 1]), (13, [0, 12]), (14, [0, 6, 13]), (37, [0, 12, 24, 36])],
)
def test_the_detector_runs_on_every_twelfth_frame_or_oftener(count, anchors):
    """In equal steps, and on the first and last; a face that stays is tracked between these."""
    frames = [picture(patterns()[0]) for _ in range(count)]
    tracker = Scripted(frames, {i: [THERE] for i in range(count)})
    assert found_by(tracker) == dict.fromkeys(range(count), 0)
    assert tracker.asked == anchors


def test_the_detector_runs_on_one_frame_at_least():
    with pytest.raises(ValueError, match="detect_every=0 is not positive"):
        FaceTracker(__file__, detect_every=0)
    assert FaceTracker(__file__, detect_every=1).detect_every == 1


@pytest.mark.parametrize("known", ["left", "right", "both"])
def test_a_face_that_is_lost_is_searched_farther_from_frame_to_frame(known):
    """Seen at one end, or at both where the picture changes so much that it cannot be tracked.

    From one frame to the next it may move by 0.3 of its 96 pixels, and by 0.1 more for each frame
    in which it was not found: by 28.8, 38.4 and 48.0.
    """
    shifts = {0: [0], 1: [34], 2: [44], 3: [50, 46.5, 46], 4: [80], 5: [80], 6: [60]}
    taken = {0: 0, 3: 46, 5: 80, 6: 60}
    if known == "both":
        shifts[12], taken[12] = [60], 60
    detected = {i: [right_of(THERE, shift) for shift in shifts[i]] for i in shifts}
    if known == "right":
        detected, taken = ({12 - i: v for i, v in table.items()} for table in (detected, taken))
    rng = np.random.default_rng(0)
    frames = [rng.integers(0, 256, (300, 500), dtype=np.uint8) for _ in range(13)]
    order = [12 - i for i in range(1, 12)] if known == "right" else list(range(1, 12))
    tracker = Scripted(frames, detected)
    assert found_by(tracker) == taken
    assert tracker.asked == [0, 12, *order]


@pytest.mark.parametrize(("share", "lost"), [(0.62, False), (0.58, True)])
def test_a_face_is_lost_where_it_is_another_picture(share, lost):
    """It is compared with what was seen of it last, and so found again where that comes back."""
    one, other = patterns()
    mixed = share * one / one.std() + np.sqrt(1 - share**2) * other / other.std()
    frames = [picture(mixed if i in (1, 2, 12) else one) for i in range(13)]
    pair = [thumbnail(frame, THERE) for frame in frames[:2]]
    assert likeness(*pair) == pytest.approx(share, abs=0.01)
    tracker = Scripted(frames, {0: [THERE], 12: [THERE]})
    assert found_by(tracker) == {i: 0 for i in range(13) if not (lost and i in (1, 2))}
    assert tracker.asked == [0, 12, *([1, 2] if lost else [])]


@pytest.mark.parametrize(("shift", "lost"), [(33, False), (35, True)])
def test_a_face_that_leaps_is_lost_however_alike_it_is(shift, lost):
    """From one frame to the next by more than 0.35 of its 96 pixels, 33.6."""
    frames = [picture(patterns()[0], shift * (i >= 5)) for i in range(13)]
    tracker = Scripted(frames, {0: [THERE], 12: [right_of(THERE, shift)]}, {5: shift})
    after = (12,) if lost else range(5, 13)
    assert found_by(tracker) == dict.fromkeys(range(5), 0) | dict.fromkeys(after, shift)
    assert tracker.asked == [0, 12, *(range(5, 12) if lost else [])]


def test_landmarks_are_predicted_in_a_smaller_box_first_and_then_in_that_of_these():
    """In 0.85 of what dlib's detector finds, whose steps are coarse."""
    tracker = Scripted([picture(patterns()[0])], {0: [THERE]})
    tracker.first_box = FaceTracker.first_box
    (points,) = tracker(tracker.frames)
    assert tracker.sides == pytest.approx([0.85 * 96] * 2)
    assert box_of(points).side == pytest.approx(0.85 * 96)


def test_a_face_that_is_elsewhere_at_the_next_detection_is_searched_from_there():
    """A scene changes: what the track from before does not reach belongs to the new one."""
    other = right_of(THERE, 250)
    detected = {0: [THERE], **{i: [other] for i in (8, 9, 11, 12)}}
    frames = [picture(patterns()[0] if i < 5 else patterns()[1]) for i in range(13)]
    tracker = Scripted(frames, detected)
    assert found_by(tracker) == dict.fromkeys(range(5), 0) | dict.fromkeys((8, 9, 11, 12), 250)
    assert tracker.asked == [0, 12, *range(5, 12), *range(11, 4, -1)]


def test_a_face_is_elsewhere_beyond_what_it_moves_between_two_detections():
    """In three frames half its side; by 0.6 it is another scene, of which frame 5 is a part."""
    rng = np.random.default_rng(0)
    frames = [rng.integers(0, 256, (300, 500), dtype=np.uint8) for _ in range(7)]
    other = right_of(THERE, 0.6 * 96)
    detected = {0: [THERE], 3: [THERE], 5: [other], 6: [other]}
    expected = {0: 0, 3: 0, 5: 57.6, 6: 57.6}
    assert found_by(Scripted(frames, detected, detect_every=3)) == expected


def test_the_detector_sees_pictures_of_480_pixels_and_faces_are_those_of_the_whole():
    """It is asked to enlarge only where it finds nothing; dlib's boxes include both their ends."""
    seen = []

    def detector(frame, enlarged):
        seen.append((frame.shape, enlarged))
        return [dlib.rectangle(10, 20, 89, 99)] * enlarged

    tracker = FaceTracker(__file__)
    tracker.detector = detector
    for shape, small, scale in (((540, 960), (270, 480), 0.5), ((480, 400), (480, 400), 1)):
        seen.clear()
        assert tracker.detect(np.zeros(shape, np.uint8)) == [
            Face(50 / scale, 60 / scale, 80 / scale)
        ]
        assert seen == [(small, 0), (small, 1)]
    tracker.detector = lambda frame, enlarged: [dlib.rectangle(0, 0, 9, 9)] * (1 - enlarged)
    assert tracker.detect(np.zeros((100, 100), np.uint8)) == [Face(5, 5, 10)]


def test_the_models_of_a_tracker_are_known_by_their_digests(tmp_path):
    (tmp_path / "model.dat").write_bytes(b"abc")
    # The example of FIPS 180-4.
    digest = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert FaceTracker(tmp_path / "model.dat").digests == {"model.dat": digest}


def test_largest_central_face_is_followed():
    left, right = Face(60, 100, 80), Face(160, 100, 60)
    far = Face(10, 10, 90)
    detected = {0: [right, left, far], 8: [left, far], 16: [far, right, left], 24: []}
    assert main_tracks(detected, (200, 200), 1) == [{0: left, 8: left, 16: left}]
    assert main_tracks(detected, (200, 200), 3) == [
        {0: left, 8: left, 16: left},
        {0: right, 16: right},
        {0: far, 8: far, 16: far},
    ]
    # Who is seen less than half of the time is nobody else.
    assert main_tracks(detected | {32: []}, (200, 200), 3)[1:] == [{0: far, 8: far, 16: far}]
    assert main_tracks({0: [], 8: []}, (200, 200), 1) == []


def test_the_largest_face_continues_a_track_and_the_nearest_track_is_continued():
    old, small, large = Face(100, 100, 50), Face(100, 100, 40), Face(105, 100, 50)
    assert main_tracks({0: [old], 1: [small, large]}, (200, 200), 2) == [
        {0: old, 1: large},
        {1: small},
    ]
    far, near, new = Face(80, 100, 100), Face(130, 100, 100), Face(108, 100, 100)
    assert main_tracks({0: [far, near], 1: [new]}, (200, 200), 2) == [
        {0: near, 1: new},
        {0: far},
    ]


def test_tracks_go_on_by_the_frames_since_they_were_seen():
    """From one frame to the next, a face of 100 pixels moves by 30 at most."""
    face, same, other = Face(100, 100, 100), Face(105, 100, 90), Face(135, 100, 100)
    assert main_tracks({10: [face], 11: [same, other]}, (200, 200), 2) == [
        {10: face, 11: same},
        {11: other},
    ]


@pytest.mark.parametrize("corner", [0.0, -50.0])
def test_a_face_in_a_corner_counts_nothing(corner):
    faces = [Face(corner, corner, 100.0), Face(100.0, 100.0, 20.0)]
    assert main_tracks({0: faces}, (200, 200), 1) == [{0: faces[1]}]


@pytest.mark.parametrize("sides", [(60, 50), (50, 60)])
def test_tracks_that_share_a_frame_are_two(sides):
    left, right = Face(60, 100, sides[0]), Face(140, 100, sides[1])
    tracks = [{0: left, 8: left}, {8: right, 16: right}]
    found = main_tracks({0: [left], 8: [left, right], 16: [right]}, (200, 200), 2)
    assert found == (tracks if sides[0] > sides[1] else tracks[::-1])


def test_joined_tracks_are_in_the_order_of_time():
    small, large = Face(60, 100, 50), Face(140, 100, 60)
    (found,) = main_tracks({0: [small], 8: [small], 16: [large], 24: [large]}, (200, 200), 1)
    assert list(found.items()) == [(0, small), (8, small), (16, large), (24, large)]


def test_a_second_face_that_jumps_is_one_without_parts_of_the_first():
    first, second, jumped = Face(200, 200, 60), Face(150, 60, 40), Face(250, 60, 40)
    detected = {i: [first, second if i < 16 else jumped] for i in (0, 8, 16, 24)}
    assert main_tracks(detected, (400, 400), 2) == [
        dict.fromkeys(detected, first),
        {0: second, 8: second, 16: jumped, 24: jumped},
    ]
    # What the first one goes on as is no continuation of the second.
    elsewhere = Face(200, 340, 60)
    detected = {0: [first, second], 8: [first, second], 16: [elsewhere]}
    assert main_tracks(detected, (400, 400), 2) == [
        {0: first, 8: first, 16: elsewhere},
        {0: second, 8: second},
    ]


def test_missing_frames_are_interpolated():
    """Each coordinate of each landmark by itself, and as it is beyond the known frames."""
    first = np.arange(136.0).reshape(68, 2)
    step = np.random.default_rng(0).integers(-9, 10, (68, 2))
    filled = fill_missing([None, first, None, None, first + 3 * step, None])
    assert filled.shape == (6, 68, 2)
    for points, steps in zip(filled, [0, 0, 1, 2, 3, 3], strict=True):
        assert np.allclose(points, first + steps * step)
    with pytest.raises(ValueError, match="no frame has a face"):
        fill_missing([None, None])
