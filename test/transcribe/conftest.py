"""The frozen parts of the tiny model, where packed models look for them, and sets of clips."""

import numpy as np
import pytest
from tiny_training import make_training

from mome.data.audio import write_flac
from mome.data.kaldi import write_scp
from mome.data.video import write_lips


@pytest.fixture(scope="module", autouse=True)
def downloads(tiny_downloads):
    """$MOME_DOWNLOADS names their folder."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MOME_DOWNLOADS", str(tiny_downloads))
        yield


@pytest.fixture(scope="session")
def single(tmp_path_factory, tiny_lm, tiny_whisper):
    """A training of one task at one rate pair, which is packed and measured sooner than all."""
    rates = {"tasks": ["avsr"], "audio_rates": [4], "video_rates": [2]}
    return make_training(tmp_path_factory.mktemp("single"), tiny_lm, tiny_whisper, **rates)


@pytest.fixture
def dump(tmp_path):
    """Sets of stage 2 with three clips of a second or more."""
    rng = np.random.default_rng(0)
    for name in ("train", "valid"):
        folder = tmp_path / "dump" / name
        ids = [f"u{number}" for number in range(3)]
        for number, utterance in enumerate(ids):
            frames = rng.integers(0, 255, (25 + number, 96, 96), dtype=np.uint8)
            write_lips(folder / f"{utterance}.mp4", frames)
            samples = rng.normal(0, 0.1, len(frames) * 640).astype(np.float32)
            write_flac(folder / f"{utterance}.flac", samples)
        write_scp(folder / "text", dict.fromkeys(ids, "place red now"))
        write_scp(folder / "utt2dur", {u: f"{1 + 0.04 * n:.2f}" for n, u in enumerate(ids)})
        write_scp(folder / "lip.scp", {u: str(folder / f"{u}.mp4") for u in ids})
        write_scp(folder / "wav.scp", {u: str(folder / f"{u}.flac") for u in ids})
    return tmp_path / "dump"
