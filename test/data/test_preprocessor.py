"""Preparing utterances: what comes before a clip."""

import numpy as np
import pytest
import torch

from mome.data.preprocessor import AVSRPreprocessor

FRAMES = 30


@pytest.fixture
def clip() -> dict[str, str | np.ndarray]:
    """A second of loud speech with lips and units that differ in every frame."""
    rng = np.random.default_rng(0)
    return {
        "speech": rng.normal(scale=0.1, size=640 * FRAMES - 100).astype(np.float32),
        "lips": np.arange(FRAMES, dtype=np.uint8)[:, None, None].repeat(96, 1).repeat(96, 2),
        "units": np.arange(FRAMES),
    }


def prepare(clip, seed: int, **options) -> dict[str, np.ndarray]:
    """One epoch's utterance, without other augmentation."""
    torch.manual_seed(seed)
    off = {"flip": False, "crop_shift": 0, "audio_mask_seconds": 0, "video_mask_frames": 0}
    return AVSRPreprocessor(train=True, **off, **options)("a", clip)


def test_lead_moves_all_streams_together_by_a_drawn_number_of_frames(clip):
    plain = prepare(clip, 0, activity=True)
    leads = []
    for seed in range(60):
        led = prepare(clip, seed, activity=True, max_lead_frames=4)
        lead = len(led["units"]) - FRAMES
        leads.append(lead)
        assert np.array_equal(led["speech"][640 * lead :], plain["speech"])
        assert not led["speech"][: 640 * lead].any()
        assert np.array_equal(led["lips"][lead:], plain["lips"])
        assert (led["lips"][: lead + 1] == plain["lips"][0]).all()
        assert led["units"].tolist() == [0] * lead + list(range(FRAMES))
        assert led["activity"].tolist() == [0] * lead + plain["activity"].tolist()
    assert set(leads) == {0, 1, 2, 3, 4}


def test_lead_repeats_with_the_seed_and_needs_no_second_stream(clip):
    led = prepare(clip, 3, max_lead_frames=8)
    assert np.array_equal(led["lips"], prepare(clip, 3, max_lead_frames=8)["lips"])
    alone = prepare({"speech": clip["speech"]}, 3, max_lead_frames=8)
    assert np.array_equal(alone["speech"], led["speech"])


def test_nothing_comes_before_a_clip_outside_training(clip):
    given = AVSRPreprocessor(train=False, max_lead_frames=8)("a", clip)
    assert np.array_equal(given["speech"], clip["speech"])
    assert len(given["lips"]) == len(given["units"]) == FRAMES
