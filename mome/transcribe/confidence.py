"""How sure a transcript is, word by word.

A word has up to two raw scores: the probability that the LLM gives its tokens, after the words
before, and, where the model has a readout, the posterior that the projectors give them by CTC in
the windows where they are said. An LLM is surer than it is right, above all of speech unlike that
of its training, which the posterior often shows. Both are mapped on the scale of log-odds by a line
that was fitted on a validation set when the model was packed (Platt, 1999).
"""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import takewhile
from typing import Any

import jiwer
import numpy as np

CLIP = 1e-6  # a probability is kept this far from 0 and 1
BINS = 10
LOW = 0.5  # below it a transcript is said to be doubtful


@dataclass(frozen=True)
class Calibration:
    """The line from log-odds of raw scores to those of confidences.

    Attributes:
        weights: of the scores; scores beyond them do not count.
        offset: added to their sum. By default the LLM's probability stays as it is.
    """

    weights: tuple[float, ...] = (1.0,)
    offset: float = 0.0

    def __call__(self, scores: Sequence[float]) -> float:
        """Confidence of a word with these raw scores, 0 to 1."""
        weighted = zip(self.weights, scores, strict=False)
        odds = self.offset + sum(weight * log_odds(score) for weight, score in weighted)
        return 1 / (1 + math.exp(-odds))


def log_odds(score: float) -> float:
    """Logarithm of the odds of a probability."""
    score = min(max(score, CLIP), 1 - CLIP)
    return math.log(score / (1 - score))


def fit(scores: Sequence[Sequence[float]], right: Sequence[bool]) -> Calibration:
    """The line under which words are likeliest to be right or wrong as they are.

    Without wrong words, or without right ones, nothing can be fitted: scores stay as they are.
    """
    from sklearn.linear_model import LogisticRegression

    if len(set(right)) < 2:
        return Calibration()
    odds = np.array([[log_odds(score) for score in of_word] for of_word in scores])
    line = LogisticRegression().fit(odds, np.array(right))
    return Calibration(tuple(line.coef_[0].tolist()), float(line.intercept_[0]))


def calibration_error(confidences: Sequence[float], right: Sequence[bool]) -> float:
    """Expected calibration error: mean distance of confidence and share of right words, by bins."""
    values, hits = np.array(confidences), np.array(right, dtype=float)
    index = np.minimum((values * BINS).astype(int), BINS - 1)
    error = 0.0
    for number in range(BINS):
        inside = index == number
        if inside.any():
            error += inside.mean() * abs(values[inside].mean() - hits[inside].mean())
    return float(error)


def words_right(reference: str, hypothesis: str) -> list[bool]:
    """Of each word of a hypothesis, whether it is right, by the alignment of the error rate."""
    words = hypothesis.split()
    if not words:
        return []
    if not reference.split():
        return [False] * len(words)
    right = [False] * len(words)
    for chunk in jiwer.process_words(reference, hypothesis).alignments[0]:
        if chunk.type == "equal":
            for place in range(chunk.hyp_start_idx, chunk.hyp_end_idx):
                right[place] = True
    return right


def word_tokens(tokenizer: Any, tokens: Sequence[int]) -> list[tuple[str, list[int]]]:
    """The words of a token sequence, each with the places of its tokens.

    A token belongs to the word in which its first character other than a blank falls.
    """
    text = tokenizer.decode(tokens, skip_special_tokens=True)
    ends = []
    for count in range(1, len(tokens) + 1):
        # A character that is not complete yet is written as another one, and does not count.
        so_far = tokenizer.decode(tokens[:count], skip_special_tokens=True)
        alike = takewhile(lambda pair: pair[0] == pair[1], zip(so_far, text, strict=False))
        ends.append(sum(1 for _ in alike))
    words: list[tuple[str, int, list[int]]] = [
        (match.group(), match.end(), []) for match in re.finditer(r"\S+", text)
    ]
    begin = 0
    for place, end in enumerate(ends):
        while begin < end and text[begin].isspace():
            begin += 1
        for _, last, places in words:
            if begin < last:
                places.append(place)
                break
        begin = max(begin, end)
    return [(word, places) for word, _, places in words]


def word_scores(log_probs: Sequence[float], words: Sequence[tuple[str, list[int]]]) -> list[float]:
    """Probability of each word: the product over its tokens."""
    return [math.exp(sum(log_probs[place] for place in places)) for _, places in words]
