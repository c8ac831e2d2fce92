"""mome.data.corrupt and mome.bin.corrupt_lips."""

from itertools import pairwise, product

import cv2
import numpy as np
import pytest
from media import head_motion, photograph
from scipy import ndimage

from mome.bin.corrupt_lips import main as corrupt_main
from mome.data.audio import write_flac
from mome.data.corrupt import CORRUPTIONS, STRENGTHS, corrupt, describe
from mome.data.kaldi import read_scp, spk2utt_of, validate_data_dir, write_scp
from mome.data.test_sets import read_list
from mome.data.video import read_lips, write_lips

SHARE = {"occlusion": (0.4, 0.6, 0.8), "drop": (0.2, 0.4, 0.6)}


def mouth(num_frames: int, start: int = 0) -> np.ndarray:
    """Grey crops (T, 96, 96) around the photograph's mouth, which moves."""
    grey = cv2.cvtColor(photograph(), cv2.COLOR_RGB2GRAY)
    frames = []
    for motion in head_motion(start + num_frames, 224)[start:]:
        motion[:, 2] -= motion @ [268, 296, 1] - 48
        frames.append(cv2.warpAffine(grey, motion, (96, 96), borderMode=cv2.BORDER_REPLICATE))
    return np.stack(frames)


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def psnr(first: np.ndarray, second: np.ndarray) -> float:
    error = np.mean((first.astype(np.float64) - second) ** 2)
    return 10 * np.log10(255**2 / error)


@pytest.mark.parametrize("kind", CORRUPTIONS)
def test_more_strength_is_less_signal_and_the_generator_decides(kind):
    frames = mouth(75)
    kept = frames.copy()
    levels = {strength: [] for strength in STRENGTHS}
    for strength, seed in product(STRENGTHS, range(8)):
        result = corrupt(frames, kind, strength, rng(seed))
        assert result.dtype == np.uint8
        assert result.shape == frames.shape
        assert np.array_equal(result, corrupt(frames, kind, strength, rng(seed)))
        levels[strength].append(psnr(frames, result))
        if kind != "blur":
            assert not np.array_equal(result, corrupt(frames, kind, strength, rng(seed + 100)))
    means = [np.mean(levels[strength]) for strength in STRENGTHS]
    assert means[0] > means[1] + 1
    assert means[1] > means[2] + 1
    assert np.array_equal(frames, kept)
    assert len({describe(kind, strength) for strength in STRENGTHS}) == 3


@pytest.mark.parametrize("kind", CORRUPTIONS)
@pytest.mark.parametrize("num_frames", [1, 2, 7])
def test_short_clips(kind, num_frames):
    frames = mouth(num_frames)
    for strength in STRENGTHS:
        assert corrupt(frames, kind, strength, rng()).shape == frames.shape


