"""mome.lips.mediapipe: where its networks look and what their numbers mean, with none loaded."""

import numpy as np
import pytest

from mome.lips.landmarks import Face
from mome.lips.mediapipe import (
    VERTICES,
    MediaPipeTracker,
    _square,
    _steps,
    _without_overlap,
    anchors,
)

# MediaPipe's contours (face_mesh_connections.py), each with its mirror image beside it: from the
# top of the face down, around an eye from its outer corner, from a corner of the mouth to its
# middle, above and below.
OVAL = [
    [10, 109, 67, 103, 54, 21, 162, 127, 234, 93, 132, 58, 172, 136, 150, 149, 176, 148, 152],
    [10, 338, 297, 332, 284, 251, 389, 356, 454, 323, 361, 288, 397, 365, 379, 378, 400, 377, 152],
]
EYES = [
    [33, 7, 163, 144, 145, 153, 154, 155, 133, 173, 157, 158, 159, 160, 161, 246],
    [263, 249, 390, 373, 374, 380, 381, 382, 362, 398, 384, 385, 386, 387, 388, 466],
]
BROWS = [[71, 63, 105, 66, 107], [301, 293, 334, 296, 336]]
OUTER = [
    [61, 185, 40, 39, 37, 0, 61, 146, 91, 181, 84, 17],
    [291, 409, 270, 269, 267, 0, 291, 375, 321, 405, 314, 17],
]
INNER = [
    [78, 191, 80, 81, 82, 13, 78, 95, 88, 178, 87, 14],
    [308, 415, 310, 311, 312, 13, 308, 324, 318, 402, 317, 14],
]
NOSE = [[168, 6, 197, 195, 5, 4, 2, 97, 75], [168, 6, 197, 195, 5, 4, 2, 326, 305]]


class Network:
    """Remembers what it is shown, and says what it is told to."""

    def __init__(self, **said: np.ndarray):
        self.said, self.shown = said, None

    def setInput(self, picture):
        self.shown = picture

    def forward(self, name="mesh"):
        return self.said[name]


@pytest.fixture
def tracker(monkeypatch) -> MediaPipeTracker:
    monkeypatch.setattr("mome.lips.mediapipe._load", lambda path: Network())
    return MediaPipeTracker("models")


def test_the_detector_runs_on_one_frame_at_least(tracker):
    assert (tracker.detect_every, tracker.detect_side) == (12, 480)
    assert [path.name for path in tracker.files] == [
        "face_detection_short_range.tflite",
        "face_landmark.tflite",
    ]
    assert MediaPipeTracker("models", 1).detect_every == 1
    with pytest.raises(ValueError, match="detect_every=0 is not positive"):
        MediaPipeTracker("models", 0)


def test_candidates_lie_in_the_middle_of_cells():
    """Two in each of 16 by 16 cells, then six in each of 8 by 8, line by line."""
    found = anchors()
    assert found.shape == (896, 2)
    for places, centre in (
        ((0, 1), (1 / 32, 1 / 32)),
        ((2, 3), (3 / 32, 1 / 32)),
        ((32, 33), (1 / 32, 3 / 32)),
        ((510, 511), (31 / 32, 31 / 32)),
        (range(512, 518), (1 / 16, 1 / 16)),
        (range(518, 524), (3 / 16, 1 / 16)),
        (range(890, 896), (15 / 16, 15 / 16)),
    ):
        for place in places:
            assert tuple(found[place]) == centre


@pytest.mark.parametrize(
    ("length", "part", "centres"),
    [(640, 320, [160, 320, 480]), (480, 320, [160, 320]), (320, 320, [160]), (200, 320, [160])],
)
def test_parts_of_a_picture_overlap_by_half(length, part, centres):
    assert _steps(length, part).tolist() == centres


