"""What is trained inside a frozen Hugging Face causal LM; its code is neither copied nor edited.

Every adapter follows peft's habits: a configuration, a module that holds the trained tensors, and
attach / enable / disable / detach (:mod:`mome.adapters.base`). MoME wraps the ``forward`` of blocks
of the LM's own layers, so any decoder-only model whose layers name their attention and feed-forward
blocks in a usual way can be adapted; LoRA, the baseline, is peft's.
"""

from collections.abc import Callable, Mapping
from typing import Any

from torch import nn

from mome.adapters.base import ADAPTERS, Adapter, register_adapter
from mome.adapters.experts import MoME
from mome.adapters.lora import LoRAAdapter
from mome.adapters.mome import MoMEAdapter
from mome.adapters.rate_lora import RateLoRAAdapter
from mome.adapters.routers import register_gate, register_router

__all__ = [
    "Adapter",
    "LoRAAdapter",
    "MoME",
    "MoMEAdapter",
    "RateLoRAAdapter",
    "attach",
    "register_adapter",
    "register_gate",
    "register_router",
]


def attach(lm: nn.Module, adapter: str, conf: Mapping[str, Any] | None = None) -> Adapter | None:
    """Attach an adapter to a frozen LM.

    Args:
        lm: Hugging Face causal LM; the adapter's ``detach`` leaves it as it was.
        adapter: ``mome``, ``lora``, ``rate_lora`` or another that is registered; ``none`` gives
            None and the LM stays as it is.
        conf: the adapter's arguments.

    Raises:
        ValueError: for an unknown name, with those that are known.
    """
    if adapter.lower() == "none":
        return None
    build: Callable[..., Adapter] = ADAPTERS.find(adapter)  # each has arguments of its own
    return build(lm, **(conf or {}))
