"""Where speech is, by its level, and which windows of a rate hold some of it."""

import numpy as np
import pytest
import torch

from mome.data.activity import speech_activity
from mome.data.preprocessor import AVSRPreprocessor
from mome.models.projector_ctc import speaks


def said(*spans: tuple[int, int], values: int = 75, floor: float = 0.002) -> np.ndarray:
    """Noise of ``values`` 25ths of a second, fifty times as loud within the spans."""
    rng = np.random.default_rng(0)
    gain = np.full(values, floor)
    for first, last in spans:
        gain[first:last] = 50 * floor
    return (np.repeat(gain, 640) * rng.standard_normal(640 * values)).astype(np.float32)


def test_speech_is_what_stands_above_the_floor_and_two_values_around_it():
    active = np.flatnonzero(speech_activity(said((20, 40))))
    assert active.tolist() == list(range(18, 42))


def test_a_short_closure_is_speech_and_a_pause_is_not():
    active = speech_activity(said((20, 30), (34, 40), (60, 65)))
    assert active[18:42].all()
    assert not active[42:58].any()


@pytest.mark.parametrize("gain", [0.001, 1.0, 30.0])
def test_the_level_as_a_whole_does_not_matter(gain):
    speech = said((20, 40))
    np.testing.assert_array_equal(speech_activity(gain * speech), speech_activity(speech))


@pytest.mark.parametrize("samples", [1, 639, 640, 641, 5000])
def test_every_25th_of_a_second_has_a_value(samples):
    for speech in (said((0, 8), values=8)[:samples], np.zeros(samples, np.float32)):
        active = speech_activity(speech)
        assert active.shape == (-(-samples // 640),)
        assert active.dtype == np.int64
        assert active.all()  # what never changes may as well be speech


def test_digital_silence_is_no_floor_so_deep_that_breath_would_be_speech():
    speech = said((20, 40))
    speech[: 10 * 640] = 0
    active = np.flatnonzero(speech_activity(speech))
    assert active.tolist() == list(range(18, 42))


def test_a_click_does_not_turn_speech_into_silence():
    speech = said((20, 50))
    speech[60 * 640 : 61 * 640] *= 1500
    assert speech_activity(speech)[18:52].all()


def test_it_is_of_the_speech_before_noise_and_in_training_alone(tmp_path):
    import soundfile

    rng = np.random.default_rng(1)
    soundfile.write(tmp_path / "noise.wav", 0.3 * rng.standard_normal(64000), 16000)
    (tmp_path / "noise.scp").write_text(f"noise-1 {tmp_path}/noise.wav\n")
    options = {"noise_scp": str(tmp_path / "noise.scp"), "noise_snrs": [-20], "activity": True}
    speech = said((20, 40))
    given = AVSRPreprocessor(train=True, **options)("a", {"speech": speech})
    assert np.abs(given["speech"][:640]).max() > 0.05  # there is noise where nobody speaks
    np.testing.assert_array_equal(given["activity"], speech_activity(speech))
    assert "activity" not in AVSRPreprocessor(train=False, **options)("a", {"speech": speech})
    assert "activity" not in AVSRPreprocessor(train=True)("a", {"speech": speech})


@pytest.mark.parametrize(("rate", "per_second"), [(4, 50), (16, 50), (1, 50), (2, 25), (5, 25)])
def test_a_window_speaks_if_any_moment_of_it_does(rate, per_second):
    rng = np.random.default_rng(rate)
    activity = torch.tensor(rng.random((3, 77)) < 0.2).long()
    activity[1, 50:] = -1  # padding
    windows = -(-77 * per_second // (25 * rate)) + 1
    got = speaks(activity, windows, rate / per_second)
    for item, row in enumerate(activity):
        for window in range(windows):
            # Milliseconds, one by one.
            span = range(
                1000 * window * rate // per_second, 1000 * (window + 1) * rate // per_second
            )
            moments = [ms // 40 for ms in span if ms // 40 < 77]
            assert bool(got[item, window]) == any(row[m] == 1 for m in moments)
