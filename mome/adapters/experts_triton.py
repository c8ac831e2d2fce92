"""What is left of the experts at inference on a GPU, in one kernel.

Once down-projections and router are rows of the attention's own product, and up-projections columns
of its output projection (:mod:`mome.adapters.experts_fused`), what remains of the experts is small:
GELU, softmax, top-k, gates, and writing it beside what was attended. PyTorch starts about ten
kernels for it, each of which takes longer to start than to compute; here it is one. Triton, in
which it is written, comes with PyTorch for GPUs; without it PyTorch's operations serve.
"""

from contextlib import nullcontext

import torch
import triton
import triton.language as tl

from mome.adapters.experts import MoME
from mome.adapters.routers import renormalized_topk

COLUMNS = 1024  # of the attended states that one program copies
TAIL = tl.constexpr(64)  # at most so many columns complete a row of the output


@triton.jit
def _gate(
    product,
    attended,
    output,
    product_stride,
    attended_stride,
    output_stride,
    first,
    width,
    routed: tl.constexpr,
    experts: tl.constexpr,
    units: tl.constexpr,
    top_k: tl.constexpr,
    renormalized: tl.constexpr,
    bias: tl.constexpr,
    tail: tl.constexpr,
    expert_block: tl.constexpr,
    unit_block: tl.constexpr,
    columns: tl.constexpr,
):
    # Rows of a long prompt times their stride pass 2 ** 31.
    row = tl.program_id(0).to(tl.int64)
    block = tl.program_id(1)
    output += row * output_stride
    if block > 0:
        copied = (block - 1) * columns + tl.arange(0, columns)
        values = tl.load(attended + row * attended_stride + copied, mask=copied < width)
        tl.store(output + copied, values, mask=copied < width)
    else:
        product += row * product_stride + first
        expert = tl.arange(0, expert_block)
        gates = tl.where(expert < experts, 1.0, 0.0)
        if routed > 0:
            logits = tl.load(
                product + experts * units + expert, mask=expert < routed, other=-float("inf")
            ).to(tl.float32)
            weights = tl.exp(logits - tl.max(logits, axis=0))
            chosen = expert < 0
            for _ in tl.static_range(top_k):
                best = tl.argmax(logits, axis=0)
                chosen = chosen | (expert == best)
                logits = tl.where(expert == best, -float("inf"), logits)
            total = tl.sum(weights, axis=0)
            if renormalized:
                total = tl.sum(tl.where(chosen, weights, 0.0), axis=0)
            gates = tl.where(expert < routed, tl.where(chosen, weights / total, 0.0), gates)
        unit = tl.arange(0, unit_block)
        column = expert[:, None] * units + unit[None, :]
        inside = (expert[:, None] < experts) & (unit[None, :] < units)
        inner = tl.load(product + column, mask=inside, other=0.0).to(tl.float32)
        inner = 0.5 * inner * (1.0 + tl.erf(inner * 0.7071067811865476)) * gates[:, None]
        tl.store(output + width + column, inner.to(output.dtype.element_ty), mask=inside)
        if bias:  # the up-projections' biases, further columns of their product, have the gates
            gate = output + width + experts * units + expert
            tl.store(gate, gates.to(output.dtype.element_ty), mask=expert < experts)
        if tail > 0:  # columns that only complete a row
            column = tl.arange(0, TAIL)
            zeros = tl.zeros((TAIL,), output.dtype.element_ty)
            tl.store(output + output_stride - tail + column, zeros, mask=column < tail)


def gate_experts(
    experts: MoME, product: torch.Tensor, attended: torch.Tensor, first: int, width: int
) -> torch.Tensor:
    """Gated bottlenecks beside the attended states: what the fused output projection reads.

    Args:
        experts: says how many experts there are and how they are gated.
        product: (..., N) whose columns from ``first`` on are the bottlenecks of all experts before
            their GELU, ((Nr + Ns) r), and the router's logits, (Nr). Contiguous.
        attended: (..., A) in the same type.
        first: column where the bottlenecks begin.
        width: columns W of the output, up to 64 more than are written, which are zero.

    Returns:
        (..., W): A attended states, (Nr + Ns) r bottlenecks and, with biases, (Nr + Ns) gates.
    """
    count = experts.num_routed + experts.num_shared
    states = attended.shape[-1]
    attended = attended.contiguous()
    output = attended.new_empty(*attended.shape[:-1], width)
    blocks = -(-states // COLUMNS)
    # Triton starts kernels on the current GPU, whichever the tensors are on.
    with torch.cuda.device(product.device) if product.is_cuda else nullcontext():
        _gate[(attended.numel() // states, 1 + blocks)](
            product,
            attended,
            output,
            product.shape[-1],
            states,
            width,
            first,
            states,
            routed=experts.num_routed,
            experts=count,
            units=experts.bottleneck,
            top_k=experts.top_k,
            renormalized=experts.gate_function is renormalized_topk,
            bias=experts.bias,
            tail=width - states - experts.up.in_features,
            expert_block=max(2, 1 << (count - 1).bit_length()),
            unit_block=max(2, 1 << (experts.bottleneck - 1).bit_length()),
            columns=COLUMNS,
            num_warps=4,
        )
    return output
