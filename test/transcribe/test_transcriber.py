"""Recordings of every kind through a tiny random model: what is read, where, and what is said."""

import io
import json
import os
import re
import shutil
import subprocess
import sys
import threading
import time
from dataclasses import replace
from itertools import islice
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile
import torch
import yaml
from media import talking_head, write_clip

from mome.bin import transcribe as command
from mome.data.audio import read_audio, resample
from mome.data.video import MediaError, iter_video, read_video
from mome.lips.detectors import load_tracker
from mome.tasks.packed import pack
from mome.transcribe import opening, recording
from mome.transcribe.arrays import Arrays
from mome.transcribe.choice import choose, usable
from mome.transcribe.clips import MouthCropper
from mome.transcribe.confidence import UNKNOWN
from mome.transcribe.options import Budget, Options
from mome.transcribe.recording import (
    Piece,
    audio_blocks,
    cut_blocks,
    divide,
    probe,
    read_pieces,
    video_seconds,
)
from mome.transcribe.transcriber import Transcriber
from mome.transcribe.transcript import Segment, Transcript

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
        ("both", ["avsr", "avsr"], ["avsr a4_v2, the finest rates"]),
        ("silent", ["vsr", "vsr"], ["no sound: lips alone", "vsr v2, the finest rates"]),
        ("sound", ["asr", "asr"], ["no video: sound alone", "asr a4, the finest rates"]),
        ("faceless", ["asr", "asr"], ["asr a4, the finest rates"]),
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
    reading = [at for doing, *at in seen if doing == "reading"]
    assert reading[-1][0] == reading[-1][1] == pytest.approx(spans[-1][1], abs=0.01)
    listening = [at for doing, *at in seen if doing == "listening"]
    assert seen == [("listening", *at) for at in listening] + [("reading", *at) for at in reading]
    if name == "silent":
        assert not listening
    else:
        assert [round(done) for done, _ in listening] == [1, 2, 3, 4, 5, 6]
        assert all(total == pytest.approx(6, abs=0.1) for _, total in listening)
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


def test_the_next_segment_is_read_while_one_is_transcribed(transcribe, clips, monkeypatch):
    both = threading.Event()
    crop, search = MouthCropper.mouth, transcribe.search
    seen = []

    def mouth(self, piece, notes):
        lips = crop(self, piece, notes)
        seen.append(threading.current_thread() is not threading.main_thread())
        if len(seen) == 2:
            both.set()
        return lips

    def searched(*args):
        assert both.wait(60), "the second segment is not read before the first is done"
        return search(*args)

    monkeypatch.setattr(MouthCropper, "mouth", mouth)
    monkeypatch.setattr(transcribe, "search", searched)
    options = Options(beam=1, batch_size=1)
    ahead = transcribe(clips / "both.mp4", options)
    (again,) = transcribe.many([clips / "both.mp4"], options)
    assert seen == [True] * 4
    assert ahead == again
    # And so is what is read in turns.
    turns = [
        segment
        for clip in transcribe.open(clips / "both.mp4", options).clips
        for segment in transcribe.transcribe([clip], options)
    ]
    assert ahead.segments == turns


def test_an_error_of_the_reading_names_the_recording(transcribe, clips, monkeypatch):
    def broken(self, piece, notes):
        raise RuntimeError("the detector broke")

    monkeypatch.setattr(MouthCropper, "mouth", broken)
    with pytest.raises(RuntimeError, match="the detector broke") as caught:
        transcribe(clips / "both.mp4")
    assert caught.value.__notes__ == [f"while {clips / 'both.mp4'} was read"]
    (transcript,) = transcribe.many([clips / "both.mp4"])  # which no recording stops
    assert not transcript.complete
    assert transcript.segments == []
    assert transcript.notes[-1] == "RuntimeError: the detector broke"


def test_an_interrupt_ends_the_reading_of_a_pause(transcribe, clips, monkeypatch):
    """Also while the pictures of a pause are passed over, however long it is."""
    passing = threading.Event()
    passed = []
    grey = recording.grey_frames

    def endless(source, damage):
        frames = grey(source, damage)
        yield from islice(frames, 60)  # the first segment ends at 2.24 s
        for frame in frames:
            deadline = time.monotonic() + 60
            while time.monotonic() < deadline:
                passing.set()
                time.sleep(0.001)
                yield frame
            passed.append(frame)

    def interrupted(*_):
        assert passing.wait(60)
        raise KeyboardInterrupt

    monkeypatch.setattr(recording, "grey_frames", endless)
    monkeypatch.setattr(transcribe, "search", interrupted)
    spans = [(0.24, 2.24), (4000.0, 4002.0)]
    monkeypatch.setattr(opening, "find_segments", lambda *_: spans)
    with pytest.raises(KeyboardInterrupt):
        transcribe(clips / "both.mp4", Options(beam=1, batch_size=1))
    assert passed == []


