"""Use a pretrained module without training or saving it."""

from collections.abc import Callable
from typing import Any, Self

import torch
from torch import nn


class Frozen[Pretrained: nn.Module](nn.Module):
    """A pretrained module that is used but never trained, saved or synchronised.

    The module is kept out of PyTorch's module registry. Its tensors are therefore in neither
    ``parameters()`` (optimiser, gradient clipping, DDP) nor ``state_dict()`` (checkpoints), and
    ``train()`` leaves it in evaluation mode. It still follows ``to(device)``, and every tensor
    keeps its own dtype, so that a bfloat16 LLM survives ``model.to(dtype=float32)``.
    """

    inner: Pretrained

    def __init__(self, module: Pretrained):
        super().__init__()
        self.__dict__["inner"] = module.requires_grad_(False).eval()

    def _apply(self, fn: Callable[[torch.Tensor], torch.Tensor], recurse: bool = True) -> Self:
        super()._apply(fn, recurse)
        self.inner._apply(lambda tensor: fn(tensor).to(tensor.dtype), recurse)
        return self

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return self.inner(*args, **kwargs)

    def num_parameters(self) -> int:
        """Number of parameters of the module, shared ones counted once."""
        return sum(p.numel() for p in self.inner.parameters())


def unwrap(module: nn.Module) -> nn.Module:
    """The module that a :class:`Frozen` holds; any other module as it is."""
    return module.inner if isinstance(module, Frozen) else module
