"""mome-pack on prepared sets: what it measures, for models that read one stream too."""

import json
import zipfile

import numpy as np
import pytest
import torch
import yaml

from mome.bin import pack as command
from mome.data.kaldi import write_scp
from mome.llm.beam import beam_search
from mome.tasks.avsr import load_model
from mome.tasks.build import build_model
from mome.tasks.config import namespace
from mome.tasks.packed import load_packed
from mome.transcribe import measurement
from mome.transcribe.clips import Clip
from mome.transcribe.confidence import LOW, Calibration
from mome.transcribe.options import Options
from mome.transcribe.prepared import read_clips
from mome.transcribe.transcriber import Transcriber
from mome.transcribe.transcript import Segment, Word

TASKS = {"vsr": ["v2", "v5"], "asr": ["a4", "a16"]}


@pytest.mark.parametrize("task", list(TASKS))
def test_a_model_of_one_stream_is_measured_on_that_stream_alone(training, dump, tmp_path, task):
    values = yaml.safe_load((training / "config.yaml").read_text())
    values["model_conf"]["tasks"] = [task]
    if task == "asr":
        values |= {"video_encoder": None, "video_encoder_conf": {}}
    crops = {"detector": "dlib", "landmarks": {"dlib": {"a.dat": "0a" * 32}}, "clips": {"dlib": 3}}
    (dump / "train" / "crops.json").write_text(json.dumps(crops))
    expdir = tmp_path / "exp" / "one"
    expdir.mkdir(parents=True)
    (expdir / "config.yaml").write_text(yaml.safe_dump(values))
    model = build_model(namespace(values))
    torch.save(model.state_dict(), expdir / "valid.acc.best.pth")
    for name in ("train", "valid"):  # stage 2 prepares what the tasks read
        (dump / name / ("wav.scp" if task == "vsr" else "lip.scp")).unlink()
    options = ["--expdir", expdir, "--dump", dump, "--trained_on", "noise", "--beam", "1"]
    command.main([str(word) for word in (*options, "--output", tmp_path / "packed.zip")])
    parts = training.parent / "lips"  # beside another training than the one that is packed
    packed, _, info = load_packed(tmp_path / "packed.zip", downloads=[parts])
    assert list(packed.pairs) == [task]
    assert [row["rates"] for row in info["rates"]] == TASKS[task]
    for row in info["rates"]:
        assert 0 < row["encoder_tflops_per_second"] < row["tflops_per_second"]
        assert 0 < row["encoder_seconds_per_second"] < row["seconds_per_second"]
    assert info["max_seconds"] == 1.08
    assert info["max_new_tokens"] == 32
    # What cut the lips is told of models that read lips.
    assert info.get("crops") == (crops if task == "vsr" else None)
    with zipfile.ZipFile(tmp_path / "packed.zip") as archive:
        told = archive.read("README.md").decode()
    lips = "**Lips:** cut by dlib (a.dat, SHA-256 0a0a0a0a0a0a), 3 of 3 clips."
    assert (lips in told) == (task == "vsr")
    calibration = json.loads(json.dumps(info["calibration"]))
    assert calibration["unknown_parts"] > 0
    assert 0 <= calibration["unknown_doubtful"] <= 1


def test_a_model_is_measured_with_the_limit_of_tokens_of_its_users(
    single, dump, tmp_path, monkeypatch
):
    write_scp(dump / "train/text", {"u0": " ".join(["now"] * 60)})
    limits = set()

    def search(*args, **options):
        limits.add(options["max_new_tokens"])
        return beam_search(*args, **options)

    monkeypatch.setattr("mome.llm.beam.beam_search", search)
    options = ["--expdir", single, "--weights", "model.pth", "--dump", dump, "--beam", "1"]
    options += ["--trained_on", "noise", "--output", tmp_path / "packed", "--max_clips", "2"]
    command.main([str(word) for word in options])
    info = json.loads((tmp_path / "packed/mome.json").read_text())
    assert info["max_new_tokens"] > 64
    assert limits == {info["max_new_tokens"]}


def test_loops_are_forbidden_to_the_users_of_a_packed_model(single, dump, tmp_path, monkeypatch):
    """As in the measurement, and in decoding."""
    sizes = []

    def search(*args, **options):
        sizes.append(options["no_repeat_ngram_size"])
        return beam_search(*args, **options)

    monkeypatch.setattr("mome.llm.beam.beam_search", search)
    words = ["--expdir", single, "--weights", "model.pth", "--dump", dump, "--beam", "1"]
    words += ["--trained_on", "noise", "--output", tmp_path / "packed", "--max_clips", "2"]
    with pytest.raises(SystemExit, match="--no_repeat_ngram_size -1 must be 0 or more"):
        command.main([str(word) for word in (*words, "--no_repeat_ngram_size", -1)])
    command.main([str(word) for word in (*words, "--no_repeat_ngram_size", 1)])
    assert set(sizes) == {1}
    assert json.loads((tmp_path / "packed/mome.json").read_text())["no_repeat_ngram_size"] == 1
    sizes.clear()
    transcribe = Transcriber.load(tmp_path / "packed", downloads=[single.parent / "lips"])
    clips, _ = read_clips(dump / "valid", 1, transcribe.model)
    transcribe.transcribe(clips, Options(beam=1))
    assert sizes == [1]
    transcribe.info.pop("no_repeat_ngram_size")  # of models that were packed before
    assert Transcriber(transcribe.model, transcribe.conf, transcribe.info).no_repeat_ngram_size == 0


