"""Compression rates: what they are called and how a token sequence is compressed.

A rate of 4 turns four consecutive encoder frames into one token. A Matryoshka model is trained at
every pair of an audio and a video rate and read at any of them.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F

TASKS = ("avsr", "asr", "vsr")
COMPRESSIONS = ("average", "stack")
LAST_WINDOWS = ("keep", "drop")


class RatePair(NamedTuple):
    """Audio and video compression rate; None where a task does not use the modality."""

    audio: int | None
    video: int | None

    def __str__(self) -> str:
        return "_".join(
            f"{name}{rate}" for name, rate in (("a", self.audio), ("v", self.video)) if rate
        )


class TaskPair(NamedTuple):
    """A task at one of its rate pairs: what one prompt asks for, and one column of the tables."""

    task: str
    pair: RatePair

    def __str__(self) -> str:
        return f"{self.task} {self.pair}"


def rate_pairs(task: str, audio: Sequence[int], video: Sequence[int]) -> list[RatePair]:
    """All rates at which a task is trained: G x L pairs (avsr), G rates (asr) or L rates (vsr).

    Raises:
        ValueError: for an unknown task, a rate below 1 or a missing list.
    """
    if task not in TASKS:
        raise ValueError(f"task {task!r} must be one of {', '.join(TASKS)}")
    audio_rates: list[int | None] = [None] if task == "vsr" else list(audio)
    video_rates: list[int | None] = [None] if task == "asr" else list(video)
    if not audio_rates or not video_rates:
        raise ValueError(f"task {task} needs at least one rate of each modality it reads")
    if any(rate is not None and rate < 1 for rate in audio_rates + video_rates):
        raise ValueError(f"compression rates start at 1: audio {audio_rates}, video {video_rates}")
    return [RatePair(a, v) for a in audio_rates for v in video_rates]


def parse_rate_pair(name: str) -> RatePair:
    """Inverse of ``str(RatePair)``: ``a4_v2``, ``a4`` or ``v2``."""
    rates = {part[:1]: part[1:] for part in name.split("_")}
    if not rates or not set(rates) <= {"a", "v"} or not all(r.isdigit() for r in rates.values()):
        raise ValueError(f"rate pair {name!r} must look like a4_v2, a4 or v2")
    audio, video = (int(rates[key]) if key in rates else None for key in "av")
    return RatePair(audio, video)


def check_compression(how: str, last_window: str) -> None:
    """See that :func:`compress` knows these ways.

    Raises:
        ValueError: for one that it does not know.
    """
    if last_window not in LAST_WINDOWS:
        raise ValueError(f"last_window {last_window!r} must be {' or '.join(LAST_WINDOWS)}")
    if how not in COMPRESSIONS:
        raise ValueError(f"compression {how!r} must be one of {', '.join(COMPRESSIONS)}")


def compress(
    frames: torch.Tensor,
    lengths: torch.Tensor,
    rate: int,
    how: str = "average",
    last_window: str = "keep",
) -> tuple[torch.Tensor, torch.Tensor]:
    """Compress a padded batch in time.

    Args:
        frames: (B, T, D).
        lengths: (B,) valid frames.
        rate: frames per token.
        how: ``average`` pools, and the last, shorter window is averaged over the frames it has;
            ``stack`` concatenates the frames of a window, zeros completing the last one.
        last_window: what becomes of a last window of fewer frames: ``keep``, or ``drop``, as the
            authors' early module does. The one window of a clip that is shorter is kept.

    Returns:
        tokens (B, ceil(T / rate), D), or rate * D wide for ``stack``, zero beyond the lengths, and
        lengths (B,) = ceil(lengths / rate); both rounded down where the last window is dropped.
    """
    check_compression(how, last_window)
    batch, time, dim = frames.shape
    if last_window == "drop":
        # Whole windows alone, unless there is none.
        lengths = torch.where(lengths < rate, lengths, lengths - lengths % rate)
        time = time if time < rate else time - time % rate
        frames = frames[:, :time]
    tokens = math.ceil(time / rate)
    mask = torch.arange(time, device=frames.device) < lengths[:, None]
    frames = F.pad(frames * mask[..., None].to(frames.dtype), (0, 0, 0, tokens * rate - time))
    out_lengths = (lengths + rate - 1).div(rate, rounding_mode="floor")
    if how == "stack":
        return frames.reshape(batch, tokens, rate * dim), out_lengths
    start = torch.arange(tokens, device=frames.device) * rate
    counts = (lengths[:, None] - start).clamp(min=1, max=rate)
    pooled = frames.reshape(batch, tokens, rate, dim).sum(2)
    return pooled / counts[..., None].to(frames.dtype), out_lengths
