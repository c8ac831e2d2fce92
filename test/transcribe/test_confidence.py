"""Confidences against formulas, and tokens of words against the words themselves."""

import math

import numpy as np
import pytest
from transformers import AutoTokenizer

from mome.transcribe.confidence import (
    Calibration,
    calibration_error,
    fit,
    word_scores,
    word_tokens,
    words_right,
)


def test_the_fit_finds_the_line_that_made_the_data():
    rng = np.random.default_rng(0)
    scores = rng.uniform(0.01, 0.99, (20000, 2))
    line = Calibration((0.6, 0.3), -1.2)
    right = rng.random(20000) < [line(of_word) for of_word in scores]
    found = fit(scores.tolist(), right.tolist())
    assert found.weights == pytest.approx((0.6, 0.3), abs=0.05)
    assert found.offset == pytest.approx(-1.2, abs=0.07)
    before = calibration_error(scores[:, 0].tolist(), right.tolist())
    after = calibration_error([found(of_word) for of_word in scores], right.tolist())
    assert before > 0.15
    assert after < 0.02


def test_where_nothing_can_be_fitted_scores_stay():
    assert fit([[0.5], [0.9]], [True, True]) == Calibration()
    assert Calibration()([0.3, 0.9]) == pytest.approx(0.3)
    assert 0 < Calibration()([0.0]) < 1e-5
    assert Calibration()([1.0]) == pytest.approx(1.0, abs=1e-5)


def test_calibration_error_is_that_of_bins():
    assert calibration_error([0.95, 0.95, 0.05], [True, False, False]) == pytest.approx(
        2 / 3 * 0.45 + 1 / 3 * 0.05
    )


def test_right_words_are_those_of_the_alignment():
    assert words_right("place red at a two now", "place read at two now") == [
        *(True, False, True, True, True)
    ]
    assert words_right("", "a b") == [False, False]
    assert words_right("a b", "") == []


@pytest.mark.parametrize(
    "text", [" place red at", "the unquestionably odd  word, isn't it?", " naïve 東京 x", "", " a"]
)
def test_every_token_is_of_the_word_it_writes(text, tiny_lm):
    tokenizer = AutoTokenizer.from_pretrained(tiny_lm)
    tokens = tokenizer.encode(text, add_special_tokens=False)
    found = word_tokens(tokenizer, tokens)
    assert [word for word, _ in found] == text.split()
    places = [place for _, of_word in found for place in of_word]
    assert places == sorted(set(places))
    for word, of_word in found:
        written = tokenizer.decode([tokens[place] for place in of_word])
        assert written.strip() == word
    log_probs = [-0.1 * (place + 1) for place in range(len(tokens))]
    for score, (_, of_word) in zip(word_scores(log_probs, found), found, strict=True):
        assert score == pytest.approx(math.prod(math.exp(log_probs[place]) for place in of_word))
