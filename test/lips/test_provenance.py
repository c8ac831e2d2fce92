"""What stage 2 records of the crops that it makes, and when it makes them anew."""

import hashlib
import json
import os
from pathlib import Path
from typing import ClassVar

import pytest
from media import talking_head, write_clip

from mome.bin import prepare_media
from mome.data.kaldi import read_scp, write_scp
from mome.lips.provenance import (
    GEOMETRY,
    describe,
    elsewhere,
    joined,
    outdated,
    read_crops,
    write_crops,
)

ROOT = Path(__file__).resolve().parents[2]
DOWNLOADS = Path(os.environ.get("MOME_DOWNLOADS", ROOT / "downloads"))
MODEL = DOWNLOADS / "dlib" / "shape_predictor_68_face_landmarks.dat"


@pytest.fixture
def data(tmp_path) -> Path:
    """A data folder with a clip of half a second."""
    write_clip(tmp_path / "a.mp4", talking_head(12, 160))
    for name, value in (("video.scp", tmp_path / "a.mp4"), ("utt2spk", "a"), ("text", "red now")):
        write_scp(tmp_path / "data" / name, {"a_1": value})
    return tmp_path / "data"


def prepare(data: Path, dump: Path, *options: object, landmarks: Path = MODEL) -> None:
    words = ["--data", data, "--dump", dump, "--landmarks", landmarks, *options]
    prepare_media.main([str(word) for word in words])


def test_the_record_names_detector_landmark_model_and_geometry(data, tmp_path):
    prepare(data, tmp_path / "dump", "--landmark_every", 2, "--window", 6)
    digest = hashlib.sha256(MODEL.read_bytes()).hexdigest()
    found = json.loads((tmp_path / "dump/crops.json").read_text())
    assert found == {
        "detector": "dlib",
        "landmarks": {"dlib": {MODEL.name: digest}},
        "geometry": GEOMETRY,
        "landmark_every": 2,
        "window": 6,
        "clips": {"dlib": 1},
    }
    assert found["geometry"]["size"] == 96


def test_a_run_for_sound_alone_leaves_no_crops_that_nobody_knows(data, tmp_path):
    """What a run for pictures takes over afterwards is what it would make."""
    crop, record = tmp_path / "dump/lips/a/a_1.mp4", tmp_path / "dump/crops.json"
    prepare(data, tmp_path / "dump")
    made, known = crop.stat().st_mtime_ns, record.read_text()
    sound = ["--streams", "audio"]
    prepare(data, tmp_path / "dump", *sound)
    assert (crop.stat().st_mtime_ns, record.read_text()) == (made, known)
    # Another landmark model, other settings, another video.
    other = tmp_path / "other" / MODEL.name
    other.parent.mkdir()
    other.write_bytes(MODEL.read_bytes() + b"x")
    prepare(data, tmp_path / "dump", landmarks=other)
    assert crop.stat().st_mtime_ns > made
    prepare(data, tmp_path / "dump", *sound, "--window", 2)
    assert not crop.exists()
    assert not record.exists()
    prepare(data, tmp_path / "dump", "--window", 2)
    assert read_crops(tmp_path / "dump")["window"] == 2
    write_clip(tmp_path / "a.mp4", talking_head(12, 200))
    prepare(data, tmp_path / "dump", *sound, "--window", 2)
    assert not crop.exists()
    # And the other way round.
    sound_file = tmp_path / "dump/audio/a/a_1.flac"
    write_clip(tmp_path / "a.mp4", talking_head(12, 160))
    prepare(data, tmp_path / "dump", "--streams", "video", "--window", 2)
    assert crop.exists()
    assert not sound_file.exists()


def test_crops_of_another_landmark_model_are_made_anew(data, tmp_path):
    """As dlib reads no further than its model goes, a byte after it makes another file of it."""
    other = tmp_path / "other" / MODEL.name
    other.parent.mkdir()
    other.write_bytes(MODEL.read_bytes() + b"x")
    crop = tmp_path / "dump/lips/a/a_1.mp4"
    prepare(data, tmp_path / "dump")
    made = crop.stat().st_mtime_ns
    prepare(data, tmp_path / "dump")
    assert crop.stat().st_mtime_ns == made
    prepare(data, tmp_path / "dump", landmarks=other)
    assert crop.stat().st_mtime_ns > made
    digest = hashlib.sha256(other.read_bytes()).hexdigest()
    assert read_crops(tmp_path / "dump")["landmarks"] == {"dlib": {MODEL.name: digest}}
    # Of a set that an earlier version began nothing is known that could differ.
    (tmp_path / "dump/crops.json").unlink()
    made = crop.stat().st_mtime_ns
    prepare(data, tmp_path / "dump")
    assert crop.stat().st_mtime_ns == made