def test_a_segment_of_which_the_llm_knows_no_probability_is_named(packed, clips):
    broken = Transcriber.load(packed, tracker=load_tracker(str(LANDMARKS)))
    broken.model.decoder.markers.data.fill_(torch.nan)
    options = Options(beam=1, max_new_tokens=3, task="asr")
    with pytest.raises(
        FloatingPointError, match=r"probability for 0\.\d\d to \d\.\d\d s.*: look at"
    ):
        broken(clips / "sound.mp4", options)


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
    assert transcript.notes == ["silent throughout", "vsr v2, the finest rates"]


def test_a_picture_that_stands_still_is_no_video(transcribe, tmp_path, speech):
    write_clip(tmp_path / "still.mp4", talking_head(2, 160), samples=speech[: 16000 * 3])
    (segment,) = transcribe(tmp_path / "still.mp4", Options(beam=1)).segments
    assert segment.task == "asr"
    assert segment.notes[0] == "the pictures have ended"


def test_samples_that_are_not_finite_are_named(transcribe, tmp_path):
    samples = np.zeros(16000, dtype=np.float32)
    samples[500] = np.nan
    soundfile.write(tmp_path / "nan.wav", samples, 16000, subtype="FLOAT")
    with pytest.raises(MediaError, match=r"nan\.wav: the audio has samples that are not finite"):
        transcribe(tmp_path / "nan.wav")


@pytest.mark.parametrize(
    ("name", "codecs"),
    [
        ("both.mp4", ("libx264", "aac")),
        ("both.mkv", ("libx264", "aac")),
        ("both.avi", ("mpeg4", "libmp3lame")),
        ("sound.mp4", ("libx264", "aac")),
    ],
)
def test_what_can_be_read_of_a_recording_that_is_cut_off_is_kept(
    transcribe, tmp_path, speech, name, codecs
):
    path = tmp_path / name
    frames = talking_head(150, 160)[: 150 * name.startswith("both")]
    write_clip(path, frames, samples=speech, codecs=codecs)
    options = Options(beam=1, max_seconds=3.0)
    whole = transcribe(path, options)
    content = path.read_bytes()
    path.write_bytes(content[: round(0.7 * len(content))])
    cut = transcribe(path, options)
    assert whole.complete
    assert not cut.complete
    assert re.match(r"sound read to [34]\.\d\d s: .*truncated", cut.notes[-1])
    assert cut.segments[0] == whole.segments[0]
    assert 3.4 < cut.segments[-1].end < 4.9
    assert whole.segments[-1].end > 4.9


def test_lips_are_read_up_to_where_the_pictures_are_cut_off(transcribe, clips, tmp_path):
    content = (clips / "silent.mp4").read_bytes()
    (tmp_path / "cut.mp4").write_bytes(content[: round(0.7 * len(content))])
    cut = transcribe(tmp_path / "cut.mp4", Options(beam=1))
    assert not cut.complete
    (segment,) = cut.segments
    assert segment.task == "vsr"
    match = re.match(r"pictures read to (\d\.\d\d) s: .*truncated", cut.notes[-1])
    assert float(match[1]) == pytest.approx(segment.end, abs=0.05)
    assert 3 < segment.end < 5
    # So little is left that there is not one picture.
    (tmp_path / "cut.mp4").write_bytes(content[: content.index(b"mdat") + 100])
    with pytest.raises(MediaError, match=r"cut\.mp4: .*truncated"):
        transcribe(tmp_path / "cut.mp4")


def test_pictures_that_go_on_after_the_sound_are_read(transcribe, tmp_path, speech):
    write_clip(tmp_path / "long.mp4", talking_head(150, 160), samples=speech[:32000])
    transcript = transcribe(tmp_path / "long.mp4", Options(beam=1))
    first, second = transcript.segments
    assert (first.task, second.task) == ("avsr", "vsr")
    assert (first.start, second.end) == (0, 6)
    assert first.end == pytest.approx(2, abs=0.1)
    assert second.start == pytest.approx(first.end, abs=0.041)
    assert "the sound has ended" in second.notes
    assert "the sound has ended" not in first.notes
    alone = transcribe(tmp_path / "long.mp4", Options(beam=1, task="asr"))
    assert [segment.task for segment in alone.segments] == ["asr"]


