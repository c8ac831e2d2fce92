"""The paper's system for LRS3 with random weights: a training step, and decoding with a beam.

Whisper-small and AV-HuBERT Large read clips of noise, and an LLM of 1B parameters is trained or
searched, all by the configuration that trains on LRS3, or that of --config. Training is timed at
the configuration's batch size for clips of each length, against a plain loop over the rate pairs
where asked; decoding at all rate pairs in one pass, or at each of --rates by itself. Runs on a GPU
if there is one; --layers 2 is a quick try without.
"""

import argparse
import gc
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from functools import partial
from itertools import product
from pathlib import Path

import torch
from experts import llm_config
from timing import attainable, machine, seconds, synchronize
from torch.utils.flop_counter import FlopCounterMode
from train_step import as_it_comes, loop_loss

from mome.common.frozen import unwrap
from mome.llm.beam import beam_search
from mome.models.avsr import AVSRModel
from mome.models.rates import parse_rate_pair
from mome.pretrained.model_sizes import words_tokenizer
from mome.tasks.avsr import AVSRTask
from mome.tasks.config import parse

ROOT = Path(__file__).parents[2]
SAMPLES, FRAMES, WORDS = 16_000, 25, 3  # a second
HOURS, EPOCHS = 433, 10
Batch = dict[str, torch.Tensor]


def build(args: argparse.Namespace, device: str, checkpointing: bool = False) -> AVSRModel:
    """The model of a configuration with random weights, frozen parts in ``--dtype``."""
    with tempfile.TemporaryDirectory() as folder:
        llm_config(args.lm, args.layers).save_pretrained(folder)
        words_tokenizer().save_pretrained(folder)
        options = ["--config", str(args.config)]
        options += ["--decoder_conf", f"lm={folder}", "--decoder_conf", f"lm_dtype={args.dtype}"]
        options += ["--audio_encoder_conf", "model=openai/whisper-small"]
        options += ["--audio_encoder_conf", f"dtype={args.dtype}"]
        options += ["--video_encoder_conf", f"dtype={args.dtype}"]
        options += ["--decoder_conf", f"gradient_checkpointing={str(checkpointing).lower()}"]
        for part in ("decoder", "audio_encoder"):
            options += [f"--{part}_conf", "load_pretrained=false"]
        pairs = [parse_rate_pair(name) for name in args.rates]
        for kind in ("audio", "video") if pairs else ():
            rates = sorted({pair.rates[kind] for pair in pairs})
            options += ["--model_conf", f"{kind}_rates={rates}".replace(" ", "")]
        torch.manual_seed(0)
        with torch.device(device):
            model = AVSRTask.build_model(parse(options))
    return model.to(device)


def clips(model: AVSRModel, count: int, length: float, device: str) -> Batch:
    """Clips of ``length`` seconds with transcripts of three tokens a second."""
    torch.manual_seed(1)
    crops = torch.randn(count, int(length * FRAMES), 88, 88, device=device)
    speech = torch.randn(count, int(length * SAMPLES), device=device)
    words = int(length * WORDS)
    text = torch.randint(10, 10_000, (count, words), device=device)
    sizes = {"speech": speech.shape[1], "lips": crops.shape[1], "text": words}
    lengths = {f"{k}_lengths": torch.full((count,), n, device=device) for k, n in sizes.items()}
    batch = {"speech": speech, "lips": crops, "text": text} | lengths
    # In the order in which the model's encoders take them.
    order = ("speech", "speech_lengths", "lips", "lips_lengths", "text", "text_lengths")
    return {name: batch[name] for name in order}


def optimizer_of(model: AVSRModel) -> torch.optim.Optimizer:
    """AdamW over what is trained."""
    return torch.optim.AdamW((p for p in model.parameters() if p.requires_grad), lr=1e-4)


def tree_loss(model: AVSRModel, batch: Batch) -> torch.Tensor:
    """The model's own loss: all rate pairs in one tree of prompts."""
    return model(**batch)[0]


def step(
    model: AVSRModel, batch: Batch, optimizer: torch.optim.Optimizer, loss_of: Callable
) -> None:
    """A whole training step: encoders, LLM, gradients, clipping, optimiser."""
    with nullcontext() if loss_of is tree_loss else as_it_comes(model):
        loss_of(model, batch).backward()
    torch.nn.utils.clip_grad_norm_((p for p in model.parameters() if p.requires_grad), 10.0)
    optimizer.step()
    optimizer.zero_grad()


