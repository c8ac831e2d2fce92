"""Real clips as cameras spoil them: what one detector loses, the other must find."""

import os
from pathlib import Path

import cv2
import numpy as np
import pytest
from media import write_clip

from mome.bin import prepare_media
from mome.data.corrupt import darkness
from mome.data.kaldi import read_scp, write_scp
from mome.data.video import read_video, video_info
from mome.lips import provenance
from mome.lips.detectors import DETECTORS, LANDMARKS

ROOT = Path(__file__).resolve().parents[2]
CLIPS = ROOT.parent / "shared/grid"
DOWNLOADS = Path(os.environ.get("MOME_DOWNLOADS", ROOT / "downloads"))
NAMES = ("s1/bbal8p.mpg", "s2/pwij3p.mpg", "s4/lwbsza.mpg")

pytestmark = [
    pytest.mark.skipif(
        not CLIPS.is_dir(),
        reason=f"no sample of real GRID clips in {CLIPS}; it is not part of the repository",
    ),
    pytest.mark.skipif(
        not (DOWNLOADS / "mediapipe").is_dir(),
        reason="no models: run python -m mome.bin.fetch_models --only mediapipe",
    ),
]


def small(frames: np.ndarray) -> np.ndarray:
    """At half the size in a picture of 1280x720."""
    height, width = frames.shape[1] // 2, frames.shape[2] // 2
    screens = np.full((len(frames), 720, 1280, 3), 110, np.uint8)
    for screen, frame in zip(screens, frames, strict=True):
        reduced = cv2.resize(frame, (width, height), interpolation=cv2.INTER_AREA)
        screen[190 : 190 + height, 730 : 730 + width] = reduced
    return screens


def dark(frames: np.ndarray) -> np.ndarray:
    """Four stops darker."""
    return darkness(frames, 1, np.random.default_rng(0))


def turned(frames: np.ndarray) -> np.ndarray:
    """By 25 degrees."""
    height, width = frames.shape[1:3]
    matrix = cv2.getRotationMatrix2D((width / 2, height / 2), 25, 1)
    return np.stack([cv2.warpAffine(f, matrix, (width, height), borderMode=1) for f in frames])


@pytest.mark.parametrize("first", DETECTORS)
def test_spoilt_clips_are_kept_and_it_is_said_who_found_the_face(tmp_path, first):
    videos = {}
    for number, name in enumerate(NAMES):
        frames = read_video(CLIPS / name)[:25]
        for how in (small, dark, turned):
            path = tmp_path / f"{how.__name__}_{number}.mp4"
            write_clip(path, how(frames))
            videos[path.stem] = path
    data, dump = tmp_path / "data", tmp_path / "dump"
    write_scp(data / "video.scp", videos)
    write_scp(data / "utt2spk", {name: name.split("_")[0] for name in videos})
    write_scp(data / "text", dict.fromkeys(videos, "place red"))
    other = DETECTORS[1 - DETECTORS.index(first)]
    words = ["--data", data, "--dump", dump, "--detector", first]
    words += ["--landmarks", DOWNLOADS / LANDMARKS[first]]
    words += ["--other_landmarks", DOWNLOADS / LANDMARKS[other], "--max_excluded", "0"]
    prepare_media.main([str(word) for word in words])
    assert read_scp(dump / "excluded") == {}
    found = read_scp(dump / "detectors") if (dump / "detectors").exists() else {}
    expected = {f"small_{number}" for number in range(len(NAMES))} if first == "dlib" else set()
    assert found == dict.fromkeys(expected, other)
    assert {u: video_info(p).comment for u, p in read_scp(dump / "lip.scp").items()} == {
        utterance: found.get(utterance, "") for utterance in videos
    }
    counts = {first: len(videos) - len(found)} | ({other: len(found)} if found else {})
    assert provenance.read_crops(dump)["clips"] == counts
