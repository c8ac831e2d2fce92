"""Word and character error rates with jiwer, confidence intervals, what chance would give."""

import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from typing import Any

import jiwer
import numpy as np

from mome.data.text import normalise

RESAMPLES = 2000
# What `normalise` makes of a text, for tables.
NORMALISATION = (
    "lower case; marks such as {NS} or <unk> and all punctuation but the apostrophe removed; "
    "accents composed (NFC); blanks folded; numbers as they are written; the same for reference "
    "and hypothesis"
)
# What the names of the characters begin with whose scripts leave no blank between words.
UNSPACED = (
    *("CJK ", "IDEOGRAPHIC ", "HIRAGANA ", "KATAKANA", "HALFWIDTH KATAKANA", "THAI ", "LAO "),
    *("KHMER ", "MYANMAR ", "TIBETAN "),
)

# What the error rate of a score is called, by its unit.
RATES = {"word": "WER", "character": "CER"}


@cache
def _is_unspaced(character: str) -> bool:
    return unicodedata.name(character, "").startswith(UNSPACED)


def spell(text: str) -> str:
    """A normalised text in which each character of a script without blanks is a word."""
    if text.isascii():
        return text
    spelled = "".join(f" {c} " if _is_unspaced(c) else c for c in text)
    return " ".join(spelled.split())


def are_unspaced(texts: Iterable[str]) -> bool:
    """Whether most words of some texts are characters of scripts without blanks between words."""
    words = [word for text in texts for word in spell(text).split()]
    return sum(_is_unspaced(word[0]) for word in words) > len(words) / 2


def unit_of(references: Iterable[str]) -> str:
    """What error rates count in these texts: ``word``, or ``character`` if blanks part no words."""
    return "character" if are_unspaced(map(normalise, references)) else "word"


@dataclass(frozen=True)
class Score:
    """Errors of a set of hypotheses; ``wer``, ``low``, ``high`` and ``cer`` are percentages.

    ``low`` and ``high`` bound the 95 % confidence interval of the WER, by a bootstrap over
    utterances (Bisani & Ney, ICASSP 2004). ``cer`` is that of characters, with the blanks between
    words.

    Where most of the references are in scripts without blanks between words, ``unit`` is
    ``character``: each of their characters counts as a word, and ``wer`` is a character error rate.
    """

    wer: float
    low: float
    high: float
    substitutions: int
    deletions: int
    insertions: int
    words: int
    utterances: int
    cer: float
    unit: str = "word"

    def as_dict(self) -> dict[str, float | int | str]:
        """Plain values, for JSON."""
        return asdict(self)


def rate_name(rows: Iterable[Mapping[str, Any]]) -> str:
    """What the error rates of rows are called, which have the ``unit`` of :class:`Score`.

    Without one, as earlier versions wrote them, words are counted.
    """
    units = {row.get("unit", "word") for row in rows}
    return " or ".join(RATES[unit] for unit in RATES if unit in units)


def normalised_pairs(
    references: Mapping[str, str], hypotheses: Mapping[str, str]
) -> dict[str, tuple[str, str]]:
    """Normalised reference and hypothesis of each utterance, sorted by utterance.

    They are spelled (:func:`spell`) if the references leave no blanks between words.

    Raises:
        ValueError: if an utterance has no hypothesis or no reference, or a reference has no words;
            names the utterance.
    """
    for given, other, what in (
        (references, hypotheses, "hypothesis"),
        (hypotheses, references, "reference"),
    ):
        if missing := sorted(set(given) - set(other)):
            raise ValueError(f"{len(missing)} utterances have no {what}, the first is {missing[0]}")
    if not references:
        raise ValueError("there is nothing to score")
    pairs = {u: (normalise(references[u]), normalise(hypotheses[u])) for u in sorted(references)}
    for utterance, (reference, _) in pairs.items():
        if not reference:
            raise ValueError(f"{utterance}: the reference has no words; remove it from text")
    if are_unspaced(reference for reference, _ in pairs.values()):
        return {u: (spell(said), spell(heard)) for u, (said, heard) in pairs.items()}
    return pairs


def count_errors(pairs: Mapping[str, tuple[str, str]]) -> np.ndarray:
    """Errors of each utterance.

    Args:
        pairs: normalised reference and hypothesis of U utterances.

    Returns:
        (U, 4): substitutions, deletions, insertions and the reference's words.
    """
    counts = np.zeros((len(pairs), 4), dtype=np.int64)
    for row, (reference, hypothesis) in enumerate(pairs.values()):
        result = jiwer.process_words(reference, hypothesis)
        errors = result.substitutions, result.deletions, result.insertions
        counts[row] = *errors, result.hits + result.substitutions + result.deletions
    return counts


def error_rate(errors: np.ndarray, words: np.ndarray) -> float:
    """WER in % of (U,) errors in utterances of (U,) words."""
    return float(100 * errors.sum() / words.sum())


def score(references: Mapping[str, str], hypotheses: Mapping[str, str], seed: int = 0) -> Score:
    """Score hypotheses against references, utterance by utterance.

    Raises:
        ValueError: as `normalised_pairs`.
    """
    pairs = normalised_pairs(references, hypotheses)
    counts = count_errors(pairs)
    rng = np.random.default_rng(seed)
    drawn = rng.integers(len(counts), size=(RESAMPLES, len(counts)))
    sums = counts[drawn].sum(1)
    low, high = np.percentile(100 * sums[:, :3].sum(1) / sums[:, 3], [2.5, 97.5])
    substitutions, deletions, insertions, words = (int(n) for n in counts.sum(0))
    said, heard = (list(texts) for texts in zip(*pairs.values(), strict=True))
    unit = unit_of(references.values())
    if unit == "character":
        said, heard = (["".join(text.split()) for text in texts] for texts in (said, heard))
    return Score(
        wer=100 * (substitutions + deletions + insertions) / words,
        low=float(low),
        high=float(high),
        substitutions=substitutions,
        deletions=deletions,
        insertions=insertions,
        words=words,
        utterances=len(counts),
        cer=100 * jiwer.cer(said, heard),
        unit=unit,
    )


def guess(train: Sequence[str], references: Mapping[str, str], seed: int = 0) -> dict[str, Score]:
    """What is reached without looking or listening, knowing the training texts alone.

    Returns:
        ``random training sentence``: another one for every utterance; ``most frequent words``: at
        each place the word most frequent there in training, over sentences of the usual length.
    """
    rng = np.random.default_rng(seed)
    if are_unspaced(train):
        train = [spell(text) for text in train]
    utterances = sorted(references)
    drawn = rng.integers(len(train), size=len(utterances))
    sentences = [text.split() for text in train]
    usual = Counter(len(words) for words in sentences).most_common(1)[0][0]
    same_length = [words for words in sentences if len(words) == usual]
    frequent = " ".join(
        Counter(column).most_common(1)[0][0] for column in zip(*same_length, strict=True)
    )
    return {
        "random training sentence": score(
            references, {u: train[i] for u, i in zip(utterances, drawn, strict=True)}, seed
        ),
        "most frequent words": score(references, dict.fromkeys(utterances, frequent), seed),
    }
