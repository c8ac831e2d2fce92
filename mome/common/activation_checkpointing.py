"""Activation checkpointing of the parts of a layer that are cheap to compute but large to store."""

from collections.abc import Callable
from typing import Any

import torch
from torch.utils.checkpoint import checkpoint


def recomputed(function: Callable, *inputs: Any) -> Any:
    """``function(*inputs)``, whose intermediate results the backward pass computes again.

    They are not stored then. The function must not draw random numbers.
    """
    if not torch.is_grad_enabled():
        return function(*inputs)
    return checkpoint(function, *inputs, use_reentrant=False, preserve_rng_state=False)
