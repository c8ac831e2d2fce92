"""Learning-rate schedule: linear warm-up, then cosine decay to zero."""

import math

import torch
from espnet2.schedulers.abs_scheduler import AbsBatchStepScheduler
from torch.optim.lr_scheduler import LRScheduler


class WarmupCosineLR(LRScheduler, AbsBatchStepScheduler):
    """Linear warm-up over ``warmup_steps``, then half a cosine down to zero.

    Args:
        optimizer: its learning rates are the peak.
        warmup_steps: optimiser steps of the warm-up.
        total_steps: optimiser steps of the whole training; the rate is zero after that.
    """

    def __init__(
        self,
        optimizer: torch.optim.Optimizer,
        warmup_steps: int = 100,
        total_steps: int = 1000,
        last_epoch: int = -1,
    ):
        self.warmup_steps = warmup_steps
        self.total_steps = total_steps
        super().__init__(optimizer, last_epoch)

    def get_lr(self) -> list[float | torch.Tensor]:
        """The rate of each parameter group at the current step."""
        step = self.last_epoch + 1
        if step <= self.warmup_steps:
            factor = step / max(1, self.warmup_steps)
        else:
            span = max(1, self.total_steps - self.warmup_steps)
            done = min(1.0, (step - self.warmup_steps) / span)
            factor = 0.5 * (1 + math.cos(math.pi * done))
        return [rate * factor for rate in self.base_lrs]
