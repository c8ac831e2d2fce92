"""Comparisons of methods over several trainings."""

import numpy as np
import pytest

from mome.analysis.comparison import compare, errors_by_seed, paired_interval, wer_of
from mome.analysis.wer import score

REFERENCES = {"a": "bin blue at f two now", "b": "set white", "c": "lay red"}
HEARD = [
    {"a": "bin blue at f two now", "b": "set red", "c": "lay"},
    {"a": "bin at f two two now", "b": "set white", "c": "lay red please"},
]


def test_errors_are_those_of_the_tables():
    errors, words = errors_by_seed(REFERENCES, dict(enumerate(HEARD)))
    assert words.tolist() == [6, 2, 2]
    assert {seed: each.tolist() for seed, each in errors.items()} == {0: [0, 1, 1], 1: [2, 0, 1]}
    for seed, heard in enumerate(HEARD):
        assert wer_of(errors[seed][None], words) == pytest.approx(score(REFERENCES, heard).wer)
    with pytest.raises(ValueError, match="1 utterances have no hypothesis, the first is c"):
        errors_by_seed(REFERENCES, {0: {"a": "x", "b": "y"}})


def test_pairing_takes_out_what_is_hard_for_both():
    """Two systems that differ by one error in each tenth of very unlike utterances."""
    rng = np.random.default_rng(0)
    words = np.full(300, 10)
    hard = rng.integers(0, 10, size=(1, 300))
    worse = hard + (np.arange(300) % 10 == 0)
    low, high = paired_interval(worse, hard, words)
    assert 0 < low < 1.0 < high
    # What each of them may differ by alone is far more than that difference.
    alone = [wer_of(hard[:, u], words[u]) for u in rng.integers(300, size=(500, 300))]
    assert np.std(alone) > 5 * (high - low) / 4
    assert paired_interval(hard, hard, words) == (0.0, 0.0)


@pytest.mark.parametrize(("seeds", "noise"), [(1, 0.0), (3, 0.0), (2, 0.04), (3, 0.04), (5, 0.04)])
def test_the_interval_holds_the_true_difference_as_often_as_it_says(seeds, noise):
    """Utterances and seeds drawn from known distributions: 95 % of the intervals, or more."""
    rng = np.random.default_rng(1)
    words = np.full(400, 6)
    trials, held = 150, 0
    for trial in range(trials):
        difficulty = 0.1 + 0.5 * rng.beta(1, 3, size=400)

        def system(shift: float, difficulty: np.ndarray = difficulty) -> np.ndarray:
            moved = [difficulty + shift + rng.normal(0, noise) for _ in range(seeds)]
            return np.stack([rng.binomial(6, np.clip(each, 0, 1)) for each in moved])

        low, high = paired_interval(system(0.03), system(0.0), words, seed=trial)
        held += low <= 3.0 <= high
    assert held >= 0.91 * trials  # with 150 trials, four standard deviations below 95 % or more


def test_a_spread_needs_two_seeds_and_a_difference_common_ones():
    errors, words = errors_by_seed(REFERENCES, dict(enumerate(HEARD)))
    alone = compare({0: errors[0]}, None, words)
    assert (alone.wers, alone.spread, alone.difference) == ([20.0], None, None)
    both = compare(errors, {1: errors[0], 7: errors[1]}, words)
    assert both.wers == [20.0, 30.0]
    assert both.mean == pytest.approx(25.0)
    assert both.spread == pytest.approx(np.std([20, 30], ddof=1))
    assert both.difference == pytest.approx(30 - 20)  # of seed 1, which both have
    assert both.low <= 10.0 <= both.high
    assert compare(errors, {7: errors[0]}, words).difference is None
