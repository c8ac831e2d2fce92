"""Transcripts and the forms in which they are written: text, SRT, WebVTT, JSON."""

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from html import escape
from typing import Literal

DOUBTFUL = "low confidence"  # the note of a segment that is more likely wrong than right

Handling = Literal["mark", "drop", "keep"]

# What subtitles show at once, by the usual rules: two lines of 42 characters, for 7 s.
CUE_CHARACTERS = 84
CUE_SECONDS = 7.0


@dataclass(frozen=True)
class Word:
    """A word.

    Attributes:
        text: as written.
        confidence: how likely it is right, 0 to 1; see :mod:`mome.transcribe.confidence`.
        start, end: in seconds from the recording's beginning; None where the model cannot tell.
        scores: what the confidence is made of.
    """

    text: str
    confidence: float
    start: float | None = None
    end: float | None = None
    scores: tuple[float, ...] = ()


@dataclass(frozen=True)
class Segment:
    """What is said between two pauses.

    Attributes:
        start, end: in seconds from the recording's beginning.
        text: the transcript.
        confidence: how likely a word of it is right, 0 to 1; 0 without words.
        words: of the text, in order.
        task: ``avsr``, ``asr`` or ``vsr``: which streams were read; empty if none could be.
        rates: compression rates, such as ``a4_v2``.
        notes: what was unusual, such as that no face was found.
        detector: which found the face whose lips were read; empty where none were.
    """

    start: float
    end: float
    text: str
    confidence: float
    words: list[Word]
    task: str
    rates: str
    notes: list[str] = field(default_factory=list)
    detector: str = ""

    @property
    def doubtful(self) -> bool:
        """Whether it is more likely wrong than right."""
        return DOUBTFUL in self.notes


@dataclass(frozen=True)
class Transcript:
    """The transcript of a recording.

    Attributes:
        source: name of the recording.
        segments: in order of time.
        notes: what holds for all of it: why these rates, which streams there are.
        model: what the model was trained on, in words.
        complete: whether the recording could be read to its end.
    """

    source: str
    segments: list[Segment]
    notes: list[str]
    model: str = ""
    complete: bool = True

    @property
    def text(self) -> str:
        """What was read, a segment a line, also what is doubtful; :func:`as_text` marks that."""
        return "\n".join(segment.text for segment in self.segments if segment.text)


def shown(transcript: Transcript, doubtful: Handling) -> list[tuple[str, Segment]]:
    """The segments with words, each with what stands before its text.

    Args:
        transcript: of a recording.
        doubtful: what becomes of doubtful segments: ``mark`` puts ``[low confidence]`` before their
            texts, ``drop`` leaves them out, ``keep`` shows them like others.
    """
    mark = f"[{DOUBTFUL}] "
    return [
        (mark if segment.doubtful and doubtful == "mark" else "", segment)
        for segment in transcript.segments
        if segment.text and not (segment.doubtful and doubtful == "drop")
    ]


@dataclass(frozen=True)
class Cue:
    """A text that subtitles show from ``start`` to ``end``, in seconds."""

    start: float
    end: float
    text: str


def cues(transcript: Transcript, doubtful: Handling) -> list[Cue]:
    """The subtitles of a transcript; ``doubtful`` as of :func:`shown`.

    A segment that is too long to be shown at once is halved at the longest pause between words near
    its middle until it is not, if the times of all its words are known.
    """
    found = []
    for mark, segment in shown(transcript, doubtful):
        whole = Cue(segment.start, segment.end, segment.text)
        found += [replace(cue, text=mark + cue.text) for cue in split(whole, segment.words)]
    return found


def split(cue: Cue, words: Sequence[Word]) -> list[Cue]:
    """A subtitle of these words, in as many parts as it takes to show them."""
    if len(cue.text) <= CUE_CHARACTERS and cue.end - cue.start <= CUE_SECONDS:
        return [cue]
    times = [(w.start, w.end) for w in words if w.start is not None and w.end is not None]
    quarter = max(1, len(words) // 4)
    places = [
        place
        for place in range(quarter, len(words) - quarter + 1)
        if len(times) == len(words) and cue.start < times[place][0] < cue.end
    ]
    if not places:
        return [cue]
    cut = max(
        places,
        key=lambda place: (times[place][0] - times[place - 1][1], -abs(2 * place - len(words))),
    )
    parts = (cue.start, times[cut][0], words[:cut]), (times[cut][0], cue.end, words[cut:])
    return [
        each
        for start, end, inside in parts
        for each in split(Cue(start, end, " ".join(word.text for word in inside)), inside)
    ]


def as_text(transcript: Transcript, doubtful: Handling = "mark") -> str:
    """Plain text, a segment a line; ``doubtful`` as of :func:`shown`."""
    return "\n".join(mark + segment.text for mark, segment in shown(transcript, doubtful)) + "\n"


def as_srt(transcript: Transcript, doubtful: Handling = "mark") -> str:
    """SubRip subtitles, see :func:`cues`."""
    return "\n".join(
        f"{number}\n{clock(cue.start, ',')} --> {clock(cue.end, ',')}\n{cue.text}\n"
        for number, cue in enumerate(cues(transcript, doubtful), 1)
    )


def as_vtt(transcript: Transcript, doubtful: Handling = "mark") -> str:
    """WebVTT subtitles, see :func:`cues`."""
    blocks = [
        f"{clock(cue.start, '.')} --> {clock(cue.end, '.')}\n{escape(cue.text)}\n"
        for cue in cues(transcript, doubtful)
    ]
    return "\n".join(["WEBVTT\n", *blocks])


def as_json(transcript: Transcript, doubtful: Handling = "mark") -> str:
    """All that is known, as JSON; ``doubtful`` as of :func:`shown` is for the text as a whole."""
    values = asdict(transcript) | {"text": as_text(transcript, doubtful).rstrip("\n")}
    return json.dumps(values, indent=1, ensure_ascii=False) + "\n"


FORMATS: dict[str, Callable[[Transcript, Handling], str]] = {
    "txt": as_text,
    "srt": as_srt,
    "vtt": as_vtt,
    "json": as_json,
}


def clock(seconds: float, point: str) -> str:
    """A time as subtitles write it: 3725.5 -> 01:02:05.500, with ``point`` before milliseconds."""
    milliseconds = round(seconds * 1000)
    minutes, milliseconds = divmod(milliseconds, 60_000)
    hours, minutes = divmod(minutes, 60)
    return f"{hours:02}:{minutes:02}:{milliseconds // 1000:02}{point}{milliseconds % 1000:03}"
