"""The AVSR model: its loss against separate rate pairs, what trains, what is saved."""

import pytest
import torch
import torch.nn.functional as F
from tiny_avsr import build, collate, utterances

from mome.common.frozen import Frozen
from mome.llm.decoder import MoMELLMDecoder
from mome.models.avsr import AVSRModel
from mome.models.projector import FeatureNorm
from mome.models.rates import RatePair, rate_pairs, task_pairs_of


def loss_of_one_pair(model, item, task, pair) -> torch.Tensor:
    """Sum of the cross-entropy and its tokens: one utterance, one prompt, all logits."""
    batch = collate([item])
    features = model.encode(
        batch["speech"], batch["speech_lengths"], batch["lips"], batch["lips_lengths"]
    )
    nodes, _ = model.prompts(features, [(task, pair)])
    assert all(node.mask.all() for node in nodes)
    embeds = torch.cat([node.embeds for node in nodes], dim=1)
    target = torch.cat([item["text"], torch.tensor([model.decoder.eos_id])])
    embeds = torch.cat([embeds, model.decoder.embed(item["text"])[None]], dim=1)
    logits = model.decoder.lm(inputs_embeds=embeds).logits[0, -len(target) :]
    return F.cross_entropy(logits, target, reduction="sum")


@pytest.mark.parametrize("tasks", [("avsr",), ("asr",), ("vsr",), ("avsr", "asr", "vsr")])
@pytest.mark.parametrize("compression", ["average", "stack"])
def test_loss_equals_a_loop_over_utterances_and_pairs(tiny_lm, tiny_whisper, tasks, compression):
    model = build(tiny_lm, tiny_whisper, tasks=tasks, compression=compression).eval()
    items = utterances(3)
    loss, stats, _ = model(**collate(items))
    tokens = sum(len(item["text"]) + 1 for item in items)
    losses = []
    for task in tasks:
        for pair in rate_pairs(task, (4, 16), (2, 5)):
            losses.append(sum(loss_of_one_pair(model, i, task, pair) for i in items) / tokens)
            assert float(stats[f"loss_{task}_{pair}"]) == pytest.approx(float(losses[-1]), abs=1e-4)
    assert float(loss) == pytest.approx(float(torch.stack(losses).mean()), abs=1e-4)


def test_gradients_equal_those_of_the_loop(tiny_lm, tiny_whisper):
    model = build(tiny_lm, tiny_whisper, freeze_video=False).eval()
    items = utterances(2)
    loss, _, _ = model(**collate(items))
    names, parameters = zip(*model.named_parameters(), strict=True)
    actual = torch.autograd.grad(loss, parameters, allow_unused=True)
    tokens = sum(len(item["text"]) + 1 for item in items)
    pairs = rate_pairs("avsr", (4, 16), (2, 5))
    total = sum(loss_of_one_pair(model, i, "avsr", p) for i in items for p in pairs)
    expected = torch.autograd.grad(total / tokens / len(pairs), parameters, allow_unused=True)
    for name, a, b in zip(names, actual, expected, strict=True):
        assert (a is None) == (b is None), name
        if a is not None:
            assert torch.allclose(a, b, atol=1e-5), name


def test_padding_of_the_batch_does_not_change_the_loss(tiny_lm, tiny_whisper):
    model = build(tiny_lm, tiny_whisper, tasks=("avsr", "asr", "vsr")).eval()
    short, long = utterances(2)
    alone = float(model(**collate([short]))[0])
    other = float(model(**collate([long]))[0])
    together = float(model(**collate([short, long]))[0])
    a, b = len(short["text"]) + 1, len(long["text"]) + 1
    assert together == pytest.approx((a * alone + b * other) / (a + b), abs=1e-5)


