"""mome-measure-delays: on a packed model of random weights, and of times that are known."""

import numpy as np
import pytest

from mome.bin import measure_delays
from mome.data.kaldi import read_scp, write_scp
from mome.tasks.packed import pack


def test_every_rate_is_compared_with_the_finest_audio(training, dump, tmp_path, capsys):
    # Clips are cut already: what cut those of the training need not be here.
    crops = {"detector": "dlib", "landmarks": {"dlib": {"other.dat": "0" * 64}}}
    info = {"trained_on": "noise", "max_seconds": 6.0, "rates": [], "crops": crops}
    packed = pack(training / "config.yaml", training / "model.pth", tmp_path / "packed", info, "")
    texts = read_scp(dump / "valid/text")
    write_scp(dump / "valid/text", dict.fromkeys(texts, "now"))
    options = ["--model", packed, "--dump", dump, "--set", "valid"]
    measure_delays.main(list(map(str, options)))
    printed = capsys.readouterr().out
    assert "3 sentences of valid: s after a4" in printed
    rows = [line.split("|")[1:-1] for line in printed.splitlines()[4:]]
    assert [row[0].strip() for row in rows] == ["a4", "a16", "v2", "v5"]
    assert rows[0][1].strip().startswith("+0.00 (0.00), ")
    write_scp(dump / "valid/text", dict.fromkeys(texts, " ".join(["unquestionably"] * 30)))
    with pytest.raises(SystemExit, match="no sentence has the windows that its tokens need"):
        measure_delays.main(list(map(str, options)))
    with pytest.raises(SystemExit, match=r"mome-measure-delays: .*nothing"):
        measure_delays.main(["--model", str(tmp_path / "nothing"), *map(str, options[2:])])


def test_delays_are_medians_of_differences_and_posteriors_medians():
    times = np.array([[0.1, 0.5], [0.2, 0.7], [0.3, 0.6]])
    late = times + np.array([[0.4, 0.0], [0.4, 0.1], [0.4, -0.1]])
    lines = measure_delays.table({"a4": (times, times), "v2": (late, np.full((3, 2), 0.25))})
    assert lines[2].split() == "| a4 | +0.00 (0.00), 0.20 | +0.00 (0.00), 0.60 |".split()
    assert lines[3].split() == "| v2 | +0.40 (0.00), 0.25 | +0.00 (0.10), 0.25 |".split()
