"""Which floating-point type pretrained parts compute in."""

import timeit
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar
from functools import cache, partial

import torch
import torch.nn.functional as F

DTYPES = ("auto", "float32", "bfloat16", "float16")
_device: ContextVar[str | None] = ContextVar("device", default=None)


@contextmanager
def built_for(device: str | torch.device) -> Iterator[None]:
    """Let ``auto`` choose for this device inside the context, in which a model is built.

    A model is built in the machine's memory, wherever it computes later. A context inside another
    one changes nothing: who calls knows better than a training's configuration.
    """
    token = _device.set(_device.get() or torch.device(device).type)
    try:
        yield
    finally:
        _device.reset(token)


@cache
def has_fast_bfloat16(device: str) -> bool:
    """Whether ``cuda`` or ``cpu`` multiplies bfloat16 matrices clearly faster than float32 ones.

    A CPU without AVX512-BF16 and AMX has loops that take 9 times as long. One that has them is
    timed, for a fifth of a second at most, as the instructions do not tell: with AVX512-BF16 alone
    AMD EPYC takes 0.4 of the time of float32, and Intel Xeon (Emerald Rapids, whose AMX some clouds
    hide) 1.8 times as long.
    """
    if device == "cuda":
        return torch.cuda.is_available() and torch.cuda.is_bf16_supported(including_emulation=False)
    capabilities = torch.cpu.get_capabilities()
    if not any(capabilities.get(name, False) for name in ("avx512_bf16", "amx_bf16")):
        return False
    bfloat16, float32 = product_seconds(torch.bfloat16, torch.float32)
    # A clear margin, so that a busy machine does not choose now this and now that.
    return bfloat16 < 0.8 * float32


def product_seconds(*dtypes: torch.dtype) -> list[float]:
    """Shortest times of a product of two matrices of a small LLM's size on the CPU, by type.

    On a busy machine threads wait for each other, a short product longer than a long one. So one
    thread computes, and the types take turns.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with torch.inference_mode():
            products = [
                partial(F.linear, *(torch.ones(rows, 1024, dtype=dtype) for rows in (256, 1024)))
                for dtype in dtypes
            ]
            rounds = [[timeit.timeit(each, number=1) for each in products] for _ in range(9)]
    finally:
        torch.set_num_threads(threads)
    return [min(times) for times in zip(*rounds[1:], strict=True)]  # the first sets up code


def compute_dtype(name: str = "auto") -> torch.dtype:
    """The type called ``float32``, ``bfloat16`` or ``float16``; ``auto`` takes the fastest one.

    That is the fastest on the device that a model is built for (:func:`built_for`), or else on a
    GPU if this machine has one. Of GPUs without bfloat16 (before Ampere) it is float16. What is
    trained stays in float32.

    Raises:
        ValueError: for another name.
    """
    if name not in DTYPES:
        raise ValueError(f"dtype {name!r} must be one of {', '.join(DTYPES)}")
    if name == "auto":
        device = _device.get() or "cuda"
        if device == "cuda" and not torch.cuda.is_available():
            device = "cpu"
        slower = "float16" if device == "cuda" else "float32"
        name = "bfloat16" if has_fast_bfloat16(device) else slower
    return getattr(torch, name)


def in_type(device: torch.device, dtype: torch.dtype) -> AbstractContextManager[None]:
    """Multiply in ``dtype`` inside the context; float32 leaves what a trainer has set."""
    if dtype == torch.float32:
        return nullcontext()
    return torch.autocast(device.type, dtype)


def without_autocast(device: torch.device) -> AbstractContextManager[None]:
    """Compute in the types that tensors have, inside the context, whatever a trainer has set."""
    kind = device.type
    if torch.amp.is_autocast_available(kind) and torch.is_autocast_enabled(kind):
        return torch.autocast(kind, enabled=False)
    return nullcontext()
