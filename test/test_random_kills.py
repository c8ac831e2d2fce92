"""Stages that are killed at random moments end as those that were left alone; random_kills.py."""

import numpy as np
import pytest
from random_kills import clear, differences, digests, disturbed, undisturbed


@pytest.fixture(scope="module")
def left_alone(tmp_path_factory):
    """The data stages: their folder, the command, what they have made, and how long they took."""
    recipe = tmp_path_factory.mktemp("kills") / "recipe"
    return recipe, *undisturbed(recipe, "data")


def test_killed_stages_end_as_those_that_are_left_alone(left_alone):
    recipe, command, expected, seconds = left_alone
    assert {"data/train/text", "dump/test_drop1/lip.scp"} <= expected.keys()
    assert sum(name.endswith((".mp4", ".flac")) for name in expected) > 20
    moments = disturbed(command, recipe, seconds, 2, np.random.default_rng(0))
    assert moments, "all kills came too late"
    assert differences(expected, digests(recipe)) == []
    # The comparison sees a change of one byte, and what is missing.
    text = recipe / "dump/test/text"
    text.write_text(text.read_text().replace("place", "plate"))
    (recipe / "dump/test/utt2dur").unlink()
    assert differences(expected, digests(recipe)) == ["dump/test/text", "dump/test/utt2dur"]
    clear(recipe)
