"""Recordings of every kind through a tiny random model: what is read, where, and what is said."""

import io
import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
from media import talking_head, write_clip

from mome.bin import transcribe as command
from mome.data.audio import read_audio
from mome.data.video import MediaError, read_video
from mome.lips.detectors import load_tracker
from mome.tasks.packed import pack
from mome.transcribe.options import Budget, Options
from mome.transcribe.recording import audio_blocks, cut_blocks, probe, read_pieces
from mome.transcribe.transcriber import Transcriber

ROOT = Path(__file__).parents[2]
DOWNLOADS = Path(os.environ.get("MOME_DOWNLOADS", ROOT / "downloads"))
LANDMARKS = DOWNLOADS / "dlib" / "shape_predictor_68_face_landmarks.dat"
INFO = {"trained_on": "nothing", "max_seconds": 4.0}


@pytest.fixture(scope="module")
def packed(training, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("packed")
    return pack(training / "config.yaml", training / "model.pth", folder / "p.zip", INFO, "")


@pytest.fixture(scope="module")
def transcribe(packed) -> Transcriber:
    return Transcriber.load(packed, tracker=load_tracker(str(LANDMARKS)))


@pytest.fixture(scope="module")
def speech() -> np.ndarray:
    """Two bursts of noise, from 0.5 to 2.0 s and from 3.5 to 5.0 s, of six seconds."""
    rng = np.random.default_rng(0)
    samples = rng.normal(0, 1e-4, 6 * 16000)
    for begin in (0.5, 3.5):
        place = slice(round(begin * 16000), round((begin + 1.5) * 16000))
        samples[place] = rng.normal(0, 0.1, 24000)
    return samples


@pytest.fixture(scope="module")
def clips(tmp_path_factory, speech) -> Path:
    """Recordings of six seconds: a head with sound, without, sound alone, no face."""
    folder = tmp_path_factory.mktemp("clips")
    head = talking_head(150, 160)
    write_clip(folder / "both.mp4", head, samples=speech)
    write_clip(folder / "silent.mp4", head, audio=False)
    write_clip(folder / "sound.mp4", head[:0], samples=speech)
    write_clip(folder / "faceless.mp4", num_frames=150, size=64, samples=speech)
    return folder


@pytest.mark.parametrize(
    ("name", "tasks", "notes"),
    [
        ("both", ["avsr", "avsr"], []),
        ("silent", ["vsr", "vsr"], ["no sound: lips alone"]),
        ("sound", ["asr", "asr"], ["no video: sound alone"]),
        ("faceless", ["asr", "asr"], []),
    ],
)
def test_whatever_streams_there_are_are_read(transcribe, clips, name, tasks, notes):
    seen = []
    transcript = transcribe(clips / f"{name}.mp4", Options(beam=1), lambda *at: seen.append(at))
    assert [segment.task for segment in transcript.segments] == tasks
    assert transcript.notes == notes
    spans = [(segment.start, segment.end) for segment in transcript.segments]
    expected = [(0, 3), (3, 6)] if name == "silent" else [(0.25, 2.25), (3.25, 5.25)]
    np.testing.assert_allclose(spans, expected, atol=0.07)
    assert seen[-1][0] == seen[-1][1] == pytest.approx(spans[-1][1], abs=0.01)
    for segment in transcript.segments:
        assert ("no face" in segment.notes) == (name == "faceless")
        assert segment.text == " ".join(word.text for word in segment.words)
        for word in segment.words:
            assert 0 <= word.confidence <= 1
            if word.start is not None:
                assert segment.start <= word.start < word.end <= segment.end


def test_the_finest_rates_are_taken_unless_others_are_named(transcribe, clips):
    path = clips / "both.mp4"
    assert {s.rates for s in transcribe(path, Options(beam=1)).segments} == {"a4_v2"}
    coarse = transcribe(path, Options(beam=1, rates="a16_v5"))
    assert {s.rates for s in coarse.segments} == {"a16_v5"}
    alone = transcribe(path, Options(beam=1, rates="a16_v5", task="asr"))
    assert {(s.task, s.rates) for s in alone.segments} == {("asr", "a16")}
    with pytest.raises(ValueError, match="not trained at a8_v2; this model knows a4_v2, a4_v5"):
        transcribe(path, Options(rates="a8_v2", task="avsr"))


def test_segments_are_the_same_in_any_batch(transcribe, clips):
    one, two = (transcribe(clips / "both.mp4", Options(batch_size=size)) for size in (1, 2))
    assert [s.text for s in one.segments] == [s.text for s in two.segments]


def test_a_missing_stream_that_was_asked_for_is_named(transcribe, clips, tmp_path):
    with pytest.raises(MediaError, match=r"silent\.mp4: no audio, which avsr reads"):
        transcribe(clips / "silent.mp4", Options(task="avsr"))
    with pytest.raises(MediaError, match=r"sound\.mp4: no video, which vsr reads"):
        transcribe(clips / "sound.mp4", Options(task="vsr"))
    soundfile.write(tmp_path / "quiet.wav", np.zeros(16000), 16000)
    transcript = transcribe(tmp_path / "quiet.wav")
    assert transcript.segments == []
    assert transcript.notes == ["no video: sound alone", "silent throughout"]


def test_lips_are_read_where_the_sound_is_mute(transcribe, tmp_path):
    write_clip(tmp_path / "mute.mp4", talking_head(60, 160), samples=np.zeros(38400))
    transcript = transcribe(tmp_path / "mute.mp4", Options(beam=1))
    assert [segment.task for segment in transcript.segments] == ["vsr"]
    assert transcript.notes == ["silent throughout"]


def test_a_picture_that_stands_still_is_no_video(transcribe, tmp_path, speech):
    write_clip(tmp_path / "still.mp4", talking_head(2, 160), samples=speech[: 16000 * 3])
    (segment,) = transcribe(tmp_path / "still.mp4", Options(beam=1)).segments
    assert segment.task == "asr"
    assert segment.notes[0] == "no face"


def test_samples_that_are_not_finite_are_named(transcribe, tmp_path):
    samples = np.zeros(16000, dtype=np.float32)
    samples[500] = np.nan
    soundfile.write(tmp_path / "nan.wav", samples, 16000, subtype="FLOAT")
    with pytest.raises(MediaError, match=r"nan\.wav: the audio has samples that are not finite"):
        transcribe(tmp_path / "nan.wav")


def test_what_was_read_before_the_damage_is_kept(transcribe, tmp_path, monkeypatch, clips):
    pieces = read_pieces

    def damaged(path, streams, spans):
        yield from list(pieces(path, streams, spans))[:1]
        raise MediaError(path, "corrupt")

    monkeypatch.setattr("mome.transcribe.transcriber.read_pieces", damaged)
    transcript = transcribe(clips / "both.mp4", Options(beam=1, batch_size=1))
    assert len(transcript.segments) == 1
    assert not transcript.complete
    assert transcript.notes == ["read to 2.24 s: corrupt"]


def test_the_one_whose_mouth_moves_is_read(transcribe, tmp_path):
    """The larger head stands still; the smaller one moves its mouth with the sound."""
    still = np.repeat(talking_head(1, 200), 75, axis=0)
    moving = np.repeat(talking_head(1, 160), 75, axis=0).copy()
    rng = np.random.default_rng(0)
    speaking = np.repeat([0, 1, 0, 1, 0], 15).astype(float)
    for frame, on in zip(moving, speaking, strict=True):
        if on:  # a dark mouth, open at random
            half = int(rng.integers(1, 8))
            frame[101 - half : 101 + half, 70:92] = 20
    samples = rng.normal(0, 1, 48000) * (0.0005 + 0.1 * speaking.repeat(640))
    side = np.full((75, 200, 160, 3), 90, dtype=np.uint8)
    side[:, 20:180] = moving
    write_clip(tmp_path / "two.mp4", np.concatenate([still, side], axis=2), samples=samples)
    (piece,) = read_pieces(tmp_path / "two.mp4", probe(tmp_path / "two.mp4"), [(0.0, 3.0)])
    clip = transcribe.prepare(piece)
    assert clip.notes == ["several faces"]
    change = np.abs(np.diff(clip.streams["lips"].astype(float), axis=0)).mean()
    quiet = transcribe.prepare(replace(piece, speech=None))
    assert change > 3 * np.abs(np.diff(quiet.streams["lips"].astype(float), axis=0)).mean()


ROWS = [
    {"task": "avsr", "rates": "a4_v2", "wer": 1.0, "seconds_per_second": 0.9},
    {"task": "avsr", "rates": "a4_v5", "wer": 2.0, "seconds_per_second": 0.7},
    {"task": "avsr", "rates": "a16_v2", "wer": 4.0, "seconds_per_second": 0.5},
    {"task": "avsr", "rates": "a16_v5", "wer": 4.0, "seconds_per_second": 0.4},
    {"task": "asr", "rates": "a4", "wer": 3.0, "seconds_per_second": 0.6},
]


def test_a_budget_buys_the_best_rates(transcribe, clips, monkeypatch):
    monkeypatch.setitem(transcribe.info, "rates", ROWS)
    monkeypatch.setitem(transcribe.info, "measured", "something")
    for limit, rates in ((1.0, "a4_v2"), (0.8, "a4_v5"), (0.5, "a16_v5")):
        chosen = transcribe.choose("avsr", Options(budget=Budget(limit)))
        assert str(chosen.pair) == rates
    options = Options(beam=1, budget=Budget.parse("0.5"))
    assert transcribe.usable(options) == ["avsr"]
    transcript = transcribe(clips / "both.mp4", options)
    assert {segment.rates for segment in transcript.segments} == {"a16_v5"}
    assert transcript.notes[0].startswith("avsr at a16_v5: 4.0 % WER on something, the best within")
    with pytest.raises(ValueError, match=r"avsr: no rates keep to 0.1 .*a4_v2 0.9"):
        transcribe.usable(Options(budget=Budget(0.1)))
    assert Budget.parse("0.2tflops") == Budget(0.2, "tflops_per_second")
    with pytest.raises(ValueError, match="is no budget"):
        Budget.parse("fast")


def test_with_a_cascade_the_coarse_pass_counts(transcribe, clips, monkeypatch):
    """All may be doubtful: then it is read at a16_v5 and again, by the same encoders' output."""
    rows = [{**row, "encoder_seconds_per_second": 0.3} for row in ROWS]
    monkeypatch.setitem(transcribe.info, "rates", rows)
    monkeypatch.setitem(transcribe.info, "measured", "something")
    # The search at the coarsest rates takes 0.4 - 0.3, which comes on top of all others.
    for limit, rates in ((1.01, "a4_v2"), (0.9, "a4_v5"), (0.7, "a16_v5"), (0.4, "a16_v5")):
        options = Options(budget=Budget(limit), cascade=0.5)
        assert str(transcribe.choose("avsr", options).pair) == rates
    with pytest.raises(ValueError, match=r"keep to 0.39 .* of a cascade; .*a4_v2 1, a4_v5 0.8"):
        transcribe.usable(Options(task="avsr", budget=Budget(0.39), cascade=0.5))
    options = Options(beam=1, task="avsr", budget=Budget(0.9), cascade=1.0)
    (note,) = transcribe(clips / "both.mp4", options).notes
    assert note.endswith("0.9 seconds per second of encoders and search with the coarse pass")
    # Where the encoders' share is not known, it counts twice.
    monkeypatch.setitem(transcribe.info, "rates", ROWS)
    options = Options(budget=Budget(1.0), cascade=0.5)
    assert str(transcribe.choose("avsr", options).pair) == "a16_v5"


@pytest.mark.parametrize(("threshold", "rates"), [(0.0, {"a16_v5"}), (1.0, {"a4_v2"})])
def test_a_cascade_reads_again_what_is_doubtful(transcribe, clips, threshold, rates):
    options = Options(beam=1, task="avsr")
    read = transcribe(clips / "both.mp4", replace(options, cascade=threshold)).segments
    assert {segment.rates for segment in read} == rates
    plain = transcribe(clips / "both.mp4", replace(options, rates=next(iter(rates)))).segments
    assert [segment.text for segment in read] == [segment.text for segment in plain]


@pytest.mark.parametrize(
    "wrong", [{"max_seconds": 0.03}, {"min_pause": 0}, {"cascade": 80}, {"batch_size": 0}]
)
def test_options_that_cannot_be_meant_are_refused(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        Options(**wrong)


def test_names_that_would_replace_each_other_are_refused(packed, clips, tmp_path):
    (tmp_path / "both.mp4").write_bytes((clips / "both.mp4").read_bytes())
    names = [str(clips / "both.mp4"), str(tmp_path / "both.mp4")]
    with pytest.raises(SystemExit, match=r"both\.mp4 have one name"):
        command.main([*names, "--model", str(packed), "--output", str(tmp_path / "out")])


def test_a_folder_is_searched_for_recordings(clips, tmp_path, capsys):
    (tmp_path / "notes.txt").write_text("x")
    with pytest.raises(ValueError, match="holds no recordings"):
        command.find_recordings([str(tmp_path)])
    (tmp_path / "a b.mp4").write_bytes((clips / "silent.mp4").read_bytes())
    assert command.find_recordings([str(tmp_path), "-"]) == [str(tmp_path / "a b.mp4"), "-"]
    assert "notes.txt: no recordings" in capsys.readouterr().err


def test_pieces_are_what_reading_the_whole_gives(clips):
    path = clips / "both.mp4"
    spans = [(0.2, 1.0), (1.0, 2.04), (4.0, 6.0)]
    audio, video = read_audio(path), read_video(path, grey=True, rate=25)
    for piece, (start, end) in zip(read_pieces(path, probe(path), spans), spans, strict=True):
        first, last = round(start * 25), round(end * 25)
        np.testing.assert_array_equal(np.stack(piece.frames), video[first:last])
        np.testing.assert_allclose(piece.speech, audio[first * 640 : last * 640], atol=1e-6)


def test_blocks_are_cut_wherever_they_end():
    rng = np.random.default_rng(0)
    samples = np.arange(1000, dtype=np.float32)
    for _ in range(50):
        blocks = np.split(samples, np.sort(rng.integers(0, 1000, 7)))
        places = np.sort(rng.integers(0, 1100, 8)).reshape(4, 2).tolist()
        for (begin, end), cut in zip(places, cut_blocks(iter(blocks), places), strict=True):
            np.testing.assert_array_equal(cut, samples[begin:end])


def test_sound_that_starts_late_stays_with_the_pictures(tmp_path):
    tone = 0.3 * np.sin(np.arange(16000))
    write_clip(tmp_path / "late.mp4", num_frames=50, samples=tone, audio_start=0.5)
    rate, blocks = audio_blocks(tmp_path / "late.mp4")
    heard = np.concatenate(list(blocks))
    assert rate == 16000
    np.testing.assert_allclose(
        heard[: len(read_audio(tmp_path / "late.mp4"))],
        read_audio(tmp_path / "late.mp4"),
        atol=1e-6,
    )
    assert np.abs(heard[:7000]).max() < 0.01
    assert np.abs(heard[9000:20000]).max() > 0.2


def test_the_command_does_the_others_and_says_what_it_could_not(packed, clips, tmp_path, capsys):
    (tmp_path / "text.mp4").write_text("no recording")
    content = (clips / "both.mp4").read_bytes()
    (tmp_path / "cut.mp4").write_bytes(content[: len(content) // 2])
    names = [clips, tmp_path / "text.mp4", tmp_path / "cut.mp4", tmp_path / "nothing.mp4"]
    options = ["--model", packed, "--output", tmp_path / "out", "--format", "json", "srt"]
    options += ["--beam", "1", "--downloads", DOWNLOADS]
    with pytest.raises(SystemExit) as stop:
        command.main([str(word) for word in (*names, *options)])
    assert stop.value.code == 1
    said = capsys.readouterr().err
    assert "4 of 7 recordings transcribed; not:" in said
    for name in ("text.mp4", "cut.mp4", "nothing.mp4"):
        assert name in said.split("; not:")[1]
    written = sorted(path.name for path in (tmp_path / "out").iterdir())
    stems = ("both", "faceless", "silent", "sound")
    assert written == [f"{stem}.mp4.{kind}" for stem in stems for kind in ("json", "srt")]
    read = json.loads((tmp_path / "out" / "both.mp4.json").read_text())
    assert [segment["task"] for segment in read["segments"]] == ["avsr", "avsr"]
    assert read["model"] == "nothing"


def test_standard_input_is_a_recording_too(packed, clips, monkeypatch, capsys):
    content = io.BytesIO((clips / "sound.mp4").read_bytes())
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(content))
    command.main(["-", "--model", str(packed), "--beam", "1", "--format", "json", "--task", "asr"])
    assert len(json.loads(capsys.readouterr().out)["segments"]) == 2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--device", "cuda"], "no GPU that PyTorch can use"),
        (["--rates", "7,7"], "was not trained at a7_v7"),
        (["--downloads", "/nowhere"], "/nowhere/dlib/.* does not exist"),
        (["--cascade", "80"], "cascade 80 is a confidence"),
        (["--output", "/proc/nothing"], "/proc/nothing"),
        (
            ["--format", "srt", "json"],
            "srt json of 1 recordings makes several files: give --output",
        ),
    ],
)
def test_what_cannot_be_done_is_said_before_anything_is_read(
    packed, clips, tmp_path, monkeypatch, options, message
):
    import torch

    monkeypatch.chdir(tmp_path)  # where there is no folder downloads

    if "cuda" in options and torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    with pytest.raises(SystemExit, match=message):
        command.main([str(clips / "both.mp4"), "--model", str(packed), *options])


def test_the_command_explains_itself():
    run = [sys.executable, "-m", "mome.bin.transcribe", "--help"]
    said = subprocess.run(run, capture_output=True, text=True, check=True, cwd=ROOT).stdout
    assert "mome-transcribe talk.mp4 --model grid.zip" in said
