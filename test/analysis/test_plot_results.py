"""Figures of saved scores."""

import json

import cv2
import pytest

from mome.analysis import result_figures
from mome.analysis.decoded import scores_by_condition
from mome.bin import plot_results


def score(wer: float) -> dict[str, float]:
    return {"wer": wer, "low": wer - 1, "high": wer + 2}


SCORES = {
    "avsr/test/a16_v5": score(6),
    "avsr/test/a4_v2": score(1),
    "avsr/test_babble_snr-5/a4_v2": score(13),
    "avsr/test_babble_snr-5/a16_v5": score(16),
    "avsr/test_babble_snr10/a4_v2": score(3),
    "avsr/test_babble_snr10/a16_v5": score(7),
    "avsr/test_swapvideo/a4_v2": score(50),
    "asr/test/a4": score(2),
    "asr/test_babble_snr-5/a4": score(41),
    "vsr/test/v2": score(20),
    "guess/random training sentence": score(80),
}


@pytest.fixture
def expdir(tmp_path):
    (tmp_path / "scores.json").write_text(json.dumps(SCORES))
    return tmp_path


def test_lines_hold_the_scores_of_their_sets(expdir):
    scores = scores_by_condition(expdir)
    lines, names = result_figures.by_snr(scores, "test", "babble")
    assert names == ["-5", "10", "clean"]
    wers = {key: [(place, each["wer"]) for place, each in line] for key, line in lines.items()}
    assert wers == {
        ("avsr", "a4_v2"): [(0, 13), (1, 3), (2, 1)],
        ("avsr", "a16_v5"): [(0, 16), (1, 7), (2, 6)],
        ("asr", "a4"): [(0, 41), (2, 2)],
        ("vsr", "v2"): [(0, 20), (1, 20), (2, 20)],
    }
    assert [pair for task, pair in lines if task == "avsr"] == ["a4_v2", "a16_v5"]
    rates = result_figures.by_rate(scores, "test")
    assert list(rates) == ["AVSR, audio 4", "AVSR, audio 16", "ASR", "VSR"]
    assert [tokens for tokens, _ in rates["AVSR, audio 16"]] == [50 / 16 + 5]


def test_figures_are_drawn_and_the_same_each_time(expdir):
    contents = []
    for _ in range(2):
        plot_results.main(["--expdir", str(expdir), "--noise", "babble"])
        files = sorted((expdir / "figures").iterdir())
        contents.append([file.read_bytes() for file in files])
    names = ["wer_by_rate", "wer_by_snr"]
    assert [file.name for file in files] == [f"{n}.{e}" for n in names for e in ("png", "svg")]
    assert contents[0] == contents[1]
    for file in files[::2]:
        assert (cv2.imread(str(file)) < 128).any()


@pytest.mark.parametrize(("unit", "name"), [("word", "WER (%)"), ("character", "CER (%)")])
def test_axes_say_which_error_rate_it_is(expdir, monkeypatch, unit, name):
    scores = {key: each | {"unit": unit} for key, each in SCORES.items()}
    (expdir / "scores.json").write_text(json.dumps(scores))
    drawn = []
    monkeypatch.setattr(result_figures, "save", lambda figure, *_: drawn.append(figure))
    plot_results.main(["--expdir", str(expdir), "--noise", "babble"])
    assert [figure.axes[0].get_ylabel() for figure in drawn] == [name, name]


def test_what_is_not_decoded_is_named(expdir, tmp_path):
    with pytest.raises(
        SystemExit, match="no set of test with speech is decoded; decoded are test,"
    ):
        plot_results.main(["--expdir", str(expdir), "--noise", "speech"])
    with pytest.raises(SystemExit, match="test2 is not decoded"):
        plot_results.main(["--expdir", str(expdir), "--test_set", "test2"])
    with pytest.raises(SystemExit, match=r"scores_x\.json does not exist; stage 5 writes it"):
        plot_results.main(["--expdir", str(expdir), "--decode_tag", "x"])
