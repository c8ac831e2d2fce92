"""Training by two processes, started as on two machines of a cluster, against one process."""

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from mome.data.audio import write_flac
from mome.data.kaldi import write_scp
from mome.data.video import write_lips
from mome.tasks.avsr import AVSRTask

ROOT = Path(__file__).parents[2]
# Unequal on purpose: the processes of a batch then have different numbers of tokens and frames.
SENTENCES = [
    "place red",
    "set blue at one two now again soon please",
    "bin white",
    "lay green by now",
] + ["set the book", "cup", "lay the blue cup again and place the red book now", "table now please"]
SHAPES = (12, 40, 15, 25, 20, 10, 45, 30)


def write_set(folder: Path) -> None:
    """A dump folder of eight utterances of noise."""
    rng = np.random.default_rng(0)
    (folder / "media").mkdir(parents=True)
    tables: dict[str, dict[str, object]] = {"wav.scp": {}, "lip.scp": {}, "text": {}}
    tables["utt2num_frames"] = {}
    for number, (sentence, frames) in enumerate(zip(SENTENCES, SHAPES, strict=True)):
        name = f"a_{number}"
        wav, lips = folder / f"media/{name}.flac", folder / f"media/{name}.mp4"
        write_flac(wav, rng.normal(0, 0.1, frames * 640).astype(np.float32))
        write_lips(lips, rng.integers(0, 255, (frames, 96, 96), dtype=np.uint8))
        values = (wav, lips, sentence, frames)
        for table, value in zip(tables.values(), values, strict=True):
            table[name] = value
    for name, table in tables.items():
        write_scp(folder / name, table)


@pytest.fixture(scope="module")
def options(tmp_path_factory, tiny_lm, tiny_whisper) -> list[str]:
    """Options of the trainer for a tiny model with nothing at random but its rate pairs."""
    folder = tmp_path_factory.mktemp("distributed")
    write_set(folder / "set")
    conf = yaml.safe_load((ROOT / "egs/mini_av/conf/train.yaml").read_text())
    conf["video_encoder_conf"] = {"width": 4, "output_size": 16, "layers": 1, "heads": 2}
    conf["decoder_conf"] |= {"lm": tiny_lm, "lm_dtype": "float32"}
    conf["decoder_conf"]["adapter_conf"] |= {"num_routed": 4, "top_k": 4, "bottleneck": 3}
    # All experts and all embeddings: a choice of the best may turn over by rounding.
    conf["model_conf"]["readout_conf"]["top"] = 1000
    conf["audio_encoder_conf"] = {"model": tiny_whisper, "pad_to_30s": False, "dtype": "float32"}
    # Drawn at random, so that the test sees that both processes draw the same.
    conf["model_conf"]["pairs_per_step"] = 2
    conf["scheduler_conf"] = {"warmup_steps": 2, "total_steps": 8}
    conf |= {"max_epoch": 2, "num_iters_per_epoch": 4, "batch_size": 4, "valid_batch_size": 4}
    conf |= {"num_workers": 0, "log_interval": 1}
    (folder / "train.yaml").write_text(yaml.safe_dump(conf))
    options = ["--config", folder / "train.yaml", "--unused_parameters", "true"]
    for phase in ("train", "valid"):
        for name, kind in (
            ("wav.scp", "speech,sound"),
            ("lip.scp", "lips,lips"),
            ("text", "text,text"),
        ):
            path = folder / "set" / name
            options += [f"--{phase}_data_path_and_name_and_type", f"{path},{kind}"]
        options += [f"--{phase}_shape_file", folder / "set/utt2num_frames"]
    return [str(option) for option in options]


def run(arguments: list[object], tmp_path: Path) -> None:
    """Python, with Slurm's stand-ins and ``slurm.pl`` on PATH."""
    path = f"{ROOT / 'test/slurm'}:{ROOT / 'utils'}:{os.environ['PATH']}"
    env = {**os.environ, "PATH": path, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    env |= {"SBATCH_LOG": str(tmp_path / "sbatch"), "GLOO_SOCKET_IFNAME": "lo"}
    command = [sys.executable, *map(str, arguments)]
    result = subprocess.run(command, capture_output=True, text=True, check=False, env=env)
    assert result.returncode == 0, (result.stdout + result.stderr)[-4000:]


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
    command = ["-m", "espnet2.bin.launch", "--cmd", "slurm.pl --partition cpu", "--ngpu", "0"]
    command += ["--num_nodes", "2", "--log", tmp_path / "two.log"]
    command += ["--init_file_prefix", tmp_path / "init", "--", sys.executable, "-m"]
    run([*command, "mome.bin.train", *options, "--output_dir", tmp_path / "two"], tmp_path)

    asked = (tmp_path / "sbatch").read_text().split("\n")
    assert {"--nodes=2", "--ntasks-per-node=1", "--partition=cpu"} <= set(asked)
    assert "2/2epoch" in (tmp_path / "two.log").read_text()
    one, two = statistics(tmp_path / "one"), statistics(tmp_path / "two")
    assert {"1/train/loss", "2/valid/loss", "2/train/grad_norm"} <= set(one)
    assert two == pytest.approx(one, abs=1e-4)
    assert abs(one["2/train/loss"] - one["1/train/loss"]) > 0.01
