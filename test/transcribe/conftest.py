"""A tiny trained model."""

import pytest
from tiny_training import make_training


@pytest.fixture(scope="session")
def training(tmp_path_factory, tiny_lm, tiny_whisper):
    """What stage 4 leaves: a configuration and a checkpoint, and beside them a lip encoder."""
    return make_training(tmp_path_factory.mktemp("training"), tiny_lm, tiny_whisper)
