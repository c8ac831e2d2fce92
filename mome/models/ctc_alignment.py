"""Where the labels of a sequence are emitted, by CTC posteriors."""

from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

import torch
from torchaudio.functional import forced_align


class Aligned(NamedTuple):
    """When a label is emitted, in seconds, and its highest log-posterior there."""

    start: float
    end: float
    log_prob: float


def align(log_probs: torch.Tensor, labels: Sequence[int], seconds: float) -> list[Aligned] | None:
    """Align labels with windows by the best path (Viterbi).

    Args:
        log_probs: (T, 1 + K) log-posteriors of windows, blank first.
        labels: from 1.
        seconds: length of a window.

    Returns:
        each label in order; None where there are fewer windows than labels need.
    """
    repeats = sum(a == b for a, b in pairwise(labels))
    if not labels:
        return []
    if len(log_probs) < len(labels) + repeats:
        return None
    wanted = torch.tensor([labels], dtype=torch.int32, device=log_probs.device)
    path, scores = forced_align(log_probs[None].contiguous(), wanted, blank=0)
    aligned: list[Aligned] = []
    previous = 0
    for place, (label, score) in enumerate(zip(path[0].tolist(), scores[0].tolist(), strict=True)):
        end = (place + 1) * seconds
        if label and label != previous:
            aligned.append(Aligned(place * seconds, end, score))
        elif label:
            start, _, best = aligned[-1]
            aligned[-1] = Aligned(start, end, max(best, score))
        previous = label
    return aligned
