"""Curves of a log as ESPnet's trainer writes it, and their picture."""

import cv2
import numpy as np
import pytest

from mome.analysis.curves import read_curves
from mome.bin import plot_training

LINE = (
    "[host] 2026-01-01 00:00:00,000 (trainer:{line}) INFO: {epoch}epoch results: [train] "
    "iter_time=0.0{epoch}, loss={loss}, grad_norm=nan, optim0_lr0=5.0e-04, time=1 minute and 2 "
    "seconds, total_count=10, [valid] loss_avsr_a4_v2={valid}, acc=0.5, time=3 seconds\n"
)


@pytest.fixture
def training(tmp_path):
    folder = tmp_path / "exp"
    folder.mkdir()
    (folder / "config.yaml").write_text("num_iters_per_epoch: 50\n")
    lines = [
        LINE.format(line=392, epoch=1, loss=4.5, valid=3.25),
        "[host] 2026-01-01 00:00:01,000 (trainer:810) INFO: 2epoch:train:1-20batch: loss=9.0\n",
        LINE.format(line=392, epoch=2, loss=99, valid=99),  # killed after it, and done again
        LINE.format(line=392, epoch=2, loss=2.5, valid=1.5e-3),
    ]
    (folder / "log").write_text("".join(lines))
    return folder


def test_every_epoch_counts_once(training):
    curves = read_curves(training)
    assert curves["train loss"].steps == [50, 100]
    assert curves["train loss"].values == [4.5, 2.5]
    assert curves["valid loss_avsr_a4_v2"].values == [3.25, 0.0015]
    assert curves["train optim0_lr0"].values == [5e-4, 5e-4]
    assert all(np.isnan(value) for value in curves["train grad_norm"].values)
    assert "train minute" not in curves


def test_a_training_begun_anew_replaces_all_of_the_old_one(training):
    with open(training / "log", "a") as log:
        log.write(LINE.format(line=392, epoch=1, loss=7, valid=7))
    assert read_curves(training)["valid loss_avsr_a4_v2"].values == [7.0]


def test_jobs_of_a_cluster_report_one_training(training):
    """Logs of several jobs, the last of which ran on this machine; what failed was copied."""
    times = {}
    for epoch in (1, 2, 3, 4):
        line = LINE.format(line=392, epoch=epoch, loss=epoch, valid=10 * epoch)
        times[epoch] = line.replace("00:00:00", f"0{epoch}:00:00")
    (training / "log").write_text("log file: train.log\n" + times[1] + times[4])
    (training / "train.1.log").write_text("# Running on host\n" + times[1])
    (training / "train.log").write_text(times[2] + times[3])
    curve = read_curves(training)["valid loss_avsr_a4_v2"]
    assert (curve.steps, curve.values) == ([50, 100, 150, 200], [10, 20, 30, 40])
    (training / "log").unlink()
    assert read_curves(training)["train loss"].values == [1, 2, 3]


def test_the_picture_shows_a_panel_for_each_statistic(training, tmp_path):
    options = ["--expdirs", str(training), str(training), "--names", "one", "two", "--output"]
    sizes = []
    for statistics in (["valid acc"], ["valid acc", "train loss"]):
        path = tmp_path / f"{len(statistics)}.png"
        plot_training.main([*options, str(path), "--statistics", *statistics])
        picture = cv2.imread(str(path))
        assert (picture < 128).any()
        sizes.append(picture.shape)
    assert sizes[1][1] == 2 * sizes[0][1]
    with pytest.raises(
        SystemExit, match="reports no 'valid wer', but train grad_norm, train iter_time"
    ):
        plot_training.main([*options, "x.png", "--statistics", "valid wer"])


def test_what_is_missing_is_named(training, tmp_path):
    with pytest.raises(FileNotFoundError, match="nothing/log does not exist; train the model"):
        read_curves(tmp_path / "nothing")
    (training / "log").write_text("no epoch\n")
    with pytest.raises(ValueError, match="log reports no finished epoch"):
        read_curves(training)
