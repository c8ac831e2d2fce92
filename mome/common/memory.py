"""Memory: what is free goes back to the system, and a lack of it is said with its utterances."""

import ctypes
import errno
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

# What says that there is no memory left: PyTorch's allocator of a GPU, that of the machine, the
# driver, and the libraries that allocate for themselves.
SIGNS = (
    "out of memory",
    "can't allocate memory",
    "Caught MemoryError",  # of NumPy, in a process of the data loader
    "Cannot allocate memory",  # the system, by whatever library
    "Insufficient memory",  # OpenCV
    "CUBLAS_STATUS_ALLOC_FAILED",
    "CUDNN_STATUS_ALLOC_FAILED",
)
# What is in those of a GPU.
OF_GPUS = ("CUDA", "CUBLAS", "CUDNN")
# What PyTorch says of a data loader's process that the system has killed.
KILLED = "is killed by signal: Killed"
# Against a lack of it where a model is loaded.
WHERE_LOADED = "end what else uses it, or take another device or machine"

# Bytes of a file that any machine has the memory for.
SMALL = 1 << 26


class OutOfMemory(MemoryError):
    """Memory does not suffice; the message says at what, and what helps."""


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


def lacks_memory(error: BaseException) -> bool:
    """Whether an error is one of a GPU or of the machine that has no memory left."""
    known = isinstance(error, MemoryError) or getattr(error, "errno", None) == errno.ENOMEM
    return known or any(sign in str(error) for sign in SIGNS) or is_of_killed(error)


def lacks_memory_for(error: BaseException, path: Path) -> bool:
    """Whether there is no memory left for what a file holds, by an error that reading it raised.

    Of a small file such an error tells that it is damaged: a number in it asks for too much. Not so
    one of a GPU, whose memory others may have taken.
    """
    if not lacks_memory(error):
        return False
    return any(sign in str(error) for sign in OF_GPUS) or path.stat().st_size > SMALL


def is_of_killed(error: BaseException) -> bool:
    """Whether an error is of a data loader's process that the system has killed, as for memory.

    Where the loader was waiting for it, that is the cause of another error.
    """
    return KILLED in str(error) or KILLED in str(error.__cause__)


def naming_work(work: Callable[[], str], remedy: str) -> AbstractContextManager[None]:
    """Say at what work memory does not suffice, inside the context.

    Args:
        work: gives what was done, such as ``a.zip was loaded``.
        remedy: what helps, for the message.

    Raises:
        OutOfMemory: in the place of whatever error says that there is none left, unless it is of
            a context inside, which knows more.
    """
    return _explaining(lambda _: f"out of memory while {work()}: {remedy}")


def naming_utterances(
    utterances: Callable[[], Sequence[str]], remedy: str
) -> AbstractContextManager[None]:
    """Say at which utterances memory does not suffice, inside the context.

    Args:
        utterances: gives those of the batch that was read last.
        remedy: what helps, for the message.

    Raises:
        OutOfMemory: as of `naming_work`.
    """

    def message(error: Exception) -> str:
        names = ", ".join(utterances())
        if is_of_killed(error):
            return (
                f"a process that reads clips was killed, as the system does when out of memory,"
                f" soon after the utterances {names}: lower num_workers, or {remedy}"
            )
        return f"out of memory with the utterances {names}: {remedy}"

    return _explaining(message)


def naming_batch(utterances: Sequence[str], remedy: str = "") -> AbstractContextManager[None]:
    """As `naming_utterances`, of a batch of a set; ``remedy`` is what helps first."""
    further = "leave longer clips out of the set, or use another --device"
    return naming_utterances(lambda: utterances, f"{remedy}, {further}" if remedy else further)


@contextmanager
def _explaining(message: Callable[[Exception], str]) -> Iterator[None]:
    try:
        yield
    except Exception as error:
        if isinstance(error, OutOfMemory) or not lacks_memory(error):
            raise
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise OutOfMemory(f"{message(error)} ({reason})") from error
