"""AV-HuBERT's checkpoints: read without running them, and the same encoder in the end.

The checkpoints are written here in fairseq's layout, pickled classes included, with the published
names and shapes at narrow transformer widths. The reference is AV-HuBERT's published computation
(hubert.py, resnet.py and fairseq's wav2vec2.py), written here with torch's plain functions.
"""

import argparse
import collections
import copy
import enum
import hashlib
import json
import os
import pickle
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file

from mome.bin.convert_avhubert import main
from mome.encoders.avhubert import AVHubertEncoder
from mome.encoders.avhubert_conversion import convert

DIM, FFN, LAYERS, HEADS = 64, 48, 3, 4


def published_tensors(seed: int = 0) -> dict[str, torch.Tensor]:
    """Random tensors under the names of ``AVHubertModel.state_dict()`` in fairseq."""
    generator = torch.Generator().manual_seed(seed)
    tensors = collections.OrderedDict()

    def put(name: str, *shape: int, scale: float = 1.0, mean: float = 0.0) -> None:
        tensors[name] = mean + scale * torch.randn(*shape, generator=generator)

    def linear(name: str, inputs: int, outputs: int) -> None:
        put(f"{name}.weight", outputs, inputs, scale=inputs**-0.5)
        put(f"{name}.bias", outputs, scale=0.1)

    def norm(name: str, size: int) -> None:
        put(f"{name}.weight", size, scale=0.1, mean=1.0)
        put(f"{name}.bias", size, scale=0.1)

    def batch_norm(name: str, size: int) -> None:
        norm(name, size)
        put(f"{name}.running_mean", size, scale=0.1)
        tensors[f"{name}.running_var"] = 0.5 + torch.rand(size, generator=generator)
        tensors[f"{name}.num_batches_tracked"] = torch.tensor(7)

    video = "feature_extractor_video"
    put("mask_emb", 104)
    put("label_embs_concat", 2004, 16)
    linear("feature_extractor_audio.proj", 104, DIM)
    put(f"{video}.resnet.frontend3D.0.weight", 64, 1, 5, 7, 7, scale=0.1)
    batch_norm(f"{video}.resnet.frontend3D.1", 64)
    put(f"{video}.resnet.frontend3D.2.weight", 64, scale=0.1, mean=0.25)
    inputs = 64
    for stage, width in enumerate((64, 128, 256, 512), 1):
        for block in range(2):
            name = f"{video}.resnet.trunk.layer{stage}.{block}"
            put(f"{name}.conv1.weight", width, inputs, 3, 3, scale=(9 * inputs) ** -0.5)
            batch_norm(f"{name}.bn1", width)
            put(f"{name}.relu1.weight", width, scale=0.1, mean=0.25)
            put(f"{name}.relu2.weight", width, scale=0.1, mean=0.25)
            put(f"{name}.conv2.weight", width, width, 3, 3, scale=(9 * width) ** -0.5)
            batch_norm(f"{name}.bn2", width)
            if inputs != width:
                put(f"{name}.downsample.0.weight", width, inputs, 1, 1, scale=inputs**-0.5)
                batch_norm(f"{name}.downsample.1", width)
            inputs = width
    linear(f"{video}.proj", 512, DIM)
    linear("post_extract_proj", 2 * DIM, DIM)
    put("encoder.pos_conv.0.bias", DIM, scale=0.1)
    put("encoder.pos_conv.0.weight_g", 1, 1, 128, scale=0.1, mean=0.5)
    put("encoder.pos_conv.0.weight_v", DIM, DIM // 16, 128)
    for layer in range(LAYERS):
        name = f"encoder.layers.{layer}"
        for part in "kvq":
            linear(f"{name}.self_attn.{part}_proj", DIM, DIM)
        linear(f"{name}.self_attn.out_proj", DIM, DIM)
        norm(f"{name}.self_attn_layer_norm", DIM)
        linear(f"{name}.fc1", DIM, FFN)
        linear(f"{name}.fc2", FFN, DIM)
        norm(f"{name}.final_layer_norm", DIM)
    norm("encoder.layer_norm", DIM)
    norm("layer_norm", 2 * DIM)
    linear("final_proj", DIM, 16)
    return tensors


def foreign(module: str, name: str, base: type = object) -> type:
    """A class that lies in a module which exists only while a checkpoint is written."""
    cls = type(name, (base,), {"__module__": module})
    for depth in range(module.count(".") + 1):
        path = ".".join(module.split(".")[: depth + 1])
        sys.modules.setdefault(path, ModuleType(path))
    setattr(sys.modules[module], name, cls)
    return cls


@contextmanager
def foreign_modules() -> Iterator[None]:
    """Modules called fairseq and omegaconf can be made inside, and are not there after."""

    def ours() -> dict[str, ModuleType]:
        return {n: m for n, m in sys.modules.items() if n.split(".")[0] in ("fairseq", "omegaconf")}

    before = ours()
    for name in before:
        del sys.modules[name]
    yield
    for name in ours():
        del sys.modules[name]
    sys.modules.update(before)


@foreign_modules()
def write_checkpoint(path: Path, layout: str, layer_norm_first: bool = True) -> Path:
    """A checkpoint as fairseq writes one: pretrained with ``cfg`` as a dict, or fine-tuned with
    ``args`` as a Namespace; with dictionaries, enumerations and meters of classes not there."""
    tensors = published_tensors()
    settings = {
        "_name": "av_hubert",
        "encoder_attention_heads": HEADS,
        "layer_norm_first": layer_norm_first,
    }
    dictionary = foreign("fairseq.data.dictionary", "Dictionary")()
    dictionary.symbols, dictionary.indices = ["<s>", "a"], {"<s>": 0, "a": 1}
    meter = foreign("fairseq.logging.meters", "AverageMeter")()
    meter.sum = torch.tensor(3.0)
    foreign("fairseq.dataclass.constants", "Choice")
    choice = enum.Enum("Choice", {"NO": "no_c10d"}, module="fairseq.dataclass.constants")
    sys.modules["fairseq.dataclass.constants"].Choice = choice
    node = foreign("omegaconf.nodes", "AnyNode")()
    node._val = 1337
    checkpoint = {
        "args": None,
        "cfg": None,
        "criterion": None,
        "optimizer_history": [{"optimizer_name": "FP16Optimizer", "num_updates": 600000}],
        "task_state": {"dictionaries": [dictionary]},
        "extra_state": {"metrics": [("default", meter)], "seed": node, "big": 2**40},
        "last_optimizer_state": collections.defaultdict(dict, {0: {"exp_avg": torch.ones(3)}}),
    }
    if layout == "pretrained":
        checkpoint["model"] = tensors
        checkpoint["cfg"] = {"model": settings, "ddp": choice.NO}
    else:
        config = foreign("omegaconf.dictconfig", "DictConfig")
        values, model, whole = config(), config(), config()
        values._content = settings
        model._content = {"model": values}
        whole._content = {"w2v_args": model, "encoder_attention_heads": 99}
        checkpoint["args"] = argparse.Namespace(w2v_args=model, encoder_attention_heads=99)
        if layout == "ctc":
            checkpoint |= {"args": None, "cfg": {"model": whole}}
        prefix = {"ctc": "w2v_encoder.w2v_model.", "seq2seq": "encoder.w2v_model."}[layout]
        del tensors["label_embs_concat"], tensors["final_proj.weight"], tensors["final_proj.bias"]
        checkpoint["model"] = {prefix + name: tensor for name, tensor in tensors.items()}
        checkpoint["model"]["decoder.layers.0.fc1.weight"] = torch.ones(2, 2)
        checkpoint["model"]["decoder.embed_tokens.weight"] = torch.ones(2, 2)
    torch.save(checkpoint, path)
    return path


def reference(
    tensors: dict[str, torch.Tensor], lips: torch.Tensor, layer_norm_first: bool
) -> dict[str, torch.Tensor]:
    """AV-HuBERT on one clip (T, 88, 88) without audio; what each module gives, by its name."""
    out = {}
    video = "feature_extractor_video"

    def linear(x: torch.Tensor, name: str) -> torch.Tensor:
        return x @ tensors[f"{name}.weight"].T + tensors[f"{name}.bias"]

    def norm(x: torch.Tensor, name: str) -> torch.Tensor:
        centred = x - x.mean(-1, keepdim=True)
        scaled = centred / (centred.square().mean(-1, keepdim=True) + 1e-5).sqrt()
        return scaled * tensors[f"{name}.weight"] + tensors[f"{name}.bias"]

    def batch_norm(x: torch.Tensor, name: str) -> torch.Tensor:
        shape = [1, -1] + [1] * (x.dim() - 2)
        mean, var, weight, bias = (
            tensors[f"{name}.{key}"].view(shape)
            for key in ("running_mean", "running_var", "weight", "bias")
        )
        return (x - mean) / (var + 1e-5).sqrt() * weight + bias

    def prelu(x: torch.Tensor, name: str) -> torch.Tensor:
        slope = tensors[f"{name}.weight"].view([1, -1] + [1] * (x.dim() - 2))
        return torch.where(x > 0, x, slope * x)

    stem = f"{video}.resnet.frontend3D"
    x = F.conv3d(lips[None, None], tensors[f"{stem}.0.weight"], None, (1, 2, 2), (2, 3, 3))
    x = prelu(batch_norm(x, f"{stem}.1"), f"{stem}.2")
    x = out[stem] = F.max_pool3d(x, (1, 3, 3), (1, 2, 2), (0, 1, 1))
    x = x[0].transpose(0, 1)  # frames as a batch of images
    for stage in range(1, 5):
        for block in range(2):
            name = f"{video}.resnet.trunk.layer{stage}.{block}"
            stride = 2 if stage > 1 and block == 0 else 1
            y = F.conv2d(x, tensors[f"{name}.conv1.weight"], None, stride, 1)
            y = prelu(batch_norm(y, f"{name}.bn1"), f"{name}.relu1")
            y = batch_norm(F.conv2d(y, tensors[f"{name}.conv2.weight"], None, 1, 1), f"{name}.bn2")
            if f"{name}.downsample.0.weight" in tensors:
                x = F.conv2d(x, tensors[f"{name}.downsample.0.weight"], None, stride)
                x = batch_norm(x, f"{name}.downsample.1")
            x = out[name] = prelu(x + y, f"{name}.relu2")
    x = out[f"{video}.proj"] = linear(x.mean((2, 3)), f"{video}.proj")[None]
    x = torch.cat([torch.zeros_like(x), x], dim=-1)  # audio comes first
    x = out["layer_norm"] = norm(x, "layer_norm")
    x = out["post_extract_proj"] = linear(x, "post_extract_proj")
    direction = tensors["encoder.pos_conv.0.weight_v"]
    weight = direction / direction.square().sum((0, 1), keepdim=True).sqrt()
    weight = weight * tensors["encoder.pos_conv.0.weight_g"]
    bias = tensors["encoder.pos_conv.0.bias"]
    y = F.conv1d(x.transpose(1, 2), weight, bias, padding=64, groups=16)[..., :-1]
    out["encoder.pos_conv"] = F.gelu(y)
    x = x + F.gelu(y).transpose(1, 2)
    if not layer_norm_first:
        x = norm(x, "encoder.layer_norm")
    for layer in range(LAYERS):
        name = f"encoder.layers.{layer}"

        def attend(x: torch.Tensor, name: str = name) -> torch.Tensor:
            query, key, value = (
                linear(x, f"{name}.self_attn.{part}_proj").unflatten(-1, (HEADS, -1))
                for part in "qkv"
            )
            scores = torch.einsum("bthd,bshd->bhts", query, key) * (DIM // HEADS) ** -0.5
            mixed = torch.einsum("bhts,bshd->bthd", scores.softmax(-1), value)
            return linear(mixed.flatten(-2), f"{name}.self_attn.out_proj")

        def feed_forward(x: torch.Tensor, name: str = name) -> torch.Tensor:
            return linear(F.gelu(linear(x, f"{name}.fc1")), f"{name}.fc2")

        first, second = f"{name}.self_attn_layer_norm", f"{name}.final_layer_norm"
        if layer_norm_first:
            x = x + attend(norm(x, first))
            x = x + feed_forward(norm(x, second))
        else:
            x = norm(x + attend(x), first)
            x = norm(x + feed_forward(x), second)
        out[name] = x.transpose(0, 1)  # time comes first in fairseq's layers
    out[""] = norm(x, "encoder.layer_norm") if layer_norm_first else x
    return out


@pytest.mark.parametrize(
    ("layout", "layer_norm_first"), [("pretrained", True), ("seq2seq", True), ("ctc", False)]
)
def test_a_converted_checkpoint_computes_what_was_published_layer_by_layer(
    tmp_path, layout, layer_norm_first
):
    path = write_checkpoint(tmp_path / "model.pt", layout, layer_norm_first)
    config = convert(path, tmp_path / "converted")
    assert config["geometry"]["encoder_attention_heads"] == HEADS
    assert config["geometry"]["layer_norm_first"] is layer_norm_first
    assert config["assumed"] == []
    encoder = AVHubertEncoder(weights=str(tmp_path / "converted")).eval()
    lips = torch.randn(9, 88, 88, generator=torch.Generator().manual_seed(5))
    expected = reference(published_tensors(), lips, layer_norm_first)
    seen = {}

    def keep(name):
        def hook(_module, _args, output):
            seen[name] = output[0] if isinstance(output, tuple) else output

        return hook

    for name, module in encoder.encoder.named_modules():
        if name in expected:
            module.register_forward_hook(keep(name))
    # A longer clip beside it: padding must not be seen.
    batch = torch.zeros(2, 13, 88, 88)
    batch[0, :9], batch[1] = lips, torch.randn(13, 88, 88)
    with torch.no_grad():
        frames, lengths, _ = encoder(batch, torch.tensor([9, 13]))
        assert lengths.tolist() == [9, 13]
        torch.testing.assert_close(frames[:1, :9], expected[""], atol=2e-4, rtol=1e-4)
        encoder(lips[None], torch.tensor([9]))
    assert len(seen) == len(expected) - 1 == 1 + 8 + 1 + 2 + 1 + LAYERS
    for name, output in seen.items():
        torch.testing.assert_close(output, expected[name], atol=2e-4, rtol=1e-4, msg=name)


def test_bfloat16_changes_the_frames_by_its_rounding_alone(tmp_path):
    convert(write_checkpoint(tmp_path / "model.pt", "pretrained", True), tmp_path / "converted")
    lips = torch.randn(2, 9, 88, 88, generator=torch.Generator().manual_seed(5))
    frames, placed = {}, []
    for dtype in ("float32", "bfloat16"):
        encoder = AVHubertEncoder(weights=str(tmp_path / "converted"), dtype=dtype).eval()
        # Whose convolution goes wrong in bfloat16 on some CPUs.
        encoder.encoder.encoder.pos_conv.register_forward_hook(
            lambda module, args, output: placed.append(output.dtype)
        )
        assert {weight.dtype for weight in encoder.parameters()} == {torch.float32}
        with torch.no_grad():
            frames[dtype] = encoder(lips, torch.tensor([9, 7]))[0][0].float()
    exact = frames["float32"]
    error = (frames["bfloat16"] - exact).norm() / exact.norm()
    assert 1e-4 < error < 0.03
    assert placed == [torch.float32] * 2
    with pytest.raises(ValueError, match="dtype 'float8' must be one of"):
        AVHubertEncoder(weights=str(tmp_path / "converted"), dtype="float8")


@pytest.mark.parametrize("how", [copy.deepcopy, lambda module: pickle.loads(pickle.dumps(module))])
def test_a_copy_computes_the_same_in_the_same_types_and_by_itself(tmp_path, how):
    convert(write_checkpoint(tmp_path / "model.pt", "pretrained", True), tmp_path / "converted")
    encoder = AVHubertEncoder(weights=str(tmp_path / "converted"), dtype="bfloat16").eval()
    batch = torch.randn(1, 5, 88, 88), torch.tensor([5])
    copies = [how(encoder)]
    expected = encoder(*batch)[0].detach()
    copies.append(how(encoder))  # after a pass with gradients, too
    placed = []
    for module in (each.encoder.encoder.pos_conv for each in copies):
        module.register_forward_hook(lambda _, args, output: placed.append(output.dtype))
    with torch.no_grad():
        for parameter in encoder.parameters():
            parameter.zero_()
        for each in copies:
            torch.testing.assert_close(each(*batch)[0], expected, atol=0, rtol=0)
    assert placed == [torch.float32] * 2


def test_the_report_counts_what_is_not_used(tmp_path, capsys):
    path = write_checkpoint(tmp_path / "model.pt", "seq2seq")
    main(["--checkpoint", str(path), "--output", str(tmp_path / "out")])
    report = json.loads(capsys.readouterr().out)
    assert report == json.loads((tmp_path / "out/config.json").read_text())
    assert report["source_sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
    assert report["unused_tensors"] == {"decoder": 2, "feature_extractor_audio": 2, "mask_emb": 1}
    kept = load_file(tmp_path / "out/model.safetensors")
    assert report["tensors"] == len(kept) == len(published_tensors()) - 6
    assert {"argparse.Namespace", "omegaconf.dictconfig.DictConfig"} <= set(
        report["classes_not_loaded"]
    )
    assert report["size"] == "other"
    with pytest.raises(ValueError, match="the configuration says large"):
        AVHubertEncoder(size="large", weights=str(tmp_path / "out"))


def test_missing_renamed_and_reshaped_tensors_are_named(tmp_path):
    changes = {
        "encoder.layers.1.fc2.bias is missing": lambda t: t.pop("encoder.layers.1.fc2.bias"),
        "encoder.extra is unknown": lambda t: t.update({"encoder.extra": torch.ones(1)}),
        r"proj.bias is \(3,\) instead of \(64,\)": lambda t: t.update(
            {"feature_extractor_video.proj.bias": torch.ones(3)}
        ),
        "no AV-HuBERT video encoder": lambda t: t.pop(
            "feature_extractor_video.resnet.frontend3D.0.weight"
        ),
    }
    for message, change in changes.items():
        tensors = published_tensors()
        change(tensors)
        torch.save({"model": tensors, "args": None}, tmp_path / "model.pt")
        with pytest.raises(ValueError, match=message):
            convert(tmp_path / "model.pt", tmp_path / "out")
    assert not (tmp_path / "out").exists()
    with pytest.raises(FileNotFoundError, match="av_hubert"):
        convert(tmp_path / "nothing.pt", tmp_path / "out")
    (tmp_path / "cut.pt").write_bytes((tmp_path / "model.pt").read_bytes()[:5000])
    with pytest.raises(ValueError, match="nothing in it was run"):
        convert(tmp_path / "cut.pt", tmp_path / "out")


def test_without_settings_the_published_ones_are_assumed(tmp_path):
    torch.save({"model": published_tensors()}, tmp_path / "model.pt")
    config = convert(tmp_path / "model.pt", tmp_path / "out")
    assert config["assumed"] == ["encoder_attention_heads", "layer_norm_first"]
    assert config["geometry"]["encoder_attention_heads"] == 1  # of 64 units each
    assert config["geometry"]["layer_norm_first"] is True


class Malicious:
    """Runs a command when a trusting reader unpickles it."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize("function", [os.system, subprocess.check_output, eval, exec, os.putenv])
def test_a_malicious_checkpoint_runs_nothing(tmp_path, function):
    mark = tmp_path / "executed"
    code = f"open({str(mark)!r}, 'w')"
    arguments = {
        os.system: (f"touch {mark}",),
        subprocess.check_output: (["touch", str(mark)],),
        os.putenv: ("A", "B"),
    }.get(function, (code,))
    payload = Malicious(function, *arguments)
    path = tmp_path / "evil.pt"
    torch.save({"model": published_tensors(), "args": payload, "cfg": {"model": payload}}, path)
    try:
        convert(path, tmp_path / "out")
    except ValueError as error:
        assert "nothing in it was run" in str(error)  # noqa: PT017 - inert payloads convert
    assert not mark.exists()
    if function is not os.putenv:  # the payload is live: a trusting reader runs it
        torch.load(path, weights_only=False)
        assert mark.exists()
