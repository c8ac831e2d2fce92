"""Which words are taken for which, and where in a sentence errors are."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

import jiwer

from mome.analysis.wer import normalised_pairs

Step = tuple[str | None, str | None]  # reference word, hypothesis word


def align(reference: str, hypothesis: str) -> list[Step]:
    """Pair the words of normalised texts as jiwer aligns them, with the fewest errors.

    Where several alignments have as few errors, as beside an insertion, the choice is jiwer's.

    Returns:
        (reference word, hypothesis word) from left to right; the hypothesis word is None where a
        word is deleted, the reference word where one is inserted.
    """
    steps: list[Step] = []
    given, said = reference.split(), hypothesis.split()
    for chunk in jiwer.process_words(reference, hypothesis).alignments[0]:
        left: list[str | None] = [*given[chunk.ref_start_idx : chunk.ref_end_idx]]
        right: list[str | None] = [*said[chunk.hyp_start_idx : chunk.hyp_end_idx]]
        size = max(len(left), len(right))
        left += [None] * (size - len(left))
        right += [None] * (size - len(right))
        steps += zip(left, right, strict=True)
    return steps


@dataclass(frozen=True)
class Place:
    """A place in the sentences of the usual length: errors, and which words stand there."""

    words: Counter[str]
    substitutions: int
    deletions: int

    @property
    def error_rate(self) -> float:
        """Percentage of its words that are wrong or deleted."""
        return 100 * (self.substitutions + self.deletions) / self.words.total()


@dataclass(frozen=True)
class Confusions:
    """Errors of a set of hypotheses by place and by word.

    Attributes:
        utterances: how many there are.
        places: the places of the references of the usual length, from the first word to the last.
        inserted_usual: words inserted in these; they have no place of their own.
        words: occurrences of each word in all references.
        pairs: (reference word, hypothesis word) -> substitutions.
        deleted: reference word -> deletions.
        inserted: hypothesis word -> insertions.
    """

    utterances: int
    places: tuple[Place, ...]
    inserted_usual: int
    words: Counter[str]
    pairs: Counter[tuple[str, str]]
    deleted: Counter[str]
    inserted: Counter[str]

    @property
    def usual_utterances(self) -> int:
        """How many references have the usual length."""
        return self.places[0].words.total()

    def ranked_pairs(self) -> list[tuple[str, str, int, float]]:
        """Reference word, hypothesis word, count and its percentage of the reference word's
        occurrences; the most frequent first, words in alphabetical order among equals."""
        ranked = sorted(self.pairs.items(), key=lambda item: (-item[1], item[0]))
        return [(word, said, n, 100 * n / self.words[word]) for (word, said), n in ranked]

    def taken_for(self, word: str) -> list[tuple[str | None, int]]:
        """What is recognised for a reference word when that is wrong, and how often.

        The most frequent first; None stands for nothing, a deletion.
        """
        counts: dict[str | None, int] = {
            said: count for (given, said), count in self.pairs.items() if given == word
        }
        if self.deleted[word]:
            counts[None] = self.deleted[word]
        return sorted(counts.items(), key=lambda item: (-item[1], item[0] or ""))


def confusions(references: Mapping[str, str], hypotheses: Mapping[str, str]) -> Confusions:
    """Align hypotheses with references, utterance by utterance, and count.

    The usual length is that of most references, the shorter one of two that are as frequent.

    Raises:
        ValueError: as `mome.analysis.wer.score`.
    """
    pairs = normalised_pairs(references, hypotheses)
    lengths = Counter(len(reference.split()) for reference, _ in pairs.values())
    usual = min(lengths, key=lambda length: (-lengths[length], length))
    there: list[Counter[str]] = [Counter() for _ in range(usual)]
    substituted, lost = [0] * usual, [0] * usual
    inserted_usual = 0
    words: Counter[str] = Counter()
    taken: Counter[tuple[str, str]] = Counter()
    deleted: Counter[str] = Counter()
    inserted: Counter[str] = Counter()
    for reference, hypothesis in pairs.values():
        is_usual = len(reference.split()) == usual
        place = 0
        for given, said in align(reference, hypothesis):
            if given is None:
                inserted[str(said)] += 1
                inserted_usual += is_usual
                continue
            words[given] += 1
            if said is None:
                deleted[given] += 1
            elif said != given:
                taken[given, said] += 1
            if is_usual:
                there[place][given] += 1
                substituted[place] += said is not None and said != given
                lost[place] += said is None
            place += 1
    places = tuple(map(Place, there, substituted, lost))
    return Confusions(len(pairs), places, inserted_usual, words, taken, deleted, inserted)
