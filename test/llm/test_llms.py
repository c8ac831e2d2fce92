"""The LMs that are supported, each with small random weights, and some that are refused."""

from functools import partial

import pytest
import torch
from tiny import make_lm, plain_search, prompt_and_step, random_tree
from transformers import AutoConfig, AutoModelForCausalLM

from mome.adapters import attach
from mome.llm import trial
from mome.llm.attention import use_matrix_products
from mome.llm.beam import beam_search
from mome.llm.decoder import MoMELLMDecoder
from mome.llm.trial import check_reads_trees

# By the name of their configuration in Transformers; docs/llms.md lists them. Widths are those that
# the compiled experts take, windows shorter than the prompts.
WINDOW = {"sliding_window": 4}
MOE = {"num_local_experts": 4, "num_experts": 4, "moe_intermediate_size": 16}
MOE |= {"num_experts_per_tok": 2, "pad_token_id": 1}
SUPPORTED = {
    "llama": {},
    "mistral": WINDOW,
    "ministral": WINDOW,
    "mixtral": WINDOW | MOE,
    "qwen2": WINDOW | {"use_sliding_window": True, "max_window_layers": 1},
    "qwen3": {},
    "qwen3_moe": MOE,
    "gemma": {},
    "gemma2": WINDOW,
    "gemma3_text": WINDOW | {"layer_types": ["sliding_attention", "full_attention"]},
    "phi": {},
    "phi3": WINDOW,
    "gpt2": {},
    "gpt_bigcode": {},
    "gpt_neox": {},
    "gptj": {"rotary_dim": 8},
    "gpt_oss": WINDOW | MOE,
    "opt": {"ffn_dim": 48, "word_embed_proj_dim": 64, "pad_token_id": 1},
    "falcon": {"head_dim": None},
    "stablelm": {},
    "cohere": {},
    "cohere2": WINDOW | {"layer_types": ["sliding_attention", "full_attention"]},
    "olmo": {},
    "olmo2": {},
    "olmo3": WINDOW,
    "granite": {"embedding_multiplier": 3.0},
    "smollm3": {},
    "starcoder2": WINDOW,
    "glm": {},
    "glm4": {},
    "helium": {},
    "xglm": {"d_model": 64, "attention_heads": 4, "num_layers": 2, "ffn_dim": 48},
    "biogpt": {},
    "deepseek_v3": MOE
    | {"q_lora_rank": 16, "kv_lora_rank": 16, "qk_rope_head_dim": 8, "qk_nope_head_dim": 8}
    | {"v_head_dim": 12, "head_dim": 8, "num_key_value_heads": 4, "n_routed_experts": 4}
    | {"n_group": 1, "topk_group": 1, "first_k_dense_replace": 1},
}
NO_FFN = {"opt", "xglm", "biogpt"}  # two linear layers, which no block holds
SIZES = {"hidden_size": 64, "head_dim": 16, "intermediate_size": 48}
EXPERTS = {"num_routed": 5, "top_k": 2, "bottleneck": 3}


@pytest.fixture(scope="module")
def folder_of(tmp_path_factory):
    """Makes the folder of a small LM by its name, once."""
    folders = {}

    def make(name):
        if name not in folders:
            sizes = {key: value for key, value in (SIZES | SUPPORTED[name]).items() if value}
            config = partial(AutoConfig.for_model, name)
            folders[name] = make_lm(tmp_path_factory.mktemp(name), config_class=config, **sizes)
        return str(folders[name])

    return make


def strong(lm):
    """Weights so large that attention matters; norms stay as they are."""
    generator = torch.Generator().manual_seed(0)
    for weight in lm.parameters():
        if weight.dim() > 1:
            weight.data.normal_(std=0.15, generator=generator)
    return lm


def strong_decoder(folder, position="mhsa"):
    torch.manual_seed(0)
    decoder = MoMELLMDecoder(lm=folder, adapter_conf=EXPERTS | {"position": position}).eval()
    strong(decoder.lm.inner)
    for layer in decoder.adapter.layers:
        torch.nn.init.normal_(layer.up.weight, std=0.3)
    return decoder


