"""mome.data.noise, mome.data.mixtures and mome.bin.make_noise."""

import argparse
import os
import re
import tracemalloc
from itertools import product
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from media import let_workers_crash

from mome.bin.make_noise import leave_out_flawed
from mome.bin.make_noise import main as noise_main
from mome.common.processes import AllCrash
from mome.data.audio import read_audio, write_flac
from mome.data.augment import cut_noise, snr_of
from mome.data.kaldi import read_scp, spk2utt_of, validate_data_dir, write_scp
from mome.data.mixtures import Mixture, make_mixture
from mome.data.noise import (
    Babble,
    flaw_of,
    mix_babble,
    noisex_recordings,
    plan_babble,
    speech_shaped,
    split_musan,
    split_noisex,
    split_utterances,
)
from mome.data.preprocessor import SNRS as TRAINING_SNRS
from mome.data.preprocessor import AVSRPreprocessor, read_noise
from mome.data.test_sets import read_list

SNRS = (-5, 0, 5, 10, 15)
FORCE = ["--force", "true"]


def make_set(folder, speakers, per_speaker, seed, level=0.1):
    """A dump folder of noise-like speech, loud enough in part to be clipped by a naive mixture."""
    rng = np.random.default_rng(seed)
    wavs, durations = {}, {}
    for speaker, number in product(speakers, range(per_speaker)):
        utterance = f"{speaker}_{number:05d}"
        length = int(rng.integers(12, 25)) * 640
        samples = rng.normal(0, level * rng.uniform(0.2, 2), length).clip(-0.99, 0.99)
        wavs[utterance] = str(folder / "audio" / f"{utterance}.flac")
        write_flac(wavs[utterance], samples.astype(np.float32))
        durations[utterance] = length / 16000
    write_scp(folder / "wav.scp", wavs)
    write_scp(folder / "lip.scp", {u: f"/nowhere/{u}.mp4" for u in wavs})
    write_scp(folder / "utt2dur", durations)
    utt2spk = {u: u.split("_")[0] for u in wavs}
    write_scp(folder / "utt2spk", utt2spk)
    write_scp(folder / "spk2utt", spk2utt_of(utt2spk))
    write_scp(folder / "text", dict.fromkeys(wavs, "place red"))


@pytest.fixture(scope="module")
def dump(tmp_path_factory):
    """Train and test sets with their noise, made by the command."""
    root = tmp_path_factory.mktemp("noise")
    make_set(root / "dump" / "train", [f"s{i:02d}" for i in range(8)], 5, seed=0)
    make_set(root / "dump" / "test", ["t1", "t2"], 3, seed=1, level=0.09)
    for kind, number in product(("noise", "music"), range(4)):
        folder = root / "musan" / kind / "sub folder"
        folder.mkdir(parents=True, exist_ok=True)
        samples = np.random.default_rng(number).uniform(-0.5, 0.5, 8000)
        samples = samples if kind == "noise" else samples[::-1]
        soundfile.write(folder / f"{number}.wav", samples, 16000)
    noise_main(arguments(root))
    return root / "dump"


def arguments(root):
    options = {
        "--dump": root / "dump",
        "--musan": root / "musan",
        "--seconds": 4,
        "--num_train": 3,
        "--num_test": 2,
    }
    return [str(word) for pair in options.items() for word in pair]


def test_split_of_utterances_is_disjoint_and_complete():
    spk2utt = {f"s{i}": [f"s{i}_{j}" for j in range(i + 1)] for i in range(10)}
    split = split_utterances(spk2utt, 0.2, np.random.default_rng(0))
    train = {u for utterances in split["train"].values() for u in utterances}
    test = {u for utterances in split["test"].values() for u in utterances}
    assert not train & test
    assert train | test == {u for us in spk2utt.values() for u in us}
    for speaker, utterances in spk2utt.items():
        if len(utterances) > 1:
            assert split["train"][speaker]
            assert split["test"][speaker]
    assert len(split["test"]["s9"]) == 2


def test_babble_has_different_speakers_and_fills_its_length():
    spk2utt = {f"s{i:02d}": [f"s{i:02d}_{j}" for j in range(4)] for i in range(40)}
    wavs = {u: f"{u}.flac" for us in spk2utt.values() for u in us}
    durations = dict.fromkeys(wavs, 0.7)
    babble = plan_babble("b", spk2utt, wavs, durations, 30, 5.0, np.random.default_rng(0))
    speakers = [{file.split("_")[0] for file in files} for files in babble.speakers]
    assert all(len(names) == 1 for names in speakers)
    assert len(set().union(*speakers)) == len(babble.speakers) == 30
    assert all(len(files) == 8 for files in babble.speakers)  # 8 x 0.7 s
    # Every utterance of a speaker once before any is repeated.
    assert all(len(set(files[:4])) == len(set(files[4:])) == 4 for files in babble.speakers)
    few = plan_babble("b", spk2utt, wavs, durations, 100, 1.0, np.random.default_rng(0))
    assert len(few.speakers) == 40


def test_speakers_of_one_utterance_are_divided_by_the_share():
    spk2utt = {f"s{i:04d}": [f"s{i:04d}_0"] for i in range(2000)}
    split = split_utterances(spk2utt, 0.2, np.random.default_rng(0))
    assert not split["train"].keys() & split["test"].keys()
    assert len(split["train"]) + len(split["test"]) == 2000
    assert abs(len(split["test"]) - 400) < 5 * np.sqrt(2000 * 0.2 * 0.8)  # standard deviations
    # A large share leaves training one, and the speakers are drawn anew by another seed.
    split = split_utterances({"a": ["a_0", "a_1", "a_2"]}, 0.9, np.random.default_rng(0))
    assert (len(split["train"]["a"]), len(split["test"]["a"])) == (1, 2)


def turned(table):
    """The same table in another order of speakers and of their utterances."""
    return {speaker: utterances[::-1] for speaker, utterances in reversed(table.items())}


def test_a_split_follows_its_share_and_its_seed_and_no_order_of_tables():
    """A fifth of one to ten utterances, rounded, but one at least."""
    spk2utt = {f"s{n}": [f"s{n}_{i}" for i in range(n)] for n in range(1, 11)}
    drawn = set()
    for seed in range(50):
        split = split_utterances(spk2utt, 0.2, np.random.default_rng(seed))
        assert split == split_utterances(turned(spk2utt), 0.2, np.random.default_rng(seed))
        counts = [len(split["test"][f"s{n}"]) for n in range(2, 11)]
        assert counts == [1, 1, 1, 1, 1, 1, 2, 2, 2]
        drawn.update(split["test"]["s10"])
    assert drawn == set(spk2utt["s10"])


