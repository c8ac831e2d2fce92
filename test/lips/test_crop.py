"""mome.lips.crop: which part of a face is cropped, with landmarks that are known.

Of 25 changes of the crop that tools/mutate.py drew at random, five were not noticed at revision
724ef0d (2026-11-28), and make no difference to a crop: an inner eye corner of the mean face a
quarter of a pixel lower, 13 frames for 12, of which six on either side are averaged, bounds 0.15
pixels further where every fourth pixel is looked at, and -2 for -1 in a shape, which NumPy takes
alike.
"""

import cv2
import numpy as np
import pytest
from media import talking_head

from mome.lips.crop import (
    MEAN_FACE,
    MOUTH,
    STABLE,
    crop_matrices,
    crop_mouth,
    shares_within,
    similarity,
    smooth,
    warp,
)

# What AV-HuBERT and Auto-AVSR align faces to before they cut 96x96 pixels out around the mouth:
# nose base and eye corners of the mean face in their preparation (`20words_mean_face.npy`), a
# picture of 256x256 pixels, and the middle of its mouth.
MEAN_FACE_256 = np.array(
    [(128.87, 137.30), (92.52, 94.37), (112.77, 94.94), (145.53, 94.53), (166.68, 93.57)]
)
MOUTH_256 = np.array([129.31, 157.82])


def landmarks_of(stable, mouth):
    """Landmarks (68, 2) with these points that align a face, and this middle of the mouth."""
    points = np.random.default_rng(0).uniform(0, 256, (68, 2))
    points[list(STABLE)] = stable
    points[MOUTH] += mouth - points[MOUTH].mean(0)
    return points


def test_the_mean_face_is_that_of_the_predecessors():
    """In shape: laid over one another, no point is a hundredth of the eye distance elsewhere."""
    matrix = similarity(MEAN_FACE_256, MEAN_FACE)
    distances = np.hypot(*(MEAN_FACE_256 @ matrix[:, :2].T + matrix[:, 2] - MEAN_FACE).T)
    assert distances.max() < 0.01
    assert np.hypot(*(MEAN_FACE[4] - MEAN_FACE[1])) == pytest.approx(1, abs=1e-3)


def test_the_mean_face_of_the_predecessors_is_cropped_as_by_them():
    """In scale and place: 96 of its pixels, upright, the mouth in the middle."""
    assert np.hypot(*(MEAN_FACE_256[4] - MEAN_FACE_256[1])) == pytest.approx(74.16, abs=0.01)
    (matrix,) = crop_matrices(landmarks_of(MEAN_FACE_256, MOUTH_256)[None])
    assert np.hypot(*matrix[:, 0]) == pytest.approx(1, abs=0.01)
    assert np.rad2deg(np.arctan2(matrix[1, 0], matrix[0, 0])) == pytest.approx(0, abs=0.5)
    assert matrix @ (*MOUTH_256, 1) == pytest.approx((47.5, 47.5))


def test_landmarks_are_averaged_over_the_window_before_they_are_aligned():
    """A face that leaps back and forth by 26 pixels: its mean over 13 frames moves by two."""
    points = landmarks_of(MEAN_FACE_256, MOUTH_256)
    leaping = np.stack([points + (26 * (i % 2), 0) for i in range(40)])
    matrices = crop_matrices(leaping)
    assert matrices.shape == (40, 2, 3)
    assert np.abs(np.diff(matrices[6:34, 0, 2])) == pytest.approx(2, abs=0.05)
    assert np.abs(np.diff(crop_matrices(leaping, window=0)[:, 0, 2])) == pytest.approx(26, abs=0.3)