def test_what_prompts_share_is_read_out_once(tiny_lm, tiny_whisper):
    """Video follows audio of each rate, and its tokens are the same there."""
    model = build(tiny_lm, tiny_whisper, readout_conf={"scale": 20.0}).eval()
    read = []
    model.readout.register_forward_hook(lambda _, inputs, output: read.append(tuple(output.shape)))
    features = model.encode(**{k: v for k, v in collate(utterances(2)).items() if "text" not in k})
    nodes, _ = model.modality_tree(features, model.task_pairs)
    assert len(model.task_pairs) == 4
    assert len(read) == 4  # audio and video at two rates each
    assert len(nodes) == 1 + 2 + 2 * 2


def routing_of_one_prompt(model, item, task, pair) -> tuple[list[int], list]:
    """Lengths of a prompt's nodes, and each layer's gates and probabilities (S, Nr)."""
    batch = collate([item])
    features = model.encode(
        batch["speech"], batch["speech_lengths"], batch["lips"], batch["lips_lengths"]
    )
    nodes, _ = model.prompts(features, [(task, pair)])
    embeds = [*(node.embeds for node in nodes), model.decoder.embed(item["text"])[None]]
    lengths = [part.shape[1] for part in embeds]
    lengths[-2:] = [sum(lengths[-2:])]  # the transcript belongs to its prompt
    given = torch.cat(embeds, dim=1)
    adapter = model.decoder.adapter
    with adapter.recording(torch.ones(given.shape[:2], dtype=torch.bool)):
        model.decoder.lm(inputs_embeds=given)
        return lengths, [(gates[0], probs[0]) for gates, probs in adapter.take_routing()]


def slow_balance(tokens: list[tuple[torch.Tensor, torch.Tensor]]) -> tuple[list, list, int]:
    """How often each expert is on, and its summed probability, token by token."""
    counts, sums = [0] * len(tokens[0][1]), [0.0] * len(tokens[0][1])
    for gates, probs in tokens:
        for expert, (gate, prob) in enumerate(zip(gates.tolist(), probs.tolist(), strict=True)):
            counts[expert] += gate > 0
            sums[expert] += prob
    return counts, sums, len(tokens)


@pytest.mark.parametrize("balance", ["per_sequence", "per_layer"])
@pytest.mark.parametrize("tasks", [("avsr",), ("avsr", "asr", "vsr")])
def test_balance_loss_equals_a_loop_over_prompts_and_layers(tiny_lm, tiny_whisper, balance, tasks):
    model = build(tiny_lm, tiny_whisper, tasks=tasks, balance_weight=0.5).eval()
    conf = {"num_routed": 5, "top_k": 2, "bottleneck": 3, "balance": balance}
    model.decoder = MoMELLMDecoder(lm=tiny_lm, adapter_conf=conf).train()  # balanced in training
    for module in model.decoder.adapter.layers:
        torch.nn.init.normal_(module.router.weight, std=2.0)
    items = utterances(3)
    # Of a prompt in all layers, and of a layer in all prompts, in which a common node counts once.
    of_prompts: dict[str, list] = {}
    of_layers: list[list] = [[] for _ in model.decoder.adapter.layers]
    for item in items:
        seen = set()
        for task, pair in model.task_pairs:
            lengths, routing = routing_of_one_prompt(model, item, task, pair)
            path = [(), *[(kind, rate) for kind, rate in pair.rates.items()], task]
            start = 0
            for node, length in enumerate(lengths):
                columns = slice(start, start := start + length)
                key = tuple(path[: node + 1])
                for layer, (gates, probs) in enumerate(routing):
                    tokens = list(zip(gates[columns], probs[columns], strict=True))
                    of_prompts.setdefault(f"{task} {pair}", []).extend(tokens)
                    if key not in seen:
                        of_layers[layer].extend(tokens)
                seen.add(key)
    losses = []
    for tokens in of_prompts.values() if balance == "per_sequence" else of_layers:
        counts, sums, number = slow_balance(tokens)
        assigned = number if balance == "per_sequence" else sum(counts)
        losses.append(5 * sum(c / assigned * s / number for c, s in zip(counts, sums, strict=True)))
    loss, stats, _ = model(**collate(items))
    assert float(stats["loss_balance"]) == pytest.approx(sum(losses) / len(losses), abs=1e-4)
    entropies = [float(stats[f"loss_{task}_{pair}"]) for task, pair in model.task_pairs]
    expected = sum(entropies) / len(entropies) + 0.5 * float(stats["loss_balance"])
    assert float(loss.detach()) == pytest.approx(expected, abs=1e-4)
    loss.backward()
    assert all(module.router.weight.grad.any() for module in model.decoder.adapter.layers)


