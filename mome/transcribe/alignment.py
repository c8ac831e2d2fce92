"""When the words of a transcript are said."""

from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

import torch
from torchaudio.functional import forced_align

from mome.models.avsr import AVSRModel, Features
from mome.models.rates import RatePair


class Aligned(NamedTuple):
    """When a token is said, in seconds, and its highest log-posterior there."""

    start: float
    end: float
    log_prob: float


def align_tokens(
    model: AVSRModel, features: Features, pair: RatePair, transcripts: Sequence[Sequence[int]]
) -> list[list[Aligned] | None]:
    """When the tokens of transcripts are said, by the projectors' CTC posteriors.

    A model with a readout knows how likely each token is in each window; its transcript is aligned
    with these (Viterbi). The finer of the streams that are read decides the resolution.

    Args:
        model: the trained model.
        features: of B utterances, see :meth:`AVSRModel.encode`.
        pair: rates at which they were transcribed.
        transcripts: B token sequences.

    Returns:
        the tokens of each utterance; None where the model has no readout, or there are fewer
        windows than tokens.
    """
    if model.readout is None:
        return [None] * len(transcripts)
    kind, rate = min(pair.rates.items(), key=lambda each: model.window_seconds(*each))
    window = model.window_seconds(kind, rate)
    tokens, lengths = model.project(features, kind, rate)
    vocabulary = torch.arange(model.decoder.vocab_size, device=tokens.device)
    log_probs = model.readout.log_probs(tokens, model.decoder.embed(vocabulary)).float().cpu()
    return [
        _align(row[:length], list(transcript), window)
        for row, length, transcript in zip(log_probs, lengths.tolist(), transcripts, strict=True)
    ]


def _align(log_probs: torch.Tensor, transcript: list[int], window: float) -> list[Aligned] | None:
    """The tokens of one utterance, whose windows have log-posteriors (T, 1 + V), blank first."""
    repeats = sum(a == b for a, b in pairwise(transcript))
    if not transcript:
        return []
    if len(log_probs) < len(transcript) + repeats:
        return None
    labels = torch.tensor([transcript], dtype=torch.int32) + 1
    path, scores = forced_align(log_probs[None], labels, blank=0)
    aligned: list[Aligned] = []
    previous = 0
    for place, (label, score) in enumerate(zip(path[0].tolist(), scores[0].tolist(), strict=True)):
        end = (place + 1) * window
        if label and label != previous:
            aligned.append(Aligned(place * window, end, score))
        elif label:
            start, _, best = aligned[-1]
            aligned[-1] = Aligned(start, end, max(best, score))
        previous = label
    return aligned
