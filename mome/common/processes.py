"""Map a function over items: with a pool of processes on this machine, or on a Dask cluster."""

import logging
import multiprocessing
import os
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ProcessPoolExecutor, ThreadPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager, suppress
from functools import cache, partial
from pathlib import Path
from typing import Any

from mome.common.extras import extra
from mome.common.progress import Bar
from mome.common.yaml_files import read_yaml

# How many threads libraries start, which they read when they are imported.
THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


# Items of a cluster whose workers have ended, above which they may not be more than those done.
MANY = 16
# Seconds after which a cluster that had workers, and has none at work, is given up.
LOST = 600.0
CRASHED = "its process crashed or was killed, also when it had no other work"


class WorkerError(RuntimeError):
    """A function failed in a worker process; the message names the item."""


class SystemFailed(WorkerError, OSError):
    """What the system refused a worker process, such as space on a disk."""


class AllCrash(SystemFailed):
    """Processes crash whatever item they are given: this machine is to blame, not the items."""


def default_jobs() -> int:
    """Number of cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def map_items[Item, Result](
    function: Callable[[Item], Result],
    items: Iterable[Item],
    nj: int = 1,
    desc: str = "",
    cluster: str | Path | None = None,
    crashed: Callable[[Item, str], Result] | None = None,
    control: Callable[[], Item | None] | None = None,
) -> list[Result]:
    """Apply ``function`` to each item in ``nj`` processes or on a cluster, with a progress bar.

    Args:
        function: picklable (a function of a module, or ``functools.partial`` of one).
        items: picklable arguments, one for each call.
        nj: number of processes; 1 runs in this process, unless ``crashed`` is given.
        desc: name of the work, for the progress bar and for errors.
        cluster: YAML file of a Dask cluster in the format of ``espnet3.parallel``, whose
            ``n_workers`` then stands for ``nj``. Function, files and Python must be found at the
            same paths there.
        crashed: gives the result of an item whose worker ends without an exception, as by a fault
            of a decoder, from the item and the reason; an error if it is not given. With it, one
            item or one job has a process of its own as well, and does not end this one. Where one
            does, the function is called once more with an item that did not, if there is one.
        control: gives another item for that, with which the function has something to do, or None.

    Returns:
        The results, in the order of ``items``.

    Raises:
        WorkerError: if a call raises an error, or ends its process; the message names the item,
            and the calls that have not started are cancelled. With ``crashed`` it is `AllCrash`,
            if every process ends so.
        ModuleNotFoundError: if a cluster is asked for and ESPnet is not installed.
        RuntimeError: if it is, but Dask is not.
        ValueError: if nj is less than 1, or the cluster's file is no YAML.
    """
    items = list(items)
    if nj < 1:
        raise ValueError(f"nj={nj}: at least one job is needed")
    if cluster and items:
        return _map_on_cluster(function, items, desc, cluster, crashed, control)
    if not items or (crashed is None and (nj == 1 or len(items) == 1)):
        return [_call(function, item, desc) for item in _progress(items, desc, len(items))]
    with one_thread_each():
        return _map_in_pools(function, items, nj, desc, crashed, control)


def _map_in_pools[Item, Result](
    function: Callable[[Item], Result],
    items: list[Item],
    nj: int,
    desc: str,
    crashed: Callable[[Item, str], Result] | None,
    control: Callable[[], Item | None] | None,
) -> list[Result]:
    """The results of a pool of processes, and of further ones after each crash.

    A pool does not tell which item has ended its worker. Items begin in their order, so it is one
    of the first without a result: the ``nj`` that ran, and perhaps as many before them whose
    results were lost with the pool. These are done in processes of their own, as many at a time
    as before, and those that end so once more one after the other: what several need together may
    be more memory than there is, and what one needs is not. Where one does, another item tells
    whether the machine is to blame, as for lack of a library.
    """
    results: dict[int, Result] = {}
    guilty: set[int] = set()
    with _progress_bar(desc, len(items)) as bar:

        def add(place: int, result: Result) -> None:
            results[place] = result
            bar.update()

        def alone(place: int) -> bool:
            _run_pool(function, items, [place], 1, desc, add)
            return place in results

        while left := _without(results, len(items)):
            _run_pool(function, items, left, nj, desc, add)
            remaining = _without(results, len(items))
            suspects = remaining[: 2 * max(nj, 2)]
            if not suspects:
                break
            logging.warning(
                "%s: a worker crashed or was killed; the %d items that it may have been at are done"
                " again, each in a process of its own",
                *(desc or "job", len(suspects)),
            )
            with ThreadPoolExecutor(nj) as threads:
                survived = list(threads.map(alone, suspects))
            died = [p for p, alive in zip(suspects, survived, strict=True) if not alive]
            culprits = [place for place in died if not alone(place)]
            if not culprits:
                continue
            if crashed is None:
                raise _failure(desc, items[culprits[0]], BrokenProcessPool(CRASHED))
            survivors = [place for place in results if place not in guilty]
            others = [items[place] for place in survivors or remaining[len(suspects) :]]
            survives = partial(_survives, function, desc)
            _acquit_machine(desc, [items[p] for p in culprits], others, control, survives)
            guilty.update(culprits)
            for place in culprits:
                add(place, crashed(items[place], CRASHED))
    return [results[place] for place in range(len(items))]


def _acquit_machine[Item](
    desc: str,
    culprits: list[Item],
    others: list[Item],
    control: Callable[[], Item | None] | None,
    survives: Callable[[Item], bool],
) -> None:
    """See that not every process crashes, but that with another item one comes to an end.

    Args:
        desc: name of the work.
        culprits: items that have crashed theirs.
        others: items that have not, or were not tried.
        control: as of `map_items`.
        survives: whether a process comes to an end with an item.

    Raises:
        AllCrash: if it does not, or there is no other item.
    """
    item = control() if control else None
    if item is None and others:
        item = others[-1]
    if item is None or not survives(item):
        also = "" if item is None else " and with another one"
        raise AllCrash(
            f"{desc or 'job'}: every process crashes or is killed, with {len(culprits)} item(s)"
            f"{also}: rather than they it is this machine, such as a library that is damaged or"
            f" missing, or too little memory. The first of them is {_shown(culprits[0])}"
        )


def _survives[Item](function: Callable[[Item], object], desc: str, item: Item) -> bool:
    """Whether a process comes to an end with an item, be it by an exception."""
    done: list[int] = []
    try:
        _run_pool(function, [item], [0], 1, desc, lambda place, _: done.append(place))
    except WorkerError:
        return True
    return bool(done)


def _without(results: Mapping[int, object], count: int) -> list[int]:
    return [place for place in range(count) if place not in results]


def _run_pool[Item, Result](
    function: Callable[[Item], Result],
    items: list[Item],
    places: list[int],
    nj: int,
    desc: str,
    add: Callable[[int, Result], None],
) -> None:
    """Do some items in processes, until one of these crashes; ``add`` takes place and result."""
    # Forking a process that runs threads (OpenMP, BLAS, FFmpeg) may hang it: spawn the workers.
    with ProcessPoolExecutor(
        min(nj, len(places)),
        mp_context=multiprocessing.get_context("spawn"),
        initializer=_start_worker,
    ) as pool:
        futures: dict[Future[Result], int] = {}
        try:
            with suppress(BrokenProcessPool):  # a crash before all are submitted
                for place in places:
                    futures[pool.submit(function, items[place])] = place
            for future in as_completed(futures):
                error = future.exception()
                if error is None:
                    add(futures[future], future.result())
                elif not isinstance(error, BrokenProcessPool):
                    raise _failure(desc, items[futures[future]], error) from error
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _map_on_cluster[Item, Result](
    function: Callable[[Item], Result],
    items: list[Item],
    desc: str,
    cluster: str | Path,
    crashed: Callable[[Item, str], Result] | None,
    control: Callable[[], Item | None] | None,
) -> list[Result]:
    """The results of a cluster.

    Dask gives a task up whose workers have died several times, with all that waited on them. Those
    are done once more one after the other, so that none is blamed for another.
    """
    client = _client(str(cluster))  # says what to install if Dask is missing
    work = partial(_one_thread, function)
    futures = client.map(work, items, pure=False, key=desc or "job", batch_size=1000)
    try:
        results, killed = _gather(client, futures, items, desc, crashed is not None)

        def alone(item: Item) -> dict[int, Result]:
            """Its result, if its worker does not end."""
            future = [client.submit(work, item, pure=False)]
            return _gather(client, future, [item], desc, go_on=True)[0]

        def survives(item: Item) -> bool:
            try:
                return bool(alone(item))
            except WorkerError:
                return True

        guilty = []
        for place in killed:
            if found := alone(items[place]):
                results[place] = found[0]
            else:
                guilty.append(items[place])
        if guilty and crashed:
            others = [items[place] for place in results]
            _acquit_machine(desc, guilty, others, control, survives)
            for place in _without(results, len(items)):
                results[place] = crashed(items[place], CRASHED)
        return [results[place] for place in range(len(items))]
    except BaseException:
        client.cancel(futures)
        raise


@cache
def _client(cluster: str) -> Any:
    """Dask's client of a cluster, which is started once and ends with this process."""
    with extra():
        from espnet3.parallel.parallel import build_client  # imports torch; pools do not need it
    from omegaconf import OmegaConf

    return build_client(OmegaConf.create(read_yaml(cluster)))


