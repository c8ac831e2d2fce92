"""Map a function over items: with a pool of processes on this machine, or on a Dask cluster."""

import multiprocessing
import os
import sys
import threading
from collections.abc import Callable, Iterable
from concurrent.futures import ProcessPoolExecutor, as_completed
from functools import cache, partial
from pathlib import Path
from typing import Any

from tqdm import tqdm

from mome.common.extras import extra


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
    cluster: str | Path | None = None,
) -> list[Result]:
    """Apply ``function`` to each item in ``nj`` processes or on a cluster, with a progress bar.

    Args:
        function: picklable (a function of a module, or ``functools.partial`` of one).
        items: picklable arguments, one for each call.
        nj: number of processes; 1 runs in this process.
        desc: name of the work, for the progress bar and for errors.
        cluster: YAML file of a Dask cluster in the format of ``espnet3.parallel``, whose
            ``n_workers`` then stands for ``nj``. Function, files and Python must be found at the
            same paths there.

    Returns:
        The results, in the order of ``items``.

    Raises:
        WorkerError: if a call raises an error; the message names the item, and the calls that have
            not started are cancelled.
        ModuleNotFoundError: if a cluster is asked for and ESPnet is not installed.
        RuntimeError: if it is, but Dask is not.
    """
    items = list(items)
    if nj < 1:
        raise ValueError(f"nj={nj}: at least one job is needed")
    if cluster and items:
        return _map_on_cluster(function, items, desc, cluster)
    if nj == 1 or len(items) < 2:
        return [_call(function, item, desc) for item in _progress(items, desc, len(items))]
    # Forking a process that runs threads (OpenMP, BLAS, FFmpeg) may hang it: spawn the workers.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(
        min(nj, len(items)), mp_context=context, initializer=_start_worker
    ) as pool:
        futures = [pool.submit(function, item) for item in items]
        try:
            return _gather(futures, as_completed(futures), items, desc)
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _map_on_cluster[Item, Result](
    function: Callable[[Item], Result], items: list[Item], desc: str, cluster: str | Path
) -> list[Result]:
    client = _client(str(cluster))  # says what to install if Dask is missing
    from distributed import as_completed as completed

    work = partial(_one_thread, function)
    futures = client.map(work, items, pure=False, key=desc or "job", batch_size=1000)
    try:
        return _gather(futures, completed(futures), items, desc)
    except BaseException:
        client.cancel(futures)
        raise


@cache
def _client(cluster: str) -> Any:
    """Dask's client of a cluster, which is started once and ends with this process."""
    with extra():
        from espnet3.parallel.parallel import build_client  # imports torch; pools do not need it
    from omegaconf import OmegaConf

    return build_client(OmegaConf.load(cluster))


def _gather(futures: list, completed: Iterable, items: list, desc: str) -> list:
    """The results in the order of the items; raises the error of the first future that fails."""
    places = {future: place for place, future in enumerate(futures)}
    results: list = [None] * len(futures)
    for future in _progress(completed, desc, len(futures)):
        place = places[future]
        if error := future.exception():
            raise _failure(desc, items[place], error) from error
        results[place] = future.result()
    return results


def _progress[Item](iterable: Iterable[Item], desc: str, total: int) -> Iterable[Item]:
    # In a log file every update is a line: write one every ten seconds only.
    interval = 0.1 if sys.stderr.isatty() else 10
    return tqdm(iterable, desc=desc, total=total, disable=total == 0, mininterval=interval)


def _call[Item, Result](function: Callable[[Item], Result], item: Item, desc: str) -> Result:
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
    """Initialise a worker: it computes in one thread and ends when its parent is killed."""
    parent = multiprocessing.parent_process()
    assert parent is not None, "only a worker process calls this"

    def end_with_parent() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=end_with_parent, daemon=True).start()
    _limit_threads()


def _one_thread[Item, Result](function: Callable[[Item], Result], item: Item) -> Result:
    _limit_threads()
    return function(item)


def _limit_threads() -> None:
    """Compute in one thread, so that the number of workers is the number of cores in use."""
    if "cv2" in sys.modules:
        sys.modules["cv2"].setNumThreads(1)
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(1)
