"""Routers and gates: which experts a token goes to and with what weight, and their balance.

A router gives each token a logit for each routed expert; a gate turns the logits into the weights
of the few experts that are on. Both are chosen by name in ``adapter_conf`` (``router``, ``gate``)
and others can be registered (docs/extend.md). The fast forms of the experts know the router and the
gates of this file; with any other the experts are computed as they are in training.
"""

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import nn

from mome.common.distributed import sum_over_processes
from mome.common.precision import without_autocast
from mome.common.registry import Registry

Gate = Callable[[torch.Tensor, torch.Tensor, int], tuple[torch.Tensor, torch.Tensor]]

GATES: Registry[Gate] = Registry("gate", "mome.adapters.register_gate")
ROUTERS: Registry[type[nn.Module]] = Registry("router", "mome.adapters.register_router")


def register_gate(name: str) -> Callable[[Gate], Gate]:
    """Decorate a gate so that ``adapter_conf: {gate: <name>}`` takes it.

    A gate is a function of the router's logits (..., Nr), their softmax (..., Nr), both float32 in
    training, and ``top_k``. It gives the weights (..., K) of the experts that are on, none of them
    negative, and their indices (..., K); experts that are not named have weight zero. K is mostly
    ``top_k``.

    Raises:
        ValueError: if the name is taken.
    """
    return GATES.add(name)


def register_router(name: str) -> Callable[[type[nn.Module]], type[nn.Module]]:
    """Decorate a router so that ``adapter_conf: {router: <name>}`` takes it.

    A router is a module built by ``(dim, num_routed, **router_conf)`` whose ``forward`` maps hidden
    states (M, D), float32, to logits (M, Nr).

    Raises:
        ValueError: if the name is taken.
    """
    return ROUTERS.add(name)


@register_gate("softmax_topk")
def softmax_topk(
    logits: torch.Tensor, probs: torch.Tensor, top_k: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """The top-k of the softmax over all experts, as in the paper; gates sum to less than one."""
    return probs.topk(top_k, dim=-1, sorted=False)


@register_gate("renormalized_topk")
def renormalized_topk(
    logits: torch.Tensor, probs: torch.Tensor, top_k: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """The top-k divided by their sum, so that gates sum to one, as the authors' early module does.

    That is the softmax over the logits of the chosen k alone.
    """
    values, index = logits.topk(top_k, dim=-1, sorted=False)
    return values.softmax(dim=-1), index


@register_router("linear")
class LinearRouter(nn.Linear):
    """One linear layer, whose bias the paper's counts of parameters include.

    Args:
        dim: width D of the hidden states.
        num_routed: number Nr of experts.
        bias: add a bias, which starts at zero.
    """

    def __init__(self, dim: int, num_routed: int, bias: bool = True):
        super().__init__(dim, num_routed, bias=bias)
        if bias:
            nn.init.zeros_(self.bias)

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        """(M, D) -> logits (M, Nr), float32."""
        # Routing in float32: bfloat16 rounds close probabilities to ties.
        bias = None if self.bias is None else self.bias.float()
        return F.linear(hidden.float(), self.weight.float(), bias)


BALANCES = ("per_sequence", "per_layer")


def balance_loss(
    gates: torch.Tensor, probs: torch.Tensor, mask: torch.Tensor | None = None
) -> torch.Tensor:
    """Load-balancing loss of one router (Fedus et al., Switch Transformers, eq. 4, for top-k).

    Nr * sum_n f_n P_n, where f_n is the share of the k * tokens assignments that went to expert n
    and P_n the mean probability that the router gave it. Uniform routing gives 1.0, its minimum
    when f and P agree; sending all to k experts gives Nr / k. ``balance: per_layer`` is its mean
    over the layers, in which each token of a tree of prompts counts once. In distributed training
    f is that of the whole batch (Qiu et al., 2025, arXiv 2501.11873), so that experts need not be
    balanced within the share of each process; the P of the processes are averaged as their losses
    are.

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


def sequence_balance_loss(
    routing: Sequence[tuple[torch.Tensor, torch.Tensor]],
    mask: torch.Tensor,
    sequences: torch.Tensor | None = None,
) -> torch.Tensor:
    """The paper's load-balancing loss: one for the sequence of each rate pair, and their mean.

    Nr * sum_n f_n P_n, where f_n is the number of assignments of expert n over the number of
    tokens, which sums to K, and P_n the mean probability that the routers gave it; both over the
    sequence's tokens in all utterances and in all layers together, as the authors' early module
    counts them. Uniform routing gives K. A token of a common beginning counts in each sequence that
    begins with it. Padding, which that module counts, is left out here. In distributed training f
    is that of the whole batch, as in :func:`balance_loss`.

    Args:
        routing: gates (B, S, Nr), zero for experts that are off, and probabilities (B, S, Nr), of
            each layer.
        mask: (B, S) True for tokens, False for padding.
        sequences: (P, S) True for the columns of each sequence; None if all are of one.

    Returns:
        a scalar with a gradient through the probabilities.
    """
    weight = mask[..., None].float()
    if sequences is None:
        sequences = mask.new_ones(1, mask.shape[1])
    member = sequences.float()

    def of_sequences(columns: torch.Tensor) -> torch.Tensor:
        return member @ (columns * weight).sum(0)  # (P, ...)

    # Counts of thousands of tokens overflow in float16 and are rounded in bfloat16.
    with without_autocast(mask.device):
        tokens = len(routing) * of_sequences(torch.ones_like(weight))
        chosen = [of_sequences((gates > 0).float()) for gates, _ in routing]
        counts = torch.stack(chosen).sum(0)
        given = torch.stack([of_sequences(probs.float()) for _, probs in routing]).sum(0)
    share = given / tokens.clamp(min=1)
    load = sum_over_processes(counts) / sum_over_processes(tokens).clamp(min=1)
    return share.shape[-1] * (load * share).sum(-1).mean()
