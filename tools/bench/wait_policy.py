"""What waiting threads cost: training, decoding and loading with threads that sleep or spin.

GNU's OpenMP, which PyTorch for CPUs uses, reads from its environment how long a thread that waits
for the others spins before it sleeps: never with OMP_WAIT_POLICY=PASSIVE, for so many turns with
GOMP_SPINCOUNT, for 300,000 where neither is set. Each setting runs in a process of its own, the
settings in turns, alone and beside one process that keeps a core busy; so the machine must be idle.
egs/TEMPLATE/avsr1/path.sh chooses the recipes' setting by these tables.
"""

import argparse
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, nullcontext
from itertools import batched, islice
from pathlib import Path

import torch
from sets import add_set_arguments, open_set
from timing import machine
from torch.utils.data import DataLoader

from mome.llm.beam import beam_search
from mome.models.avsr import AVSRModel
from mome.tasks.avsr import AVSRTask, load_model
from mome.tasks.data_folders import STREAMS

VARIABLES = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT")
SETTINGS = {
    "OMP_WAIT_POLICY=PASSIVE": {"OMP_WAIT_POLICY": "PASSIVE"},
    "GOMP_SPINCOUNT=300": {"GOMP_SPINCOUNT": "300"},
    "GOMP_SPINCOUNT=1000": {"GOMP_SPINCOUNT": "1000"},
    "neither": {},
}


def batches(args: argparse.Namespace, training: argparse.Namespace) -> Iterable:
    """The set's batches, read by one worker as the recipes do."""
    decodes = args.inside == "decoding"
    streams = ("speech", "lips") if decodes else STREAMS
    dataset, names = open_set(args, training, streams, train=not decodes)
    return DataLoader(
        dataset,
        batch_sampler=[list(batch) for batch in batched(names, args.batch_size)],
        collate_fn=AVSRTask.build_collate_fn(training, train=not decodes),
        num_workers=1,
    )


def train(model: AVSRModel, loader: Iterable) -> Iterator[None]:
    """A training step of each batch, of the rate pairs that the configuration draws."""
    model.train()
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=1e-6, fused=True)
    for _, batch in loader:
        optimizer.zero_grad()
        model(**batch)[0].backward()
        optimizer.step()
        yield


@torch.inference_mode()
def decode(model: AVSRModel, loader: Iterable) -> Iterator[None]:
    """A greedy search of each batch at all rate pairs."""
    model.eval()
    for _, batch in loader:
        nodes, branches = model.prompts(model.encode(**batch), model.task_pairs)
        lm, eos_id = model.decoder.lm.inner, model.decoder.eos_id
        beam_search(lm, nodes, branches, beam=1, max_new_tokens=32, eos_id=eos_id)
        yield


def load(_: AVSRModel, loader: Iterable) -> Iterator[None]:
    """Nothing but reading the batches."""
    for _ in loader:
        yield


JOBS = {"training": train, "decoding": decode, "loading": load}


def measure(args: argparse.Namespace) -> float:
    """Median seconds of a batch in this process, the first left out."""
    files = args.exp / "config.yaml", args.exp / args.weights
    # A model that is made ready for inference cannot be trained.
    build = AVSRTask.build_model_from_file if args.inside == "training" else load_model
    model, training = build(*files, "cpu")
    steps = JOBS[args.inside](model, batches(args, training))
    next(steps)
    times = []
    started = time.perf_counter()
    for _ in islice(steps, args.steps):
        times.append(time.perf_counter() - started)
        started = time.perf_counter()
    return statistics.median(times)


def timed(setting: dict[str, str], job: str) -> float:
    """Seconds of a batch in a new process."""
    env = {name: value for name, value in os.environ.items() if name not in VARIABLES} | setting
    command = [sys.executable, *sys.argv, "--inside", job]
    done = subprocess.run(command, env=env, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{' '.join(command)} failed:\n{done.stderr}")
    return float(done.stdout.split()[-1])


@contextmanager
def busy() -> Iterator[None]:
    """Keep one core busy inside the context."""
    process = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    try:
        yield
    finally:
        process.kill()
        process.wait()


def main() -> None:
    """Print a table for each job."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--exp", type=Path, default=Path("exp/mome"), help="a trained model")
    parser.add_argument(
        "--weights", default="valid.acc.best.pth", help="in --exp; default: %(default)s"
    )
    add_set_arguments(parser, utterances=100)
    parser.add_argument("--steps", type=int, default=6, help="batches of a process")
    parser.add_argument("--repetitions", type=int, default=3, help="processes for each setting")
    parser.add_argument("--inside", choices=JOBS, help="print the time of this process only")
    parser.set_defaults(batch_size=8)
    args = parser.parse_args()
    if args.inside:
        print(measure(args))
        return
    print(f"{machine()}; load before: {os.getloadavg()[0]:.1f}")
    for job in JOBS:
        times: dict[tuple[str, str], list[float]] = {}
        for where, context in (("alone", nullcontext), ("beside a busy process", busy)):
            with context():
                for _ in range(args.repetitions):
                    for name, setting in SETTINGS.items():
                        times.setdefault((name, where), []).append(timed(setting, job))
        print(f"\n| {job}, median ms of a batch | alone | beside a busy process |")
        print("| --- | ---: | ---: |")
        for name in SETTINGS:
            alone, beside = (
                f"{1000 * statistics.median(times[name, where]):.0f}"
                for where in ("alone", "beside a busy process")
            )
            print(f"| {name} | {alone} | {beside} |", flush=True)


if __name__ == "__main__":
    main()
