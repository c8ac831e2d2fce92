"""Shares of experts against the routers' own choices in a plain pass of the LM."""

import numpy as np
import pytest
import torch
from tiny_avsr import build, collate, utterances

from mome.analysis.routing import expert_shares, experts_in_use, overlap, overlap_by_chance
from mome.models.rates import TaskPair, parse_rate_pair


@pytest.fixture(scope="module")
def model(tiny_lm, tiny_whisper):
    built = build(tiny_lm, tiny_whisper, tasks=["avsr", "asr", "vsr"]).eval()
    for layer in built.decoder.adapter.layers:
        torch.nn.init.normal_(layer.router.weight)  # so that tokens differ in their experts
    return built


def features_of(model, items):
    batch = {k: v for k, v in collate(items).items() if not k.startswith("text")}
    with torch.no_grad():
        return model.encode(**batch)


@pytest.mark.parametrize(
    ("task", "rates", "kinds"),
    [
        ("avsr", "a4_v2", ["audio", "video", "text"]),
        ("asr", "a16", ["audio", "text"]),
        ("vsr", "v5", ["video", "text"]),
    ],
)
@torch.no_grad()
def test_shares_are_those_of_a_plain_pass(model, task, rates, kinds):
    (item,) = utterances(1)
    features = features_of(model, [item])
    pair = parse_rate_pair(rates)
    words = [7, 8, 9]
    found = expert_shares(model, features, TaskPair(task, pair), [words])
    assert list(found) == kinds

    decoder = model.decoder
    parts, labels = [decoder.embed(torch.tensor([[decoder.bos_id]]))], ["text"]
    for place, (kind, rate) in enumerate((("audio", pair.audio), ("video", pair.video))):
        if rate is not None:
            tokens = model.project(features, kind, rate)[0]
            markers = decoder.markers[2 * place : 2 * place + 2, None]
            parts += [markers[:1], tokens, markers[1:]]
            labels += ["text", *[kind] * tokens.shape[1], "text"]
    text = [*model.prompt_ids[task], *words]
    parts.append(decoder.embed(torch.tensor([text])))
    labels += ["text"] * len(text)
    logits: list[torch.Tensor] = []
    hooks = [
        layer.router.register_forward_hook(lambda _, __, output: logits.append(output))
        for layer in decoder.adapter.layers
    ]
    decoder.lm.inner(inputs_embeds=torch.cat(parts, dim=1))
    for hook in hooks:
        hook.remove()
    for kind in kinds:
        here = torch.tensor([label == kind for label in labels])
        for layer, given in enumerate(logits):
            counts = torch.bincount(given[here].topk(2).indices.flatten(), minlength=5)
            expected = counts / counts.sum()
            np.testing.assert_allclose(found[kind][layer], expected, atol=1e-6)


def test_a_batch_counts_as_its_utterances_together(model):
    items = utterances(2)
    chosen = TaskPair("avsr", parse_rate_pair("a4_v2"))
    words = [[7, 8], [9, 10, 11, 12]]
    together = expert_shares(model, features_of(model, items), chosen, words)
    alone = [
        expert_shares(model, features_of(model, [item]), chosen, [said])
        for item, said in zip(items, words, strict=True)
    ]
    for kind, share in together.items():
        lowest = np.minimum(alone[0][kind], alone[1][kind])
        highest = np.maximum(alone[0][kind], alone[1][kind])
        assert (share >= lowest - 1e-9).all()
        assert (share <= highest + 1e-9).all()
        np.testing.assert_allclose(share.sum(1), 1)
    assert any(not np.allclose(alone[0][kind], alone[1][kind]) for kind in together)


def test_recording_ends_with_the_pass(model):
    features = features_of(model, utterances(1))
    chosen = TaskPair("asr", parse_rate_pair("a4"))
    assert expert_shares(model, features, chosen, [[]]).keys() == {"audio", "text"}
    adapter = model.decoder.adapter
    assert adapter.token_mask is None
    with pytest.raises(RuntimeError, match="no forward pass of the LM was recorded"):
        adapter.take_routing()


def test_without_routed_experts_there_are_no_shares(tiny_lm, tiny_whisper):
    lora = build(tiny_lm, tiny_whisper, adapter="lora").eval()
    chosen = TaskPair("avsr", parse_rate_pair("a4_v2"))
    assert expert_shares(lora, features_of(lora, utterances(1)), chosen, [[7]]) == {}


def test_overlap_is_what_two_routings_have_in_common():
    one = np.array([[0.5, 0.5, 0.0, 0.0], [1.0, 0.0, 0.0, 0.0]])
    other = np.array([[0.25, 0.0, 0.75, 0.0], [1.0, 0.0, 0.0, 0.0]])
    assert overlap(one, one) == pytest.approx(1)
    assert overlap(one, other) == pytest.approx((0.25 + 1) / 2)
    # A layer of one expert of four meets another one in a quarter of the draws.
    assert overlap_by_chance(one[1:], other[1:], draws=4000) == pytest.approx(0.25, abs=0.03)


def test_experts_in_use_lie_between_those_on_and_all():
    assert experts_in_use(np.full((3, 23), 1 / 23)) == pytest.approx(23)
    one = np.zeros((2, 23))
    one[0, :4] = one[1, 10:14] = 0.25
    assert experts_in_use(one) == pytest.approx(4)
    assert experts_in_use(one.mean(0, keepdims=True)) == pytest.approx(8)
