#!/usr/bin/env python3
"""Kill a recipe at random moments, and see that it ends as one that was left alone.

  test/random_kills.py --hours 8 [--stages full]

A tiny recipe is run once undisturbed. Then, again and again, it begins anew, all of its processes
are killed (SIGKILL) at random moments and the same command is given again, until it is left to end;
every file that it has made must then be the one of the undisturbed run. Of checkpoints the tensors
are compared, and times of computation are left out.

Stages 1 to 3 (--stages data) take clips that are made here. All stages (--stages full) are those of
egs/mini_av with random models, and need what its stage 0 has fetched.
"""

import argparse
import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import psutil

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "test"), str(ROOT)]

CLIPS = {"train": 4, "valid": 1, "test": 2}
# What tells of the run and not of its result: logs, marks of the moment, pictures of statistics.
IGNORED = re.compile(
    r"(^|/)log$|\.log$|\.lock$|/(tensorboard|images|log|att_ws)/|\.tmp$|checkpoint\.|latest\.pth"
    r"|/config\.yaml$|RESULTS|README\.md$|^exp/times$"
)


def write_corpus(folder: Path) -> None:
    """Clips of a talking head, in the layout of a new recipe."""
    from media import talking_head, write_clip

    frames = talking_head(12, 224)
    for name, count in CLIPS.items():
        for number in range(count):
            clip = folder / name / name / f"{number}.mp4"
            clip.parent.mkdir(parents=True, exist_ok=True)
            write_clip(clip, frames)
            clip.with_suffix(".txt").write_text(f"place {number}\n")


def data_command(recipe: Path) -> list[str]:
    """Stages 1 to 3 of a new recipe, whose corpus is written here."""
    from media import quick_detector

    (recipe / "local").mkdir(parents=True)
    shutil.copy(ROOT / "egs/TEMPLATE/recipe/local/data.py", recipe / "local")
    write_corpus(recipe / "corpus")
    command = [str(ROOT / "egs/TEMPLATE/avsr1/avsr.sh"), "--corpus", "corpus", "--nj", "2"]
    command += ["--stage", "1", "--stop_stage", "3", "--snrs", "0", "--corruptions", "drop"]
    command += ["--detector", quick_detector()]
    return [*command, "--noise_opts", "--num_train 1 --num_test 1 --seconds 1 --test_share 0.5"]


def full_command(recipe: Path) -> list[str]:
    """All stages of egs/mini_av with tiny random models, in this folder."""
    from tiny import make_lm, make_whisper
    from tiny_recipe import options

    recipe.mkdir(parents=True)
    lm, whisper = make_lm(recipe / "lm"), make_whisper(recipe / "whisper")
    return [str(ROOT / "egs/mini_av/run.sh"), *options(recipe, str(lm), str(whisper))]


COMMANDS = {"data": data_command, "full": full_command}


def start(command: list[str], recipe: Path) -> subprocess.Popen:
    """Run a command as the leader of a group of processes, its output in said.log."""
    with open(recipe / "said.log", "ab") as said:
        env = {"OMP_NUM_THREADS": "1", **os.environ}
        return subprocess.Popen(
            command, cwd=recipe, stdout=said, stderr=said, start_new_session=True, env=env
        )


def kill(process: subprocess.Popen) -> None:
    """End a command and all that it has started, at once, and wait until they are gone."""
    try:
        started = psutil.Process(process.pid).children(recursive=True)
    except psutil.NoSuchProcess:
        started = []
    os.killpg(process.pid, signal.SIGKILL)
    for other in started:
        if other.is_running():
            other.kill()
    process.wait()
    psutil.wait_procs(started, timeout=60)


def digests(recipe: Path) -> dict[str, str]:
    """The SHA-256 of what every file holds that the stages have made, by its path."""
    found = {}
    for path in sorted(recipe.rglob("*")):
        name = str(path.relative_to(recipe))
        made = name.split("/")[0] in ("data", "dump", "exp")
        if made and path.is_file() and not IGNORED.search(name):
            found[name] = hashlib.sha256(content(path)).hexdigest()
    return found


