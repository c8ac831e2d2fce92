"""Comparisons of methods over several trainings."""

import numpy as np
import pytest

from mome.analysis.comparison import compare, errors_by_seed, paired_bootstrap, wer_of
from mome.analysis.wer import score

REFERENCES = {"a": "bin blue at f two now", "b": "set white", "c": "lay red"}
HEARD = [
    {"a": "bin blue at f two now", "b": "set red", "c": "lay"},
    {"a": "bin at f two two now", "b": "set white", "c": "lay red please"},
]


def test_errors_are_those_of_the_tables():
    errors, words = errors_by_seed(REFERENCES, HEARD)
    assert words.tolist() == [6, 2, 2]
    assert errors.tolist() == [[0, 1, 1], [2, 0, 1]]
    for each, heard in zip(errors, HEARD, strict=True):
        assert wer_of(each[None], words) == pytest.approx(score(REFERENCES, heard).wer)
    with pytest.raises(ValueError, match="1 utterances have no hypothesis, the first is c"):
        errors_by_seed(REFERENCES, [{"a": "x", "b": "y"}])


def test_pairing_takes_out_what_is_hard_for_both():
    """Two systems that differ by one error in each tenth of very unlike utterances."""
    rng = np.random.default_rng(0)
    words = np.full(300, 10)
    hard = rng.integers(0, 10, size=(1, 300))
    worse = hard + (np.arange(300) % 10 == 0)
    low, high = paired_bootstrap(worse, hard, words)
    assert low > 0
    assert low < 1.0 < high
    # What each of them may differ by alone is far more than that difference.
    alone = [wer_of(hard[:, u], words[u]) for u in rng.integers(300, size=(500, 300))]
    assert np.std(alone) > 5 * (high - low) / 4
    assert paired_bootstrap(hard, hard, words) == (0.0, 0.0)


def test_the_interval_holds_the_true_difference_as_often_as_it_says():
    """Utterances and seeds drawn from known distributions: 95 % of 60 intervals, give or take."""
    rng = np.random.default_rng(1)
    words = np.full(80, 6)
    held = 0
    for trial in range(60):
        difficulty = rng.beta(1, 3, size=80)
        one, other = (rng.binomial(6, np.clip(difficulty + d, 0, 1)) for d in (0.05, 0.0))
        low, high = paired_bootstrap(one[None], other[None], words, seed=trial)
        held += low <= 5.0 <= high
    assert 51 <= held <= 60


def test_a_spread_needs_two_seeds_and_a_difference_a_baseline():
    errors, words = errors_by_seed(REFERENCES, HEARD)
    alone = compare(errors[:1], None, words)
    assert (alone.wers, alone.spread, alone.difference) == ([20.0], None, None)
    both = compare(errors, errors[:1], words)
    assert both.wers == [20.0, 30.0]
    assert both.mean == pytest.approx(25.0)
    assert both.spread == pytest.approx(np.std([20, 30], ddof=1))
    assert both.difference == pytest.approx(5.0)
    assert both.low <= 5.0 <= both.high
