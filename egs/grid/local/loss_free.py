"""Experts whose load is balanced without a loss: a bias on the choice, moved by the load.

The K experts with the largest probability plus bias are on, each with its probability as weight, so
that the bias decides who is asked and not what is said. After every training step the bias of an
expert that got more than its share falls by a fixed amount, and that of one that got less rises
(Wang et al., 2024, arXiv 2408.15664, as in DeepSeek-V3). ``adapter: mome_loss_free`` takes it.
"""

from typing import Any

import torch

from mome import register_adapter
from mome.adapters.experts import MoME
from mome.adapters.mome import MoMEAdapter


class LossFreeMoME(MoME):
    """MoME with a bias on the choice of experts.

    Args:
        dim: width D of the hidden states.
        step: by how much a bias moves in a training step.
        **experts: arguments of :class:`mome.adapters.experts.MoME`.
    """

    choice_bias: torch.Tensor

    def __init__(self, dim: int, step: float = 0.001, **experts: Any):
        super().__init__(dim, **experts)
        self.step = step
        self.gate_function = self.biased_topk
        self.register_buffer("choice_bias", torch.zeros(self.num_routed))

    def biased_topk(
        self, logits: torch.Tensor, probs: torch.Tensor, top_k: int
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """A gate, see :func:`mome.adapters.register_gate`, that moves the bias in training."""
        index = (probs + self.choice_bias).topk(top_k, dim=-1, sorted=False).indices
        if self.training and torch.is_grad_enabled():
            # Padding counts with the tokens: this module does not know which is which.
            load = torch.bincount(index.flatten(), minlength=self.num_routed).float()
            self.choice_bias += self.step * torch.sign(load.mean() - load)
        return probs.gather(-1, index), index


@register_adapter("mome_loss_free")
class LossFreeAdapter(MoMEAdapter):
    """MoME experts beside blocks of a frozen LM, balanced without a loss."""

    experts_class = LossFreeMoME
