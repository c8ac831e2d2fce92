"""The type of the frozen parts: what is asked for, or what this machine multiplies fastest."""

from pathlib import Path

import pytest
import torch

from mome.common.precision import compute_dtype, has_fast_bfloat16


def test_fast_bfloat16_is_what_the_kernel_says_of_the_cpu():
    flags = set(Path("/proc/cpuinfo").read_text().split())
    assert has_fast_bfloat16("cpu") == bool(flags & {"avx512_bf16", "amx_bf16"})


def test_names():
    assert compute_dtype("float32") == torch.float32
    assert compute_dtype("bfloat16") == torch.bfloat16
    device = "cuda" if torch.cuda.is_available() else "cpu"
    fast = torch.bfloat16 if has_fast_bfloat16(device) else torch.float32
    assert compute_dtype() == fast
    with pytest.raises(ValueError, match="must be one of auto"):
        compute_dtype("half")