@pytest.mark.parametrize(
    ("frames", "expected"),
    [
        (25, [("avsr", []), ("asr", ["the pictures have ended"])]),
        (50, [("avsr", ["the last picture stands for 0.24 s"])]),
        (52, [("avsr", [])]),
        (10, [("asr", ["the pictures have ended"])]),
    ],
)
def test_sound_that_goes_on_after_the_pictures_is_read(
    transcribe, tmp_path, speech, frames, expected
):
    """Of two segments, from 0.24 to 2.24 and from 3.24 to 5.24 s, the second has no pictures."""
    write_clip(tmp_path / "short.mp4", talking_head(frames, 160), samples=speech)
    segments = transcribe(tmp_path / "short.mp4", Options(beam=1)).segments
    expected = [*expected, ("asr", ["the pictures have ended"])]
    assert [segment.task for segment in segments] == [task for task, _ in expected]
    for segment, (_, notes) in zip(segments, expected, strict=True):
        assert segment.notes[: len(notes)] == notes
        assert "no face" not in segment.notes
    if len(segments) == 3:
        assert 0.7 <= segments[0].end <= 1.0
        assert segments[1].start == segments[0].end


def test_a_segment_is_divided_where_it_is_quietest(speech):
    """A second of pictures and two of noise with a pause from 0.72 to 0.8 s."""
    rng = np.random.default_rng(0)
    sound = rng.normal(0, 0.1, 32000).astype(np.float32)
    sound[round(0.72 * 16000) : round(0.8 * 16000)] *= 0.01
    piece = Piece(3.0, 5.0, sound, [np.full((2, 2), n, np.uint8) for n in range(25)], ["x"])
    before, after = divide(piece)
    assert 3.72 <= before.end <= 3.8
    assert (before.start, after.start, after.end) == (3.0, before.end, 5.0)
    np.testing.assert_array_equal(np.concatenate([before.speech, after.speech]), sound)
    assert len(before.speech) == 640 * len(before.frames)
    assert [frame[0, 0] for frame in before.frames] == list(range(len(before.frames)))
    assert (before.notes, after.notes) == (["x"], ["x", "the pictures have ended"])
    assert after.frames == []
    # Without sound it ends with the pictures, and without either it is none.
    assert [p.end for p in divide(replace(piece, speech=None))] == [4.0]
    assert divide(replace(piece, speech=None, frames=[])) == []


@pytest.fixture(scope="module")
def avsr_alone(training) -> Transcriber:
    """The same model, trained for AVSR alone."""
    folder = training.parent / "avsr_alone"
    folder.mkdir()
    values = yaml.safe_load((training / "config.yaml").read_text())
    values["model_conf"]["tasks"] = ["avsr"]
    (folder / "config.yaml").write_text(yaml.safe_dump(values))
    packed = pack(folder / "config.yaml", training / "model.pth", folder / "packed", INFO, "")
    return Transcriber.load(packed, tracker=load_tracker(str(LANDMARKS)))


