"""LoRA by peft, shared by all rates: Llama-AVSR and Llama-MTSK MS."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from mome.adapters.base import Adapter, register_adapter

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def lora_rank(lm: PreTrainedModel, rank: int | None, reduction: int | None) -> int:
    """The rank, or the LM's width over ``reduction``, as the predecessors give it; 32 by default.

    Raises:
        ValueError: if both are given, or no rank of at least 1 comes of them.
    """
    if rank is not None and reduction is not None:
        raise ValueError(f"LoRA takes rank={rank} or reduction={reduction}, not both")
    width = lm.config.get_text_config().hidden_size
    if reduction is not None:
        if not 1 <= reduction <= width:
            raise ValueError(f"reduction={reduction}: it is from 1 to the LM's width, {width}")
        return width // reduction
    if rank is not None and rank < 1:
        raise ValueError(f"rank={rank}: LoRA has a rank of at least 1")
    return 32 if rank is None else rank


@register_adapter("lora")
class LoRAAdapter(Adapter):
    """LoRA on chosen projections of the LM (peft), shared by all rates: Llama-AVSR, Llama-MTSK MS.

    Args:
        lm: frozen causal LM; peft inserts its layers in place.
        rank: of the update; see :func:`lora_rank`.
        reduction: in place of the rank, which is then the width over this.
        scale: factor of the update (peft's ``alpha / r``).
        target_modules: names of the linear layers to adapt.

    Raises:
        ValueError: if the LM has LoRA already or no such layers.
    """

    def __init__(
        self,
        lm: PreTrainedModel,
        rank: int | None = None,
        reduction: int | None = None,
        scale: float = 2.0,
        target_modules: Sequence[str] = ("q_proj", "v_proj"),
    ):
        # peft takes longer to load than PyTorch, and who attaches MoME needs none of it.
        from peft import LoraConfig, inject_adapter_in_model
        from peft.tuners.tuners_utils import BaseTunerLayer

        super().__init__()
        if any(isinstance(module, BaseTunerLayer) for module in lm.modules()):
            raise ValueError(f"{type(lm).__name__} has LoRA already; detach that one first")
        rank = lora_rank(lm, rank, reduction)
        # peft takes any number for alpha, and says int.
        alpha: Any = scale * rank
        config = LoraConfig(r=rank, lora_alpha=alpha, target_modules=list(target_modules))
        inject_adapter_in_model(config, lm)
        self.lm = (lm,)  # a tuple, so that it is not taken for a part of the adapter
        self.tuners = {n: m for n, m in lm.named_modules() if isinstance(m, BaseTunerLayer)}
        # The tensors live inside the frozen LM, out of sight of optimiser and checkpoint: list
        # them here, in float32, in the LM's order.
        weights = [p for name, p in lm.named_parameters() if "lora_" in name]
        for weight in weights:
            weight.data = weight.data.float()
        self.weights = nn.ParameterList(weight.requires_grad_(True) for weight in weights)

    def enable(self, on: bool = True) -> None:
        """Switch LoRA on or off."""
        super().enable(on)
        for tuner in self.tuners.values():
            tuner.enable_adapters(enabled=on)

    def detach(self) -> None:
        """Put the LM's own layers back in the place of peft's, which add LoRA to them."""
        (lm,) = self.lm
        for name, tuner in self.tuners.items():
            lm.set_submodule(name, tuner.get_base_layer())
        self.tuners = {}
        super().detach()

    def for_inference(self, dtype: torch.dtype) -> None:
        """Hold LoRA's matrices in the LM's type, so that they are multiplied in it."""
        for weight in self.weights:
            weight.data = weight.data.to(dtype)
