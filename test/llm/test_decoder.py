"""The adapted LLM: trees of prompts against plain prompts, adapters against the frozen LM."""

import pytest
import torch
from tiny import make_lm, random_tree
from transformers import (
    AutoModelForCausalLM,
    Gemma3TextConfig,
    GemmaConfig,
    GPT2Config,
    GraniteConfig,
    LlamaConfig,
)

from mome.adapters import LoRAAdapter, MoMEAdapter
from mome.llm.beam import beam_search
from mome.llm.decoder import MoMELLMDecoder
from mome.llm.prompt_tree import pack_tree, paths


def small_decoder(lm: str, **options) -> MoMELLMDecoder:
    conf = {"num_routed": 5, "top_k": 2, "bottleneck": 3}
    return MoMELLMDecoder(lm=lm, adapter_conf=conf, **options)


@pytest.mark.parametrize("position", ["mhsa", "ffn", "layer"])
def test_adapter_starts_as_the_frozen_lm_and_can_be_removed(tiny_lm, position):
    lm = AutoModelForCausalLM.from_pretrained(tiny_lm).eval()
    ids = torch.randint(2, 40, (2, 9))
    expected = lm(ids).logits
    adapter = MoMEAdapter(lm, position, num_routed=5, top_k=2, bottleneck=1)
    assert torch.equal(lm(ids).logits, expected)
    for layer in adapter.layers:
        torch.nn.init.normal_(layer.up.weight)
    assert not torch.allclose(lm(ids).logits, expected)
    with adapter.disabled():
        assert torch.equal(lm(ids).logits, expected)
    adapter.detach()
    assert torch.equal(lm(ids).logits, expected)


def test_mome_beside_attention_adds_to_what_attention_gives(tiny_lm):
    lm = AutoModelForCausalLM.from_pretrained(tiny_lm).eval()
    adapter = MoMEAdapter(lm, "mhsa", num_routed=5, top_k=2, bottleneck=3)
    torch.nn.init.normal_(adapter.layers[1].up.weight)  # the other layers add nothing
    seen = []
    lm.model.layers[1].self_attn.register_forward_hook(
        lambda _, args, kwargs, out: seen.append((kwargs["hidden_states"], out[0])),
        with_kwargs=True,
    )
    ids = torch.randint(2, 40, (2, 9))
    lm(ids)
    with adapter.disabled():
        lm(ids)
    (hidden, after), (same_hidden, before) = seen
    assert torch.equal(hidden, same_hidden)
    assert not torch.allclose(after, before)
    assert torch.allclose(after, before + adapter.layers[1](hidden)[0], atol=1e-6)


def assert_same_with_gradients(
    adapter: MoMEAdapter, logits: torch.Tensor, expected: torch.Tensor
) -> None:
    """Logits are those expected, and so are the gradients of the adapter's weights."""
    torch.testing.assert_close(logits, expected, atol=1e-5, rtol=1e-4)
    target = torch.randn_like(logits)
    weights = list(adapter.parameters())
    actual = torch.autograd.grad((logits * target).sum(), weights)
    for ours, theirs in zip(
        actual, torch.autograd.grad((expected * target).sum(), weights), strict=True
    ):
        torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=1e-3)


@pytest.mark.parametrize("checkpointing", [False, True])
def test_mome_beside_a_layer_reads_after_its_first_norm(tiny_lm, checkpointing):
    lm = AutoModelForCausalLM.from_pretrained(tiny_lm).requires_grad_(False)
    adapter = MoMEAdapter(lm, "layer", num_routed=5, top_k=2, bottleneck=3)
    for module in adapter.layers:
        torch.nn.init.normal_(module.up.weight, std=0.3)
    if checkpointing:
        lm.gradient_checkpointing_enable({"use_reentrant": False})
        lm.train()
    ids = torch.randint(2, 40, (2, 9))
    hidden = lm.model.embed_tokens(ids)
    position = lm.model.rotary_emb(hidden, torch.arange(9)[None])
    causal = torch.full((9, 9), -torch.inf).triu(1)[None, None]
    with adapter.disabled():  # the LM's own layers, one after the other
        for layer, experts in zip(lm.model.layers, adapter.layers, strict=True):
            plain = layer(hidden, attention_mask=causal, position_embeddings=position)
            plain = plain[0] if isinstance(plain, tuple) else plain
            hidden = plain + experts(layer.input_layernorm(hidden))[0]
        expected = lm.lm_head(lm.model.norm(hidden))
    logits = lm(ids).logits
    assert_same_with_gradients(adapter, logits, expected)
    assert not adapter.read  # nothing is held after a pass