def test_a_run_that_is_killed_before_it_drops_crops_of_other_settings_leaves_none(
    data, tmp_path, monkeypatch
):
    """Of a large corpus the sources are looked at for minutes before a crop is deleted."""
    crop = tmp_path / "dump/lips/a/a_1.mp4"
    prepare(data, tmp_path / "dump")
    made = crop.stat().st_mtime_ns

    def killed(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(prepare_media, "drop_changed", killed)
        with pytest.raises(KeyboardInterrupt):
            prepare(data, tmp_path / "dump", "--window", 2)
    prepare(data, tmp_path / "dump", "--window", 2)
    assert crop.stat().st_mtime_ns > made


def test_crops_of_another_geometry_are_made_anew(data, tmp_path):
    prepare(data, tmp_path / "dump")
    crop = tmp_path / "dump/lips/a/a_1.mp4"
    made = crop.stat().st_mtime_ns
    record = json.loads((tmp_path / "dump/crops.json").read_text())
    record["geometry"]["side"] = 1.7
    (tmp_path / "dump/crops.json").write_text(json.dumps(record))
    prepare(data, tmp_path / "dump")
    assert crop.stat().st_mtime_ns > made
    assert read_crops(tmp_path / "dump")["geometry"] == GEOMETRY


def test_of_crops_made_elsewhere_nothing_is_claimed(data, tmp_path):
    prepare(data, tmp_path / "first")
    prepare(data, tmp_path / "second", "--lip_dir", tmp_path / "first/lips")
    assert read_scp(tmp_path / "second/lip.scp") == read_scp(tmp_path / "first/lip.scp")
    assert read_crops(tmp_path / "second") == {"elsewhere": True}


def test_sets_of_earlier_versions_tell_what_their_settings_do(data, tmp_path):
    prepare(data, tmp_path / "dump")
    (tmp_path / "dump/crops.json").unlink()
    known = {"detector": "dlib", "landmark_every": 3, "window": 12}
    assert read_crops(tmp_path / "dump") == known
    settings = json.loads((tmp_path / "dump/settings.json").read_text())
    (tmp_path / "dump/settings.json").write_text(json.dumps(settings | {"lip_dir": "theirs"}))
    assert read_crops(tmp_path / "dump") == {"elsewhere": True}
    assert read_crops(tmp_path) == {}
    (tmp_path / "dump/crops.json").write_text("[1")
    with pytest.raises(ValueError, match=r"crops\.json cannot be read .*; run stage 2 again"):
        read_crops(tmp_path / "dump")


def test_crops_are_outdated_by_another_landmark_model_or_geometry():
    """What only one of two runs knows does not count."""
    now = {"landmarks": {"dlib": {"m": "1"}}, "geometry": GEOMETRY}
    other = {"mediapipe": {"n": "2"}}
    for earlier in ({}, now, {"landmarks": other}, {"landmarks": other | now["landmarks"]}):
        assert not outdated(earlier, now)
    changed = {"dlib": {"m": "2"}}
    for landmarks in (changed, other | changed, changed | other):
        assert outdated({"landmarks": landmarks, "geometry": GEOMETRY}, now)
        assert not outdated({"landmarks": landmarks}, elsewhere())
    assert outdated(now | {"geometry": GEOMETRY | {"side": 1.7}}, now)
    assert outdated({"geometry": GEOMETRY | {"side": 1.7}}, elsewhere())


def test_the_record_of_a_set_keeps_the_models_of_crops_that_stay(tmp_path):
    class Tracker:
        digests: ClassVar = {"n": "2"}

    now = describe("mediapipe", {"mediapipe": Tracker()}, 3, 12)
    assert now["landmarks"] == {"mediapipe": {"n": "2"}}
    earlier = {"detector": "dlib", "landmarks": {"dlib": {"m": "1"}, "mediapipe": {"n": "1"}}}
    both = now | {"landmarks": {"dlib": {"m": "1"}, "mediapipe": {"n": "2"}}}
    assert joined(earlier, now) == both
    assert joined({}, now) == joined({"detector": "dlib"}, now) == now
    assert joined(earlier, elsewhere()) == {"elsewhere": True}
    write_crops(tmp_path, both)
    assert read_crops(tmp_path) == both
    for _ in range(2):
        write_crops(tmp_path, {})
        assert read_crops(tmp_path) == {}