def test_an_unknown_form_of_the_balance_loss_is_named(tiny_lm):
    with pytest.raises(ValueError, match="balance 'per_token' must be per_sequence or per_layer"):
        MoMELLMDecoder(lm=tiny_lm, adapter_conf={"balance": "per_token"})


@pytest.mark.parametrize("freeze_video", [True, False])
def test_gradients_reach_only_what_should_train(tiny_lm, tiny_whisper, freeze_video):
    model = build(tiny_lm, tiny_whisper, freeze_video=freeze_video).train()
    loss, _, _ = model(**collate(utterances(2)))
    loss.backward()
    with_gradient = {n.split(".")[0] for n, p in model.named_parameters() if p.grad is not None}
    assert with_gradient == {"decoder", "projectors"} | (
        set() if freeze_video else {"video_encoder"}
    )
    frozen = [m.inner for m in model.modules() if isinstance(m, Frozen)]
    assert len(frozen) == (3 if freeze_video else 2)
    assert all(p.grad is None for module in frozen for p in module.parameters())


@pytest.mark.parametrize("adapter", ["mome", "lora"])
def test_a_checkpoint_holds_trained_tensors_only_and_restores_them(tiny_lm, tiny_whisper, adapter):
    model = build(tiny_lm, tiny_whisper, adapter=adapter).eval()
    batch = collate(utterances(2))
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.05)
    model(**batch)[0].backward()
    optimizer.step()
    states = model.state_dict()
    assert {name.split(".")[0] for name in states} == {"decoder", "projectors", "norms"}
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    statistics = sum(b.numel() for b in model.norms.buffers())
    assert sum(t.numel() for t in states.values()) == trained + statistics
    fresh = build(tiny_lm, tiny_whisper, seed=1, adapter=adapter).eval()
    fresh.video_encoder.inner.load_state_dict(model.video_encoder.inner.state_dict())
    assert float(fresh(**batch)[0]) != pytest.approx(float(model(**batch)[0]), abs=1e-4)
    fresh.load_state_dict(states)
    assert float(fresh(**batch)[0]) == pytest.approx(float(model(**batch)[0]), abs=1e-6)


def test_eos_is_a_target_although_it_is_the_padding_token(tiny_lm, tiny_whisper):
    """Predecessors masked EOS out of the loss where pad = EOS, and never stopped speaking."""
    model = build(tiny_lm, tiny_whisper).eval()
    item = utterances(1)[0]
    with_eos = float(loss_of_one_pair(model, item, "avsr", RatePair(4, 2)))
    stats = model(**collate([item]))[1]
    assert float(stats["loss_avsr_a4_v2"]) == pytest.approx(
        with_eos / (len(item["text"]) + 1), abs=1e-5
    )


def test_pair_weights_scale_their_pair(tiny_lm, tiny_whisper):
    batch = collate(utterances(2))
    plain = build(tiny_lm, tiny_whisper).eval()
    weighted = build(tiny_lm, tiny_whisper, pair_weights={"a4_v2": 3.0}).eval()
    stats = plain(**batch)[1]
    extra = 2 * float(stats["loss_avsr_a4_v2"]) / 4
    assert float(weighted(**batch)[0]) == pytest.approx(float(stats["loss"]) + extra, abs=1e-5)