@pytest.mark.parametrize("speakers", [1, 3])
def test_voices_are_as_long_as_they_need_to_be_in_an_order_of_the_seed(speakers):
    """Two seconds are eight utterances of a quarter, of which each speaker has six."""
    spk2utt = {f"s{n}": [f"s{n}_{i}" for i in range(6)] for n in range(speakers)}
    wavs = {u: f"{u}.flac" for us in spk2utt.values() for u in us}
    durations = dict.fromkeys(wavs, 0.25)

    def plan(table, seed):
        return plan_babble("b", table, wavs, durations, 3, 2.0, np.random.default_rng(seed))

    first = plan(spk2utt, 0)
    assert [len(files) for files in first.speakers] == [8, 8, 8]
    assert all(set(files) == set(files[:6]) for files in first.speakers)
    # At no moment do two say the same.
    assert all(len(set(slot)) == 3 for slot in zip(*first.speakers, strict=True))
    assert plan(turned(spk2utt), 0) == first
    starts = {plan(spk2utt, seed).speakers[0][0] for seed in range(50)}
    assert starts == {f"s0_{i}.flac" for i in range(6)}
    many = plan_babble("b", spk2utt, wavs, durations, 9, 2.0, np.random.default_rng(0))
    assert len(many.speakers) == (6 if speakers == 1 else 3)


