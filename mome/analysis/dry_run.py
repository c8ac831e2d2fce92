"""What a configuration costs, found without data and without weights.

The model is built on PyTorch's meta device, where tensors have a shape and no values. Every figure
comes from running this model itself on a batch of shapes, not from formulas about it, so any LLM
and adapter are counted as they are:

- FLOPs: PyTorch's ``FlopCounterMode``, two for each multiplication and addition of a matrix product
  or convolution. One clip is read and its transcript fed, which costs what greedy decoding with a
  key/value cache costs; attention counts as if each token saw all.
- Memory of a training step: the most bytes of tensors that are alive at the same time in the
  encoders or in the LLM's forward and backward pass, plus weights and Adam's two float32 moments.
  Not counted: the CUDA context (about 0.5 GB), the allocator's fragments, and DDP's buckets.
"""

import argparse
import copy
import math
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from mome.analysis.parameters import in_markdown
from mome.common.frozen import Frozen, unwrap
from mome.common.markdown import markdown_table
from mome.data.video import LIP_RATE
from mome.encoders import Encoder
from mome.llm.prompt_tree import Node
from mome.models.avsr import AVSRModel, Features
from mome.models.rates import RatePair, TaskPair
from mome.tasks.build import build_model

TEXT_TOKENS_PER_SECOND = 4  # about 2.7 English words
GB = 1e9


def build(args: argparse.Namespace) -> AVSRModel:
    """The model of a configuration on the meta device, sizes as published where not at hand.

    ``auto`` types become bfloat16, which they are on a GPU.
    """
    args = copy.deepcopy(args)
    for part in ("decoder", "audio_encoder", "video_encoder"):
        conf = dict(getattr(args, f"{part}_conf") or {})
        conf.pop("weights", None)
        if part != "video_encoder":
            conf["load_pretrained"] = False
        for key in ("lm_dtype", "dtype"):
            if conf.get(key) == "auto":
                conf[key] = "bfloat16"
        setattr(args, f"{part}_conf", conf)
    with torch.device("meta"):
        return build_model(args)


def efficient_attention(
    query, key, value, attn_mask=None, dropout_p=0.0, is_causal=False, scale=None, **_
):
    """Attention by the kernel that CUDA takes for a tree of prompts, which stores no scores."""
    groups = query.shape[1] // key.shape[1]
    if groups > 1:
        key, value = (x.repeat_interleave(groups, dim=1) for x in (key, value))
    if attn_mask is not None:
        attn_mask = attn_mask.to(query.dtype).expand(*query.shape[:3], key.shape[2])
    return torch.ops.aten._scaled_dot_product_efficient_attention(
        query, key, value, attn_mask, torch.is_grad_enabled(), dropout_p, is_causal, scale=scale
    )[0]


@contextmanager
def meta() -> Iterator[None]:
    """Tensors made inside have no values, and attention is what it will be on a GPU."""
    # A TorchFunctionMode would be off where gradient checkpointing computes again.
    original = F.scaled_dot_product_attention
    F.scaled_dot_product_attention = efficient_attention  # type: ignore[assignment]
    try:
        with torch.device("meta"):
            yield
    finally:
        F.scaled_dot_product_attention = original


class PeakMemory(TorchDispatchMode):
    """Bytes of the tensors made inside that are alive, and the most there were at once."""

    def __init__(self):
        super().__init__()
        self.alive = self.peak = 0
        self.known: weakref.WeakSet = weakref.WeakSet()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        given = {
            id(leaf.untyped_storage())
            for leaf in tree_leaves((args, kwargs or {}))
            if isinstance(leaf, torch.Tensor)
        }
        output = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(output):
            if isinstance(leaf, torch.Tensor):
                storage = leaf.untyped_storage()
                if id(storage) not in given and storage not in self.known:
                    self.known.add(storage)
                    self.alive += storage.nbytes()
                    weakref.finalize(storage, self.free, storage.nbytes())
        self.peak = max(self.peak, self.alive)
        return output

    def free(self, size: int) -> None:
        self.alive -= size


