"""Acoustic units: one a video frame, of all utterances, with bounded memory.

``MOME_TEST_DEVICE=cpu`` runs the test of a GPU on a CPU, to try it where there is none.
"""

import os
from pathlib import Path

import numpy as np
import pytest
import torch

from mome.bin import make_units
from mome.data.audio import write_flac
from mome.data.kaldi import read_scp, write_scp
from mome.encoders.whisper import WhisperEncoder

DEVICE = os.environ.get("MOME_TEST_DEVICE", "cuda")


def write_folder(folder: Path, lengths: list[int]) -> Path:
    """Utterances of so many video frames, the first half of each a tone and the rest noise."""
    rng = np.random.default_rng(len(lengths))
    wavs, frames = {}, {}
    for number, length in enumerate(lengths):
        # Not in the order of their lengths, nor of their names.
        name = f"u{(7 * number) % len(lengths)}"
        wave = 0.1 * rng.standard_normal(640 * length)
        half = 640 * (length // 2)
        wave[:half] = 0.3 * np.sin(2 * np.pi * 300 * np.arange(half) / 16000)
        wavs[name] = str(folder / f"{name}.flac")
        folder.mkdir(parents=True, exist_ok=True)
        write_flac(folder / f"{name}.flac", wave.astype(np.float32))
        frames[name] = length
    write_scp(folder / "wav.scp", wavs)
    write_scp(folder / "utt2num_frames", frames)
    return folder


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> list[Path]:
    root = tmp_path_factory.mktemp("units")
    return [
        write_folder(root / "train", [40, 25, 61, 30, 52, 28, 33, 47, 36, 25]),
        write_folder(root / "valid", [30, 44, 26]),
    ]


def units_of(folders: list[Path], output: Path, *options: str) -> dict[str, list[int]]:
    words = [*map(str, folders), "--output", str(output), "--batch_size", "3", *options]
    make_units.main(["--data", *words])
    found = {}
    for folder in folders:
        table = read_scp(output / f"{folder.name}.units")
        assert list(table) == list(read_scp(folder / "wav.scp"))
        for name, value in table.items():
            found[f"{folder.name}/{name}"] = [int(word) for word in value.split()]
    return found


def test_a_lack_of_memory_is_told_with_what_helps(folders, tmp_path, tiny_whisper, monkeypatch):
    def lacks(*args, **kwargs):
        return torch.empty(2**55)  # PyTorch's own error

    options = ["--whisper", tiny_whisper, "--num_units", "2"]
    with monkeypatch.context() as patch:
        patch.setattr(WhisperEncoder, "forward", lacks)
        said = r"^mome-make-units: error: .* utterances u\d, u\d, u\d: lower --batch_size"
        with pytest.raises(SystemExit, match=said):
            units_of(folders, tmp_path, *options)
    with monkeypatch.context() as patch:
        patch.setattr(make_units.MiniBatchKMeans, "fit", lambda *_: np.empty(2**55))
        with pytest.raises(SystemExit, match=r"memory while frames were clustered: lower --max_f"):
            units_of(folders, tmp_path, "--features", "mfcc")
    monkeypatch.setattr(WhisperEncoder, "to", lacks)
    with pytest.raises(SystemExit, match=r"out of memory while .* was loaded: end what"):
        units_of(folders, tmp_path, *options)


@pytest.mark.parametrize("max_frames", [60, 10_000])
def test_a_tone_and_noise_are_two_units(folders, tmp_path, max_frames):
    found = units_of(
        folders, tmp_path, "--features", "mfcc", "--num_units", "2", "--max_frames", str(max_frames)
    )
    for folder in folders:
        for name, length in read_scp(folder / "utt2num_frames").items():
            units = found[f"{folder.name}/{name}"]
            half = int(length) // 2
            assert len(units) == int(length)
            tone, noise = units[2 : half - 2], units[half + 2 : -2]
            assert len(set(tone)) == len(set(noise)) == 1
            assert set(tone) != set(noise)


def test_whisper_gives_a_unit_a_video_frame_whatever_else_is_in_the_batch(
    folders, tmp_path, tiny_whisper
):
    options = ["--whisper", tiny_whisper, "--num_units", "5"]
    found = units_of(folders, tmp_path / "a", *options)
    for folder in folders:
        for name, length in read_scp(folder / "utt2num_frames").items():
            assert len(found[f"{folder.name}/{name}"]) == int(length)
    alone = units_of(folders, tmp_path / "b", *options, "--batch_size", "1")
    same = [a == b for name in found for a, b in zip(found[name], alone[name], strict=True)]
    assert np.mean(same) > 0.99  # but for rounding at a border between two units


@pytest.fixture
def plain_float32():
    """Products of float32 without TF32, which keeps ten bits of each factor."""
    allowed = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    yield
    torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = allowed


@pytest.mark.skipif(DEVICE == "cuda" and not torch.cuda.is_available(), reason="there is no GPU")
@pytest.mark.usefixtures("plain_float32")
def test_a_gpu_gives_the_units_of_the_cpu(folders, tmp_path, tiny_whisper, monkeypatch):
    """In float32, so that what is clustered differs by rounding alone."""
    encode, devices = WhisperEncoder.forward, set()

    def forward(encoder, waves, lengths):
        devices.add(waves.device.type)
        return encode(encoder, waves, lengths)

    def in_float32(model, dtype):
        return WhisperEncoder(model=model, dtype="float32")

    monkeypatch.setattr(make_units, "WhisperEncoder", in_float32)
    monkeypatch.setattr(WhisperEncoder, "forward", forward)
    options = ["--whisper", tiny_whisper, "--num_units", "5"]
    expected = units_of(folders, tmp_path / "cpu", *options)
    assert devices == {"cpu"}
    devices.clear()
    found = units_of(folders, tmp_path / "gpu", *options, "--ngpu", "1")
    assert devices == {DEVICE}
    assert {name: len(units) for name, units in found.items()} == {
        name: len(units) for name, units in expected.items()
    }
    same = [a == b for name in found for a, b in zip(found[name], expected[name], strict=True)]
    assert np.mean(same) > 0.99  # but for rounding at a border between two units


def test_audio_is_read_once_and_only_what_the_clusters_take_is_kept(folders, tmp_path, monkeypatch):
    read, original = [], make_units.read_audio
    monkeypatch.setattr(make_units, "read_audio", lambda path: read.append(path) or original(path))
    units_of(folders, tmp_path, "--features", "mfcc", "--num_units", "2", "--max_frames", "60")
    everything = [path for folder in folders for path in read_scp(folder / "wav.scp").values()]
    assert sorted(read) == sorted(everything)
    lengths = make_units.lengths_of(folders[0])
    drawn = make_units.sample(lengths, 60, np.random.default_rng(0))
    total = sum(lengths[name] for name in drawn)
    assert 120 <= total < 120 + 61
    assert read[: len(drawn)] == [read_scp(folders[0] / "wav.scp")[name] for name in drawn]
    others = {tuple(make_units.sample(lengths, 60, np.random.default_rng(s))) for s in range(9)}
    assert len(others) > 3  # at random


def test_a_recording_shorter_than_a_frame_is_named(tmp_path):
    folder = write_folder(tmp_path / "train", [30, 25])
    write_flac(folder / "u1.flac", np.full(100, 0.1, np.float32))
    with pytest.raises(SystemExit, match=r"error: u1: .*u1.flac is shorter than one video frame"):
        units_of([folder], tmp_path / "out", "--features", "mfcc")
