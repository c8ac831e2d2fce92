"""The contract of adapters: attached and taken off again, alone and together."""

import copy
import gc
import weakref
from functools import partial

import pytest
import torch
from tiny import prompt_and_step
from transformers import AutoModelForCausalLM

from mome.adapters import Adapter, attach, register_adapter, register_gate
from mome.adapters.base import ADAPTERS, find_layers
from mome.common.activation_checkpointing import recompute_in_backward

CONFS = {
    "mome": {"num_routed": 5, "top_k": 2, "bottleneck": 3},
    "lora": {"rank": 2},
    "rate_lora": {"rank": 2, "pairs": ["a4_v2", "a16_v5"]},
}
IDS = torch.randint(0, 60, (3, 9), generator=torch.Generator().manual_seed(0))
close = partial(torch.testing.assert_close, atol=1e-4, rtol=1e-4)


def frozen_lm(folder: str):
    lm = AutoModelForCausalLM.from_pretrained(folder).eval().requires_grad_(False)
    for name, parameter in lm.named_parameters():
        if "self_attn" in name:
            torch.nn.init.normal_(parameter, std=0.3)
    return lm


def random_adapter(lm, name, seed=0, **conf):
    torch.manual_seed(seed)
    adapter = attach(lm, name, CONFS[name] | conf)
    for parameter in adapter.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    adapter.select_pairs(["a4_v2"])
    return adapter


@pytest.mark.parametrize("inference", [False, True])
@pytest.mark.parametrize("name", CONFS)
@torch.no_grad()
def test_every_adapter_keeps_the_contract(tiny_lm, name, inference):
    lm = frozen_lm(tiny_lm)
    frozen, modules = prompt_and_step(lm, IDS), [type(module) for module in lm.modules()]
    names = [name for name, _ in lm.named_parameters()]
    adapter = random_adapter(lm, name)
    assert isinstance(adapter, Adapter)
    if inference:
        adapter.for_inference(torch.float32)
    adapted = prompt_and_step(lm, IDS)
    assert not torch.allclose(adapted, frozen, atol=1e-3)
    with adapter.disabled():
        close(prompt_and_step(lm, IDS), frozen)
        with adapter.disabled():
            pass
        close(prompt_and_step(lm, IDS), frozen)  # still off
    close(prompt_and_step(lm, IDS), adapted)
    with adapter.recording(torch.ones(IDS.shape, dtype=torch.bool)):
        lm(IDS)
        assert (adapter.balance_loss() > 0) == (name == "mome")
    assert 0 < adapter.num_active_parameters() <= sum(p.numel() for p in adapter.parameters())
    assert adapter.by_pair == (name == "rate_lora")
    adapter.detach()
    close(prompt_and_step(lm, IDS), frozen)
    assert [type(module) for module in lm.modules()] == modules
    assert [name for name, _ in lm.named_parameters()] == names
    again = random_adapter(lm, name)
    close(prompt_and_step(lm, IDS), adapted)
    again.detach()


@pytest.mark.parametrize("prepared_for", ["training", "checkpointing", "inference"])
@pytest.mark.parametrize("name", [*CONFS, "beside layers"])
@torch.no_grad()
def test_a_copy_of_lm_and_adapter_is_independent_of_both(tiny_lm, name, prepared_for):
    lm = frozen_lm(tiny_lm)
    frozen = prompt_and_step(lm, IDS)
    if prepared_for == "checkpointing":
        for layer in find_layers(lm):
            recompute_in_backward(layer)
    if name == "beside layers":
        adapter = random_adapter(lm, "mome", position="layer")
    else:
        adapter = random_adapter(lm, name)
    if prepared_for == "inference":
        adapter.for_inference(torch.float32)
    adapted = prompt_and_step(lm, IDS)
    lm_copy, adapter_copy = copy.deepcopy((lm, adapter))
    for parameter in (*lm.parameters(), *adapter.parameters()):
        parameter.zero_()
    close(prompt_and_step(lm_copy, IDS), adapted)
    adapter_copy.detach()
    close(prompt_and_step(lm_copy, IDS), frozen)


def test_a_recorded_pass_that_fails_leaves_no_graph_behind(tiny_lm):
    """As after running out of memory: what was recorded would keep the pass from being freed."""
    lm = frozen_lm(tiny_lm)
    adapter = random_adapter(lm, "mome")
    kept = []

    def fail(*_):
        kept.append(weakref.ref(adapter.routing[0][0]))
        raise MemoryError

    handle = lm.model.norm.register_forward_hook(fail)
    with pytest.raises(MemoryError), adapter.recording(torch.ones(IDS.shape, dtype=torch.bool)):
        lm(IDS)
    handle.remove()
    gc.collect()
    assert len(kept) == 1
    assert kept[0]() is None


@pytest.mark.parametrize("inference", [False, True])
@torch.no_grad()
def test_two_adapters_of_the_same_blocks_come_off_in_the_opposite_order(tiny_lm, inference):
    lm = frozen_lm(tiny_lm)
    frozen = prompt_and_step(lm, IDS)
    first = random_adapter(lm, "mome", seed=1)
    if inference:
        first.for_inference(torch.float32)
    with_first = prompt_and_step(lm, IDS)
    second = random_adapter(lm, "mome", seed=2)
    both = prompt_and_step(lm, IDS)
    if inference:  # the projections are the first one's already
        second.for_inference(torch.float32)
        assert not any(second.fused)
        close(prompt_and_step(lm, IDS), both)
    with pytest.raises(RuntimeError, match="opposite order"):
        first.detach()
    close(prompt_and_step(lm, IDS), both)
    second.detach()
    close(prompt_and_step(lm, IDS), with_first)
    first.detach()
    close(prompt_and_step(lm, IDS), frozen)


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
@torch.no_grad()
def test_adapters_of_different_parts_come_off_in_any_order(tiny_lm, order):
    lm = frozen_lm(tiny_lm)
    frozen = prompt_and_step(lm, IDS)
    adapters = [random_adapter(lm, "mome"), random_adapter(lm, "lora")]
    with adapters[order[0]].disabled():
        rest = prompt_and_step(lm, IDS)
    adapters[order[0]].detach()
    close(prompt_and_step(lm, IDS), rest)
    assert not torch.allclose(rest, frozen, atol=1e-3)
    adapters[order[1]].detach()
    close(prompt_and_step(lm, IDS), frozen)


def test_a_second_lora_is_refused(tiny_lm):
    lm = frozen_lm(tiny_lm)
    random_adapter(lm, "lora")
    with pytest.raises(ValueError, match="has LoRA already"):
        random_adapter(lm, "lora")


def test_what_is_no_adapter_cannot_be_registered_and_names_are_not_taken_twice():
    with pytest.raises(TypeError, match="must derive from"):
        register_adapter("module")(torch.nn.Linear)
    with pytest.raises(ValueError, match=r"'mome' is taken by mome.adapters.mome.MoMEAdapter"):
        register_adapter("mome")(type("Other", (Adapter,), {}))
    with pytest.raises(ValueError, match="'softmax_topk' is taken"):
        register_gate("softmax_topk")(lambda logits, probs, top_k: logits.topk(top_k))
    with pytest.raises(ValueError, match="stands for the frozen LM"):
        register_adapter("none")(type("Other", (Adapter,), {}))
    assert "none" not in ADAPTERS
