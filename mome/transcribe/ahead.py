"""Read what comes next while what is there is worked on."""

from collections import deque
from collections.abc import Iterator
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from threading import Event
from types import TracebackType
from typing import Self, cast


class Ahead:
    """A thread that fetches the items of an iterator ahead.

    Decoding and finding faces let go of Python's lock while they compute, so that they run beside
    what is made of the items. At the end of a ``with`` statement, however it is left, the thread
    ends: with the item it is at, or when that calls :meth:`check`.

    Args:
        count: items that wait at any time, at most.
    """

    def __init__(self, count: int):
        self.count = count
        self.left = Event()
        self.thread = ThreadPoolExecutor(1, thread_name_prefix="ahead")

    def __enter__(self) -> Self:
        """The thread itself starts with the first item."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Stop what is being fetched, and wait until it has."""
        self.left.set()
        self.thread.shutdown(wait=True, cancel_futures=True)

    def check(self) -> None:
        """To be called now and then by what takes long: raises CancelledError if it is in vain."""
        if self.left.is_set():
            raise CancelledError

    def __call__[T](self, items: Iterator[T]) -> Iterator[T]:
        """The items, in order.

        Raises:
            whatever the iterator raises, after the items before that.
        """
        end = object()
        waiting: deque[Future[T | object]] = deque(
            self.thread.submit(next, items, end) for _ in range(self.count)
        )
        while (item := waiting.popleft().result()) is not end:
            waiting.append(self.thread.submit(next, items, end))
            yield cast(T, item)
