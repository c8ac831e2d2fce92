"""MoME at inference: the experts as rows and columns of the attention's own projections.

Beside the self-attention the experts read what its query, key and value projections read, and what
they give is added to what its output projection gives. Down-projections, and on a GPU the router,
are therefore further rows of one fused product with query, key and value, and up-projections are
further columns of the output projection: a layer has fewer matrix products with MoME than the
frozen LM without, and what is left of the experts' own is to choose and to gate. A decoding step,
where each operation costs more to start than to compute, gains most.

Where the experts run compiled (:mod:`mome.adapters.experts_cpu`), which is faster on a CPU, the
fused product is that of query, key and value alone.

The LM's weights become views of the fused ones, so that nothing is held twice; in a copy by
``copy.deepcopy`` they are weights of their own again.
"""

import logging
from collections.abc import Callable, Sequence
from functools import cache, partial

import torch
import torch.nn.functional as F
from torch import nn

from mome.adapters.base import Forward
from mome.adapters.experts import GROUPED_FROM, MOVED, MoME, is_stock
from mome.adapters.routers import LinearRouter

READS = ("q_proj", "k_proj", "v_proj")
WRITES = "o_proj"
# Rows of the fused product start at multiples of so many elements: CUDA's matrix products and fused
# attention take a slow path, 1.2 to 1.7 times as long for the whole LLM, where rows are not aligned
# to 16 bytes, as with 23 router logits at their end.
ALIGNMENT = 64
COLUMNS = 8  # the same of the rows that the output projection reads: 16 bytes of bfloat16


@cache
def gpu_kernel() -> Callable[..., torch.Tensor] | None:
    """The kernel of :mod:`mome.adapters.experts_triton`; None, with a warning, where it fails.

    Triton comes with PyTorch for GPUs, but it compiles with the machine's C compiler, and not for
    every GPU.
    """
    try:
        from mome.adapters.experts_triton import gate_experts

        experts = MoME(8, num_routed=2, num_shared=1, bottleneck=2, top_k=1)
        product = torch.zeros(1, 64, device="cuda")
        gate_experts(experts, product, torch.zeros(1, 8, device="cuda"), first=0, width=24)
    except Exception as error:  # of Triton, its compiler or the driver, each of its own kind
        logging.warning(
            "Triton's kernel for the experts cannot be used: PyTorch computes them, which takes "
            "longer (%s: %s)",
            type(error).__name__,
            error,
        )
        return None
    return gate_experts


def can_fuse(block: nn.Module, experts: MoME | None = None) -> bool:
    """Whether the projections of a block, and a MoME module's if one is given, can be fused.

    The block must project by linear layers of the usual names that nothing else has changed
    (quantised layers or weights, LoRA's, another adapter's), of the experts' type. Experts that are
    not MoME's own (see :func:`mome.adapters.experts.is_stock`), or large enough for grouped
    products, stay beside the block.
    """
    projections = [
        layer
        for name in (*READS, WRITES)
        if type(layer := getattr(block, name, None)) is nn.Linear
        and type(layer.weight.data) is torch.Tensor
        and "forward" not in vars(layer)
    ]
    if len(projections) <= len(READS):
        return False
    *reads, write = projections
    writes = [write]
    if experts is not None:
        if not is_stock(experts) or experts.bottleneck >= GROUPED_FROM:
            return False
        reads.append(experts.down)
        writes.append(experts.up)
    return (
        len({layer.in_features for layer in reads}) == 1
        and len({layer.weight.dtype for layer in reads + writes}) == 1
    )


def fuse_rows(layers: Sequence[nn.Linear], *further: torch.Tensor) -> torch.Tensor:
    """One weight (N + N' + ..., D) of layers that read the same input; theirs become views of it.

    Args:
        layers: of weights (N, D), (N', D), ...
        further: matrices (N'', D) that follow them, as copies.

    Rows of zeros complete it to a multiple of ``ALIGNMENT``.
    """
    weight = torch.cat([*(layer.weight for layer in layers), *further])
    weight = F.pad(weight, (0, 0, 0, -len(weight) % ALIGNMENT))
    start = 0
    for layer in layers:
        layer.weight.data = weight[start : start + layer.out_features]
        start += layer.out_features
    return weight


def fuse_columns(layers: Sequence[nn.Linear]) -> torch.Tensor:
    """One weight (D, N + N' + ...) of layers whose outputs are added; theirs become views of it.

    Columns of zeros complete it to a multiple of ``COLUMNS``.
    """
    weight = torch.cat([layer.weight for layer in layers], dim=1)
    weight = F.pad(weight, (0, -weight.shape[1] % COLUMNS))
    start = 0
    for layer in layers:
        layer.weight.data = weight[:, start : start + layer.in_features]
        start += layer.in_features
    return weight


def fuse_biases(layers: Sequence[nn.Linear], weight: torch.Tensor) -> torch.Tensor | None:
    """Biases (N,) of the rows of a fused weight (N, D) that begins with these layers'.

    Rows without a bias have zero; None if no layer has a bias.
    """
    if all(layer.bias is None for layer in layers):
        return None
    biases: list[torch.Tensor] = [
        weight.new_zeros(layer.out_features) if layer.bias is None else layer.bias.to(weight.dtype)
        for layer in layers
    ]
    bias = torch.cat(biases)
    return F.pad(bias, (0, len(weight) - len(bias)))


