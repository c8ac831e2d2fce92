"""MoME whose routing differs by rate pair: the paper's ablation and a number of experts for each.

All pairs still share the experts. What differs is which of them a token is sent to: each pair may
have a router of its own (``disjoint_routers``, Table 7 of the paper) and a number K of its own
(``top_k`` by pair). A prefix has other states under each, so prompts of different pairs share no
nodes (see :mod:`mome.llm.prompt_tree`), and the fast forms, which know one router and one K, leave
these modules to PyTorch.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn

from mome.adapters.experts import MoME
from mome.common.precision import without_autocast


class PairMoME(MoME):
    """MoME with routing by rate pair.

    Args:
        dim: width D of the hidden states.
        top_k: routed experts on per token, for all pairs or by the name of a pair.
        disjoint_routers: pairs that have a router each; one for all if empty.
        **others: as for :class:`MoME`.

    Attributes:
        pairs: names of the rate pairs that can be selected.

    Raises:
        ValueError: for a K that does not fit the number of experts, names the pair; if both options
            name pairs, but not the same; if none is named.
    """

    top_k_of_pair: torch.Tensor

    def __init__(
        self,
        dim: int,
        top_k: int | Mapping[str, int] = 4,
        disjoint_routers: Sequence[str] | None = None,
        **others: Any,
    ):
        disjoint_routers = disjoint_routers or ()
        by_pair: dict[str, int] = (
            dict(top_k) if isinstance(top_k, Mapping) else dict.fromkeys(disjoint_routers, top_k)
        )
        if disjoint_routers and set(by_pair) != set(disjoint_routers):
            raise ValueError(
                f"top_k names {', '.join(sorted(by_pair))}, but disjoint_routers "
                f"{', '.join(sorted(disjoint_routers))}: name the same rate pairs"
            )
        if not by_pair:
            raise ValueError("top_k by rate pair names no pair, such as {a4_v2: 4}")
        super().__init__(dim, top_k=1, **others)
        for pair, k in by_pair.items():
            if not 1 <= k <= self.num_routed:
                raise ValueError(
                    f"top_k={k} of {pair} must lie between 1 and num_routed={self.num_routed}"
                )
        self.pairs = list(by_pair)
        self.top_ks = list(by_pair.values())
        self.top_k = max(self.top_ks)
        self.register_buffer("top_k_of_pair", torch.tensor(self.top_ks), persistent=False)
        if disjoint_routers:
            self.router = nn.ModuleList(self.new_router() for _ in self.pairs)
            self._initialise(self.init)
        self.columns: torch.Tensor | None = None

    def select_pairs(self, columns: Sequence[str | None]) -> None:
        """Set the rate pair of each of the S columns of the next hidden states (..., S, D).

        Raises:
            ValueError: for a pair that was not named.
        """
        if unknown := {str(pair) for pair in columns} - set(self.pairs):
            raise ValueError(
                f"MoME routes {', '.join(self.pairs)}, but not {', '.join(sorted(unknown))}"
            )
        index = [self.pairs.index(str(pair)) for pair in columns]
        self.columns = torch.tensor(index, device=self.down.weight.device)

    def route(self, hidden: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """As :meth:`MoME.route`, each token by the router and the K of its column's pair."""
        if self.columns is None:
            raise RuntimeError("MoME by pair: no rate pair was selected; see `select_pairs`")
        pair = self.columns.repeat(len(hidden) // len(self.columns))
        with without_autocast(hidden.device):
            hidden = hidden.float()
            if isinstance(self.router, nn.ModuleList):
                of_pairs = torch.stack([router(hidden) for router in self.router])
                logits = of_pairs[pair, torch.arange(len(hidden), device=hidden.device)]
            else:
                assert self.router is not None
                logits = self.router(hidden)
            gates, probs = self.gates_of(logits)
            for k in set(self.top_ks) - {self.top_k}:
                fewer = self.top_k_of_pair[pair, None] == k
                gates = torch.where(fewer, self.gates_of(logits, k)[0], gates)
        return gates, probs

    def num_active_parameters(self) -> int:
        """Parameters that one token uses: one of the routers, and the experts of the largest K."""
        total = super().num_active_parameters()
        if isinstance(self.router, nn.ModuleList):
            of_routers = sum(p.numel() for p in self.router.parameters())
            total -= of_routers - of_routers // len(self.router)
        return total
