"""Utterances of several lengths as one batch."""

from collections.abc import Collection, Mapping

import numpy as np
import torch
from torch.nn.utils.rnn import pad_sequence


def collate(
    utterances: Collection[tuple[str, Mapping[str, np.ndarray]]],
) -> tuple[list[str], dict[str, torch.Tensor]]:
    """Pad utterances to the length of the longest, as ESPnet's models take a batch.

    Speech and crops are padded by 0, which is silence and mean grey, and token ids by -1. ESPnet's
    own function computes the same; it lies beside its trainer's preprocessors, which take several
    times as long to load as PyTorch.

    Args:
        utterances: B ids, each with its arrays (L, ...) by name; all of the same names.

    Returns:
        the ids, and for each name a tensor (B, longest L, ...) and under ``<name>_lengths`` the
        lengths (B,), int64.

    Raises:
        ValueError: if utterances differ in what they have, naming the first that does.
    """
    ids = [utterance for utterance, _ in utterances]
    items = [arrays for _, arrays in utterances]
    batch: dict[str, torch.Tensor] = {}
    for utterance, arrays in zip(ids, items, strict=True):
        if set(arrays) != set(items[0]):
            raise ValueError(
                f"utterance {utterance} has {', '.join(sorted(arrays))}, but {ids[0]} has "
                f"{', '.join(sorted(items[0]))}: a batch needs the same of all"
            )
    for name, first in items[0].items():
        tensors = [torch.from_numpy(arrays[name]) for arrays in items]
        padding = -1 if first.dtype.kind == "i" else 0
        batch[name] = pad_sequence(tensors, batch_first=True, padding_value=padding)
        batch[f"{name}_lengths"] = torch.tensor([len(tensor) for tensor in tensors])
    return ids, batch
