"""How long a new process waits for the package, as a multiple of what it waits for PyTorch.

Every import is timed in processes of its own, which take turns and are run once before, so that
files and compiled modules are there. The time is the processor's, user and system, which other
programs of the machine disturb less than the clock; the clock's stands beside it.
"""

import argparse
import os
import resource
import statistics
import subprocess
import sys
import time

STATEMENTS = {
    "PyTorch": "import torch",
    "MoME, attach": "import mome; mome.MoME; mome.attach",
    "and Transcriber": "import mome; mome.Transcriber; mome.MoME; mome.attach",
    "a model's parts": "import mome.tasks.build",
    "ESPnet's trainer": "import mome.tasks.avsr",
    "mome-score": "import mome.bin.score",
}


def run(statement: str) -> tuple[float, float]:
    """Seconds of the processor and of the clock that a new Python takes for a statement."""
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    started = time.perf_counter()
    subprocess.run([sys.executable, "-c", statement], env=environment, check=True)
    clock = time.perf_counter() - started
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, clock


def main() -> None:
    """Print the table: medians, and the median over rounds of the ratio to PyTorch."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--repetitions", type=int, default=5, help="processes for each import; default: %(default)s"
    )
    args = parser.parse_args()
    for statement in STATEMENTS.values():
        run(statement)
    rounds = [
        {name: run(code) for name, code in STATEMENTS.items()} for _ in range(args.repetitions)
    ]
    print("| import | processor s | clock s | times PyTorch |\n| --- | ---: | ---: | ---: |")
    for name in STATEMENTS:
        processor, clock = (statistics.median(r[name][i] for r in rounds) for i in (0, 1))
        ratio = statistics.median(r[name][0] / r["PyTorch"][0] for r in rounds)
        print(f"| {name} | {processor:.1f} | {clock:.1f} | {ratio:.2f} |")


if __name__ == "__main__":
    main()