def test_what_one_task_alone_cannot_read_is_said(avsr_alone, clips, tmp_path, speech):
    trained = "the model was trained for avsr alone"
    with pytest.raises(MediaError, match=rf"silent\.mp4: no audio, which avsr reads; {trained}"):
        avsr_alone(clips / "silent.mp4")
    with pytest.raises(MediaError, match=rf"sound\.mp4: no video, which avsr reads; {trained}"):
        avsr_alone(clips / "sound.mp4")
    with pytest.raises(MediaError, match=rf"faceless\.mp4: no face; not read: {trained}"):
        avsr_alone(clips / "faceless.mp4")
    write_clip(tmp_path / "mute.mp4", talking_head(60, 160), samples=np.zeros(38400))
    with pytest.raises(
        MediaError, match=rf"mute\.mp4: silent throughout; lips alone are not read: {trained}"
    ):
        avsr_alone(tmp_path / "mute.mp4")
    write_clip(tmp_path / "long.mp4", talking_head(150, 160), samples=speech[:32000])
    transcript = avsr_alone(tmp_path / "long.mp4", Options(beam=1))
    assert [segment.task for segment in transcript.segments] == ["avsr"]
    after = r"after the sound, from 2\.[01] s on, lips alone are not read: "
    assert re.fullmatch(after + trained, transcript.notes[0])
    write_clip(tmp_path / "short.mp4", talking_head(52, 160), samples=speech)
    first, second = avsr_alone(tmp_path / "short.mp4", Options(beam=1)).segments
    assert (first.task, second.task) == ("avsr", "")
    assert second.notes == ["the pictures have ended", f"not read: {trained}"]


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("a.mp4", {}),
        ("a.mkv", {}),
        ("a.mpg", {"codecs": ("mpeg2video", "mp2"), "rate": 48000}),
        ("a.avi", {"codecs": ("mpeg4", "libmp3lame")}),
        ("a.ts", {}),
        ("late.mp4", {"times": 0.5 + np.arange(60) / 25}),
        ("slow.mkv", {"fps": 10}),
        ("irregular.mp4", {"times": np.cumsum(np.tile([0.02, 0.04, 0.1], 20))}),
        ("h.h264", {"audio": False}),
    ],
)
def test_the_length_of_pictures_is_known_without_decoding_them(tmp_path, name, options):
    write_clip(tmp_path / name, num_frames=60, **options)
    count = sum(1 for _ in iter_video(tmp_path / name, grey=True, rate=25))
    assert video_seconds(tmp_path / name) == pytest.approx(count / 25, abs=0.081)


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
    (piece,) = read_pieces(tmp_path / "two.mp4", probe(tmp_path / "two.mp4"), [(0.0, 3.0)], {})
    cropper = MouthCropper(transcribe.crops, transcribe.tracker, None, transcribe.said)
    clip = cropper.prepare(piece)
    assert clip.notes == ["several faces"]
    change = np.abs(np.diff(clip.streams["lips"].astype(float), axis=0)).mean()
    quiet = cropper.prepare(replace(piece, speech=None))
    assert change > 3 * np.abs(np.diff(quiet.streams["lips"].astype(float), axis=0)).mean()
    # What the model makes of both comes first, where it is sure.
    sure = replace(cropper, said=lambda crops, speech: [-1.0, -9.0])
    assert np.array_equal(sure.prepare(piece).streams["lips"], quiet.streams["lips"])


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
    known = transcribe.model.pairs, transcribe.info
    for limit, rates in ((1.0, "a4_v2"), (0.8, "a4_v5"), (0.5, "a16_v5")):
        chosen = choose("avsr", Options(budget=Budget(limit)), *known)
        assert str(chosen.pair) == rates
    options = Options(beam=1, budget=Budget.parse("0.5"))
    assert usable(options, *known) == ["avsr"]
    transcript = transcribe(clips / "both.mp4", options)
    assert {segment.rates for segment in transcript.segments} == {"a16_v5"}
    best = "avsr a16_v5: 4.0 % WER on something, the best within 0.5 seconds per second of "
    assert transcript.notes == [best + "encoders and search"]
    with pytest.raises(ValueError, match=r"avsr: no rates keep to 0.1 .*a4_v2 0.9"):
        usable(Options(budget=Budget(0.1)), *known)
    assert Budget.parse("0.2tflops") == Budget(0.2, "tflops_per_second")
    with pytest.raises(ValueError, match="is no budget"):
        Budget.parse("fast")


def test_with_a_cascade_the_coarse_pass_counts(transcribe, clips, monkeypatch):
    """All may be doubtful: then it is read at a16_v5 and again, by the same encoders' output."""
    rows = [{**row, "encoder_seconds_per_second": 0.3} for row in ROWS]
    monkeypatch.setitem(transcribe.info, "rates", rows)
    monkeypatch.setitem(transcribe.info, "measured", "something")
    known = transcribe.model.pairs, transcribe.info
    # The search at the coarsest rates takes 0.4 - 0.3, which comes on top of all others.
    for limit, rates in ((1.01, "a4_v2"), (0.9, "a4_v5"), (0.7, "a16_v5"), (0.4, "a16_v5")):
        options = Options(budget=Budget(limit), cascade=0.5)
        assert str(choose("avsr", options, *known).pair) == rates
    with pytest.raises(ValueError, match=r"keep to 0.39 .* of a cascade; .*a4_v2 1, a4_v5 0.8"):
        usable(Options(task="avsr", budget=Budget(0.39), cascade=0.5), *known)
    options = Options(beam=1, task="avsr", budget=Budget(0.9), cascade=1.0)
    note, order = transcribe(clips / "both.mp4", options).notes
    assert order.startswith("avsr a16_v5 first, a4_v5 where")
    assert note.endswith("0.9 seconds per second of encoders and search with the coarse pass")
    # Where the encoders' share is not known, it counts twice.
    monkeypatch.setitem(transcribe.info, "rates", ROWS)
    options = Options(budget=Budget(1.0), cascade=0.5)
    assert str(choose("avsr", options, *known).pair) == "a16_v5"


