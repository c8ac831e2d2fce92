"""Frozen parts in float16, as on GPUs without bfloat16; here on the CPU, which has it too."""

import pytest
import torch
import yaml
from tiny_avsr import build, collate, utterances

from mome.common import precision
from mome.common.precision import built_for
from mome.llm.beam import beam_search
from mome.tasks.avsr import load_model
from mome.tasks.packed import load_packed, pack


def test_losses_and_gradients_are_those_of_float32_and_adapters_stay_in_it(tiny_lm, tiny_whisper):
    losses, gradients = [], []
    for dtype in ("float32", "float16"):
        model = build(tiny_lm, tiny_whisper, lm_dtype=dtype).eval()
        assert model.decoder.lm.inner.dtype == getattr(torch, dtype)
        loss, _, _ = model(**collate(utterances(2)))
        (1024 * loss).backward()  # scaled, as torch.amp.GradScaler does
        trained = [p for p in model.parameters() if p.requires_grad]
        assert {p.dtype for p in trained} == {torch.float32}
        losses.append(loss.item())
        gradients.append(torch.cat([p.grad.flatten() for p in trained if p.grad is not None]))
    assert losses[1] == pytest.approx(losses[0], rel=2e-3)
    cosine = torch.nn.functional.cosine_similarity(*gradients, dim=0)
    assert cosine > 0.99


@torch.inference_mode()
def test_transcripts_are_those_of_float32(tiny_lm, tiny_whisper):
    found = []
    for dtype in ("float32", "float16"):
        model = build(tiny_lm, tiny_whisper, lm_dtype=dtype).eval()
        model.decoder.adapter.for_inference(model.decoder.lm.inner.dtype)
        items = collate([{k: v for k, v in item.items() if k != "text"} for item in utterances(2)])
        prompts = model.prompts(model.encode(**items), model.task_pairs)
        options = {"beam": 1, "max_new_tokens": 4, "eos_id": model.decoder.eos_id}
        search = beam_search(
            model.decoder.lm.inner, *prompts, adapter=model.decoder.adapter, **options
        )
        found.append([[best[0].score for best in of_pair] for of_pair in search])
    torch.testing.assert_close(*map(torch.tensor, found), rtol=0.01, atol=0.02)


def test_a_model_for_the_cpu_has_the_cpus_type_also_on_a_machine_with_a_gpu(
    training, tmp_path, tiny_downloads, monkeypatch
):
    config = tmp_path / "config.yaml"
    values = yaml.safe_load((training / "config.yaml").read_text())
    values["decoder_conf"]["lm_dtype"] = "auto"
    config.write_text(yaml.safe_dump(values | {"ngpu": 1}))
    weights = training / "model.pth"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(precision, "has_fast_bfloat16", {"cuda": True, "cpu": False}.get)
    model, _ = load_model(config, weights, "cpu")
    assert model.decoder.lm.inner.dtype == torch.float32
    with built_for("cuda"):
        model, _ = load_model(config, weights, "cpu")
    assert model.decoder.lm.inner.dtype == torch.bfloat16
    packed = pack(config, weights, tmp_path / "packed", {"trained_on": "noise"}, "")
    model, _, _ = load_packed(packed, "cpu", downloads=[tiny_downloads])
    assert model.decoder.lm.inner.dtype == torch.float32
