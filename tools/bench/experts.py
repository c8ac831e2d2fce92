"""What the experts cost: the adapted LLM against the frozen one, LoRA and a loop over experts.

One prefill and one decoding step of an LLM with random weights. MoME runs compiled on a CPU
(`mome/adapters/experts_cpu.py`), inside the attention's own projections
(`mome/adapters/experts_fused.py`) and, as in training, beside the attention. The loop gathers each
expert's tokens, as general mixture-of-experts layers do. What the frozen LLM achieves is set
against what a large matrix product and a copy achieve on the same machine. With --compile also the
step by `torch.compile`, which on a GPU replays it as a CUDA graph. Runs on a GPU if there is one.
"""

import argparse
import copy
import statistics
from collections.abc import Callable
from functools import partial
from unittest.mock import patch

import torch
from timing import attainable, machine, seconds, table
from torch import nn
from transformers import AutoModelForCausalLM, DynamicCache, LlamaConfig, StaticCache

from mome.adapters import attach
from mome.adapters.experts_cpu import can_run
from mome.common.precision import compute_dtype
from mome.llm.attention import use_matrix_products

GEOMETRIES = {
    "smollm2-135m": {
        "hidden_size": 576,
        "intermediate_size": 1536,
        "num_hidden_layers": 30,
        "num_attention_heads": 9,
        "num_key_value_heads": 3,
        "vocab_size": 49152,
    },
    "llama-3.2-1b": {
        "hidden_size": 2048,
        "intermediate_size": 8192,
        "num_hidden_layers": 16,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "vocab_size": 128256,
    },
    "llama-3.1-8b": {
        "hidden_size": 4096,
        "intermediate_size": 14336,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "vocab_size": 128256,
    },
}


def loop_over_experts(
    experts: nn.Module, hidden: torch.Tensor, base: torch.Tensor
) -> tuple[torch.Tensor, None, None]:
    """MoME's forward pass, expert by expert on the tokens that chose it."""
    flat = hidden.reshape(-1, hidden.shape[-1])
    gates = experts.route(flat)[0].to(hidden.dtype)
    output = torch.zeros_like(flat)
    width = experts.bottleneck
    for index in range(experts.num_routed + experts.num_shared):
        rows = slice(index * width, (index + 1) * width)
        down = experts.down.weight[rows].to(hidden.dtype)
        up = experts.up.weight[:, rows].to(hidden.dtype)
        tokens = gates[:, index].nonzero().flatten()
        if len(tokens):
            some = nn.functional.gelu(flat[tokens] @ down.T) @ up.T
            output.index_add_(0, tokens, some * gates[tokens, index, None])
    return base + output.view_as(hidden), None, None


def frozen_lm(sizes: dict, dtype: torch.dtype, device: str) -> nn.Module:
    """An LLM of these sizes with random weights."""
    config = LlamaConfig(**sizes, tie_word_embeddings=True, bos_token_id=0)
    with torch.device(device):
        torch.manual_seed(0)
        lm = AutoModelForCausalLM.from_config(config, dtype=dtype).requires_grad_(False).eval()
    use_matrix_products(lm)
    return lm


def adapted(lm: nn.Module, adapter: str) -> nn.Module:
    """The LLM with an adapter that is not zero; all but the attention's weights are shared.

    Args:
        lm: frozen.
        adapter: ``mome``, as decoding runs it; ``joint``, ``beside`` or ``loop``; or ``lora``.
    """
    shared = {id(p): p for name, p in lm.named_parameters() if "self_attn" not in name}
    lm = copy.deepcopy(lm, shared)
    kind, conf = ("lora", {"rank": 32}) if adapter == "lora" else ("mome", {})
    with torch.device(lm.device):
        module = attach(lm, kind, conf)
        torch.manual_seed(1)
        for parameter in module.parameters():
            nn.init.normal_(parameter, std=0.02)
    if adapter in ("lora", "mome", "joint"):
        with patch(
            "mome.adapters.mome.can_run", can_run if adapter == "mome" else lambda *_: False
        ):
            module.for_inference(lm.dtype)
        return lm
    for layer in module.layers:
        layer.down.to(lm.dtype)
        layer.up.to(lm.dtype)
        if adapter == "loop":
            layer.forward = partial(loop_over_experts, layer)
    return lm


def compiled_step(lm: nn.Module, prompt: torch.Tensor) -> Callable[[], torch.Tensor]:
    """A decoding step after a prompt (B, L), compiled; it starts from the same cache each time."""
    batch, length = prompt.shape
    cache = StaticCache(config=lm.config, max_cache_len=length + 1)
    last = torch.tensor([length - 1], device=prompt.device)
    lm(input_ids=prompt, past_key_values=cache, use_cache=True, logits_to_keep=last)
    positions = torch.full((batch, 1), length, device=prompt.device)
    compiled = torch.compile(lm, mode="reduce-overhead")

    def step() -> torch.Tensor:
        for layer in cache.layers:
            layer.cumulative_length.fill_(length)
        return compiled(
            input_ids=prompt[:, :1], past_key_values=cache, use_cache=True, position_ids=positions
        ).logits

    return step


