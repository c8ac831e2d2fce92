"""Who speaks, on crops whose motion is known, and by what a model makes of them."""

import itertools
import math

import numpy as np
import pytest
import torch
from tiny_avsr import build, collate, utterances

from mome.transcribe.alignment import lips_say
from mome.transcribe.speaker import CERTAIN, loudness, motion, synchrony, who_speaks


def talking(opening: np.ndarray, seed: int = 0) -> np.ndarray:
    """Crops in which a dark bar in the middle is as high as the mouth is open (0 to 1)."""
    rng = np.random.default_rng(seed)
    frames = rng.normal(120, 3, (len(opening), 96, 96))
    for frame, open_ in zip(frames, opening, strict=True):
        half = round(2 + 14 * open_)
        frame[48 - half : 48 + half, 32:64] = 30
    return frames.clip(0, 255).astype(np.uint8)


def saying(bursts: np.ndarray, seed: int = 0) -> np.ndarray:
    """Noise of 40 ms for each frame, loud where there is a burst."""
    rng = np.random.default_rng(seed)
    return (rng.normal(0, 1, len(bursts) * 640) * (0.001 + 0.1 * bursts.repeat(640))).astype(
        np.float32
    )


@pytest.fixture(scope="module")
def bursts() -> np.ndarray:
    """When somebody speaks: runs of 8 to 20 frames."""
    rng = np.random.default_rng(3)
    return np.concatenate([np.full(int(rng.integers(8, 20)), on) for on in [0, 1] * 4]).astype(
        float
    )


def mouth(bursts: np.ndarray, seed: int) -> np.ndarray:
    """A mouth that moves at random while there is a burst."""
    return talking(bursts * np.random.default_rng(seed).random(len(bursts)), seed)


def test_the_moving_mouth_that_fits_the_sound_speaks(bursts):
    speech = saying(bursts)
    own, other, still = mouth(bursts, 1), mouth(1 - bursts, 2), mouth(0 * bursts, 3)
    assert synchrony(own, speech) > 0.6
    assert synchrony(other, speech) < 0.3
    assert synchrony(still, speech) < 0.3
    assert who_speaks([other, own], speech) == 1
    assert who_speaks([still, other, own], speech) == 2
    assert who_speaks([own, other], speech) == 0


@pytest.mark.parametrize("late", [-2, 2])
def test_a_little_delay_does_not_matter(bursts, late):
    speech = np.roll(saying(bursts), late * 640)
    assert who_speaks([mouth(1 - bursts, 2), mouth(bursts, 1)], speech) == 1


def test_where_it_is_not_clear_the_largest_face_is_taken(bursts):
    crops = [mouth(0 * bursts, 1), mouth(0 * bursts, 2)]
    assert who_speaks(crops, saying(bursts)) == 0
    assert who_speaks([crops[0], mouth(bursts, 1)], None) == 0
    assert who_speaks([crops[0][:4], mouth(bursts, 1)[:4]], saying(bursts)[:2560]) == 0
    assert who_speaks(crops[:1], saying(bursts)) == 0


def test_motion_and_loudness_are_what_they_say():
    crops = np.zeros((3, 96, 96), dtype=np.uint8)
    crops[1] = 10
    assert motion(crops).tolist() == [10, 10, 10]
    level = loudness(np.full(1000, 0.1, np.float32), 3)
    assert level[0] == pytest.approx(-20, abs=0.01)
    assert level[2] == pytest.approx(-80, abs=0.01)


def test_the_mouth_that_says_what_is_heard_speaks(bursts):
    speech = saying(bursts)
    own, other = mouth(bursts, 1), mouth(1 - bursts, 2)
    assert who_speaks([own, other], speech, [-9.0, -9.0 + 1.1 * CERTAIN]) == 1
    assert who_speaks([other, own], speech, [-2.0, -9.0]) == 0
    assert who_speaks([other, other, own], speech, [-9.0, -2.0, -9.0]) == 1
    # Where that is not clear, motion decides.
    assert who_speaks([other, own], speech, [-9.0, -9.0 - 0.9 * CERTAIN]) == 1
    assert who_speaks([other, own], speech, [-math.inf, -math.inf]) == 1
    assert who_speaks([other, own], None, [-9.0, -2.0]) == 0


@pytest.mark.parametrize("reads", [True, False])
def test_how_likely_mouths_say_it_is_the_sum_over_all_alignments(tiny_lm, tiny_whisper, reads):
    """Of the few windows of short clips, one by one."""
    conf = {"readout_conf": {}} if reads else {}
    model = build(tiny_lm, tiny_whisper, audio_rates=[8, 16], video_rates=[3, 6], **conf).eval()
    batch = collate(utterances(2))
    with torch.inference_mode():
        heard = model.encode(speech=batch["speech"][:1], speech_lengths=batch["speech_lengths"][:1])
        seen = model.encode(lips=batch["lips"], lips_lengths=batch["lips_lengths"])
        found = lips_say(model, heard, seen)
        if not reads:
            assert found is None
            return
        vocabulary = model.decoder.vocabulary()
        tokens, lengths = model.project(heard, "audio", 8)
        path = model.readout.log_probs(tokens[0, : lengths[0]], vocabulary).argmax(-1).tolist()
        tokens, lengths = model.project(seen, "video", 3)
        posteriors = model.readout.log_probs(tokens, vocabulary).exp()
    said = [label for label, _ in itertools.groupby(path) if label]
    assert said
    for row, length, score in zip(posteriors, lengths.tolist(), found, strict=True):
        total = 0.0
        for labels in itertools.product([0, *sorted(set(said))], repeat=length):
            if [label for label, _ in itertools.groupby(labels) if label] == said:
                total += math.prod(float(row[place, label]) for place, label in enumerate(labels))
        expected = math.log(total) / len(said) if total else -math.inf
        assert score == pytest.approx(expected, rel=1e-4)
