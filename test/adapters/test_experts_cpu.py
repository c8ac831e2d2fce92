"""The compiled experts against a slow loop, against PyTorch, and inside an LM."""

import copy
import os
import platform
import subprocess
import sys

import pytest
import torch
from tiny import SIZES, prompt_and_step
from transformers import AutoModelForCausalLM, LlamaConfig

from mome.adapters import MoMEAdapter, experts_cpu
from mome.adapters.experts import MoME
from mome.adapters.experts_cpu import CompiledExperts, can_run

SHAPES = [
    {},
    {"num_routed": 5, "num_shared": 0, "top_k": 5, "bottleneck": 1},
    {"num_routed": 16, "num_shared": 2, "top_k": 1, "bottleneck": 16},
    {"num_routed": 40, "num_shared": 1, "top_k": 7, "bottleneck": 17, "gate": "renormalized_topk"},
    {"num_routed": 0, "num_shared": 3, "bottleneck": 5},
    {"bias": False, "router_conf": {"bias": False}},
    {"num_routed": 7, "bottleneck": 16, "bias": False},
    {"num_routed": 7, "bottleneck": 31, "router_conf": {"bias": False}},
]


@pytest.fixture(autouse=True)
def compiled():
    """Each test finds out anew whether the pass can be compiled."""
    experts_cpu.library.cache_clear()
    yield
    experts_cpu.library.cache_clear()


def random_experts(dim=64, **shape):
    torch.manual_seed(0)
    experts = MoME(dim, **shape)
    for parameter in experts.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    return experts


def slow_loop(experts, hidden, base):
    """Equation 8 of the paper, expert by expert and token by token, in float64."""
    down, up = experts.down.weight.double(), experts.up.weight.double()
    width, count = experts.bottleneck, experts.num_routed + experts.num_shared
    rows = [slice(n * width, (n + 1) * width) for n in range(count)]
    output = base.double().clone()
    for token, x in enumerate(hidden.double()):
        gates = dict.fromkeys(range(experts.num_routed, len(rows)), 1.0)
        if experts.num_routed:
            logits = experts.router.weight.double() @ x
            if experts.router.bias is not None:
                logits += experts.router.bias.double()
            best = sorted(range(experts.num_routed), key=lambda n: -logits[n])[: experts.top_k]
            of = logits if experts.gate == "softmax_topk" else logits[best]
            gates |= {n: (logits[n].exp() / of.exp().sum()).item() for n in best}
        for n, gate in gates.items():
            inner = down[rows[n]] @ x
            if experts.bias:
                inner += experts.down.bias[rows[n]].double()
                output[token] += gate * up[:, count * width + n]
            output[token] += gate * (up[:, rows[n]] @ torch.nn.functional.gelu(inner))
    return output


@pytest.mark.parametrize("tokens", [1, 7, 100])
@pytest.mark.parametrize("shape", SHAPES)
def test_float32_equals_a_slow_loop_and_pytorch(shape, tokens):
    experts = random_experts(**shape)
    hidden, base = torch.randn(2, tokens, 64)
    output = CompiledExperts(experts, torch.float32)(hidden, base)
    assert torch.allclose(output.double(), slow_loop(experts, hidden, base), atol=1e-5)
    assert torch.allclose(output, experts(hidden, base)[0], atol=1e-5)


@pytest.mark.parametrize("shape", SHAPES)
def test_bfloat16_is_as_exact_as_its_rounding_allows(shape):
    experts = random_experts(dim=192, **shape)
    for linear in (experts.down, experts.up):
        linear.weight.data = linear.weight.bfloat16().float()
    hidden, base = torch.randn(2, 500, 192).bfloat16()
    exact = slow_loop(experts, hidden[:50], base[:50])
    output = CompiledExperts(experts, torch.bfloat16)(hidden, base)
    rounding = 2**-8 * exact.abs() + 2**-7 * (exact - base[:50].double()).norm(dim=1, keepdim=True)
    assert ((output[:50].double() - exact).abs() < rounding).all()
    plain = experts(hidden.float(), base.float())[0]
    error = (output.float() - plain).norm() / plain.norm()
    assert error < 2**-8


