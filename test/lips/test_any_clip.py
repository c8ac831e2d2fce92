"""mome.bin.prepare_media on whatever corpora hold: damage, streams that lack, silence, scenes."""

import os
from functools import cache
from pathlib import Path

import cv2
import numpy as np
import pytest
import soundfile
from media import let_workers_crash, quick_options, talking_head, write_clip

from mome.bin import prepare_media
from mome.data.audio import read_audio
from mome.data.kaldi import read_scp, validate_data_dir, write_scp
from mome.data.video import read_lips, video_info, write_lips
from mome.lips import preparation
from mome.lips.crop import MOUTH
from mome.lips.extract import BLACK, FaceLost, crop_lips, find_jumps, read_frames
from mome.lips.landmarks import Face, FaceTracker, main_tracks

ROOT = Path(__file__).resolve().parents[2]
DOWNLOADS = Path(os.environ.get("MOME_DOWNLOADS", ROOT / "downloads"))
MODEL = DOWNLOADS / "dlib" / "shape_predictor_68_face_landmarks.dat"


@pytest.fixture(scope="module")
def tracker() -> FaceTracker:
    return FaceTracker(MODEL)


def grey(frames):
    return [cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY) for frame in frames]


def data_folder(data: Path, videos: dict[str, Path], wavs: dict[str, Path] | None = None) -> Path:
    names = {**videos, **(wavs or {})}
    speakers = {u: u.split("_")[0] for u in names}
    if videos:
        write_scp(data / "video.scp", videos)
    if wavs:
        write_scp(data / "wav.scp", wavs)
    write_scp(data / "utt2spk", speakers)
    write_scp(data / "text", dict.fromkeys(names, "place red"))
    return data


def prepare(data, dump, *options):
    arguments = ["--data", data, "--dump", dump, *quick_options(), *options]
    prepare_media.main([str(argument) for argument in arguments])


def test_clips_of_other_sources_are_made_anew(tmp_path):
    """Also if the other file is older than what was made from the first."""
    frames = talking_head(12, 224)
    clips = {name: tmp_path / f"{name}.mp4" for name in ("a_0", "a_1", "a_2", "other")}
    for number, path in enumerate(clips.values()):
        tone = 0.3 * np.sin(np.arange(7680) * (0.1 + 0.1 * number))
        write_clip(path, np.roll(frames, 3 * number, axis=0), samples=tone)
        os.utime(path, (1e9 + number, 1e9 + number))
    other = clips.pop("other")
    data, dump = data_folder(tmp_path / "data", clips), tmp_path / "dump"
    prepare(data, dump)
    clips["a_1"] = other
    content = clips["a_2"].read_bytes()
    clips["a_2"].write_bytes(other.read_bytes())
    os.utime(clips["a_2"], (1e9, 1e9))
    before = {path: path.stat().st_mtime_ns for path in dump.glob("*/a/*")}
    prepare(data_folder(data, clips), dump)
    changed = {path.stem for path, time in before.items() if path.stat().st_mtime_ns != time}
    assert changed == {"a_1", "a_2"}
    prepare(data, tmp_path / "expected")
    for path in before:
        assert path.read_bytes() == (tmp_path / "expected" / path.relative_to(dump)).read_bytes()
    # The record is there before the work, so that a run that ends early is not trusted either.
    clips["a_2"].write_bytes(content[:2000])
    with pytest.raises(SystemExit, match="1 of 3 utterances are excluded"):
        prepare(data, dump)
    clips["a_2"].write_bytes(content)
    os.utime(clips["a_2"], (1e9, 1e9))
    prepare(data, dump)
    tone = read_audio(read_scp(dump / "wav.scp")["a_2"])
    assert np.argmax(np.abs(np.fft.rfft(tone))) == pytest.approx(0.3 * 7680 / 2 / np.pi, abs=2)


KINDS = [
    ("mp4", "libx264", "aac"),
    ("mov", "mjpeg", "pcm_s16le"),
    ("avi", "mpeg4", "libmp3lame"),
    ("mkv", "libx264", "flac"),
    ("ts", "mpeg2video", "mp2"),
    ("flv", "libx264", "aac"),
]