@contextmanager
def peak() -> Iterator[list[float]]:
    """GB of the GPU in use at most while inside, weights included; zero on a CPU."""
    found = [0.0]
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    yield found
    if torch.cuda.is_available():
        found[0] = torch.cuda.max_memory_allocated() / 1e9


def flops_of(run: Callable[[], object]) -> int:
    """Floating-point operations of matrix products, convolutions and attention."""
    counter = FlopCounterMode(display=False)
    with counter:
        run()
    return counter.get_total_flops()


def parts(model: AVSRModel, batch: Batch) -> dict[str, Callable[[], object]]:
    """The encoders by themselves."""

    @torch.no_grad()
    def encode(kind: str) -> object:
        given = {"audio": "speech", "video": "lips"}[kind]
        encoder = getattr(model, f"{kind}_encoder")
        return encoder(batch[given], batch[f"{given}_lengths"])

    return {f"{kind} encoder": partial(encode, kind) for kind in model.rates}


def largest(
    model: AVSRModel, optimizer: torch.optim.Optimizer, length: float, count: int, device: str
) -> int:
    """Clips that a step takes before memory runs out, doubled from ``count`` on."""
    fits = 0
    while count <= 4096:
        try:
            step(model, clips(model, count, length, device), optimizer, tree_loss)
        except torch.OutOfMemoryError:
            break
        fits, count = count, 2 * count
    release(optimizer)
    return fits


def release(optimizer: torch.optim.Optimizer) -> None:
    """Give back what a step held that ran out of memory, which its traceback may keep alive."""
    optimizer.zero_grad()
    gc.collect()
    torch.cuda.empty_cache()


def train(args: argparse.Namespace, device: str) -> None:
    """Print what training steps take."""
    peak_flops, _ = attainable(getattr(torch, args.dtype), device)
    flops: dict[float, int] = {}  # of a step by the length of clips; recomputing adds none
    print("\nTraining steps, the encoders and the optimiser included\n")
    print("| clips | variant | s a step | TFLOP/s | peak GB | hours, 10 epochs of 433 h |")
    print("| --- | --- | ---: | ---: | ---: | ---: |")
    notes = []
    for checkpointing in args.checkpointing:
        model = build(args, device, checkpointing).train()
        optimizer = optimizer_of(model)
        for length in args.seconds:
            count = args.clips or max(1, round(8000 / FRAMES / length))
            batch = clips(model, count, length, device)
            variants = {"tree of prompts": tree_loss}
            if not checkpointing:
                variants["loop over pairs"] = loop_loss
            for name, loss_of in variants.items():
                run = partial(step, model, batch, optimizer, loss_of)
                try:
                    if length not in flops and not checkpointing:
                        flops[length] = flops_of(run)
                    with peak() as memory:
                        times = seconds({name: run}, args.repetitions)[name]
                except torch.OutOfMemoryError:
                    print(f"| {count} of {length:g} s | {name} | out of memory | | | |", flush=True)
                    release(optimizer)
                    continue
                median = statistics.median(times)
                hours = HOURS * EPOCHS / (count * length) * median
                suffix = ", checkpointing" if checkpointing else ""
                rate = f"{flops[length] / median / 1e12:.0f}" if length in flops else ""
                print(
                    f"| {count} of {length:g} s | {name}{suffix} | {median:.3f} | "
                    f"{rate} | {memory[0]:.1f} | {hours:.1f} |",
                    flush=True,
                )
            if not checkpointing:
                times = seconds(parts(model, batch), args.repetitions)
                encoder = unwrap(model.video_encoder)
                encoder.dtype = torch.float32
                video = {"video encoder in float32": parts(model, batch)["video encoder"]}
                times |= seconds(video, args.repetitions)
                encoder.dtype = getattr(torch, args.dtype)
                shown = ", ".join(f"{n} {statistics.median(t):.3f} s" for n, t in times.items())
                notes.append(f"of a step with {count} clips of {length:g} s: {shown}")
            if device == "cuda":
                fits = largest(model, optimizer, length, count, device)
                how = "with" if checkpointing else "without"
                notes.append(f"{fits} clips of {length:g} s fit {how} checkpointing")
            del batch, run
        if device == "cuda":
            release(optimizer)
        del model, optimizer
    print(f"\nattainable: {peak_flops:.0f} TFLOP/s in a large product of {args.dtype}")
    print("\n".join(notes), flush=True)


