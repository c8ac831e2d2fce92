"""The GPU's kernel, run by Triton's interpreter on a CPU, against PyTorch's operations."""

import os
import subprocess
import sys
from itertools import product

import pytest
import torch
import torch.nn.functional as F

from mome.adapters.experts import MoME

SIZES = [  # routed, shared, bottleneck, top_k, gate
    (23, 1, 8, 4, "softmax_topk"),
    (23, 1, 12, 4, "renormalized_topk"),
    (15, 1, 1, 3, "softmax_topk"),
    (40, 2, 17, 40, "renormalized_topk"),
    (1, 1, 3, 1, "softmax_topk"),
    (3, 0, 1, 2, "softmax_topk"),
    (0, 2, 5, 1, "softmax_topk"),
]


def compare(device: str) -> None:
    """Hold the kernel against the module's own operations, in float32."""
    from mome.adapters.experts_triton import gate_experts

    torch.manual_seed(0)
    for (routed, shared, bottleneck, top_k, gate), bias in product(SIZES, (True, False)):
        experts = MoME(64, routed, shared, bottleneck, top_k, gate=gate, bias=bias)
        count = (routed + shared) * bottleneck
        projected = torch.randn(2, 3, 10 + count + routed)
        attended = torch.randn(2, 3, 1500)
        width = 1500 + experts.up.in_features + count % 7
        for dtype, tolerance in ((torch.float32, 1e-5), (torch.bfloat16, 2e-2)):
            given = (projected.to(device, dtype), attended.to(device, dtype))
            actual = gate_experts(experts, *given, first=10, width=width)
            assert actual.dtype == dtype
            rounded, states = (tensor.float().cpu() for tensor in given)
            inner = F.gelu(rounded[..., 10 : 10 + count])
            gates = torch.ones(2, 3, shared)
            if routed:
                gates, _ = experts.gates_of(rounded[..., 10 + count :])
            expected = torch.cat([states, experts.weigh(inner, gates)], dim=-1)
            expected = F.pad(expected, (0, count % 7))
            torch.testing.assert_close(actual.float().cpu(), expected, rtol=tolerance, atol=1e-2)


def test_the_kernel_equals_pytorch_in_the_interpreter():
    pytest.importorskip("triton")
    # The interpreter is chosen when Triton is imported.
    code = f"import sys; sys.path.insert(0, {os.path.dirname(__file__)!r})\n"
    code += "import test_experts_triton; test_experts_triton.compare('cpu')"
    environment = {**os.environ, "TRITON_INTERPRET": "1"}
    result = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr[-3000:]


@pytest.mark.parametrize("routed", [23, 0])
@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
@pytest.mark.parametrize("architecture", [80, 90])
def test_the_kernel_compiles_for_gpus_that_are_not_here(architecture, dtype, routed):
    # The interpreter accepts what the compiler does not, such as a name of two types.
    triton = pytest.importorskip("triton")
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    from mome.adapters.experts_triton import _gate

    constants = {"routed": routed, "experts": 24, "units": 8, "top_k": 4, "renormalized": False}
    constants |= {"expert_block": 32, "unit_block": 8, "columns": 1024, "bias": True, "tail": 3}
    names = [parameter.name for parameter in _gate.params]
    types = dict.fromkeys(names, "i32") | dict.fromkeys(constants, "constexpr")
    types |= dict.fromkeys(("product", "attended", "output"), f"*{dtype}")
    indexed = {(names.index(name),): value for name, value in constants.items()}
    source = ASTSource(fn=_gate, signature=types, constexprs=indexed)
    compiled = triton.compile(source, target=GPUTarget("cuda", architecture, 32))
    assert f".target sm_{architecture}" in compiled.asm["ptx"]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")
def test_the_kernel_equals_pytorch_on_a_gpu():
    compare("cuda")
