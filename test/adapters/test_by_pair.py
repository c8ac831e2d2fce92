"""Routing by rate pair against modules that know one pair alone."""

import pytest
import torch
from tiny import SIZES
from transformers import AutoModelForCausalLM, LlamaConfig, PreTrainedModel

from mome.adapters import MoMEAdapter
from mome.adapters.by_pair import PairMoME
from mome.adapters.experts import MoME

PAIRS = ["a4_v2", "a4_v5", "a16_v2"]
TOP_KS = {"a4_v2": 4, "a4_v5": 1, "a16_v2": 2}
COLUMNS = ["a4_v5", "a4_v5", "a16_v2", "a4_v2", "a16_v2"]


def random_pairs(**options) -> PairMoME:
    torch.manual_seed(0)
    module = PairMoME(12, num_routed=6, bottleneck=3, **options)
    for parameter in module.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    return module


def alone(module: PairMoME, pair: str) -> MoME:
    """The module as it is for one pair."""
    place = module.pairs.index(pair)
    single = MoME(12, 6, 1, 3, module.top_ks[place], gate=module.gate)
    state = module.state_dict()
    own = {n.replace(f"router.{place}.", "router."): tensor for n, tensor in state.items()}
    single.load_state_dict({n: own[n] for n in single.state_dict()})
    return single


@pytest.mark.parametrize("gate", ["softmax_topk", "renormalized_topk"])
@pytest.mark.parametrize(
    "options",
    [
        {"top_k": TOP_KS},
        {"top_k": 2, "disjoint_routers": PAIRS},
        {"top_k": TOP_KS, "disjoint_routers": PAIRS},
    ],
)
def test_every_column_is_routed_as_its_pair_alone(options, gate):
    module = random_pairs(gate=gate, **options)
    hidden = torch.randn(2, 5, 12)
    module.select_pairs(COLUMNS)
    output, gates, probs = module(hidden)
    target = torch.randn_like(output)
    (output * target).sum().backward()
    gradient = torch.zeros_like(module.down.weight)
    for pair in PAIRS:
        columns = [index for index, name in enumerate(COLUMNS) if name == pair]
        single = alone(module, pair)
        expected, single_gates, single_probs = single(hidden[:, columns])
        torch.testing.assert_close(output[:, columns], expected)
        torch.testing.assert_close(gates[:, columns], single_gates)
        torch.testing.assert_close(probs[:, columns], single_probs)
        (expected * target[:, columns]).sum().backward()
        gradient += single.down.weight.grad
    torch.testing.assert_close(module.down.weight.grad, gradient)


def test_active_parameters_are_those_of_one_router_and_the_largest_k():
    module = random_pairs(top_k=TOP_KS, disjoint_routers=PAIRS)
    assert module.num_active_parameters() == alone(module, "a4_v2").num_active_parameters()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"top_k": {"a4_v2": 2, "a16_v5": 7}}, "top_k=7 of a16_v5 must lie between 1 and"),
        ({"top_k": {"a4_v2": 0}}, "top_k=0 of a4_v2"),
        ({"top_k": {"a4_v2": 2}, "disjoint_routers": ["a4_v5"]}, "name the same rate pairs"),
        ({"top_k": {}}, "names no pair"),
        ({"top_k": 2, "disjoint_routers": []}, "names no pair"),
    ],
)
def test_contradictions_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        PairMoME(12, num_routed=6, bottleneck=3, **options)


def test_a_pair_must_be_selected_and_known():
    module = random_pairs(top_k=TOP_KS)
    with pytest.raises(RuntimeError, match="no rate pair was selected"):
        module(torch.randn(2, 5, 12))
    with pytest.raises(ValueError, match=r"but not a1_v1"):
        module.select_pairs(["a1_v1"])


def tiny_lm() -> PreTrainedModel:
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(LlamaConfig(**SIZES)).eval().requires_grad_(False)


@pytest.mark.parametrize("disjoint", [None, []])
def test_an_empty_list_of_routers_unsets_that_of_a_base_configuration(disjoint):
    adapter = MoMEAdapter(tiny_lm(), num_routed=6, bottleneck=3, disjoint_routers=disjoint)
    assert not adapter.by_pair
    assert not adapter.pairs
    assert type(adapter.experts[0]) is MoME


def test_experts_of_a_subclass_are_not_replaced_silently():
    class OwnExperts(MoME):
        pass

    class OwnAdapter(MoMEAdapter):
        experts_class = OwnExperts

    assert type(OwnAdapter(tiny_lm(), num_routed=6).experts[0]) is OwnExperts
    with pytest.raises(ValueError, match=r"not of OwnExperts"):
        OwnAdapter(tiny_lm(), num_routed=6, top_k=TOP_KS)


@torch.no_grad()
def test_an_adapted_lm_answers_each_pair_and_the_form_for_inference_gives_the_same():
    lm = tiny_lm()
    adapter = MoMEAdapter(lm, num_routed=6, bottleneck=3, top_k=TOP_KS, disjoint_routers=PAIRS)
    for parameter in adapter.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    ids = torch.randint(0, 60, (2, 7))
    assert adapter.by_pair
    before = {}
    for pair in PAIRS:
        adapter.select_pairs([pair])
        before[pair] = lm(ids).logits
    assert not torch.allclose(before["a4_v2"], before["a16_v2"], atol=0.1)
    adapter.for_inference(torch.float32)
    for pair in PAIRS:
        adapter.select_pairs([pair])
        torch.testing.assert_close(lm(ids).logits, before[pair], atol=1e-4, rtol=1e-4)