@torch.inference_mode()
def decode(args: argparse.Namespace, device: str) -> None:
    """Print what beam search takes."""
    model = build(args, device).eval()
    model.decoder.adapter.for_inference(model.decoder.lm.inner.dtype)
    # By the names of --rates each by itself, otherwise all side by side.
    chosen = [[each] for name in args.rates for each in model.task_pairs if str(each.pair) == name]
    print(f"\nDecoding with beam {args.beam}, {args.tokens} tokens\n")
    print(
        "| clips | rate pairs | s | encoders, s | peak GB | GPU at work, % | "
        "copies to the host a token |"
    )
    print("| --- | --- | ---: | ---: | ---: | ---: | ---: |")
    for (count, length), task_pairs in product(args.decode, chosen or [model.task_pairs]):
        batch = clips(model, count, length, device)
        inputs = {k: v for k, v in batch.items() if "text" not in k}

        def search(inputs=inputs, task_pairs=task_pairs):
            nodes, leaves = model.prompts(model.encode(**inputs), task_pairs)
            return beam_search(
                model.decoder.lm.inner,
                nodes,
                leaves,
                beam=args.beam,
                max_new_tokens=args.tokens,
                eos_id=model.decoder.eos_id,
                adapter=model.decoder.adapter,
            )

        search()
        with peak() as memory:
            times = seconds({"all": search, "encoders": partial(model.encode, **inputs)}, 3)
        whole, encoders = (statistics.median(times[name]) for name in ("all", "encoders"))
        busy, copies = profile(search) if device == "cuda" else (float("nan"), float("nan"))
        pairs = ", ".join(str(each.pair) for each in task_pairs)
        print(
            f"| {count} of {length:g} s | {pairs} | {whole:.2f} | {encoders:.2f} | "
            f"{memory[0]:.1f} | {100 * busy:.0f} | {copies / args.tokens:.1f} |",
            flush=True,
        )


def profile(run: Callable[[], object]) -> tuple[float, float]:
    """Share of the time in which the GPU computes, and copies from it to the host."""
    activities = [torch.profiler.ProfilerActivity.CUDA]
    synchronize()
    with torch.profiler.profile(activities=activities) as profiler:
        started = time.perf_counter()
        run()
        synchronize()
        elapsed = time.perf_counter() - started
    events = profiler.events()
    busy = sum(event.device_time for event in events) / 1e6
    copies = sum("DtoH" in event.name for event in events)
    return busy / elapsed, copies


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--part",
        choices=("train", "decode"),
        required=True,
        help="what is timed, a training step or decoding",
    )
    config = ROOT / "egs/lrs3/conf/train.yaml"
    parser.add_argument("--config", type=Path, default=config, help="of egs/lrs2 or egs/lrs3")
    parser.add_argument("--rates", nargs="+", default=[], help="such as a4_v2, each by itself")
    parser.add_argument("--lm", default="llama-3.2-1b", help="see experts.py")
    parser.add_argument("--layers", type=int, help="fewer than the LLM has, as a quick try")
    parser.add_argument("--dtype", default="bfloat16", help="of LLM, Whisper and AV-HuBERT")
    parser.add_argument("--seconds", type=float, nargs="+", default=[4, 16], help="of clips")
    parser.add_argument("--clips", type=int, help="a step; default: 320 s of them")
    parser.add_argument(
        "--checkpointing", type=int, nargs="+", default=[0, 1], help="without (0), with (1)"
    )
    parser.add_argument(
        "--repetitions",
        type=int,
        default=5,
        help="rounds of all variants of the training step; default: %(default)s",
    )
    parser.add_argument(
        "--beam", type=int, default=15, help="hypotheses, 1 is greedy; default: %(default)s"
    )
    parser.add_argument("--tokens", type=int, default=32, help="of a transcript")
    args = parser.parse_args()
    args.decode = [(16, 4.0), (1, 24.0)]
    if args.clips:
        args.decode = [(args.clips, length) for length in args.seconds]
    device = "cuda" if torch.cuda.is_available() else "cpu"
    print(f"{args.config.stem} with {args.lm}, {args.dtype}; {machine()}")
    {"train": train, "decode": decode}[args.part](args, device)


if __name__ == "__main__":
    main()
