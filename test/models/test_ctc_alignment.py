"""Alignment of labels with posteriors whose best path is known."""

import math

import pytest
import torch

from mome.models.ctc_alignment import align

WINDOW = 0.08


def posteriors(path: list[int], sure: float = 0.9, vocabulary: int = 5) -> torch.Tensor:
    """Log-posteriors (T, 1 + V) that prefer a label (0 is blank) in each window."""
    rest = (1 - sure) / vocabulary
    table = torch.full((len(path), 1 + vocabulary), rest)
    table[range(len(path)), path] = sure
    return table.log()


def test_labels_are_where_their_posteriors_are():
    # The last label is said twice with a blank between.
    path = [0, 0, 3, 3, 0, 5, 0, 5, 5, 0]
    found = align(posteriors(path), [3, 5, 5], WINDOW)
    spans = [(round(each.start / WINDOW), round(each.end / WINDOW)) for each in found]
    assert spans == [(2, 4), (5, 6), (7, 9)]
    assert all(each.log_prob == pytest.approx(math.log(0.9), abs=1e-5) for each in found)


def test_a_label_that_is_not_said_has_a_low_posterior():
    found = align(posteriors([0, 3, 0, 0, 0]), [3, 2], WINDOW)
    assert math.exp(found[0].log_prob) == pytest.approx(0.9, abs=1e-5)
    assert math.exp(found[1].log_prob) == pytest.approx(0.02, abs=1e-5)


def test_what_does_not_fit_gives_nothing():
    assert align(posteriors([3, 3]), [3, 3], WINDOW) is None
    assert align(posteriors([0, 0]), [], WINDOW) == []