@pytest.mark.parametrize(("threshold", "rates"), [(0.0, {"a16_v5"}), (1.0, {"a4_v2"})])
def test_a_cascade_reads_again_what_is_doubtful(transcribe, clips, threshold, rates):
    options = Options(beam=1, task="avsr")
    transcript = transcribe(clips / "both.mp4", replace(options, cascade=threshold))
    read = transcript.segments
    assert transcript.notes == [
        "avsr a4_v2, the finest rates",
        f"avsr a16_v5 first, a4_v2 where the confidence was below {threshold:g}",
    ]
    assert {segment.rates for segment in read} == rates
    again = [rates == {"a4_v2"}] * 2
    assert ["read again" in segment.notes for segment in read] == again
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
    (tmp_path / "more").mkdir()
    (tmp_path / ".hidden.mp4").write_text("x")
    for name in ("a b.mp4", "no suffix"):
        (tmp_path / name).write_bytes((clips / "silent.mp4").read_bytes())
    (tmp_path / "broken.MP4").write_text("x")
    found = [str(tmp_path / name) for name in ("a b.mp4", "broken.MP4", "no suffix")]
    assert command.find_recordings([str(tmp_path), "-"]) == [*found, "-"]
    said = capsys.readouterr().err
    assert f"{tmp_path}: passed over, as no recordings: more/, notes.txt\n" in said


def test_a_broken_recording_of_a_folder_is_a_failure(packed, clips, tmp_path, capsys):
    (tmp_path / "broken.mp4").write_text("no recording")
    (tmp_path / "good.mp4").write_bytes((clips / "sound.mp4").read_bytes())
    words = [tmp_path, "--model", packed, "--beam", "1", "--output", tmp_path / "out"]
    with pytest.raises(SystemExit) as stop:
        command.main(list(map(str, words)))
    assert stop.value.code == 1
    said = capsys.readouterr().err
    assert "1 of 2 recordings transcribed; not, or not to the end:\n" in said
    assert f"  {tmp_path / 'broken.mp4'}: corrupt or truncated file" in said
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["good.mp4.txt"]


def test_pieces_are_what_reading_the_whole_gives(clips):
    path = clips / "both.mp4"
    spans = [(0.2, 1.0), (1.0, 2.04), (4.0, 6.0)]
    audio, video = read_audio(path), read_video(path, grey=True, rate=25)
    for piece, (start, end) in zip(read_pieces(path, probe(path), spans, {}), spans, strict=True):
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
    rate, blocks = audio_blocks(tmp_path / "late.mp4", {})
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
    assert "4 of 7 recordings transcribed; not, or not to the end:" in said
    for name in ("text.mp4", "cut.mp4: sound read to", "nothing.mp4"):
        assert name in said.split("not to the end:")[1]
    written = sorted(path.name for path in (tmp_path / "out").iterdir())
    stems = ("both", "cut", "faceless", "silent", "sound")
    assert written == [f"{stem}.mp4.{kind}" for stem in stems for kind in ("json", "srt")]
    read = json.loads((tmp_path / "out" / "both.mp4.json").read_text())
    assert [segment["task"] for segment in read["segments"]] == ["avsr", "avsr"]
    assert read["model"] == "nothing"
    assert read["complete"]
    assert not json.loads((tmp_path / "out" / "cut.mp4.json").read_text())["complete"]


@pytest.fixture
def without_model(monkeypatch):
    """The command without a model; a test puts something in the place of ``transcribe_one``."""
    empty = SimpleNamespace(info={}, model=SimpleNamespace(pairs=()))
    monkeypatch.setattr(command.Transcriber, "load", lambda *_: empty)
    for name in ("usable", "check_faces"):
        monkeypatch.setattr(command, name, lambda *_: None)


