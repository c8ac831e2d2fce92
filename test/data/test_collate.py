"""Batches against ESPnet's own function, in whose place ours stands."""

import numpy as np
import pytest
import torch
from espnet2.train.collate_fn import CommonCollateFn

from mome.data.collate import collate


def test_a_batch_is_that_of_espnet():
    rng = np.random.default_rng(0)
    utterances = [
        (
            f"u{length}",
            {
                "speech": rng.normal(size=640 * length).astype(np.float32),
                "lips": rng.normal(size=(length, 8, 8)).astype(np.float32),
                "text": rng.integers(0, 60, length + 1),
            },
        )
        for length in (3, 7, 1)
    ]
    ids, batch = collate(utterances)
    theirs_ids, theirs = CommonCollateFn(float_pad_value=0.0, int_pad_value=-1)(utterances)
    assert ids == theirs_ids
    assert set(batch) == set(theirs)
    for name, tensor in theirs.items():
        assert batch[name].dtype == tensor.dtype
        torch.testing.assert_close(batch[name], tensor, rtol=0, atol=0)


def test_utterances_that_lack_a_stream_are_named():
    one, other = {"speech": np.zeros(3)}, {"speech": np.zeros(3), "lips": np.zeros((1, 8, 8))}
    with pytest.raises(ValueError, match="utterance b has speech, but a has lips, speech"):
        collate([("a", other), ("b", one)])
