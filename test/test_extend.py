"""The examples of docs/extend.md, run as they stand: modules of a user's, imported by name."""

import importlib
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
import yaml
from tiny import SIZES, prompt_and_step
from tiny_avsr import collate, utterances
from transformers import LlamaConfig, LlamaForCausalLM

import mome
from mome.adapters import MoMEAdapter
from mome.adapters.experts import MoME
from mome.adapters.experts_cpu import can_run
from mome.adapters.experts_fused import can_fuse
from mome.adapters.routers import LinearRouter
from mome.analysis.dry_run import report
from mome.llm.beam import beam_search
from mome.tasks.avsr import AVSRTask
from mome.tasks.config import parse

ROOT = Path(__file__).parents[1]
PAIRS = ["a4_v2", "a4_v5", "a16_v2", "a16_v5"]
STREAMS = ("speech", "speech_lengths", "lips", "lips_lengths")


@pytest.fixture(scope="module", autouse=True)
def examples(tmp_path_factory) -> Path:
    """A folder with the modules of the document, on Python's path."""
    folder = tmp_path_factory.mktemp("examples")
    text = (ROOT / "docs/extend.md").read_text()
    blocks = re.findall(r"```python\n# (\w+\.py)\n(.*?)```", text, flags=re.S)
    for name, code in blocks:
        (folder / name).write_text(code)
    assert len(blocks) == 4
    sys.path.insert(0, str(folder))
    for name, _ in blocks:
        importlib.import_module(name.removesuffix(".py"))
    yield folder
    sys.path.remove(str(folder))


def tiny_llama(**sizes) -> LlamaForCausalLM:
    torch.manual_seed(0)
    return LlamaForCausalLM(LlamaConfig(**{**SIZES, **sizes})).eval().requires_grad_(False)


def write_config(folder: Path, lm: str, whisper: str, **changes) -> Path:
    """The configuration of a tiny model; parts are replaced by ``changes``."""
    conf = {
        "audio_encoder": "whisper",
        "audio_encoder_conf": {"model": whisper},
        "video_encoder": "patches",
        "video_encoder_conf": {"size": 8},
        "decoder": "mome_llm",
        "decoder_conf": {"lm": lm, "adapter": "pair_bias", "adapter_conf": {"pairs": PAIRS}},
        "imports": ["my_adapter", "my_encoder"],
        **changes,
    }
    path = folder / "train.yaml"
    path.write_text(yaml.safe_dump(conf))
    return path


def build(folder: Path, lm: str, whisper: str, **changes):
    path = write_config(folder, lm, whisper, **changes)
    torch.manual_seed(0)
    args = parse(["--config", str(path)])
    return AVSRTask.build_model(args), args


@pytest.mark.parametrize(
    "options",
    [
        {"gate": "threshold"},
        {"router": "mlp", "router_conf": {"hidden": 6}},
        {"gate": "threshold", "router": "mlp"},
    ],
)
def test_another_gate_and_router_are_computed_as_defined(options):
    torch.manual_seed(1)
    module = MoME(12, 5, 2, bottleneck=3, top_k=3, **options)
    for parameter in (*module.down.parameters(), module.up.weight):
        torch.nn.init.normal_(parameter)
    hidden = torch.randn(7, 12, requires_grad=True)
    output, _, _ = module(hidden)
    probabilities = module.router(hidden).softmax(-1)
    rows = []
    for token, probs in zip(hidden, probabilities, strict=True):
        best = sorted(range(5), key=lambda n: -probs[n].item())[:3]
        weights = {n: probs[n] for n in best}
        if options.get("gate") == "threshold":
            weights = {n: p for n, p in weights.items() if p >= 0.5 * probs.max()}
        total = torch.zeros(12)
        for expert, weight in [*weights.items(), (5, 1.0), (6, 1.0)]:
            part = slice(3 * expert, 3 * expert + 3)
            inner = F.gelu(module.down.weight[part] @ token + module.down.bias[part])
            bias = module.up.weight[:, module.width + expert]
            total = total + weight * (module.up.weight[:, part] @ inner + bias)
        rows.append(total)
    expected = torch.stack(rows)
    torch.testing.assert_close(output, expected)
    parameters = list(module.parameters())
    ours = torch.autograd.grad(output.square().sum(), parameters)
    theirs = torch.autograd.grad(expected.square().sum(), parameters)
    for name, actual, wanted in zip(dict(module.named_parameters()), ours, theirs, strict=True):
        torch.testing.assert_close(actual, wanted, rtol=1e-4, atol=1e-5, msg=name)