def test_mome_beside_the_feed_forward_reads_after_the_second_norm(tiny_lm):
    lm = AutoModelForCausalLM.from_pretrained(tiny_lm).requires_grad_(False)
    adapter = MoMEAdapter(lm, "ffn", num_routed=5, top_k=2, bottleneck=3)
    for module in adapter.layers:
        torch.nn.init.normal_(module.up.weight, std=0.3)
    for layer in lm.model.layers:  # that it is this norm, and not the first, must show
        torch.nn.init.uniform_(layer.post_attention_layernorm.weight, 0.3, 3.0)
    ids = torch.randint(2, 40, (2, 9))
    hidden = lm.model.embed_tokens(ids)
    position = lm.model.rotary_emb(hidden, torch.arange(9)[None])
    causal = torch.full((9, 9), -torch.inf).triu(1)[None, None]
    with adapter.disabled():
        for layer, experts in zip(lm.model.layers, adapter.layers, strict=True):
            read = layer.input_layernorm(hidden)
            attended = layer.self_attn(read, attention_mask=causal, position_embeddings=position)[0]
            hidden = hidden + attended
            read = layer.post_attention_layernorm(hidden)
            hidden = hidden + layer.mlp(read) + experts(read)[0]
        expected = lm.lm_head(lm.model.norm(hidden))
    logits = lm(ids).logits
    assert_same_with_gradients(adapter, logits, expected)


def test_lora_baseline_starts_as_the_frozen_lm(tiny_lm):
    lm = AutoModelForCausalLM.from_pretrained(tiny_lm).eval()
    ids = torch.randint(2, 40, (2, 9))
    expected = lm(ids).logits
    adapter = LoRAAdapter(lm, rank=2)
    assert torch.equal(lm(ids).logits, expected)
    for weight in adapter.weights:
        torch.nn.init.normal_(weight)
    assert not torch.allclose(lm(ids).logits, expected)
    with adapter.disabled():
        assert torch.allclose(lm(ids).logits, expected, atol=1e-6)


def test_a_tree_equals_its_paths_one_by_one(tiny_lm):
    decoder = small_decoder(tiny_lm).eval()
    for layer in decoder.adapter.layers:
        torch.nn.init.normal_(layer.up.weight, std=0.3)
    nodes = random_tree(decoder.dim, torch.Generator().manual_seed(0))
    for leaf, path in [(2, [0, 1, 2]), (3, [0, 1, 3]), (4, [0, 4])]:
        length = nodes[leaf].embeds.shape[1]
        (logits,), _ = decoder.forward_tree(nodes, [(leaf, 0, length)])
        for row in range(3):  # each row alone, without any padding
            kept = [nodes[n].embeds[row][nodes[n].mask[row]] for n in path]
            alone = decoder.lm(inputs_embeds=torch.cat(kept)[None]).logits[0]
            wanted = logits[row][nodes[leaf].mask[row]]
            assert torch.allclose(wanted, alone[-len(wanted) :], atol=1e-4)


def test_the_paths_of_a_tree_are_the_columns_of_its_prompts():
    nodes = random_tree(4, torch.Generator().manual_seed(0))  # of 2, 4, 5, 3 and 4 columns
    expected = torch.zeros(3, 18, dtype=torch.bool)
    expected[0, :11] = True
    expected[1, [*range(6), *range(11, 14)]] = True
    expected[2, [0, 1, *range(14, 18)]] = True
    assert torch.equal(paths(nodes), expected)


def test_packed_positions_count_valid_tokens_from_the_root():
    nodes = random_tree(4, torch.Generator().manual_seed(1))
    _, mask, positions, _, offsets = pack_tree(nodes)
    for row in range(3):
        before = int(nodes[0].mask[row].sum() + nodes[1].mask[row].sum())
        start = offsets[3]
        valid = positions[row, start : start + 3][mask[row, start : start + 3]]
        assert valid.tolist() == list(range(before, before + len(valid)))


def test_only_adapter_and_markers_train(tiny_lm):
    decoder = small_decoder(tiny_lm, encoder_output_size=8)
    assert {name.split(".")[0] for name, _ in decoder.named_parameters()} == {
        "markers",
        "adapter",
        "linear_in",
    }
    logits, _ = decoder(
        torch.randn(2, 6, 8), torch.tensor([6, 4]), torch.full((2, 5), 7), torch.tensor([5, 3])
    )
    assert logits.shape == (2, 5, decoder.vocab_size)
    logits.sum().backward()
    assert all(p.grad is None for p in decoder.lm.inner.parameters())
    assert not any(key.startswith("lm") for key in decoder.state_dict())


