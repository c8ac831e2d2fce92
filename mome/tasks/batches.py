"""Batches of utterances of equal length, drawn anew in every epoch."""

import random
from collections.abc import Iterator, Mapping, Sequence

from espnet2.samplers.abs_sampler import AbsSampler


class RandomTies(AbsSampler):
    """A sampler's batches, in which utterances of equal length change places in every epoch.

    ESPnet sorts utterances by length, and equally long ones stay in the order of their names. Where
    many are of one length, as in GRID, whose names spell the sentence, a batch then holds sentences
    with one beginning, the same ones in every epoch. A model learns from such batches to repeat the
    batch's beginning.

    Args:
        batches: of utterances, by length.
        lengths: of each utterance, as they were sorted by.
    """

    def __init__(self, batches: Sequence[Sequence[str]], lengths: Mapping[str, int]):
        self.batches = [tuple(batch) for batch in batches]
        self.lengths = lengths

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[tuple[str, ...]]:
        return iter(self.batches)

    def generate(self, seed: int) -> list[tuple[str, ...]]:
        """The batches of an epoch: as many, as large and with the same lengths as those given."""
        rng = random.Random(seed)
        by_length: dict[int, list[str]] = {}
        for batch in self.batches:
            for utterance in batch:
                by_length.setdefault(self.lengths[utterance], []).append(utterance)
        for utterances in by_length.values():
            rng.shuffle(utterances)
        return [
            tuple(by_length[self.lengths[utterance]].pop() for utterance in batch)
            for batch in self.batches
        ]
