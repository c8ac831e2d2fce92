"""The MoME module: one mixture of small experts that all compression rates share.

MoME(h) = sum_{n <= Ns} E_n(h) + sum_{n > Ns} g_n(h) E_n(h),   E_n(h) = up_n(GELU(down_n(h)))

with Ns shared experts that are always on and Nr routed experts of which a router switches the
top-k on per token (Cappellazzo et al., NeurIPS 2025, arXiv 2510.04136). down_n, up_n and the router
are linear layers with biases.

A bottleneck of a few units makes the experts so small that gathering tokens per expert costs more
than computing every expert. The experts of a module are therefore stored as one down-projection
and one up-projection, and the gates, zero for what the router left out, scale the bottleneck
between them: two matrix products, whatever the number of experts. Experts of GROUPED_FROM units and
more are computed for the tokens that chose them alone, in grouped matrix products. For inference
see also :mod:`mome.adapters.experts_cpu` and :mod:`mome.adapters.experts_fused`; for the choice of
experts :mod:`mome.adapters.routers`.
"""

from collections.abc import Mapping
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from mome.adapters.routers import GATES, ROUTERS, LinearRouter, renormalized_topk, softmax_topk
from mome.common.activation_checkpointing import recomputed
from mome.common.precision import without_autocast

# Where grouped products begin to win, as tools/bench/dispatch.py measures it.
GROUPED_FROM = 128  # units of an expert, for as many tokens:
GROUPED_TOKENS = 512

INITS = ("zero_up", "normal")
# What helps where an LM was moved to another device or type after its adapter was prepared.
MOVED = (
    "the LM was moved after for_inference, and what was prepared then was not. Detach the adapter, "
    "attach it anew, load its weights, move LM and adapter, and call for_inference last"
)


def bottleneck_of(dim: int, bottleneck: int | None, reduction: int | None) -> int:
    """The bottleneck that is given as it is or as a divisor of the width; 12 by default.

    Raises:
        ValueError: if both are given, or a divisor below 1.
    """
    if bottleneck is not None and reduction is not None:
        raise ValueError(
            f"MoME takes bottleneck={bottleneck} or reduction={reduction}, not both; `reduction: "
            f"null` unsets that of a base configuration"
        )
    if reduction is None:
        return 12 if bottleneck is None else bottleneck
    if reduction < 1:
        raise ValueError(f"reduction={reduction} divides the width: it must be 1 or more")
    return max(1, round(dim / reduction))


