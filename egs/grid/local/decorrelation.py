"""Experts trained so that tokens differ from the first one, which every token attends to.

In LLMs that read speech, tokens in the middle become sinks of attention too, and are similar to the
first (Anand, Cappellazzo, Petridis and Pantic, 2025, arXiv 2510.22603), who report that a loss on
this similarity helps at high compression. ``adapter: mome_decorrelated`` takes it.
"""

from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from mome import register_adapter
from mome.adapters.base import Forward, find_block, find_layers
from mome.adapters.mome import MoMEAdapter


@register_adapter("mome_decorrelated")
class DecorrelatedAdapter(MoMEAdapter):
    """MoME experts; the balance loss has the similarity of tokens to the first one added.

    Args:
        lm: frozen causal LM.
        decorrelation: weight of the mean squared cosine between the first token and the others, as
            every layer's attention reads them, as a multiple of the balance loss's weight.
        **adapter: arguments of :class:`mome.adapters.mome.MoMEAdapter`.
    """

    def __init__(self, lm: nn.Module, decorrelation: float = 1.0, **adapter: Any):
        super().__init__(lm, **adapter)
        self.decorrelation = decorrelation
        self.similarities: list[torch.Tensor] = []
        for layer in find_layers(lm):
            self.wrap(find_block(layer, "mhsa"), partial(partial, self._note_similarity))

    def _note_similarity(self, forward: Forward, *args: Any, **kwargs: Any) -> Any:
        if self.token_mask is not None:
            hidden = (args[0] if args else kwargs["hidden_states"]).float()
            first = self.token_mask.int().argmax(dim=1)  # (B,)
            sink = hidden[torch.arange(len(hidden)), first]
            cosine = F.cosine_similarity(hidden, sink[:, None], dim=-1)
            others = self.token_mask.clone()
            others[torch.arange(len(hidden)), first] = False
            self.similarities.append(cosine[others].square().mean())
        return forward(*args, **kwargs)

    def balance_loss(self) -> torch.Tensor:
        """The balance loss and the weighed similarity of the recorded pass."""
        similarity = torch.stack(self.similarities).mean()
        self.similarities.clear()
        return super().balance_loss() + self.decorrelation * similarity
