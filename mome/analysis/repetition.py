"""Transcripts that repeat themselves: an LLM that has lost the speech may say the same for ever."""

from collections.abc import Mapping

from mome.analysis.wer import spell
from mome.data.text import normalise

LONGEST = 4  # words of what is repeated
TIMES = 4  # in a row, above which nobody is expected to say it


def repeats_itself(text: str, longest: int = LONGEST, times: int = TIMES) -> bool:
    """Whether up to ``longest`` words stand ``times`` times or more in a row.

    Words are those that are scored; characters of scripts without blanks between words count as
    words.
    """
    words = spell(normalise(text)).split()
    for length in range(1, longest + 1):
        run = 0  # words that equal those `length` places before them
        for place in range(length, len(words)):
            run = run + 1 if words[place] == words[place - length] else 0
            if run >= length * (times - 1):
                return True
    return False


def count_loops(references: Mapping[str, str], hypotheses: Mapping[str, str]) -> int:
    """Utterances whose hypothesis repeats itself where the reference does not."""
    return sum(
        repeats_itself(text) and not repeats_itself(references[utterance])
        for utterance, text in hypotheses.items()
    )
