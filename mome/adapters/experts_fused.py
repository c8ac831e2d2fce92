"""MoME at inference: the experts as rows and columns of the attention's own projections.

Beside the self-attention the experts read what its query, key and value projections read, and what
they give is added to what its output projection gives. Down-projections and router are therefore
further rows of one joint product with query, key and value, and up-projections are further columns
of the output projection: a layer has fewer matrix products with MoME than the frozen LM without,
and what is left of the experts' own is to choose and to gate. A decoding step, where each operation
costs more to start than to compute, gains most.

Where the experts run compiled (:mod:`mome.adapters.experts_cpu`), which is faster on a CPU, the
joint product is that of query, key and value alone.

The LM's weights become views of the joint ones, so that nothing is held twice.
"""

from collections.abc import Callable
from functools import cache, partial

import torch
import torch.nn.functional as F
from torch import nn

from mome.adapters.experts import GROUPED_FROM, MoME

READS = ("q_proj", "k_proj", "v_proj")
WRITES = "o_proj"


@cache
def gpu_kernel() -> Callable | None:
    """The kernel of :mod:`mome.adapters.experts_triton`; None where Triton is missing."""
    try:
        from mome.adapters.experts_triton import gate_experts
    except ImportError:
        return None
    return gate_experts


def can_join(block: nn.Module, experts: MoME | None = None) -> bool:
    """Whether a block projects by plain linear layers of the usual names, and of the experts' type.

    Experts large enough for grouped products stay beside it.
    """
    reads = [getattr(block, name, None) for name in READS]
    writes = [getattr(block, WRITES, None)]
    if not all(type(layer) is nn.Linear for layer in reads + writes):  # not quantised, no LoRA
        return False
    if experts is not None:
        reads.append(experts.down)
        writes.append(experts.up)
    return (
        len({layer.in_features for layer in reads}) == 1
        and len({layer.weight.dtype for layer in reads + writes}) == 1
        and (experts is None or experts.bottleneck < GROUPED_FROM)
    )


class JointProjections:
    """Join the projections of an attention block, with a MoME module's; see :func:`can_join`.

    The router works in the LM's type then. In bfloat16 a token may so choose another of two experts
    whose gates are nearly equal.

    Args:
        block: with ``q_proj``, ``k_proj``, ``v_proj`` and ``o_proj``.
        active: says at each call whether the joint product is taken.
        experts: becomes views of the joint weights, without gradients from then on; None joins
            query, key and value alone.
    """

    @torch.no_grad()
    def __init__(self, block: nn.Module, active: Callable[[], bool], experts: MoME | None = None):
        self.experts = experts
        self.active = active
        self.reads = [getattr(block, name) for name in READS]
        self.write = getattr(block, WRITES)
        self.source: torch.Tensor | None = None
        self.product: torch.Tensor | None = None
        self.parts: tuple[torch.Tensor, ...] = ()
        dtype = self.write.weight.dtype
        inputs = list(self.reads)
        if experts is not None:
            inputs.append(experts.down)
        weights = [layer.weight for layer in inputs]
        if experts is not None and experts.router is not None:
            weights.append(experts.router.weight.to(dtype))  # it keeps its own, in float32
        self.sizes = [len(weight) for weight in weights]
        self.read_weight = torch.cat(weights)
        self.read_bias = None
        if any(layer.bias is not None for layer in self.reads):
            self.read_bias = self.read_weight.new_zeros(len(self.read_weight))
            for layer, part in zip(self.reads, self.read_bias.split(self.sizes), strict=False):
                if layer.bias is not None:
                    part.copy_(layer.bias)
        for layer, part in zip(inputs, self.read_weight.split(self.sizes), strict=False):
            layer.weight.data = part
        for index, layer in enumerate(self.reads):
            layer.forward = partial(self._read, index, layer.forward)
        if experts is None:
            return
        experts.always_on = experts.always_on.to(dtype)
        outputs = [self.write, experts.up]
        self.write_weight = torch.cat([layer.weight for layer in outputs], dim=1)
        widths = [layer.in_features for layer in outputs]
        for layer, part in zip(outputs, self.write_weight.split(widths, dim=1), strict=True):
            layer.weight.data = part
        self.write.forward = partial(self._write, self.write.forward)

    def _read(self, index: int, alone: Callable, hidden: torch.Tensor) -> torch.Tensor:
        """Query, key or value (..., N) of hidden states (..., D)."""
        if not self.active():
            return alone(hidden)
        if hidden is not self.source:
            if index > 0 and self.source is not None:
                raise RuntimeError("the attention projects tensors that differ; detach the adapter")
            self.product = F.linear(hidden, self.read_weight, self.read_bias)
            self.source, self.parts = hidden, self.product.split(self.sizes, dim=-1)
        part = self.parts[index]
        if self.experts is None and index == len(self.reads) - 1:
            self.source, self.parts = None, ()
        return part

    def _write(self, alone: Callable, attended: torch.Tensor) -> torch.Tensor:
        """(..., D) of the attention's output before its projection, and of the experts."""
        if not self.active():
            return alone(attended)
        inner, *logits = self.parts[len(self.reads) :]
        product, self.source, self.parts = self.product, None, ()
        if attended.is_cuda and (in_one_kernel := gpu_kernel()) is not None:
            first = sum(self.sizes[: len(self.reads)])
            inputs = in_one_kernel(self.experts, product, attended, first)
            return F.linear(inputs, self.write_weight, self.write.bias)
        inner = F.gelu(inner.contiguous())  # strided rows would take several times as long
        if logits:
            gates, _ = self.experts.choose(*logits)
            inner = self.experts.weigh(inner, gates)
        return F.linear(torch.cat([attended, inner], dim=-1), self.write_weight, self.write.bias)

    def detach(self) -> None:
        """Let the projections run apart again; the weights stay views."""
        for layer in (*self.reads, self.write):
            layer.__dict__.pop("forward", None)