@pytest.mark.parametrize("position", ["mhsa", "ffn", "layer"])
@pytest.mark.parametrize("name", SUPPORTED)
@torch.no_grad()
def test_a_tree_equals_its_prompts_with_an_adapter_anywhere(folder_of, name, position):
    folder = folder_of(name)
    if position == "ffn" and name in NO_FFN:
        with pytest.raises(ValueError, match=r"has no block called mlp .*position mhsa or layer"):
            strong_decoder(folder, position)
        return
    decoder = strong_decoder(folder, position)
    nodes = random_tree(decoder.dim, torch.Generator().manual_seed(0))
    paths = {2: [0, 1, 2], 3: [0, 1, 3], 4: [0, 4]}
    asked = [(leaf, 0, nodes[leaf].embeds.shape[1]) for leaf in paths]
    found, _ = decoder.forward_tree(nodes, asked)
    with decoder.adapter.disabled():
        frozen, _ = decoder.forward_tree(nodes, asked)
    for (leaf, path), logits, without in zip(paths.items(), found, frozen, strict=True):
        for row in range(3):  # each row alone, without any padding
            kept = [nodes[n].embeds[row][nodes[n].mask[row]] for n in path]
            alone = decoder.lm(inputs_embeds=torch.cat(kept)[None], use_cache=False).logits[0]
            wanted = logits[row][nodes[leaf].mask[row]]
            bound = 1e-3 * float(alone.abs().max())
            assert torch.allclose(wanted, alone[-len(wanted) :], rtol=0, atol=bound)
            assert not torch.allclose(wanted, without[row][nodes[leaf].mask[row]], atol=bound)


@pytest.mark.parametrize("name", SUPPORTED)
def test_the_search_finds_what_a_search_without_cache_and_mask_finds(folder_of, name):
    decoder = strong_decoder(folder_of(name))
    nodes = random_tree(decoder.dim, torch.Generator().manual_seed(3))
    lm, leaves, texts = decoder.lm.inner, {2: [0, 1, 2], 4: [0, 4]}, set()
    together = beam_search(lm, nodes, list(leaves), beam=3, max_new_tokens=4, eos_id=1)
    for row, (path, of_utterances) in enumerate(zip(leaves.values(), together, strict=True)):
        found = of_utterances[row]
        prompt = torch.cat([nodes[n].embeds[row][nodes[n].mask[row]] for n in path])
        expected = plain_search(lm, prompt, beam=3, limit=4)
        assert [(h.tokens, h.finished) for h in found] == [(t, f) for t, _, f in expected]
        scores = [score for _, score, _ in expected]
        assert [h.score for h in found] == pytest.approx(scores, rel=1e-3, abs=1e-2)
        texts.add(tuple(found[0].tokens))
    assert len(texts) == 2  # the prompts matter


@pytest.mark.parametrize("compiled", [True, False])
@pytest.mark.parametrize("name", SUPPORTED)
@torch.no_grad()
def test_the_fast_forms_of_the_experts_equal_the_plain_one(folder_of, name, compiled, monkeypatch):
    if not compiled:
        monkeypatch.setattr("mome.adapters.mome.can_run", lambda experts, dtype: False)
    lm = strong(AutoModelForCausalLM.from_pretrained(folder_of(name)).eval())
    ids = torch.randint(2, 300, (3, 9), generator=torch.Generator().manual_seed(0))
    torch.manual_seed(0)
    adapter = attach(lm, "mome", EXPERTS)
    for layer in adapter.layers:
        torch.nn.init.normal_(layer.up.weight, std=0.3)
    plain = prompt_and_step(lm, ids)
    adapter.for_inference(torch.float32)
    if name == "llama":  # what is fused where elsewhere depends on the names of projections
        assert all(adapter.fused)
    fast = prompt_and_step(lm, ids)
    assert torch.allclose(fast, plain, rtol=0, atol=1e-3 * float(plain.abs().max()))
    with adapter.disabled():
        assert not torch.allclose(prompt_and_step(lm, ids), plain, atol=1e-2)