def test_no_damaged_byte_stops_the_stage(tmp_path):
    """Single bytes in any place of any container: a clip is prepared, or excluded with a reason."""
    rng = np.random.default_rng(0)
    videos = {}
    frames = talking_head(6, 96)
    for container, video, audio in KINDS:
        path = tmp_path / f"whole.{container}"
        write_clip(path, frames, codecs=(video, audio))
        content = np.frombuffer(path.read_bytes(), np.uint8)
        # Headers and indices, where a byte means most, lie at both ends.
        size = len(content)
        places = [*rng.integers(0, min(size, 1500), 9), *rng.integers(max(0, size - 600), size, 4)]
        places += [*rng.integers(0, size, 3)]
        for number, place in enumerate(places):
            damaged = content.copy()
            damaged[place] ^= rng.integers(1, 256)
            name = f"{container}_{number:02d}"
            videos[name] = tmp_path / f"{name}.{container}"
            videos[name].write_bytes(damaged.tobytes())
    data = data_folder(tmp_path / "data", videos)
    prepare(data, tmp_path / "dump", "--max_excluded", "1", "--max_lost", "1")
    excluded = read_scp(tmp_path / "dump/excluded")
    kept = read_scp(tmp_path / "dump/lip.scp")
    assert kept.keys() | excluded.keys() == videos.keys()
    assert all(str(videos[name]) in reason for name, reason in excluded.items())
    assert len(kept) > 15
    assert len(excluded) > 15
    assert validate_data_dir(tmp_path / "dump", check_media=True, tolerance=0.001) == []


def in_this_process(function, items, *args, **kwargs):
    """Stands for the processes of a stage, which know nothing of what a test replaces."""
    return [function(item) for item in items]


def test_no_exception_of_one_clip_stops_the_stage(tmp_path, monkeypatch):
    frames = talking_head(12, 224)
    videos = {f"anna_{i}": tmp_path / f"{i}.mp4" for i in range(3)}
    for path in videos.values():
        write_clip(path, frames)
    unknown = videos["anna_1"].read_bytes().replace(b"avc1", b"XXXX")
    videos["anna_1"].write_bytes(unknown)
    real = preparation.read_audio

    def read(path):
        if path == str(videos["anna_2"]):
            raise RuntimeError("of a kind\nthat nobody expects")
        return real(path)

    monkeypatch.setattr(preparation, "read_audio", read)
    monkeypatch.setattr(prepare_media, "map_items", in_this_process)
    prepare(data_folder(tmp_path / "data", videos), tmp_path / "dump", "--max_excluded", "0.7")
    assert list(read_scp(tmp_path / "dump/lip.scp")) == ["anna_0"]
    assert read_scp(tmp_path / "dump/excluded") == {
        "anna_1": f"{videos['anna_1']}: video in a codec that FFmpeg does not know; convert it",
        "anna_2": f"{videos['anna_2']}: RuntimeError: of a kind that nobody expects",
    }


def test_a_landmark_model_that_is_none_stops_the_stage(tmp_path):
    """It is not for the clips that this excludes them, one after the other."""
    write_clip(tmp_path / "a.mp4", talking_head(12, 224))
    (tmp_path / "wrong.dat").write_bytes(MODEL.read_bytes()[:1000])
    data = data_folder(tmp_path / "data", {"a_0": tmp_path / "a.mp4"})
    said = r"^mome-prepare-media: error: .*wrong\.dat is not a dlib landmark model.*; delete.*$"
    for options in (
        ["--detector", "dlib", "--landmarks", tmp_path / "wrong.dat"],
        ["--detector", "mediapipe", "--other_landmarks", tmp_path / "wrong.dat"],
    ):
        with pytest.raises(SystemExit, match=said):
            prepare(data, tmp_path / "dump", *options)
        assert not (tmp_path / "dump/excluded").exists()
    # Nor are finished crops deleted for it.
    prepare(data, tmp_path / "dump", "--detector", "dlib", "--landmarks", MODEL)
    crop = next(tmp_path.glob("dump/lips/**/*.mp4"))
    with pytest.raises(SystemExit, match=said):
        prepare(
            data, tmp_path / "dump", "--detector", "dlib", "--landmarks", tmp_path / "wrong.dat"
        )
    assert crop.is_file()