@pytest.mark.parametrize("strength", STRENGTHS)
def test_blur_keeps_what_a_lower_resolution_shows(strength):
    factor = 2**strength
    frames = rng().integers(0, 256, (4, 96, 96), dtype=np.uint8)
    result = corrupt(frames, "blur", strength, rng()).astype(float)
    # Averages over 3 x 3 of the remaining pixels stay, details below one are gone.
    side = 3 * factor
    coarse = [
        clip.reshape(4, 96 // side, side, 96 // side, side).mean((2, 4)).ravel()
        for clip in (frames, result)
    ]
    assert np.corrcoef(*coarse)[0, 1] > 0.8
    before, after = (np.abs(np.fft.fft2(clip - clip.mean())) ** 2 for clip in (frames, result))
    frequency = np.abs(np.fft.fftfreq(96))
    fine = np.maximum(*np.meshgrid(frequency, frequency)) > 1 / (1.5 * factor)
    assert after[:, fine].sum() < 0.01 * before[:, fine].sum()
    # Softer than scipy's Gaussian of half the factor alone, but not by more than twice that.
    energy = [
        np.var(ndimage.gaussian_filter(frames.astype(float), (0, sigma, sigma), mode="nearest"))
        for sigma in (factor / 2, factor)
    ]
    assert energy[1] < np.var(result) < energy[0]


@pytest.mark.parametrize("strength", STRENGTHS)
def test_darkness_has_the_light_and_the_noise_of_a_sensor(strength):
    """Light follows the stops; its variance is that of counted electrons (photon transfer)."""
    electrons = 2000 * (200 / 255) ** 2.2 / 4**strength
    result = corrupt(np.full((40, 96, 96), 200, np.uint8), "darkness", strength, rng())
    measured = 2000 * (result / 255) ** 2.2
    assert np.mean(measured) == pytest.approx(electrons, rel=0.02)
    assert np.var(measured) == pytest.approx(electrons + 2**2, rel=0.1)
    # Independent from pixel to pixel and from frame to frame.
    noise = measured - measured.mean()
    for other in (np.roll(noise, 1, 0), np.roll(noise, 1, 1), np.roll(noise, 1, 2)):
        assert abs(np.mean(noise * other)) < 0.02 * np.var(noise)


@pytest.mark.parametrize("strength", STRENGTHS)
def test_dropped_frames_are_the_last_that_came(strength):
    frames = np.arange(200, dtype=np.uint8)[:, None, None] + np.zeros((1, 4, 4), np.uint8)
    bursts = []
    for seed in range(20):
        shown = corrupt(frames, "drop", strength, rng(seed))[:, 0, 0]
        last, run, runs = 0, 0, []
        for time, frame in enumerate(shown):
            if frame == time:
                last, run = time, 0
            else:
                assert frame == last
                run += 1
                runs[-1:] = [run] if run > 1 else [*runs[-1:], run]
        assert sum(runs) == round(SHARE["drop"][strength - 1] * 199)
        bursts += runs
    assert np.mean(bursts) == pytest.approx(2 ** (strength + 1), rel=0.35)


@pytest.mark.parametrize("strength", STRENGTHS)
def test_a_patch_hides_the_mouth_for_part_of_the_time(strength):
    frames = np.full((100, 96, 96), 255, np.uint8)  # brighter than any patch
    diameter = (32, 48, 64)[strength - 1]
    areas = []
    for seed in range(20):
        hidden = corrupt(frames, "occlusion", strength, rng(seed)) != 255
        covered = hidden.any((1, 2))
        assert covered.sum() == round(SHARE["occlusion"][strength - 1] * 100)
        assert np.abs(np.diff(covered.astype(int))).sum() <= 8  # stretches, not flicker
        for patch in hidden[covered]:
            assert ndimage.label(patch)[1] == 1
            centre = ndimage.center_of_mass(patch)
            assert np.abs(np.subtract(centre, 47.5)).max() < 8 + 4 + diameter / 10
        assert hidden[covered][:, 40:56, 40:56].mean() > 0.5
        areas.append(hidden[covered].mean())
    assert np.mean(areas) * 96**2 == pytest.approx(np.pi / 4 * diameter**2, rel=0.15)


def test_a_patch_has_a_texture_and_moves_with_it():
    result = corrupt(np.zeros((50, 96, 96), np.uint8), "occlusion", 3, rng(1))
    shown = [frame for frame in result if frame.any()]
    inside = shown[0][ndimage.binary_erosion(shown[0] > 0, iterations=8)]
    assert inside.std() > 8
    moves = [
        cv2.phaseCorrelate(first.astype(np.float32), second.astype(np.float32))[0]
        for first, second in pairwise(shown)
    ]
    assert 0.05 < np.abs(moves).max() < 2  # pixels a frame


def test_unknown_corruptions_are_named():
    for kind, strength in (("fog", 1), ("blur", 4), ("blur", 0)):
        with pytest.raises(ValueError, match=r"known are blur, .* at 1, 2, 3"):
            corrupt(mouth(1), kind, strength, rng())


@pytest.fixture
def dump(tmp_path):
    """A prepared set of three clips."""
    folder = tmp_path / "test"
    lips = {f"s{i}_{i}": mouth(20 + 5 * i, 40 * i) for i in range(3)}
    for u, frames in lips.items():
        write_lips(folder / "lips" / f"{u}.mp4", frames)
        write_flac(folder / "audio" / f"{u}.flac", np.ones(640 * len(frames), np.float32) / 2)
    utt2spk = {u: u.partition("_")[0] for u in lips}
    write_scp(folder / "lip.scp", {u: folder / "lips" / f"{u}.mp4" for u in lips})
    write_scp(folder / "wav.scp", {u: folder / "audio" / f"{u}.flac" for u in lips})
    write_scp(folder / "text", dict.fromkeys(lips, "place red"))
    write_scp(folder / "utt2spk", utt2spk)
    write_scp(folder / "spk2utt", spk2utt_of(utt2spk))
    write_scp(folder / "utt2dur", {u: len(frames) / 25 for u, frames in lips.items()})
    write_scp(folder / "utt2num_frames", {u: len(frames) for u, frames in lips.items()})
    return tmp_path


def run(dump, *options):
    corrupt_main(["--dump", str(dump), *map(str, options)])


def crops(dump):
    return {p.relative_to(dump): p.read_bytes() for p in dump.glob("test_*/lips/*/*.mp4")}


def test_copies_have_other_lips_and_are_else_the_set(dump):
    run(dump)
    for kind, strength in product(CORRUPTIONS, STRENGTHS):
        folder = dump / f"test_{kind}{strength}"
        assert validate_data_dir(folder, check_media=True) == []
        for name in ("wav.scp", "text", "utt2spk", "spk2utt", "utt2dur", "utt2num_frames"):
            assert (folder / name).read_bytes() == (dump / "test" / name).read_bytes()
        lips = read_scp(folder / "lip.scp")
        for u, path in read_scp(dump / "test" / "lip.scp").items():
            assert str(folder) in lips[u]
            clean, stored = read_lips(path), read_lips(lips[u])
            wanted = corrupt(clean, kind, strength, rng([0, *f"{kind} {u}".encode()]))
            assert stored.shape == clean.shape
            # The codec costs less than the corruption.
            assert psnr(wanted, stored) > max(34, psnr(wanted, clean))


def test_finished_crops_are_kept_and_settings_count(dump, capsys):
    options = ["--kinds", "drop", "occlusion", "--strengths", 1, 3]
    run(dump, *options)
    assert "3 utterances in 4 copies, 12 crops new" in capsys.readouterr().out
    before = crops(dump)
    run(dump, *options)
    assert "0 crops new" in capsys.readouterr().out
    path = dump / "test_drop3/lips/s1/s1_1.mp4"
    path.write_bytes(path.read_bytes()[:500])
    run(dump, *options, "--nj", 2)
    assert "1 crops new" in capsys.readouterr().out
    assert crops(dump) == before
    with pytest.raises(
        SystemExit, match=r"test_drop1 was made with other settings:\n  seed: was 0, is 1"
    ):
        run(dump, *options, "--seed", 1)
    assert crops(dump) == before
    run(dump, *options, "--seed", 1, "--force", "true")
    after = crops(dump)
    assert after.keys() == before.keys()
    assert all(after[p] != before[p] for p in before if "occlusion" in str(p))
    assert any(after[p] != before[p] for p in before if "drop" in str(p))
    run(dump, *options, "--force", "true")
    assert crops(dump) == before
    capsys.readouterr()
    run(dump, *options, "--force", "true")  # of equal settings
    assert "12 crops new" in capsys.readouterr().out
    assert crops(dump) == before
    assert list(read_list(dump)) == [
        "test_drop1",
        "test_drop3",
        "test_occlusion1",
        "test_occlusion3",
    ]


def test_a_set_that_does_not_fit_its_crops_is_named(dump):
    write_lips(dump / "test/lips/s1_1.mp4", mouth(9))
    with pytest.raises(RuntimeError, match=r"s1_1: .*9 frames, utt2num_frames says 25"):
        run(dump, "--kinds", "blur")