def _finished(client: Any, futures: list, desc: str) -> Iterator[Any]:
    """Futures as they are finished.

    Raises:
        SystemFailed: if a cluster that had workers has none at work for ``LOST`` seconds: workers
            that end may not come back, and Dask would wait for ever.
    """
    from distributed import as_completed

    waiting = as_completed(futures)
    had_workers, worked, looked = False, time.monotonic(), 0.0
    while not waiting.is_empty():
        if batch := waiting.next_batch(block=False):
            yield from batch
            worked = time.monotonic()
            continue
        time.sleep(0.05)
        if time.monotonic() - looked < LOST / 60:
            continue
        looked = time.monotonic()
        had_workers = had_workers or bool(client.nthreads())
        if not had_workers or any(client.processing().values()):
            worked = looked
        elif looked - worked > LOST:
            raise SystemFailed(
                f"{desc or 'job'}: {waiting.count()} items are left, and no worker of the cluster"
                f" has been at work for {LOST:g} s: they have ended. Their logs may say why; the"
                f" same command goes on"
            )


def _gather(
    client: Any, futures: list, items: list, desc: str, go_on: bool
) -> tuple[dict[int, Any], list[int]]:
    """The results by the items' places; raises the error of the first future that fails.

    With ``go_on`` items whose workers have ended are no error, unless these are most: then there is
    more to it than the items. Their places are the second value.
    """
    from distributed import KilledWorker

    places = {future: place for place, future in enumerate(futures)}
    results: dict[int, Any] = {}
    killed: list[int] = []
    for future in _progress(_finished(client, futures, desc), desc, len(futures)):
        place = places[future]
        error = future.exception()
        if error is None:
            try:
                results[place] = future.result()
                continue
            except KilledWorker as lost:  # with its worker, and again where it was done once more
                error = lost
        if not (go_on and isinstance(error, KilledWorker)):
            raise _failure(desc, items[place], error) from error
        killed.append(place)
        if len(killed) > max(MANY, len(results)):
            raise _failure(desc, items[place], error) from error
    return results, killed


def _progress[Item](iterable: Iterable[Item], desc: str, total: int) -> Iterable[Item]:
    return _progress_bar(desc, total, iterable)


def _progress_bar(desc: str, total: int, iterable: Iterable | None = None) -> Bar:
    return Bar(iterable, desc=desc, total=total, disable=total == 0)


def _call[Item, Result](function: Callable[[Item], Result], item: Item, desc: str) -> Result:
    try:
        return function(item)
    except Exception as error:
        raise _failure(desc, item, error) from error


def _failure(desc: str, item: object, error: BaseException) -> WorkerError:
    kind = SystemFailed if isinstance(error, OSError) else WorkerError
    return kind(f"{desc or 'job'}: {_shown(item)}: {type(error).__name__}: {error}")


def _shown(item: object) -> str:
    shown = repr(item)
    return shown if len(shown) <= 500 else shown[:500] + "..."


@contextmanager
def one_thread_each() -> Iterator[None]:
    """Let processes that are started inside the context compute in one thread each."""
    before = {name: os.environ.get(name) for name in THREADS}
    os.environ.update(dict.fromkeys(THREADS, "1"))
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


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
