"""The MoME module: one mixture of small experts that all compression rates share.

MoME(h) = sum_{n <= Ns} E_n(h) + sum_{n > Ns} g_n(h) E_n(h),   E_n(h) = up_n(GELU(down_n(h)))

with Ns shared experts that are always on and Nr routed experts of which a router switches the
top-k on per token (Cappellazzo et al., NeurIPS 2025, arXiv 2510.04136).

A bottleneck of a few units makes the experts so small that gathering tokens per expert costs more
than computing every expert. The experts of a module are therefore stored as one down-projection
and one up-projection, and the gates, zero for what the router left out, scale the bottleneck
between them: two matrix products, whatever the number of experts. Experts of GROUPED_FROM units and
more are computed for the tokens that chose them alone, in grouped matrix products. For inference
see also :mod:`mome.adapters.experts_cpu` and :mod:`mome.adapters.experts_fused`.
"""

import torch
import torch.nn.functional as F
from torch import nn

from mome.common.activation_checkpointing import recomputed
from mome.common.distributed import sum_over_processes

GATES = ("softmax_topk", "topk_softmax")
# Where grouped products begin to win, as tools/bench/dispatch.py measures it.
GROUPED_FROM = 128  # units of an expert, for as many tokens:
GROUPED_TOKENS = 512


