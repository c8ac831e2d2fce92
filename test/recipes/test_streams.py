"""Stages 1 to 3 of corpora that lack a stream, for tasks that do not need it."""

import os
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from media import quick_detector, talking_head, write_clip

from mome.data.kaldi import read_scp, validate_data_dir

ROOT = Path(__file__).parents[2]
SETS = {"train": 4, "valid": 1, "test": 2}


def write_corpus(folder: Path, sight: bool, sound: bool) -> None:
    frames = talking_head(12, 224) if sight else np.zeros((12, 64, 64, 3), np.uint8)
    for name, count in SETS.items():
        for number in range(count):
            clip = folder / name / name / f"{number}.mp4"
            clip.parent.mkdir(parents=True, exist_ok=True)
            write_clip(clip, frames, audio=sound)
            clip.with_suffix(".txt").write_text(f"place {number}\n")


def run(recipe: Path, *options: str) -> subprocess.CompletedProcess:
    command = [ROOT / "egs/TEMPLATE/avsr1/avsr.sh", "--corpus", recipe / "corpus", "--nj", "1"]
    command += ["--stage", "1", "--stop_stage", "3", "--snrs", "0", "--detector", quick_detector()]
    command += ["--noise_opts", "--num_train 1 --num_test 1 --seconds 1 --test_share 0.5", *options]
    return subprocess.run(
        [str(word) for word in command],
        cwd=recipe,
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )


def media(recipe: Path) -> list[Path]:
    folders = [recipe / "data", recipe / "dump"]
    names = ("*.flac", "*.mp4", "utt2spk")
    return [path for folder in folders for name in names for path in folder.rglob(name)]


@pytest.mark.parametrize(
    ("task", "file", "lacks"), [("vsr", "lip.scp", "wav.scp"), ("asr", "wav.scp", "lip.scp")]
)
def test_tasks_decide_what_a_corpus_needs(tmp_path, task, file, lacks):
    (tmp_path / "local").mkdir()
    shutil.copy(ROOT / "egs/TEMPLATE/recipe/local/data.py", tmp_path / "local")
    write_corpus(tmp_path / "corpus", sight=task == "vsr", sound=task == "asr")
    result = run(tmp_path, "--tasks", task)
    assert result.returncode == 0, (result.stdout + result.stderr)[-4000:]
    for name, count in SETS.items():
        folder = tmp_path / "dump" / name
        assert len(read_scp(folder / file)) == count
        assert not (folder / lacks).exists()
        assert (folder / "lips.png").exists() == (task == "vsr")
    # All stages asked for are done anew if that is asked for.
    made = {path: path.stat().st_mtime_ns for path in media(tmp_path)}
    assert made
    result = run(tmp_path, "--tasks", task, "--force", "true")
    assert result.returncode == 0, (result.stdout + result.stderr)[-4000:]
    assert made.keys() == set(media(tmp_path))
    assert all(path.stat().st_mtime_ns > before for path, before in made.items())
    # Without sound there is nothing to add noise to.
    noisy = tmp_path / "dump/test_babble_snr0"
    assert noisy.exists() == (task == "asr")
    if task == "asr":
        assert validate_data_dir(noisy) == []
    # A task that needs the other stream is not served by what is there.
    other = run(tmp_path, "--tasks", "avsr", "--stage", "2")
    assert other.returncode != 0
    assert "--streams: was" in other.stdout + other.stderr
