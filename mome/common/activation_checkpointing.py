"""Activation checkpointing: the backward pass computes again what the forward pass did not keep."""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint


def recomputed(function: Callable, *inputs: Any) -> Any:
    """``function(*inputs)``, whose intermediate results the backward pass computes again.

    They are not stored then. The function must not draw random numbers.
    """
    if not torch.is_grad_enabled():
        return function(*inputs)
    return checkpoint(function, *inputs, use_reentrant=False, preserve_rng_state=False)


def recompute_in_backward(module: nn.Module) -> None:
    """Let a module keep nothing but its inputs for the backward pass, which runs it again.

    Transformers' own switch asks whether a layer is in training mode, and a layer in training mode
    draws dropout and has its cache taken away. This asks for gradients alone, so a frozen layer
    computes as in evaluation, and one that is searched with computes as if nothing were wrapped.
    """
    # No closure: in a copy of the module, it would run the original.
    module.forward = partial(_checkpointed, module.forward)


def _checkpointed(forward: Callable, *args: Any, **kwargs: Any) -> Any:
    if not torch.is_grad_enabled():
        return forward(*args, **kwargs)
    return checkpoint(partial(forward, **kwargs), *args, use_reentrant=False)
