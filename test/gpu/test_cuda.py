"""The model on a GPU against loops in float64 and against the CPU; skipped where there is no GPU.

``MOME_TEST_DEVICE=cpu`` runs the same tests on a CPU, to try them where there is none.
"""

import os

import pytest
import torch
import torch.nn.functional as F
from tiny import SIZES, prompt_and_step
from tiny_avsr import build, collate, utterances
from transformers import LlamaConfig, LlamaForCausalLM, Qwen2Config, Qwen2ForCausalLM

from mome.adapters import MoMEAdapter
from mome.adapters.experts import GROUPED_FROM, GROUPED_TOKENS, MoME
from mome.adapters.experts_cpu import can_run
from mome.llm.beam import beam_search
from mome.llm.decoder import MoMELLMDecoder
from mome.models.rates import rate_pairs

DEVICE = os.environ.get("MOME_TEST_DEVICE", "cuda")
pytestmark = pytest.mark.skipif(
    DEVICE == "cuda" and not torch.cuda.is_available(), reason="there is no GPU"
)
DTYPES = [torch.float32, torch.bfloat16]
TOLERANCE = {torch.float32: 1e-5, torch.bfloat16: 2e-2}  # of the norm


@pytest.fixture(autouse=True)
def plain_float32():
    """Products of float32 without TF32, which keeps ten bits of each factor."""
    allowed = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    yield
    torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = allowed


def distance(actual: torch.Tensor, expected: torch.Tensor) -> float:
    """Norm of the difference over the norm of what is expected."""
    actual, expected = actual.detach().cpu().double(), expected.detach().cpu().double()
    return float((actual - expected).norm() / expected.norm())


def by_loop(module: MoME, hidden: torch.Tensor, chosen: torch.Tensor) -> torch.Tensor:
    """The module's formula, expert by expert, for experts chosen beforehand: (M, Nr) booleans."""
    probabilities = F.linear(hidden, module.router.weight, module.router.bias).softmax(-1)
    output = torch.zeros_like(hidden)
    for expert in range(module.num_routed + module.num_shared):
        rows = slice(expert * module.bottleneck, (expert + 1) * module.bottleneck)
        inner = F.gelu(F.linear(hidden, module.down.weight[rows], module.down.bias[rows]))
        gate = 1.0
        if expert < module.num_routed:
            gate = (probabilities[:, expert] * chosen[:, expert])[:, None]
        bias = module.up.weight[:, module.width + expert]
        output = output + gate * F.linear(inner, module.up.weight[:, rows], bias)
    return output


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("bottleneck", "tokens"), [(12, 50), (GROUPED_FROM, GROUPED_TOKENS)])
def test_experts_and_their_gradients_equal_a_loop_in_float64(dtype, bottleneck, tokens):
    torch.manual_seed(0)
    module = MoME(64, 7, 2, bottleneck=bottleneck, top_k=3)
    for parameter in (module.up.weight, module.down.bias, module.router.bias):
        torch.nn.init.normal_(parameter, std=0.1)
    hidden = torch.randn(tokens, 64, dtype=dtype)
    reference = MoME(64, 7, 2, bottleneck=bottleneck, top_k=3).double()
    reference.load_state_dict(module.state_dict())
    module.to(DEVICE)
    output, gates, _ = module(hidden.to(DEVICE))
    expected = by_loop(reference, hidden.double(), (gates > 0).cpu())
    assert (gates > 0).sum(-1).eq(3).all()
    assert output.dtype == dtype
    assert distance(output, expected) < TOLERANCE[dtype]
    weight = torch.randn(tokens, 64)
    (output.float() * weight.to(DEVICE)).sum().backward()
    (expected * weight).sum().backward()
    for name, parameter in module.named_parameters():
        assert distance(parameter.grad, dict(reference.named_parameters())[name].grad) < (
            5 * TOLERANCE[dtype]
        ), name


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("position", ["mhsa", "ffn", "layer"])
@pytest.mark.parametrize(
    ("config", "kind"), [(LlamaConfig, LlamaForCausalLM), (Qwen2Config, Qwen2ForCausalLM)]
)
def test_inference_equals_the_plain_form(config, kind, position, dtype):
    torch.manual_seed(0)
    lm = kind(config(**SIZES)).eval().requires_grad_(False)
    adapter = MoMEAdapter(lm, position, num_routed=7, num_shared=1, bottleneck=5, top_k=3)
    for layer in adapter.layers:
        torch.nn.init.normal_(layer.up.weight, std=0.3)
    ids = torch.randint(SIZES["vocab_size"], (3, 9))
    exact = prompt_and_step(lm, ids)
    lm.to(DEVICE, dtype)
    adapter.to(DEVICE)
    plain = prompt_and_step(lm, ids.to(DEVICE))
    adapter.for_inference(dtype)
    fast = prompt_and_step(lm, ids.to(DEVICE))
    if dtype == torch.float32:
        assert distance(plain, exact) < 1e-4
        assert distance(fast, exact) < 1e-4
    else:  # a token whose gates are nearly equal may choose another expert in either
        assert distance(fast, exact) < max(0.05, 2 * distance(plain, exact))


