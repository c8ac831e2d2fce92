"""Warm start of the projectors: CTC against the LLM's own token embeddings.

Before a frozen LLM is asked to read speech, each projector is trained by itself to give the
transcript's tokens in order: CTC (Graves et al., ICML 2006) whose output layer is the frozen
embedding table and one embedding for blank. The LLM is not run, so a step costs little more than
the encoders, and each modality and rate is learned alone: video cannot hide what audio should
learn. The LLM then reads these posteriors through
:class:`mome.models.projector.EmbeddingReadout`, and what is left for the adapter is to weigh two
streams and to write down what they say.

The softmax runs over the batch's tokens and a sample of the others, as in Jean et al. (ACL 2015).
"""

from typing import Any

import jiwer
import torch
import torch.nn.functional as F
from espnet2.torch_utils.device_funcs import force_gatherable

from mome.models.avsr import AVSRModel
from mome.models.projector import EmbeddingReadout


class ProjectorCTCModel(AVSRModel):
    """The front half of :class:`AVSRModel`, trained by CTC at every rate of every modality.

    A video encoder that is not frozen learns too. The checkpoint initialises an AVSRModel by
    ESPnet's ``--init_param``.

    Args:
        negatives: tokens sampled from the vocabulary beside those of the batch, in training;
            validation takes the whole vocabulary.
        **parts: as for AVSRModel; ``readout_conf`` is needed.
    """

    readout: EmbeddingReadout

    def __init__(self, *, negatives: int = 1000, **parts: Any):
        super().__init__(**parts)
        if self.readout is None:
            raise ValueError("projector_ctc trains what the readout reads: set readout_conf")
        self.negatives = negatives
        self.decoder.markers.requires_grad_(False)

    def candidates(self, text: torch.Tensor) -> torch.Tensor:
        """Sorted token ids (K,) of the softmax: all, or in training those of ``text`` and more."""
        vocabulary = self.decoder.vocab_size
        if not self.training:
            return torch.arange(vocabulary, device=text.device)
        sampled = torch.randint(vocabulary, (self.negatives,), device=text.device)
        return torch.cat([text[text >= 0], sampled]).unique()

    def forward(
        self,
        text: torch.Tensor,
        text_lengths: torch.Tensor,
        speech: torch.Tensor | None = None,
        speech_lengths: torch.Tensor | None = None,
        lips: torch.Tensor | None = None,
        lips_lengths: torch.Tensor | None = None,
        **kwargs,
    ) -> tuple[torch.Tensor, dict[str, torch.Tensor], torch.Tensor]:
        """Mean CTC loss per transcript token over modalities and rates.

        Utterances with fewer tokens than the transcript needs give no loss; their share is in the
        statistics as ``short_<rate>``. In validation ``ter_<rate>`` is the token error rate (in
        percent) of the best path.

        Args:
            text: (B, L) token ids, padded by -1, with (B,) lengths; the rest as in AVSRModel.
        """
        features = self.encode(speech, speech_lengths, lips, lips_lengths)
        ids = self.candidates(text)
        embeddings = self.decoder.embed(ids)
        labels = torch.searchsorted(ids, text.clamp(min=0)) + 1
        doubled = (text[:, 1:] == text[:, :-1]) & (text[:, 1:] >= 0)
        needed = text_lengths + doubled.sum(1)
        losses, stats = [], {}
        for kind, rates in self.rates.items():
            for rate in rates:
                name = f"{kind[0]}{rate}"
                tokens, lengths = self.project(features, kind, rate)
                log_probs = self.readout.log_probs(tokens, embeddings)
                loss = F.ctc_loss(
                    log_probs.transpose(0, 1), labels, lengths, text_lengths, zero_infinity=True
                )
                losses.append(loss)
                stats[f"loss_{name}"] = loss.detach()
                stats[f"short_{name}"] = (lengths < needed).float().mean()
                if not self.training:
                    best = log_probs.argmax(-1)
                    paths = ids[(best - 1).clamp(min=0)].masked_fill(best == 0, -1)
                    stats[f"ter_{name}"] = token_error_rate(paths, lengths, text)
        loss = torch.stack(losses).mean()
        stats["loss"] = loss.detach()
        return force_gatherable((loss, stats, len(text)), loss.device)


def token_error_rate(
    paths: torch.Tensor, lengths: torch.Tensor, text: torch.Tensor
) -> torch.Tensor:
    """Token error rate in percent of CTC paths.

    Args:
        paths: (B, T) token ids with -1 for blank.
        lengths: (B,) valid places.
        text: (B, L) references padded by -1.
    """
    references, hypotheses = [], []
    for path, length, reference in zip(paths, lengths, text, strict=True):
        collapsed = path[:length].unique_consecutive()
        hypotheses.append(" ".join(map(str, collapsed[collapsed >= 0].tolist())))
        references.append(" ".join(map(str, reference[reference >= 0].tolist())))
    return torch.tensor(100 * jiwer.wer(references, hypotheses))
