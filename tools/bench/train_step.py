"""A training step on all rate pairs: our tree of prompts against a plain loop over the pairs.

The loop does what the predecessors do: one pass of the LLM for each pair, with logits at every
position, PyTorch's fused attention and nothing recomputed. Both start from the same encoder frames
(random here) of the same transcripts and end with gradients; losses and gradients are compared
first. Memory is the peak of a process that takes one step and nothing else, above what it held
before.
"""

import argparse
import contextlib
import ctypes
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from unittest import mock

import torch
import torch.nn.functional as F
from experts import LLMS, llm_config
from timing import machine, seconds, table
from torch import nn
from transformers import AutoTokenizer

from mome.llm import attention
from mome.llm.decoder import IGNORE, MoMELLMDecoder
from mome.llm.prompt_tree import Node, pack_tree
from mome.models.avsr import AVSRModel, Features

FRAMES_PER_SECOND = {"audio": 50, "video": 25}
WIDTHS = {"audio": 384, "video": 192}
M_MMAP_THRESHOLD = -3  # of malloc.h
Batch = dict[str, torch.Tensor]


class GivenFrames(nn.Module):
    """Stands in an encoder's place: the benchmark brings frames."""

    def __init__(self, width: int):
        super().__init__()
        self.width = width

    def output_size(self) -> int:
        return self.width


class BenchModel(AVSRModel):
    """AVSRModel on frames instead of waveforms and crops."""

    def encode(self, speech=None, speech_lengths=None, lips=None, lips_lengths=None) -> Features:
        return {"audio": (speech, speech_lengths), "video": (lips, lips_lengths)}


def build(args: argparse.Namespace) -> BenchModel:
    """An AVSR model of these sizes, with random weights and MoME at mhsa."""
    torch.manual_seed(0)
    with tempfile.TemporaryDirectory() as folder:
        llm_config(args.lm).save_pretrained(folder)
        AutoTokenizer.from_pretrained(args.tokenizer).save_pretrained(folder)
        decoder = MoMELLMDecoder(
            lm=folder,
            lm_dtype=args.dtype,
            load_pretrained=False,
            adapter_conf={"num_routed": args.experts - 1, "top_k": min(4, args.experts - 1)},
            gradient_checkpointing=args.gradient_checkpointing,
        )
        encoders = [GivenFrames(width) for width in WIDTHS.values()]
        model = BenchModel(
            decoder,
            folder,
            *encoders,
            audio_rates=args.audio_rates,
            video_rates=args.video_rates,
            balance_weight=0.0,
        )
    for layer in decoder.adapter.layers:
        nn.init.normal_(layer.up.weight, std=0.02)
    return model.to("cuda" if torch.cuda.is_available() else "cpu").train()


def make_batch(args: argparse.Namespace, device: str) -> Batch:
    """Frames of clips between 60 and 100 % of ``--seconds``, with three tokens a second of text."""
    torch.manual_seed(1)
    lengths = torch.linspace(0.6, 1.0, args.batch) * args.seconds
    batch = {}
    for name, kind in (("speech", "audio"), ("lips", "video")):
        frames = (lengths * FRAMES_PER_SECOND[kind]).long()
        batch[name] = torch.randn(args.batch, int(frames.max()), WIDTHS[kind])
        batch[f"{name}_lengths"] = frames
    batch["text_lengths"] = (3 * lengths).long()
    batch["text"] = torch.randint(10, 10_000, (args.batch, int(batch["text_lengths"].max())))
    for row, length in zip(batch["text"], batch["text_lengths"], strict=True):
        row[length:] = IGNORE
    return {name: value.to(device) for name, value in batch.items()}


def tree_loss(model: BenchModel, batch: Batch) -> torch.Tensor:
    """All pairs at once."""
    return model(**batch)[0]


def loop_loss(model: BenchModel, batch: Batch) -> torch.Tensor:
    """Pair by pair, with all logits."""
    features = model.encode(*[batch[k] for k in batch if "text" not in k])
    text, lengths = batch["text"], batch["text_lengths"]
    target = F.pad(text, (0, 1), value=IGNORE)
    target[torch.arange(len(text)), lengths] = model.decoder.eos_id
    valid = text != IGNORE
    losses = []
    for pair in model.pairs["avsr"]:
        nodes, _ = model.prompts(features, [("avsr", pair)])
        transcript = model.decoder.embed(text.clamp(min=0))
        nodes.append(Node(transcript, valid, len(nodes) - 1))
        embeds, _, positions, attention, _ = pack_tree(nodes)
        logits = model.decoder.lm(
            inputs_embeds=embeds,
            attention_mask=attention,
            position_ids=positions,
            use_cache=False,
        ).logits
        labels = F.pad(target, (logits.shape[1] - target.shape[1], 0), value=IGNORE)
        losses.append(F.cross_entropy(logits.float().transpose(1, 2), labels, ignore_index=IGNORE))
    return torch.stack(losses).mean()