def test_drawn_pairs_have_the_loss_of_all_on_average(tiny_lm, tiny_whisper):
    """Every draw trains its pairs alone; over all draws the losses are those of all pairs."""
    everything = build(tiny_lm, tiny_whisper, tasks=("avsr", "vsr"), balance_weight=0.0)
    drawing = build(
        tiny_lm, tiny_whisper, tasks=("avsr", "vsr"), balance_weight=0.0, pairs_per_step=2
    )
    batch = collate(utterances(2))
    for model in (everything, drawing):
        model.encode(**{k: v for k, v in batch.items() if "text" not in k})  # fixes the statistics
        for norm in model.norms.values():
            norm.batches = 1
    stats = everything.train()(**batch)[1]
    seen = set()
    for _ in range(30):  # one in 30,000 leaves a pair out
        loss, drawn, _ = drawing.train()(**batch)
        names = [name for name in drawn if name.startswith("loss_") and "sr_" in name]
        assert len(names) == 2
        seen |= set(names)
        mean = sum(float(stats[name]) for name in names) / 2
        assert float(loss) == pytest.approx(mean, abs=1e-4)
    assert seen == {name for name in stats if name.startswith("loss_") and "sr_" in name}
    assert drawing.eval()(**batch)[1].keys() == stats.keys()  # validation takes all
    with pytest.raises(ValueError, match="between 1 and 6"):
        build(tiny_lm, tiny_whisper, tasks=("avsr", "vsr"), pairs_per_step=7)


def test_untrained_rates_and_missing_parts_are_named(tiny_lm, tiny_whisper):
    model = build(tiny_lm, tiny_whisper)
    batch = collate(utterances(1))
    features = model.encode(batch["speech"], batch["speech_lengths"])
    with pytest.raises(ValueError, match="was not trained"):
        model.prompts(features, [("avsr", RatePair(8, 2))])
    with pytest.raises(ValueError, match="batch has none"):
        model.prompts(features, [("avsr", RatePair(4, 2))])
    with pytest.raises(ValueError, match="was not trained"):
        model.prompts(features, [("vsr", RatePair(None, 2))])
    with pytest.raises(ValueError, match="pair_weights"):
        build(tiny_lm, tiny_whisper, pair_weights={"a1_v1": 2.0})
    with pytest.raises(ValueError, match="need a video encoder"):
        AVSRModel(model.decoder, tiny_lm, model.audio_encoder, None)
    with pytest.raises(ValueError, match="differ in width"):
        build(tiny_lm, tiny_whisper, compression="stack", projector="shared")


@pytest.mark.parametrize(
    "conf", [{}, {"tasks": ["asr", "avsr", "vsr"], "audio_rates": [8, 3], "video_rates": [1]}]
)
def test_what_a_model_is_trained_at_is_known_without_it(tiny_lm, tiny_whisper, conf):
    model = build(tiny_lm, tiny_whisper, **conf)
    assert task_pairs_of(conf) == model.task_pairs
    last = model.task_pairs[-1]
    assert task_pairs_of(conf, [str(last.pair)]) == [last]
    with pytest.raises(ValueError, match=r"rate pair a7_v7 was not trained; this model knows \["):
        task_pairs_of(conf, ["a7_v7"])


@pytest.mark.parametrize(
    ("adapter", "conf"),
    [
        ("mome", {"disjoint_routers": ["a4_v2", "a4_v5", "a16_v2"], "num_routed": 4}),
        ("mome", {"top_k": {"a4_v2": 2, "a4_v5": 2, "a16_v2": 1}, "num_routed": 4}),
        ("rate_lora", {"pairs": ["a4_v2", "a4_v5", "a16_v2"], "rank": 2}),
    ],
)
def test_an_adapter_without_a_trained_pair_is_named(tiny_lm, tiny_whisper, adapter, conf):
    model = build(tiny_lm, tiny_whisper)
    parts = (tiny_lm, model.audio_encoder, model.video_encoder)
    with pytest.raises(ValueError, match=r"a4_v2, a4_v5, a16_v2, but not a16_v5, which the tasks"):
        AVSRModel(MoMELLMDecoder(lm=tiny_lm, adapter=adapter, adapter_conf=conf), *parts)
    AVSRModel(
        MoMELLMDecoder(lm=tiny_lm, adapter=adapter, adapter_conf=conf),
        *parts,
        audio_rates=[4],
    )
    with pytest.raises(ValueError, match="reads one encoder at one rate"):
        MoMELLMDecoder(lm=tiny_lm, encoder_output_size=8, adapter=adapter, adapter_conf=conf)


