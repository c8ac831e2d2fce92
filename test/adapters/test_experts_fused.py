"""The experts inside the attention's projections against the experts beside the attention."""

import pytest
import torch
from tiny import SIZES, prompt_and_step
from transformers import (
    AutoModelForCausalLM,
    Gemma2Config,
    LlamaConfig,
    MistralConfig,
    OPTConfig,
    Qwen2Config,
    Qwen3Config,
)

from mome.adapters import MoMEAdapter
from mome.adapters.experts_fused import FusedProjections, can_fuse, gpu_kernel

CONFIGS = [LlamaConfig, MistralConfig, Qwen2Config, Qwen3Config, Gemma2Config]
EXPERTS = [
    {"num_routed": 5, "top_k": 2, "bottleneck": 3},
    {"num_routed": 6, "num_shared": 2, "top_k": 3, "bottleneck": 1, "gate": "renormalized_topk"},
    {"num_routed": 5, "top_k": 2, "bottleneck": 3, "bias": False, "router_conf": {"bias": False}},
    {"num_routed": 0, "num_shared": 1, "bottleneck": 4},
    {"num_routed": 0, "num_shared": 1, "bottleneck": 4, "bias": False},
]


def adapted(config_class, dtype=torch.float32, position="mhsa", **experts):
    torch.manual_seed(0)
    sizes = {k: v for k, v in SIZES.items() if config_class is not OPTConfig or k[:2] != "in"}
    lm = AutoModelForCausalLM.from_config(config_class(**sizes)).eval().requires_grad_(False)
    for parameter in lm.parameters():  # biases too
        parameter.normal_(std=0.2)
    adapter = MoMEAdapter(lm, position, **(experts or EXPERTS[0]))
    for parameter in adapter.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return lm.to(dtype), adapter


IDS = torch.randint(0, 60, (3, 9), generator=torch.Generator().manual_seed(0))


class Packed(torch.Tensor):
    """Weights that are held in another form, as torchao's are, in an ordinary linear layer."""


def test_quantised_weights_are_left_alone():
    lm, _ = adapted(LlamaConfig)
    block = lm.model.layers[0].self_attn
    assert can_fuse(block)
    packed = torch.Tensor._make_subclass(Packed, block.q_proj.weight.data, False)
    block.q_proj.weight = torch.nn.Parameter(packed, requires_grad=False)
    assert not can_fuse(block)


def test_a_fused_form_is_neither_moved_nor_given_other_weights():
    lm, adapter = adapted(LlamaConfig)
    adapter.double().float()  # before, all is allowed
    adapter.load_state_dict({name: 2 * tensor for name, tensor in adapter.state_dict().items()})
    expected = prompt_and_step(lm, IDS)
    adapter.for_inference(torch.float32)
    model = torch.nn.ModuleDict({"adapter": adapter, "lm": lm})
    for move in (model.bfloat16, lambda: model.to("meta"), adapter.double):
        with pytest.raises(RuntimeError, match="cannot be moved to another device or type: its"):
            move()
    for loading in (adapter, model):
        with pytest.raises(
            RuntimeError, match=r"cannot be given other weights.*for_inference last"
        ):
            loading.load_state_dict(loading.state_dict())
    model.to("cpu").float()  # which changes nothing
    assert torch.allclose(prompt_and_step(lm, IDS), expected, atol=1e-4)


@pytest.mark.parametrize("place", [torch.bfloat16, "meta"])
@pytest.mark.parametrize(("position", "width"), [("mhsa", 32), ("ffn", 64)])
def test_an_lm_that_is_moved_after_its_adapter_was_prepared_is_refused(place, position, width):
    """Neither fused projections nor, beside a block of this width, compiled experts move along."""
    lm = AutoModelForCausalLM.from_config(LlamaConfig(**SIZES | {"hidden_size": width}))
    adapter = MoMEAdapter(lm.eval().requires_grad_(False), position, **EXPERTS[0])
    adapter.for_inference(torch.float32)
    layer = lm.model.layers[0]
    part = layer.self_attn.q_proj if position == "mhsa" else layer.mlp
    part(torch.ones(1, 2, width))
    lm.to(place)
    with pytest.raises((RuntimeError, ValueError), match=r"LM was moved after for_inference.*anew"):
        part(torch.ones(1, 2, width).to(place))


def test_an_adapter_that_stays_behind_its_lm_is_named():
    lm, adapter = adapted(LlamaConfig, position="ffn")
    lm.to("meta")
    hidden = torch.ones(1, 2, 32, device="meta")
    with pytest.raises(RuntimeError, match=r"adapter lies on cpu: move it as well.*to\('meta'\)"):
        lm.model.layers[0].mlp(hidden)
    adapter.to("meta")
    assert lm.model.layers[0].mlp(hidden).shape == (1, 2, 32)


@pytest.mark.parametrize("config_class", CONFIGS)
@pytest.mark.parametrize("experts", EXPERTS)
def test_fused_projections_equal_experts_beside_the_attention(config_class, experts):
    lm, adapter = adapted(config_class, **experts)
    expected = prompt_and_step(lm, IDS)
    with adapter.disabled():
        frozen = prompt_and_step(lm, IDS)
    adapter.for_inference(torch.float32)
    assert all(isinstance(fused, FusedProjections) for fused in adapter.fused)
    assert torch.allclose(prompt_and_step(lm, IDS), expected, atol=1e-4)
    assert not torch.allclose(frozen, expected, atol=0.1)
    # Also what needs the experts and the LM apart: the frozen LM alone, and routing.
    with adapter.disabled():
        assert torch.allclose(prompt_and_step(lm, IDS), frozen, atol=1e-4)
    with adapter.recording(torch.ones(3, 9, dtype=torch.bool)):
        assert torch.allclose(lm(IDS).logits, expected, atol=1e-4)
        assert (adapter.balance_loss() > 0) == (experts["num_routed"] > 0)
    adapter.for_inference(torch.float32)  # again, without effect
    assert torch.allclose(prompt_and_step(lm, IDS), expected, atol=1e-4)
    adapter.detach()
    assert torch.allclose(prompt_and_step(lm, IDS), frozen, atol=1e-4)