class MoME(nn.Module):
    """Mixture of Matryoshka experts.

    Args:
        dim: width D of the hidden states.
        num_routed: number Nr of routed experts; 0 leaves the router out.
        num_shared: number Ns of shared experts.
        bottleneck: width r of one expert, 1 or more.
        top_k: routed experts on per token.
        gate: ``softmax_topk`` takes the top-k of the softmax over all routed experts (the paper's
            order; gates sum to less than one); ``topk_softmax`` takes the softmax over the chosen
            k alone (gates sum to one).

    The up-projections start at zero, so that a fresh module adds exactly nothing.

    Raises:
        ValueError: for sizes that cannot be built or an unknown gate.
    """

    def __init__(
        self,
        dim: int,
        num_routed: int = 23,
        num_shared: int = 1,
        bottleneck: int = 12,
        top_k: int = 4,
        gate: str = "softmax_topk",
    ):
        super().__init__()
        if num_routed < 0 or num_shared < 0 or num_routed + num_shared == 0 or bottleneck < 1:
            raise ValueError(
                f"MoME needs at least one expert and a bottleneck of at least 1: num_routed="
                f"{num_routed}, num_shared={num_shared}, bottleneck={bottleneck}"
            )
        if num_routed and not 1 <= top_k <= num_routed:
            raise ValueError(f"top_k={top_k} must lie between 1 and num_routed={num_routed}")
        if gate not in GATES:
            raise ValueError(f"gate={gate!r} must be one of {', '.join(GATES)}")
        self.num_routed = num_routed
        self.num_shared = num_shared
        self.bottleneck = bottleneck
        self.top_k = top_k
        self.gate = gate
        width = (num_shared + num_routed) * bottleneck
        # Rows of `down` and columns of `up` lie expert by expert, the routed experts first.
        self.down = nn.Linear(dim, width, bias=False)
        self.up = nn.Linear(width, dim, bias=False)
        nn.init.zeros_(self.up.weight)
        self.router = nn.Linear(dim, num_routed, bias=False) if num_routed else None
        always_on = torch.cat([torch.zeros(num_routed), torch.ones(num_shared)])
        self.register_buffer("always_on", always_on, persistent=False)

    def route(self, hidden: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Gates of all experts and router probabilities of each token, in float32.

        Args:
            hidden: (M, D).

        Returns:
            gates (M, Nr + Ns), zero for routed experts that are off and one for shared experts, and
            probabilities (M, Nr).
        """
        # Routing in float32: bfloat16 rounds close probabilities to ties.
        with torch.autocast(hidden.device.type, enabled=False):
            return self.choose(F.linear(hidden.float(), self.router.weight.float()))

    def choose(self, logits: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Gates (..., Nr + Ns) and probabilities (..., Nr) for router logits (..., Nr)."""
        probs = logits.softmax(dim=-1)
        if self.gate == "softmax_topk":
            values, index = probs.topk(self.top_k, dim=-1, sorted=False)
        else:
            values, index = logits.topk(self.top_k, dim=-1, sorted=False)
            values = values.softmax(dim=-1)
        gates = self.always_on.to(logits.dtype).expand(*logits.shape[:-1], -1)
        return gates.scatter(-1, index, values), probs

    def forward(
        self, hidden: torch.Tensor, base: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Apply the experts.

        Args:
            hidden: (..., D) in any floating dtype; the products run in that dtype.
            base: (..., D) to add the result to; nothing when None.

        Returns:
            output (..., D), gates (..., Nr) and router probabilities (..., Nr); the last two are
            empty without routed experts.
        """
        shape = hidden.shape
        hidden = hidden.reshape(-1, shape[-1])
        base = hidden.new_zeros(()) if base is None else base.reshape(-1, shape[-1])
        down = self.down.weight.to(hidden.dtype)
        up = self.up.weight.to(hidden.dtype)
        if self.router is not None and self._group(hidden):
            gates, probs = self.route(hidden)
            output = self._grouped(hidden, base, down, up, gates.to(hidden.dtype))
        else:
            # Recomputed in the backward pass: it costs little, and would keep more than the states.
            inner, gates, probs = recomputed(self._bottlenecks, hidden, down)
            output = torch.addmm(base, inner, up.t())
        gates = gates[:, : self.num_routed].view(*shape[:-1], -1)
        return output.view(shape), gates, probs.view(*shape[:-1], -1)

    def _group(self, hidden: torch.Tensor) -> bool:
        """Whether experts are large, and tokens many, enough for grouped products."""
        return (
            self.bottleneck >= GROUPED_FROM
            and len(hidden) >= GROUPED_TOKENS
            and self.top_k < self.num_routed
            and self.bottleneck * hidden.element_size() % 16 == 0  # grouped_mm requires it
        )

    def _bottlenecks(
        self, hidden: torch.Tensor, down: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Bottlenecks (M, (Nr + Ns) r) of all experts times their gates; gates, probabilities."""
        inner = F.gelu(F.linear(hidden, down))
        if self.router is None:
            return inner, hidden.new_zeros(len(hidden), 0), hidden.new_zeros(len(hidden), 0)
        gates, probs = self.route(hidden)
        return self.weigh(inner, gates.to(hidden.dtype)), gates, probs

    def weigh(self, inner: torch.Tensor, gates: torch.Tensor) -> torch.Tensor:
        """Scale the bottlenecks (..., (Nr + Ns) r) of all experts by their gates (..., Nr + Ns)."""
        return inner * gates.repeat_interleave(self.bottleneck, dim=-1)

    def _grouped(
        self,
        hidden: torch.Tensor,
        base: torch.Tensor,
        down: torch.Tensor,
        up: torch.Tensor,
        gates: torch.Tensor,
    ) -> torch.Tensor:
        """Every expert on its tokens; (M, D)."""
        experts, dim = self.num_routed + self.num_shared, hidden.shape[-1]
        chosen = gates > 0
        expert, token = chosen.t().nonzero(as_tuple=True)  # the assignments, by expert
        ends = chosen.sum(0).cumsum(0).to(torch.int32)
        down = down.view(experts, self.bottleneck, dim).transpose(1, 2)
        up = up.view(dim, experts, self.bottleneck).permute(1, 2, 0)
        inner = F.gelu(F.grouped_mm(hidden[token], down, offs=ends)) * gates[token, expert, None]
        parts = F.grouped_mm(inner, up, offs=ends)
        return base.expand_as(hidden).index_add(0, token, parts)


def balance_loss(
    gates: torch.Tensor, probs: torch.Tensor, mask: torch.Tensor | None = None
) -> torch.Tensor:
    """Load-balancing loss of a router (Fedus et al., Switch Transformers, eq. 4, for top-k).

    Nr * sum_n f_n P_n, where f_n is the share of the k * tokens assignments that went to expert n
    and P_n the mean probability that the router gave it. Uniform routing gives 1.0, its minimum
    when f and P agree; sending all to k experts gives Nr / k. In distributed training f is that of
    the whole batch (Qiu et al., 2025, arXiv 2501.11873), so that experts need not be balanced
    within the share of each process; the P of the processes are averaged as their losses are.

    Args:
        gates: (..., Nr), zero for experts that are off.
        probs: (..., Nr) router probabilities.
        mask: (...) True for tokens that count; padding is False.

    Returns:
        a scalar with a gradient through ``probs``.
    """
    num_routed = probs.shape[-1]
    chosen = (gates > 0).reshape(-1, num_routed).to(probs.dtype)
    probs = probs.reshape(-1, num_routed)
    if mask is not None:
        weight = mask.reshape(-1, 1).to(probs.dtype)
        chosen = chosen * weight
        share = (probs * weight).sum(0) / weight.sum().clamp(min=1)
    else:
        share = probs.mean(0)
    counts = sum_over_processes(chosen.sum(0))
    load = counts / counts.sum().clamp(min=1)
    return num_routed * torch.dot(load, share)
