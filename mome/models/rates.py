"""Compression rates and tasks: what they are called, and which of them go together.

A rate of 4 turns four consecutive encoder frames into one token. A Matryoshka model is trained at
every pair of an audio and a video rate and read at any of them.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

# The modalities that each task reads.
READS = {"avsr": ("audio", "video"), "asr": ("audio",), "vsr": ("video",)}
TASKS = tuple(READS)
# The paper's rates, where a configuration names no others.
AUDIO_RATES = (4, 16)
VIDEO_RATES = (2, 5)


class RatePair(NamedTuple):
    """Audio and video compression rate; None where a task does not use the modality."""

    audio: int | None
    video: int | None

    @property
    def rates(self) -> dict[str, int]:
        """Modality -> rate, of those that are read."""
        return {kind: rate for kind, rate in self._asdict().items() if rate is not None}

    def __str__(self) -> str:
        return "_".join(f"{kind[0]}{rate}" for kind, rate in self.rates.items())


class TaskPair(NamedTuple):
    """A task at one of its rate pairs: what one prompt asks for, and one column of the tables."""

    task: str
    pair: RatePair

    def __str__(self) -> str:
        return f"{self.task} {self.pair}"


def fineness(pair: RatePair) -> tuple[int, int]:
    """Key that sorts rate pairs from the finest to the coarsest."""
    return pair.audio or 0, pair.video or 0


def rate_pairs(task: str, audio: Sequence[int], video: Sequence[int]) -> list[RatePair]:
    """All rates at which a task is trained: G x L pairs (avsr), G rates (asr) or L rates (vsr).

    Raises:
        ValueError: for an unknown task, a rate below 1 or a missing list.
    """
    if task not in TASKS:
        raise ValueError(f"task {task!r} must be one of {', '.join(TASKS)}")
    audio_rates: list[int | None] = list(audio) if "audio" in READS[task] else [None]
    video_rates: list[int | None] = list(video) if "video" in READS[task] else [None]
    if not audio_rates or not video_rates:
        raise ValueError(f"task {task} needs at least one rate of each modality it reads")
    if any(rate is not None and rate < 1 for rate in audio_rates + video_rates):
        raise ValueError(f"compression rates start at 1: audio {audio_rates}, video {video_rates}")
    return [RatePair(a, v) for a in audio_rates for v in video_rates]


def task_pairs_of(conf: Mapping[str, Any], rates: Sequence[str] = ()) -> list[TaskPair]:
    """Every task at every rate pair that a model is trained at, found without the model.

    Args:
        conf: its ``model_conf``.
        rates: the rate pairs that are asked for, by name; none are all.

    Raises:
        ValueError: for a rate pair that was not trained, naming those that were; and as of
            :func:`rate_pairs` and :func:`parse_rate_pair`.
    """
    audio, video = conf.get("audio_rates", AUDIO_RATES), conf.get("video_rates", VIDEO_RATES)
    trained = [
        TaskPair(task, pair)
        for task in conf.get("tasks", ["avsr"])
        for pair in rate_pairs(task, audio, video)
    ]
    wanted = {parse_rate_pair(rate) for rate in rates}
    known = {pair for _, pair in trained}
    for pair in wanted - known:
        names = sorted(map(str, known))
        raise ValueError(f"rate pair {pair} was not trained; this model knows {names}")
    return [each for each in trained if not wanted or each.pair in wanted]


def parse_rate_pair(name: str) -> RatePair:
    """Inverse of ``str(RatePair)``: ``a4_v2``, ``a4`` or ``v2``."""
    parts = name.split("_")
    rates = {part[:1]: part[1:] for part in parts}
    known = set(rates) <= {"a", "v"} and len(rates) == len(parts)
    if not known or not all(rate.isdecimal() for rate in rates.values()):
        raise ValueError(f"rate pair {name!r} must look like a4_v2, a4 or v2")
    audio, video = (int(rates[key]) if key in rates else None for key in "av")
    return RatePair(audio, video)
