"""MoME on a CPU at inference, in one pass compiled from ``experts_cpu.cpp``.

On a CPU the dense form computes all experts to use a few, and as a dozen operations that each cost
some microseconds to start. The compiled pass routes in float32, computes the experts that each
token chose alone and adds them to a base, all while the token's states lie in the cache.

The C++ compiler of the machine builds it in about two seconds for its own processor, once, into
``~/.cache/mome`` (``$XDG_CACHE_HOME/mome``). Without one, experts are computed by PyTorch.
"""

import ctypes
import hashlib
import logging
import os
import shlex
import shutil
import subprocess
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

import torch

from mome.adapters.experts import MOVED, MoME, is_stock
from mome.adapters.routers import LinearRouter, renormalized_topk

SOURCE = Path(__file__).with_suffix(".cpp")
FLAGS = ("-std=c++17", "-O3", "-march=native", "-fopenmp", "-shared", "-fPIC")
LANES = 16  # of 4 bytes, and features of a slab, as in the source
SLAB = 64
PASSES = {torch.float32: "mome_float", torch.bfloat16: "mome_bfloat16"}


class _Experts(ctypes.Structure):
    """``struct Experts`` of the source."""

    _fields_ = [
        *((name, ctypes.c_int32) for name in ("dim", "routed", "shared", "bottleneck", "top_k")),
        ("renormalized", ctypes.c_int32),
        *((name, ctypes.c_void_p) for name in ("router", "down", "up", "router_bias", "down_bias")),
    ]


@cache
def library() -> ctypes.CDLL | None:
    """The compiled passes; None, with a warning, where they cannot be compiled."""
    compiler = shlex.split(os.environ.get("CXX", "")) or ["c++"]
    if not shutil.which(compiler[0]):
        logging.warning(
            "no C++ compiler (%s): experts are computed by PyTorch, which takes longer. Install "
            "g++ or name a compiler in CXX.",
            compiler[0],
        )
        return None
    try:
        path = _cached(compiler)
        if not path.exists():
            _compile(compiler, path)
        passes = ctypes.CDLL(str(path))
    # A user without a home folder is a RuntimeError.
    except (OSError, RuntimeError, subprocess.CalledProcessError) as error:
        message = getattr(error, "stderr", None) or str(error)
        logging.warning(
            "%s could not be compiled: experts are computed by PyTorch, which takes longer. Name a "
            "compiler in CXX, a folder that can be written in XDG_CACHE_HOME: %s",
            SOURCE,
            message.strip(),
        )
        return None
    for name in PASSES.values():
        pointer, number = ctypes.c_void_p, ctypes.c_int32
        getattr(passes, name).argtypes = [pointer, pointer, pointer, pointer, number, number]
        getattr(passes, name).restype = None
    return passes


def _cached(compiler: list[str]) -> Path:
    """Where the library of this source, compiler and processor lies or will lie."""
    version = subprocess.run([*compiler, "--version"], check=True, capture_output=True).stdout
    about = hashlib.sha256(SOURCE.read_bytes() + version + " ".join([*compiler, *FLAGS]).encode())
    about.update(repr(sorted(torch.cpu.get_capabilities().items())).encode())
    folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "mome"
    return folder / f"experts_cpu-{about.hexdigest()[:16]}.so"


