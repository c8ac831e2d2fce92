"""Segments of signals whose speech and pauses are known."""

from itertools import pairwise

import numpy as np
import pytest

from mome.transcribe.segments import even_segments, find_segments, levels, split_at_quietest

RATE = 8000


def signal(*parts: tuple[float, float], seed: int = 0) -> np.ndarray:
    """Noise of given seconds and levels (root mean square), one after the other."""
    rng = np.random.default_rng(seed)
    return np.concatenate([rng.normal(0, level, round(s * RATE)) for s, level in parts])


def segments(samples: np.ndarray, longest: float, **options) -> list[tuple[float, float]]:
    return find_segments(levels([samples], RATE), longest, **options)


def test_levels_do_not_depend_on_how_the_samples_come():
    samples = signal((1.0, 0.1), (0.51, 0.001))
    whole = levels([samples], RATE)
    pieces = levels(np.array_split(samples, [3, 1000, 1001, 5003]), RATE)
    np.testing.assert_allclose(whole, pieces, atol=1e-4)
    assert len(whole) == 76
    # 20 log10 of the root mean square.
    assert whole[:50].mean() == pytest.approx(-20, abs=0.5)
    assert whole[50:75].mean() == pytest.approx(-60, abs=0.5)
    assert len(levels([], RATE)) == 0


@pytest.mark.parametrize("rate", [8000, 11025, 22050, 44100])
def test_times_are_those_of_the_sound_at_any_rate(rate):
    """Ten minutes with one sentence near the end: rounded frames must not add up to a shift."""
    samples = np.zeros(600 * rate, dtype=np.float32)
    place = slice(590 * rate, 595 * rate)
    samples[place] = np.random.default_rng(0).normal(0, 0.1, 5 * rate)
    level = levels(np.array_split(samples, 977), rate)
    assert len(level) == 30000
    ((start, end),) = find_segments(level, 20.0)
    assert start == pytest.approx(589.75, abs=0.03)
    assert end == pytest.approx(595.25, abs=0.03)


def test_a_short_recording_stays_as_it_is_and_silence_gives_nothing():
    assert segments(signal((1, 0.001), (1, 0.1), (1, 0.001)), 3.0) == [(0.0, 3.0)]
    assert segments(signal((5, 1e-5)), 3.0) == []
    assert segments(np.zeros(0), 3.0) == []


@pytest.mark.parametrize("floor", [0.0, 1e-4, 0.005])
@pytest.mark.parametrize("gain", [1.0, 0.05])
def test_pauses_divide_whatever_the_level(floor, gain):
    """Three sentences with pauses of a second; a short stop inside the second does not divide."""
    speech = 0.1
    samples = gain * signal(
        *((1.0, floor), (2.0, speech), (1.0, floor)),
        *((1.0, speech), (0.2, floor), (1.0, speech)),
        *((1.0, floor), (1.5, speech), (0.5, floor)),
    )
    found = segments(samples, 6.0)
    expected = [(1.0, 3.0), (4.0, 6.2), (7.2, 8.7)]
    assert len(found) == len(expected)
    for (start, end), (first, last) in zip(found, expected, strict=True):
        assert start == pytest.approx(first - 0.25, abs=0.041)
        assert end == pytest.approx(last + 0.25, abs=0.041)


def test_a_steady_sound_has_no_pauses_and_is_read_all_the_same():
    found = segments(0.3 * np.sin(np.arange(8 * RATE)), 3.0)
    assert found[0][0] == 0
    assert found[-1][1] == pytest.approx(8.0)
    assert all(a[1] == b[0] for a, b in pairwise(found))


def test_a_noisy_room_between_digital_silence_is_a_pause():
    """Clips joined with silence: sentences stand 20 dB above their room, which is no speech."""
    clip = [(0.6, 0.012), (1.8, 0.12), (0.6, 0.012), (1.0, 0.0)]
    found = segments(signal(*(clip * 5)), 3.0)
    assert len(found) == 5
    for number, (start, end) in enumerate(found):
        assert start == pytest.approx(4 * number + 0.35, abs=0.1)
        assert end == pytest.approx(4 * number + 2.65, abs=0.1)


def test_margins_shrink_before_speech_is_cut():
    found = segments(signal((2, 0.001), (2.9, 0.1), (2, 0.001)), 3.0)
    assert len(found) == 1
    assert found[0][0] <= 2.0
    assert found[0][1] >= 4.86


def test_a_click_is_no_speech():
    quiet = 1e-4
    found = segments(signal((2, quiet), (0.04, 0.3), (2, quiet), (2, 0.1), (2, quiet)), 4.0)
    assert len(found) == 1
    assert found[0][0] > 3.5


def test_what_is_too_long_is_cut_where_it_is_quietest():
    samples = signal((2.2, 0.1), (0.12, 0.02), (2.5, 0.1), (0.12, 0.01), (2.2, 0.1))
    samples = np.concatenate([samples, signal((1.0, 0.001))])
    found = segments(samples, 5.0)
    assert all(end - start <= 5.0 + 1e-9 for start, end in found)
    cuts = [end for _, end in found[:-1]]
    assert len(cuts) == 1
    assert any(abs(cut - place) < 0.08 for cut in cuts for place in (2.26, 4.88))


@pytest.mark.parametrize("seed", range(5))
def test_segments_are_in_order_short_enough_and_hold_all_speech(seed):
    rng = np.random.default_rng(seed)
    parts = [(float(rng.uniform(0.1, 4)), float(rng.choice([0.0005, 0.1]))) for _ in range(40)]
    samples = signal(*parts, seed=seed)
    found = segments(samples, 5.0)
    assert all(0 <= start < end <= len(samples) / RATE + 0.021 for start, end in found)
    assert all(a[1] <= b[0] + 1e-9 for a, b in pairwise(found))
    assert max(end - start for start, end in found) <= 5.0 + 1e-9
    begin = 0.0
    for seconds, level in parts:
        for moment in np.arange(begin + 0.05, begin + seconds - 0.05, 0.1) if level > 0.01 else ():
            assert any(start <= moment <= end for start, end in found), moment
        begin += seconds


def test_halves_are_bounded_even_where_all_is_alike():
    parts = split_at_quietest(np.zeros(1000), 0, 1000, 100)
    assert parts[0][0] == 0
    assert parts[-1][1] == 1000
    assert all(a[1] == b[0] for a, b in pairwise(parts))
    assert all(1 <= end - begin <= 100 for begin, end in parts)


def test_even_segments():
    assert even_segments(3.0, 3.0) == [(0.0, 3.0)]
    expected = [(0, 7 / 3), (7 / 3, 14 / 3), (14 / 3, 7)]
    np.testing.assert_allclose(even_segments(7.0, 3.0), expected)