def test_two_recordings_are_one_of_each_in_any_order_of_the_folder(tmp_path, monkeypatch):
    for name in ("noise/1.wav", "noise/2.wav", "music/1.wav", "music/2.wav", "music/3.wav"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    found, listed = [], Path.rglob
    for turn in (False, True):
        order = {"reverse": turn}
        monkeypatch.setattr(Path, "rglob", lambda *args, o=order: iter(sorted(listed(*args), **o)))
        found.append(split_musan(tmp_path, 0.4, np.random.default_rng(0)))
    assert [len(found[0]["noise"][split]) for split in ("train", "test")] == [1, 1]
    assert found[0] == found[1]


@pytest.mark.parametrize("seed", [0, 1])
def test_babble_of_few_voices_is_not_clipped(tmp_path, seed):
    """Clicks have peaks of a hundred times their level, far above full scale."""
    clicks = np.zeros(16000, np.float32)
    clicks[[100 + seed, 9000]] = 0.5, -0.25
    write_flac(tmp_path / "clicks.flac", clicks)
    mixed = mix_babble(Babble("b", ((str(tmp_path / "clicks.flac"),),), 2.0))
    assert mixed.dtype == np.float32
    assert np.abs(mixed).max() == pytest.approx(32767 / 32768)
    assert mixed[:16000] / mixed[100 + seed] == pytest.approx(clicks / 0.5, abs=1e-4)
    assert np.array_equal(mixed[:16000], mixed[16000:])  # repeated to its length


def test_a_voice_goes_through_its_files_and_begins_anew(tmp_path):
    rng = np.random.default_rng(0)
    parts = [rng.normal(0, 0.1, length).astype(np.float32) for length in (300, 200, 250)]
    paths = tuple(str(tmp_path / f"{number}.flac") for number in range(3))
    for path, part in zip(paths, parts, strict=True):
        write_flac(path, part)
    mixed = mix_babble(Babble("b", (paths,), 0.1))
    voice = np.concatenate([*parts, *parts, parts[0][:100]])
    assert mixed == pytest.approx(voice * 0.05 / np.sqrt(np.mean(voice**2)), abs=1e-4)


def test_recordings_of_a_folder_are_divided_and_named_by_their_place(tmp_path):
    for name in ("a b/1.wav", "a\u00a0b/2.FLAC", "3.wav", "4.wav", "5.wav", "notes.txt"):
        (tmp_path / "noise" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "noise" / name).touch()
    names = {"noise-a_b-1", "noise-a_b-2", "noise-3", "noise-4", "noise-5"}
    drawn = set()
    for seed in range(20):
        found = split_musan(tmp_path, 0.4, np.random.default_rng(seed))
        assert list(found) == ["noise"]
        train, test = found["noise"]["train"], found["noise"]["test"]
        assert (len(train), len(test)) == (3, 2)
        assert train.keys() | test.keys() == names
        assert (train | test)["noise-a_b-2"] == str(tmp_path / "noise/a\u00a0b/2.FLAC")
        drawn |= test.keys()
    assert drawn == names
    one, most = (split_musan(tmp_path, s, np.random.default_rng(0)) for s in (0.01, 0.99))
    assert (len(one["noise"]["test"]), len(most["noise"]["train"])) == (1, 1)
    (tmp_path / "noise/3.flac").touch()
    with pytest.raises(
        ValueError, match=r"3\.flac and .*3\.wav would both be called noise-3: rename"
    ):
        split_musan(tmp_path, 0.4, np.random.default_rng(0))


def test_why_a_recording_cannot_serve_as_noise(tmp_path):
    sound, silent, damaged = (tmp_path / f"{name}.wav" for name in ("sound", "silent", "damaged"))
    soundfile.write(sound, np.full(100, 0.1), 16000)
    soundfile.write(silent, np.zeros(100), 16000)
    damaged.write_bytes(b"RIFF")
    assert flaw_of(str(sound)) == ""
    assert flaw_of(str(silent)) == f"{silent}: the noise is empty or silent; leave it out"
    assert flaw_of(str(damaged)).startswith(f"{damaged}: corrupt audio")
    none = str(tmp_path / "none.wav")
    assert flaw_of(none) == f"{none}: {none} does not exist"


def test_babble_is_the_sum_of_equally_loud_voices(tmp_path):
    """A loud and a faint voice, orthogonal to each other: both are in the mixture alike."""
    time = np.arange(16000) / 16000
    voices = {hertz: np.sin(2 * np.pi * hertz * time) for hertz in (200, 300)}
    paths = []
    for gain, (hertz, voice) in zip((0.9, 0.01), voices.items(), strict=True):
        paths.append(str(tmp_path / f"{hertz}.flac"))
        write_flac(paths[-1], (gain * voice).astype(np.float32))
    mixed = mix_babble(Babble("b", tuple((path,) for path in paths), 1.0))
    parts = [2 * np.mean(mixed * voice) for voice in voices.values()]
    # Sines of this amplitude have together a root mean square of 0.05.
    assert parts == pytest.approx([0.05, 0.05], rel=0.01)
    assert np.sqrt(np.mean(mixed**2)) == pytest.approx(0.05, rel=0.01)
    write_flac(tmp_path / "silent.flac", np.zeros(16000, np.float32))
    with pytest.raises(ValueError, match=r"silent\.flac .* silent"):
        mix_babble(Babble("b", ((paths[0],), (str(tmp_path / "silent.flac"),)), 1.0))


def test_noise_lists(dump):
    train, test = read_scp(dump / "noise" / "train.scp"), read_scp(dump / "noise" / "test.scp")
    assert sum(name.startswith("babble") for name in train) == 3
    assert sum(name.startswith("babble") for name in test) == 2
    for kind in ("noise", "music"):
        assert sum(name.startswith(kind) for name in train) == 3
        assert sum(name.startswith(kind) for name in test) == 1
    assert not set(train.values()) & set(test.values())
    assert read_scp(dump / "noise" / "test_music.scp").items() <= test.items()
    for path in (*train.values(), *test.values()):
        assert len(read_audio(path)) in (8000, 64000)


@pytest.mark.parametrize("kind", ["babble", "noise", "music"])
def test_noisy_copies_have_their_snr(dump, kind):
    scaled = 0
    for u, path in read_scp(dump / "test" / "wav.scp").items():
        speech = read_audio(path).astype(np.float64)
        mixed = {}
        for snr in SNRS:
            folder = dump / f"test_{kind}_snr{snr}"
            noisy = read_scp(folder / "wav.scp")[u]
            assert str(folder) in noisy
            mixed[snr] = read_audio(noisy).astype(np.float64)
            assert mixed[snr].shape == speech.shape
            assert np.abs(mixed[snr]).max() < 1
        # At 15 dB nothing had to be scaled, so that what is not speech is noise; the others are the
        # same speech and the same noise.
        noise = mixed[15] - speech
        for snr in SNRS:
            parts = np.stack([speech, noise], 1)
            gains, residual, *_ = np.linalg.lstsq(parts, mixed[snr], rcond=None)
            assert residual[0] / len(speech) < 1e-7  # 16-bit samples
            levels = np.mean((gains * parts) ** 2, axis=0)
            assert 10 * np.log10(levels[0] / levels[1]) == pytest.approx(snr, abs=0.05)
            scaled += gains[0] < 0.99
    assert scaled > 0


def test_noisy_folders_are_valid(dump):
    for kind, snr in product(("babble", "noise", "music"), SNRS):
        folder = dump / f"test_{kind}_snr{snr}"
        assert validate_data_dir(folder) == []
        for name in ("text", "utt2spk", "spk2utt", "utt2dur", "lip.scp"):
            assert (folder / name).read_bytes() == (dump / "test" / name).read_bytes()


def everything(dump):
    return {p.relative_to(dump): p.read_bytes() for p in dump.rglob("*.flac")}


def test_seed_decides_and_finished_files_are_kept(dump, tmp_path, capsys):
    root = dump.parent
    before = everything(dump)
    noise_main(arguments(root))
    assert "0 new" in capsys.readouterr().out
    assert everything(dump) == before
    path = dump / "test_babble_snr0" / "audio" / "t1" / "t1_00000.flac"
    path.write_bytes(path.read_bytes()[:60])
    noise_main([*arguments(root), "--nj", "2"])
    assert "1 new" in capsys.readouterr().out
    assert everything(dump) == before
    with pytest.raises(
        SystemExit, match=r"noise/\.done was made with other settings:\n  seed: was"
    ):
        noise_main([*arguments(root), "--seed", "1"])
    assert everything(dump) == before
    noise_main([*arguments(root), "--seed", "1", *FORCE])
    after = everything(dump)
    assert after.keys() == before.keys()
    made = [p for p in before if "snr" in str(p) or "babble-" in str(p)]
    assert all(after[p] != before[p] for p in made)
    assert made
    noise_main([*arguments(root), *FORCE])
    assert everything(dump) == before


def test_what_is_there_is_added_to_but_not_taken_from(dump, capsys):
    root = dump.parent
    lists = {path: path.read_bytes() for path in (dump / "noise").glob("*.scp")}
    listed = read_list(dump)
    assert set(listed) >= {f"test_{k}_snr{n}" for k in ("babble", "music") for n in SNRS}
    noise_main([*arguments(root), "--snrs", "20.0", "--test_kinds", "babble"])
    assert "6 utterances at 1 SNRs, 6 new" in capsys.readouterr().out
    assert read_list(dump).keys() - listed.keys() == {"test_babble_snr20"}
    without = arguments(root)
    place = without.index("--musan")
    del without[place : place + 2]
    with pytest.raises(SystemExit, match=r"musan: was .*musan, is empty"):
        noise_main(without)
    assert {path: path.read_bytes() for path in lists} == lists
    with pytest.raises(SystemExit):
        noise_main([*arguments(root), "--snrs", "loud"])
    assert "'loud' is not an SNR in dB" in capsys.readouterr().err


def test_recordings_that_are_added_to_musan_are_seen(tmp_path, capsys):
    """They would be drawn in the place of others, and divided in another way."""
    make_set(tmp_path / "dump/train", ["s1", "s2"], 3, seed=0)
    make_set(tmp_path / "dump/test", ["t1"], 1, seed=1)
    rng = np.random.default_rng(0)
    for number in range(3):
        path = tmp_path / "musan/noise/a" / f"{number}.wav"
        path.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(path, rng.uniform(-0.5, 0.5, 8000), 16000)
    command = [*arguments(tmp_path), "--snrs", "0"]
    noise_main(command)
    (path.parent / "notes.txt").touch()
    capsys.readouterr()
    noise_main(command)
    assert "test with noise: 1 utterances at 1 SNRs, 0 new" in capsys.readouterr().out
    added = path.with_name("3.wav")
    soundfile.write(added, rng.uniform(-0.5, 0.5, 8000), 16000)
    with pytest.raises(SystemExit, match=r"noise/\.done was .*\n  musan_recordings: was \d+, is"):
        noise_main(command)
    added.unlink()
    # What an earlier version has made does not say it, and holds.
    for file in ("noise/.done", "test_sets.json", "test_noise_snr0/settings.json"):
        path = tmp_path / "dump" / file
        content, count = re.subn(r'\s*"musan_recordings": \d+,', "", path.read_text())
        assert count == 1
        path.write_text(content)
    noise_main(command)
    assert "test with noise: 1 utterances at 1 SNRs, 0 new" in capsys.readouterr().out
    noise_main([*command, *FORCE])
    assert "musan_recordings" in (tmp_path / "dump/noise/.done").read_text()


def test_noisy_copies_follow_their_noise(dump, capsys):
    root = dump.parent
    before = everything(dump)
    noise_main([*arguments(root), "--speakers", "2", "--test_kinds", "babble", "--nj", "2", *FORCE])
    after = everything(dump)
    assert "test with babble: 6 utterances at 5 SNRs, 30 new" in capsys.readouterr().out
    changed = {p for p in before if after[p] != before[p]}
    assert changed == {p for p in before if "babble" in str(p) and "snr20" not in str(p)}
    noise_main([*arguments(root), "--test_kinds", "babble", *FORCE])
    assert "music" not in capsys.readouterr().out  # not asked for, and not made anew
    assert everything(dump) == before
    noise_main([*arguments(root), *FORCE])  # of equal settings
    assert "test with music: 6 utterances at 5 SNRs, 30 new" in capsys.readouterr().out
    assert everything(dump) == before


def training(dump, **options):
    """The noise that training adds to a fixed utterance: id -> (speech, noise)."""
    torch.manual_seed(0)  # augmentation follows it
    options = {"audio_mask_seconds": 0, "video_mask_frames": 0, **options}
    options.setdefault("noise_scp", str(dump / "noise" / "train.scp"))
    prepare = AVSRPreprocessor(train=True, **options)
    speech = np.random.default_rng(1).normal(0, 0.1, 6400).astype(np.float32)
    return lambda uid: (speech, prepare(uid, {"speech": speech})["speech"].astype(float) - speech)


def source(noise, recordings):
    """The recording that a noise was cut from, found by its correlation at every offset."""
    peaks = {}
    for name, path in recordings.items():
        whole = read_audio(path).astype(np.float64)
        whole = np.tile(whole, 2)  # a short one is repeated
        size = len(whole) + len(noise)
        correlation = np.fft.irfft(np.fft.rfft(whole, size) * np.fft.rfft(noise, size).conj(), size)
        squares = np.concatenate([[0], np.cumsum(whole**2)])
        levels = np.sqrt(squares[len(noise) :] - squares[: -len(noise)])
        peaks[name] = np.max(correlation[: len(levels)] / levels) / np.linalg.norm(noise)
    name = max(peaks, key=peaks.get)
    assert peaks[name] > 0.999
    return name


@pytest.mark.parametrize("kind", ["babble", "noise", "music"])
@pytest.mark.parametrize("snr", [-5, 0, 5, 10, 15, 20])
def test_training_noise_has_its_snr_and_its_kind(dump, kind, snr):
    recordings = read_scp(dump / "noise" / "train.scp")
    prepare = training(dump, noise_kinds=[kind], noise_snrs=[snr])
    for uid in ("a", "b"):
        speech, noise = prepare(uid)
        ratio = 10 * np.log10(np.sum(speech.astype(float) ** 2) / np.sum(noise**2))
        assert ratio == pytest.approx(snr, abs=0.01)
        assert source(noise, recordings).startswith(f"{kind}-")


def test_training_draws_snrs_and_kinds_with_equal_chance(dump, tmp_path):
    recordings = read_scp(dump / "noise" / "train.scp")
    scp = tmp_path / "train.scp"
    scp.write_text(
        "".join(f"{n} {p}\n" for n, p in recordings.items() if "babble" in n)
        + next(f"{n} {p}\n" for n, p in recordings.items() if "music" in n)
    )
    prepare = training(dump, noise_scp=str(scp))
    snrs, kinds = [], []
    for number in range(700):
        speech, noise = prepare(f"u{number}")
        if not np.any(noise):
            snrs.append(None)
            continue
        snrs.append(round(10 * np.log10(np.sum(speech.astype(float) ** 2) / np.sum(noise**2))))
        if number < 200:
            kinds.append(source(noise, recordings).partition("-")[0])
    counts = [snrs.count(snr) for snr in TRAINING_SNRS]
    assert sum(counts) == 700
    # Five standard deviations of a binomial with 700 draws and a chance of 1/7.
    assert max(abs(count - 100) for count in counts) < 5 * np.sqrt(700 / 7 * 6 / 7)
    share = kinds.count("music") / len(kinds)
    assert abs(share - 0.5) < 5 * np.sqrt(0.25 / len(kinds))


@pytest.mark.parametrize("kind", ["long.flac", "long.wav", "stereo.wav", "short.flac", "slow.wav"])
def test_a_part_is_read_that_is_the_same_as_of_the_whole(tmp_path, kind):
    """Workers of training kept whole recordings, which for MUSAN is a gigabyte each."""
    rng = np.random.default_rng(0)
    seconds, rate = (0.5 if "short" in kind else 60), (8000 if "slow" in kind else 16000)
    samples = rng.normal(0, 0.1, (round(seconds * rate), 2 if "stereo" in kind else 1))
    path = str(tmp_path / kind)
    soundfile.write(path, samples, rate)
    for seed in range(5):
        expected = cut_noise(read_audio(path), 16000, np.random.default_rng(seed))
        tracemalloc.start()
        part = read_noise(path, 16000, np.random.default_rng(seed))
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert part.dtype == np.float32
        np.testing.assert_array_equal(part, expected)
        assert most < 1_000_000 or "slow" in kind
    # A part without sound is taken elsewhere, as of the whole, and silence throughout is named.
    samples[: len(samples) - 10] = 0
    soundfile.write(path, samples, rate)
    expected = cut_noise(read_audio(path), 16000, np.random.default_rng(0))
    np.testing.assert_array_equal(read_noise(path, 16000, np.random.default_rng(0)), expected)
    soundfile.write(path, 0 * samples, rate)
    with pytest.raises(ValueError, match=r"/\w+\.\w+: the noise is empty or silent; leave"):
        read_noise(path, 16000, np.random.default_rng(0))


def test_the_snr_in_training_is_that_of_the_masked_speech(dump):
    clean = training(dump, noise_snrs=[None], audio_mask_seconds=0.4)
    noisy = training(dump, noise_snrs=[5], audio_mask_seconds=0.4)
    for uid in ("a", "b", "c"):
        speech, mask = clean(uid)
        _, both = noisy(uid)
        masked, noise = speech + mask, both - mask
        assert 10 * np.log10(np.sum(masked**2) / np.sum(noise**2)) == pytest.approx(5, abs=0.01)
    assert np.any(mask)


def test_no_noise_outside_training_and_missing_kinds_are_named(dump, tmp_path):
    scp = str(dump / "noise" / "train.scp")
    speech = np.ones(100, np.float32)
    evaluation = AVSRPreprocessor(train=False, noise_scp=scp)
    assert np.array_equal(evaluation("u", {"speech": speech})["speech"], speech)
    with pytest.raises(ValueError, match=r"lists no speech, only babble, music, noise; run stage"):
        AVSRPreprocessor(train=True, noise_scp=scp, noise_kinds=["speech", "babble"])
    (tmp_path / "empty.scp").write_text("")
    with pytest.raises(ValueError, match="lists no noise"):
        AVSRPreprocessor(train=True, noise_scp=str(tmp_path / "empty.scp"))
    with pytest.raises(SystemExit, match="no recordings of speech; give --musan"):
        noise_main([*arguments(dump.parent), "--test_kinds", "speech"])


def test_one_speaker_babbles_alone_or_others_do(tmp_path, caplog, monkeypatch):
    make_set(tmp_path / "train", ["s1"], 10, seed=0)
    make_set(tmp_path / "test", ["t1"], 1, seed=0)
    command = ["--dump", str(tmp_path), "--seconds", "2", "--speakers", "4"]
    noise_main(command)
    assert "has one speaker, s1: all voices of train babble are that speaker's" in caplog.text
    own = read_scp(tmp_path / "noise" / "test.scp")
    utterances = {f"s1-{n}": str(n) for n in range(10)}
    split = split_utterances({"s1": list(utterances)}, 0.2, np.random.default_rng(0))
    plans = {
        name: plan_babble(
            name,
            split[name],
            utterances,
            dict.fromkeys(utterances, 1.0),
            4,
            2.0,
            np.random.default_rng(0),
        )
        for name in ("train", "test")
    }
    files = {name: {f for v in plan.speakers for f in v} for name, plan in plans.items()}
    assert not files["train"] & files["test"]
    # At no moment do two voices say the same; of the two utterances for tests there are two voices.
    assert [len(plan.speakers) for plan in plans.values()] == [4, 2]
    for plan in plans.values():
        assert all(len(set(slot)) == len(slot) for slot in zip(*plan.speakers, strict=True))
    # Other settings are noticed, and others' voices give other babble.
    make_set(tmp_path / "others", ["o1", "o2"], 3, seed=5)
    command += ["--babble_from", str(tmp_path / "others")]
    with pytest.raises(SystemExit, match="babble_from"):
        noise_main(command)
    before = Path(own["babble-test-0000"]).read_bytes()
    # Another recipe's folder names its files as they are found from that recipe.
    wavs = read_scp(tmp_path / "others" / "wav.scp")
    relative = {u: str(Path(wav).relative_to(tmp_path)) for u, wav in wavs.items()}
    write_scp(tmp_path / "others" / "wav.scp", relative)
    # The same names in the working directory are this recipe's own audio, and another's babble.
    make_set(tmp_path / "here" / "others", ["o1", "o2"], 3, seed=6)
    monkeypatch.chdir(tmp_path / "here")
    noise_main([*command, *FORCE])
    others = Path(own["babble-test-0000"]).read_bytes()
    assert others != before
    monkeypatch.chdir(tmp_path)
    noise_main([*command, *FORCE])
    assert Path(own["babble-test-0000"]).read_bytes() == others
    with pytest.raises(SystemExit, match=r"nothing/utt2spk does not exist: babble needs a folder"):
        noise_main([*command[:-1], str(tmp_path / "nothing")])


def babble_of(dump):
    """Contents of all babble of tests, and of the noisy test clips, by path below the dump."""
    files = [
        *dump.glob("noise/babble/babble-test-*.flac"),
        *dump.glob("test_babble_snr*/**/*.flac"),
    ]
    return {path.relative_to(dump): path.read_bytes() for path in files}


def test_training_sets_of_any_size_are_tested_in_the_same_babble(tmp_path):
    """As --subset 30h and 433h of LRS3: other training sets, the same validation and test sets."""
    speakers = [f"s{i:02d}" for i in range(6)]
    heard = {}
    for hours, count in (("30h", 3), ("433h", 6)):
        dump = tmp_path / hours
        make_set(dump / f"train_{hours}", speakers[:count], 3, seed=count)
        make_set(dump / "valid", ["v1", "v2", "v3"], 3, seed=7)
        make_set(dump / "test", ["t1", "t2"], 2, seed=8)
        command = ["--dump", str(dump), "--train_set", f"train_{hours}", "--seconds", "2"]
        command += ["--num_train", "1", "--num_test", "2", "--snrs", "-5", "0"]
        noise_main([*command, "--test_babble_from", str(dump / "valid")])
        heard[hours] = babble_of(dump)
        listed = read_list(dump)["test_babble_snr0"]
        assert (listed["test_babble_from"], listed["train_set"]) == ("valid", f"train_{hours}")
        # Training has babble of its own voices, all of them.
        trained = [path.read_bytes() for path in dump.glob("noise/babble/babble-train-*.flac")]
        assert len(trained) == 1
        assert not set(trained) & set(heard[hours].values())
        # Without the option the babble would be that of the training set, and this is noticed.
        with pytest.raises(SystemExit, match="test_babble_from: was valid, is not given"):
            noise_main(command)
        noise_main([*command, *FORCE])
        heard[hours, "own"] = babble_of(dump)
        # Other validation clips are other voices.
        noise_main([*command, "--test_babble_from", str(dump / "valid"), *FORCE])
        assert babble_of(dump) == heard[hours]
        make_set(dump / "valid", ["v1", "v2", "v4"], 3, seed=7)
        with pytest.raises(SystemExit, match="test_recordings"):
            noise_main([*command, "--test_babble_from", str(dump / "valid")])
    assert len(heard["30h"]) == 2 + 2 * 4
    assert heard["30h"] == heard["433h"]
    assert heard["30h", "own"].keys() == heard["433h", "own"].keys()
    assert all(heard["30h", "own"][path] != heard["433h", "own"][path] for path in heard["30h"])
    with pytest.raises(SystemExit, match=r"/valid/utt2spk does not exist: babble needs a folder"):
        noise_main([*command, "--test_babble_from", str(tmp_path / "valid")])
    same = str(dump / "train_433h")
    with pytest.raises(SystemExit, match=r"18 utterances in common, such as s00_00000: tests must"):
        noise_main([*command, "--test_babble_from", same, *FORCE])


@pytest.fixture
def noisex(tmp_path):
    """A recording at NOISEX-92's rate: 400 Hz for 64 s, then 3 kHz for 16 s."""
    time = np.arange(19980 * 80) / 19980
    samples = 0.3 * np.sin(2 * np.pi * np.where(time < 64, 400, 3000) * time)
    (tmp_path / "noisex").mkdir()
    soundfile.write(tmp_path / "noisex" / "babble.wav", samples, 19980)
    return tmp_path / "noisex"


def tone(samples):
    """Frequency in Hz of the strongest component."""
    return np.abs(np.fft.rfft(samples)).argmax() * 16000 / len(samples)


def test_noisex_is_cut_between_training_and_test(tmp_path, noisex, capsys):
    make_set(tmp_path / "train", ["s1", "s2"], 5, seed=0)
    make_set(tmp_path / "test", ["t1"], 2, seed=0)
    command = ["--dump", str(tmp_path), "--seconds", "1", "--snrs", "0"]
    noise_main([*command, "--noisex", str(noisex / "babble.wav")])
    parts = {}
    for split, seconds, hertz in (("train", 64, 400), ("test", 16, 3000)):
        path = read_scp(tmp_path / "noise" / f"{split}_noisex.scp")["noisex-babble"]
        assert read_scp(tmp_path / "noise" / f"{split}.scp")["noisex-babble"] == path
        samples = read_audio(path)
        assert len(samples) / 16000 == pytest.approx(seconds, abs=1e-3)
        assert tone(samples) == pytest.approx(hertz, abs=1)
        parts[split] = Path(path)
    clean = read_audio(read_scp(tmp_path / "test" / "wav.scp")["t1_00000"])
    noisy = read_audio(read_scp(tmp_path / "test_noisex_snr0" / "wav.scp")["t1_00000"])
    assert tone(noisy - clean * (noisy @ clean) / (clean @ clean)) == pytest.approx(3000, abs=20)
    # A rerun keeps what is there, also from the folder; another recording is noticed.
    before = parts["test"].stat().st_mtime_ns
    noise_main([*command, "--noisex", str(noisex)])
    assert parts["test"].stat().st_mtime_ns == before
    soundfile.write(noisex / "babble.wav", np.random.default_rng(0).normal(0, 0.1, 1400000), 19980)
    with pytest.raises(SystemExit, match="noisex"):
        noise_main([*command, "--noisex", str(noisex)])
    noise_main([*command, "--noisex", str(noisex), *FORCE])
    assert parts["test"].stat().st_mtime_ns > before
    lists = {path: path.read_bytes() for path in (tmp_path / "noise").glob("*.scp")}
    with pytest.raises(SystemExit, match=r"noisex: was .*, is not given"):
        noise_main(command)
    assert {path: path.read_bytes() for path in lists} == lists
    # Without it, forced, neither its list nor its noisy sets stay behind.
    noise_main([*command, *FORCE])
    assert sorted(read_list(tmp_path)) == ["test_babble_snr0"]
    assert not list((tmp_path / "noise").glob("*_noisex.scp"))


@pytest.mark.parametrize(("seconds", "enough"), [(59.9, False), (60, True)])
def test_a_noisex_of_a_minute_is_enough(tmp_path, seconds, enough):
    path = tmp_path / "babble.wav"
    soundfile.write(path, np.zeros(round(16000 * seconds), np.int16), 16000)
    if enough:
        assert noisex_recordings(path) == noisex_recordings(tmp_path) == [path]
    else:
        with pytest.raises(ValueError, match=r"babble\.wav lasts 59\.9 s; 60 s are needed"):
            noisex_recordings(path)


def test_a_noisex_above_full_scale_is_scaled_as_a_whole(tmp_path):
    """Both parts by the same factor, so that neither is clipped or louder than it was."""
    samples = np.random.default_rng(0).uniform(-0.5, 0.5, 1000)
    samples[[100, 900]] = 2.5, -1.5
    soundfile.write(tmp_path / "loud.wav", samples, 16000, subtype="FLOAT")
    paths = split_noisex([tmp_path / "loud.wav"], 0.25, tmp_path)
    parts = [read_audio(paths[split]["noisex-loud"]) for split in ("train", "test")]
    assert [len(part) for part in parts] == [750, 250]
    assert np.abs(np.concatenate(parts) - samples / 2.5).max() < 2 / 32768
    soundfile.write(tmp_path / "half.wav", np.arange(1000) // 500 * 0.5, 16000)
    with pytest.raises(ValueError, match=r"half\.wav: its part for train is silent"):
        split_noisex([tmp_path / "half.wav"], 0.5, tmp_path)
    for share, split in ((0.0, "test"), (1.0, "train")):
        with pytest.raises(ValueError, match=f"its part for {split} is silent"):
            split_noisex([tmp_path / "loud.wav"], share, tmp_path / split)


@pytest.mark.parametrize(
    ("file", "message"),
    [
        (None, "nothing.wav does not exist"),
        ("folder", r"holds no \.wav or \.flac"),
        ("babble.mat", r"babble.mat is no audio that can be read"),
        ("babble.raw", r"babble.raw is no audio that can be read"),
        ("slow.wav", "slow.wav has 8000 Hz"),
        ("short.wav", "short.wav lasts 12.0 s"),
        ("names", "recordings have the same name"),
        ("silent.wav", r"silent.wav: its part for (train|test) is silent"),
    ],
)
def test_a_noisex_that_cannot_serve_is_named(tmp_path, file, message):
    make_set(tmp_path / "train", ["s1", "s2"], 3, seed=0)
    path = tmp_path / (file or "nothing.wav")
    if file == "folder":
        path.mkdir()
    elif file in ("babble.mat", "babble.raw"):
        path.write_bytes(b"MATLAB 5.0 MAT-file" * 50)
    elif file == "names":
        path.mkdir()
        for name in ("a b.wav", "a_b.wav"):
            soundfile.write(path / name, np.ones(10), 19980)
    elif file:
        rate = 8000 if file == "slow.wav" else 19980
        seconds = 12 if file == "short.wav" else 61
        soundfile.write(path, np.full(rate * seconds, 0.1 * (file != "silent.wav")), rate)
    with pytest.raises(SystemExit, match=message):
        noise_main(["--dump", str(tmp_path), "--test_sets", "--noisex", str(path)])


def test_a_word_among_snrs_is_named(capsys):
    for wrong in ("loud", True, float("nan")):
        with pytest.raises(ValueError, match=f"{wrong!r} is no SNR in dB"):
            AVSRPreprocessor(train=True, noise_snrs=[-5, wrong, None])
    with pytest.raises(ValueError, match="noise_snrs is empty"):
        AVSRPreprocessor(train=True, noise_snrs=[])
    with pytest.raises(SystemExit):
        noise_main(["--dump", "/nowhere", "--snrs", "5", "loud"])
    assert "loud" in capsys.readouterr().err


def test_warnings_and_errors(tmp_path, caplog):
    make_set(tmp_path / "train", ["s1", "s2", "s3"], 2, seed=0)
    make_set(tmp_path / "test", ["t1"], 1, seed=0)
    noise_main(["--dump", str(tmp_path), "--seconds", "1"])
    assert "has 3 speakers" in caplog.text
    assert "fewer than --speakers 30" in caplog.text
    write_flac(tmp_path / "test" / "audio" / "t1_00000.flac", np.zeros(12800, np.float32))
    with pytest.raises(RuntimeError, match=r"t1_00000: .* is silent"):
        noise_main(["--dump", str(tmp_path), "--seconds", "1"])
    silent, speech = tmp_path / "silent.wav", str(tmp_path / "speech.flac")
    soundfile.write(silent, np.zeros(16000), 16000)
    write_flac(speech, np.full(16000, 0.1, np.float32))
    mixture = Mixture("u", speech, ((0.0, str(tmp_path / "u.flac")),))
    with pytest.raises(ValueError, match=r"silent\.wav: the noise is empty or silent"):
        make_mixture(mixture, (str(silent),), 0)
    with pytest.raises(ValueError, match="has no folder noise, speech, music"):
        split_musan(tmp_path / "test", 0.2, np.random.default_rng(0))
    (tmp_path / "test" / "music").mkdir()
    with pytest.raises(ValueError, match="0 recordings cannot be split"):
        split_musan(tmp_path / "test", 0.2, np.random.default_rng(0))


def make_musan(root: Path) -> dict[str, str]:
    """Ten recordings of noise, of which two are silent or no sound; those that serve, by id."""
    folder = root / "musan" / "noise"
    folder.mkdir(parents=True)
    for number in range(10):
        samples = np.random.default_rng(number).uniform(-0.5, 0.5, 8000)
        soundfile.write(folder / f"{number}.wav", samples, 16000)
    soundfile.write(folder / "3.wav", np.zeros(8000), 16000)
    (folder / "7.wav").write_bytes(b"RIFF" + 100 * b"x")
    return {f"noise-{n}": str(folder / f"{n}.wav") for n in range(10) if n not in (3, 7)}


def test_noise_that_is_damaged_or_silent_is_left_out_and_counted(tmp_path, capsys):
    """Before, it stopped the stage where it was drawn, or else a training in the midst of it."""
    make_set(tmp_path / "dump/train", ["s1", "s2", "s3"], 2, seed=0)
    make_set(tmp_path / "dump/test", ["t1"], 2, seed=0)
    serve = make_musan(tmp_path)
    words = [*arguments(tmp_path), "--speakers", "2", "--test_kinds", "noise", "--snrs", "0"]
    noise_main(words)
    folder = tmp_path / "dump/noise"
    lists = [read_scp(folder / f"{split}_noise.scp") for split in ("train", "test")]
    assert lists[0] | lists[1] == serve
    said = capsys.readouterr().out
    assert f"{tmp_path / 'musan'}: 2 of 10 recordings are left out\n" in said
    assert "  excluded 1: the noise is empty or silent; leave it out\n" in said
    excluded = read_scp(folder / "excluded")
    assert excluded.keys() == {"noise-3", "noise-7"}
    assert all(f"musan/noise/{name[-1]}.wav: " in reason for name, reason in excluded.items())
    # What is sound is not read again, unless it has changed; and then it is other noise.
    Path(serve["noise-0"]).write_bytes(b"RIFF")
    os.utime(serve["noise-1"], (1e9, 1e9))
    with pytest.raises(SystemExit, match="left_out"):
        noise_main(words)
    assert read_scp(folder / "excluded").keys() == {"noise-0", "noise-3", "noise-7"}
    assert "3 of 10 recordings are left out" in capsys.readouterr().out
    for path in serve.values():
        Path(path).write_bytes(b"RIFF")
    with pytest.raises(SystemExit, match=r"musan/noise: no recording .* see .*noise/excluded"):
        noise_main(words)


def test_noise_that_crashes_its_decoder_is_left_out_unless_all_does(tmp_path, monkeypatch):
    """Also in a later call, which tries it alone again."""
    make_musan(tmp_path)
    args = argparse.Namespace(musan=tmp_path / "musan", nj=1, parallel=None)

    def left_out() -> set[str]:
        kinds = split_musan(args.musan, 0.2, np.random.default_rng(0))
        return leave_out_flawed(kinds, tmp_path / "noise", args)["noise"]

    let_workers_crash(tmp_path, monkeypatch, "/0.wav")
    for _ in range(2):
        assert left_out() == {"noise-0", "noise-3", "noise-7"}
    let_workers_crash(tmp_path, monkeypatch, ".wav")
    said = r"every process crashes or is killed, with 3 item\(s\) and with"
    with pytest.raises(AllCrash, match=said):
        left_out()


@pytest.mark.parametrize("content", ["absent", "damaged", "silent", "silent and long"])
def test_noise_that_cannot_serve_is_named_where_it_is_drawn(tmp_path, content):
    """Of what stage 3 found sound, and has changed since."""
    path = tmp_path / "a.wav"
    if content == "damaged":
        path.write_bytes(b"RIFF" + 100 * b"x")
    elif content != "absent":
        soundfile.write(path, np.zeros(100 if content == "silent" else 9000), 16000)
    with pytest.raises(ValueError, match=r"a\.wav: .*leave it out by --stage 3"):
        read_noise(str(path), 8000, np.random.default_rng(0))
    write_flac(tmp_path / "speech.flac", np.full(8000, 0.1, np.float32))
    mixture = Mixture("a_1", str(tmp_path / "speech.flac"), ((0.0, str(tmp_path / "b.flac")),))
    with pytest.raises((OSError, ValueError), match=r"a\.wav"):
        make_mixture(mixture, (str(path),), 0)


@pytest.mark.parametrize("snr", [-5.0, 20.0])
def test_faint_speech_has_its_snr_as_well(tmp_path, snr):
    """Speech of three steps of 16 bits: rounding alone would be as loud as noise at 20 dB."""
    rng = np.random.default_rng(0)
    write_flac(tmp_path / "faint.flac", (rng.integers(-3, 4, 16000) / 32768).astype(np.float32))
    write_flac(tmp_path / "noise.flac", rng.normal(0, 0.1, 16000).astype(np.float32))
    output = str(tmp_path / "mixed.flac")
    mixture = Mixture("u", str(tmp_path / "faint.flac"), ((snr, output),))
    (measured,) = make_mixture(mixture, (str(tmp_path / "noise.flac"),), seed=0)
    assert measured == pytest.approx(snr, abs=0.05)
    # Speech and noise are independent, so that their shares follow from what the mixture is like.
    speech, mixed = read_audio(tmp_path / "faint.flac"), read_audio(output)
    gain = np.vdot(mixed, speech) / np.vdot(speech, speech)
    assert snr_of(speech, mixed / gain) == pytest.approx(snr, abs=0.3)
    assert np.abs(mixed).max() <= 1


@pytest.mark.parametrize("snr", [-5.0, 20.0])
@pytest.mark.parametrize("kind", ["click", "steady"])
def test_speech_of_one_step_has_its_snr_as_well(tmp_path, kind, snr):
    """Stage 2 keeps it; noise that is fainter than half a step is rounded away at its level."""
    speech = np.full(16000, 1 / 32768, np.float32)
    if kind == "click":
        speech[1:] = 0
    write_flac(tmp_path / "faint.flac", speech)
    noise = np.random.default_rng(0).normal(0, 0.1, 16000).astype(np.float32)
    write_flac(tmp_path / "noise.flac", noise)
    output = str(tmp_path / "mixed.flac")
    mixture = Mixture("u", str(tmp_path / "faint.flac"), ((snr, output),))
    (measured,) = make_mixture(mixture, (str(tmp_path / "noise.flac"),), seed=0)
    assert measured == pytest.approx(snr, abs=0.05)
    assert snr_of(speech, speech) == np.inf
    mixed = read_audio(output)
    gain = np.vdot(mixed, speech) / np.vdot(speech, speech)
    assert snr_of(speech, mixed / gain) == pytest.approx(snr, abs=1)


def test_no_file_has_another_snr_at_any_moment(tmp_path, monkeypatch):
    """Of faint speech, the mixture at its own level is a file of the right length, too."""
    rng = np.random.default_rng(0)
    faint = (rng.integers(-3, 4, 16000) / 32768).astype(np.float32)
    write_flac(tmp_path / "faint.flac", faint)
    write_flac(tmp_path / "noise.flac", rng.normal(0, 0.1, 16000).astype(np.float32))
    output = tmp_path / "mixed.flac"
    mixture = Mixture("u", str(tmp_path / "faint.flac"), ((20.0, str(output)),))
    seen = []

    def replace(partial, target):
        os.replace(partial, target)
        seen.append(Path(target))
        raise KeyboardInterrupt  # killed as soon as there is a file

    monkeypatch.setattr(Path, "replace", replace)
    with pytest.raises(KeyboardInterrupt):
        make_mixture(mixture, (str(tmp_path / "noise.flac"),), seed=0)
    assert seen == [output]
    mixed = read_audio(output)
    gain = np.vdot(mixed, faint) / np.vdot(faint, faint)
    assert snr_of(faint, mixed / gain) == pytest.approx(20, abs=0.3)


def test_speech_shaped_noise_has_the_spectrum_and_the_level_of_speech_but_not_its_pauses():
    from scipy.signal import lfilter, welch

    rng = np.random.default_rng(0)
    speech = lfilter([1], [1, -1.6, 0.9], rng.standard_normal(48000))
    speech[16000:32000] = 0
    noise = speech_shaped(speech, rng)
    assert noise.dtype == np.float32
    assert noise.shape == speech.shape
    level = np.sqrt(np.mean(np.square(speech)))
    assert np.sqrt(np.mean(np.square(noise))) == pytest.approx(level, rel=1e-3)
    thirds = [np.sqrt(np.mean(np.square(part))) for part in np.split(noise, 3)]
    assert thirds == pytest.approx([level] * 3, rel=0.2)
    spoken, given = (welch(signal, 16000, nperseg=256)[1] for signal in (speech, noise))
    inside = spoken > 0.01 * spoken.max()
    assert 10 * np.log10(given / spoken)[inside] == pytest.approx(0, abs=3)
    with pytest.raises(ValueError, match="has no spectrum"):
        speech_shaped(np.zeros(1000), rng)


def test_noise_shaped_like_a_tone_is_as_broad_as_a_window_of_32_ms():
    """The spectrum of Hann's window is 0 from two lines on, 31.25 Hz each, and a quarter at one.

    Between lines it is interpolated linearly, so that 2.7 % of the power are from 50 Hz on.
    """
    from scipy.signal import periodogram

    tone = np.sin(2 * np.pi * 1000 * np.arange(160000) / 16000)
    noise = speech_shaped(tone, np.random.default_rng(0)).astype(float)
    frequencies, density = periodogram(noise, 16000)
    away = np.abs(frequencies - 1000)
    shares = [density[away > hertz].sum() / density.sum() for hertz in (50, 63)]
    assert shares == pytest.approx([0.027, 0], abs=0.008)
    # What is shorter than a window has the spectrum of the whole.
    short = speech_shaped(tone[:160], np.random.default_rng(0))
    assert np.sqrt(np.mean(np.square(short))) == pytest.approx(np.sqrt(0.5), rel=1e-3)
