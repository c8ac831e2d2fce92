"""Confidences against formulas, and tokens of words against the words themselves."""

import json
import math

import numpy as np
import pytest
from transformers import AutoTokenizer

from mome.transcribe.confidence import (
    Calibration,
    Line,
    calibration_error,
    calibration_errors,
    fit,
    held_out,
    word_scores,
    word_tokens,
    words_right,
)


def test_the_fit_finds_the_line_that_made_the_data():
    rng = np.random.default_rng(0)
    segments = rng.uniform(0.01, 0.99, (20000, 4, 2)).tolist()
    line = Calibration({2: Line((0.6, 0.3, 0.2, 0.5), -1.2)})
    right = [(rng.random(4) < line(scores)).tolist() for scores in segments]
    found = fit(segments, right)
    assert found.lines[2].weights == pytest.approx((0.6, 0.3, 0.2, 0.5), abs=0.07)
    assert found.lines[2].offset == pytest.approx(-1.2, abs=0.07)
    hits = [hit for of_segment in right for hit in of_segment]
    before = [value for scores in segments for value in Calibration()(scores)]
    after = [value for scores in segments for value in found(scores)]
    assert calibration_error(before, hits) > 0.15
    assert calibration_error(after, hits) < 0.02


def test_a_word_is_judged_by_itself_and_by_its_segment():
    line = Calibration({2: Line((1.0, 0.5, 2.0, 0.25), -1.0)})
    scores = [(0.9, 0.2), (0.6, 0.7)]
    odds = [[math.log(p / (1 - p)) for p in of_word] for of_word in scores]
    mean = [(odds[0][i] + odds[1][i]) / 2 for i in (0, 1)]
    for value, own in zip(line(scores), odds, strict=True):
        total = own[0] + 0.5 * own[1] + 2 * mean[0] + 0.25 * mean[1] - 1
        assert value == pytest.approx(1 / (1 + math.exp(-total)))


def test_words_without_a_posterior_have_a_line_of_their_own():
    """Where windows are too few for an alignment, the LLM's probability is all there is."""
    rng = np.random.default_rng(1)
    segments = [rng.uniform(0.1, 0.9, (3, 1 + number % 2)).tolist() for number in range(400)]
    # Those without a posterior are all wrong, as those of clips played backwards often are.
    right = [(rng.random(3) < 0.8 * (len(scores[0]) == 2)).tolist() for scores in segments]
    found = fit(segments, right)
    assert {count: len(line.weights) for count, line in found.lines.items()} == {1: 2, 2: 4}
    alone = [value for scores in segments if len(scores[0]) == 1 for value in found(scores)]
    assert np.mean(alone) == pytest.approx(0.4, abs=0.05)
    assert Calibration.from_json(json.loads(json.dumps(found.to_json()))) == found


def test_where_nothing_can_be_fitted_scores_stay():
    assert fit([[[0.5], [0.9]], []], [[True, True], []]) == Calibration()
    assert Calibration()([]) == []
    assert Calibration()([[0.3, 0.9]]) == pytest.approx([0.3])
    assert 0 < Calibration()([[0.0]])[0] < 1e-5
    assert Calibration()([[1.0]]) == pytest.approx([1.0], abs=1e-5)


def test_calibration_error_is_that_of_bins():
    assert calibration_error([0.95, 0.95, 0.05], [True, False, False]) == pytest.approx(
        2 / 3 * 0.45 + 1 / 3 * 0.05
    )


def test_of_an_utterance_the_mean_is_held_against_the_share_of_right_words():
    confidences = [[0.9, 0.5], [], [0.2]]
    words, utterances = calibration_errors(confidences, [[True, False], [], [True]])
    # Words: bins of 0.9, 0.5 and 0.2; utterances: a mean of 0.7 with half right, and 0.2 with all.
    assert words == pytest.approx((0.1 + 0.5 + 0.8) / 3)
    assert utterances == pytest.approx((0.2 + 0.8) / 2)


def test_no_clip_is_judged_by_what_is_known_of_it():
    """Whether its words are right or wrong changes nothing for them, and something for others."""
    rng = np.random.default_rng(2)
    # Twelve clips, each read at three rates, forwards and backwards.
    clips = [clip for _ in range(6) for clip in range(12)]
    segments = [rng.uniform(0.05, 0.95, (4, 2)).tolist() for _ in clips]
    right = [[bool(word[0] > rng.random()) for word in scores] for scores in segments]
    before = held_out(segments, right, clips)
    flipped = [
        [not hit for hit in hits] if clip == 3 else hits
        for clip, hits in zip(clips, right, strict=True)
    ]
    after = held_out(segments, flipped, clips)
    for clip, one, other in zip(clips, before, after, strict=True):
        same = np.allclose(one, other)
        # With five folds, the clips 3 and 8 are judged by all others.
        assert same == (clip in (3, 8))
    alone = [i for i, clip in enumerate(clips) if clip not in (3, 8)]
    lines = fit([segments[i] for i in alone], [right[i] for i in alone])
    assert before[3] == pytest.approx(lines(segments[3]))
    with pytest.raises(ValueError, match="of a single clip"):
        held_out(segments[:1], right[:1], [0])


def test_a_calibration_that_learns_its_clips_by_heart_is_found_out():
    """Scores say nothing, so that a line fits by chance alone what it was fitted to."""
    rng = np.random.default_rng(3)
    in_sample, outside = [], []
    for _ in range(20):
        segments = [rng.uniform(0.05, 0.95, (2, 2)).tolist() for _ in range(10)]
        right = [[bool(hit) for hit in rng.random(2) < 0.5] for _ in segments]
        lines = fit(segments, right)
        in_sample.append(calibration_errors([lines(scores) for scores in segments], right)[0])
        found = held_out(segments, right, range(10))
        outside.append(calibration_errors(found, right)[0])
    assert np.mean(outside) > np.mean(in_sample) + 0.05


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
