"""Communication between the processes of a distributed training, apart from gradients."""

from typing import Any

import torch
from torch import distributed


def is_distributed() -> bool:
    """Whether this process trains together with others."""
    return distributed.is_available() and distributed.is_initialized()


def leave_processes() -> None:
    """Let go of the other processes at the end of a training.

    Threads of the connection that still run when a process ends would abort it, and a training
    that has come to its end would count as failed.
    """
    if is_distributed():
        distributed.destroy_process_group()


def sum_over_processes(values: torch.Tensor) -> torch.Tensor:
    """Sum a tensor in place over all processes; without distributed training it stays as it is."""
    if is_distributed():
        distributed.all_reduce(values)
    return values


def of_first_process(values: torch.Tensor, device: torch.device) -> torch.Tensor:
    """Broadcast a tensor of the first process to all, through memory of ``device``."""
    if is_distributed():
        values = values.to(device)
        distributed.broadcast(values, src=0)
    return values


def of_all_processes(value: Any) -> list[Any]:
    """A value of each process, in the order of their ranks; it is pickled, so small ones only."""
    if not is_distributed():
        return [value]
    values = [None] * distributed.get_world_size()
    distributed.all_gather_object(values, value)
    return values
