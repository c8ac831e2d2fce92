"""Transcripts that repeat themselves."""

import itertools
import random
import re

import pytest

from mome.analysis.repetition import count_loops, repeats_itself


@pytest.mark.parametrize(
    ("text", "loops"),
    [
        ("", False),
        ("no no no", False),
        ("no no no no", True),
        ("and so it goes on and on and on and on and on", True),
        ("i want to go i want to go i want to go i want to go", True),
        ("i want to go i want to go i want to go i want to", False),
        ("one two three four five one two three four five " * 4, False),  # five words
        ("bin blue at f two now", False),
        ("No, no! No. No?", True),
        ("今天今天今天今天", True),
        ("今天天气好", False),
    ],
)
def test_up_to_four_words_four_times_in_a_row_are_a_loop(text, loops):
    assert repeats_itself(text) is loops


def test_agrees_with_a_regular_expression():
    found = set()
    rng = random.Random(0)
    long = ["".join(rng.choices("ab", k=4)) * 4 + rng.choice("ab") for _ in range(50)]
    for words in [*itertools.product("ab", repeat=12), *long, *(text[1:-2] for text in long)]:
        expected = re.search(r"(.{1,4})\1\1\1", "".join(words)) is not None
        assert repeats_itself(" ".join(words)) is expected
        found.add(expected)
    assert found == {True, False}


def test_what_somebody_really_said_is_not_counted():
    references = {"a": "No, no! No. No.", "b": "no", "c": "yes"}
    hypotheses = {"a": "no no no no", "b": "no, no, no, no", "c": "yes yes"}
    assert count_loops(references, hypotheses) == 1
    assert count_loops({"a": "今天天气好", "b": "好"}, {"a": "今天" * 4, "b": "好" * 3}) == 1