@contextlib.contextmanager
def as_it_comes(model: BenchModel):
    """PyTorch's fused attention, and all parts of a layer kept for the backward pass."""
    lm = model.decoder.lm.inner
    lm.set_attn_implementation("sdpa")
    with mock.patch(
        "mome.adapters.experts.recomputed", lambda function, *inputs: function(*inputs)
    ):
        yield
    lm.set_attn_implementation(attention.NAME)


LOSSES = {"loop over pairs": loop_loss, "tree": tree_loss}


def step(model: BenchModel, batch: Batch, name: str) -> torch.Tensor:
    """One forward and backward pass."""
    model.zero_grad()
    with contextlib.nullcontext() if name == "tree" else as_it_comes(model):
        loss = LOSSES[name](model, batch)
        loss.backward()
    return loss.detach()


def peak_megabytes(args: argparse.Namespace, name: str) -> float:
    """Peak memory of one step above what was held before, in this process."""
    # Tensors go back to the system when freed: what malloc keeps would count before the step
    # instead of in its peak.
    ctypes.CDLL(None).mallopt(M_MMAP_THRESHOLD, 2**16)
    model = build(args)
    device = str(next(model.parameters()).device)
    batch = make_batch(args, device)
    if device != "cpu":
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        step(model, batch, name)
        return (torch.cuda.max_memory_allocated() - before) / 2**20
    small = argparse.Namespace(**{**vars(args), "batch": 1, "seconds": 1.0})
    step(model, make_batch(small, device), name)  # libraries have loaded what they load once
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew from what is held now
    before = resident_megabytes("VmRSS")
    step(model, batch, name)
    return resident_megabytes("VmHWM") - before


def resident_megabytes(field: str) -> float:
    """Memory of this process as Linux counts it: ``VmRSS`` now, ``VmHWM`` at its peak."""
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(status[field].split()[0]) / 2**10


def parser_of(description: str) -> argparse.ArgumentParser:
    """Options of the model and the batch."""
    parser = argparse.ArgumentParser(description=description)
    downloads = Path(os.environ.get("MOME_DOWNLOADS", "downloads"))
    parser.add_argument(
        "--lm",
        choices=LLMS,
        default="smollm2-135m",
        help="LLM whose sizes are taken; default: %(default)s",
    )
    parser.add_argument(
        "--tokenizer",
        default=str(downloads / "smollm2-135m-instruct"),
        help="folder of its tokenizer; default: %(default)s",
    )
    parser.add_argument("--dtype", default="auto", help="float32, bfloat16 or auto")
    parser.add_argument(
        "--batch", type=int, default=8, help="clips of a step; default: %(default)s"
    )
    parser.add_argument("--seconds", type=float, default=3.0, help="longest clip")
    parser.add_argument("--experts", type=int, default=24, help="one of them shared")
    parser.add_argument(
        "--audio_rates",
        type=int,
        nargs="+",
        default=[4, 16],
        help="audio frames averaged into a token; default: 4 16",
    )
    parser.add_argument(
        "--video_rates",
        type=int,
        nargs="+",
        default=[2, 5],
        help="video frames averaged into a token; default: 2 5",
    )
    parser.add_argument(
        "--gradient_checkpointing",
        action="store_true",
        help="recompute the LLM's layers in the backward pass",
    )
    return parser


def main() -> None:
    """Print the table."""
    parser = parser_of(__doc__)
    parser.add_argument(
        "--repetitions", type=int, default=7, help="rounds of all variants; default: %(default)s"
    )
    parser.add_argument("--memory_of", choices=LOSSES, help="print the peak of one variant only")
    args = parser.parse_args()
    if args.memory_of:
        print(peak_megabytes(args, args.memory_of))
        return
    print(f"{args.lm}, {args.dtype}, {args.batch} clips of up to {args.seconds} s; {machine()}")
    model = build(args)
    batch = make_batch(args, str(next(model.parameters()).device))
    gradients = {}
    for name in LOSSES:
        loss = step(model, batch, name)
        gradients[name] = torch.cat([p.grad.flatten() for p in model.parameters()])
        print(f"{name}: loss {float(loss):.6f}")
    plain, ours = gradients.values()
    print(f"gradients differ by {float((ours - plain).norm() / plain.norm()):.1e} of their norm\n")
    times = seconds({n: lambda n=n: step(model, batch, n) for n in LOSSES}, args.repetitions)
    print(table(times, "loop over pairs"))
    peaks = {}
    for name in LOSSES:
        command = [sys.executable, *sys.argv, "--memory_of", name]
        output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        peaks[name] = float(output.split()[-1])
    print("\n| variant | peak MB |\n| --- | ---: |")
    for name, value in peaks.items():
        print(f"| {name} | {value:.0f} |")
    print(f"\nmemory of the tree: {peaks['tree'] / peaks['loop over pairs']:.2f} times the loop's")


if __name__ == "__main__":
    main()