def test_states_of_any_shape_and_stride():
    experts = random_experts()
    compiled = CompiledExperts(experts, torch.float32)
    hidden, base = torch.randn(2, 3, 64, 5).transpose(2, 3)
    assert torch.allclose(compiled(hidden, base), experts(hidden, base)[0], atol=1e-5)
    assert compiled(hidden[:0], base[:0]).shape == (0, 5, 64)


def test_extreme_states_stay_finite_and_nan_is_kept():
    experts = random_experts()
    compiled = CompiledExperts(experts, torch.float32)
    hidden = torch.randn(9, 64) * 1e4
    output = compiled(hidden, torch.zeros_like(hidden))
    assert torch.allclose(output, experts(hidden)[0], rtol=1e-4, atol=1e-2)
    hidden[4, 3] = float("nan")
    output = compiled(hidden, torch.zeros_like(hidden))
    assert output.isnan().all(dim=1).tolist() == [n == 4 for n in range(9)]
    nothing = torch.full((100, 64), float("nan"))
    assert compiled(nothing, torch.zeros(100, 64)).isnan().all()
    half = CompiledExperts(experts, torch.bfloat16)(hidden.bfloat16(), hidden.bfloat16() * 0)
    assert half.isnan().all(dim=1).tolist() == [n == 4 for n in range(9)]


@pytest.mark.parametrize("threads", [1, 3])
def test_threads_share_the_tokens(threads):
    experts = random_experts()
    hidden, base = torch.randn(2, 331, 64)
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        output = CompiledExperts(experts, torch.float32)(hidden, base)
    finally:
        torch.set_num_threads(before)
    assert torch.allclose(output, experts(hidden, base)[0], atol=1e-5)


@pytest.mark.skipif(platform.machine() != "x86_64", reason="names an x86-64 level")
def test_processors_without_bfloat16_compute_the_same(monkeypatch):
    experts = random_experts()
    hidden, base = torch.randn(2, 50, 64).bfloat16()
    native = CompiledExperts(experts, torch.bfloat16)(hidden, base)
    level = "-march=x86-64-v2"
    flags = [level if flag == "-march=native" else flag for flag in experts_cpu.FLAGS]
    monkeypatch.setattr(experts_cpu, "FLAGS", flags)
    experts_cpu.library.cache_clear()
    plain = CompiledExperts(experts, torch.bfloat16)(hidden, base)
    # AVX512-BF16 rounds the sums of a pair otherwise; a few results fall on the other side.
    assert (native == plain).float().mean() > 0.9
    assert torch.allclose(native.float(), plain.float(), rtol=2**-7, atol=1e-2)


def test_wrong_states_are_named():
    compiled = CompiledExperts(random_experts(), torch.bfloat16)
    good = torch.zeros(3, 64, dtype=torch.bfloat16)
    for hidden, base in ((good.float(), good), (good, good[:2]), (good[:, :32], good[:, :32])):
        with pytest.raises(ValueError, match=r"prepared for torch\.bfloat16 of width 64"):
            compiled(hidden, base)


def test_what_cannot_be_compiled_is_left_to_pytorch(monkeypatch, caplog, tmp_path):
    assert can_run(random_experts(), torch.bfloat16)
    assert not can_run(random_experts(dim=32), torch.float32)
    assert not can_run(random_experts(), torch.float16)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    for compiler, complaint in (
        ("no-such-compiler", "no C++ compiler"),
        ("false", "not be compil"),
    ):
        monkeypatch.setenv("CXX", compiler)
        experts_cpu.library.cache_clear()
        caplog.clear()
        assert not can_run(random_experts(), torch.float32)
        assert not can_run(random_experts(), torch.float32)
        assert len(caplog.records) == 1  # once a process, not once a layer
        assert complaint in caplog.text