@pytest.mark.usefixtures("without_model")
def test_transcripts_that_nobody_reads_end_the_command(monkeypatch):
    """As with ``| head``: the other recordings are not read, as each is printed when it is done."""
    read = []

    def transcribe_one(name, *_):
        read.append(name)
        return Transcript(name, [Segment(0, 1, "hello", 0.9, [], "asr", "a4")], [])

    monkeypatch.setattr(command, "transcribe_one", transcribe_one)
    reader, writer = os.pipe()
    os.close(reader)
    with open(writer, "w") as nobody, monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", nobody)
        with pytest.raises(BrokenPipeError):  # the output of this process itself is open
            command.main(["a.mp4", "b.mp4", "--model", "model"])
        os.dup2(os.open(os.devnull, os.O_WRONLY), writer)  # for what is left to be flushed
    assert read == ["a.mp4"]


@pytest.mark.usefixtures("without_model")
def test_a_broken_pipe_of_a_recording_is_one_of_its_faults(monkeypatch, capsys):
    def transcribe_one(name, *_):
        raise BrokenPipeError(32, "Broken pipe", name)

    monkeypatch.setattr(command, "transcribe_one", transcribe_one)
    with pytest.raises(SystemExit):
        command.main(["a.mp4", "b.mp4", "--model", "model"])
    told = capsys.readouterr().err
    assert "a.mp4: " in told
    assert "b.mp4: " in told


def test_a_terminal_shows_what_is_being_done(packed, clips, capsys, monkeypatch):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    options = ["--model", str(packed), "--beam", "1", "--task", "asr"]
    command.main([str(clips / "sound.mp4"), *options])
    bars = capsys.readouterr().err
    assert re.search(r"sound\.mp4: listening: .*/6\.\d", bars)
    assert re.search(r"sound\.mp4: reading: 100%", bars)


def test_what_is_doubtful_is_not_printed_as_if_it_were_sure(packed, clips, capsys):
    """A random model gives its words a low probability."""
    options = ["--model", str(packed), "--beam", "1", "--task", "asr"]
    command.main([str(clips / "sound.mp4"), *options])
    shown = capsys.readouterr()
    assert len(re.findall(r"^\[low confidence\] \S", shown.out, re.MULTILINE)) == 2
    assert f"model: nothing. {UNKNOWN}\n" in shown.err
    command.main([str(clips / "sound.mp4"), *options, "--doubtful", "keep"])
    assert capsys.readouterr().out == shown.out.replace("[low confidence] ", "")
    command.main([str(clips / "sound.mp4"), *options, "--doubtful", "drop"])
    dropped = capsys.readouterr()
    assert dropped.out == "\n"
    assert "low confidence in 2 of 2;" in dropped.err
    assert "; 2 of 2 left out of the text\n" in dropped.err


@pytest.fixture(scope="module")
def arrays(tmp_path_factory, speech) -> tuple[Path, Arrays]:
    """A file at 30 pictures and 22050 samples a second, without loss, and what is in it.

    It is grey, as decoding to colours cuts off what no screen can show.
    """
    path = tmp_path_factory.mktemp("arrays") / "a.mkv"
    sound = resample(speech, 16000, 22050)
    codecs = ("ffv1", "flac")
    head = talking_head(180, 160).mean(axis=3, keepdims=True).repeat(3, axis=3).astype(np.uint8)
    write_clip(path, head, fps=30, samples=sound, codecs=codecs, rate=22050)
    return path, Arrays(read_video(path), 30, read_audio(path, 22050), 22050)


def test_arrays_are_read_as_a_file_of_the_same_content(transcribe, arrays):
    path, recording = arrays
    spans = [(0.2, 1.0), (1.0, 2.04), (4.0, 6.0)]
    of_file = read_pieces(path, probe(path), spans, {})
    for ours, theirs in zip(
        read_pieces(recording, probe(recording), spans, {}), of_file, strict=True
    ):
        assert len(ours.frames) == len(theirs.frames)
        # A file's pictures have their grey values from its luma, arrays from colours.
        difference = np.stack(ours.frames).astype(int) - np.stack(theirs.frames)
        assert np.abs(difference).max() <= 2
        np.testing.assert_array_equal(ours.speech, theirs.speech)
    options = Options(beam=1)
    whole, read = transcribe(path, options), transcribe(recording, options)
    assert [s.task for s in read.segments] == ["avsr", "avsr"]
    assert [(s.start, s.end, s.text) for s in read.segments] == [
        (s.start, s.end, s.text) for s in whole.segments
    ]
    assert (read.source, read.notes, read.complete) == ("arrays", whole.notes, True)
    options = replace(options, task="asr")
    assert transcribe(recording, options).segments == transcribe(path, options).segments