def test_words_are_right_as_they_are_scored():
    """A model that was trained on transcripts with punctuation writes it."""
    words = [Word(text, 0.5) for text in ("Place,", "“RED”", "at", "...", "rock-n-roll", "Now.")]
    segment = Segment(0, 1, "", 0.5, words, "asr", "a4")
    scores, right = measurement.judge("Place, red: in rocknroll now!", segment, spelled=False)
    assert right == [True, True, False, False, True, True]
    assert len(scores) == 6


def test_characters_are_right_where_there_are_no_blanks_between_words():
    """A "word" may be the whole segment, of which a single character is wrong."""
    words = [Word("今天天汽好。", 0.5, scores=(0.3, 0.2)), Word("OK", 0.5, scores=(0.9, 0.8))]
    segment = Segment(0, 1, "", 0.5, words, "asr", "a4")
    scores, right = measurement.judge("今天天气好 ok!", segment, spelled=True)
    assert right == [True, True, True, False, True, True]
    assert scores == [(0.3, 0.2)] * 5 + [(0.9, 0.8)]
    assert measurement.judge("", segment, spelled=True) == (scores, [False] * 6)


def test_clips_are_taken_evenly(dump, training):
    model, _ = load_model(training / "config.yaml", training / "model.pth")
    clips, texts = read_clips(dump / "valid", 2, model)
    assert [round(clip.end, 2) for clip in clips] == [1.0, 1.04]
    assert len(texts) == 2
    (dump / "valid" / "text").write_text("")
    with pytest.raises(ValueError, match="has no utterances"):
        read_clips(dump / "valid", 2, model)


def test_what_is_in_the_way_is_said_before_anything_is_measured(training, dump, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("x")
    options = ["--expdir", training, "--weights", "model.pth", "--dump", dump]
    options += ["--trained_on", "noise", "--output", tmp_path / "mine"]
    with pytest.raises(SystemExit, match="mine holds other files"):
        command.main([str(word) for word in options])


def test_a_clip_played_backwards_has_all_its_streams_reversed():
    speech, lips = np.arange(5.0), np.arange(12).reshape(3, 2, 2)
    clip = measurement.backwards(Clip(1.0, 2.0, {"speech": speech, "lips": lips}, ["late"]))
    assert (clip.start, clip.end, clip.notes) == (1.0, 2.0, ["late"])
    assert clip.streams["speech"].tolist() == [4, 3, 2, 1, 0]
    assert np.array_equal(clip.streams["lips"], lips[[2, 1, 0]])


def test_what_is_not_known_becomes_doubtful_and_what_is_stays_sure():
    """The LLM is sure of all of it; the posterior knows better, though not of every word."""
    rng = np.random.default_rng(0)

    def segments(count: int, posterior: float) -> list[list[tuple[float, float]]]:
        odds = rng.normal([6, posterior], [2, 3], (count, 6, 2))
        return [[tuple(word) for word in segment] for segment in 1 / (1 + np.exp(-odds))]

    known, unknown = segments(80, 4), segments(80, -3)
    # Of some there is no posterior, as they have more tokens than windows.
    unknown += [[(score,) for score, _ in scores] for scores in segments(20, -3)]
    right = [(rng.random(6) < 0.97).tolist() for _ in known]
    # A clip is read in two rows, and played backwards in as many or more.
    readings = [
        measurement.Reading(number % 2, number // 2, scores, hits)
        for number, (scores, hits) in enumerate(zip(known, right, strict=True))
    ]
    reversed_ = [
        measurement.Reading(number % 2, number % 40, scores, [False] * len(scores))
        for number, scores in enumerate(unknown)
    ]
    rows = [{"task": "avsr", "rates": rates} for rates in ("a4_v2", "a16_v5")]
    found = measurement.calibrate(measurement.Measured(rows, readings, reversed_))
    assert found["words"] == 480
    assert found["utterances"] == 80
    assert found["unknown_parts"] == 100
    assert found["unknown_doubtful"] > 0.95
    assert found["word_ece"] < 0.05
    assert found["utterance_ece"] < 0.1
    for row in rows:
        assert 0 < row["word_ece"] < 0.1
        assert 0 < row["utterance_ece"] < 0.15
    calibration = Calibration.from_json(json.loads(json.dumps(found["lines"])))
    assert set(calibration.lines) == {1, 2}
    sure = [np.mean(calibration(scores)) for scores in segments(300, 4)]
    assert np.mean(sure) > 0.9
    assert np.mean([value < LOW for value in sure]) <= 0.04