def test_bfloat16_differs_by_rounding_alone():
    """Both forms, as far from float32 as each other."""
    lm, adapter = adapted(LlamaConfig)
    exact = prompt_and_step(lm, IDS)
    lm.to(torch.bfloat16)
    beside = prompt_and_step(lm, IDS).float()
    adapter.for_inference(torch.bfloat16)
    assert adapter.layers[0].router.weight.dtype == torch.float32
    fused = prompt_and_step(lm, IDS).float()
    assert (fused - exact).norm() < 1.5 * (beside - exact).norm()
    assert (beside - exact).norm() < 0.1 * exact.norm()


def test_close_probabilities_are_told_apart_in_bfloat16(monkeypatch):
    """The experts that are on are those of the highest logits, on CPUs that fuse the router too."""
    monkeypatch.setattr("mome.adapters.mome.can_run", lambda *_: False)
    lm, adapter = adapted(LlamaConfig, torch.bfloat16, num_routed=23, top_k=4, bottleneck=2)
    adapter.for_inference(torch.bfloat16)
    chosen = []
    for experts in adapter.layers:
        gates_of = experts.gates_of

        def record(logits, *args, gates_of=gates_of, count=experts.num_routed):
            gates, probs = gates_of(logits, *args)
            chosen.append((logits.float(), gates[..., :count] > 0))
            return gates, probs

        monkeypatch.setattr(experts, "gates_of", record)
    lm(input_ids=torch.randint(0, 60, (40, 50)))
    assert len(chosen) == len(adapter.layers)
    for logits, on in chosen:
        assert (on.sum(dim=-1) == 4).all()
        highest = logits.topk(4, dim=-1).values.sort(dim=-1).values
        assert torch.equal(logits[on].view(40, 50, 4).sort(dim=-1).values, highest)


def test_weights_are_held_once():
    lm, adapter = adapted(LlamaConfig)
    adapter.for_inference(torch.float32)
    attention, experts = lm.model.layers[1].self_attn, adapter.layers[1]
    for layers in (
        (attention.q_proj, attention.k_proj, attention.v_proj, experts.down),
        (attention.o_proj, experts.up),
    ):
        assert len({layer.weight.untyped_storage().data_ptr() for layer in layers}) == 1


@pytest.mark.parametrize("case", ["names", "position", "large", "lora"])
def test_what_cannot_be_fused_runs_beside(case):
    lm, adapter = adapted(
        OPTConfig if case == "names" else LlamaConfig,
        position="ffn" if case == "position" else "mhsa",
        **(EXPERTS[0] | ({"bottleneck": 128} if case == "large" else {})),
    )
    if case == "lora":
        lm.model.layers[0].self_attn.q_proj = torch.nn.Sequential(
            lm.model.layers[0].self_attn.q_proj
        )
    expected = prompt_and_step(lm, IDS)
    adapter.for_inference(torch.float32)
    fused = [fused is not None for fused in adapter.fused]
    assert fused == ([False, True, True] if case == "lora" else [False] * 3)
    assert torch.allclose(prompt_and_step(lm, IDS), expected, atol=1e-4)


def test_beside_another_block_the_form_for_inference_gives_the_same_bits():
    lm, adapter = adapted(LlamaConfig, torch.bfloat16, "ffn")
    before = prompt_and_step(lm, IDS)
    adapter.for_inference(torch.bfloat16)
    assert adapter.layers[0].up.weight.dtype == torch.bfloat16
    assert adapter.layers[0].router.weight.dtype == torch.float32
    assert torch.equal(prompt_and_step(lm, IDS), before)


def test_a_failed_pass_leaves_nothing_behind():
    lm, adapter = adapted(LlamaConfig)
    expected = prompt_and_step(lm, IDS)
    adapter.for_inference(torch.float32)
    write = lm.model.layers[1].self_attn.o_proj
    forward = write.forward
    write.forward = lambda _: 1 / 0
    with pytest.raises(ZeroDivisionError):
        lm(IDS)
    write.forward = forward
    assert torch.allclose(prompt_and_step(lm, IDS), expected, atol=1e-4)


def test_an_attention_that_projects_different_tensors_is_refused():
    lm, adapter = adapted(LlamaConfig)
    attention = lm.model.layers[0].self_attn
    assert can_fuse(attention, adapter.layers[0])
    adapter.for_inference(torch.float32)
    attention.q_proj(torch.ones(1, 2, 32))
    with pytest.raises(RuntimeError, match="differ; detach"):
        attention.k_proj(torch.zeros(1, 2, 32))


def test_a_machine_whose_gpu_kernel_fails_is_left_to_pytorch(caplog):
    if torch.cuda.is_available():
        pytest.skip("the kernel works here")
    gpu_kernel.cache_clear()
    assert gpu_kernel() is None
    assert "PyTorch computes them" in caplog.text
    gpu_kernel.cache_clear()
