"""The type of the frozen parts: what is asked for, or what this machine multiplies fastest."""

from pathlib import Path

import pytest
import torch

from mome.common import precision
from mome.common.precision import built_for, compute_dtype, has_fast_bfloat16


def test_slow_where_the_kernel_says_that_the_cpu_has_no_instructions_for_it():
    flags = set(Path("/proc/cpuinfo").read_text().split())
    if flags & {"avx512_bf16", "amx_bf16"}:
        pytest.skip("this CPU has instructions for bfloat16; the next test is about it")
    assert not has_fast_bfloat16("cpu")


@pytest.mark.parametrize(
    ("flags", "seconds", "fast"),
    [
        ({"avx512_bf16"}, 0.4, True),  # AMD EPYC
        ({"avx512_bf16"}, 1.8, False),  # Intel Xeon whose AMX is hidden
        ({"avx512_bf16"}, 0.95, False),  # no clear gain
        ({"amx_bf16", "avx512_bf16"}, 0.2, True),
        ({"avx512"}, 0.2, False),  # not asked: the loops there are no matter of a time
    ],
)
def test_instructions_alone_do_not_make_bfloat16_fast(monkeypatch, flags, seconds, fast):
    def product_seconds(*dtypes):
        return [seconds if dtype == torch.bfloat16 else 1.0 for dtype in dtypes]

    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: dict.fromkeys(flags, True))
    monkeypatch.setattr(precision, "product_seconds", product_seconds)
    assert has_fast_bfloat16.__wrapped__("cpu") == fast


def test_a_product_is_timed_in_its_type():
    """Half a GFLOP takes no less than a microsecond anywhere, and no CPU ten seconds."""
    threads = torch.get_num_threads()
    found = precision.product_seconds(torch.float32, torch.bfloat16, torch.float64)
    assert all(1e-6 < seconds < 10 for seconds in found)
    assert found[2] > found[0]  # twice the bits
    assert torch.get_num_threads() == threads


@pytest.mark.parametrize(
    ("gpu", "cpu", "expected"),
    [
        (True, False, {"cuda": torch.bfloat16, "cpu": torch.float32}),
        (False, True, {"cuda": torch.float16, "cpu": torch.bfloat16}),
        (False, False, {"cuda": torch.float16, "cpu": torch.float32}),
    ],
)
def test_the_device_that_is_used_decides_not_that_which_is_there(monkeypatch, gpu, cpu, expected):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(precision, "has_fast_bfloat16", {"cuda": gpu, "cpu": cpu}.get)
    for device, dtype in expected.items():
        with built_for(device), built_for("cpu"):  # as a training's configuration says, in vain
            assert compute_dtype() == dtype
            assert compute_dtype("float32") == torch.float32
    with built_for("cuda:1"):
        assert compute_dtype() == expected["cuda"]
    assert compute_dtype() == expected["cuda"]  # where nobody says
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with built_for("cuda"):  # as the configuration of a training elsewhere says
        assert compute_dtype() == expected["cpu"]
    assert compute_dtype() == expected["cpu"]


def test_names():
    assert compute_dtype("float32") == torch.float32
    assert compute_dtype("bfloat16") == torch.bfloat16
    assert compute_dtype("float16") == torch.float16
    device = "cuda" if torch.cuda.is_available() else "cpu"
    slower = torch.float16 if device == "cuda" else torch.float32
    fast = torch.bfloat16 if has_fast_bfloat16(device) else slower
    assert compute_dtype() == fast
    with pytest.raises(ValueError, match="must be one of auto"):
        compute_dtype("half")
