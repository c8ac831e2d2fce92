"""Attach an adapter to a frozen Hugging Face causal LM without copying or editing its code.

Every adapter follows peft's habits: a configuration, a module that holds the trained tensors, and
attach / enable / disable / detach. MoME wraps the ``forward`` of blocks of the LM's own layers, so
any decoder-only model whose layers name their attention and feed-forward blocks in a usual way can
be adapted; LoRA, the baseline, is peft's.
"""

from collections.abc import Mapping
from typing import Any

from torch import nn

from mome.adapters.lora import LoRAAdapter
from mome.adapters.mome import MoMEAdapter
from mome.adapters.rate_lora import RateLoRAAdapter

ADAPTERS = {"mome": MoMEAdapter, "lora": LoRAAdapter, "rate_lora": RateLoRAAdapter}


def choose(adapter: nn.Module | None, columns: list[str | None]) -> None:
    """Tell an adapter that differs by rate pair which pair each column of the next input is of."""
    if isinstance(adapter, RateLoRAAdapter):
        adapter.choose(columns)


def attach(lm: nn.Module, adapter: str, conf: Mapping[str, Any] | None = None) -> nn.Module | None:
    """Attach the adapter called ``mome``, ``lora``, ``rate_lora`` or ``none`` to a frozen LM.

    Raises:
        ValueError: for an unknown name.
    """
    if adapter == "none":
        return None
    if adapter not in ADAPTERS:
        raise ValueError(f"adapter {adapter!r} must be one of {', '.join([*ADAPTERS, 'none'])}")
    return ADAPTERS[adapter](lm, **(conf or {}))