class FusedProjections:
    """The projections of an attention block and a MoME module, fused; see :func:`can_fuse`.

    In a forward pass the attention calls query, key and value on the same hidden states, then the
    output projection. The first of these calls computes the fused product, the next two take their
    parts of it, and the output projection finds the bottlenecks, and on a GPU router logits, in the
    rest.

    The kernel of GPUs reads router logits that were computed in the LM's type. In bfloat16 a token
    may therefore go to the other one of two experts whose gates are nearly equal.

    Args:
        block: with ``q_proj``, ``k_proj``, ``v_proj`` and ``o_proj``.
        wrap: replaces the ``forward`` of a module, as :meth:`mome.adapters.base.Adapter.wrap` does;
            undoing it lets the projections run apart again, on weights that stay views.
        active: says at each call whether the fused product is taken.
        experts: becomes views of the fused weights, without gradients from then on; None fuses
            query, key and value alone.
    """

    @torch.no_grad()
    def __init__(
        self,
        block: nn.Module,
        wrap: Callable[[nn.Module, Callable[[Forward], Forward]], None],
        active: Callable[[], bool],
        experts: MoME | None = None,
    ):
        self.experts = experts
        self.active = active
        self.write = getattr(block, WRITES)
        reads = [getattr(block, name) for name in READS]
        self._fuse_reads(reads)
        # Each new forward is `_read` or `_write` with the layer's own forward given: `alone`.
        for index, layer in enumerate(reads):
            wrap(layer, partial(partial, self._read, index))
        if experts is not None:
            experts.always_on = experts.always_on.to(self.write.weight.dtype)
            self.write_weight = fuse_columns([self.write, experts.up])
            wrap(self.write, partial(partial, self._write))
        self._forget()

    def _fuse_reads(self, reads: list[nn.Linear]) -> None:
        """The fused product's weight and bias, and the widths of its parts, in order."""
        inputs = list(reads)
        routers: list[nn.Linear] = []
        logits: list[torch.Tensor] = []
        if self.experts is not None:
            inputs.append(self.experts.down)
            router = self.experts.router
            # Its own weight stays in float32, which is what routes but for the kernel of GPUs.
            if isinstance(router, LinearRouter) and self.write.weight.is_cuda:
                logits = [router.weight.to(self.write.weight.dtype)]
                routers = [router]
        self.read_weight = fuse_rows(inputs, *logits)
        self.read_bias = fuse_biases([*inputs, *routers], self.read_weight)
        self.widths = [layer.out_features for layer in inputs] + [len(rows) for rows in logits]
        self.width = sum(self.widths)  # of the columns that mean something
        self.first = sum(layer.out_features for layer in reads)  # column of the bottlenecks

    def _forget(self) -> None:
        """End a forward pass: hold no product any more."""
        self.source: torch.Tensor | None = None  # what the product is of, ...
        self.product: torch.Tensor | None = None  # ... the product, ...
        self.parts: tuple[torch.Tensor, ...] = ()  # ... and its parts, one for each of `widths`

    def _check(self, hidden: torch.Tensor) -> None:
        """Raise RuntimeError for hidden states of another device or type than the fused weights."""
        weight = self.read_weight
        same_type = hidden.dtype == weight.dtype or torch.is_autocast_enabled(hidden.device.type)
        if hidden.device != weight.device or not same_type:
            raise RuntimeError(
                f"projections that are fused in {weight.dtype} on {weight.device} were given "
                f"{hidden.dtype} on {hidden.device}: {MOVED}"
            )

    def _read(self, index: int, alone: Forward, hidden: torch.Tensor) -> torch.Tensor:
        """Query, key or value (..., N) of hidden states (..., D)."""
        if not self.active():
            return alone(hidden)
        if hidden is not self.source:
            if index > 0 and self.source is not None:
                raise RuntimeError("the attention projects tensors that differ; detach the adapter")
            self._check(hidden)
            self.source = hidden
            self.product = F.linear(hidden, self.read_weight, self.read_bias)
            self.parts = self.product[..., : self.width].split(self.widths, dim=-1)
        part = self.parts[index]
        if self.experts is None and index == len(READS) - 1:
            self._forget()
        return part

    def _write(self, alone: Forward, attended: torch.Tensor) -> torch.Tensor:
        """(..., D) of the attention's output before its projection, and of the experts."""
        if not self.active() or self.experts is None:
            return alone(attended)
        hidden, product, inner = self.source, self.product, self.parts[len(READS)]
        self._forget()
        if attended.is_cuda and product is not None and (gate_experts := gpu_kernel()) is not None:
            width = self.write_weight.shape[1]
            inputs = gate_experts(self.experts, product, attended, self.first, width)
            return F.linear(inputs, self.write_weight, self.write.bias)
        inner = F.gelu(inner.contiguous())  # strided rows would take several times as long
        if self.experts.router is not None and hidden is not None:
            gates = self.experts.route(hidden)[0].to(inner.dtype)
        else:
            gates = self.experts.always_on.expand(*inner.shape[:-1], -1)
        parts = [attended, self.experts.weigh(inner, gates)]
        if tail := self.write_weight.shape[1] - sum(part.shape[-1] for part in parts):
            parts.append(attended.new_zeros(*attended.shape[:-1], tail))
        return F.linear(torch.cat(parts, dim=-1), self.write_weight, self.write.bias)
