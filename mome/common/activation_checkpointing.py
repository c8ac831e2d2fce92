"""Parts of a layer that are cheap to compute and large to keep for the backward pass."""

from collections.abc import Callable
from typing import Any

import torch
from torch.utils.checkpoint import checkpoint


def recomputed(function: Callable, *inputs: Any) -> Any:
    """``function(*inputs)``, computed again for gradients instead of keeping what is between.

    The function must not draw random numbers.
    """
    if not torch.is_grad_enabled():
        return function(*inputs)
    return checkpoint(function, *inputs, use_reentrant=False, preserve_rng_state=False)
