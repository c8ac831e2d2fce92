"""When the words of a transcript are said."""

from collections.abc import Sequence
from itertools import pairwise

import torch
from torchaudio.functional import forced_align

from mome.data.audio import RATE
from mome.data.video import LIP_RATE
from mome.encoders.whisper import SAMPLES_PER_FRAME
from mome.models.avsr import AVSRModel, Features
from mome.models.matryoshka import RatePair

SECONDS = {"audio": SAMPLES_PER_FRAME / RATE, "video": 1 / LIP_RATE}  # of an encoder's frame


def word_times(
    model: AVSRModel, features: Features, pair: RatePair, transcripts: Sequence[Sequence[int]]
) -> list[list[tuple[float, float]] | None]:
    """Beginning and end of each token, by the projectors' CTC posteriors.

    A model with a readout knows how likely each token is in each window; its transcript is aligned
    with these (Viterbi). The finer of the streams that are read decides the resolution.

    Args:
        model: the trained model.
        features: of B utterances, see :meth:`AVSRModel.encode`.
        pair: rates at which they were transcribed.
        transcripts: B token sequences.

    Returns:
        for each utterance seconds (begin, end) by token; None where the model has no readout, or
        there are fewer windows than tokens.
    """
    if model.readout is None:
        return [None] * len(transcripts)
    streams = [("audio", pair.audio), ("video", pair.video)]
    kind, rate = min(
        ((kind, rate) for kind, rate in streams if rate is not None),
        key=lambda each: SECONDS[each[0]] * each[1],
    )
    window = SECONDS[kind] * rate
    tokens, lengths = model.project(features, kind, rate)
    return [
        _align(model, row[:length], list(transcript), window)
        for row, length, transcript in zip(tokens, lengths.tolist(), transcripts, strict=True)
    ]


def _align(
    model: AVSRModel, row: torch.Tensor, transcript: list[int], window: float
) -> list[tuple[float, float]] | None:
    """Seconds of each token, for one utterance's windows (T, D)."""
    assert model.readout is not None
    repeats = sum(a == b for a, b in pairwise(transcript))
    if not transcript:
        return []
    if len(row) < len(transcript) + repeats:
        return None
    ids, index = torch.tensor(transcript, device=row.device).unique(return_inverse=True)
    log_probs = model.readout.log_probs(row, model.decoder.embed(ids))
    path = forced_align(log_probs[None].float().cpu(), index[None].int().cpu() + 1, blank=0)[0][0]
    times: list[tuple[float, float]] = []
    previous = 0
    for place, label in enumerate(path.tolist()):
        if label and label != previous:
            times.append((place * window, (place + 1) * window))
        elif label:
            times[-1] = times[-1][0], (place + 1) * window
        previous = label
    return times