class MoME(nn.Module):
    """Mixture of Matryoshka experts.

    Args:
        dim: width D of the hidden states.
        num_routed: number Nr of routed experts; 0 leaves the router out.
        num_shared: number Ns of shared experts.
        bottleneck: width r of one expert, 1 or more; 12 if ``reduction`` is not given either.
        reduction: the bottleneck as a divisor of the width, which the paper chooses it by: 256 is
            r = 8 for a width of 2048. The quotient is rounded, and is 1 at least.
        top_k: routed experts on per token.
        gate: name of a gate: ``softmax_topk`` (the paper's), ``renormalized_topk`` or a registered
            one; see :mod:`mome.adapters.routers`.
        router: name of a router: ``linear`` (the paper's) or a registered one.
        router_conf: further arguments of the router.
        bias: biases in both projections of an expert. With them the paper's counts of parameters
            come out, and without none does.
        init: ``zero_up`` starts the up-projections at zero, so that a fresh module adds exactly
            nothing; ``normal`` draws the weights of all linear layers from N(0, 0.02^2), as
            Transformers does with the modules of the paper's authors. Biases start at zero in both.

    Attributes:
        down: Linear(D, (Nr + Ns) r) of all experts, one after the other, the routed ones first.
        up: Linear((Nr + Ns) r, D) in the same order. With biases (Nr + Ns) columns follow: the bias
            of each expert, which its gate weighs as it weighs the rest of what the expert gives.

    Raises:
        ValueError: for sizes that cannot be built or contradict each other, or an unknown gate,
            router or way to initialise.
    """

    router: nn.Module | None
    always_on: torch.Tensor

    def __init__(
        self,
        dim: int,
        num_routed: int = 23,
        num_shared: int = 1,
        bottleneck: int | None = None,
        top_k: int = 4,
        gate: str = "softmax_topk",
        router: str = "linear",
        router_conf: Mapping[str, Any] | None = None,
        reduction: int | None = None,
        bias: bool = True,
        init: str = "zero_up",
    ):
        super().__init__()
        bottleneck = bottleneck_of(dim, bottleneck, reduction)
        if num_routed < 0 or num_shared < 0 or num_routed + num_shared == 0 or bottleneck < 1:
            raise ValueError(
                f"MoME needs at least one expert and a bottleneck of at least 1: num_routed="
                f"{num_routed}, num_shared={num_shared}, bottleneck={bottleneck}"
            )
        if num_routed and not 1 <= top_k <= num_routed:
            raise ValueError(f"top_k={top_k} must lie between 1 and num_routed={num_routed}")
        if init not in INITS:
            raise ValueError(f"init {init!r} must be {' or '.join(INITS)}")
        self.gate_function = GATES.find(gate)
        self.new_router = partial(ROUTERS.find(router), dim, num_routed, **(router_conf or {}))
        self.num_routed = num_routed
        self.num_shared = num_shared
        self.bottleneck = bottleneck
        self.top_k = top_k
        self.gate = gate
        self.bias = bias
        count = num_shared + num_routed
        self.width = count * bottleneck
        self.down = nn.Linear(dim, self.width, bias=bias)
        self.up = nn.Linear(self.width + count * bias, dim, bias=False)
        self.router = self.new_router() if num_routed else None
        always_on = torch.cat([torch.zeros(num_routed), torch.ones(num_shared)])
        self.register_buffer("always_on", always_on, persistent=False)
        self.init = init
        self._initialise(init)

    @torch.no_grad()
    def _initialise(self, init: str) -> None:
        if init == "normal":
            for layer in self.modules():
                if isinstance(layer, nn.Linear):
                    nn.init.normal_(layer.weight, std=0.02)
                    if layer.bias is not None:
                        nn.init.zeros_(layer.bias)
        else:
            nn.init.zeros_(self.up.weight)
        self.up.weight[:, self.width :] = 0
        if self.down.bias is not None:
            nn.init.zeros_(self.down.bias)

    def route(self, hidden: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Gates of all experts and router probabilities of each token, in float32.

        Args:
            hidden: (M, D).

        Returns:
            gates (M, Nr + Ns), zero for routed experts that are off and one for shared experts, and
            probabilities (M, Nr).
        """
        if self.router is None:
            raise ValueError("a MoME without routed experts has no router")
        # Under autocast a router would be computed in bfloat16 all the same.
        with without_autocast(hidden.device):
            return self.gates_of(self.router(hidden.float()))

    def gates_of(
        self, logits: torch.Tensor, top_k: int | None = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Gates (..., Nr + Ns) and probabilities (..., Nr) for router logits (..., Nr).

        Args:
            logits: of the router.
            top_k: experts that are on, if not those of the module.
        """
        probs = logits.softmax(dim=-1)
        values, index = self.gate_function(logits, probs, top_k or self.top_k)
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
        bias = None if self.down.bias is None else self.down.bias.to(hidden.dtype)
        if self.router is not None and self._group(hidden):
            gates, probs = self.route(hidden)
            output = self._grouped(hidden, base, down, bias, up, gates.to(hidden.dtype))
        else:
            if is_stock(self) and hidden.device.type != "cpu":
                # Kept for the backward pass, the bottlenecks of all experts would take more memory
                # than the hidden states; to compute them again costs a GPU little.
                inner, gates, probs = recomputed(self._bottlenecks, hidden, down, bias)
            else:
                # A CPU has more memory than time, and another gate or router may draw random
                # numbers or count what it sees.
                inner, gates, probs = self._bottlenecks(hidden, down, bias)
            output = torch.addmm(base, inner, up.t())
        gates = gates[:, : self.num_routed].view(*shape[:-1], -1)
        return output.view(shape), gates, probs.view(*shape[:-1], -1)

    def num_active_parameters(self) -> int:
        """Parameters that one token uses: shared experts, router and the top-k routed experts."""
        experts = sum(p.numel() for p in (*self.down.parameters(), *self.up.parameters()))
        expert = experts // (self.num_shared + self.num_routed)
        routed = self.top_k if self.num_routed else 0
        router = [] if self.router is None else self.router.parameters()
        return expert * (self.num_shared + routed) + sum(p.numel() for p in router)

    def _group(self, hidden: torch.Tensor) -> bool:
        """Whether experts are large, and tokens many, enough for grouped products."""
        return (
            is_stock(self)
            and self.bottleneck >= GROUPED_FROM
            and len(hidden) >= GROUPED_TOKENS
            and self.top_k < self.num_routed
            and self.bottleneck * hidden.element_size() % 16 == 0  # grouped_mm requires it
        )

    def _bottlenecks(
        self, hidden: torch.Tensor, down: torch.Tensor, bias: torch.Tensor | None
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """What ``up`` reads of all experts, weighed by their gates; gates, probabilities."""
        inner = F.gelu(F.linear(hidden, down, bias))
        if self.router is None:
            gates = self.always_on.to(hidden.dtype).expand(len(hidden), -1)
            none = hidden.new_zeros(len(hidden), 0)
            return self.weigh(inner, gates), none, none
        gates, probs = self.route(hidden)
        return self.weigh(inner, gates.to(hidden.dtype)), gates, probs

    def weigh(self, inner: torch.Tensor, gates: torch.Tensor) -> torch.Tensor:
        """What ``up`` reads: bottlenecks (..., (Nr + Ns) r) scaled by the gates (..., Nr + Ns).

        With biases the gates themselves follow, which scale the biases.
        """
        weighed = inner * gates.repeat_interleave(self.bottleneck, dim=-1)
        return torch.cat([weighed, gates], dim=-1) if self.bias else weighed

    def _grouped(
        self,
        hidden: torch.Tensor,
        base: torch.Tensor,
        down: torch.Tensor,
        bias: torch.Tensor | None,
        up: torch.Tensor,
        gates: torch.Tensor,
    ) -> torch.Tensor:
        """Every expert on its tokens; (M, D)."""
        experts, dim = self.num_routed + self.num_shared, hidden.shape[-1]
        chosen = gates > 0
        expert, token = chosen.t().nonzero(as_tuple=True)  # the assignments, by expert
        ends = chosen.sum(0).cumsum(0).to(torch.int32)
        gate = gates[token, expert, None]
        down = down.view(experts, self.bottleneck, dim).transpose(1, 2)
        inner = F.grouped_mm(hidden[token], down, offs=ends)
        if bias is not None:
            inner = inner + bias.view(experts, self.bottleneck)[expert]
        # Contiguous, since grouped_mm takes rows that are multiples of 16 bytes apart.
        matrices = up[:, : self.width].contiguous().view(dim, experts, self.bottleneck)
        parts = F.grouped_mm(F.gelu(inner) * gate, matrices.permute(1, 2, 0), offs=ends)
        if self.bias:
            parts = parts + gate * up[:, self.width :].t()[expert]
        # Under autocast the base, a product of the LM's, has another type than what is read.
        return base.to(parts.dtype).expand_as(hidden).index_add(0, token, parts)


def is_stock(experts: MoME) -> bool:
    """Whether a module computes exactly what is written here, by its own class, router and gate.

    The fast forms compute just that. They decline whatever a user has registered or derived, which
    then runs as it is written.
    """
    linears = (experts.down, experts.up)
    return (
        type(experts) is MoME
        and type(experts.router) in (LinearRouter, type(None))
        and experts.gate_function in (softmax_topk, renormalized_topk)
        and all(type(layer) is nn.Linear for layer in linears)
    )