def content(path: Path) -> bytes:
    """What a file says of the result."""
    if path.suffix == ".pth":
        import torch

        state = torch.load(path, map_location="cpu", weights_only=True)
        return b"".join(
            name.encode() + tensor.contiguous().numpy().tobytes() for name, tensor in state.items()
        )
    if path.name in ("decode.json", "mome.json"):
        text = re.sub(r'"(encoder_)?seconds(_per_second)?": [\d.e-]+', "", path.read_text())
        return text.encode()
    return path.read_bytes()


def undisturbed(recipe: Path, stages: str) -> tuple[list[str], dict[str, str], float]:
    """Run the stages once: the command, what they have made, and the seconds that they took.

    The files are moved to a folder beside it, so that later runs are in the same place.

    Raises:
        RuntimeError: if the stages fail.
    """
    command = COMMANDS[stages](recipe)
    begun = time.monotonic()
    demand_success(start(command, recipe).wait(), recipe)
    seconds = time.monotonic() - begun
    made = digests(recipe)
    shutil.copytree(recipe, recipe.with_name("undisturbed"), symlinks=True)
    clear(recipe)
    return command, made, seconds


def clear(recipe: Path) -> None:
    """Delete what the stages have made."""
    for name in ("data", "dump", "exp", "said.log"):
        path = recipe / name
        path.unlink() if path.is_file() else shutil.rmtree(path, ignore_errors=True)


def demand_success(code: int, recipe: Path) -> None:
    """Raise RuntimeError with the end of the output for another exit status than 0."""
    if code:
        said = (recipe / "said.log").read_text(errors="replace")
        raise RuntimeError(f"{recipe} ended with status {code}:\n{said[-3000:]}")


def disturbed(
    command: list[str], recipe: Path, seconds: float, kills: int, rng: np.random.Generator
) -> list[float]:
    """Run the stages, killed so many times, and then to their end: when each kill came.

    Raises:
        RuntimeError: if the stages fail, whether they were killed before or not.
    """
    moments = []
    for _ in range(kills):
        process = start(command, recipe)
        moment = float(rng.uniform(0, seconds))
        try:
            demand_success(process.wait(timeout=moment), recipe)
            break  # it was faster than that
        except subprocess.TimeoutExpired:
            kill(process)
            moments.append(round(moment, 2))
    demand_success(start(command, recipe).wait(), recipe)
    return moments


def differences(expected: dict[str, str], made: dict[str, str]) -> list[str]:
    """The files that are not those of the undisturbed run."""
    return sorted(
        name for name in expected.keys() | made.keys() if expected.get(name) != made.get(name)
    )


def main(argv: list[str] | None = None) -> int:
    """Kill and compare until the time is over; the status is 1 if a run ended otherwise."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--hours", type=float, default=1.0, help="no run begins later")
    parser.add_argument(
        "--stages",
        choices=list(COMMANDS),
        default="data",
        help="data: stages 1 to 3; full: all; default: %(default)s",
    )
    parser.add_argument("--kills", type=int, default=6, help="of a run")
    parser.add_argument(
        "--seed", type=int, default=0, help="draws the moments of the kills; default: %(default)s"
    )
    args = parser.parse_args(argv)
    folder = Path(tempfile.mkdtemp(prefix="random-kills-"))
    recipe = folder / "recipe"
    command, expected, seconds = undisturbed(recipe, args.stages)
    print(f"undisturbed: {seconds:.0f} s, {len(expected)} files", flush=True)
    end, number = time.monotonic() + 3600 * args.hours, 0
    while time.monotonic() < end:
        rng = np.random.default_rng([args.seed, number])
        moments = disturbed(command, recipe, seconds, args.kills, rng)
        wrong = differences(expected, digests(recipe))
        print(json.dumps({"run": number, "killed at": moments, "differ": wrong}), flush=True)
        if wrong:
            print(f"see {recipe}, and what it should hold in {recipe.with_name('undisturbed')}")
            return 1
        clear(recipe)
        number += 1
    shutil.rmtree(folder)
    return 0


if __name__ == "__main__":
    sys.exit(main())
