"""How far a run of a recipe is: the line that whatever takes long shows while it runs.

A recipe's driver says in the environment which part of the run a process does and how long is
expected of it and of what comes after it (:data:`PART`, :data:`SECONDS`, :data:`LATER`). With these
the line ends with the time that is left in all; without them it is that of the work at hand.
"""

import os
import sys
import time
import timeit
from collections.abc import Callable, Iterable
from typing import Any

from tqdm import tqdm

PART = "MOME_PART"  # what the run is at, such as "stage 2 of 6, lip regions and audio"
SECONDS = "MOME_PART_SECONDS"  # expected of this part
LATER = "MOME_LATER_SECONDS"  # expected of all parts after it
TERMINAL = "MOME_TERMINAL"  # true: what a process writes to a pipe ends on a terminal
LINE_EVERY = 10.0  # seconds between two lines of a file


class Pace:
    """Says how long a run will take from now on.

    Args:
        clock: gives seconds.
        environment: what the driver says; a part or a time that it does not know is left out.
    """

    def __init__(
        self,
        clock: Callable[[], float] = time.monotonic,
        environment: dict[str, str] | None = None,
    ):
        known = dict(os.environ if environment is None else environment)
        self.part = known.get(PART, "")
        self.expected = _seconds(known.get(SECONDS))
        self.later = _seconds(known.get(LATER))
        self.clock = clock
        self.begun = clock()
        self.first = 0.0

    def begin(self, share: float) -> None:
        """Work goes on after a share that was done at an earlier time."""
        self.begun, self.first = self.clock(), share

    def left(self, share: float) -> str:
        """The time left after a share (0 to 1) of the work, in words; empty if unknown.

        What was expected counts less the more is done, and what was measured more.
        """
        done = share - self.first
        measured = (self.clock() - self.begun) / done if done > 0 else None
        if measured is None:
            total = self.expected
        elif self.expected is None:
            total = measured
        else:
            total = share * measured + (1 - share) * self.expected
        if total is None:
            return ""
        seconds = max(0.0, 1 - share) * total
        if self.later is None and share >= 1:
            return ""
        if self.later is None:
            return f"about {in_words(seconds)} left of it"
        return f"about {in_words(seconds + self.later)} left in all"

    def line(self, what: str, share: float) -> str:
        """A line of progress: the part of the run, what of it is done, and the time left."""
        parts = [f"{self.part}: {what}" if self.part else what, self.left(share)]
        return ", ".join(part for part in parts if part)


def _seconds(text: str | None) -> float | None:
    return float(text) if text else None


def in_words(seconds: float) -> str:
    """A time as a person says it: ``40 s``, ``6 min``, ``2 h 05 min``."""
    if seconds < 55:
        return f"{max(5, 5 * round(seconds / 5))} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 100 else f"{minutes // 60} h {minutes % 60:02d} min"


class Bar(tqdm):
    """A progress bar that ends with the time left in all; takes tqdm's arguments.

    Where there is no terminal, it writes a line now and then.
    """

    disable: bool

    def __init__(self, iterable: Iterable | None = None, **options: Any):
        self.pace = Pace()
        self.rewrites = sys.stderr.isatty() or os.environ.get(TERMINAL) == "true"
        options.setdefault("mininterval", 0.1 if self.rewrites else LINE_EVERY)
        super().__init__(iterable, **options)

    def display(self, msg: str | None = None, pos: int | None = None) -> None:
        """Show how far the work is."""
        share = self.n / self.total if self.total else 0.0
        if self.rewrites:
            if self.pace.part:
                self.postfix = self.pace.left(share)
            super().display(msg, pos)
        elif self.n:
            what = " ".join(part for part in (self.desc.removesuffix(": "), f"{self.n}") if part)
            what += f" of {self.total}" if self.total else ""
            print(self.pace.line(what, share), file=sys.stderr, flush=True)

    def clear(self, nolock: bool = False) -> None:
        """Make room on a terminal for another line."""
        if self.rewrites:
            super().clear(nolock)

    def close(self) -> None:
        """Show the end of the work, once."""
        if self.rewrites or self.disable:
            super().close()
            return
        self.display()
        self.disable = True


def product_milliseconds() -> int:
    """What this machine takes for products of large matrices, to tell it from others.

    That is the mean of a product in float32, in which parts that are trained compute, and of one in
    the type that ``auto`` takes for frozen parts on its CPU: a run of a recipe takes about as long
    for the ones as for the others.
    """
    # Bars of other programs do not wait for these.
    import numpy as np
    import torch

    from mome.common.precision import built_for, compute_dtype

    with built_for("cpu"):
        dtype = compute_dtype("auto")
    trained, frozen = np.ones((1536, 1536), np.float32), torch.ones(1536, 1536, dtype=dtype)
    products: list[Callable[[], Any]] = [lambda: trained @ trained, lambda: frozen @ frozen]
    times = [min(timeit.repeat(product, number=2, repeat=5)) for product in products]
    return max(1, round(1000 * sum(times) / len(times)))


if __name__ == "__main__":
    print(product_milliseconds())
