"""Whether recordings are read with lips that are cut as those of the training were."""

import json
import os
from pathlib import Path

import cv2
import numpy as np
import pytest
from media import talking_head, write_clip

from mome.bin import transcribe as command
from mome.lips.detectors import load_tracker
from mome.lips.provenance import describe, elsewhere
from mome.tasks.frozen_parts import PackedModelError
from mome.tasks.packed import pack
from mome.transcribe.clips import MouthCropper
from mome.transcribe.options import Options
from mome.transcribe.recording import Piece
from mome.transcribe.transcriber import Transcriber

ROOT = Path(__file__).parents[2]
DOWNLOADS = Path(os.environ.get("MOME_DOWNLOADS", ROOT / "downloads"))
NAME = "dlib/shape_predictor_68_face_landmarks.dat"
OPTIONS = Options(beam=1, max_new_tokens=4)
INFO = {"trained_on": "nothing", "max_seconds": 4.0}


@pytest.fixture(scope="module")
def tracker():
    return load_tracker(str(DOWNLOADS / NAME))


@pytest.fixture(scope="module")
def other(tmp_path_factory) -> Path:
    """A folder with another landmark model of dlib's, as far as its digest tells."""
    folder = tmp_path_factory.mktemp("other")
    (folder / NAME).parent.mkdir()
    (folder / NAME).write_bytes((DOWNLOADS / NAME).read_bytes() + b"x")
    return folder


@pytest.fixture
def packed_as(training, tmp_path):
    """Packs the tiny model, trained on lips of which a record says what cut them."""

    def make(crops: dict) -> Path:
        info = {**INFO, "crops": crops}
        return pack(training / "config.yaml", training / "model.pth", tmp_path / "p", info, "")

    return make


@pytest.fixture(scope="module")
def clip(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("clip") / "head.mp4"
    write_clip(path, talking_head(25, 160), audio=False)
    return path


def test_the_same_landmark_model_is_taken_without_a_word(packed_as, tracker, clip):
    packed = packed_as(describe("dlib", {"dlib": tracker}, 3, 12))
    transcript = Transcriber.load(packed, downloads=[DOWNLOADS])(clip, OPTIONS)
    assert transcript.notes == ["no sound: lips alone", "vsr v2, the finest rates"]
    assert [segment.detector for segment in transcript.segments] == ["dlib"]


def test_another_landmark_model_is_refused_unless_it_is_named(
    packed_as, tracker, other, clip, capsys
):
    packed = packed_as(describe("dlib", {"dlib": tracker}, 3, 12))
    with pytest.raises(
        PackedModelError,
        match=r"another landmark model of dlib than .*--only landmarks.*--detector",
    ):
        Transcriber.load(packed, downloads=[other])
    words = [clip, "--model", packed, "--downloads", other, "--beam", "1"]
    with pytest.raises(SystemExit, match="another landmark model of dlib"):
        command.main([str(word) for word in words])
    command.main([str(word) for word in (*words, "--detector", "dlib", "--format", "json")])
    said = capsys.readouterr()
    assert "trained on lips cut by another landmark model of dlib" in said.out
    assert "trained on lips cut by another landmark model of dlib" in said.err


def test_another_detector_is_taken_only_if_it_is_named(
    packed_as, tracker, clip, tmp_path, monkeypatch
):
    packed = packed_as(describe("mediapipe", {}, 3, 12))
    monkeypatch.chdir(tmp_path)  # where there is no folder downloads
    own = Transcriber.load(packed)
    assert own.tracker is None
    with pytest.raises(ValueError, match=r"mediapipe is needed .* --only mediapipe"):
        own(clip, OPTIONS)
    transcript = Transcriber.load(packed, tracker=tracker)(clip, OPTIONS)
    assert "trained on lips cut by mediapipe, and these are by dlib" in transcript.notes


needs_mediapipe = pytest.mark.skipif(
    not (DOWNLOADS / "mediapipe").is_dir(),
    reason="no models: run python -m mome.bin.fetch_models --only mediapipe",
)


@needs_mediapipe
def test_the_detector_of_the_training_is_taken_by_itself(packed_as):
    mediapipe = load_tracker(str(DOWNLOADS / "mediapipe"), detector="mediapipe")
    packed = packed_as(describe("mediapipe", {"mediapipe": mediapipe}, 3, 12))
    assert Transcriber.load(packed, downloads=[DOWNLOADS]).tracker.name == "mediapipe"


@pytest.fixture
def far(tmp_path) -> Path:
    """A face that is too small for dlib, in a large picture."""
    path, head = tmp_path / "far.mp4", talking_head(25, 130)
    picture = np.full((25, 720, 1280, 3), 110, np.uint8)
    picture[:, 300:430, 500:630] = head
    write_clip(path, picture, audio=False)
    return path


@needs_mediapipe
def test_where_one_detector_finds_no_face_the_other_is_tried(packed_as, tracker, far, capsys):
    packed = packed_as(describe("dlib", {"dlib": tracker}, 3, 12))
    words = [far, "--model", packed, "--downloads", DOWNLOADS, "--beam", "1", "--format", "json"]
    command.main([str(word) for word in words])
    said = capsys.readouterr()
    (segment,) = json.loads(said.out)["segments"]
    assert (segment["detector"], segment["task"]) == ("mediapipe", "vsr")
    assert "face found by mediapipe, not by dlib in 1 of 1" in said.err
    # One that is named is alone.
    with pytest.raises(SystemExit):
        command.main([str(word) for word in (*words, "--detector", "dlib")])
    assert "no face" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("lost", "other", "note"),
    [
        (2, 0, None),  # of 25 frames two are interpolated either way
        (3, 0, "face found by mediapipe, more often than by dlib"),
        (9, 9, None),
        (25, 9, "face found by mediapipe, not by dlib"),
    ],
)
def test_the_detector_that_loses_fewer_frames_cuts_the_lips(tracker, lost, other, note):
    class Losing:
        def __init__(self, name, lost):
            self.name, self.lost = name, lost

        def people(self, frames, most):
            return [[*[None] * self.lost, *found[self.lost :]] for found in people(frames, most)]

    people = tracker.people
    frames = [cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY) for frame in talking_head(25, 160)]
    crops = {"landmark_every": 1, "window": 12}
    trackers = Losing("dlib", lost), Losing("mediapipe", other)
    cropper = MouthCropper(crops, *trackers, said=lambda *_: None)
    notes: list[str] = []
    lips, name = cropper.mouth(Piece(0.0, 1.0, None, frames), notes)
    assert lips.shape == (25, 96, 96)
    assert (name, notes) == (("mediapipe", [note]) if note else ("dlib", []))