def test_sound_is_read_of_any_type_and_number_of_channels(transcribe, arrays):
    _, recording = arrays
    mono = recording.sound
    expected = transcribe(Arrays(sound=mono, sample_rate=22050), Options(beam=1)).segments
    assert [segment.task for segment in expected] == ["asr", "asr"]
    other = np.random.default_rng(0).normal(0, 0.1, len(mono))
    stereo = np.stack([mono + other, mono - other])
    integers = np.rint(mono * 2**31).clip(-(2**31), 2**31 - 1).astype(np.int32)
    for sound in (stereo, integers, integers[None]):
        read = transcribe(Arrays(sound=sound, sample_rate=22050), Options(beam=1)).segments
        assert [(s.start, s.end, s.text) for s in read] == [
            (s.start, s.end, s.text) for s in expected
        ]


PICTURES, SOUND = np.zeros((5, 4, 4, 3), np.uint8), np.zeros(100)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "neither pictures nor sound"),
        ({"pictures": PICTURES[0], "frame_rate": 25}, r"pictures uint8 \(4, 4, 3\), not uint8"),
        ({"pictures": PICTURES / 2, "frame_rate": 25}, "pictures float64"),
        ({"pictures": PICTURES[:0], "frame_rate": 25}, "are empty"),
        ({"pictures": PICTURES}, "frame_rate None; give"),
        ({"sound": SOUND}, "sample_rate None; give"),
        ({"sound": SOUND, "sample_rate": 22050.5}, r"sample_rate 22050\.5"),
        ({"sound": SOUND.reshape(50, 2), "sample_rate": 16000}, "transpose it"),
        ({"sound": SOUND.astype(np.uint8), "sample_rate": 16000}, "sound uint8"),
        ({"sound": np.full(9, np.nan), "sample_rate": 16000}, "not finite"),
        ({"sound": SOUND[:0], "sample_rate": 16000}, "is empty"),
    ],
)
def test_arrays_that_cannot_be_meant_are_refused(arguments, message):
    with pytest.raises(ValueError, match=f"^mine: .*{message}"):
        Arrays(**arguments, name="mine")


def test_recordings_share_batches_and_are_read_as_by_themselves(
    transcribe, clips, arrays, tmp_path
):
    (tmp_path / "text.mp4").write_text("no recording")
    sources = [clips / "both.mp4", tmp_path / "text.mp4", arrays[1], clips / "sound.mp4"]
    options = Options(beam=1, task="auto")
    alone = {}
    for place in (0, 2, 3):
        alone[place] = transcribe(sources[place], options)
    runs = []
    hook = transcribe.model.norms["audio"].register_forward_hook(lambda *_: runs.append(1))
    together = list(transcribe.many([*sources, tmp_path / "nothing.mp4"], options))
    hook.remove()
    assert len(runs) == 2  # one batch of AVSR, one of ASR
    for place, transcript in alone.items():
        found = together[place]
        assert (found.source, found.notes) == (transcript.source, transcript.notes)
        assert [(s.start, s.end, s.task, s.text) for s in found.segments] == [
            (s.start, s.end, s.task, s.text) for s in transcript.segments
        ]
    assert [transcript.complete for transcript in together] == [True, False, True, True, False]
    assert together[1].segments == together[4].segments == []
    assert "corrupt" in together[1].notes[-1]
    assert "does not exist" in together[4].notes[-1]
    # In batches of three, a recording is given as soon as the next one has begun.
    lazily = transcribe.many(sources, replace(options, batch_size=3))
    assert [next(lazily).source, next(lazily).source] == ["both.mp4", "text.mp4"]
    assert [each.text for each in lazily] == [each.text for each in together[2:4]]


