"""A page about a trained model that opens from disk: what it shows is inside the file."""

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from importlib.resources import files
from pathlib import Path
from typing import Any

import av
import numpy as np
from jinja2 import Environment

from mome.analysis.confusions import Step, align
from mome.analysis.decoded import Scores, rate_order, read_prepared, read_transcripts
from mome.analysis.wer import count_errors, normalised_pairs
from mome.common.data_url import data_url
from mome.data import test_sets
from mome.data.audio import RATE, read_audio
from mome.data.kaldi import read_scp
from mome.data.text import normalise
from mome.data.video import LIP_RATE, X264, read_lips
from mome.models.rates import TASKS

ZOOM = 2  # crops are shown twice as large as they are


@dataclass(frozen=True)
class Figure:
    """A picture with its heading and what it shows."""

    title: str
    caption: str
    path: Path

    @property
    def url(self) -> str:
        """The picture inside the page."""
        return data_url("image/png", self.path.read_bytes())


@dataclass(frozen=True)
class Transcript:
    """What was written for a clip: the task, the set's name in words, rates, and aligned words."""

    task: str
    name: str
    pair: str
    steps: Sequence[Step]


@dataclass(frozen=True)
class Player:
    """A clip as it is read in a set."""

    name: str
    url: str


@dataclass(frozen=True)
class Clip:
    """An utterance in the page: ``why`` it was chosen, players and transcripts."""

    utterance: str
    reference: str
    why: str
    players: Sequence[Player]
    transcripts: Sequence[Transcript]


def playable(frames: np.ndarray | None, samples: np.ndarray | None) -> bytes:
    """A clip as browsers play it: MP4 with H.264 and AAC, of equal clips the same bytes.

    Args:
        frames: uint8 (T, H, W), grey, at 25 a second; None for sound alone.
        samples: float (N,) at 16 kHz; None for pictures alone.
    """
    data = io.BytesIO()
    with av.open(data, "w", format="mp4") as container:
        video: Any = None
        audio: Any = None
        if frames is not None:
            height, width = frames.shape[1] * ZOOM, frames.shape[2] * ZOOM
            video = container.add_stream("libx264", rate=LIP_RATE, options=X264)
            video.width, video.height, video.pix_fmt = width, height, "yuv420p"
        if samples is not None:
            audio = container.add_stream("aac", rate=RATE, layout="mono")
        if video is not None and frames is not None:
            for grey in frames.repeat(ZOOM, axis=1).repeat(ZOOM, axis=2):
                picture = av.VideoFrame.from_ndarray(grey, format="gray")
                container.mux(video.encode(picture))
            container.mux(video.encode(None))
        if audio is not None and samples is not None:
            sound = av.AudioFrame.from_ndarray(
                samples.astype(np.float32)[None], format="fltp", layout="mono"
            )
            sound.sample_rate, sound.pts, sound.time_base = RATE, 0, Fraction(1, RATE)
            container.mux(audio.encode(sound))
            container.mux(audio.encode(None))
    return data.getvalue()


def wer_tables(scores: Scores) -> list[dict[str, Any]]:
    """A table for each task: ``task``, its rate ``pairs``, and ``rows``, set -> pair -> cell."""
    tables = []
    for task in TASKS:
        of_task = {(name, pair): each for (t, name, pair), each in scores.items() if t == task}
        names = sorted({name for name, _ in of_task}, key=lambda n: test_sets.parse(n).order)
        rows: dict[str, dict[str, str]] = {}
        for name in names:
            rows[test_sets.parse(name).describe()] = {
                pair: f"{each['wer']:.1f} [{each['low']:.1f}, {each['high']:.1f}]"
                for (n, pair), each in of_task.items()
                if n == name
            }
        if rows:
            pairs = sorted({pair for _, pair in of_task}, key=rate_order)
            tables.append({"task": task, "pairs": pairs, "rows": rows})
    return tables


