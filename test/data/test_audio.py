"""mome.data.audio."""

import struct

import kaldiio
import numpy as np
import pytest
import soundfile
from media import write_clip

from mome.data.audio import (
    NO_LENGTH,
    audio_seconds,
    file_of,
    fit_length,
    limit_peak,
    read_audio,
    read_samples,
    readable_samples,
    write_flac,
)
from mome.data.video import MediaError


def tone(seconds=1.0, rate=16000, hertz=440.0):
    return 0.5 * np.sin(2 * np.pi * hertz * np.arange(round(seconds * rate)) / rate)


@pytest.mark.parametrize("suffix", [".flac", ".wav"])
def test_written_audio_is_read_within_16_bits(tmp_path, suffix):
    path = tmp_path / f"a{suffix}"
    samples = np.random.default_rng(0).uniform(-1, 1, 5000).astype(np.float32)
    samples[:2] = 1, -1
    write_flac(path, samples)
    read = read_audio(path)
    assert read.dtype == np.float32
    assert soundfile.info(path).subtype == "PCM_16"
    assert np.abs(read - samples).max() <= 1.01 / 32768
    assert audio_seconds(path) == 5000 / 16000
    assert list(tmp_path.iterdir()) == [path]


def test_clipping_is_refused(tmp_path):
    loud = np.array([0.1, -2.0, 1.0], np.float32)
    with pytest.raises(ValueError, match=r"a\.flac: samples up to 2"):
        write_flac(tmp_path / "a.flac", loud)
    with pytest.raises(ValueError, match="samples up to nan"):
        write_flac(tmp_path / "a.flac", np.array([np.nan], np.float32))
    limited = limit_peak(loud)
    assert np.allclose(limited / limited[1], loud / loud[1])
    write_flac(tmp_path / "a.flac", limited)
    quiet = loud / 4
    assert limit_peak(quiet) is quiet
    full = np.array([32767 / 32768, -0.5], np.float32)  # what 16 bits hold
    assert limit_peak(full) is full
    assert limit_peak(np.array([1, -0.5], np.float32))[0] == full[0]
    assert limit_peak(np.array([0.5, -1.25], np.float32))[1] == -full[0]
    nothing = np.zeros(0, np.float32)
    assert limit_peak(nothing) is nothing


@pytest.mark.parametrize("rate", [8000, 22050, 44100, 48000])
def test_other_rates_and_channels(tmp_path, rate):
    path = tmp_path / "a.wav"
    left = tone(rate=rate)
    soundfile.write(path, np.stack([left, np.zeros_like(left)], 1), rate)
    read = read_audio(path)
    assert abs(len(read) - 16000) <= 1
    # Away from the ends, the mean of both channels is half the tone.
    assert np.abs(read[500:15500] - tone()[500:15500] / 2).max() < 2e-3


def test_sound_of_a_video(tmp_path, monkeypatch):
    path = tmp_path / "a.mp4"
    write_clip(path, num_frames=25, samples=tone())
    read = read_audio(path)
    assert abs(len(read) - 16000) <= 1024
    assert audio_seconds(path) == pytest.approx(1, abs=0.07)
    # AAC is lossy, but neither delays the sound nor changes its level.
    assert np.corrcoef(read[1000:15000], tone()[1000:15000])[0, 1] > 0.99
    assert np.std(read[1000:15000]) == pytest.approx(np.std(tone()), rel=0.03)
    # Its length is in the header, for which nothing is decoded.
    monkeypatch.setattr("mome.data.audio.decode", None)
    assert audio_seconds(path) == pytest.approx(1, abs=0.07)


def test_archive(tmp_path):
    samples = (tone() * 32767).astype(np.int16)
    with kaldiio.WriteHelper(f"ark,scp:{tmp_path}/a.ark,{tmp_path}/a.scp") as writer:
        writer("utt1", (16000, samples))
    path = (tmp_path / "a.scp").read_text().split()[1]
    assert np.allclose(read_audio(path), samples / 32768)
    assert file_of(path) == str(tmp_path / "a.ark")
    assert file_of("a.ark.wav") == "a.ark.wav"
    assert audio_seconds(path) == 1
    whole = (tmp_path / "a.ark").read_bytes()
    silent = whole.replace((16000).to_bytes(4, "little"), bytes(4))  # no samples a second
    (tmp_path / "b.ark").write_bytes(silent)
    for read in (audio_seconds, read_audio):
        with pytest.raises(MediaError, match="sound at 0 samples a second; fix its header"):
            read(f"{tmp_path}/b.ark:5")
    for offset in (4, 40, 10**6):
        with pytest.raises(MediaError, match=rf"a\.ark:{offset}: no sound at that place"):
            read_audio(f"{tmp_path}/a.ark:{offset}")


