"""Time variants of the same work side by side."""

import contextlib
import inspect
import statistics
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from tqdm import trange


def seconds(variants: dict[str, Callable[[], object]], repetitions: int) -> dict[str, list[float]]:
    """Seconds of each variant, taken in turns so that all meet the same state of the machine.

    Args:
        variants: what to run, by name; each is run once before the clock starts.
        repetitions: rounds that are timed.
    """
    for run in variants.values():
        run()
    times = {name: [] for name in variants}
    for _ in trange(repetitions, desc="rounds", leave=False, mininterval=10):
        for name, run in variants.items():
            synchronize()
            started = time.perf_counter()
            run()
            synchronize()
            times[name].append(time.perf_counter() - started)
    return times


@contextlib.contextmanager
def clocks(parts: dict[str, list[tuple[Any, str]]]) -> Iterator[dict[str, float]]:
    """Time parts of a program while it runs: part -> seconds, those of all threads together.

    Args:
        parts: part -> functions, as the module or class that holds them and their name. A call
            inside another one of its thread counts for its own part only. Of a generator, what it
            does counts.
    """
    spent: dict[str, float] = defaultdict(float)
    adding = threading.Lock()
    own = threading.local()  # of each thread: the parts that it is in, and since when it counts

    def switch() -> None:
        now = time.perf_counter()
        if own.running:
            with adding:
                spent[own.running[-1]] += now - own.last
        own.last = now

    def call(part: str, function: Callable, *args, **kwargs):
        own.running = getattr(own, "running", [])
        switch()
        own.running.append(part)
        try:
            return function(*args, **kwargs)
        finally:
            switch()
            own.running.pop()

    def steps(part: str, generator: Iterator) -> Iterator:
        end = object()
        while (item := call(part, next, generator, end)) is not end:
            yield item

    def timed(part: str, function: Callable) -> Callable:
        def run(*args, **kwargs):
            result = call(part, function, *args, **kwargs)
            return steps(part, result) if inspect.isgenerator(result) else result

        return run

    with contextlib.ExitStack() as stack:
        for part, places in parts.items():
            for owner, name in places:
                stack.enter_context(
                    mock.patch.object(owner, name, timed(part, getattr(owner, name)))
                )
        yield spent


def synchronize() -> None:
    """Wait for the GPU, if there is one."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def ratio(times: dict[str, list[float]], name: str, base: str) -> float:
    """Median over rounds of the time of ``name`` as a multiple of that of ``base``."""
    return statistics.median(a / b for a, b in zip(times[name], times[base], strict=True))


def table(times: dict[str, list[float]], base: str) -> str:
    """Markdown: median milliseconds and ratio to ``base`` of each variant."""
    lines = [f"| variant | median ms | times {base} |", "| --- | ---: | ---: |"]
    for name, values in times.items():
        milliseconds = 1000 * statistics.median(values)
        lines.append(f"| {name} | {milliseconds:.1f} | {ratio(times, name, base):.3f} |")
    return "\n".join(lines)


def attainable(dtype: torch.dtype, device: str) -> tuple[float, float]:
    """What the machine gives to a large matrix product, TFLOP/s, and to reading memory, GB/s."""
    side = 8192 if device == "cuda" else 2048
    a, b = (torch.randn(side, side, dtype=dtype, device=device) for _ in range(2))
    block = torch.zeros(2**28, dtype=torch.uint8, device=device)
    target = torch.empty_like(block)
    times = seconds({"product": lambda: a @ b, "copy": lambda: target.copy_(block)}, 5)
    product, copy = (statistics.median(times[name]) for name in ("product", "copy"))
    return 2e-12 * side**3 / product, 2e-9 * block.numel() / copy


def machine() -> str:
    """The processor or GPU that the figures are of."""
    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    names = {
        line.split(":", 1)[1].strip()
        for line in Path("/proc/cpuinfo").read_text().splitlines()
        if line.startswith("model name")
    }
    kinds = [k for k in ("amx_bf16", "avx512_bf16", "avx2") if torch.cpu.get_capabilities().get(k)]
    return f"{', '.join(names)} ({', '.join(kinds)}), {torch.get_num_threads()} threads"
