"""How sure a transcript is, word by word.

A word has up to two raw scores: the probability that the LLM gives its tokens, after the words
before, and, where the model has a readout, the posterior that the projectors give them by CTC in
the windows where they are said. An LLM is surer than it is right, above all of speech unlike that
of its training, which the posterior often shows; and it shows more in a whole segment than in a
word, so the means over the segment's words count as well. All are mapped on the scale of log-odds
by a line that was fitted when the model was packed (Platt, 1999): on a validation set, and on the
same clips played backwards, whose words the model cannot know and of which none is right.
"""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import takewhile
from typing import Any, Self

import jiwer
import numpy as np

from mome.common.extras import extra

CLIP = 1e-6  # a probability is kept this far from 0 and 1
BINS = 10
FOLDS = 5
LOW = 0.5  # below it a transcript is said to be doubtful
# What holds for every model that was trained on little.
UNKNOWN = (
    "Of other voices, faces, words and recording conditions nothing is known, and a model of few "
    "words and few speakers will fail on them; it should then say that its confidence is low."
)

Scores = Sequence[float]  # the raw scores of a word; all words of a segment have the same


@dataclass(frozen=True)
class Line:
    """From log-odds of scores to those of confidences.

    Attributes:
        weights: of a word's scores, and after them of their means over the segment.
        offset: added to their sum.
    """

    weights: tuple[float, ...]
    offset: float


@dataclass(frozen=True)
class Calibration:
    """The lines of a model.

    Attributes:
        lines: number of raw scores -> line. Where there is none, the first score is the confidence.
    """

    lines: Mapping[int, Line] = field(default_factory=dict)

    def __call__(self, scores: Sequence[Scores]) -> list[float]:
        """Confidences, 0 to 1, of a segment's words with these raw scores."""
        line = self.lines.get(len(scores[0])) if scores else None
        if line is None:
            return [min(max(of_word[0], CLIP), 1 - CLIP) for of_word in scores]
        odds = features(scores) @ np.array(line.weights) + line.offset
        return (1 / (1 + np.exp(-odds))).tolist()

    def to_json(self) -> dict[str, Any]:
        """Plain values, of which `from_json` makes it again."""
        return {str(count): asdict(line) for count, line in self.lines.items()}

    @classmethod
    def from_json(cls, values: Mapping[str, Mapping[str, Any]]) -> Self:
        """What `to_json` gave."""
        return cls(
            {int(k): Line(tuple(v["weights"]), float(v["offset"])) for k, v in values.items()}
        )


def log_odds(score: float) -> float:
    """Logarithm of the odds of a probability."""
    score = min(max(score, CLIP), 1 - CLIP)
    return math.log(score / (1 - score))


def features(scores: Sequence[Scores]) -> np.ndarray:
    """Log-odds (W, 2 S) of a segment's W words with S raw scores: of each, and their means."""
    odds = np.array([[log_odds(score) for score in of_word] for of_word in scores])
    return np.hstack([odds, np.broadcast_to(odds.mean(0), odds.shape)])


def fit(segments: Sequence[Sequence[Scores]], right: Sequence[Sequence[bool]]) -> Calibration:
    """The lines under which words are likeliest to be right or wrong as they are.

    There is a line for words of one raw score and one for words of two. The former is fitted on the
    first score of all words: those that have no other may all be wrong. Without wrong words, or
    without right ones, nothing can be fitted: the first score stays as it is.

    Args:
        segments: the raw scores of each segment's words.
        right: of each segment's words, whether they are right.

    Raises:
        ModuleNotFoundError: if scikit-learn is not installed.
    """
    with extra():
        from sklearn.linear_model import LogisticRegression

    lines = {}
    for count in sorted({len(scores[0]) for scores in segments if scores}):
        chosen = [
            (features([of_word[:count] for of_word in scores]), of_segment)
            for scores, of_segment in zip(segments, right, strict=True)
            if scores and len(scores[0]) >= count
        ]
        values = np.concatenate([values for values, _ in chosen])
        hits = np.concatenate([np.array(of_segment) for _, of_segment in chosen])
        if len(set(hits.tolist())) == 2:
            line = LogisticRegression(max_iter=1000).fit(values, hits)
            lines[count] = Line(tuple(line.coef_[0].tolist()), float(line.intercept_[0]))
    return Calibration(lines)


def held_out(
    segments: Sequence[Sequence[Scores]], right: Sequence[Sequence[bool]], clips: Sequence[int]
) -> list[list[float]]:
    """Confidences of words by lines that were fitted without the clip that they come from.

    Args:
        segments, right: as of `fit`.
        clips: of each segment, the number of the clip that it was read from. All that was read of
            a clip, at whatever rates and in whatever direction, is in one of up to FOLDS folds.

    Returns:
        A list for each segment.

    Raises:
        ValueError: for a single clip, or none.
    """
    fold_of_clip = {clip: place % FOLDS for place, clip in enumerate(dict.fromkeys(clips))}
    if len(fold_of_clip) < 2:
        raise ValueError("of a single clip no confidence can be calibrated and tested; give more")
    folds = [fold_of_clip[clip] for clip in clips]
    confidences: list[list[float]] = [[] for _ in segments]
    for fold in set(folds):
        others = [place for place, other in enumerate(folds) if other != fold]
        lines = fit([segments[place] for place in others], [right[place] for place in others])
        for place, scores in enumerate(segments):
            if folds[place] == fold:
                confidences[place] = lines(scores)
    return confidences


def calibration_errors(
    confidences: Sequence[Sequence[float]], right: Sequence[Sequence[bool]]
) -> tuple[float, float]:
    """Expected calibration errors of words and of utterances.

    The confidence of an utterance is the mean of its words', as in a transcript, and is compared
    with the share of them that is right. Utterances without words do not count.

    Args:
        confidences: of each utterance's words.
        right: of each utterance's words, whether they are right.
    """
    spoken = [(c, hits) for c, hits in zip(confidences, right, strict=True) if len(c)]
    words = calibration_error(
        [value for c, _ in spoken for value in c], [hit for _, hits in spoken for hit in hits]
    )
    means = [float(np.mean(c)) for c, _ in spoken]
    return words, calibration_error(means, [float(np.mean(hits)) for _, hits in spoken])


def calibration_error(confidences: Sequence[float], right: Sequence[float]) -> float:
    """Expected calibration error: mean distance of confidence and share of right words, by bins.

    Args:
        confidences: of words, or of utterances.
        right: 1 for a right word and 0 for a wrong one; of utterances, the share of right words.
    """
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