class OtherExperts(MoME):
    """Halves what the experts give."""

    def forward(self, hidden, base=None):
        total, gates, probs = super().forward(hidden, None)
        return total / 2 + (0 if base is None else base), gates, probs


class OtherAdapter(MoMEAdapter):
    experts_class = OtherExperts


class OtherRouter(LinearRouter):
    """Prefers experts in reverse."""

    def forward(self, hidden):
        return -super().forward(hidden)


@pytest.mark.parametrize("position", ["mhsa", "ffn"])
@pytest.mark.parametrize(
    "kind", ["threshold", "mlp", "experts", "router", "softmax_topk", "renormalized_topk"]
)
def test_fast_forms_decline_what_they_do_not_know(kind, position):
    lm = tiny_llama(hidden_size=64, head_dim=16)
    options = {"num_routed": 5, "top_k": 3, "bottleneck": 4}
    if kind in ("threshold", "softmax_topk", "renormalized_topk"):
        options["gate"] = kind
    if kind == "mlp":
        options["router"] = "mlp"
    adapter = (OtherAdapter if kind == "experts" else MoMEAdapter)(lm, position, **options)
    for layer in adapter.layers:
        if kind == "router":
            layer.router.__class__ = OtherRouter
        torch.nn.init.normal_(layer.up.weight, std=0.3)
    ids = torch.randint(SIZES["vocab_size"], (2, 9))
    expected = prompt_and_step(lm, ids)
    ours = kind in ("softmax_topk", "renormalized_topk")
    assert can_run(adapter.layers[0], torch.float32) <= ours
    assert can_fuse(adapter.blocks[0], adapter.layers[0]) == (ours and position == "mhsa")
    adapter.for_inference(torch.float32)
    assert bool(adapter.compiled) <= ours
    torch.testing.assert_close(prompt_and_step(lm, ids), expected, rtol=1e-4, atol=1e-4)


def randomise(model) -> None:
    torch.manual_seed(5)
    torch.nn.init.normal_(model.decoder.adapter.bias, std=0.5)


def test_an_adapter_by_pair_is_told_its_pair_in_training(tmp_path, tiny_lm, tiny_whisper):
    model, _ = build(tmp_path, tiny_lm, tiny_whisper)
    randomise(model)
    model.eval()
    batch = collate(utterances(2))
    loss, stats, _ = model(**batch)
    gradient = torch.autograd.grad(loss, model.decoder.adapter.bias)[0]
    features = model.encode(*(batch[name] for name in STREAMS))
    whole = torch.zeros_like(gradient)
    for index, each in enumerate(model.task_pairs):
        alone, _ = model.loss(features, batch["text"], batch["text_lengths"], [each])
        part = torch.autograd.grad(alone, model.decoder.adapter.bias, retain_graph=True)[0]
        assert float(alone) == pytest.approx(float(stats[f"loss_avsr_{each.pair}"]), abs=1e-4)
        others = [other for other in range(len(PAIRS)) if other != index]
        assert part[:, others].abs().max() == 0
        assert part[:, index].abs().max() > 0
        whole += part / len(PAIRS)
    torch.testing.assert_close(gradient, whole, rtol=1e-3, atol=1e-6)