def sets_to_show(scores: Scores, base: str) -> list[str]:
    """The clean set and its noisiest copy, if there is one."""
    noisy = [
        (found.snr, name)
        for name in {name for _, name, _ in scores}
        if (found := test_sets.parse(name)).base == base
        and found.snr is not None
        and not (found.swap or found.corruption)
    ]
    return [base, *(name for _, name in sorted(noisy)[:1])]


def read_clips(
    decode: Path, dump: Path, scores: Scores, base: str, count: int, seed: int = 0
) -> list[Clip]:
    """Clips of a set with their transcripts: half drawn at random, half those with most errors.

    Args:
        decode: folder of the transcripts.
        dump: the dump folder.
        scores: what was decoded.
        base: the clean test set.
        count: of the clips.
        seed: of the draw.

    Raises:
        FileNotFoundError: if a file is missing; names it.
        ValueError: if references and transcripts do not fit.
    """
    references = read_prepared(dump, base, "text")
    names = sets_to_show(scores, base)
    pairs: dict[tuple[str, str, str], dict[str, tuple[str, str]]] = {}
    for name in names:
        for task in TASKS:
            of_task = sorted((p for t, n, p in scores if (t, n) == (task, name)), key=rate_order)
            for pair in of_task:
                said = read_transcripts(decode, task, name, [pair])[pair]
                pairs[task, name, pair] = normalised_pairs(references, said)
    streams = {name: read_streams(dump / name) for name in names}
    ids = sorted(references)
    errors = sum(count_errors(found)[:, :3].sum(1) for found in pairs.values())
    random = np.random.default_rng(seed).permutation(len(ids)).tolist()
    chosen = {ids[place]: "drawn at random" for place in random[: (count + 1) // 2]}
    for place in np.argsort(-np.asarray(errors), kind="stable"):
        if len(chosen) < min(count, len(ids)) and ids[place] not in chosen:
            chosen[ids[place]] = "of those with most errors"
    return [
        Clip(
            utterance,
            normalise(references[utterance]),
            why,
            [player(dump / name, *streams[name], utterance) for name in names],
            [
                Transcript(task, test_sets.parse(name).describe(), pair, align(*found[utterance]))
                for (task, name, pair), found in pairs.items()
            ],
        )
        for utterance, why in chosen.items()
    ]


def read_streams(data: Path) -> tuple[dict[str, str], dict[str, str]]:
    """Files of the crops and of the sound of a set's utterances, of the streams that it has."""
    lips, wavs = (
        read_scp(data / file) if (data / file).is_file() else {} for file in ("lip.scp", "wav.scp")
    )
    return lips, wavs


def player(data: Path, lips: Mapping[str, str], wavs: Mapping[str, str], utterance: str) -> Player:
    """A clip of a set, with the streams that it has; see :func:`read_streams`.

    Raises:
        FileNotFoundError: if the set has neither.
    """
    if utterance not in lips and utterance not in wavs:
        raise FileNotFoundError(f"{data}: neither lip.scp nor wav.scp has {utterance}")
    frames = read_lips(lips[utterance]) if utterance in lips else None
    samples = read_audio(wavs[utterance]) if utterance in wavs else None
    url = data_url("video/mp4", playable(frames, samples))
    return Player(test_sets.parse(data.name).describe(), url)


def page(
    title: str,
    about: str,
    decoded: str,
    scores: Scores,
    figures: Sequence[Figure],
    missing: Sequence[str],
    clips: Sequence[Clip],
) -> str:
    """The page's HTML.

    Args:
        title, about: of the model.
        decoded: how it was decoded.
        scores: its error rates.
        figures: pictures, in order.
        missing: a line for each figure that could not be drawn, with the reason.
        clips: see :func:`read_clips`.
    """
    environment = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    environment.filters["rates"] = lambda pair: pair.replace("_", " ")
    text = files(__package__).joinpath("report.html").read_text(encoding="utf-8")
    return environment.from_string(text).render(
        title=title,
        about=about,
        decoded=decoded,
        tables=wer_tables(scores),
        figures=figures,
        missing=missing,
        clips=clips,
    )
