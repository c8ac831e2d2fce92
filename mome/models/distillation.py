"""Self-distillation between rates: the finest rate pair of a task teaches the coarser ones.

All pairs of a task predict the same transcript in one pass (see :mod:`mome.llm.prompt_tree`), so
that what the finest one predicts is there anyway and costs nothing but the divergence. The paper
does not have it.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F

from mome.models.rates import TaskPair, fineness


def fine_to_coarse(
    logits: Sequence[torch.Tensor], task_pairs: Sequence[TaskPair], counted: torch.Tensor
) -> torch.Tensor:
    """Mean Kullback-Leibler divergence of coarser predictions from those of the finest pair.

    The teacher of a task is the finest of its pairs that are given, and gets no gradient.

    Args:
        logits: (B, L, V) of each task pair.
        task_pairs: tasks at rate pairs.
        counted: (B, L) True where a token is predicted.

    Returns:
        KL(finest || coarser) in nats, mean over tokens and over coarser pairs; zero if no task is
        given at two rate pairs.
    """
    divergences = []
    for task in dict.fromkeys(task for task, _ in task_pairs):
        places = [place for place, each in enumerate(task_pairs) if each.task == task]
        finest = min(places, key=lambda place: fineness(task_pairs[place].pair))
        teacher = F.log_softmax(logits[finest].detach().float(), dim=-1)
        for place in places:
            if place != finest:
                student = F.log_softmax(logits[place].float(), dim=-1)
                # By a mask, as a dry run does not know how many tokens are counted.
                found = F.kl_div(student, teacher, reduction="none", log_target=True).sum(-1)
                divergences.append(torch.where(counted, found, 0.0).sum() / counted.sum())
    return torch.stack(divergences).mean() if divergences else logits[0].new_zeros(())