def test_a_square_of_a_picture_is_cut_where_it_lies():
    frame = np.random.default_rng(0).integers(0, 256, (60, 80), dtype=np.uint8)
    whole = _square(frame, np.array([10.0, 20.0]), 1.0, 16)
    assert np.array_equal(whole, frame[20:36, 10:26])
    half = _square(frame, np.array([10.0, 20.0]), 2.0, 16)
    blocks = frame[20:52, 10:42].reshape(16, 2, 16, 2).mean((1, 3))
    assert np.abs(half - blocks).max() <= 1
    edge = _square(frame, np.array([-6.0, 50.0]), 1.0, 16)
    assert np.array_equal(edge, np.pad(frame[50:, :10], ((0, 6), (6, 0))))


@pytest.mark.parametrize(("shift", "count"), [(59, 1), (61, 2)])
def test_of_faces_that_overlap_the_likeliest_is_kept(shift, count):
    """Within 0.6 of the side of the larger one."""
    faces = [(Face(100, 100, 80), 0.6), (Face(100 + 0.6 * shift, 100 + 0.8 * shift, 100), 0.9)]
    assert _without_overlap(faces) == faces[::-1][:count]
    assert _without_overlap(faces[::-1]) == faces[::-1][:count]


def test_the_detectors_numbers_are_faces_of_the_picture(tracker):
    """Of 512 pixels, four to one of the network's 128.

    Candidate 106 is one of cell (5, 3), whose middle is (44, 28). A face of 20 pixels is found 4
    to the right of it and 8 above: at (48, 20), or (192, 80) of the picture. dlib's box is 1.05
    times as large, 84 pixels, and lies higher by 0.06 of that.
    """
    frame = np.zeros((512, 512), np.uint8)
    frame[:256] = 255
    logits, boxes = np.full((1, 896, 1), -100.0), np.zeros((1, 896, 16))
    boxes[0, 106, :3] = 4, -8, 20
    tracker.detector = Network(classificators=logits, regressors=boxes)
    assert tracker._detect(frame, 256, 256, 512) == []
    shown = tracker.detector.shown
    assert (shown.shape, shown.dtype) == ((1, 3, 128, 128), np.float32)
    assert (shown[:, :, :63] == 1).all()
    assert (shown[:, :, 65:] == -1).all()
    for logit, score in ((np.log(3), 0.75), (0.01, 0.5025), (100, 1)):
        logits[0, 106] = logit
        ((face, found),) = tracker._detect(frame, 256, 256, 512)
        assert (face.x, face.y, face.side) == pytest.approx((192, 80 - 5.04, 84))
        assert found == pytest.approx(score, abs=1e-4)
    logits[0, 106] = 0  # as likely as not
    assert tracker._detect(frame, 256, 256, 512) == []
    # In a part of the picture, a face lies where that begins; of two candidates one is kept.
    logits[0, [106, 107], 0] = 1, 2
    boxes[0, 107, :3] = 4, -7, 20
    ((face, found),) = tracker._detect(frame, 356, 306, 256)
    assert (face.x, face.y, face.side) == pytest.approx((228 + 96, 178 + 42 - 2.52, 42))
    assert found == pytest.approx(1 / (1 + np.exp(-2)))


@pytest.mark.parametrize(
    ("shape", "found_in", "searched"),
    [
        ((300, 640), 640, [(320, 150, 640)]),
        ((300, 640), 320, [(320, 150, 640), *[(x, 160, 320) for x in (160, 320, 480)]]),
        ((512, 256), 0, [(128, 256, 512), *[(128, y, 256) for y in (128, 256, 384)]]),
        ((255, 255), 0, [(127.5, 127.5, 255)]),
        (
            (256, 256),
            0,
            [(128, 128, 256), *[(x, y, 128) for x in (64, 128, 192) for y in (64, 128, 192)]],
        ),
    ],
)
def test_parts_are_searched_where_the_whole_shows_no_face(
    tracker, monkeypatch, shape, found_in, searched
):
    """Halves, then quarters, of 128 pixels at least; a face that two parts show is one."""
    asked = []
    face = Face(200.0, 150.0, 60.0)

    def detect(frame, x, y, side):
        asked.append((x, y, side))
        return [(face, 0.9)] if side == found_in else []

    monkeypatch.setattr(tracker, "_detect", detect)
    assert tracker.detect(np.zeros(shape, np.uint8)) == [face] * bool(found_in)
    if shape == (512, 256):
        quarters = [(x, y, 128) for x in (64, 128, 192) for y in range(64, 449, 64)]
        searched = [*searched, *quarters]
    assert asked == searched


