"""AV-HuBERT through ESPnet's own implementation, reading lips only."""

from pathlib import Path

import torch
from espnet2.asr.encoder.abs_encoder import AbsEncoder
from espnet2.asr.encoder.avhubert_encoder import FairseqAVHubertEncoder
from safetensors.torch import load_file

from mome.encoders.fairseq_parts import fairseq_parts

# Published sizes (Shi et al., ICLR 2022).
SIZES = {
    "base": {
        "encoder_embed_dim": 768,
        "encoder_layers": 12,
        "encoder_ffn_embed_dim": 3072,
        "encoder_attention_heads": 12,
    },
    "large": {
        "encoder_embed_dim": 1024,
        "encoder_layers": 24,
        "encoder_ffn_embed_dim": 4096,
        "encoder_attention_heads": 16,
    },
}


class AVHubertEncoder(AbsEncoder):
    """ESPnet's AV-HuBERT on mouth crops: 25 frames a second in and out.

    Args:
        input_size: for ESPnet's interface; the input is the crops themselves.
        size: ``base`` or ``large``.
        weights: safetensors file with the tensors of ESPnet's class, or None for random weights.

    Raises:
        ValueError: for an unknown size.
        FileNotFoundError: if ``weights`` names no file.
    """

    def __init__(self, input_size: int = 1, size: str = "large", weights: str | None = None):
        super().__init__()
        if size not in SIZES:
            raise ValueError(f"AV-HuBERT size {size!r} must be one of {', '.join(SIZES)}")
        if weights is not None and not Path(weights).exists():
            raise FileNotFoundError(
                f"{weights}: no AV-HuBERT weights in safetensors format; the fairseq checkpoint "
                f"must be obtained from its authors and converted first"
            )
        with fairseq_parts():
            self.encoder = FairseqAVHubertEncoder(
                pretrain=False,
                dropout=0.0,
                attention_dropout=0.0,
                dropout_input=0.0,
                dropout_features=0.0,
                encoder_layerdrop=0.0,
                **SIZES[size],
            )
        if weights is not None:
            self.encoder.encoders.load_state_dict(load_file(weights))

    def output_size(self) -> int:
        """Width of a frame."""
        return self.encoder.output_size()

    def forward(
        self, xs_pad: torch.Tensor, ilens: torch.Tensor, prev_states: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, torch.Tensor, None]:
        """(B, T, 88, 88) crops and (B,) frames -> (B, T, D) frames, (B,) frames, None."""
        return self.encoder({"video": xs_pad[:, None], "audio": None}, ilens)
