"""The forms of transcripts, against what players and parsers expect."""

import json

import pytest

from mome.transcribe.transcript import FORMATS, Segment, Transcript, Word, clock

WORDS = [Word("hello", 0.9, 3725.5, 3725.9, (0.8, 0.7)), Word("wörld", 0.2)]
TRANSCRIPT = Transcript(
    "talk.mp4",
    [
        Segment(0.0, 2.0, "", 0.0, [], "", "", ["no face"]),
        Segment(3725.5, 3727.0, "hello wörld", 0.55, WORDS, "avsr", "a4_v2"),
        Segment(3727.9996, 3729.0, "again", 0.8, [Word("again", 0.8)], "asr", "a4"),
    ],
    ["no sound"],
)
UNSURE = Transcript(
    "talk.mp4",
    [
        Segment(0.0, 1.0, "yes", 0.9, [Word("yes", 0.9)], "asr", "a4", ["no face"]),
        Segment(1.0, 2.0, "a <b>", 0.1, [Word("a", 0.1)], "asr", "a4", ["low confidence"]),
        Segment(2.0, 3.0, "no", 0.8, [Word("no", 0.8)], "asr", "a4"),
    ],
    [],
)


def test_subtitles_number_what_is_said_and_nothing_else():
    assert FORMATS["srt"](TRANSCRIPT) == (
        "1\n01:02:05,500 --> 01:02:07,000\nhello wörld\n\n2\n01:02:08,000 --> 01:02:09,000\nagain\n"
    )
    assert FORMATS["vtt"](TRANSCRIPT) == (
        "WEBVTT\n\n01:02:05.500 --> 01:02:07.000\nhello wörld\n\n"
        "01:02:08.000 --> 01:02:09.000\nagain\n"
    )
    assert FORMATS["txt"](TRANSCRIPT) == "hello wörld\nagain\n"


@pytest.mark.parametrize(
    ("doubtful", "texts"),
    [
        ("mark", ["yes", "[low confidence] a <b>", "no"]),
        ("drop", ["yes", "no"]),
        ("keep", ["yes", "a <b>", "no"]),
    ],
)
def test_every_form_shows_what_is_doubtful(doubtful, texts):
    assert FORMATS["txt"](UNSURE, doubtful) == "\n".join(texts) + "\n"
    escaped = [text.replace("<", "&lt;").replace(">", "&gt;") for text in texts]
    vtt = FORMATS["vtt"](UNSURE, doubtful).split("\n\n")[1:]
    assert [cue.splitlines()[1] for cue in vtt] == escaped
    srt = FORMATS["srt"](UNSURE, doubtful).split("\n\n")
    assert [cue.splitlines()[2] for cue in srt] == texts
    assert [cue.splitlines()[0] for cue in srt] == [str(n + 1) for n in range(len(texts))]
    read = json.loads(FORMATS["json"](UNSURE, doubtful))
    assert read["text"].splitlines() == texts
    assert [segment["text"] for segment in read["segments"]] == ["yes", "a <b>", "no"]


def test_doubt_is_marked_unless_something_else_is_asked_for():
    for write in FORMATS.values():
        assert write(UNSURE) == write(UNSURE, "mark")


def test_json_holds_everything():
    read = json.loads(FORMATS["json"](TRANSCRIPT))
    assert read["text"] == "hello wörld\nagain"
    assert read["segments"][1]["words"][0] == {
        "text": "hello",
        "confidence": 0.9,
        "start": 3725.5,
        "end": 3725.9,
        "scores": [0.8, 0.7],
    }
    assert read["segments"][0]["notes"] == ["no face"]


def test_a_clock_carries_rounded_milliseconds():
    assert clock(59.9996, ".") == "00:01:00.000"
    assert clock(0, ",") == "00:00:00,000"