@pytest.mark.skipif(DEVICE != "cuda", reason="of a GPU alone")
def test_the_compiled_pass_declines_a_gpu():
    module = MoME(64).to(DEVICE)
    assert not can_run(module, torch.bfloat16)
    assert not can_run(module, torch.float32)


@pytest.mark.parametrize("adapter", ["mome", "rate_lora"])
def test_loss_and_gradients_equal_those_of_the_cpu(tiny_lm, tiny_whisper, adapter):
    model = build(tiny_lm, tiny_whisper, freeze_video=False)
    if adapter == "rate_lora":
        pairs = [str(pair) for pair in rate_pairs("avsr", (4, 16), (2, 5))]
        conf = {"pairs": pairs, "rank": 2}
        model.decoder = MoMELLMDecoder(lm=tiny_lm, adapter=adapter, adapter_conf=conf)
        for parameter in model.decoder.adapter.parameters():
            torch.nn.init.normal_(parameter, std=0.3)
    model.eval()
    batch = collate(utterances(3))
    loss, stats, _ = model(**batch)
    names, parameters = zip(*model.named_parameters(), strict=True)
    expected = torch.autograd.grad(loss, parameters, allow_unused=True)
    model.to(DEVICE)
    moved = {name: value.to(DEVICE) for name, value in batch.items()}
    actual_loss, actual_stats, _ = model(**moved)
    actual = torch.autograd.grad(actual_loss, list(model.parameters()), allow_unused=True)
    assert float(actual_loss) == pytest.approx(float(loss), rel=1e-4)
    for name, value in stats.items():
        assert float(actual_stats[name]) == pytest.approx(float(value), rel=1e-3, abs=1e-4), name
    for name, ours, theirs in zip(names, actual, expected, strict=True):
        assert (ours is None) == (theirs is None), name
        if theirs is not None and float(theirs.norm()) > 1e-6:
            assert distance(ours, theirs) < 1e-2, name


@pytest.mark.parametrize("beam", [1, 4])
def test_transcripts_equal_those_of_the_cpu(tiny_lm, tiny_whisper, beam):
    model = build(tiny_lm, tiny_whisper, tasks=("avsr", "asr", "vsr")).eval()
    model.decoder.adapter.for_inference(torch.float32)
    batch = {name: v for name, v in collate(utterances(3)).items() if "text" not in name}
    task_pairs = [(task, pair) for task, pairs in model.pairs.items() for pair in pairs]

    def search(model, batch):
        with torch.inference_mode():
            nodes, leaves = model.prompts(model.encode(**batch), task_pairs)
            options = {"beam": beam, "max_new_tokens": 6, "eos_id": model.decoder.eos_id}
            return beam_search(model.decoder.lm.inner, nodes, leaves, **options)

    expected = search(model, batch)
    other = build(tiny_lm, tiny_whisper, tasks=("avsr", "asr", "vsr")).eval().to(DEVICE)
    other.decoder.adapter.for_inference(torch.float32)
    actual = search(other, {name: value.to(DEVICE) for name, value in batch.items()})
    for ours, theirs in zip(actual, expected, strict=True):
        for found, wanted in zip(ours, theirs, strict=True):
            assert [h.tokens for h in found] == [h.tokens for h in wanted]
            scores = [h.score for h in wanted]
            assert [h.score for h in found] == pytest.approx(scores, rel=1e-4, abs=1e-4)


def test_a_step_in_bfloat16_is_near_that_in_float32(tiny_lm, tiny_whisper):
    model = build(tiny_lm, tiny_whisper).eval().to(DEVICE)
    batch = {name: value.to(DEVICE) for name, value in collate(utterances(3)).items()}
    exact, _, _ = model(**batch)
    model.decoder.lm.inner.to(torch.bfloat16)
    rounded, _, _ = model(**batch)
    rounded.backward()
    assert float(rounded) == pytest.approx(float(exact), rel=2e-2)
    assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None)


def test_autocast_trains_and_routes_in_float32(tiny_lm, tiny_whisper):
    model = build(tiny_lm, tiny_whisper).train().to(DEVICE)
    batch = {name: value.to(DEVICE) for name, value in collate(utterances(3)).items()}
    exact, _, _ = model(**batch)
    with torch.autocast(torch.device(DEVICE).type, torch.bfloat16):
        loss, _, _ = model(**batch)
        hidden = torch.randn(5, SIZES["hidden_size"], device=DEVICE)
        experts = model.decoder.adapter.layers[0]
        _, gates, probabilities = experts(hidden)
    loss.backward()
    assert float(loss) == pytest.approx(float(exact), rel=5e-2)
    assert gates.dtype == probabilities.dtype == torch.float32
    assert torch.equal(probabilities, F.linear(hidden, experts.router.weight).softmax(-1))
