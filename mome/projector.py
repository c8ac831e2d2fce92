"""From encoder frames to LLM tokens."""

import torch
from torch import nn


class Projector(nn.Module):
    """Linear -> ReLU -> Linear -> LayerNorm, as in Llama-AVSR.

    Args:
        input_size: width of a compressed token (D, or rate * D when frames are stacked).
        output_size: width of the LLM's embeddings.
        hidden_size: width between the two layers; ``output_size`` when None.
        norm_gain: initial gain of the LayerNorm. LLM embeddings are small (about 0.1 a unit for
            SmolLM2); tokens of unit variance would drown the text prompt at the start.
    """

    def __init__(
        self,
        input_size: int,
        output_size: int,
        hidden_size: int | None = None,
        norm_gain: float = 0.1,
    ):
        super().__init__()
        hidden_size = hidden_size or output_size
        self.layers = nn.Sequential(
            nn.Linear(input_size, hidden_size),
            nn.ReLU(),
            nn.Linear(hidden_size, output_size),
            nn.LayerNorm(output_size),
        )
        nn.init.constant_(self.layers[-1].weight, norm_gain)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """(B, T, input_size) -> (B, T, output_size), float32."""
        return self.layers(tokens.float())
