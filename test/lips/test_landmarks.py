"""mome.lips.landmarks: when two faces are one, boxes of landmarks, likeness of pictures."""

import os
from pathlib import Path

import numpy as np
import pytest

from mome.lips.landmarks import (
    IN_BOX,
    RIGID,
    Face,
    FaceTracker,
    box_of,
    likeness,
    main_tracks,
    thumbnail,
)

ROOT = Path(__file__).resolve().parents[2]
DOWNLOADS = Path(os.environ.get("MOME_DOWNLOADS", ROOT / "downloads"))
MODEL = DOWNLOADS / "dlib" / "shape_predictor_68_face_landmarks.dat"
FACE = Face(200.0, 200.0, 100.0)


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
    assert np.abs(points[list(RIGID)] - expected).max() < 0.02 * given.side


def test_likeness_is_that_of_the_picture_within_the_box():
    rng = np.random.default_rng(0)
    frame = rng.integers(0, 120, (300, 400)).astype(np.uint8)
    there = Face(250.0, 100.0, 96.0)
    one = thumbnail(frame, there)
    assert one.shape == (24, 24)
    assert one.mean() == pytest.approx(0, abs=1e-12)
    assert np.linalg.norm(one) == pytest.approx(1)
    # Pixels of the box are those averaged: four by four of them here.
    blocks = frame[52:148, 202:298].reshape(24, 4, 24, 4).mean((1, 3))
    blocks -= blocks.mean()
    assert likeness(one, blocks / np.linalg.norm(blocks)) == pytest.approx(1, abs=2e-3)
    # Neither light nor contrast counts, and a negative is the contrary.
    assert likeness(one, thumbnail(2 * frame + 10, there)) == pytest.approx(1, abs=2e-3)
    assert likeness(one, thumbnail(255 - frame, there)) == pytest.approx(-1, abs=2e-3)
    assert abs(likeness(one, thumbnail(frame, Face(100.0, 200.0, 96.0)))) < 0.2
    # What is flat or lies beside the picture is like nothing.
    assert not thumbnail(np.full((300, 400), 9, np.uint8), there).any()
    assert not thumbnail(frame, Face(900.0, 100.0, 96.0)).any()
    # A box across the edge is moved into the picture.
    edge = thumbnail(frame, Face(10.0, 20.0, 96.0))
    assert likeness(edge, thumbnail(frame, Face(48.0, 48.0, 96.0))) > 0.99


@pytest.mark.parametrize(("side", "main"), [(59, "centre"), (62, "edge")])
def test_the_main_face_is_weighed_by_size_and_place(side, main):
    """Two fifths of the way to a corner, a face counts three fifths of its size."""
    faces = {"centre": Face(150.0, 200.0, 36.0), "edge": Face(150 + 0.4 * 150, 200 - 80.0, side)}
    expected = dict.fromkeys(range(3), faces[main])
    detected = {i: list(faces.values()) for i in range(3)}
    assert main_tracks(detected, (400, 300), 1) == [expected]
