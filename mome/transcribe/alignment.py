"""When the words of a transcript are said."""

from collections.abc import Sequence

import torch

from mome.models.avsr import AVSRModel, Features
from mome.models.ctc_alignment import Aligned, align
from mome.models.rates import RatePair


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
    return align_rate(model, features, kind, rate, transcripts)


@torch.inference_mode()
def align_rate(
    model: AVSRModel,
    features: Features,
    kind: str,
    rate: int,
    transcripts: Sequence[Sequence[int]],
) -> list[list[Aligned] | None]:
    """When the tokens of transcripts are said by one modality at one rate; see `align_tokens`."""
    assert model.readout is not None, "only a readout has posteriors"
    window = model.window_seconds(kind, rate)
    tokens, lengths = model.project(features, kind, rate)
    log_probs = model.readout.log_probs(tokens, model.decoder.vocabulary()).float().cpu()
    return [
        align(row[:length], [token + 1 for token in transcript], window)
        for row, length, transcript in zip(log_probs, lengths.tolist(), transcripts, strict=True)
    ]
