"""mome.data.augment against plain formulas."""

import numpy as np
import pytest

from mome.data.augment import (
    add_noise,
    center_crop,
    cut_noise,
    mask_audio,
    mask_video,
    normalize,
    random_crop,
)


def ratio_db(speech, noise):
    """SNR by its definition, in float64."""
    speech, noise = speech.astype(np.float64), noise.astype(np.float64)
    return 10 * np.log10(np.sum(speech**2) / np.sum(noise**2))


@pytest.mark.parametrize("snr", [-5, 0, 5, 10, 15, 20])
@pytest.mark.parametrize("noise_length", [1000, 16000, 50000])
def test_noise_has_the_ratio_asked_for(snr, noise_length):
    rng = np.random.default_rng(snr + noise_length)
    speech = 0.3 * np.sin(np.arange(16000) / 20).astype(np.float32)
    noise = rng.normal(0, rng.uniform(0.001, 3), noise_length).astype(np.float32)
    mixed = add_noise(speech, noise, snr, rng)
    assert mixed.dtype == np.float32
    assert mixed.shape == speech.shape
    assert ratio_db(speech, mixed - speech) == pytest.approx(snr, abs=0.05)


def test_noise_is_not_clipped_and_follows_the_generator():
    speech = np.ones(100, np.float32)
    noise = np.arange(1, 1001, dtype=np.float32)
    mixed = add_noise(speech, noise, -5, np.random.default_rng(1))
    assert mixed.max() > 1.5
    again = add_noise(speech, noise, -5, np.random.default_rng(1))
    other = add_noise(speech, noise, -5, np.random.default_rng(2))
    assert np.array_equal(mixed, again)
    assert not np.array_equal(mixed, other)


def test_noise_is_cut_at_random_or_repeated():
    noise = np.arange(1, 11)
    starts = set()
    for seed in range(200):
        cut = cut_noise(noise, 4, np.random.default_rng(seed))
        assert np.array_equal(np.diff(cut), [1, 1, 1])  # never across the end
        starts.add(int(cut[0]))
    assert starts == set(range(1, 8))
    cut = cut_noise(noise, 25, np.random.default_rng(0))
    assert np.array_equal(cut, [noise[(cut[0] - 1 + i) % 10] for i in range(25)])


def test_silence():
    rng = np.random.default_rng(0)
    speech = np.ones(10, np.float32)
    for noise in (np.zeros(100), np.zeros(0)):
        with pytest.raises(ValueError, match="empty or silent"):
            add_noise(speech, noise, 0, rng)
    mostly_silent = np.zeros(100000)
    mostly_silent[500] = 1
    assert np.isfinite(add_noise(speech, mostly_silent, 0, rng)).all()
    assert not np.any(add_noise(np.zeros(10), np.ones(10), 0, rng))


def runs_of_zeros(values):
    """Lengths of the stretches of zeros, found one sample after the other."""
    runs, length = [], 0
    for value in [*values, 1]:
        if value == 0:
            length += 1
        elif length:
            runs.append(length)
            length = 0
    return runs


@pytest.mark.parametrize("seconds", [0.05, 0.9, 1.0, 2.5])
def test_audio_masks(seconds):
    speech = np.ones(round(seconds * 1000), np.float32)
    most = int(np.ceil(seconds))
    lengths = []
    for seed in range(100):
        masked = mask_audio(speech, np.random.default_rng(seed), rate=1000)
        assert masked.shape == speech.shape
        assert speech.min() == 1
        lengths.append(runs_of_zeros(masked))
        assert len(lengths[-1]) <= most
        assert sum(lengths[-1]) <= most * 400
    if seconds >= 0.9:
        # Uniform from 0 to 400, a little less where two overlap.
        assert np.mean([sum(runs) for runs in lengths]) == pytest.approx(200 * most, rel=0.2)


def test_video_masks_whole_frames():
    frames = np.full((60, 4, 4), 9, np.uint8)
    masked = mask_video(frames, np.random.default_rng(3))
    assert masked.dtype == np.uint8
    assert frames.min() == 9
    assert {tuple(np.unique(frame)) for frame in masked} == {(0,), (9,)}
    assert len(runs_of_zeros(masked[:, 0, 0])) <= 3
    assert len(mask_video(frames[:1], np.random.default_rng(0))) == 1
    assert np.array_equal(mask_video(frames, np.random.default_rng(0), max_frames=0), frames)


def test_crops():
    frames = np.arange(3 * 96 * 96).reshape(3, 96, 96)
    assert np.array_equal(center_crop(frames, 88), frames[:, 4:92, 4:92])
    corners, mirrored = set(), 0
    for seed in range(300):
        crop = random_crop(frames, 88, np.random.default_rng(seed))
        if crop[0, 0, 1] < crop[0, 0, 0]:
            mirrored += 1
            crop = crop[:, :, ::-1]
        top, left = divmod(int(crop[0, 0, 0]), 96)
        corners.add((top, left))
        assert np.array_equal(crop, frames[:, top : top + 88, left : left + 88])
    assert {top for top, _ in corners} == {left for _, left in corners} == set(range(9))
    assert 110 < mirrored < 190
    for seed in range(20):
        crop = random_crop(frames, 88, np.random.default_rng(seed), flip=False)
        assert crop[0, 0, 1] > crop[0, 0, 0]
    near = [random_crop(frames, 64, np.random.default_rng(n), False, 3) for n in range(200)]
    corners = {divmod(int(crop[0, 0, 0]), 96) for crop in near}
    middle = set(range(13, 20))  # 16 pixels are left on each side, of which 3 may be taken
    assert {top for top, _ in corners} == {left for _, left in corners} == middle
    still = random_crop(frames, 64, np.random.default_rng(0), False, 0)
    assert np.array_equal(still, center_crop(frames, 64))
    for crop in (lambda: center_crop(frames, 97), lambda: random_crop(frames, 97, None)):
        with pytest.raises(ValueError, match="too small"):
            crop()


def test_normalize():
    pixels = np.array([[[0, 255, 107]]], np.uint8)
    result = normalize(pixels)
    assert result.dtype == np.float32
    expected = [(value / 255 - 0.421) / 0.165 for value in (0, 255, 107)]
    assert np.allclose(result.ravel(), expected, atol=1e-6)
