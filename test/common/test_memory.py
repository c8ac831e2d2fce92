"""Running out of memory names the utterances, whatever reports it."""

import errno
import os
import platform
import signal
import subprocess
import sys

import cv2
import numpy as np
import pytest
import torch
from safetensors import SafetensorError
from torch.utils.data import DataLoader

from mome.common.command import in_one_line
from mome.common.memory import lacks_memory, lacks_memory_for, naming_utterances, naming_work


def of_machine():
    torch.empty(2**55)


def of_numpy():
    np.empty(2**55)


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
        RuntimeError("CUDA error: out of memory\nCUDA kernel errors might be asynchronously"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
        MemoryError(),
        OSError(errno.ENOMEM, "..."),
        SafetensorError("Error while deserializing: Cannot allocate memory (os error 12)"),
        cv2.error(
            "OpenCV(4.10.0) alloc.cpp:73: error: (-4:Insufficient memory) Failed to allocate"
        ),
        of_machine,
        of_numpy,
    ],
)
def test_a_lack_of_memory_is_told_whoever_reports_it(error):
    def fail():
        with naming_utterances(lambda: ["a_1", "a_2"], "read less"):
            if isinstance(error, Exception):
                raise error
            error()

    with pytest.raises(MemoryError, match=r"out of memory with the utterances a_1, a_2: read less"):
        fail()


def test_other_errors_are_left_alone():
    assert not lacks_memory(RuntimeError("CUDA error: device-side assert triggered"))
    with (
        pytest.raises(RuntimeError, match=r"^something else$"),
        naming_utterances(lambda: ["a_1"], "read less"),
    ):
        raise RuntimeError("something else")


def test_the_innermost_context_tells():
    with (
        pytest.raises(MemoryError, match=r"^out of memory with the utterances a_1: read less \("),
        naming_work(lambda: "all was read", "close something"),
        naming_utterances(lambda: ["a_1"], "read less"),
    ):
        of_numpy()


def test_a_small_file_that_asks_for_too_much_is_damaged(tmp_path):
    (tmp_path / "small").touch()
    with open(tmp_path / "large", "wb") as file:
        file.truncate(1 << 30)  # takes no room on the disk
    error = RuntimeError("can't allocate memory: you tried to allocate 4294967295 bytes")
    assert not lacks_memory_for(error, tmp_path / "small")
    assert lacks_memory_for(error, tmp_path / "large")
    assert not lacks_memory_for(RuntimeError("no archive"), tmp_path / "large")
    # Of a file that is not there, reading it has said so.
    assert not lacks_memory_for(FileNotFoundError("none"), tmp_path / "none")
    taken = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 MiB.")
    assert lacks_memory_for(taken, tmp_path / "small")


def test_a_program_ends_with_one_line_wherever_it_lacks_memory():
    said = r"^mome-x: error: out of memory: end what .*can't allocate memory"
    with pytest.raises(SystemExit, match=said), in_one_line("mome-x"):
        of_machine()
    with (
        pytest.raises(SystemExit, match=r"^mome-x: error: out of memory with the utterances a_1"),
        in_one_line("mome-x"),
        naming_utterances(lambda: ["a_1"], "read less"),
    ):
        of_machine()
    with pytest.raises(RuntimeError, match=r"^something else$"), in_one_line("mome-x"):
        raise RuntimeError("something else")


class Killed(torch.utils.data.Dataset):
    """Clips, of which the system kills the process that reads the third."""

    def __len__(self):
        return 4

    def __getitem__(self, place):
        if place == 2:
            os.kill(os.getpid(), signal.SIGKILL)
        return place


def test_a_loader_that_the_system_kills_is_named_with_its_remedy():
    def read_all():
        read: list[str] = []
        with naming_utterances(lambda: read, "read less"):
            for batch in DataLoader(Killed(), num_workers=1, prefetch_factor=1):
                read = [str(place) for place in batch.tolist()]

    with pytest.raises(MemoryError, match=r"reads clips was killed.*: lower num_workers, or read"):
        read_all()


FRAGMENTED = """
import numpy as np
from mome.common.memory import release_free_memory

def megabytes():
    with open("/proc/self/status") as lines:
        return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS")) / 1024

np.empty(2**24, np.uint8)  # from now on smaller blocks are of the heap
before = megabytes()
large, small = [], []
for _ in range(200):
    large.append(np.ones(2**20, np.uint8))
    small.append(np.ones(2**15, np.uint8))  # larger than any gap that is there
del large
kept = megabytes() - before
release_free_memory()
print(kept, megabytes() - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc can be asked to")
def test_memory_that_is_free_goes_back_to_the_system():
    # Other settings of the allocator, as the recipes have them, may not keep it at all.
    env = {k: v for k, v in os.environ.items() if not k.startswith(("MALLOC_", "GLIBC_"))}
    said = subprocess.run(
        [sys.executable, "-c", FRAGMENTED], capture_output=True, text=True, check=True, env=env
    )
    kept, left = map(float, said.stdout.split())
    assert kept > 150
    assert left < 20