def test_a_source_that_does_not_compile_leaves_nothing_and_says_why(monkeypatch, caplog, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    wrong = tmp_path / "experts_cpu.cpp"
    wrong.write_text("int main() { return undeclared; }")
    monkeypatch.setattr(experts_cpu, "SOURCE", wrong)
    assert experts_cpu.library() is None
    assert "undeclared" in caplog.text
    assert not list((tmp_path / "mome").iterdir())


def test_a_cache_that_cannot_be_written_is_named(monkeypatch, caplog, tmp_path):
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert experts_cpu.library() is None
    assert "XDG_CACHE_HOME" in caplog.text
    assert str(tmp_path / "file") in caplog.text


def test_processes_compile_at_once_and_find_it_later(tmp_path):
    """As parallel decoding jobs on a fresh machine do."""
    code = "from mome.adapters.experts_cpu import library; assert library()"
    environment = {**os.environ, "XDG_CACHE_HOME": str(tmp_path)}
    jobs = [subprocess.Popen([sys.executable, "-c", code], env=environment) for _ in range(3)]
    assert [job.wait() for job in jobs] == [0, 0, 0]
    (made,) = (tmp_path / "mome").iterdir()
    stamp = made.stat().st_mtime_ns
    subprocess.run([sys.executable, "-c", code], env=environment, check=True)
    assert made.stat().st_mtime_ns == stamp


def adapted_lm(position: str) -> tuple[torch.nn.Module, MoMEAdapter]:
    """A tiny frozen LM, and experts in it that do something."""
    torch.manual_seed(0)
    config = LlamaConfig(**{**SIZES, "hidden_size": 64})
    lm = AutoModelForCausalLM.from_config(config).eval().requires_grad_(False)
    adapter = MoMEAdapter(lm, position, num_routed=5, top_k=2, bottleneck=3)
    for parameter in adapter.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return lm, adapter


@pytest.mark.parametrize("position", ["mhsa", "ffn", "layer"])
@torch.no_grad()
def test_a_copy_of_compiled_experts_has_weights_of_its_own(position):
    """As of a model of which one part is to be changed; the original may be gone by then."""
    lm, adapter = adapted_lm(position)
    adapter.for_inference(torch.float32)
    ids = torch.randint(0, 60, (3, 9))
    expected = prompt_and_step(lm, ids)
    lm_copy, adapter_copy = copy.deepcopy((lm, adapter))
    for experts in adapter.compiled:
        for weight in experts.weights.values():
            weight.zero_()
    assert not torch.allclose(prompt_and_step(lm, ids), expected, atol=0.1)
    del lm, adapter, experts, weight
    assert torch.equal(prompt_and_step(lm_copy, ids), expected)
    with pytest.raises(RuntimeError, match="cannot be moved to another device or type"):
        adapter_copy.double()


@pytest.mark.parametrize("position", ["mhsa", "ffn", "layer"])
@torch.no_grad()
def test_an_adapted_lm_computes_the_same(position):
    lm, adapter = adapted_lm(position)
    ids = torch.randint(0, 60, (3, 9))

    expected = prompt_and_step(lm, ids)
    with adapter.disabled():
        frozen = prompt_and_step(lm, ids)
    adapter.for_inference(torch.float32)
    assert len(adapter.compiled) == 3
    with pytest.raises(RuntimeError, match="cannot be moved to another device or type"):
        adapter.double()
    with pytest.raises(RuntimeError, match="cannot be given other weights"):
        adapter.load_state_dict(adapter.state_dict())
    assert torch.allclose(prompt_and_step(lm, ids), expected, atol=1e-4)
    assert not torch.allclose(frozen, expected, atol=0.1)
    # Also what needs the experts and the LM apart: the frozen LM alone, routing and gradients.
    with adapter.disabled():
        assert torch.equal(prompt_and_step(lm, ids), frozen)
    with adapter.recording(torch.ones(3, 9, dtype=torch.bool)):
        assert torch.allclose(lm(ids).logits, expected, atol=1e-4)
        assert adapter.balance_loss() > 0
    with torch.enable_grad():
        embeddings = lm.get_input_embeddings()(ids).requires_grad_()
        logits = lm(inputs_embeds=embeddings).logits
        logits.sum().backward()
    assert torch.allclose(logits, expected, atol=1e-4)
    assert (embeddings.grad != 0).all()
    adapter.detach()
    assert torch.equal(prompt_and_step(lm, ids), frozen)
