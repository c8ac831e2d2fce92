"""Map a function over items with a pool of processes on this machine."""

import multiprocessing
import os
import sys
import threading
from collections.abc import Callable, Iterable
from concurrent.futures import ProcessPoolExecutor, as_completed

from tqdm import tqdm


class WorkerError(RuntimeError):
    """A function failed in a worker process; the message names the item."""


def default_jobs() -> int:
    """Number of cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def map_items[Item, Result](
    function: Callable[[Item], Result],
    items: Iterable[Item],
    nj: int = 1,
    desc: str = "",
) -> list[Result]:
    """Apply ``function`` to each item in ``nj`` processes, with a progress bar.

    Args:
        function: picklable (a function of a module, or ``functools.partial`` of one).
        items: picklable arguments, one a call.
        nj: number of processes; 1 runs in this process.
        desc: name of the work, for the progress bar and for errors.

    Returns:
        The results, in the order of ``items``.

    Raises:
        WorkerError: when a call raises; names the item, and the rest is cancelled.
    """
    items = list(items)
    if nj < 1:
        raise ValueError(f"nj={nj}: at least one job is needed")
    if nj == 1 or len(items) < 2:
        return [_call(function, item, desc) for item in _progress(items, desc, len(items))]
    # Forking a process that runs threads (OpenMP, BLAS, FFmpeg) may hang it: spawn the workers.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(
        min(nj, len(items)), mp_context=context, initializer=_start_worker
    ) as pool:
        futures = [pool.submit(function, item) for item in items]
        try:
            for _ in _progress(_until_failure(futures), desc, len(futures)):
                pass
            for future, item in zip(futures, items, strict=True):
                if future.done() and not future.cancelled() and future.exception():
                    raise _failure(desc, item, future.exception()) from future.exception()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
        return [future.result() for future in futures]


def _progress(iterable, desc, total):
    # In a log file, a line every ten seconds.
    interval = 0.1 if sys.stderr.isatty() else 10
    return tqdm(iterable, desc=desc, total=total, disable=total == 0, mininterval=interval)


def _until_failure(futures):
    for future in as_completed(futures):
        if future.exception() is not None:
            return
        yield future


def _call(function, item, desc):
    try:
        return function(item)
    except Exception as error:
        raise _failure(desc, item, error) from error


def _failure(desc: str, item: object, error: BaseException) -> WorkerError:
    shown = repr(item)
    if len(shown) > 500:
        shown = shown[:500] + "..."
    return WorkerError(f"{desc or 'job'}: {shown}: {type(error).__name__}: {error}")


def _start_worker() -> None:
    """One thread a worker: nj says how many cores are used. It ends when its parent is killed."""
    parent = multiprocessing.parent_process()
    threading.Thread(target=lambda: (parent.join(), os._exit(1)), daemon=True).start()
    if "cv2" in sys.modules:
        sys.modules["cv2"].setNumThreads(1)
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(1)
