"""mome-plot-experts on a packed model of random weights."""

import json

import cv2
import numpy as np
import pytest

from mome.bin import plot_experts
from mome.tasks.packed import pack


def test_shares_of_every_rate_pair_are_drawn_and_compared(training, dump, tmp_path, capsys):
    # Clips are cut already: what cut those of the training need not be here.
    crops = {"detector": "dlib", "landmarks": {"dlib": {"other.dat": "0" * 64}}}
    info = {"trained_on": "noise", "max_seconds": 6.0, "rates": [], "crops": crops}
    packed = pack(training / "config.yaml", training / "model.pth", tmp_path / "packed", info, "")
    options = ["--model", packed, "--dump", dump, "--set", "valid", "--output", tmp_path / "out"]
    plot_experts.main(list(map(str, options)))
    found = json.loads((tmp_path / "out" / "experts.json").read_text())
    assert list(found["shares"]) == ["a4_v2", "a4_v5", "a16_v2", "a16_v5"]
    for of_pair in found["shares"].values():
        assert list(of_pair) == ["audio", "video", "text"]
        for matrix in of_pair.values():
            np.testing.assert_allclose(np.sum(matrix, axis=1), 1, atol=1e-3)
    across = found["alike"]["across rate pairs"]
    assert list(across) == ["audio", "video", "text"]
    assert all(0 < each["overlap"] <= 1 for each in across.values())
    # The same text at other rates selects nearly the same experts of the first layers.
    assert across["text"]["overlap"] > across["text"]["by_chance"]
    assert 1 <= found["in_use"]["in a layer"] <= found["in_use"]["over all layers"] <= 5
    assert "across modalities, audio and video: " in capsys.readouterr().out
    assert (cv2.imread(str(tmp_path / "out" / "experts.png")) < 128).any()
    with pytest.raises(SystemExit, match=r"mome-plot-experts: .*nothing"):
        plot_experts.main(["--model", str(tmp_path / "nothing"), *map(str, options[2:])])
