"""LoRA by peft, shared by all rates: Llama-AVSR."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from peft import LoraConfig, inject_adapter_in_model
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import nn


def lora_rank(lm: nn.Module, rank: int | None, reduction: int | None) -> int:
    """The rank, or the LM's width over ``reduction``, as the predecessors give it; 32 by default.

    Raises:
        ValueError: if both are given.
    """
    if rank is not None and reduction is not None:
        raise ValueError(f"LoRA takes rank={rank} or reduction={reduction}, not both")
    if reduction is not None:
        return lm.config.get_text_config().hidden_size // reduction
    return 32 if rank is None else rank


class LoRAAdapter(nn.Module):
    """LoRA on chosen projections of the LM (peft), shared by all rates: Llama-AVSR, Llama-MTSK SS.

    Args:
        lm: frozen causal LM; peft inserts its layers in place.
        rank, reduction: rank of the update; see :func:`lora_rank`.
        scale: factor of the update (peft's ``alpha / r``).
        target_modules: names of the linear layers to adapt.
    """

    def __init__(
        self,
        lm: nn.Module,
        rank: int | None = None,
        reduction: int | None = None,
        scale: float = 2.0,
        target_modules: tuple[str, ...] | list[str] = ("q_proj", "v_proj"),
    ):
        super().__init__()
        rank = lora_rank(lm, rank, reduction)
        config = LoraConfig(r=rank, lora_alpha=scale * rank, target_modules=list(target_modules))
        inject_adapter_in_model(config, lm)
        self.tuners = tuple(m for m in lm.modules() if isinstance(m, BaseTunerLayer))
        # The tensors live inside the frozen LM, out of sight of optimiser and checkpoint: list
        # them here, in float32, in the LM's order.
        weights = [p for name, p in lm.named_parameters() if "lora_" in name]
        for weight in weights:
            weight.data = weight.data.float()
        self.weights = nn.ParameterList(weight.requires_grad_(True) for weight in weights)

    @contextmanager
    def recording(self, token_mask: torch.Tensor) -> Iterator[None]:
        """Nothing to record: LoRA has no router."""
        yield

    def balance_loss(self) -> torch.Tensor:
        """Zero: LoRA has no router."""
        return self.weights[0].new_zeros(())

    def for_inference(self, dtype: torch.dtype) -> None:
        """Hold LoRA's matrices in the LM's type, so that they are multiplied in it."""
        for weight in self.weights:
            weight.data = weight.data.to(dtype)

    @contextmanager
    def disabled(self) -> Iterator[None]:
        """The frozen LM alone, inside the context."""
        for module in self.tuners:
            module.enable_adapters(enabled=False)
        try:
            yield
        finally:
            for module in self.tuners:
                module.enable_adapters(enabled=True)

    def num_active_parameters(self) -> int:
        """All of LoRA's parameters act on every token."""
        return sum(p.numel() for p in self.weights)
