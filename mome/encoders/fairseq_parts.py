"""The three parts of fairseq that ESPnet's AV-HuBERT imports, for machines without fairseq.

fairseq no longer installs on current Python. ESPnet's class needs of it a layer norm, an
initialisation and one transformer layer, which are written here after their published behaviour
with fairseq's parameter names, so that its checkpoints load.
"""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from types import ModuleType
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn


class SelfAttention(nn.Module):
    """Multi-head self-attention over (T, B, C)."""

    def __init__(self, dim: int, heads: int, dropout: float):
        super().__init__()
        self.heads = heads
        self.dropout = dropout
        self.k_proj = nn.Linear(dim, dim)
        self.v_proj = nn.Linear(dim, dim)
        self.q_proj = nn.Linear(dim, dim)
        self.out_proj = nn.Linear(dim, dim)

    def forward(self, x: torch.Tensor, padding_mask: torch.Tensor | None) -> torch.Tensor:
        """(T, B, C) and (B, T) True for padding -> (T, B, C)."""
        time, batch, dim = x.shape

        def split(projected: torch.Tensor) -> torch.Tensor:
            return projected.view(time, batch, self.heads, -1).permute(1, 2, 0, 3)

        query, key, value = (split(p(x)) for p in (self.q_proj, self.k_proj, self.v_proj))
        mask = None if padding_mask is None else ~padding_mask[:, None, None, :]
        dropout = self.dropout if self.training else 0.0
        mixed = F.scaled_dot_product_attention(query, key, value, mask, dropout)
        return self.out_proj(mixed.permute(2, 0, 1, 3).reshape(time, batch, dim))


class TransformerSentenceEncoderLayer(nn.Module):
    """wav2vec 2.0's transformer layer, with the layer norms first or last."""

    def __init__(
        self,
        embedding_dim: int = 768,
        ffn_embedding_dim: int = 3072,
        num_attention_heads: int = 12,
        dropout: float = 0.1,
        attention_dropout: float = 0.1,
        activation_dropout: float = 0.1,
        activation_fn: str = "gelu",
        layer_norm_first: bool = False,
    ):
        super().__init__()
        self.self_attn = SelfAttention(embedding_dim, num_attention_heads, attention_dropout)
        self.dropout1 = nn.Dropout(dropout)
        self.dropout2 = nn.Dropout(activation_dropout)
        self.dropout3 = nn.Dropout(dropout)
        self.activation = getattr(F, activation_fn)
        self.layer_norm_first = layer_norm_first
        self.self_attn_layer_norm = nn.LayerNorm(embedding_dim)
        self.fc1 = nn.Linear(embedding_dim, ffn_embedding_dim)
        self.fc2 = nn.Linear(ffn_embedding_dim, embedding_dim)
        self.final_layer_norm = nn.LayerNorm(embedding_dim)

    def forward(
        self,
        x: torch.Tensor,
        self_attn_padding_mask: torch.Tensor | None = None,
        need_weights: bool = False,
    ) -> tuple[torch.Tensor, tuple[None, None]]:
        """(T, B, C) -> (T, B, C) and, in fairseq's place for attention weights, nothing."""

        def attend(hidden: torch.Tensor) -> torch.Tensor:
            return self.dropout1(self.self_attn(hidden, self_attn_padding_mask))

        def feed_forward(hidden: torch.Tensor) -> torch.Tensor:
            return self.dropout3(self.fc2(self.dropout2(self.activation(self.fc1(hidden)))))

        if self.layer_norm_first:
            x = x + attend(self.self_attn_layer_norm(x))
            x = x + feed_forward(self.final_layer_norm(x))
        else:
            x = self.self_attn_layer_norm(x + attend(x))
            x = self.final_layer_norm(x + feed_forward(x))
        return x, (None, None)


def init_bert_params(module: nn.Module) -> None:
    """BERT's initialisation: normal weights of deviation 0.02, zero biases."""
    if isinstance(module, nn.Linear):
        nn.init.normal_(module.weight, std=0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)


@contextmanager
def fairseq_parts() -> Iterator[None]:
    """Let ``import fairseq`` find the parts above inside the context, unless fairseq is there."""
    if find_spec("fairseq") is not None:
        yield
        return
    contents: dict[str, dict[str, Any]] = {
        "fairseq": {},
        "fairseq.models": {},
        "fairseq.models.wav2vec": {},
        "fairseq.models.wav2vec.wav2vec2": {
            "TransformerSentenceEncoderLayer": TransformerSentenceEncoderLayer
        },
        "fairseq.modules": {"LayerNorm": nn.LayerNorm},
        "fairseq.modules.transformer_sentence_encoder": {"init_bert_params": init_bert_params},
    }
    for name, attributes in contents.items():
        module = ModuleType(name)
        module.__dict__.update(attributes)
        sys.modules[name] = module
    try:
        yield
    finally:
        for name in contents:
            del sys.modules[name]
