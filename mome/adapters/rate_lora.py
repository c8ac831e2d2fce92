"""A LoRA for each rate pair: the baselines Llama-MTSK SS (one each) and MSS (and a shared one).

All pairs run in one forward pass, side by side (see :mod:`mome.llm.prompt_tree`). Their LoRAs are
held as one pair of matrices, and what is not a column's own is zeroed between the two, as gates do
in :mod:`mome.adapters.experts`. A prefix has other states under each LoRA, so prompts of different
pairs share no nodes.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import nn

from mome.adapters.base import Adapter, register_adapter
from mome.adapters.lora import lora_rank

if TYPE_CHECKING:
    from transformers import PreTrainedModel


class RateLoRA(nn.Module):
    """The LoRAs of one linear layer, by pair.

    Args:
        layer: the frozen linear layer.
        count: number of LoRAs.
        rank: of each.
    """

    def __init__(self, layer: nn.Linear, count: int, rank: int):
        super().__init__()
        self.down = nn.Parameter(torch.empty(count * rank, layer.in_features))
        self.up = nn.Parameter(torch.zeros(layer.out_features, count * rank))
        for part in self.down.split(rank):
            nn.init.kaiming_uniform_(part, a=5**0.5)

    def forward(self, hidden: torch.Tensor, gates: torch.Tensor) -> torch.Tensor:
        """(B, S, D) and gates (S, count) -> (B, S, D')."""
        inner = F.linear(hidden, self.down.to(hidden.dtype)).unflatten(-1, (gates.shape[-1], -1))
        inner = (inner * gates.to(hidden.dtype)[..., None]).flatten(-2)
        return F.linear(inner, self.up.to(hidden.dtype))


@register_adapter("rate_lora")
class RateLoRAAdapter(Adapter):
    """One LoRA for each rate pair, beside one for all unless ``shared`` is off.

    Args:
        lm: frozen causal LM; it is hooked, not changed.
        pairs: names of all trained rate pairs, such as ``a4_v2``.
        shared: add a LoRA that is always on (MSS; without it SS).
        rank: of each LoRA; see :func:`lora_rank`.
        reduction: in place of the rank, which is then the width over this.
        scale: factor of the update.
        target_modules: names of the linear layers to adapt.

    Raises:
        ValueError: if the LM has no such layers.
    """

    by_pair = True

    def __init__(
        self,
        lm: PreTrainedModel,
        pairs: Sequence[str],
        shared: bool = True,
        rank: int | None = None,
        reduction: int | None = None,
        scale: float = 2.0,
        target_modules: Sequence[str] = ("q_proj", "v_proj"),
    ):
        super().__init__()
        self.pairs = list(pairs)
        self.shared = shared
        self.scale = scale
        self.rank = lora_rank(lm, rank, reduction)
        self.gates: torch.Tensor | None = None
        targets = [m for n, m in lm.named_modules() if n.rpartition(".")[2] in target_modules]
        if not targets:
            raise ValueError(f"{type(lm).__name__} has no layers {', '.join(target_modules)}")
        count = len(self.pairs) + shared
        self.layers = nn.ModuleList(RateLoRA(layer, count, self.rank) for layer in targets)
        self.handles = [
            layer.register_forward_hook(partial(self._add_update, index))
            for index, layer in enumerate(targets)
        ]

    def _add_update(
        self, index: int, _layer: nn.Module, args: tuple, output: torch.Tensor
    ) -> torch.Tensor:
        if not self.enabled:
            return output
        if self.gates is None:
            raise RuntimeError("rate_lora: no rate pair was selected; see `select_pairs`")
        return output + self.scale * self.layers[index](args[0], self.gates)

    def select_pairs(self, columns: Sequence[str | None]) -> None:
        """Set the LoRA of each of the S columns of the LM's next inputs, by rate pair.

        Raises:
            ValueError: for a pair that has no LoRA.
        """
        if unknown := {str(pair) for pair in columns} - set(self.pairs):
            raise ValueError(f"rate_lora has {self.pairs}, but not {', '.join(sorted(unknown))}")
        index = torch.tensor([self.pairs.index(str(pair)) for pair in columns])
        gates = F.one_hot(index, len(self.pairs)).float()
        if self.shared:
            gates = F.pad(gates, (0, 1), value=1.0)
        self.gates = gates.to(next(self.parameters()).device)

    def for_inference(self, dtype: torch.dtype) -> None:
        """Hold LoRA's matrices in the LM's type, so that they are multiplied in it."""
        self.layers.to(dtype)

    def detach(self) -> None:
        """Remove the hooks; the LM is as it was."""
        for handle in self.handles:
            handle.remove()
        self.handles = []
        super().detach()

    def num_active_parameters(self) -> int:
        """Parameters that one token uses: its pair's LoRA and the shared one."""
        total = sum(p.numel() for p in self.parameters())
        return total * (1 + self.shared) // (len(self.pairs) + self.shared)
