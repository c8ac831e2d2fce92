"""The forms of transcripts, against what players and parsers expect."""

import json
from itertools import pairwise

import numpy as np
import pytest

from mome.transcribe.transcript import FORMATS, Cue, Segment, Transcript, Word, clock, cues

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


def spoken(*times: tuple[str, float, float], end: float) -> Transcript:
    """A transcript of one segment from 0 s to its end, of words with their times."""
    words = [Word(text, 0.3, start, stop) for text, start, stop in times]
    text = " ".join(word.text for word in words)
    segment = Segment(0.0, end, text, 0.3, words, "asr", "a4", ["low confidence"])
    return Transcript("talk.mp4", [segment], [])


def test_long_segments_are_several_subtitles():
    """Three sentences of three words each; the pauses between them are the longest."""
    words = [(f"w{n}", n + n // 3, n + n // 3 + 0.8) for n in range(9)]
    long = spoken(*words, end=12.0)
    assert cues(long, "keep") == [
        Cue(0.0, 4, "w0 w1 w2"),
        Cue(4, 8, "w3 w4 w5"),
        Cue(8, 12.0, "w6 w7 w8"),
    ]
    assert [cue.text.split()[:2] for cue in cues(long, "mark")] == [["[low", "confidence]"]] * 3


def test_subtitles_hold_all_words_in_order_and_two_lines_at_most():
    rng = np.random.default_rng(0)
    starts = np.cumsum(rng.uniform(0.1, 0.6, 120)).tolist()
    words = [("x" * int(rng.integers(1, 12)), start, start + 0.1) for start in starts]
    found = cues(spoken(*words, end=starts[-1] + 1), "keep")
    assert " ".join(cue.text for cue in found) == " ".join(text for text, *_ in words)
    assert all(len(cue.text) <= 84 and 0 < cue.end - cue.start <= 7 for cue in found)
    assert all(a.end == b.start for a, b in pairwise(found))
    assert (found[0].start, found[-1].end) == (0, starts[-1] + 1)


def test_a_segment_stays_whole_where_times_of_words_are_not_known():
    words = [Word("word", 0.9) for _ in range(60)]
    segment = Segment(0.0, 20.0, " ".join(["word"] * 60), 0.9, words, "asr", "a4")
    assert cues(Transcript("a", [segment], []), "mark") == [Cue(0.0, 20.0, segment.text)]
    # All of them in one window of compression leave nothing to divide either.
    same = [("word", 0.0, 20.0)] * 60
    assert len(cues(spoken(*same, end=20.0), "keep")) == 1


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
