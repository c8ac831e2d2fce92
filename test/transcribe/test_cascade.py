"""Cascades of rates: the encoders' output is read again, and what that costs is counted."""

import json

import cv2
import numpy as np
import pytest
import torch

from mome.analysis.cascade import Read, by_chance, cascade, choose, curve
from mome.bin import measure_cascade
from mome.data.kaldi import read_scp, write_scp
from mome.tasks.packed import pack
from mome.transcribe.measurement import read_clips
from mome.transcribe.options import Options
from mome.transcribe.transcriber import Transcriber, select
from mome.transcribe.transcript import Segment

WORDS = np.array([4, 2, 4])
ENCODERS = np.array([0.4, 0.6, 0.5])
COARSE = Read(np.array([1, 2, 0]), np.array([0.9, 0.2, 0.6]), np.array([0.2, 0.3, 0.25]))
FINE = Read(np.array([1, 0, 1]), np.array([0.9, 0.9, 0.9]), np.array([1.0, 1.5, 0.5]))


def test_what_is_doubtful_is_read_again_and_paid_for():
    point = cascade(COARSE, FINE, WORDS, ENCODERS, 0.5)
    assert point.share == pytest.approx(1 / 3)
    assert point.wer == pytest.approx(10.0)  # 1 + 0 + 0 errors of 10 words
    assert point.tflops == pytest.approx(0.5 + 0.25 + 1.5 / 3)  # the second, which is long
    chance = by_chance(COARSE, FINE, WORDS, ENCODERS, point.share)
    assert chance.wer == pytest.approx(30 - 10 / 3)
    assert chance.tflops == pytest.approx(0.5 + 0.25 + 1 / 3)


def test_the_curve_goes_from_coarse_to_fine():
    points = curve(COARSE, FINE, WORDS, ENCODERS)
    assert [point.wer for point in points] == pytest.approx([30, 10, 20, 20])
    assert [point.share for point in points] == pytest.approx([0, 1 / 3, 2 / 3, 1])
    assert points[-1].tflops == pytest.approx(0.5 + 0.25 + 1.0)
    assert choose(points, 20.0).wer == pytest.approx(10)  # the cheapest that is good enough
    assert choose(points, 5.0).wer == pytest.approx(10)  # the best there is
    assert choose(points, 50.0).share == 0


@pytest.fixture
def packed(training, tmp_path):
    """A packed model of random weights."""
    info = {"trained_on": "noise", "max_seconds": 6.0, "rates": []}
    return pack(training / "config.yaml", training / "model.pth", tmp_path / "packed", info, "")


def test_encoders_run_once_and_rows_are_read_as_by_themselves(packed, dump):
    transcribe = Transcriber.load(packed)
    clips, _ = read_clips(dump / "valid", 3, transcribe.model)
    runs = []
    transcribe.model.norms["audio"].register_forward_hook(lambda *_: runs.append(1))
    options = Options(task="avsr", beam=1, cascade=1.0)
    again = transcribe.search_cascade(clips, "avsr", options)
    assert len(runs) == 1
    alone = [transcribe.search_cascade([clip], "avsr", options)[0] for clip in clips]
    assert [(each.text, each.rates) for each in again] == [(a.text, a.rates) for a in alone]
    assert {each.rates for each in again} == {"a4_v2"}


def test_errors_are_those_of_stage_5_also_without_blanks_between_words(packed, dump, monkeypatch):
    """Of eleven clips, whose numbers sort otherwise as words."""
    folder = dump / "valid"
    for file in ("text", "wav.scp", "lip.scp"):
        (value, *_) = read_scp(folder / file).values()
        write_scp(folder / file, {f"u{number:02}": value for number in range(11)})
    write_scp(folder / "text", {f"u{n:02}": "今天天气好" if n == 2 else "好" for n in range(11)})
    transcribe = Transcriber.load(packed)
    found = Segment(0, 1, "今天天气坏", 0.5, [], "avsr", "a4_v2")
    monkeypatch.setattr(transcribe, "search", lambda group, *_: [found] * len(group))
    chosen = [transcribe.model.task_pairs[0]]
    costs = measure_cascade.Costs(transcribe.model, "avsr")
    monkeypatch.setattr(costs, "of_length", lambda *_: 1.0)
    reads, words, _ = measure_cascade.read_set(transcribe, folder, chosen, costs, 1)
    assert words.tolist() == [5 if n == 2 else 1 for n in range(11)]
    assert reads[str(chosen[0].pair)].errors.tolist() == [1 if n == 2 else 5 for n in range(11)]


def test_the_command_measures_a_packed_model(packed, dump, tmp_path, capsys):
    output = tmp_path / "out" / "cascade.json"
    options = ["--model", packed, "--dump", dump, "--test_sets", "valid", "--output", output]
    measure_cascade.main(list(map(str, options)))
    found = json.loads(output.read_text())
    assert (found["coarse"], found["fine"]) == ("a16_v5", "a4_v2")
    of_set = found["sets"]["valid"]
    assert list(of_set["fixed"]) == ["a4_v2", "a4_v5", "a16_v2", "a16_v5"]
    fixed = {pair: cost["tflops"] for pair, cost in of_set["fixed"].items()}
    assert fixed["a4_v2"] > fixed["a4_v5"] > fixed["a16_v5"] > 0
    # The ends of the curve are the fixed pairs' error rates.
    assert of_set["curve"][-1]["threshold"] is None
    ends = of_set["curve"][0], of_set["curve"][-1]
    assert [end["wer"] for end in ends] == [of_set["fixed"][p]["wer"] for p in ("a16_v5", "a4_v2")]
    out = capsys.readouterr().out
    assert "| share | WER | TFLOPs |" in out
    assert "| valid | a16_v5 | a4_v2, doubtful |" in out
    assert (cv2.imread(str(output.with_suffix(".png"))) < 128).any()
    with pytest.raises(SystemExit, match="does not exist"):
        measure_cascade.main(["--model", str(tmp_path / "x"), *map(str, options[2:])])


def test_tensors_of_the_chosen_rows_lose_the_padding_of_the_others():
    frames = torch.arange(24.0).reshape(3, 4, 2)
    chosen, lengths = select({"audio": (frames, torch.tensor([4, 2, 1]))}, [2, 1])["audio"]
    assert lengths.tolist() == [1, 2]
    torch.testing.assert_close(chosen, frames[[2, 1], :2])