def test_a_frozen_lm_keeps_its_dtype(tiny_lm):
    decoder = small_decoder(tiny_lm, lm_dtype="bfloat16").to(torch.float32)
    assert decoder.lm.inner.dtype == torch.bfloat16
    assert decoder.markers.dtype == torch.float32
    assert not decoder.train().lm.inner.training


def test_gradient_checkpointing_changes_nothing(tiny_lm):
    torch.manual_seed(0)
    nodes = random_tree(32, torch.Generator().manual_seed(2))
    gradients = []
    for checkpointing in (False, True):
        torch.manual_seed(0)
        decoder = small_decoder(tiny_lm, gradient_checkpointing=checkpointing).train()
        for layer in decoder.adapter.layers:
            torch.nn.init.normal_(layer.up.weight, std=0.3)
        logits, balance = decoder.forward_tree(nodes, [(2, 0, 5)])
        (logits[0].sum() + balance).backward()
        gradients.append([p.grad for p in decoder.adapter.parameters()])
    assert all(torch.allclose(a, b, atol=1e-6) for a, b in zip(*gradients, strict=True))


@pytest.mark.parametrize("config_class", [LlamaConfig, GPT2Config])
def test_an_lm_trained_with_gradient_checkpointing_decodes_and_draws_no_dropout(
    tmp_path, config_class
):
    dropout = {"attention_dropout": 0.3, "resid_pdrop": 0.3, "embd_pdrop": 0.3, "attn_pdrop": 0.3}
    lm = str(make_lm(tmp_path / "lm", config_class=config_class, **dropout))
    nodes = random_tree(32, torch.Generator().manual_seed(2))
    search = {"beam": 3, "max_new_tokens": 4, "eos_id": 1}
    logits, found = [], []
    for checkpointing in (False, True):
        decoder = small_decoder(lm, gradient_checkpointing=checkpointing).train()
        logits.append(decoder.forward_tree(nodes, [(2, 0, 5)])[0][0])
        assert logits[-1].requires_grad
        assert not any(module.training for module in decoder.lm.inner.modules())
        found.append(beam_search(decoder.lm.inner, nodes, [2, 3], **search))
    assert torch.equal(*logits)
    assert found[0] == found[1]


def test_gradient_checkpointing_keeps_the_inputs_of_layers_alone(tiny_lm):
    nodes = random_tree(32, torch.Generator().manual_seed(2))
    kept = []
    for checkpointing in (False, True):
        decoder = small_decoder(tiny_lm, gradient_checkpointing=checkpointing).train()
        tensors = {}

        def pack(tensor, tensors=tensors):
            tensors[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            logits, _ = decoder.forward_tree(nodes, [(2, 0, 5)])
        kept.append(sum(tensors.values()))
        del logits
    assert kept[1] < 0.7 * kept[0]


@pytest.mark.parametrize("config_class", [LlamaConfig, GemmaConfig, GraniteConfig])
@torch.no_grad()
def test_markers_start_as_the_mean_of_what_the_lm_reads_of_their_spelling(tmp_path, config_class):
    scaled = {"embedding_multiplier": 3.0}  # Granite's, which the others do not know
    lm = make_lm(tmp_path / "lm", config_class=config_class, **scaled)
    decoder = small_decoder(str(lm))
    ids = torch.tensor(decoder.tokenizer.encode("</audio>", add_special_tokens=False))
    seen = []
    layer = decoder.lm.inner.model.layers[0]
    layer.register_forward_pre_hook(
        lambda _, args, kwargs: seen.append(args[0] if args else kwargs["hidden_states"]),
        with_kwargs=True,
    )
    decoder.lm(input_ids=ids[None])  # what comes to the first layer, of the spelling, ...
    decoder.lm(inputs_embeds=decoder.markers[1][None, None])  # ... and of the marker
    torch.testing.assert_close(seen[1][0, 0], seen[0][0].mean(0))


@pytest.mark.parametrize("config_class", [LlamaConfig, Gemma3TextConfig])
def test_the_vocabulary_is_what_the_lm_reads_of_each_token(tmp_path, config_class):
    decoder = small_decoder(str(make_lm(tmp_path / "lm", config_class=config_class)))
    ids = torch.arange(decoder.vocab_size)
    assert torch.equal(decoder.vocabulary(), decoder.embed(ids))
    of_table = torch.equal(decoder.vocabulary(), decoder.embeddings.weight)
    assert of_table == (config_class is LlamaConfig)  # Gemma's module scales the rows


def test_a_token_list_larger_than_the_lm_is_refused(tiny_lm):
    with pytest.raises(ValueError, match="token list"):
        small_decoder(tiny_lm, vocab_size=100_000)