@needs_mediapipe
def test_another_detector_than_that_of_the_training_is_not_tried(packed_as, tracker, caplog):
    crops = describe("dlib", {"dlib": tracker}, 3, 12)
    crops["landmarks"]["mediapipe"] = {"face_landmark.tflite": "another"}
    assert Transcriber.load(packed_as(crops), downloads=[DOWNLOADS]).other is None
    assert "where dlib finds no face, mediapipe is not tried" in caplog.text


def test_another_geometry_is_refused(packed_as, tracker, clip):
    record = describe("dlib", {"dlib": tracker}, 3, 12)
    packed = packed_as(record | {"geometry": {**record["geometry"], "side": 1.7}})
    with pytest.raises(PackedModelError, match="lips of another geometry"):
        Transcriber.load(packed, downloads=[DOWNLOADS])


def test_crops_made_elsewhere_are_noted(packed_as, clip):
    transcript = Transcriber.load(packed_as(elsewhere()), downloads=[DOWNLOADS])(clip, OPTIONS)
    assert "trained on lips that were not cut by mome, and these are, by dlib" in transcript.notes


def test_models_that_say_nothing_are_read_with_a_warning(packed_as, clip, caplog):
    transcript = Transcriber.load(packed_as({}), downloads=[DOWNLOADS])(clip, OPTIONS)
    assert transcript.notes == ["no sound: lips alone", "vsr v2, the finest rates"]
    assert "does not say what cut the lips it was trained on: dlib is taken" in caplog.text


@pytest.mark.parametrize("wrong", [{"detector": "theirs"}, {"window": 0}, {"window": "x"}, "dlib"])
def test_a_record_that_cannot_be_meant_is_refused(packed_as, wrong):
    with pytest.raises(PackedModelError, match="its crops cannot be"):
        Transcriber.load(packed_as(wrong), downloads=[DOWNLOADS])


def test_landmarks_are_found_as_often_as_in_training(packed_as, tracker, clip, monkeypatch):
    seen = []

    def watch(frames, most):
        seen.append(len(frames))
        return people(frames, most)

    people = tracker.people
    monkeypatch.setattr(tracker, "people", watch)
    for every in (3, 1):
        packed = packed_as(describe("dlib", {"dlib": tracker}, every, 12))
        Transcriber.load(packed, tracker=tracker)(clip, OPTIONS)
    assert seen == [9, 25]
