"""Attention by matrix products against a slow loop, PyTorch's fused one, and inside LMs."""

import pytest
import torch
import torch.nn.functional as F
from tiny import SIZES
from transformers import AutoModelForCausalLM, Gemma2Config, LlamaConfig, Qwen3Config
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from mome.llm import attention
from mome.llm.attention import NAME, attend, use_matrix_products


def inputs(length=5, seen=7, dtype=torch.float64):
    torch.manual_seed(0)
    query = torch.randn(2, 6, length, 8, dtype=dtype)
    key, value = torch.randn(2, 2, 3, seen, 8, dtype=dtype)
    mask = torch.rand(2, 1, length, seen) < 0.6
    mask[..., 0] = True
    return query, key, value, mask


def slow_attention(query, key, value, mask):
    """Head by head and query by query; two query heads share a key head."""
    output = torch.zeros(2, query.shape[2], 6, 8, dtype=query.dtype)
    for b in range(2):
        for head in range(6):
            for i in range(query.shape[2]):
                keys = mask[b, 0, i].nonzero().flatten()
                scores = torch.stack([query[b, head, i] @ key[b, head // 2, j] for j in keys])
                weights = (scores * 8**-0.5).exp()
                values = value[b, head // 2, keys]
                output[b, i, head] = (weights[:, None] * values).sum(0) / weights.sum()
    return output


@pytest.mark.parametrize("length", [1, 5])
def test_it_equals_a_slow_loop_with_masks_of_either_kind(length):
    query, key, value, mask = inputs(length)
    expected = slow_attention(query, key, value, mask)
    added = torch.zeros(mask.shape, dtype=query.dtype).masked_fill(~mask, -torch.inf)
    for form in (mask, added):
        assert torch.allclose(attend(query, key, value, form, 8**-0.5), expected, atol=1e-6)
    unmasked = attend(query, key, value, None, 8**-0.5)
    everything = slow_attention(query, key, value, torch.ones_like(mask))
    assert torch.allclose(unmasked, everything, atol=1e-6)


def test_gradients_equal_those_of_the_fused_attention():
    query, key, value, mask = (t.requires_grad_(t.is_floating_point()) for t in inputs())
    target = torch.randn(2, 5, 6, 8, dtype=torch.float64)
    gradients = []
    for output in (
        attend(query, key, value, mask, 8**-0.5),
        F.scaled_dot_product_attention(
            query, key.repeat_interleave(2, 1), value.repeat_interleave(2, 1), mask
        ).transpose(1, 2),
    ):
        gradients.append(torch.autograd.grad((output * target).sum(), (query, key, value)))
    for ours, fused in zip(*gradients, strict=True):
        assert torch.allclose(ours, fused, atol=1e-6)


def lms(config_class, dtype):
    """The same LM with PyTorch's fused attention and with ours."""
    pair = []
    for change in (lambda lm: None, use_matrix_products):
        torch.manual_seed(0)
        lm = AutoModelForCausalLM.from_config(config_class(**SIZES)).eval()
        for parameter in lm.parameters():
            torch.nn.init.normal_(parameter, std=0.2)
        change(lm)
        pair.append(lm.to(dtype))
    return pair


IDS = torch.randint(0, 60, (3, 9), generator=torch.Generator().manual_seed(0))
TREE = (torch.ones(9, 9, dtype=torch.bool).tril() & (torch.arange(9) != 4))[None, None]
TREE = (TREE | torch.eye(9, dtype=torch.bool)).expand(3, 1, 9, 9)


@pytest.mark.parametrize("config_class", [LlamaConfig, Qwen3Config])
@pytest.mark.parametrize("mask", [None, TREE])
def test_an_lm_computes_the_same_in_bfloat16_and_float32(config_class, mask):
    for dtype, bound in ((torch.float32, 1e-5), (torch.bfloat16, 0.05)):
        fused, ours = lms(config_class, dtype)
        assert ours.config._attn_implementation == NAME
        logits, gradients = [], []
        for lm in (fused, ours):
            embeds = lm.get_input_embeddings()(IDS).detach().requires_grad_()
            logits.append(lm(inputs_embeds=embeds, attention_mask=mask).logits.float())
            (gradient,) = torch.autograd.grad(logits[-1].square().mean(), embeds)
            gradients.append(gradient.float())
        for plain, fast in (logits, gradients):
            assert (fast - plain).norm() < bound * plain.norm()


def test_of_long_sequences_it_keeps_less_for_the_backward_pass(monkeypatch):
    """In bfloat16, where it is used: gradients are the same, weights kept or computed again."""
    query, key, value, mask = inputs(64, 64, torch.bfloat16)
    fused, ours = lms(LlamaConfig, torch.bfloat16)
    module = ours.model.layers[0].self_attn
    module.num_key_value_groups = 2
    weights = 2 * 6 * 64 * 64
    kept, gradients = {}, {}
    for case, name, limit in (
        ("fused", fused.config._attn_implementation, 0),
        ("long", NAME, weights - 1),
        ("short", NAME, weights),
    ):
        monkeypatch.setattr(attention, "KEPT", limit)
        sizes = {}

        def pack(tensor, sizes=sizes):
            sizes[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
            return tensor

        tensors = [t.clone().requires_grad_() for t in (query, key, value)]
        with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
            output, _ = ALL_ATTENTION_FUNCTIONS[name](
                module, *tensors, mask, scaling=8**-0.5, dropout=0.0
            )
        gradients[case] = torch.autograd.grad(output.float().pow(2).sum(), tensors)
        kept[case] = sum(sizes.values())
    assert kept["long"] < kept["fused"]
    assert kept["long"] + weights * torch.bfloat16.itemsize <= kept["short"]
    for again, stored in zip(gradients["long"], gradients["short"], strict=True):
        assert torch.equal(again, stored)


def test_an_lm_with_an_attention_of_its_own_keeps_it():
    lm = AutoModelForCausalLM.from_config(Gemma2Config(**SIZES), attn_implementation="eager")
    use_matrix_products(lm)
    assert lm.config._attn_implementation == "eager"