@pytest.mark.parametrize(
    "name", ["a.wav WAV", "a.wav WAVEX", "a.wav RF64", "a.aiff AIFF", "a.w64 W64", "a.flac FLAC"]
)
@pytest.mark.parametrize("share", [0.03, 0.5, 0.88])
def test_a_truncated_recording_is_noticed(tmp_path, name, share):
    """Of two seconds; libsndfile reads what is there without a word."""
    name, kind = name.split()
    path = tmp_path / name
    samples = np.tile(tone(), 2)
    soundfile.write(path, samples, 16000, format=kind)
    assert len(read_audio(path)) == 32000
    whole = path.read_bytes()
    path.write_bytes(whole[: round(share * len(whole))])
    wanted = (
        "corrupt audio"
        if kind == "FLAC"
        else rf"truncated file: {2 * share:.2f} of (1\.[89]|2\.0)\d s"
    )
    with pytest.raises(MediaError, match=rf"{name}: {wanted}"):
        read_audio(path)


@pytest.mark.parametrize("size", [64008, 65000, 0x7FFFF000, 0xFFFFFFFF])
def test_a_wav_with_a_wrong_size_in_its_header_is_read(tmp_path, size):
    """A few bytes more, as careless programs count, and what stands there after a pipe."""
    path = tmp_path / "a.wav"
    samples = np.tile(tone(), 2)
    soundfile.write(path, samples, 16000)
    whole = path.read_bytes()
    sizes = {name: struct.pack("<I", n) for name, n in (("data", 64000), ("RIFF", 64036))}
    for name, right in sizes.items():
        assert whole.count(name.encode() + right) == 1
        whole = whole.replace(name.encode() + right, name.encode() + struct.pack("<I", size))
    path.write_bytes(whole)
    assert np.abs(read_audio(path) - samples).max() < 1e-4


def with_length(flac: bytes, samples: int) -> bytes:
    """A FLAC file whose header says this length: the last 36 bits before the 16 of its MD5."""
    assert flac[:4] == b"fLaC"
    begin = 4 + 4 + 13  # the 4 lowest bits of this byte, and 4 bytes
    high = flac[begin] & 0xF0 | samples >> 32
    return (
        flac[:begin] + bytes([high]) + struct.pack(">I", samples & 0xFFFFFFFF) + flac[begin + 5 :]
    )


def test_flac_without_a_length_is_read(tmp_path):
    """As a program leaves it that writes into a pipe and cannot come back to the header."""
    path = tmp_path / "a.flac"
    samples = np.tile(tone(), 2)
    soundfile.write(path, samples, 16000)
    whole = path.read_bytes()
    assert with_length(whole, 32000) == whole
    path.write_bytes(with_length(whole, 0))
    assert soundfile.info(path).frames == NO_LENGTH
    assert np.abs(read_audio(path) - samples).max() < 1e-4
    assert audio_seconds(path) == 2
    assert readable_samples(path) is None


@pytest.mark.parametrize("length", [48000, 2**32 - 1, 2**36 - 1])
def test_flac_that_is_shorter_than_its_header_says_is_refused(tmp_path, length):
    """Without the memory for that length, which may be more than there is."""
    path = tmp_path / "a.flac"
    soundfile.write(path, np.tile(tone(), 2), 16000)
    path.write_bytes(with_length(path.read_bytes(), length))
    with pytest.raises(MediaError, match=r"a\.flac: (truncated file|corrupt audio)"):
        read_audio(path)


@pytest.mark.parametrize("block", [7001, 16000, 20000, 32000, 40000])
def test_sound_is_read_in_blocks(tmp_path, monkeypatch, block):
    monkeypatch.setattr("mome.data.audio.BLOCK", block)
    monkeypatch.setattr("mome.data.audio.MOST", 0)
    samples = np.stack([np.tile(tone(), 2), np.zeros(32000)], 1)
    soundfile.write(tmp_path / "a.wav", samples, 16000)
    assert np.abs(read_audio(tmp_path / "a.wav") - samples.mean(1)).max() < 1e-4