def encoder_of(model: AVSRModel, kind: str) -> Encoder:
    """The audio or video encoder, out of its wrapper.

    Raises:
        TypeError: for an encoder that cannot say what it costs.
    """
    encoder = unwrap(getattr(model, f"{kind}_encoder"))
    if not isinstance(encoder, Encoder):
        raise TypeError(
            f"{type(encoder).__name__} does not derive from mome.encoders.Encoder, whose dry_run "
            f"says what an encoder costs (docs/extend.md)"
        )
    return encoder


def clips(model: AVSRModel, batch: int, seconds: float) -> Features:
    """Encoded clips on the meta device; see :meth:`AVSRModel.encode`."""
    features = {}
    for kind in model.rates:
        encoder = encoder_of(model, kind)
        time = round(seconds * encoder.frames_per_second)
        frames = torch.empty(batch, time, encoder.output_size(), device="meta")
        features[kind] = frames, torch.empty(batch, dtype=torch.long, device="meta")
    return features


def transcripts(batch: int, seconds: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Token ids (B, L) and lengths (B,) on the meta device."""
    length = math.ceil(seconds * TEXT_TOKENS_PER_SECOND)
    ids = torch.empty(batch, length, dtype=torch.long, device="meta")
    return ids, torch.empty(batch, dtype=torch.long, device="meta")


@contextmanager
def counting() -> Iterator[FlopCounterMode]:
    """Count the FLOPs of what runs inside on the meta device, without gradients."""
    counter = FlopCounterMode(display=False)
    with torch.no_grad(), meta(), counter:
        yield counter


def encoder_flops(model: AVSRModel, kind: str, seconds: float) -> int:
    """FLOPs of an encoder on one clip."""
    with counting() as counter:
        encoder_of(model, kind).dry_run(1, seconds)
    return counter.get_total_flops()


def llm_flops(model: AVSRModel, task_pair: TaskPair, seconds: float) -> int:
    """FLOPs of projectors and LLM on one clip and its transcript at a rate pair."""
    text, lengths = transcripts(1, seconds)
    with counting() as counter:
        model.eval().loss(clips(model, 1, seconds), text, lengths, [task_pair])
    return counter.get_total_flops()


def uncompressed_flops(model: AVSRModel, task: str, kinds: list[str], seconds: float) -> int:
    """FLOPs of the LLM if it read every frame of the encoders, projectors left out."""
    text, _ = transcripts(1, seconds)
    decoder = model.eval().decoder
    with counting() as counter:
        nodes = [decoder.root(1)]
        nodes[0].pair = str(model.pairs[task][0])  # any: their LoRAs are of one size
        for kind in kinds:
            frames = torch.empty(
                1, round(seconds * encoder_of(model, kind).frames_per_second), decoder.dim
            )
            lengths = torch.empty(1, dtype=torch.long)
            nodes.append(decoder.marked(kind, frames, lengths, len(nodes) - 1))
        nodes.append(decoder.text_node(model.prompt_ids[task], 1, len(nodes) - 1))
        valid = torch.ones(text.shape, dtype=torch.bool)
        nodes.append(Node(decoder.embed(text), valid, len(nodes) - 1))
        decoder.forward_tree(nodes, [(len(nodes) - 1, 0, text.shape[1])])
    return counter.get_total_flops()


def weight_bytes(model: AVSRModel) -> dict[str, int]:
    """Bytes of all weights, frozen ones included, by type."""
    parts = [model, *(m.inner for m in model.modules() if isinstance(m, Frozen))]
    tensors = {id(p): p for part in parts for p in [*part.parameters(), *part.buffers()]}
    sizes: dict[str, int] = {}
    for tensor in tensors.values():
        name = str(tensor.dtype).removeprefix("torch.")
        sizes[name] = sizes.get(name, 0) + tensor.nbytes
    return sizes


def tokens_per_second(model: AVSRModel, pair: RatePair) -> float:
    """Audio and video tokens that the LLM reads for a second of speech."""
    return sum(
        encoder_of(model, kind).frames_per_second / rate for kind, rate in pair.rates.items()
    )


def heaviest(model: AVSRModel) -> list[TaskPair]:
    """The (task, rate pair) of a training step, of all draws the one with the most tokens."""
    task_pairs = model.task_pairs
    task_pairs.sort(key=lambda each: -tokens_per_second(model, each.pair))
    return task_pairs[: model.pairs_per_step]


def step_peak(model: AVSRModel, batch: int, seconds: float) -> dict[str, int]:
    """Most bytes alive in each part of a training step, beside weights and Adam's moments."""
    peaks = {}
    with meta():
        for kind in model.rates:
            frozen = not any(p.requires_grad for p in encoder_of(model, kind).parameters())
            with torch.set_grad_enabled(not frozen), PeakMemory() as memory:
                encoder_of(model, kind).dry_run(batch, seconds)
            peaks[f"{kind} encoder"] = memory.peak
        text, lengths = transcripts(batch, seconds)
        with PeakMemory() as memory:
            features = clips(model, batch, seconds)
            loss, _ = model.train().loss(features, text, lengths, heaviest(model))
            loss.backward()
            del loss, features
        peaks["LLM, forward and backward"] = memory.peak
        model.zero_grad(set_to_none=True)
    return peaks


def clips_per_gpu(args: argparse.Namespace, seconds: float) -> int:
    """Clips of this length in a batch of one GPU, by ESPnet's ``batch_type``."""
    size = args.batch_size
    if args.batch_type in ("length", "numel"):  # bins are video frames: see utt2num_frames
        size = args.batch_bins // round(seconds * LIP_RATE)
    return max(1, size // max(1, args.ngpu))


def report(args: argparse.Namespace, seconds: float = 10.0) -> str:
    """Parameters, tokens, TFLOPs and GPU memory of a configuration, in Markdown.

    Args:
        args: the configuration; see :func:`mome.tasks.config.parse`.
        seconds: length of the clips.

    Raises:
        ValueError: if the configuration does not describe an AVSR model.
        OSError: if the LLM's or Whisper's sizes cannot be found out.
    """
    if args.model != "avsr":
        raise ValueError(f"{args.config}: a dry run needs `model: avsr`, not {args.model}")
    model = build(args)
    lm = args.decoder_conf.get("lm", "the default of mome_llm")
    text = [f"# Dry run of {args.config}", "", f"LLM: {lm}", ""]
    text += in_markdown(model)

    encoders = {kind: encoder_flops(model, kind, seconds) for kind in model.rates}
    rows = []
    for task, pairs in model.pairs.items():
        for pair in pairs:
            kinds = list(pair.rates)
            of_encoders = sum(encoders[kind] for kind in kinds)
            llm = llm_flops(model, TaskPair(task, pair), seconds)
            flops = [f"{x / 1e12:.2f}" for x in (of_encoders, llm, of_encoders + llm)]
            rows.append([f"{task} {pair}", f"{tokens_per_second(model, pair):.1f}", *flops])
        frames = sum(encoder_of(model, kind).frames_per_second for kind in kinds)
        llm = uncompressed_flops(model, task, kinds, seconds)
        flops = [f"{x / 1e12:.2f}" for x in (of_encoders, llm, of_encoders + llm)]
        rows.append([f"{task}, not compressed", f"{frames:.1f}", *flops])
    text += ["", f"TFLOPs for a clip of {seconds:g} s, its transcript included:", ""]
    text += markdown_table(["", "tokens/s", "encoders", "LLM", "sum"], rows)

    batch = clips_per_gpu(args, seconds)
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    fixed = {f"weights, {name}": n for name, n in weight_bytes(model).items() if n > 1e6}
    fixed["Adam's moments, float32"] = 8 * trained
    peaks = step_peak(model, batch, seconds)
    total = sum(fixed.values()) + max(peaks.values())
    rows = [[name, f"{size / GB:.2f}"] for name, size in (fixed | peaks).items()]
    rows.append(["sum, with the largest part of the step", f"{total / GB:.2f}"])
    text += ["", f"GPU memory of training in GB, {batch} clips of {seconds:g} s a GPU:", ""]
    text += markdown_table(["", "GB"], rows)
    return "\n".join(text)
