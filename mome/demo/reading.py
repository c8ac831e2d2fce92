"""What the page shows of a recording: what is read of it, and transcripts at every rate."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from mome.analysis.routing import expert_shares
from mome.data.audio import RATE
from mome.data.augment import add_noise
from mome.data.noise import AUDIO_SUFFIXES, MUSAN_FOLDERS, read_whole, speech_shaped
from mome.data.video import LIP_RATE, LIP_SIZE, MediaError
from mome.models.avsr import Features
from mome.models.rates import TaskPair
from mome.tasks.data_folders import streams_of
from mome.transcribe.choice import finest
from mome.transcribe.clips import Clip
from mome.transcribe.options import Options
from mome.transcribe.transcriber import Transcriber
from mome.transcribe.transcript import Segment

SHAPED = "speech-shaped"

Noises = Mapping[str, Sequence[Path]]


@dataclass(frozen=True)
class Read:
    """What was read of a recording.

    Attributes:
        name: of the recording.
        clips: its segments.
        notes: what was unusual.
    """

    name: str
    clips: list[Clip]
    notes: list[str]

    def has(self, stream: str) -> bool:
        """Whether a segment has ``speech`` or ``lips``."""
        return any(stream in clip.streams for clip in self.clips)

    def joined(self, stream: str) -> np.ndarray:
        """``speech`` (N,) or ``lips`` (T, 96, 96) of all segments that have it, joined.

        Raises:
            ValueError: if none has.
        """
        parts = [clip.streams[stream] for clip in self.clips if stream in clip.streams]
        if not parts:
            raise ValueError(f"no segment has {stream}")
        return np.concatenate(parts)


@dataclass(frozen=True)
class Row:
    """A recording as it is transcribed by a task at a rate pair.

    Attributes:
        chosen: the task and its rates.
        tokens: ``audio`` and ``video`` tokens that the LLM reads, of streams that the task reads.
        seconds: that encoders, search and alignment took.
        segments: the transcript; None for a segment without the streams.
    """

    chosen: TaskPair
    tokens: dict[str, int]
    seconds: float
    segments: list[Segment | None]

    @property
    def confidence(self) -> float | None:
        """Mean over the words; None without words."""
        sure = [word.confidence for each in self.segments if each for word in each.words]
        return float(np.mean(sure)) if sure else None


def find_noises(paths: Sequence[Path], downloads: Sequence[Path]) -> dict[str, list[Path]]:
    """The kinds of noise that can be added, with their recordings.

    Args:
        paths: recordings, or folders of them at any depth; a kind each, by its name.
        downloads: MUSAN's kinds are taken from a folder ``musan`` in these if there is one.

    Returns:
        kind -> recordings. The first is ``speech-shaped``, which needs none.

    Raises:
        ValueError: for what is not there, or a folder without .wav and .flac.
    """
    kinds: dict[str, list[Path]] = {SHAPED: []}
    musan = [folder / "musan" / kind for folder in downloads for kind in MUSAN_FOLDERS]
    for path in [*paths, *(folder for folder in musan if folder.is_dir())]:
        files = [path]
        if path.is_dir():
            files = sorted(p for p in path.rglob("*") if p.suffix.lower() in AUDIO_SUFFIXES)
        if not files or not files[0].is_file():
            raise ValueError(f"{path} is no recording of noise, and no folder with .wav or .flac")
        kinds.setdefault(path.stem, []).extend(files)
    return kinds


def read(
    transcribe: Transcriber, path: Path, options: Options, max_seconds: float | None = None
) -> Read:
    """Cut a recording into segments and crop the mouth of whoever speaks.

    Args:
        transcribe: the model.
        path: any file that FFmpeg reads.
        options: how.
        max_seconds: segments that end later are left out, but never the first.

    Raises:
        FileNotFoundError, MediaError: for a file that cannot be read.
        ValueError: for options that do not fit the model.
    """
    recording = transcribe.open(path, options)
    notes = list(recording.notes)
    ends = [end for _, end in recording.spans]
    if max_seconds is not None:
        ends = ends[: max(1, sum(end <= max_seconds for end in ends))]
    whole = len(ends) == len(recording.spans)
    clips: list[Clip] = []
    for clip in recording.clips:
        clips.append(clip)
        if not whole and clip.end >= ends[-1]:
            break
    if not whole:
        notes.append(f"only the first {ends[-1]:g} s are read")
    notes += recording.damage.values()
    if recording.damage and not clips:
        raise MediaError(path, "; ".join(recording.damage.values()))
    faceless = sum("no face" in clip.notes for clip in clips)
    if faceless and faceless == len(clips):
        heard = any("speech" in clip.streams for clip in clips)
        notes.append("no face was found" + (": sound alone" if heard else ""))
    elif faceless:
        notes.append(f"no face in {faceless} of {len(clips)} segments")
    if any("several faces" in clip.notes for clip in clips):
        notes.append("several faces: the one who speaks is read")
    for note in ("the sound has ended", "the pictures have ended"):
        if count := sum(note in clip.notes for clip in clips):
            notes.append(f"{note} in {count} of {len(clips)} segments")
    return Read(path.name, clips, notes)


def with_noise(recording: Read, snr: float, kind: str, noises: Noises, seed: int = 0) -> Read:
    """The recording with noise over its sound.

    The ratio is that of all its segments together, and the same seed gives the same noise.

    Args:
        recording: with sound.
        snr: signal-to-noise ratio in dB.
        kind: ``speech-shaped``, or another of ``noises``.
        noises: see :func:`find_noises`.
        seed: draws the recording of noise and its part.

    Raises:
        KeyError: for an unknown kind.
        ValueError: without sound, or for a silent recording of noise.
        FileNotFoundError, MediaError: for a recording of noise that cannot be read.
    """
    rng = np.random.default_rng(seed)
    speech = recording.joined("speech")
    if kind == SHAPED:
        noise = speech_shaped(speech, rng)
    else:
        files = noises[kind]
        noise = read_whole(files[int(rng.integers(len(files)))])
    noisy = add_noise(speech, noise, snr, rng)
    clips, first = [], 0
    for clip in recording.clips:
        if "speech" in clip.streams:
            last = first + len(clip.streams["speech"])
            streams = {**clip.streams, "speech": noisy[first:last]}
            clips.append(replace(clip, streams=streams))
            first = last
        else:
            clips.append(clip)
    return replace(recording, clips=clips)


@dataclass(frozen=True)
class Encoded:
    """What the encoders make of a recording for a task.

    Attributes:
        clips: the segments that have all streams of the task.
        features: of these.
        seconds: that the encoders took.
    """

    clips: list[Clip]
    features: Features
    seconds: float


def encode(transcribe: Transcriber, recording: Read, task: str) -> Encoded | None:
    """Run a task's encoders, for all of its rates; None if no segment has its streams."""
    names = streams_of([task])
    clips = [clip for clip in recording.clips if set(clip.streams).issuperset(names)]
    if not clips:
        return None
    started = time.perf_counter()
    features = transcribe.encode(clips, task)
    return Encoded(clips, features, time.perf_counter() - started)


