"""Real clips of GRID, of nine speakers, through the stages that prepare data."""

import os
import runpy
from pathlib import Path

import numpy as np
import pytest

from mome.bin.prepare_media import main as prepare_media
from mome.data.audio import read_audio
from mome.data.kaldi import read_scp, spk2utt_of, validate_data_dir, write_scp
from mome.data.video import read_lips

ROOT = Path(__file__).parents[2]
CLIPS = ROOT.parent / "shared/grid"
PICKED = {"s1": 3, "s2": 1, "s20": 1, "s22": 1, "s23": 1, "s26": 1, "s3": 1, "s32": 1, "s4": 1}
DOWNLOADS = Path(os.environ.get("MOME_DOWNLOADS", ROOT / "downloads"))
MODEL = DOWNLOADS / "dlib" / "shape_predictor_68_face_landmarks.dat"

pytestmark = pytest.mark.skipif(
    not CLIPS.is_dir(),
    reason=f"no sample of real GRID clips in {CLIPS}; it is not part of the repository",
)


@pytest.fixture(scope="module")
def dump(tmp_path_factory) -> Path:
    """Some clips of each speaker, with their lips and sound."""
    root = tmp_path_factory.mktemp("grid")
    sentence = runpy.run_path(str(ROOT / "egs/grid/local/data.py"))["sentence"]
    clips = {
        f"s{int(speaker[1:]):02d}_{clip.stem}": clip  # equally long, as the recipe writes them
        for speaker, count in PICKED.items()
        for clip in sorted((CLIPS / speaker).glob("*.mpg"))[:count]
    }
    utt2spk = {utterance: utterance.split("_")[0] for utterance in clips}
    tables = {
        "video.scp": {utterance: str(clip) for utterance, clip in clips.items()},
        "text": {utterance: sentence(clip.stem) for utterance, clip in clips.items()},
        "utt2spk": utt2spk,
        "spk2utt": spk2utt_of(utt2spk),
    }
    for name, table in tables.items():
        write_scp(root / "data" / name, table)
    assert validate_data_dir(root / "data") == []
    arguments = {"--data": root / "data", "--dump": root / "dump", "--landmarks": MODEL}
    prepare_media([str(word) for pair in arguments.items() for word in pair])
    return root / "dump"


def test_every_face_is_found_and_the_streams_fit(dump):
    assert read_scp(dump / "excluded") == {}
    assert validate_data_dir(dump) == []
    wavs, frames = read_scp(dump / "wav.scp"), read_scp(dump / "utt2num_frames")
    assert len(wavs) == sum(PICKED.values())
    for utterance, path in wavs.items():
        assert 74 <= int(frames[utterance]) <= 76
        assert abs(len(read_audio(path)) / 640 - int(frames[utterance])) <= 1
        assert len(read_scp(dump / "text")[utterance].split()) == 6


def test_the_crops_hold_a_mouth_that_moves_with_the_sound(dump):
    wavs = read_scp(dump / "wav.scp")
    more = []  # movement of the mouth while the clip is loud, over that while it is not
    for utterance, path in read_scp(dump / "lip.scp").items():
        lips = read_lips(path).astype(np.float32)
        assert lips.shape[1:] == (96, 96)
        motion = np.abs(np.diff(lips, axis=0))
        mouth, nose = motion[:, 36:76, 24:72].mean((1, 2)), motion[:, :24].mean((1, 2))
        assert mouth.mean() > 1.5 * nose.mean(), utterance
        sound = read_audio(wavs[utterance])
        loud = np.array([np.sqrt(np.mean(part**2)) for part in np.array_split(sound, len(mouth))])
        speaks = loud > 0.2 * loud.max()
        more.append(mouth[speaks].mean() / mouth[~speaks].mean())
    assert min(more) > 1
    assert np.median(more) > 1.8
