"""Compression against a slow loop, and the names of rates."""

import math

import pytest
import torch

from mome.models.matryoshka import compress
from mome.models.rates import RatePair, parse_rate_pair, rate_pairs


@pytest.mark.parametrize("rate", [1, 2, 3, 5, 16, 40])
def test_average_pooling_equals_a_loop(rate):
    torch.manual_seed(rate)
    frames, lengths = torch.randn(4, 23, 3), torch.tensor([23, 16, 1, 7])
    tokens, out = compress(frames, lengths, rate)
    assert tokens.shape[1] == math.ceil(23 / rate)
    for row, length in enumerate(lengths.tolist()):
        windows = frames[row, :length].split(rate)
        assert out[row] == len(windows)
        expected = torch.stack([window.mean(0) for window in windows])
        assert torch.allclose(tokens[row, : len(windows)], expected, atol=1e-6)
        assert (tokens[row, len(windows) :] == 0).all()


@pytest.mark.parametrize("how", ["average", "stack"])
@pytest.mark.parametrize("rate", [1, 2, 5, 16, 40])
def test_a_dropped_last_window_leaves_the_whole_ones_as_they_are(rate, how):
    frames, lengths = torch.randn(4, 23, 3), torch.tensor([23, 16, 1, 7])
    kept, _ = compress(frames, lengths, rate, how)
    dropped, out = compress(frames, lengths, rate, how, "drop")
    assert dropped.shape[1] == out.max()
    for row, length in enumerate(lengths.tolist()):
        # The only window of a short clip stays: an utterance without a token could not be read.
        assert out[row] == max(1, length // rate)
        assert torch.equal(dropped[row, : out[row]], kept[row, : out[row]])
        assert (dropped[row, out[row] :] == 0).all()


@pytest.mark.parametrize(("audio", "video", "tokens"), [(1, 1, 1673), (4, 2, 560), (16, 5, 184)])
def test_the_papers_counts_of_tokens_are_those_of_dropped_windows(audio, video, tokens):
    """Table 5: one clip at three rate pairs, with four markers; see egs/lrs2/RESULTS.md."""
    counts = []
    for frames, rate in ((1113, audio), (556, video)):
        lengths = torch.tensor([frames])
        counts.append(int(compress(torch.zeros(1, frames, 1), lengths, rate, "average", "drop")[1]))
    assert sum(counts) + 4 == tokens


def test_an_unknown_last_window_is_refused():
    with pytest.raises(ValueError, match="last_window 'pad' must be keep or drop"):
        compress(torch.randn(1, 5, 2), torch.tensor([5]), 2, last_window="pad")


@pytest.mark.parametrize("rate", [2, 5])
def test_stacking_concatenates_the_frames_of_a_window(rate):
    frames, lengths = torch.randn(2, 11, 3), torch.tensor([11, 6])
    tokens, out = compress(frames, lengths, rate, "stack")
    assert tokens.shape == (2, math.ceil(11 / rate), 3 * rate)
    assert torch.equal(tokens[0, 1], frames[0, rate : 2 * rate].flatten())
    assert out.tolist() == [math.ceil(11 / rate), math.ceil(6 / rate)]
    start = (math.ceil(6 / rate) - 1) * rate
    assert torch.equal(tokens[1, out[1] - 1, : (6 - start) * 3], frames[1, start:6].flatten())
    assert (tokens[1, out[1] - 1, (6 - start) * 3 :] == 0).all()


def test_rates_of_the_tasks():
    assert rate_pairs("avsr", [4, 16], [2, 5]) == [(4, 2), (4, 5), (16, 2), (16, 5)]
    assert rate_pairs("asr", [4, 16], []) == [(4, None), (16, None)]
    assert rate_pairs("vsr", [], [2, 5]) == [(None, 2), (None, 5)]
    for pair in [*rate_pairs("avsr", [4, 16], [2, 5]), RatePair(4, None), RatePair(None, 5)]:
        assert parse_rate_pair(str(pair)) == pair


@pytest.mark.parametrize("name", ["", "4_2", "a4_x2", "a_v2", "a4.5", "a4_a16", "a4_v2_v5", "a²"])
def test_bad_rate_names_are_refused(name):
    with pytest.raises(ValueError, match="must look like"):
        parse_rate_pair(name)


def test_bad_rates_are_refused():
    with pytest.raises(ValueError, match="start at 1"):
        rate_pairs("avsr", [0], [2])
    with pytest.raises(ValueError, match="must be one of"):
        rate_pairs("tts", [4], [2])
    with pytest.raises(ValueError, match="at least one rate"):
        rate_pairs("avsr", [], [2])
