"""Which floating-point type pretrained parts compute in."""

from contextlib import AbstractContextManager, nullcontext

import torch

DTYPES = ("auto", "float32", "bfloat16")


def has_fast_bfloat16(device: str) -> bool:
    """Whether ``cuda`` or ``cpu`` multiplies bfloat16 matrices faster than float32 ones.

    On a CPU that is AVX512-BF16 or AMX (about 2.5 times as fast); without them PyTorch falls back
    to loops that take 9 times as long as float32.
    """
    if device == "cuda":
        return torch.cuda.is_available() and torch.cuda.is_bf16_supported(including_emulation=False)
    capabilities = torch.cpu.get_capabilities()
    return any(capabilities.get(name, False) for name in ("avx512_bf16", "amx_bf16"))


def compute_dtype(name: str = "auto") -> torch.dtype:
    """The type called ``float32`` or ``bfloat16``; ``auto`` takes the faster one of this machine.

    Raises:
        ValueError: for another name.
    """
    if name not in DTYPES:
        raise ValueError(f"dtype {name!r} must be one of {', '.join(DTYPES)}")
    if name == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
        name = "bfloat16" if has_fast_bfloat16(device) else "float32"
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
