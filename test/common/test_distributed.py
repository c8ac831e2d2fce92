"""Training by two processes, started as on two machines of a cluster, against one process."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from tiny_task import trainer_options

from mome.tasks.avsr import AVSRTask

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def options(tmp_path_factory, tiny_lm, tiny_whisper) -> list[str]:
    """Options of the trainer for a tiny model with nothing at random but its rate pairs."""
    return trainer_options(tmp_path_factory.mktemp("distributed"), tiny_lm, tiny_whisper)


def on_two_machines(options: list[str], tmp_path: Path, check: bool = True) -> str:
    """A training by ESPnet's launcher, with Slurm's stand-ins and ``slurm.pl`` on PATH.

    Returns:
        what was written.
    """
    arguments = ["-m", "espnet2.bin.launch", "--cmd", "slurm.pl --partition cpu", "--ngpu", "0"]
    arguments += ["--num_nodes", "2", "--log", tmp_path / "two.log"]
    arguments += ["--init_file_prefix", tmp_path / "init", "--", sys.executable, "-m"]
    arguments += ["mome.bin.train", *options, "--output_dir", tmp_path / "two"]
    path = f"{ROOT / 'test/slurm'}:{ROOT / 'utils'}:{os.environ['PATH']}"
    env = {**os.environ, "PATH": path, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    env |= {"SBATCH_LOG": str(tmp_path / "sbatch"), "GLOO_SOCKET_IFNAME": "lo"}
    command = [sys.executable, *map(str, arguments)]
    result = subprocess.run(command, capture_output=True, text=True, check=False, env=env)
    assert (result.returncode == 0) == check, (result.stdout + result.stderr)[-4000:]
    return result.stdout + result.stderr


def statistics(folder: Path) -> dict[str, float]:
    """What the reporter noted of each epoch, by epoch, phase and name."""
    reporter = torch.load(folder / "checkpoint.pth", weights_only=False)["reporter"]
    return {
        f"{epoch}/{phase}/{name}": value
        for epoch, phases in reporter["stats"].items()
        for phase, values in phases.items()
        for name, value in values.items()
        if isinstance(value, float) and re.match("loss|grad_norm", name)
    }


def test_two_machines_train_as_one(options, tmp_path):
    AVSRTask.main(cmd=[*options, "--output_dir", str(tmp_path / "one"), "--ngpu", "0"])
    on_two_machines(options, tmp_path)

    asked = (tmp_path / "sbatch").read_text().split("\n")
    assert {"--nodes=2", "--ntasks-per-node=1", "--partition=cpu"} <= set(asked)
    said = (tmp_path / "two.log").read_text()
    assert "2/2epoch" in said
    assert "destroy_process_group() was not called" not in said
    one, two = statistics(tmp_path / "one"), statistics(tmp_path / "two")
    assert {"1/train/loss", "2/valid/loss", "2/train/grad_norm"} <= set(one)
    assert two == pytest.approx(one, abs=1e-4)
    assert abs(one["2/train/loss"] - one["1/train/loss"]) > 0.01


def test_batches_that_processes_cannot_share_are_named(options, tmp_path):
    said = on_two_machines([*options, "--valid_batch_size", "1"], tmp_path, check=False)
    assert "utt2num_frames: a batch of 1 utterances cannot be shared by 2 processes" in said
    assert "raise valid_batch_size in the configuration" in said
    assert "epoch started" not in said