REFUSED = {
    "bloom": {},
    "mpt": {"d_model": 64, "n_heads": 4, "n_layers": 2},
    "rwkv": {"attention_hidden_size": 64},
    "gemma4_text": {"pad_token_id": 1, "vocab_size_per_layer_input": 60},
    "gemma3n_text": {"pad_token_id": 1, "vocab_size_per_layer_input": 60, "num_hidden_layers": 4}
    | {"layer_types": ["sliding_attention", "full_attention"] * 2, "num_kv_shared_layers": 2}
    | {"activation_sparsity_pattern": None},
    "bert-generation": {"pad_token_id": 1},
}


@pytest.mark.parametrize("name", REFUSED)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_an_lm_that_knows_more_of_the_order_than_it_is_given_is_refused(name, dtype):
    torch.manual_seed(0)
    sizes = {"vocab_size": 60, "num_hidden_layers": 2, "num_attention_heads": 4}
    config = AutoConfig.for_model(
        name, **SIZES | sizes | {"num_key_value_heads": 2} | REFUSED[name]
    )
    lm = strong(AutoModelForCausalLM.from_config(config).eval())
    for parameter in lm.parameters():
        if parameter.dim() == 1:  # Gemma 3n's scales start at zero
            torch.nn.init.normal_(parameter, std=0.5)
    lm.to(dtype)
    with pytest.raises(ValueError, match=f"{type(lm).__name__} (cannot read|reads) .*docs/llms.md"):
        check_reads_trees(lm)


def test_windows_are_tried_although_they_are_longer_than_the_trial(monkeypatch):
    config = AutoConfig.for_model("mistral", **SIZES, vocab_size=60, num_hidden_layers=2)
    assert config.sliding_window > 100
    lm = strong(AutoModelForCausalLM.from_config(config).eval())
    check_reads_trees(lm)
    assert config.sliding_window > 100
    monkeypatch.setattr("mome.llm.masks.windows_of", lambda lm: None)
    with pytest.raises(ValueError, match="as in training, otherwise than the prompts"):
        check_reads_trees(lm)
    assert config.sliding_window > 100


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_trial_leaves_random_numbers_and_the_lm_as_they_are(folder_of, dtype):
    lm = AutoModelForCausalLM.from_pretrained(folder_of("llama"), dtype=dtype).eval()
    use_matrix_products(lm)
    state = torch.get_rng_state()
    before = {name: tensor.clone() for name, tensor in lm.state_dict().items()}
    frequencies = lm.model.rotary_emb.inv_freq.clone()
    tokens = []
    lm.model.register_forward_hook(
        lambda _, args, kwargs, output: tokens.append(output[0].shape[:2].numel()),
        with_kwargs=True,
    )
    check_reads_trees(lm)
    assert torch.equal(torch.get_rng_state(), state)
    for name, tensor in lm.state_dict().items():
        assert tensor.dtype == before[name].dtype
        assert torch.equal(tensor, before[name])
    assert lm.lm_head.weight.dtype == dtype
    assert torch.equal(lm.model.rotary_emb.inv_freq, frequencies)
    assert 0 < sum(tokens) < 64  # a handful, so that an LM of billions of parameters is tried fast


def test_on_the_meta_device_only_the_configuration_is_looked_at(folder_of):
    config = AutoConfig.from_pretrained(folder_of("llama"))
    with torch.device("meta"):
        lm = AutoModelForCausalLM.from_config(config)
        trial.check_reads_trees(lm)
        lm.config.layer_types = ["full_attention", "linear_attention"]
        with pytest.raises(ValueError, match="linear_attention"):
            trial.check_reads_trees(lm)
