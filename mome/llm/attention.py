"""Attention of the LM by matrix products, for CPUs.

PyTorch's fused attention is slow in bfloat16 on a CPU: several times the time of the two matrix
products it fuses (tools/bench/attention.py). Here the query heads that share a key head are further
rows of one product, so that keys and values are not repeated either. Training keeps the weights of
short sequences for the backward pass. Those of long ones, which grow with the square of the length,
it computes again, and so keeps no more than the fused attention does. On a GPU the fused attention
runs as ever.
"""

import torch
from torch import nn
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from mome.common.activation_checkpointing import recomputed

NAME = "matrix_products"
KEPT = 1 << 22  # weights of a layer's attention that training keeps, at most; some 40 MB


def attend(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    mask: torch.Tensor | None,
    scaling: float,
) -> torch.Tensor:
    """Softmax attention of heads in groups.

    Args:
        query: (B, H, L, D).
        key: (B, K, S, D), where H is a multiple of K.
        value: (B, K, S, D'); multi-head latent attention has a width of its own here.
        mask: (B or 1, 1, L, S) to add to the scores, or True where a query sees a key; None for
            all.
        scaling: factor of the scores.

    Returns:
        (B, L, H, D').
    """
    batch, heads, length, width = query.shape
    shared = key.shape[1]
    grouped = (query * scaling).reshape(batch, shared, -1, width)
    scores = grouped @ key.transpose(-1, -2)
    scores = scores.view(batch, shared, heads // shared, length, -1)
    if mask is not None:
        mask = mask[:, :, None]
        scores = (
            scores.masked_fill(~mask, -torch.inf) if mask.dtype == torch.bool else scores + mask
        )
    weights = scores.softmax(dim=-1, dtype=torch.float32).to(value.dtype)
    output = weights.view(batch, shared, -1, weights.shape[-1]) @ value
    return output.view(batch, heads, length, -1).transpose(1, 2).contiguous()


def attention_forward(
    module: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float,
    dropout: float = 0.0,
    **kwargs,
) -> tuple[torch.Tensor, None]:
    """Transformers' interface to :func:`attend` and, where it would not pay, to PyTorch's own."""
    slow = query.device.type == "cpu" and query.dtype == torch.bfloat16
    causal = attention_mask is None and query.shape[2] > 1
    if not slow or causal or dropout:
        return sdpa_attention_forward(
            module, query, key, value, attention_mask, dropout, scaling, **kwargs
        )
    batch, heads, length, _ = query.shape
    if batch * heads * length * key.shape[2] <= KEPT:
        return attend(query, key, value, attention_mask, scaling), None
    return recomputed(attend, query, key, value, attention_mask, scaling), None


def use_matrix_products(lm: PreTrainedModel) -> None:
    """Let an LM that has PyTorch's fused attention attend by matrix products where it is faster."""
    if lm.config._attn_implementation == "sdpa":
        lm.set_attn_implementation(NAME)


AttentionInterface.register(NAME, attention_forward)
AttentionMaskInterface.register(NAME, sdpa_mask)
