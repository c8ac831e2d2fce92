"""Transcripts and the forms in which they are written: text, SRT, WebVTT, JSON."""

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from html import escape
from typing import Literal

DOUBTFUL = "low confidence"  # the note of a segment that is more likely wrong than right

Handling = Literal["mark", "drop", "keep"]


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
    """

    start: float
    end: float
    text: str
    confidence: float
    words: list[Word]
    task: str
    rates: str
    notes: list[str] = field(default_factory=list)

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


def shown(transcript: Transcript, doubtful: Handling) -> list[Segment]:
    """The segments with words, as a reader shall see them.

    Args:
        transcript: of a recording.
        doubtful: what becomes of doubtful segments: ``mark`` puts ``[low confidence]`` before their
            texts, ``drop`` leaves them out, ``keep`` shows them like others.
    """
    spoken = [segment for segment in transcript.segments if segment.text]
    if doubtful == "drop":
        return [segment for segment in spoken if not segment.doubtful]
    if doubtful == "keep":
        return spoken
    return [replace(s, text=f"[{DOUBTFUL}] {s.text}") if s.doubtful else s for s in spoken]


def as_text(transcript: Transcript, doubtful: Handling = "mark") -> str:
    """Plain text, a segment a line; ``doubtful`` as of :func:`shown`."""
    return "\n".join(segment.text for segment in shown(transcript, doubtful)) + "\n"


def as_srt(transcript: Transcript, doubtful: Handling = "mark") -> str:
    """SubRip subtitles; ``doubtful`` as of :func:`shown`."""
    cues = [
        f"{number}\n{clock(s.start, ',')} --> {clock(s.end, ',')}\n{s.text}\n"
        for number, s in enumerate(shown(transcript, doubtful), 1)
    ]
    return "\n".join(cues)


def as_vtt(transcript: Transcript, doubtful: Handling = "mark") -> str:
    """WebVTT subtitles; ``doubtful`` as of :func:`shown`."""
    cues = [
        f"{clock(s.start, '.')} --> {clock(s.end, '.')}\n{escape(s.text)}\n"
        for s in shown(transcript, doubtful)
    ]
    return "\n".join(["WEBVTT\n", *cues])


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
