"""mome-report and mome-plot-tokens on a packed model of random weights and made-up transcripts."""

import base64
import io
import json
import re
import shutil
from html.parser import HTMLParser

import av
import cv2
import numpy as np
import pytest
import torch
from media import talking_head

from mome.analysis import token_figure
from mome.analysis.report import playable
from mome.bin import plot_tokens, report
from mome.data import test_sets
from mome.data.audio import write_flac
from mome.data.kaldi import read_scp, write_scp
from mome.models.avsr import AVSRModel
from mome.tasks.packed import pack

PAIRS = ("a4_v2", "a16_v5")
NOISY = "valid_babble_snr-5"
WRONG = {"a4_v2": "place blue now then", "a16_v5": "place now"}
INFO = {"trained_on": "noise & nothing", "max_seconds": 6.0, "rates": []}


@pytest.fixture
def expdir(training, dump, tmp_path):
    """What stages 4 to 6 leave of a model: u1 is read wrong in noise."""
    folder = tmp_path / "exp"
    folder.mkdir()
    pack(training / "config.yaml", training / "model.pth", folder / "packed", INFO, "")
    shutil.copytree(dump / "valid", dump / NOISY)
    noise = {u: str(dump / NOISY / f"{u}.flac") for u in ("u0", "u1", "u2")}
    for path in noise.values():
        write_flac(path, np.zeros(16000, np.float32))
    write_scp(dump / NOISY / "wav.scp", noise)
    made_with = {"seed": 3, "speakers": 30, "train_set": "train"}
    test_sets.add_to_list(dump, {test_sets.parse(NOISY): made_with})
    scores = {}
    right = dict.fromkeys(("u0", "u1", "u2"), "place red now")
    for name in ("valid", NOISY):
        for pair in PAIRS:
            said = right | ({"u1": WRONG[pair]} if name == NOISY else {})
            of_pair = folder / "decode/avsr" / name / pair
            write_scp(of_pair / "text", said)
            settings = {"beam": 3, "max_new_tokens": 8, "length_penalty": 0.5}
            settings["weights"] = "0123456789abcdef"
            (of_pair / "decode.json").write_text(json.dumps({"settings": settings}))
            scores[f"avsr/{name}/{pair}"] = {"wer": 1.5, "low": 0.5, "high": 2.5}
    (folder / "scores.json").write_text(json.dumps(scores))
    shutil.copy(training / "config.yaml", folder)
    losses = ", ".join(f"loss_avsr_{pair}=0.5" for pair in PAIRS)
    (folder / "log").write_text(
        f"[vm] 2026-01-01 00:00:00,000 (trainer:392) INFO: 1epoch results: [train] loss=1.0, "
        f"time=1 second, total_count=5, [valid] {losses}, time=1 second, total_count=1\n"
    )
    return folder