def test_one_batch_can_be_learned_by_heart(tiny_lm, tiny_whisper):
    model = build(tiny_lm, tiny_whisper, tasks=("avsr", "asr", "vsr")).train()
    batch = collate(utterances(3))
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    # At a constant rate the loss jumps now and then, at steps that rounding decides.
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 250)
    for _ in range(250):
        optimizer.zero_grad()
        loss, stats, _ = model(**batch)
        loss.backward()
        optimizer.step()
        schedule.step()
    assert float(stats["acc"]) > 0.95


def test_frames_are_standardised_by_the_first_batches_without_padding():
    torch.manual_seed(0)
    norm = FeatureNorm(6, batches=3)
    scale, shift = torch.linspace(0.2, 9, 6), torch.linspace(-8, 8, 6)
    batches, lengths = torch.randn(5, 4, 20, 6) * scale + shift, torch.randint(5, 21, (5, 4))
    valid = torch.arange(20) < lengths[..., None]
    batches[~valid] = 1e4  # padding must not count
    assert torch.equal(norm.eval()(batches[0], lengths[0]), batches[0])  # nothing is known yet
    norm.train()
    for frames, length in zip(batches, lengths, strict=True):
        norm(frames, length)
    known = batches[:3][valid[:3]].double()  # the last two came too late
    expected = (batches[4].double() - known.mean(0)) / known.std(0, correction=0)
    actual = norm.eval()(batches[4], lengths[4])
    torch.testing.assert_close(actual[valid[4]], expected[valid[4]].float(), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("adapter", ["mome", "disjoint", "lora", "rate_lora"])
def test_a_step_under_autocast_has_the_loss_and_gradients_of_one_without(
    tiny_lm, tiny_whisper, adapter, dtype
):
    pairs = [str(pair) for pair in rate_pairs("avsr", (4, 16), (2, 5))]
    conf = {
        "mome": {"num_routed": 5, "top_k": 2, "bottleneck": 3},
        "disjoint": {"num_routed": 5, "top_k": 2, "bottleneck": 3, "disjoint_routers": pairs},
        "lora": {"rank": 2},
        "rate_lora": {"rank": 2, "pairs": pairs},
    }[adapter]
    model = build(tiny_lm, tiny_whisper, adapter="none", freeze_video=False, readout_conf={})
    name = "mome" if adapter == "disjoint" else adapter
    model.decoder = MoMELLMDecoder(lm=tiny_lm, adapter=name, adapter_conf=conf)
    torch.manual_seed(0)
    for parameter in model.decoder.adapter.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    model.eval()
    batch = collate(utterances(3))
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    exact, stats, _ = model(**batch)
    expected = torch.cat([g.flatten() for g in torch.autograd.grad(exact, trained)])
    with torch.autocast("cpu", dtype):
        loss, rounded, _ = model(**batch)
    found = torch.cat([g.flatten() for g in torch.autograd.grad(loss, trained)])
    assert float(loss.detach()) == pytest.approx(float(exact.detach()), rel=0.02)
    for key in stats:
        if key.startswith("loss"):  # a rounded logit may decide an accuracy
            assert float(rounded[key]) == pytest.approx(float(stats[key]), rel=0.05)
    assert torch.cosine_similarity(found, expected, dim=0) > 0.95
