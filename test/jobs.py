"""Work for the processes of test_processes.py, which import what a function's module imports."""

import fcntl
import os
import signal
import time
from pathlib import Path

from mome.common.processes import THREADS


def square_but(number: int, bad: int | None = None) -> tuple[int, int]:
    """Square, except of one number; and the process that did it."""
    if number == bad:
        raise ValueError("cannot square this")
    return number * number, os.getpid()


def square_or_crash(number: int, bad: tuple[int, ...]) -> int:
    """Square; the process ends by a segmentation fault for some numbers."""
    if number in bad:
        os.kill(os.getpid(), signal.SIGSEGV)
    return number * number


def square_if_alone(number: int, memory: Path) -> int:
    """Square; the process is killed if another one works, as where the memory is enough for one."""
    with open(memory, "a") as taken:
        try:
            fcntl.flock(taken, fcntl.LOCK_EX | fcntl.LOCK_NB)  # released also by who is killed
        except BlockingIOError:
            os.kill(os.getpid(), signal.SIGKILL)
        time.sleep(1)
    return number * number


def threads_of(_: int) -> tuple[list[str | None], int]:
    """What libraries are told in this process, and how many threads one of them has."""
    import torch  # after the variables are set, as what a worker computes with is

    return [os.environ.get(name) for name in THREADS], torch.get_num_threads()