def test_the_vertices_lie_on_the_contours_of_the_mesh_and_are_symmetric():
    """In dlib's order: jaw and brows from left to right, the nose down, around eyes and lips."""
    mirror = {}
    for one, other in (OVAL, EYES, BROWS, OUTER, INNER, NOSE):
        mirror |= dict(zip(one, other, strict=True)) | dict(zip(other, one, strict=True))
    vertices = VERTICES.tolist()
    mirrored = [*range(16, -1, -1), *range(26, 16, -1), 27, 28, 29, 30, *range(35, 30, -1)]
    mirrored += [45, 44, 43, 42, 47, 46, 39, 38, 37, 36, 41, 40]
    mirrored += [54, 53, 52, 51, 50, 49, 48, 59, 58, 57, 56, 55, 64, 63, 62, 61, 60, 67, 66, 65]
    assert [mirror[vertex] for vertex in vertices] == [vertices[place] for place in mirrored]
    for contour, places in (
        (OVAL[0], range(9)),
        (BROWS[0], range(17, 22)),
        (NOSE[0], [27, 28, 29, 30, 33, 32, 31]),
        (EYES[0], [36, 41, 40, 39, 38, 37]),
        (OUTER[0][:6], [48, 49, 50, 51]),
        (OUTER[0][6:], [48, 59, 58, 57]),
        (INNER[0][:6], [60, 61, 62]),
        (INNER[0][6:], [60, 67, 66]),
    ):
        along = [contour.index(vertices[place]) for place in places]
        assert along == sorted(along)


def test_a_face_is_predicted_in_the_box_of_the_detector(tracker, monkeypatch):
    """Not in a smaller one, as by dlib."""
    asked = []
    points = np.random.default_rng(0).uniform(0, 99, (68, 2))
    monkeypatch.setattr(tracker, "predict", lambda frame, face: asked.append(face) or points)
    tracker.fit(np.zeros((9, 9), np.uint8), Face(50.0, 40.0, 30.0))
    assert asked[0] == Face(50.0, 40.0, 30.0)


@pytest.mark.parametrize("size", [1, 2])
def test_the_meshs_points_are_dlibs_in_pixels_of_the_picture(tracker, size):
    """A face of 128 pixels is seen within 192, from (100 - 96, 90 + 0.02 * 128 - 96) on.

    The network counts from the edge of its picture of 192 pixels, the picture from the middle of
    its first pixel.
    """
    vertices = np.zeros((1, 1, 1, 468 * 3))
    vertices.reshape(468, 3)[:] = np.arange(468)[:, None] * (0.25, 0.5, 7)
    tracker.mesh = Network(mesh=vertices)
    frame = np.zeros((400, 400), np.uint8)
    frame[:, : 100 * size] = 51
    points = tracker.predict(frame, Face(100.0 * size, 90.0 * size, 128.0 * size))
    assert (points.shape, points.dtype) == ((68, 2), np.float64)
    # Ends of the jaw and the chin, nose tip and base, corners of eyes and mouth, the inner lips.
    named = {0: 162, 8: 152, 16: 389, 30: 4, 33: 2, 36: 7, 39: 133, 42: 362, 45: 249, 48: 61}
    for landmark, vertex in (named | {54: 291, 60: 78, 67: 87}).items():
        x, y = 4 + 0.25 * vertex, -3.44 + 0.5 * vertex
        assert points[landmark] == pytest.approx((size * x - 0.5, size * y - 0.5))
    shown = tracker.mesh.shown
    assert (shown.shape, shown.dtype) == ((1, 3, 192, 192), np.float32)
    assert shown[0, :, 50, 90] == pytest.approx(0.2)
    assert shown[0, :, 50, 102].tolist() == [0] * 3
