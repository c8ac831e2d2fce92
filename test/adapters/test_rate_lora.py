"""LoRA by rate pair against one model per pair whose weights have the update merged in."""

import copy

import pytest
import torch
from tiny_avsr import build, collate, utterances

from mome.adapters.rate_lora import lora_rank
from mome.llm.beam import beam_search
from mome.llm.decoder import MoMELLMDecoder

PAIRS = ["a4_v2", "a4_v5", "a16_v2", "a16_v5"]
STREAMS = ("speech", "speech_lengths", "lips", "lips_lengths")
RANK, SCALE = 3, 0.5


def with_rate_lora(lm, whisper, shared: bool = True, **decoder):
    """A model with random LoRAs for every pair."""
    model = build(lm, whisper, adapter="none")
    conf = {"pairs": PAIRS, "rank": RANK, "scale": SCALE, "shared": shared}
    model.decoder = MoMELLMDecoder(lm=lm, adapter="rate_lora", adapter_conf=conf, **decoder)
    torch.manual_seed(3)
    for parameter in model.decoder.adapter.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return model


def merged(model, pair: str):
    """The same model with one pair's update in the LM's weights and no adapter."""
    single = copy.deepcopy(model)
    adapter = model.decoder.adapter
    single.decoder.adapter = None
    for layer in single.decoder.lm.inner.modules():
        layer._forward_hooks.clear()
    updates = iter(adapter.layers)
    for layer in single.decoder.lm.inner.model.layers:
        for linear in (layer.self_attn.q_proj, layer.self_attn.v_proj):
            update = next(updates)
            chosen = [PAIRS.index(pair)] + ([len(PAIRS)] if adapter.shared else [])
            for index in chosen:
                part = slice(index * RANK, (index + 1) * RANK)
                linear.weight += SCALE * (update.up[:, part] @ update.down[part])
    return single


@pytest.mark.parametrize("shared", [True, False])
@torch.no_grad()
def test_every_pair_reads_with_its_own_lora(tiny_lm, tiny_whisper, shared):
    model = with_rate_lora(tiny_lm, tiny_whisper, shared).eval()
    batch = collate(utterances(3))
    _, stats, _ = model(**batch)
    features = model.encode(
        *(batch[k] for k in ("speech", "speech_lengths", "lips", "lips_lengths"))
    )
    task_pairs = model.draw()
    search = {"beam": 3, "max_new_tokens": 5, "eos_id": model.decoder.eos_id}
    lm, adapter = model.decoder.lm.inner, model.decoder.adapter
    together = beam_search(lm, *model.prompts(features, task_pairs), adapter=adapter, **search)
    losses = set()
    for index, (task, pair) in enumerate(task_pairs):
        single = merged(model, str(pair)).eval()
        loss, _ = single.loss(features, batch["text"], batch["text_lengths"], [(task, pair)])
        assert float(stats[f"loss_avsr_{pair}"]) == pytest.approx(float(loss), abs=1e-4)
        losses.add(round(float(loss), 3))
        prompts = single.prompts(features, [(task, pair)])
        alone = beam_search(single.decoder.lm.inner, *prompts, **search)[0]
        for ours, expected in zip(together[index], alone, strict=True):
            assert [h.tokens for h in ours] == [h.tokens for h in expected]
            assert [h.score for h in ours] == pytest.approx([h.score for h in expected], abs=1e-3)
    assert len(losses) == len(PAIRS)  # the LoRAs do differ


@pytest.mark.parametrize("checkpointing", [False, True])
def test_a_pair_trains_its_own_and_the_shared_lora_alone(tiny_lm, tiny_whisper, checkpointing):
    model = with_rate_lora(tiny_lm, tiny_whisper, gradient_checkpointing=checkpointing).train()
    batch = collate(utterances(2))
    features = model.encode(
        *(batch[k] for k in ("speech", "speech_lengths", "lips", "lips_lengths"))
    )
    task_pair = model.draw()[2]
    loss, _ = model.loss(features, batch["text"], batch["text_lengths"], [task_pair])
    loss.backward()
    for layer in model.decoder.adapter.layers:
        rows = layer.down.grad.unflatten(0, (-1, RANK)).abs().sum((1, 2)) > 0
        columns = layer.up.grad.unflatten(1, (-1, RANK)).abs().sum((0, 2)) > 0
        assert rows.tolist() == columns.tolist() == [False, False, True, False, True]
    active = model.decoder.adapter.num_active_parameters()
    assert (
        active
        == 2 * 2 * (RANK * (32 + 32) + RANK * (32 + 16))
        == 2 * sum(p.numel() for p in model.decoder.adapter.parameters()) // 5
    )


def test_a_fresh_adapter_adds_nothing_and_unknown_pairs_are_named(tiny_lm):
    conf = {"pairs": ["a4_v2"]}
    decoder = MoMELLMDecoder(lm=tiny_lm, adapter="rate_lora", adapter_conf=conf).eval()
    ids = torch.tensor([[5, 6, 7]])
    with torch.no_grad():
        decoder.adapter.select_pairs(["a4_v2"] * 3)
        adapted = decoder.lm.inner(ids).logits
        with decoder.adapter.disabled():
            assert torch.equal(adapted, decoder.lm.inner(ids).logits)
    with pytest.raises(ValueError, match=r"has \['a4_v2'\], but not a16_v5"):
        decoder.adapter.select_pairs(["a16_v5"])


def test_the_rank_follows_the_width_as_in_the_predecessors(tiny_lm):
    decoder = MoMELLMDecoder(lm=tiny_lm, adapter="lora", adapter_conf={"reduction": 4})
    assert decoder.adapter.weights[0].shape == (32 // 4, 32)
    with pytest.raises(ValueError, match="not both"):
        lora_rank(decoder.lm.inner, 8, 4)
    width = decoder.lm.inner.config.hidden_size
    assert lora_rank(decoder.lm.inner, None, width) == 1
    for rank, reduction in ((0, None), (None, 0), (None, width + 1)):
        with pytest.raises(ValueError, match=r"at least 1|from 1 to"):
            lora_rank(decoder.lm.inner, rank, reduction)