def test_an_adapter_by_pair_is_told_its_pair_in_decoding(tmp_path, tiny_lm, tiny_whisper):
    model, _ = build(tmp_path, tiny_lm, tiny_whisper)
    randomise(model)
    model.eval()
    batch = collate(utterances(2))

    def search(task_pairs):
        features = model.encode(*(batch[name] for name in STREAMS))
        options = {"beam": 2, "max_new_tokens": 4, "eos_id": model.decoder.eos_id}
        options["adapter"] = model.decoder.adapter
        return beam_search(model.decoder.lm.inner, *model.prompts(features, task_pairs), **options)

    with torch.inference_mode():
        together = search(model.task_pairs)
        apart = [search([each])[0] for each in model.task_pairs]
    tokens = [[[h.tokens for h in best] for best in of_pair] for of_pair in together]
    assert tokens == [[[h.tokens for h in best] for best in of_pair] for of_pair in apart]
    assert len({str(of_pair) for of_pair in tokens}) > 1


def test_a_trained_model_imports_its_modules_again(
    tmp_path, tiny_lm, tiny_whisper, examples, monkeypatch
):
    model, args = build(tmp_path, tiny_lm, tiny_whisper)
    randomise(model)
    weights = tmp_path / "model.pth"
    torch.save(model.state_dict(), weights)
    # As ESPnet's trainer writes it.
    config = tmp_path / "config.yaml"
    config.write_text(yaml.safe_dump({k: v for k, v in vars(args).items() if k != "config"}))
    code = (
        f"import mome; model, _ = mome.load_model({str(config)!r}, {str(weights)!r})\n"
        "print(type(model.decoder.adapter).__name__, type(model.video_encoder.inner).__name__)\n"
        "print(float(model.decoder.adapter.bias.sum()))"
    )
    path = os.pathsep.join([str(examples), str(ROOT)])
    result = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr[-2000:]
    assert "PairBias PatchEncoder" in result.stdout
    assert float(result.stdout.split()[-1]) == pytest.approx(
        float(model.decoder.adapter.bias.detach().sum()), rel=1e-5
    )
    # Where they are not on Python's path.
    monkeypatch.setattr(sys, "path", [each for each in sys.path if each != str(examples)])
    for name in ("my_adapter", "my_encoder"):
        monkeypatch.delitem(sys.modules, name)
    with pytest.raises(ModuleNotFoundError, match=r"--import my_adapter: there .*on PYTHONPATH"):
        mome.load_model(config, weights)


def test_a_dry_run_counts_another_encoder(tmp_path, tiny_lm, tiny_whisper):
    path = write_config(tmp_path, tiny_lm, tiny_whisper)
    text = report(parse(["--config", str(path), "--batch_type", "unsorted"]), seconds=2)
    assert "video encoder" in text


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"video_encoder": "pixels"},
            r"'pixels' is unknown; there are avhubert, patches, visual",
        ),
        (
            {"decoder_conf": {"adapter": "prefix"}},
            r"'prefix' is unknown; there are lora, mome, pair_bias",
        ),
        (
            {"decoder_conf": {"adapter": "mome", "adapter_conf": {"gate": "soft"}}},
            r"gate 'soft' is unknown; there are renormalized_topk, softmax_topk, threshold",
        ),
        (
            {"decoder_conf": {"adapter": "mome", "adapter_conf": {"router": "deep"}}},
            r"router 'deep' is unknown; there are linear, mlp",
        ),
    ],
)
def test_unknown_names_are_answered_with_the_known_ones(
    tmp_path, tiny_lm, tiny_whisper, changes, message
):
    if "decoder_conf" in changes:
        changes["decoder_conf"]["lm"] = tiny_lm
    with pytest.raises(ValueError, match=message) as raised:
        build(tmp_path, tiny_lm, tiny_whisper, **changes)
    assert "--import" in str(raised.value)
    assert "docs/extend.md" in str(raised.value)


def test_a_module_that_does_not_exist_is_named(capsys):
    with pytest.raises(SystemExit):
        parse(["--import", "no_such_module"])
    assert "--import no_such_module: there is no such module" in capsys.readouterr().err


def test_public_names_are_found_when_they_are_used():
    code = "import sys, mome; print('torch' in sys.modules); print(sorted(mome.__all__), dir(mome))"
    result = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert result.stdout.startswith("False")
    for name in mome.__all__:
        assert getattr(mome, name) is not None
        assert name in result.stdout
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        mome.nothing  # noqa: B018
