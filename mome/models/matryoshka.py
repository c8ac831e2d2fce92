"""How a sequence of encoder frames is compressed to fewer tokens at a rate."""

import math

import torch
import torch.nn.functional as F

COMPRESSIONS = ("average", "stack")
LAST_WINDOWS = ("keep", "drop")


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
