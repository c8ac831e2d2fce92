"""What of a trainer's log is shown."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from mome.common.progress import LATER, PART, SECONDS, Pace
from mome.common.training_log import Follower, condense, shorter

ROOT = Path(__file__).parents[2]
START = "[host] 2026-11-27 07:11:19,531 (trainer:322) "
STEPS = (
    "INFO: 3epoch:train:21-40batch: iter_time=0.012, acc_asr_a4=0.298, loss_balance=4.057, "
    "acc=0.254, loss=2.771, grad_norm=3.305, optim0_lr0=2.0e-03, train_time=4.021\n"
)
RESULTS = (
    "INFO: 3epoch results: [train] acc=0.3, loss=1.5e-03, time=1 minute, [valid] "
    "loss_avsr_a4_v2=1.4, acc=0.5, loss=1.25, time=2 seconds, total_count=3\n"
)
WARNING = "[host] 2026-11-27 07:11:19,531 (load_pretrained_model:29) WARNING: "


@pytest.mark.parametrize(
    ("line", "shown"),
    [
        (f"{START}INFO: 1/5epoch started\n", "epoch 1 of 5"),
        (
            f"{START}INFO: 2/5epoch started. Estimated time to finish: 3 minutes and 49.49 seconds",
            "epoch 2 of 5, some 3 minutes left",
        ),
        (START + STEPS, "  step 40: loss 2.771, accuracy 0.254, 4.021 s a step"),
        (
            START + RESULTS,
            "  epoch 3: loss 1.5e-03, accuracy 0.3; validation loss 1.25, accuracy 0.5",
        ),
        (f"{WARNING}Filter out video_encoder.trunk.3 from pretrained dict", None),
        (f"{WARNING}The loss is NaN in utterances a b", "  The loss is NaN in utterances a b"),
        (f"{START}INFO: pytorch.version=2.13, cuda.available=False", None),
        ("Loading weights:  13%", None),
    ],
)
def test_progress_and_problems_are_shown(line, shown):
    assert condense(line) == shown


def test_steps_are_counted_over_the_epochs_and_the_time_left_is_told():
    told = {PART: "stage 4 of 6, training of mome", SECONDS: "100", LATER: "500"}
    follow = Follower(steps=40, pace=Pace(lambda: 0.0, told))
    assert follow(f"{START}INFO: 3/5epoch started\n") == "epoch 3 of 5"
    # 120 of 200 steps: 40 % of the 100 s that were expected, and 500 s of what comes after.
    assert follow(START + STEPS) == (
        "stage 4 of 6, training of mome: step 120 of 200, loss 2.771, accuracy 0.254,"
        " 4.021 s a step, about 9 min left in all"
    )
    assert follow(f"{START}INFO: options") is None
    assert follow(f"{WARNING}The loss is NaN") == "  The loss is NaN"


def test_where_the_length_of_an_epoch_is_not_known_its_steps_are_shown():
    follow = Follower(pace=Pace(lambda: 0.0, {}))
    follow(f"{START}INFO: 3/5epoch started\n")
    assert follow(START + STEPS) == condense(START + STEPS)


def test_durations_lose_their_smallest_part():
    assert shorter("1 day, 2 hours, 3 minutes and 4.5 seconds") == "1 day 2 hours 3 minutes"
    assert shorter("49.5 seconds") == "49.5 seconds"


@pytest.mark.parametrize(
    ("code", "mark", "log"), [(0, ".done", "log"), (3, ".packed.done", "packed.log")]
)
def test_the_log_has_all_and_a_failure_shows_its_last_lines(tmp_path, code, mark, log):
    program = (
        f"print('options'); print({(START + STEPS).strip()!r}); print('the reason'); exit({code})"
    )
    command = [sys.executable, "-m", "mome.bin.run_once", "--show", "progress"]
    command += ["--mark", str(tmp_path / mark), "--", sys.executable, "-c", program]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.returncode == bool(code)
    assert "step 40: loss 2.771" in done.stdout
    assert ("the reason" in done.stdout) == bool(code)
    assert re.search("options\n.*\nthe reason", (tmp_path / log).read_text())
