"""mome.data.mixtures: which copies are made, at which level, and which are finished."""

import os
from pathlib import Path

import kaldiio
import numpy as np
import pytest
import soundfile

from mome.data import mixtures
from mome.data.audio import read_audio, write_flac
from mome.data.mixtures import Mixture, make_mixture

# One that floating-point seconds do not give back: LENGTH / 16000 * 16000 is not LENGTH.
LENGTH = 1001


@pytest.fixture
def made(tmp_path) -> tuple[Mixture, str, Path]:
    """A mixture, its noise, and where it goes."""
    rng = np.random.default_rng(0)
    for name in ("speech", "noise"):
        write_flac(tmp_path / f"{name}.flac", rng.normal(0, 0.1, LENGTH).astype(np.float32))
    output = tmp_path / "mixed.flac"
    mixture = Mixture("a_1", str(tmp_path / "speech.flac"), ((5.0, str(output)),))
    return mixture, str(tmp_path / "noise.flac"), output


def test_a_copy_is_finished_unless_it_is_older_or_of_another_length(made, tmp_path):
    """One of the very time of its sources is none that is older."""
    mixture, noise, output = made

    def measured(seconds=None):
        if seconds:
            os.utime(output, (seconds, seconds))
        return len(make_mixture(mixture, (noise,), 0))

    os.utime(mixture.speech, (1e9, 1e9))
    os.utime(noise, (1e9 + 5, 1e9 + 5))
    assert measured() == 1
    content = output.read_bytes()
    assert [measured(1e9 + shift) for shift in (6, 5, 4)] == [0, 0, 1]
    os.utime(mixture.speech, (1e9 + 7, 1e9 + 7))
    assert [measured(1e9 + shift) for shift in (7, 6)] == [0, 1]
    for other in (np.full(LENGTH - 1, 0.1, np.float32), np.full(LENGTH + 1, 0.1, np.float32)):
        write_flac(output, other)
        assert measured(2e9) == 1
    output.write_bytes(b"fLaC")
    assert measured(2e9) == 1
    assert output.read_bytes() == content
    # Of speech in an archive, it is the archive that may have changed.
    samples = np.full(LENGTH, 0.1, np.float32)
    kaldiio.save_ark(str(tmp_path / "a.ark"), {"a_1": (16000, np.int16(samples * 32768))})
    mixture = Mixture("a_1", f"{tmp_path}/a.ark:4", mixture.outputs)
    os.utime(tmp_path / "a.ark", (1e9, 1e9))
    assert [measured(1e9 + shift) for shift in (4, 5)] == [1, 0]


@pytest.mark.parametrize("sign", [-1, 1])
@pytest.mark.parametrize(
    ("errors", "levels"),
    [([0.049], 1), ([-0.049], 1), ([0.051, -0.049], 2), ([-0.051, 0.049], 2), ([0.2, 0.051], 0)],
)
def test_a_copy_that_misses_its_snr_is_made_louder(made, monkeypatch, errors, levels, sign):
    """By more than 0.05 dB: then at full scale, whatever the sign of its peak."""
    mixture, noise, output = made
    peak = np.full(LENGTH, 0.01, np.float32)
    peak[100] = sign * 0.4
    write_flac(noise, peak)
    real, scaled, left = mixtures._encode_mixture, [], list(errors)

    def encode(output, samples, mixed, speech):
        scaled.append(np.abs(samples).max())
        content, measured = real(output, samples, mixed, speech)
        assert measured == pytest.approx(5, abs=0.01)
        return content, 5.0 + left.pop(0)

    monkeypatch.setattr(mixtures, "_encode_mixture", encode)
    if levels:
        assert make_mixture(mixture, (noise,), 0) == [5.0 + errors[-1]]
        assert np.abs(read_audio(output)).max() == pytest.approx(scaled[-1], abs=1e-4)
        assert len(scaled) == levels
    else:
        with pytest.raises(ValueError, match=r"a_1: 5\.05 dB in .* in place of 5 dB: the speech"):
            make_mixture(mixture, (noise,), 0)
        assert not output.exists()
    assert scaled[1:] == [pytest.approx(32767 / 32768)] * (len(scaled) - 1)


def test_noise_is_drawn_by_the_seed_and_the_utterance_and_is_the_same_at_any_snr(tmp_path):
    write_flac(tmp_path / "speech.flac", np.full(LENGTH, 0.2, np.float32))
    noises = tuple(str(tmp_path / f"{number}.wav") for number in range(3))
    for number, path in enumerate(noises):
        # What remains of a mixture without its speech tells by its sign and size which one it is.
        soundfile.write(path, np.full(99, (-0.1, 0.1, 0.3)[number]), 16000)
    drawn: dict[str, list[int]] = {}
    for utterance in ("a_1", "a_2", "b_1", "b_2", "c_1", "c_2"):
        for seed in (0, 1):
            outputs = [(snr, str(tmp_path / f"{utterance}{seed}{snr}.flac")) for snr in (6, 3)]
            mixture = Mixture(utterance, str(tmp_path / "speech.flac"), tuple(outputs))
            assert make_mixture(mixture, noises, seed) == pytest.approx([6, 3], abs=0.05)
            found = {np.sign(np.mean(read_audio(path)) - 0.2) for _, path in outputs}
            assert len(found) == 1
            drawn.setdefault(utterance, []).append(int(found.pop()))
    by_seed = list(zip(*drawn.values(), strict=True))
    assert all(set(signs) == {-1, 1} for signs in by_seed)
    assert by_seed[0] != by_seed[1]
