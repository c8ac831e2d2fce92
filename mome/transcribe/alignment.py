"""When the words of a transcript are said, and by whom."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F

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


def window_log_probs(
    model: AVSRModel, features: Features, kind: str, rate: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Log-posteriors of the windows of a modality at a rate.

    Returns:
        (B, T, 1 + V), blank first, float32, and (B,) lengths, both on the CPU.
    """
    assert model.readout is not None, "only a readout has posteriors"
    tokens, lengths = model.project(features, kind, rate)
    log_probs = model.readout.log_probs(tokens, model.decoder.vocabulary())
    return log_probs.float().cpu(), lengths.cpu()


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
    if not transcripts:
        return []
    window = model.window_seconds(kind, rate)
    vocabulary = model.decoder.vocabulary()
    tokens, lengths = model.project(features, kind, rate)
    rows = [row[:length] for row, length in zip(tokens, lengths.tolist(), strict=True)]
    totals = model.readout.log_total(torch.cat(rows), vocabulary).split(list(map(len, rows)))
    aligned = []
    for row, total, transcript in zip(rows, totals, transcripts, strict=True):
        wanted = torch.tensor(transcript, dtype=torch.long, device=row.device)
        ids, labels = wanted.unique(return_inverse=True)
        log_probs = model.readout.log_probs_of(row, vocabulary[ids], total)
        aligned.append(align(log_probs.cpu(), (labels + 1).tolist(), window))
    return aligned


@torch.inference_mode()
def lips_say(model: AVSRModel, heard: Features, seen: Features) -> list[float] | None:
    """How well each of several mouths says what is heard.

    What is heard is the best path of CTC at the finest audio rate; how likely a mouth says that is
    its probability by CTC, over all alignments, at the finest video rate.

    Args:
        model: the trained model, which reads both modalities.
        heard: audio of one utterance, see :meth:`AVSRModel.encode`.
        seen: video of K mouths.

    Returns:
        (K,) log-probabilities in nats, each divided by the number of tokens; None where the model
        has no readout or nothing is heard.
    """
    if model.readout is None:
        return None
    log_probs, lengths = window_log_probs(model, heard, "audio", min(model.rates["audio"]))
    labels = torch.unique_consecutive(log_probs[0, : lengths[0]].argmax(-1))
    labels = labels[labels > 0]
    if not len(labels):
        return None
    log_probs, lengths = window_log_probs(model, seen, "video", min(model.rates["video"]))
    each = torch.full((len(lengths),), len(labels))
    losses = F.ctc_loss(
        log_probs.transpose(0, 1),
        labels.expand(len(lengths), -1),
        lengths,
        each,
        reduction="none",
    )
    return (-losses / len(labels)).tolist()
