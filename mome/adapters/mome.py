"""MoME beside blocks of a frozen LM's layers, without copying or editing the LM's code."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import Any

import torch
from torch import nn

from mome.adapters.base import find_block, find_layers
from mome.adapters.experts import MoME, balance_loss
from mome.adapters.experts_cpu import CompiledExperts, can_run
from mome.adapters.experts_fused import JointProjections, can_join


class MoMEAdapter(nn.Module):
    """One MoME module per layer, in parallel to a block of that layer.

    The module reads what the block reads (after the layer norm for ``mhsa`` and ``ffn``) and its
    output is added to what the block gives.

    Args:
        lm: frozen causal LM; ``detach`` leaves it as it was.
        position: ``mhsa``, ``ffn`` or ``layer``.
        **experts: arguments of :class:`mome.adapters.experts.MoME`.
    """

    def __init__(self, lm: nn.Module, position: str = "mhsa", **experts: Any):
        super().__init__()
        dim = lm.config.get_text_config().hidden_size
        blocks = [find_block(layer, position) for layer in find_layers(lm)]
        self.layers = nn.ModuleList(MoME(dim, **experts) for _ in blocks)
        self.position = position
        self.compiled: tuple[CompiledExperts, ...] = ()
        self.joint: tuple[JointProjections | None, ...] = (None,) * len(blocks)
        self.enabled = True
        self.token_mask: torch.Tensor | None = None
        self.routing: list[tuple[torch.Tensor, torch.Tensor] | None] = [None] * len(blocks)
        self.blocks = tuple(blocks)  # a tuple, so that they are not taken for parts of the adapter
        for index, block in enumerate(blocks):
            # Not a forward hook: its detour costs more than the experts' products of a short step.
            block.forward = self._with_experts(index, block.forward)

    def _with_experts(self, index: int, forward: Callable) -> Callable:
        experts = self.layers[index]

        @wraps(forward)
        def add_experts(*args, **kwargs):
            output = forward(*args, **kwargs)
            joint = self.joint[index]
            inside = joint is not None and joint.experts is not None and self._joins()
            if inside or not self.enabled:
                return output
            hidden = args[0] if args else kwargs["hidden_states"]
            base = output[0] if isinstance(output, tuple) else output
            if self.compiled and self._joins() and not hidden.requires_grad:
                total = self.compiled[index](hidden, base)
            else:
                total, gates, probs = experts(hidden, base)
                if self.token_mask is not None:
                    self.routing[index] = (gates, probs)
            return (total, *output[1:]) if isinstance(output, tuple) else total

        return add_experts

    @contextmanager
    def recording(self, token_mask: torch.Tensor) -> Iterator[None]:
        """Keep each layer's routing of the forward pass inside, for ``balance_loss`` or analysis.

        Args:
            token_mask: (B, S) True for tokens, False for padding.
        """
        self.token_mask = token_mask
        try:
            yield
        finally:
            self.token_mask = None

    def balance_loss(self) -> torch.Tensor:
        """Load-balancing loss of the recorded pass, mean over layers; ends the recording.

        Call it inside ``recording``. Zero without routed experts.
        """
        recorded, self.routing = self.routing, [None] * len(self.routing)
        if self.token_mask is None or any(entry is None for entry in recorded):
            raise RuntimeError("balance_loss: no forward pass of the LM was recorded")
        if recorded[0][1].shape[-1] == 0:
            return self.layers[0].up.weight.new_zeros(())
        losses = [balance_loss(gates, probs, self.token_mask) for gates, probs in recorded]
        return torch.stack(losses).mean()

    @contextmanager
    def disabled(self) -> Iterator[None]:
        """The frozen LM alone, inside the context."""
        self.enabled = False
        try:
            yield
        finally:
            self.enabled = True

    def for_inference(self, dtype: torch.dtype) -> None:
        """Prepare the experts to run in the LM's type, by the fastest way that gives the same.

        That is compiled for a CPU (:mod:`mome.adapters.experts_cpu`), in the LM's own projections
        (:mod:`mome.adapters.experts_fused`) or as in training. Neither LM nor adapter is for
        training any more.
        """
        for layer in self.layers:
            layer.down.to(dtype)
            layer.up.to(dtype)
        if can_run(self.layers[0], dtype):
            self.compiled = tuple(CompiledExperts(layer, dtype) for layer in self.layers)
        if self.position == "mhsa" and not any(self.joint):
            inside = [None if self.compiled else layer for layer in self.layers]
            self.joint = tuple(
                JointProjections(block, self._joins, experts) if can_join(block, experts) else None
                for block, experts in zip(self.blocks, inside, strict=True)
            )

    def _joins(self) -> bool:
        # A recorded pass needs the routing of every layer, which only the plain path gives.
        return self.enabled and self.token_mask is None

    def detach(self) -> None:
        """Take the experts off; the LM computes what it did."""
        for block in self.blocks:
            block.__dict__.pop("forward", None)
        for joint in filter(None, self.joint):
            joint.detach()

    def num_active_parameters(self) -> int:
        """Parameters that one token uses: shared experts, router and the top-k routed experts."""
        total = 0
        for layer in self.layers:
            expert = 2 * layer.down.in_features * layer.bottleneck
            routed = layer.top_k if layer.num_routed else 0
            router = layer.router.weight.numel() if layer.num_routed else 0
            total += expert * (layer.num_shared + routed) + router
        return total