def test_no_recording_ends_the_others(packed, clips, monkeypatch):
    """Not for want of a landmark model either, which shows where pictures are read."""
    without = Transcriber.load(packed, tracker=load_tracker(str(LANDMARKS)))
    without.tracker = None
    names = ["sound.mp4", "both.mp4", "silent.mp4", "sound.mp4"]
    found = list(without.many([clips / name for name in names], Options(beam=1)))
    assert [transcript.source for transcript in found] == names
    assert [transcript.complete for transcript in found] == [True, False, False, True]
    for transcript in found[1:3]:
        assert transcript.segments == []
        assert "to find faces, dlib/" in transcript.notes[-1]
    assert found[3].text == found[0].text
    prepare, seen = MouthCropper.prepare, []

    def fail(self, piece):
        seen.append(piece)
        if len(seen) == 2:
            raise OSError(5, "Input/output error")
        return prepare(self, piece)

    monkeypatch.setattr(MouthCropper, "prepare", fail)
    half, whole = without.many([clips / "sound.mp4"] * 2, Options(beam=1))
    assert (len(half.segments), half.complete) == (1, False)
    assert re.fullmatch(r"read to [12]\.\d\d s: .*Input/output error", half.notes[-1])
    assert (len(whole.segments), whole.complete) == (2, True)


def test_what_the_page_shows_in_python_works(packed, clips, arrays, tmp_path, monkeypatch, capsys):
    page = (ROOT / "docs" / "transcribe.md").read_text()
    (block,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    shutil.copy(packed, tmp_path / "model.zip")
    for name in ("a.mp4", "b.mp4"):
        shutil.copy(clips / "sound.mp4", tmp_path / name)
    shutil.copy(clips / "both.mp4", tmp_path / "talk.mp4")
    (tmp_path / "downloads").symlink_to(DOWNLOADS)
    monkeypatch.chdir(tmp_path)
    recording = arrays[1]
    exec(block, {"pictures": recording.pictures, "sound": recording.sound})
    said = capsys.readouterr().out
    assert "a.mp4 True" in said
    assert "b.mp4 True" in said
    assert "talk.mp4 True" in said


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
        ([], "both.mp4 has pictures: to find faces, dlib/.*--only landmarks, or .*sound alone"),
        (["--downloads", "/nowhere"], "dlib/.* needed in /nowhere .*--only landmarks --downloads"),
        (["--cascade", "80"], "cascade 80 is a confidence"),
        (["--output", "/proc/nothing"], "/proc/nothing: no file can be written there"),
        (["--output", "/proc"], "--output /proc: no file can be written there .*name another"),
        (["--output", __file__], "no file can be written there .File exists"),
        (
            ["--format", "srt", "json"],
            "srt json of 1 recordings makes several files: give --output",
        ),
    ],
)
def test_what_cannot_be_done_is_said_before_anything_is_read(
    packed, clips, tmp_path, monkeypatch, capsys, options, message
):
    import torch

    monkeypatch.chdir(tmp_path)  # where there is no folder downloads

    if "cuda" in options and torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    with pytest.raises(SystemExit, match=message) as stop:
        command.main([str(clips / "both.mp4"), "--model", str(packed), *options])
    assert stop.value.code == 2  # 1 is for recordings
    assert re.search(f"^mome-transcribe: .*{message}", capsys.readouterr().err, re.MULTILINE)


@pytest.mark.parametrize(
    ("name", "options"),
    [("sound", []), ("sound", ["--downloads", "/nowhere"]), ("both", ["--task", "asr"])],
)
def test_what_needs_no_lips_is_read_without_what_finds_faces(
    packed, clips, tmp_path, monkeypatch, capsys, name, options
):
    monkeypatch.chdir(tmp_path)  # where there is no folder downloads
    command.main([str(clips / f"{name}.mp4"), "--model", str(packed), "--beam", "1", *options])
    assert "2 segments in" in capsys.readouterr().err


def test_what_is_wrong_with_a_recording_is_not_taken_for_what_finds_faces(
    packed, clips, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "text.mp4").write_text("no recording")
    names = [str(tmp_path / "text.mp4"), str(clips / "sound.mp4")]
    with pytest.raises(SystemExit) as stop:
        command.main([*names, "--model", str(packed), "--beam", "1"])
    assert stop.value.code == 1
    assert "1 of 2 recordings transcribed" in capsys.readouterr().err


def test_the_command_explains_itself():
    run = [sys.executable, "-m", "mome.bin.transcribe", "--help"]
    said = subprocess.run(run, capture_output=True, text=True, check=True, cwd=ROOT).stdout
    assert "mome-transcribe talk.mp4 --model grid.zip" in said
