"""mome.parallel."""

import os
from functools import partial

import pytest

from mome.parallel import WorkerError, map_items


def square_but(number: int, bad: int | None = None) -> tuple[int, int]:
    """Square, except of one number; and the process that did it."""
    if number == bad:
        raise ValueError("cannot square this")
    return number * number, os.getpid()


@pytest.mark.parametrize("nj", [1, 2])
def test_results_are_in_order(nj):
    results = map_items(square_but, range(20), nj, "squares")
    assert [square for square, _ in results] == [n * n for n in range(20)]
    assert (os.getpid() in {pid for _, pid in results}) == (nj == 1)


@pytest.mark.parametrize("nj", [1, 2])
def test_failure_names_work_item_and_reason(nj):
    with pytest.raises(WorkerError, match="squares: 7: ValueError: cannot square this") as caught:
        map_items(partial(square_but, bad=7), range(20), nj, "squares")
    assert isinstance(caught.value.__cause__, ValueError)


def test_nothing_to_do_and_no_job():
    assert map_items(square_but, [], 2) == []
    with pytest.raises(ValueError, match="nj=0"):
        map_items(square_but, [1], 0)