def test_errors_name_file_and_reason(tmp_path):
    silent = tmp_path / "silent.mp4"
    write_clip(silent, audio=False)
    broken = tmp_path / "broken.flac"
    write_flac(broken, tone().astype(np.float32))
    broken.write_bytes(broken.read_bytes()[:30])
    empty = tmp_path / "empty.wav"
    soundfile.write(empty, np.zeros(0), 16000)
    cut = tmp_path / "cut.mp4"
    write_clip(cut, num_frames=50)
    cut.write_bytes(cut.read_bytes()[: cut.stat().st_size // 2])
    for path, reason in (
        (silent, "no audio stream"),
        (broken, "corrupt audio"),
        (empty, "no samples"),
        (cut, "truncated"),
        ("sox a.wav - |", "a command"),
    ):
        with pytest.raises(MediaError, match=reason) as caught:
            read_audio(path)
        assert str(path) in str(caught.value)
    with pytest.raises(FileNotFoundError, match=r"none\.wav"):
        read_audio(tmp_path / "none.wav")
    with pytest.raises(MediaError, match="no audio stream"):
        audio_seconds(silent)


def test_what_is_no_file_of_one_channel_is_not_written(tmp_path):
    for shape in ((0,), (5, 2), (2, 5)):
        with pytest.raises(ValueError, match=rf"a\.wav: samples of shape \({shape[0]},.*, not \(N"):
            write_flac(tmp_path / "a.wav", np.zeros(shape, np.float32))
    with pytest.raises(ValueError, match=r"samples up to 1\.001 would be clipped"):
        write_flac(tmp_path / "a.wav", np.array([1.001], np.float32))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["none.wav", "none.mp4", "none.ark:5"])
def test_a_recording_that_is_not_there_is_named(tmp_path, name):
    for read in (read_audio, audio_seconds):
        with pytest.raises(FileNotFoundError, match=rf"{name.partition(':')[0]} does not exist"):
            read(tmp_path / name)
    with pytest.raises(MediaError, match=r"\|: a command; run it"):
        audio_seconds(f"sox {tmp_path / name} -t wav - |")


def test_the_reason_of_an_archive_is_told(tmp_path, monkeypatch):
    """In one line, and by the kind of the error where it says nothing."""
    (tmp_path / "a.ark").touch()
    for error, reason in ((OSError("a\n  line"), "a line"), (EOFError(), "EOFError")):

        def load(path, error=error):
            raise error

        monkeypatch.setattr(kaldiio, "load_mat", load)
        with pytest.raises(MediaError, match=rf"ark:0: no sound at that place .* \({reason}\)$"):
            read_audio(f"{tmp_path}/a.ark:0")


@pytest.mark.parametrize(
    ("rate", "read"), [(1999, False), (2000, True), (400_000, True), (400_001, False)]
)
def test_rates_of_recordings(tmp_path, rate, read):
    soundfile.write(tmp_path / "a.wav", np.full(rate // 100, 0.5), rate)
    if read:
        assert len(read_audio(tmp_path / "a.wav")) == np.ceil(rate // 100 * 16000 / rate)
    else:
        with pytest.raises(MediaError, match=f"sound at {rate} samples a second"):
            read_audio(tmp_path / "a.wav")


def test_a_wav_that_ends_after_its_header_has_no_sound(tmp_path):
    soundfile.write(tmp_path / "a.wav", tone(), 16000)
    (tmp_path / "a.wav").write_bytes((tmp_path / "a.wav").read_bytes()[:44])
    with pytest.raises(MediaError, match="the audio has no samples"):
        read_audio(tmp_path / "a.wav")


def test_parts_of_recordings(tmp_path):
    """Of WAV and FLAC at 16 kHz, whatever their capitals; channels are averaged."""
    samples = np.round(np.random.default_rng(0).uniform(-1, 1, (1000, 2)) * 32767) / 32768
    for name in ("a.wav", "A.FLAC"):
        soundfile.write(tmp_path / name, samples, 16000)
        assert readable_samples(tmp_path / name) == 1000
        assert readable_samples(tmp_path / name, 8000) is None
        for start, end in ((0, 300), (200, 999), (900, 1200)):
            part = read_samples(tmp_path / name, start, end - start)
            assert part.dtype == np.float32
            assert np.allclose(part, samples[start:end].mean(1), atol=1e-6)
    soundfile.write(tmp_path / "a.ogg", samples, 16000)
    (tmp_path / "b.wav").write_bytes(b"RIFF")
    for name in ("a.ogg", "b.wav", "none.wav"):
        assert readable_samples(tmp_path / name) is None
    with pytest.raises(MediaError, match=r"b\.wav: corrupt audio"):
        read_samples(tmp_path / "b.wav", 0, 10)
    soundfile.write(tmp_path / "nan.wav", np.array([0.0, np.nan]), 16000, subtype="FLOAT")
    assert read_samples(tmp_path / "nan.wav", 0, 1).tolist() == [0]
    for read in (read_audio, lambda path: read_samples(path, 1, 1)):
        with pytest.raises(MediaError, match=r"nan\.wav: the audio has samples that are not fini"):
            read(tmp_path / "nan.wav")


def test_fit_length():
    samples = np.arange(1, 6)
    assert list(fit_length(samples, 3)) == [1, 2, 3]
    assert list(fit_length(samples, 7)) == [1, 2, 3, 4, 5, 0, 0]