@torch.inference_mode()
def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--geometry", choices=GEOMETRIES, default="smollm2-135m")
    parser.add_argument("--dtype", default="auto", help="float32, bfloat16 or auto")
    parser.add_argument("--batch", type=int, default=8, help="utterances")
    parser.add_argument("--length", type=int, default=100, help="tokens of a prompt")
    parser.add_argument("--layers", type=int, help="fewer than the geometry has, as a quick try")
    parser.add_argument(
        "--compile", action="store_true", help="also a compiled step; takes minutes"
    )
    parser.add_argument("--repetitions", type=int, default=15, help="of prefills; steps: 4 times")
    args = parser.parse_args()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    dtype = compute_dtype(args.dtype)
    sizes = dict(GEOMETRIES[args.geometry])
    sizes["num_hidden_layers"] = args.layers or sizes["num_hidden_layers"]
    frozen = frozen_lm(sizes, dtype, device)
    lms = {
        "frozen LLM": frozen,
        "MoME-23/4, r = 12": adapted(frozen, "mome"),
        "MoME in the projections": adapted(frozen, "joint"),
        "MoME beside the attention": adapted(frozen, "beside"),
        "LoRA, rank 32, not merged": adapted(frozen, "lora"),
        "loop over experts": adapted(frozen, "loop"),
    }
    prompt = torch.randint(sizes["vocab_size"], (args.batch, args.length))
    prompt = prompt.to(device)
    # As an index: the slice that a number takes is not contiguous, and PyTorch then copies the
    # vocabulary's matrix for each row of the batch on a CPU.
    last = torch.tensor([args.length - 1], device=device)
    caches = {}

    def prefill(name: str):
        caches[name] = DynamicCache(config=lms[name].config)
        return lms[name](
            input_ids=prompt, past_key_values=caches[name], use_cache=True, logits_to_keep=last
        ).logits

    def step(name: str):
        logits = lms[name](
            input_ids=prompt[:, :1],
            past_key_values=caches[name],
            use_cache=True,
        ).logits
        caches[name].crop(-1)
        return logits

    loop = prefill("loop over experts").float()
    for name in (
        "MoME-23/4, r = 12",
        "MoME in the projections",
        "MoME beside the attention",
        "frozen LLM",
    ):
        difference = (prefill(name).float() - loop).norm() / loop.norm()
        print(f"logits of {name} differ from the loop's by {float(difference):.1%} of their norm")
    print(f"{args.geometry}, {dtype}, {args.batch} x {args.length} tokens; {machine()}")
    flops, rate = attainable(dtype, device)
    table_of_words = lms["frozen LLM"].get_input_embeddings().weight.numel()
    layers = sum(p.numel() for p in lms["frozen LLM"].parameters()) - table_of_words
    work = 2e-12 * (layers * prompt.numel() + table_of_words * args.batch)  # TFLOP
    weights = 1e-9 * (layers + table_of_words) * dtype.itemsize  # GB
    for title, run, rounds in (("Prefill", prefill, 1), ("One decoding step", step, 4)):
        variants = {name: lambda n=name, r=run: r(n) for name in lms}
        times = seconds(variants, rounds * args.repetitions)
        print(f"\n{title}\n\n{table(times, 'frozen LLM')}\n")
        median = statistics.median(times["frozen LLM"])
        if run is prefill:
            print(f"frozen LLM: {work / median:.2f} of {flops:.2f} attainable TFLOP/s")
        else:
            print(f"frozen LLM: {weights / median:.1f} of {rate:.1f} attainable GB/s of weights")

    if args.compile:
        whole = [name for name in lms if "loop" not in name]  # the loop's shapes depend on its data
        steps = {name: compiled_step(lms[name], prompt) for name in whole}
        for name in whole:
            plain, fast = step(name).float(), steps[name]().float()
            difference = (plain - fast).norm() / plain.norm()
            print(f"{name}, compiled: logits differ by {float(difference):.1%} of their norm")
        times = seconds(steps, 4 * args.repetitions)
        print(f"\nOne decoding step, compiled\n\n{table(times, 'frozen LLM')}\n")
        median = statistics.median(times["frozen LLM"])
        print(f"frozen LLM: {weights / median:.1f} of {rate:.1f} attainable GB/s of weights")


if __name__ == "__main__":
    main()