def test_neither_sound_nor_a_name_that_cannot_be_written_stops_the_stage(tmp_path):
    """Samples that overflow in the filter of another rate; an id that is too long for a file."""
    names = ["a_0", "a_1", "a_2", "a_" + 250 * "x"]
    clips = {name: tmp_path / f"{number}.mp4" for number, name in enumerate(names)}
    wavs = {name: tmp_path / f"{number}.wav" for number, name in enumerate(names)}
    for name in names:
        write_clip(clips[name], talking_head(12, 224), audio=False)
        soundfile.write(wavs[name], 0.1 * np.sin(np.arange(23040) / 9), 48000)
    huge = np.where(np.arange(23040) // 7 % 2, 3e38, -3e38)
    soundfile.write(wavs["a_1"], huge, 48000, subtype="FLOAT")
    soundfile.write(wavs["a_2"], huge[:7680], 16000, subtype="FLOAT")  # only loud
    data = data_folder(tmp_path / "data", clips, wavs)
    # The second time beside what is finished, the third in the place of it.
    for options in ([], [], ["--tolerance", "0.3"]):
        prepare(data, tmp_path / "dump", "--max_excluded", "0.5", *options)
        assert list(read_scp(tmp_path / "dump/wav.scp")) == ["a_0", "a_2"]
        excluded = read_scp(tmp_path / "dump/excluded")
        assert excluded["a_1"] == f"{wavs['a_1']}: the audio has samples that are not finite"
        assert "File name too long" in excluded[names[-1]]
    write_lips(tmp_path / "crops/a/0.mp4", np.full((12, 96, 96), 128, np.uint8))
    options = ["--lip_dir", tmp_path / "crops", "--max_excluded", "0.8"]
    prepare(data, tmp_path / "of_crops", *options)
    assert list(read_scp(tmp_path / "of_crops/wav.scp")) == ["a_0"]
    heard = read_audio(read_scp(tmp_path / "dump/wav.scp")["a_2"])
    assert np.abs(heard * 3e38 - huge[:7680]).max() < 3e38 / 10000


def test_a_list_of_utterances_that_no_set_has_is_refused(tmp_path):
    """Those of another set of the corpus, and those that stage 1 left out, are known."""
    data = data_folder(tmp_path / "data/train", {"a_1": tmp_path / "1.mp4"})
    data_folder(tmp_path / "data/test", {"tape": tmp_path / "2.mp4"})
    write_scp(tmp_path / "data/test/utt2spk", {"b_1": "b"})
    write_scp(tmp_path / "data/test/segments", {"b_1": "tape 0 1"})
    (tmp_path / "data/test/excluded").write_text("c_1 no words\n")
    listed = tmp_path / "unwanted"
    ids = ["a_1", "b_1", "c_1", "tape", *(f"x_{number}" for number in range(6))]
    listed.write_text("".join(f"{name} why\n" for name in ids))
    said = f"--exclude {listed}: 7 of 10 utterances are in no set of {data.parent}: tape, x_0, x_1,"
    with pytest.raises(SystemExit, match=f"{said} x_2, x_3, .... Correct or delete .*/utt2spk"):
        prepare(data, tmp_path / "dump", "--exclude", listed)
    assert not (tmp_path / "dump").exists()


@pytest.mark.parametrize("nj", [1, 2])
def test_a_clip_that_crashes_its_decoder_is_excluded(tmp_path, monkeypatch, nj):
    videos = {f"anna_{name}": tmp_path / f"{name}.mp4" for name in ("a", "crash", "d")}
    for path in videos.values():
        write_clip(path, talking_head(12, 224))
    let_workers_crash(tmp_path, monkeypatch)
    data = data_folder(tmp_path / "data", videos)
    prepare(data, tmp_path / "dump", "--max_excluded", "0.5", "--nj", nj)
    assert list(read_scp(tmp_path / "dump/lip.scp")) == ["anna_a", "anna_d"]
    (reason,) = read_scp(tmp_path / "dump/excluded").items()
    assert reason[0] == "anna_crash"
    assert reason[1].startswith(f"{videos['anna_crash']}: its process crashed or was killed")


def test_a_machine_on_which_all_clips_crash_is_not_the_clips_fault(tmp_path, monkeypatch):
    videos = {f"anna_{name}": tmp_path / f"{name}.mp4" for name in ("a", "b", "crash")}
    for path in videos.values():
        write_clip(path, talking_head(12, 224))
    data, dump = data_folder(tmp_path / "data", videos), tmp_path / "dump"
    all_crash = "every process crashes or is killed, with .* library .* them is .*--exclude"
    with monkeypatch.context() as patch:
        let_workers_crash(tmp_path, patch, ".mp4")
        with pytest.raises(SystemExit, match=rf"lips of data: {all_crash}"):
            prepare(data, dump, "--max_excluded", "1.0")
        assert not (dump / "excluded").exists()
    few = data_folder(tmp_path / "few", dict(list(videos.items())[:2]))
    prepare(few, dump)
    # Where the others were made before, one of them is made again to tell whose fault it is.
    with monkeypatch.context() as patch:
        let_workers_crash(tmp_path, patch, "/a.mp4 /b.mp4 /crash.mp4")
        with pytest.raises(SystemExit, match=r"with 1 item\(s\) and with another one: rather than"):
            prepare(data, dump, "--max_excluded", "0.5")
    let_workers_crash(tmp_path, monkeypatch)
    before = {path: path.stat().st_mtime_ns for path in dump.glob("lips/anna/*")}
    prepare(data, dump, "--max_excluded", "0.5")
    assert list(read_scp(dump / "excluded")) == ["anna_crash"]
    assert {path: path.stat().st_mtime_ns for path in dump.glob("lips/anna/*")} == before
    assert not (dump / ".again").exists()


def test_the_streams_asked_for_are_those_that_are_needed(tmp_path):
    rng = np.random.default_rng(0)
    faceless = rng.integers(0, 255, (12, 64, 64, 3), dtype=np.uint8)
    clips = {name: tmp_path / f"{name}.mp4" for name in ("a_both", "a_mute", "a_blind", "a_sound")}
    write_clip(clips["a_both"], talking_head(12, 224))
    write_clip(clips["a_mute"], talking_head(12, 224), audio=False)
    write_clip(clips["a_blind"], faceless, audio_seconds=0.48)
    write_clip(clips["a_sound"], num_frames=0, audio_seconds=1.0)
    data = data_folder(tmp_path / "data", clips)
    expected = {
        ("audio", "video"): {"a_both": "12"},
        ("video",): {"a_both": "12", "a_mute": "12"},
        ("audio",): {"a_both": "12", "a_blind": "12", "a_sound": "25"},
    }
    for streams, lengths in expected.items():
        dump = tmp_path / "-".join(streams)
        for _ in range(2):  # the second time from what is finished
            prepare(data, dump, "--streams", *streams, "--max_excluded", "0.9")
            assert read_scp(dump / "utt2num_frames") == dict(sorted(lengths.items()))
        files = {"audio": "wav.scp", "video": "lip.scp"}
        for stream, file in files.items():
            assert (dump / file).is_file() == (stream in streams)
            if stream in streams:
                assert read_scp(dump / file).keys() == lengths.keys()
        assert validate_data_dir(dump, check_media=True, tolerance=0.001) == []
    # Sound alone needs no list of videos.
    wavs = data_folder(tmp_path / "wavs", {}, {"a_sound": clips["a_sound"]})
    prepare(wavs, tmp_path / "heard", "--streams", "audio")
    assert len(read_audio(read_scp(tmp_path / "heard/wav.scp")["a_sound"])) == 25 * 640


def test_what_scoring_finds_no_words_in_is_excluded(tmp_path):
    """Before, stage 5 stopped at it."""
    texts = ["...", "{NS} <unk>", "'", "a", "à", "…, –", "हि"]
    wavs = {f"a_{number}": tmp_path / f"{number}.wav" for number in range(len(texts))}
    for path in wavs.values():
        soundfile.write(path, 0.3 * np.sin(np.arange(7680) / 5), 16000)
    data = data_folder(tmp_path / "data", {}, wavs)
    write_scp(data / "text", dict(zip(wavs, texts, strict=True)))
    prepare(data, tmp_path / "dump", "--streams", "audio", "--max_excluded", "0.6")
    assert list(read_scp(tmp_path / "dump/text")) == ["a_3", "a_4", "a_6"]
    excluded = read_scp(tmp_path / "dump/excluded")
    assert excluded == dict.fromkeys(["a_0", "a_1", "a_2", "a_5"], f"{data / 'text'}: no words")


def test_segments_of_sound_alone(tmp_path):
    sound = np.random.default_rng(0).normal(0, 0.1, 32000)
    soundfile.write(tmp_path / "a.wav", sound, 16000)
    data = data_folder(tmp_path / "data", {}, {"rec": tmp_path / "a.wav"})
    segments = {"a_0": "rec 0.4 1.2", "a_1": "rec 1.2 3.0"}
    write_scp(data / "segments", segments)
    write_scp(data / "utt2spk", dict.fromkeys(segments, "a"))
    write_scp(data / "text", dict.fromkeys(segments, "place red"))
    prepare(data, tmp_path / "dump", "--streams", "audio", "--max_excluded", "0.5")
    assert read_scp(tmp_path / "dump/utt2num_frames") == {"a_0": "20"}
    heard = read_audio(read_scp(tmp_path / "dump/wav.scp")["a_0"])
    assert np.abs(heard - sound[6400:19200]).max() < 2 / 32768
    excluded = read_scp(tmp_path / "dump/excluded")
    assert "sound and segment differ in length: 0.80 s and 1.80 s" in excluded["a_1"]


@pytest.mark.parametrize("kind", ["zeros", "antiphase", "below 16 bits"])
def test_silence_is_excluded(tmp_path, kind):
    """Stage 3 could set no SNR on it."""
    videos = {name: tmp_path / f"{name}.mp4" for name in ("a_0", "a_1")}
    for path in videos.values():
        write_clip(path, talking_head(12, 224), audio=False)
    tone = 0.3 * np.sin(np.arange(7680) / 5)
    silent = {
        "zeros": 0 * tone,
        "antiphase": np.stack([tone, -tone], 1),
        "below 16 bits": 1e-5 * tone,
    }[kind]
    wavs = {name: tmp_path / f"{name}.wav" for name in videos}
    soundfile.write(wavs["a_0"], tone, 16000)
    soundfile.write(wavs["a_1"], silent, 16000, subtype="FLOAT")
    data = data_folder(tmp_path / "data", videos, wavs)
    prepare(data, tmp_path / "dump", "--max_excluded", "0.5")
    assert list(read_scp(tmp_path / "dump/wav.scp")) == ["a_0"]
    assert "a_1.wav: the audio is silent" in read_scp(tmp_path / "dump/excluded")["a_1"]


def test_sound_above_full_scale_is_scaled_and_not_clipped(tmp_path):
    """Floating-point recordings, and the sums of codecs, exceed what 16 bits hold."""
    video, wav = tmp_path / "a.mp4", tmp_path / "a.wav"
    write_clip(video, talking_head(12, 224), audio=False)
    loud = 1.5 * np.sin(np.arange(7680) / 5)
    soundfile.write(wav, loud, 16000, subtype="FLOAT")
    prepare(data_folder(tmp_path / "data", {"a_0": video}, {"a_0": wav}), tmp_path / "dump")
    heard = read_audio(read_scp(tmp_path / "dump/wav.scp")["a_0"])
    assert np.abs(heard - loud / np.abs(loud).max()).max() < 2 / 32768


# Faces.


class Blind(FaceTracker):
    """A detector that finds no face in pictures that are wider than high."""

    def detect(self, frame):
        return [] if frame.shape[1] > frame.shape[0] else super().detect(frame)


def test_what_one_detector_loses_the_other_finds(tmp_path, monkeypatch):
    @cache
    def load(model, detect_every, detect_side, detector):
        return (Blind if detector == "mediapipe" else FaceTracker)(MODEL, detect_every, detect_side)

    monkeypatch.setattr(preparation, "load_tracker", load)
    monkeypatch.setattr(prepare_media, "map_items", in_this_process)
    videos = {name: tmp_path / f"{name}.mp4" for name in ("a_high", "a_none", "a_wide")}
    frames = talking_head(12, 224)
    write_clip(videos["a_high"], frames)
    write_clip(videos["a_wide"], np.pad(frames, ((0, 0), (0, 0), (0, 40), (0, 0))))
    write_clip(videos["a_none"], np.full((12, 96, 128, 3), 90, np.uint8))
    data = data_folder(tmp_path / "data", videos)
    options = ["--detector", "mediapipe", "--max_excluded", "0.7"]
    prepare(data, tmp_path / "alone", *options)
    assert list(read_scp(tmp_path / "alone/lip.scp")) == ["a_high"]
    assert not (tmp_path / "alone/detectors").exists()
    dump = tmp_path / "both"
    for _ in range(2):  # the second time from what is finished
        prepare(data, dump, *options, "--other_landmarks", MODEL)
        assert list(read_scp(dump / "lip.scp")) == ["a_high", "a_wide"]
        assert read_scp(dump / "detectors") == {"a_wide": "dlib"}
        assert list(read_scp(dump / "excluded")) == ["a_none"]
    comments = [video_info(path).comment for path in read_scp(dump / "lip.scp").values()]
    assert comments == ["", "dlib"]


def losing(tracker, lost):
    """A detector that does not find the face in the first frames."""
    return lambda frames: [*[None] * lost, *tracker(frames)[lost:]]


@pytest.mark.parametrize(
    ("lost", "found_by"),
    [
        ((1, 0), ""),  # a twelfth is interpolated either way: the other one is not asked
        ((2, 0), "mediapipe"),
        ((5, 2), "mediapipe"),
        ((5, 5), ""),
        ((2, 5), ""),
        ((5, 9), ""),
        ((9, 5), "mediapipe"),
    ],
)
def test_the_detector_that_loses_fewer_frames_cuts_the_crop(tracker, lost, found_by):
    """Not only where the first one loses more than --max_lost, 6 of these 12 frames."""
    frames = grey(talking_head(12, 224))
    names = ("dlib", "mediapipe")
    trackers = {name: losing(tracker, n) for name, n in zip(names, lost, strict=True)}
    settings = preparation.Settings("", "", "dlib", 12, 480, 1, 12, 0.5, 0.2, False)
    lips, by = preparation.find_lips(frames, "a.mp4", trackers, settings)
    assert (by, lips.lost) == (found_by, lost[by == "mediapipe"])


def test_the_whole_picture_may_stand_for_a_face_that_is_not_found(tmp_path, capsys):
    videos = {name: tmp_path / f"{name}.mp4" for name in ("a_0", "a_1", "a_2")}
    write_clip(videos["a_0"], talking_head(12, 224))
    rng = np.random.default_rng(0)
    blocks = np.kron(rng.integers(40, 200, (12, 6, 9)), np.ones((1, 32, 32)))
    write_clip(videos["a_1"], np.repeat(blocks[..., None], 3, axis=3).astype(np.uint8))
    write_clip(videos["a_2"], num_frames=0, audio_seconds=0.48)
    data, dump = data_folder(tmp_path / "data", videos), tmp_path / "dump"
    prepare(data, dump, "--max_excluded", "0.7")
    assert list(read_scp(dump / "lip.scp")) == ["a_0"]
    assert "no face in any frame" in read_scp(dump / "excluded")["a_1"]
    for _ in range(2):  # the second time from what is finished
        prepare(data, dump, "--max_excluded", "0.4", "--fallback", "true")
        assert list(read_scp(dump / "excluded")) == ["a_2"]
        assert read_scp(dump / "detectors") == {"a_1": "whole_picture"}
        said = capsys.readouterr().out
        assert "  1 of them without a face: the whole picture stands for it; see" in said
        assert "by the other detector" not in said
    # The picture of 288x192 is pressed into the square: blocks of 10.7 by 16 pixels.
    crop = read_lips(read_scp(dump / "lip.scp")["a_1"]).astype(float)
    centres = crop[:, 8::16][:, :, np.round(np.arange(9) * 96 / 9 + 5).astype(int)]
    assert np.abs(centres - blocks[:, 16::32, 16::32]).mean() < 8
    prepare(data, dump, "--max_excluded", "0.7")
    assert list(read_scp(dump / "lip.scp")) == ["a_0"]


@pytest.mark.parametrize(("level", "kept"), [(BLACK - 1, False), (BLACK, True)])
def test_a_black_picture_stands_for_no_face(level, kept):
    frames = [np.zeros((64, 96), np.uint8) for _ in range(5)]
    frames[3][:, :] = level
    settings = preparation.Settings("", "", "dlib", 12, 480, 1, 12, 0.5, 0.2, True)
    trackers = {"dlib": lambda frames: [None] * len(frames)}
    if kept:
        lips, by = preparation.find_lips(frames, "a.mp4", trackers, settings)
        assert (by, lips.frames.shape) == ("whole_picture", (5, 96, 96))
        assert (lips.seen, lips.lost) == (0, 0)
    else:
        with pytest.raises(FaceLost, match=r"a\.mp4: no face in any frame"):
            preparation.find_lips(frames, "a.mp4", trackers, settings)


def test_tracks_that_do_not_overlap_are_one():
    left, right = Face(60, 100, 80), Face(160, 100, 60)
    small = Face(100, 100, 30)
    cut = {0: [left], 8: [left, small], 16: [right, small], 24: [right]}
    assert main_tracks(cut, (200, 200), 1) == [{0: left, 8: left, 16: right, 24: right}]


@pytest.mark.parametrize("cut", [24, 25, 26, 29])
def test_a_face_that_jumps_at_a_cut_is_followed(tracker, tmp_path, cut):
    """From the left of a black picture to its right, at any frame."""
    head = talking_head(50, 224)
    frames = np.zeros((50, 224, 600, 3), np.uint8)
    frames[:cut, :, :224] = head[:cut]
    frames[cut:, :, 376:] = head[cut:]
    write_clip(tmp_path / "jump.mp4", frames, audio=False)
    write_clip(tmp_path / "still.mp4", head, audio=False)
    jump, still = (read_frames(tmp_path / name) for name in ("jump.mp4", "still.mp4"))
    lips = crop_lips(jump, "jump.mp4", tracker)
    assert lips.lost == 0
    whole = crop_lips(still, "still.mp4", tracker).frames
    # Every crop, also beside the cut, shows the mouth that it shows without a cut.
    for one, other in zip(lips.frames, whole, strict=True):
        assert np.corrcoef(one.ravel(), other.ravel())[0, 1] > 0.8


def test_jumps_are_where_the_picture_changes():
    points = np.random.default_rng(0).uniform(40, 60, (68, 2))
    points[[27, 30, 33, 36, 39, 42, 45]] = [
        (50, 41), (50, 52), (50, 57), (37, 41), (44, 41), (56, 41), (63, 41)
    ]  # fmt: skip
    frames = [np.full((100, 300), 10 if i < 5 else 90, np.uint8) for i in range(10)]
    landmarks = [None] * 10
    landmarks[0] = landmarks[3] = points
    landmarks[6] = landmarks[9] = points + (150, 0)
    assert find_jumps(frames, landmarks) == [5]
    landmarks[6] = landmarks[9] = points + (4, 0)
    assert find_jumps(frames, landmarks) == []


class Elsewhere:
    """Landmarks of a face that is not there."""

    def __call__(self, frames):
        points = np.random.default_rng(0).uniform(40, 60, (68, 2))
        points[[33, 36, 39, 42, 45]] = [(50, 57), (37, 41), (44, 41), (56, 41), (63, 41)]
        points[MOUTH] = (50, 65)
        return [points + (200, 0)] * len(frames)


@pytest.mark.parametrize("where", ["edge", "bars", "corner"])
@pytest.mark.parametrize(("share", "kept"), [(0.2, False), (0.45, False), (0.55, True), (1, True)])
def test_a_crop_shows_the_picture_by_half_at_least(where, share, kept):
    """Of crops whose side is known: 1.3 times the 26 pixels between the outer eye corners."""
    side = 1.3 * 26
    # Elsewhere's mouth is at (250, 65): the picture ends right of it, or both right and below.
    right = 250 - side / 2 + side * share
    frames = np.full((9, 120, 400), 128, np.uint8)
    if where == "corner":
        right = 250 - side / 2 + side * np.sqrt(share)
        frames = frames[:, : round(65 + right - 250)]
    if where == "bars":
        frames[:, :, round(right) :] = 0
    else:
        frames = frames[:, :, : round(right)]
    if kept:
        crop = crop_lips(list(frames), "a.mp4", Elsewhere(), max_lost=1.0).frames
        assert (crop >= BLACK).mean() == pytest.approx(share, abs=0.06)
    else:
        with pytest.raises(FaceLost, match=r"a\.mp4: 9 of 9 crops lie mostly outside of the pict"):
            crop_lips(list(frames), "a.mp4", Elsewhere(), max_lost=1.0)


@pytest.mark.parametrize(("level", "black"), [(BLACK - 1, True), (BLACK, False)])
def test_what_counts_as_black(level, black):
    """Of a picture as bright as 128, crops of 23 are black, as far as compression keeps it."""
    frames = np.full((9, 120, 300), level, np.uint8)
    frames[:, :, :120] = 128
    frames[:, :, 290:] = 128
    if black:
        with pytest.raises(FaceLost, match="9 of 9 crops are black beside the face"):
            crop_lips(list(frames), "a.mp4", Elsewhere())
    else:
        assert (crop_lips(list(frames), "a.mp4", Elsewhere()).frames == level).all()
    assert BLACK == 24


def test_black_crops_made_elsewhere_are_refused(tmp_path):
    videos = {name: tmp_path / f"{name}.mp4" for name in ("a_0", "a_1", "a_2", "a_3", "a_4")}
    for path in videos.values():
        write_clip(path, num_frames=12)
    crops = np.random.default_rng(0).integers(60, 200, (12, 96, 96), dtype=np.uint8)
    dark = {"a_0": 1, "a_1": 12, "a_2": 12, "a_3": 2, "a_4": 6}  # frames
    for name, columns in (("a_0", 0), ("a_1", 0), ("a_2", 20), ("a_3", 0), ("a_4", 20)):
        crop = crops.copy()
        crop[12 - dark[name] :, :, columns:] = 0
        write_lips(tmp_path / "crops" / f"{name}.mp4", crop)
    data = data_folder(tmp_path / "data", videos)
    prepare(data, tmp_path / "dump", "--lip_dir", tmp_path / "crops", "--max_excluded", "0.8")
    assert list(read_scp(tmp_path / "dump/lip.scp")) == ["a_0"]
    for name, reason in read_scp(tmp_path / "dump/excluded").items():
        said = f"{dark[name]} of 12 frames of the crop are mostly black; crop it again"
        assert reason.startswith(f"{tmp_path / 'crops' / name}.mp4: {said}")


def test_a_black_crop_is_never_accepted():
    frames = np.zeros((9, 120, 300), np.uint8)
    frames[:, :, :120] = 128
    with pytest.raises(FaceLost, match=r"a\.mp4: 9 of 9 crops lie mostly outside of the picture"):
        crop_lips(list(frames), "a.mp4", Elsewhere(), max_lost=1.0)
    frames[:, :, 290:] = 128  # black between two parts of the picture
    with pytest.raises(FaceLost, match=r"a\.mp4: 9 of 9 crops are black beside the face"):
        crop_lips(list(frames), "a.mp4", Elsewhere(), max_lost=1.0)
    # Where the picture itself is black, as in a fade, so is its crop.
    frames[:, :, 120:] = 128
    frames[7:] = 0
    assert crop_lips(list(frames), "a.mp4", Elsewhere()).frames[6:, 48, 48].tolist() == [128, 0, 0]
