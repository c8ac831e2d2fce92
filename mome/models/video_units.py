"""Pretraining of the video encoder on clustered acoustic targets.

AV-HuBERT's first iteration clusters acoustic features without labels and learns to predict the
cluster of each frame. Here the encoder sees lips alone and predicts the cluster of the sound that
goes with them, which is what a narrow encoder needs before it is given to the LLM.
"""

import torch
import torch.nn.functional as F
from torch import nn

from mome.common.espnet import AbsEncoder, AbsESPnetModel, force_gatherable


class VideoUnitsModel(AbsESPnetModel):
    """Predict the acoustic unit of every video frame.

    Args:
        video_encoder: the encoder to train.
        num_units: number of clusters.
        label_smoothing: of the cross-entropy.
    """

    def __init__(
        self, video_encoder: AbsEncoder, num_units: int = 100, label_smoothing: float = 0.1
    ):
        super().__init__()
        self.video_encoder = video_encoder
        self.head = nn.Linear(video_encoder.output_size(), num_units)
        self.label_smoothing = label_smoothing

    def forward(
        self,
        lips: torch.Tensor,
        lips_lengths: torch.Tensor,
        units: torch.Tensor,
        units_lengths: torch.Tensor,
        **kwargs,
    ) -> tuple[torch.Tensor, dict[str, torch.Tensor], torch.Tensor]:
        """Cross-entropy of the units (B, T), at 25 Hz, given the crops (B, T, 88, 88)."""
        frames, lengths, _ = self.video_encoder(lips, lips_lengths)
        smoothing = self.label_smoothing if self.training else 0.0
        logits = self.head(frames.float())
        loss, accuracy = unit_loss(logits, lengths, units, units_lengths, smoothing)
        stats = {"loss": loss.detach(), "acc": accuracy}
        count = torch.minimum(lengths, units_lengths).sum()
        # The mean is one over frames, and so is its weight among the processes of a training.
        return force_gatherable((loss, stats, count), loss.device)

    def collect_feats(self, **batch: torch.Tensor) -> dict[str, torch.Tensor]:
        """Nothing to collect."""
        return {}


def unit_loss(
    logits: torch.Tensor,
    lengths: torch.Tensor,
    units: torch.Tensor,
    units_lengths: torch.Tensor,
    label_smoothing: float = 0.0,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean cross-entropy over frames, and the share of frames whose likeliest unit is right.

    Args:
        logits: (B, T, units) of video frames, with (B,) lengths.
        units: (B, T'), with (B,) lengths; frames and units may differ by one at the end, and what
            both have counts.
        label_smoothing: of the cross-entropy.
    """
    time = min(logits.shape[1], units.shape[1])
    lengths = torch.minimum(lengths, units_lengths).clamp(max=time)
    valid = torch.arange(time, device=logits.device) < lengths[:, None]
    logits, target = logits[:, :time][valid], units[:, :time][valid]
    loss = F.cross_entropy(logits, target, label_smoothing=label_smoothing)
    return loss, (logits.argmax(-1) == target).float().mean()