def _compile(compiler: list[str], path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    # Several decoding jobs may start at once, and one may be killed: only whole files get the name.
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        made = Path(folder) / path.name
        command = [*compiler, *FLAGS, str(SOURCE), "-o", str(made)]
        subprocess.run(command, check=True, capture_output=True, text=True)
        made.replace(path)


def can_run(experts: MoME, dtype: torch.dtype) -> bool:
    """Whether the compiled pass takes a module on this processor.

    It is the faster way also where AMX multiplies matrices, which it does not use. A module with a
    gate or router of a user's, or of a class derived from MoME, is left to PyTorch.
    """
    return (
        is_stock(experts)
        and experts.down.weight.device.type == "cpu"
        and dtype in PASSES
        and experts.down.in_features % SLAB == 0
        and library() is not None
    )


def _padded(tensor: torch.Tensor, multiple: int) -> torch.Tensor:
    """Zeros appended along the second dimension, up to a multiple."""
    return torch.nn.functional.pad(
        tensor, (0, 0) * (tensor.dim() - 2) + (0, -tensor.shape[1] % multiple)
    )


class CompiledExperts:
    """A MoME module as the compiled pass reads it.

    Args:
        experts: module whose weights are copied.
        dtype: of the LM, float32 or bfloat16; see :func:`can_run`. The router stays in float32.
    """

    @torch.no_grad()
    def __init__(self, experts: MoME, dtype: torch.dtype):
        self.dtype = dtype
        self.dim = experts.down.in_features
        dim, width = self.dim, experts.bottleneck
        count = experts.num_routed + experts.num_shared
        pair = 4 // dtype.itemsize  # elements of a lane
        down = _padded(experts.down.weight.to(dtype).view(count, width, dim), LANES)
        down = down.view(count, -1, LANES, dim // pair, pair).transpose(2, 3)
        columns = experts.up.weight.to(dtype).t()
        up = columns[: experts.width].view(count, width, dim)
        if experts.bias:
            up = torch.cat([up, columns[experts.width :, None]], dim=1)
        up = _padded(up, pair).view(count, -1, pair, dim // SLAB, SLAB).permute(0, 3, 1, 4, 2)
        weights: dict[str, torch.Tensor] = {"down": down, "up": up}
        if experts.down.bias is not None:
            weights["down_bias"] = _padded(experts.down.bias.float().view(count, width), LANES)
        if isinstance(experts.router, LinearRouter):
            router = _padded(experts.router.weight.float()[None], LANES)
            weights["router"] = router.view(-1, LANES, dim).transpose(1, 2)
            if experts.router.bias is not None:
                weights["router_bias"] = _padded(experts.router.bias.float()[None], LANES)
        self.weights = {name: weight.contiguous() for name, weight in weights.items()}
        self.numbers = (
            dim,
            experts.num_routed,
            experts.num_shared,
            width,
            experts.top_k,
            experts.gate_function is renormalized_topk,
        )
        self._point()

    def _point(self) -> None:
        """Find the compiled pass, and tell it where the weights are."""
        self.run = getattr(library(), PASSES[self.dtype])
        addresses = {name: weight.data_ptr() for name, weight in self.weights.items()}
        self.experts = _Experts(*self.numbers, **addresses)
        self.address = ctypes.addressof(self.experts)

    def __getstate__(self) -> dict[str, Any]:
        """Without addresses: a copy has its own, and another process another library."""
        pointers = ("run", "experts", "address")
        return {name: value for name, value in vars(self).items() if name not in pointers}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._point()

    def __call__(self, hidden: torch.Tensor, base: torch.Tensor) -> torch.Tensor:
        """``base`` (..., D) and what the experts make of ``hidden`` (..., D).

        Raises:
            ValueError: for tensors of another device, type or shape.
        """
        if not (
            hidden.is_cpu
            and base.is_cpu
            and hidden.dtype == base.dtype == self.dtype
            and hidden.shape == base.shape
            and hidden.shape[-1] == self.dim
        ):
            raise ValueError(
                f"experts prepared for {self.dtype} of width {self.dim} on a CPU were given "
                f"{hidden.dtype} {tuple(hidden.shape)} on {hidden.device} and, as their base, "
                f"{base.dtype} {tuple(base.shape)} on {base.device}: {MOVED}"
            )
        hidden, base = hidden.contiguous(), base.contiguous()
        output = torch.empty_like(base)
        self.run(
            self.address,
            hidden.data_ptr(),
            base.data_ptr(),
            output.data_ptr(),
            hidden.numel() // self.dim,
            torch.get_num_threads(),
        )
        return output
