"""Pretraining of the video encoder on clustered acoustic targets.

AV-HuBERT's first iteration clusters acoustic features without labels and learns to predict the
cluster of each frame. Here the encoder sees lips alone and predicts the cluster of the sound that
goes with them, which is what a narrow encoder needs before it is given to the LLM.
"""

import torch
import torch.nn.functional as F
from espnet2.asr.encoder.abs_encoder import AbsEncoder
from espnet2.torch_utils.device_funcs import force_gatherable
from espnet2.train.abs_espnet_model import AbsESPnetModel
from torch import nn


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
        time = min(frames.shape[1], units.shape[1])
        lengths = torch.minimum(lengths, units_lengths).clamp(max=time)
        valid = torch.arange(time, device=lips.device) < lengths[:, None]
        logits = self.head(frames.float()[:, :time][valid])
        target = units[:, :time][valid]
        smoothing = self.label_smoothing if self.training else 0.0
        loss = F.cross_entropy(logits, target, label_smoothing=smoothing)
        stats = {
            "loss": loss.detach(),
            "acc": (logits.argmax(-1) == target).float().mean(),
        }
        # The mean is one over frames, and so is its weight among the processes of a training.
        return force_gatherable((loss, stats, len(target)), loss.device)

    def collect_feats(self, **batch: torch.Tensor) -> dict[str, torch.Tensor]:
        """Nothing to collect."""
        return {}
