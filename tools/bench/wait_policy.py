"""What waiting threads cost: training by sleeping and by spinning OpenMP threads.

Steps of a small network are timed in processes of their own, under OMP_WAIT_POLICY=PASSIVE and
ACTIVE and without the variable, alone and beside one process that keeps a core busy. The policies
take turns. egs/TEMPLATE/avsr1/path.sh sets PASSIVE for the second table's sake; the first one says
what that costs where nothing else runs, so the machine must be idle.
"""

import argparse
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

import torch
from timing import machine
from torch import nn

POLICIES = ("PASSIVE", "ACTIVE", "")


def steps(count: int, width: int) -> float:
    """Seconds of a training step, the median of some: many small products, as an adapter's."""
    torch.manual_seed(0)
    layers = [nn.Sequential(nn.Linear(width, width), nn.GELU()) for _ in range(12)]
    model = nn.Sequential(*layers)
    optimizer = torch.optim.AdamW(model.parameters())
    tokens = torch.randn(64, width)
    times = []
    for _ in range(count):
        started = time.perf_counter()
        optimizer.zero_grad()
        model(tokens).square().mean().backward()
        optimizer.step()
        times.append(time.perf_counter() - started)
    return statistics.median(times)


def timed(policy: str, args: argparse.Namespace) -> float:
    """Seconds of a step in a new process."""
    env = {name: value for name, value in os.environ.items() if name != "OMP_WAIT_POLICY"}
    if policy:
        env["OMP_WAIT_POLICY"] = policy
    command = [sys.executable, __file__, "--inside", "true", "--steps", str(args.steps)]
    command += ["--width", str(args.width)]
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=True)
    return float(done.stdout)


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
    """Print a table alone and one beside a busy process."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=100, help="of a process")
    parser.add_argument(
        "--width", type=int, default=576, help="of the network's layers; default: %(default)s"
    )
    parser.add_argument("--repetitions", type=int, default=5, help="processes for each policy")
    parser.add_argument("--inside", choices=("true", "false"), default="false", help="one process")
    args = parser.parse_args()
    if args.inside == "true":
        print(steps(args.steps, args.width))
        return
    print(f"{machine()}; load before: {os.getloadavg()[0]:.1f}")
    for where, context in (("alone", nullcontext), ("beside a busy process", busy)):
        times: dict[str, list[float]] = {policy: [] for policy in POLICIES}
        with context():
            for _ in range(args.repetitions):
                for policy in POLICIES:
                    times[policy].append(timed(policy, args))
        print(f"\n| {where} | median ms of a step | times PASSIVE |\n| --- | ---: | ---: |")
        for policy, values in times.items():
            pairs = zip(values, times["PASSIVE"], strict=True)
            ratio = statistics.median(value / passive for value, passive in pairs)
            milliseconds = 1000 * statistics.median(values)
            print(f"| {policy or 'not set'} | {milliseconds:.1f} | {ratio:.2f} |")


if __name__ == "__main__":
    main()
