"""Memory: what is free goes back to the system, and a lack of it is said with its utterances."""

import ctypes
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch

# PyTorch has a type for what its own allocator of a GPU cannot have. These are what other parts
# say: the machine's allocator, the driver, and the libraries that allocate for themselves.
SIGNS = (
    "can't allocate memory",
    "Caught MemoryError",  # of NumPy, in a process of the data loader
    "CUDA error: out of memory",
    "CUBLAS_STATUS_ALLOC_FAILED",
    "CUDNN_STATUS_ALLOC_FAILED",
)
# What PyTorch says of a data loader's process that the system has killed.
KILLED = "is killed by signal: Killed"


def release_free_memory() -> None:
    """Give the system back what was freed, which glibc keeps.

    Blocks of some megabytes lie on its heap once larger ones were freed, and whatever small block
    comes to lie behind them keeps them from being given back: a long run of batches of different
    sizes grows without end. It takes some 10 ms. Elsewhere than with glibc nothing is done.
    """
    if sys.platform == "linux":
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # musl has none
        if trim is not None:
            trim(0)


def lacks_memory(error: Exception) -> bool:
    """Whether an error is one of a GPU or of the machine that has no memory left."""
    known = isinstance(error, torch.OutOfMemoryError | MemoryError)
    return known or any(sign in str(error) for sign in SIGNS) or is_of_killed(error)


def is_of_killed(error: BaseException) -> bool:
    """Whether an error is of a data loader's process that the system has killed, as for memory.

    Where the loader was waiting for it, that is the cause of another error.
    """
    return KILLED in str(error) or KILLED in str(error.__cause__)


@contextmanager
def naming_utterances(utterances: Callable[[], Sequence[str]], remedy: str) -> Iterator[None]:
    """Say at which utterances memory does not suffice, inside the context.

    Args:
        utterances: gives those of the batch that was read last.
        remedy: what helps, for the message.

    Raises:
        MemoryError: in the place of whatever error says that there is none left.
    """
    try:
        yield
    except (RuntimeError, MemoryError) as error:  # CUDA's OutOfMemoryError is a RuntimeError
        if not lacks_memory(error):
            raise
        names = ", ".join(utterances())
        message = f"out of memory with the utterances {names}: {remedy}"
        if is_of_killed(error):
            message = (
                f"a process that reads clips was killed, as the system does for lack of memory,"
                f" soon after the utterances {names}: lower num_workers, or {remedy}"
            )
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise MemoryError(f"{message} ({reason})") from error
