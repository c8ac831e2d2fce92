"""Hold a pretrained module without training or saving it."""

from collections.abc import Callable

import torch
from torch import nn


class Frozen(nn.Module):
    """A pretrained module that is used but never trained, saved or synchronised.

    The module is kept out of PyTorch's module registry. Its tensors are therefore in neither
    ``parameters()`` (optimiser, gradient clipping, DDP) nor ``state_dict()`` (checkpoints), and
    ``train()`` leaves it in evaluation mode. It still follows ``to(device)``, and every tensor
    keeps its own dtype, so that a bfloat16 LLM survives ``model.to(dtype=float32)``.
    """

    def __init__(self, module: nn.Module):
        super().__init__()
        self.__dict__["inner"] = module.requires_grad_(False).eval()

    def _apply(self, fn: Callable[[torch.Tensor], torch.Tensor], recurse: bool = True):
        super()._apply(fn, recurse)
        self.inner._apply(lambda tensor: fn(tensor).to(tensor.dtype), recurse)
        return self

    def forward(self, *args, **kwargs):
        return self.inner(*args, **kwargs)

    def num_parameters(self) -> int:
        """Number of parameters of the module, shared ones counted once."""
        return sum(p.numel() for p in self.inner.parameters())