class Balanced(HTMLParser):
    """Collects the tags that are open, and refuses an end tag that does not fit."""

    def __init__(self):
        super().__init__()
        self.open: list[str] = []
        self.seen: list[str] = []

    def handle_starttag(self, tag, attrs):
        self.seen.append(tag)
        if tag not in ("meta", "img", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def write_report(expdir, dump, *options: str) -> str:
    """The page."""
    folders = ["--expdir", str(expdir), "--dump", str(dump), "--test_set", "valid"]
    report.main([*folders, *options])
    return (expdir / "report/report.html").read_text()


def test_the_page_holds_tables_figures_and_clips(expdir, dump, monkeypatch):
    monkeypatch.delenv("MOME_DOWNLOADS")  # the training's configuration says where the parts are
    html = write_report(expdir, dump, "--clips", "2")
    parser = Balanced()
    parser.feed(html)
    assert parser.open == []
    assert "Trained on noise &amp; nothing." in html
    noise = "Noise babble: up to 30 voices of train, seed 3."
    search = "Beam 3, at most 8 new tokens, length penalty 0.5."
    assert f"{search} Weights: SHA-256 0123456789ab. {noise}" in html
    assert html.count("1.5 [0.5, 2.5]") == 4
    assert "Not drawn" not in html
    assert parser.seen.count("img") == 5  # by rate, by noise, training, experts, tokens
    assert parser.seen.count("video") == 4  # two clips, clean and noisy
    # Another one is drawn at random; the wrong one is shown either way.
    assert html.count("of those with most errors") + html.count("drawn at random") == 2
    assert html.count("<td> place <mark>blue</mark> now <mark>then</mark></td>") == 1
    assert html.count("<td> place <del>red</del> now</td>") == 1
    assert html.count("<td> place red now</td>") == 6
    for file in ("wer_by_rate", "wer_by_snr", "experts", "tokens"):
        assert (cv2.imread(str(expdir / f"report/{file}.png")) < 128).any()


def test_what_cannot_be_drawn_is_said(expdir, dump, capsys):
    shutil.rmtree(expdir / "packed")
    html = write_report(expdir, dump)
    assert html.count("Not drawn: ") == 2
    assert "Not drawn: Experts. mome-plot-experts: " in capsys.readouterr().out
    assert "The model is not packed; stage 6 does it." in html


def test_figures_for_which_memory_does_not_suffice_are_named(expdir, dump, monkeypatch):
    monkeypatch.setattr(AVSRModel, "encode", lambda self, **batch: torch.empty(2**55))
    html = write_report(expdir, dump)
    assert html.count("Not drawn: ") == 2
    assert "Not drawn: Tokens. mome-plot-tokens: out of memory with the utterances u0: " in html


@pytest.mark.parametrize(
    ("break_it", "message"),
    [
        (lambda exp, dump: (exp / "scores.json").unlink(), "scores.json does not exist; stage 5"),
        (
            lambda exp, dump: (exp / "decode/avsr/valid/a4_v2/text").unlink(),
            "a4_v2/text does not exist; stage 5",
        ),
        (lambda exp, dump: (dump / "valid/u1.mp4").unlink(), "u1.mp4 does not exist"),
    ],
)
def test_what_is_missing_is_named(expdir, dump, break_it, message):
    break_it(expdir, dump)
    with pytest.raises(SystemExit, match=rf"mome-report: .*{message}"):
        write_report(expdir, dump, "--clips", "3")


def test_another_test_set_than_decoded(expdir, dump):
    with pytest.raises(SystemExit, match=rf"other is not decoded, but valid, {NOISY}; stage 5"):
        report.main(["--expdir", str(expdir), "--dump", str(dump), "--test_set", "other"])


def test_players_have_the_pictures_and_the_sound_of_their_set(expdir, dump):
    shutil.rmtree(expdir / "packed")  # by which two figures are drawn
    html = write_report(expdir, dump, "--clips", "1")
    clean, noisy = re.findall(r'<video src="data:video/mp4;base64,([^"]*)"', html)
    loudness = []
    for text in (clean, noisy):
        with av.open(io.BytesIO(base64.b64decode(text))) as container:
            frames = list(container.decode(video=0))
            container.seek(0)
            sound = [frame.to_ndarray() for frame in container.decode(audio=0)]
        assert len(frames) >= 25
        assert (frames[0].width, frames[0].height) == (192, 192)
        loudness.append(np.abs(np.concatenate(sound, axis=1)).mean())
    assert loudness[0] > 0.05
    assert loudness[1] < 0.001


def test_a_clip_without_a_stream_is_played_with_the_other():
    frames, samples = np.zeros((5, 96, 96), np.uint8), np.zeros(3200, np.float32)
    for streams, kinds in (((frames, None), ["video"]), ((None, samples), ["audio"])):
        with av.open(io.BytesIO(playable(*streams))) as container:
            assert [stream.type for stream in container.streams] == kinds


def test_a_page_that_is_made_again_is_the_same():
    """Where x264 looks ahead by its own rules, it writes other bytes each time."""
    head = talking_head(40, 192)[:, 48:144, 48:144, 0]
    frames = np.ascontiguousarray(head, dtype=np.uint8)
    samples = np.random.default_rng(0).normal(0, 0.1, 25600).astype(np.float32)
    assert len({playable(frames, samples) for _ in range(4)}) == 1


def test_similarity_is_that_of_each_two_tokens():
    one, other = torch.randn(3, 8), torch.randn(4, 8)
    found = token_figure.similarity(one, other)
    for row in range(3):
        for column in range(4):
            wanted = torch.cosine_similarity(one[row], other[column], dim=0)
            torch.testing.assert_close(found[row, column], wanted)


def test_tokens_of_a_sentence_are_drawn_and_others_named(expdir, dump, tmp_path):
    options = ["--model", expdir / "packed", "--dump", dump, "--set", "valid"]
    options += ["--output", tmp_path / "out", "--utterance"]
    plot_tokens.main([str(option) for option in [*options, "u1"]])
    assert (cv2.imread(str(tmp_path / "out/tokens.png")) < 128).any()
    with pytest.raises(SystemExit, match=r"mome-plot-tokens: .*valid/text has no utterance u9"):
        plot_tokens.main([str(option) for option in [*options, "u9"]])


def test_tokens_have_the_rates_lengths(training, dump):
    from mome.transcribe.prepared import read_clips
    from mome.transcribe.transcriber import Transcriber

    packed = pack(training / "config.yaml", training / "model.pth", dump / "packed", INFO, "")
    transcribe = Transcriber.load(packed)
    clips, _ = read_clips(dump / "valid", None, transcribe.model, ["u2"])  # 27 pictures, 1.08 s
    tokens = token_figure.tokens_of(transcribe.model, transcribe.encode(clips, "avsr"))
    assert {name: len(each) for name, (each, _) in tokens.items()} == {
        "a4": 14,
        "a16": 4,
        "v2": 14,
        "v5": 6,
    }
    assert {name: seconds for name, (_, seconds) in tokens.items()} == {
        "a4": 0.08,
        "a16": 0.32,
        "v2": 0.08,
        "v5": 0.2,
    }
    assert list(read_scp(dump / "valid/text")) == ["u0", "u1", "u2"]