def test_a_crop_of_another_size_shows_the_same_part():
    points = landmarks_of(MEAN_FACE_256, MOUTH_256)[None]
    (matrix,), (twice,) = crop_matrices(points), crop_matrices(points, size=192)
    corners = np.array([(-0.5, -0.5, 1), (95.5, 95.5, 1)])
    doubled = np.array([(-0.5, -0.5, 1), (191.5, 191.5, 1)])
    back, again = (np.linalg.inv(np.vstack([m, (0, 0, 1)])) for m in (matrix, twice))
    assert np.allclose(corners @ back.T, doubled @ again.T)
    frame = np.zeros((256, 256), np.uint8)
    assert crop_mouth([frame], points, size=192).shape == (1, 192, 192)


@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize("visible", [8, 48, 88])
def test_the_share_of_a_crop_within_the_picture(axis, visible):
    """A picture that ends so many pixels before or after the crop's edge, with what warp paints."""
    shift = np.zeros(2)
    shift[axis] = 96 - visible  # the crop begins so far to the left of, or above, the picture
    before = np.column_stack([np.eye(2), shift])
    box = (0, 0, 120, 120)
    assert shares_within(before[None], box) == pytest.approx([visible / 96])
    assert (warp(np.full((120, 120), 255, np.uint8), before, 96) > 0).mean() == visible / 96
    # The other side: the picture ends within the crop.
    after = np.column_stack([np.eye(2), np.zeros(2)])
    end = [120, 120]
    end[axis] = visible
    assert shares_within(after[None], (0, 0, *end)) == pytest.approx([visible / 96])
    # A face of twice the size fills twice the crop; several frames are several shares.
    double = np.column_stack([2 * np.eye(2), np.full(2, 0.5)])
    end[axis] = visible // 2
    both = shares_within(np.stack([double, after]), (0, 0, *end))
    assert both == pytest.approx([visible / 96, visible // 2 / 96])


@pytest.mark.parametrize("size", [48, 96])
def test_the_share_is_of_the_whole_crop(size):
    matrix = np.column_stack([np.eye(2), np.zeros(2)])
    quarter = (0, 0, size // 2, size // 2)
    assert shares_within(matrix[None], quarter, size) == pytest.approx([0.25])


@pytest.mark.parametrize(("scale", "exact"), [(0.6, False), (0.5, True), (0.3, True)])
def test_pictures_are_averaged_from_twofold_shrinking_on(scale, exact):
    """A chequered picture becomes grey, where every second pixel alone would be black or white."""
    chequered = np.indices((240, 240)).sum(0) % 2 * np.uint8(255)
    crop = warp(chequered.astype(np.uint8), np.array([[scale, 0, 0], [0, scale, 0]]), 48)
    assert (np.abs(crop[2:-2, 2:-2].astype(float) - 127.5).max() < 20) == exact


def test_beyond_the_picture_a_crop_is_black():
    frame = np.full((50, 60), 200, np.uint8)
    crop = warp(frame, np.array([[1.0, 0, 10], [0, 1.0, 20]]), 96)
    assert np.array_equal(crop > 0, np.pad(np.ones((50, 60), bool), ((20, 26), (10, 26))))


def test_similarity_is_found_again():
    rng = np.random.default_rng(0)
    points = rng.normal(size=(5, 2)) * 50
    angle, scale, shift = 0.7, 1.8, np.array([30.0, -4.0])
    turn = scale * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    matrix = similarity(points, points @ turn.T + shift)
    assert np.allclose(matrix, np.column_stack([turn, shift]))
    # With disturbed points it is the best one: as good as OpenCV's, better than its neighbours.
    target = points @ turn.T + shift + rng.normal(size=(5, 2)) * 3
    matrix = similarity(points, target)

    def error(m):
        return ((points @ m[:, :2].T + m[:, 2] - target) ** 2).sum()

    opencv, _ = cv2.estimateAffinePartial2D(points, target, ransacReprojThreshold=1e3)
    assert error(matrix) <= error(opencv) * (1 + 1e-6)
    with pytest.raises(ValueError, match="coincide"):
        similarity(np.ones((5, 2)), target)


def test_smoothing_is_a_centred_mean():
    landmarks = np.random.default_rng(0).normal(size=(30, 68, 2))
    result = smooth(landmarks, 12)
    for i in range(30):
        reach = min(6, i, 29 - i)
        assert np.allclose(result[i], landmarks[i - reach : i + reach + 1].mean(0))
    steady = np.arange(20.0)[:, None, None] * np.ones((1, 68, 2))
    assert np.allclose(smooth(steady, 12), steady)


def test_shrinking_equals_averaging():
    frame = np.random.default_rng(0).integers(0, 256, (64, 96), dtype=np.uint8)
    matrix = np.array([[0.25, 0, -0.375], [0, 0.25, -0.375]])  # pixel centres of 4x4 blocks
    blocks = frame[:64, :64].reshape(16, 4, 16, 4).mean((1, 3))
    assert np.abs(warp(frame, matrix, 16).astype(float) - blocks).max() <= 1


def test_crop_geometry_with_known_landmarks():
    """With landmarks given, a video of twice the size gives the same crop."""
    points = np.random.default_rng(0).uniform(80, 140, (68, 2))
    points[list(STABLE)] = [(112, 135), (80, 100), (98, 100), (126, 100), (144, 100)]
    points[MOUTH] += (112, 155) - points[MOUTH].mean(0)
    big = cv2.cvtColor(talking_head(1, 448)[0], cv2.COLOR_RGB2GRAY)
    small = cv2.resize(big, (224, 224), interpolation=cv2.INTER_AREA)
    one = crop_mouth([small], points[None])[0]
    two = crop_mouth([big], 2 * points[None] + 0.5)[0]
    # The reduced picture lacks what is finer than a pixel.
    one, two = (cv2.GaussianBlur(crop.astype(float), (0, 0), 1.5) for crop in (one, two))
    assert np.abs(one - two).mean() < 1
    # A mark on the mouth centre comes to the middle of the crop, eye corners apart by 96 / 1.3.
    marked = np.zeros((224, 224), np.uint8)
    cv2.circle(marked, (112, 155), 3, 255, -1)
    crop = crop_mouth([marked], points[None])[0].astype(float)
    centre = (crop * np.arange(96)).sum() / crop.sum(), (crop.T * np.arange(96)).sum() / crop.sum()
    assert np.allclose(centre, 47.5, atol=0.3)


def test_crop_has_the_scale_of_the_predecessors():
    """AV-HuBERT's crops: 96 pixels of a face with 74 between the outer corners of its eyes.

    The face has common proportions, turned by 20 degrees and 100 pixels from eye to eye. Two marks
    50 pixels apart beside its mouth are then 37 pixels apart in the crop, level, around its middle.
    """
    turn = np.deg2rad(20)
    axes = 100 * np.array([[np.cos(turn), np.sin(turn)], [-np.sin(turn), np.cos(turn)]])
    points = np.zeros((68, 2))
    points[[36, 39, 42, 45]] = [(-0.5, 0), (-0.22, 0.01), (0.22, 0.01), (0.5, 0)]
    points[33] = 0, 0.58
    points[MOUTH] = 0, 0.85
    points = (160, 120) + points @ axes
    frame = np.zeros((320, 320), np.uint8)
    y, x = np.mgrid[:320, :320]
    for side in (-0.25, 0.25):
        place = points[48] + (side, 0) @ axes
        frame = np.maximum(frame, 255 * (np.hypot(x - place[0], y - place[1]) < 4)).astype(np.uint8)
    crop = crop_mouth([frame], points[None])[0].astype(float)
    marks = []
    for half in (slice(0, 48), slice(48, 96)):
        weights = crop[:, half] / crop[:, half].sum()
        columns = np.arange(96)[half]
        marks.append(((weights * columns).sum(), (weights.sum(1) * np.arange(96)).sum()))
    (left, top), (right, bottom) = marks
    assert right - left == pytest.approx(37, abs=0.5)
    assert (left + right) / 2 == pytest.approx(47.5, abs=0.3)
    assert (top, bottom) == pytest.approx((47.5, 47.5), abs=0.3)