def transcribe_at(
    transcribe: Transcriber,
    recording: Read,
    encoded: Encoded,
    chosen: TaskPair,
    options: Options,
) -> Row:
    """Transcribe what was read and encoded at one task and rate pair."""
    started = time.perf_counter()
    found = iter(transcribe.search(encoded.clips, encoded.features, chosen, options))
    seconds = encoded.seconds + time.perf_counter() - started
    here = set(map(id, encoded.clips))
    segments = [next(found) if id(clip) in here else None for clip in recording.clips]
    return Row(chosen, count_tokens(transcribe, encoded.features, chosen), seconds, segments)


@torch.inference_mode()
def count_tokens(transcribe: Transcriber, features: Features, chosen: TaskPair) -> dict[str, int]:
    """Tokens of each stream that the LLM reads of segments, without the markers around them."""
    return {
        kind: int(transcribe.model.project(features, kind, rate)[1].sum())
        for kind, rate in chosen.pair.rates.items()
    }


def experts_of(transcribe: Transcriber, encoded: Encoded, row: Row) -> dict[str, np.ndarray]:
    """Shares of the routed experts for a transcript; see :func:`expert_shares`."""
    tokenizer = transcribe.model.tokenizer
    # As a continuation of the prompt, a transcript begins with a space.
    transcripts = [
        tokenizer.encode(" " + each.text, add_special_tokens=False) if each.text else []
        for each in row.segments
        if each is not None
    ]
    return expert_shares(transcribe.model, encoded.features, row.chosen, transcripts)


def warm_up(transcribe: Transcriber) -> None:
    """Run every task once, so that the first visitor does not wait for what is built only once."""
    streams: dict[str, np.ndarray] = {
        "speech": np.zeros(RATE, dtype=np.float32),
        "lips": np.zeros((LIP_RATE, LIP_SIZE, LIP_SIZE), dtype=np.uint8),
    }
    second = Read("", [Clip(0.0, 1.0, streams, [])], [])
    for task in transcribe.model.pairs:
        chosen = finest(task, transcribe.model.pairs)
        encoded = encode(transcribe, second, task)
        assert encoded is not None, "the second has all streams"
        transcribe_at(transcribe, second, encoded, chosen, Options(beam=1, max_new_tokens=2))
