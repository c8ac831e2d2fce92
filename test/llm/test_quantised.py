"""A quantised LLM, read from disk as any other, and what is trained beside it."""

import pytest
import torch
from tiny import make_lm, prompt_and_step
from transformers import AutoModelForCausalLM, AutoTokenizer, TorchAoConfig

from mome.llm.beam import beam_search
from mome.llm.decoder import MoMELLMDecoder
from mome.llm.prompt_tree import Node

EXPERTS = {"num_routed": 5, "top_k": 2, "bottleneck": 3}
IDS = torch.randint(2, 300, (3, 9), generator=torch.Generator().manual_seed(0))


def kinds() -> dict[str, object]:
    """What torchao calls its kinds of weights; each of them runs on a CPU."""
    pytest.importorskip("torchao", reason="torchao is not installed (pip install torchao)")
    from torchao import quantization

    return {
        "weights": quantization.Int8WeightOnlyConfig(),
        "weights and activations": quantization.Int8DynamicActivationInt8WeightConfig(),
    }


@pytest.mark.parametrize("kind", ["weights", "weights and activations"])
def test_an_lm_in_8_bits_by_torchao(tmp_path, kind):
    folder = make_lm(tmp_path / "lm", hidden_size=64, intermediate_size=128)
    lm = AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.float32, quantization_config=TorchAoConfig(kinds()[kind])
    )
    lm.save_pretrained(tmp_path / "quantised")
    AutoTokenizer.from_pretrained(folder).save_pretrained(tmp_path / "quantised")
    exact = prompt_and_step(AutoModelForCausalLM.from_pretrained(folder).eval(), IDS)

    # Building it tries whether it reads a tree of prompts.
    decoder = MoMELLMDecoder(lm=str(tmp_path / "quantised"), adapter_conf=EXPERTS)
    adapter, lm = decoder.adapter, decoder.lm.inner.eval()
    weight = lm.model.layers[0].self_attn.q_proj.weight
    assert "torchao" in type(weight.data).__module__
    with adapter.disabled():
        rounded = prompt_and_step(lm, IDS)
    assert 0 < (rounded - exact).norm() < 0.05 * exact.norm()

    for layer in adapter.layers:
        torch.nn.init.normal_(layer.up.weight, std=0.3)
    lm(inputs_embeds=decoder.embed(IDS)).logits.logsumexp(-1).mean().backward()
    assert all(layer.down.weight.grad.abs().sum() > 0 for layer in adapter.layers)
    adapter.requires_grad_(False)
    plain = prompt_and_step(lm, IDS)
    assert not torch.allclose(plain, rounded, atol=0.1)
    adapter.for_inference(lm.dtype)
    assert not any(adapter.fused)
    assert torch.allclose(prompt_and_step(lm, IDS), plain, atol=1e-3)

    embeds = decoder.embed(IDS)
    nodes = [Node(embeds, torch.ones(3, 9, dtype=torch.bool), None)]
    found = beam_search(lm, nodes, [0], beam=2, max_new_tokens=3, eos_id=1, adapter=adapter)[0]
    assert all(best[0].score < 0 for best in found)
