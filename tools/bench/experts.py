"""What the experts cost: the adapted LLM against the frozen one, LoRA and a loop over experts.

One prefill and one decoding step of an LLM with random weights. MoME runs inside the attention's
own projections (`mome/joint.py`) and, as in training, beside the attention. The loop gathers each
expert's tokens, as general mixture-of-experts layers do. What the frozen LLM achieves is set
against what a large matrix product and a copy achieve on the same machine. Runs on a GPU if there
is one.
"""

import argparse
import statistics
from functools import partial

import torch
from timing import attainable, machine, seconds, table
from torch import nn
from transformers import AutoModelForCausalLM, DynamicCache, LlamaConfig

from mome.adapters import attach
from mome.precision import compute_dtype

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


def build(geometry: str, adapter: str, dtype: torch.dtype, device: str) -> nn.Module:
    """An LLM of that geometry with random weights and an adapter that is not zero."""
    config = LlamaConfig(**GEOMETRIES[geometry], tie_word_embeddings=True, bos_token_id=0)
    with torch.device(device):
        torch.manual_seed(0)
        lm = AutoModelForCausalLM.from_config(config, dtype=dtype).requires_grad_(False).eval()
        conf = {"rank": 32} if adapter == "lora" else {}
        module = attach(lm, "mome" if adapter in ("beside", "loop") else adapter, conf)
    if module is not None:
        for parameter in module.parameters():
            nn.init.normal_(parameter, std=0.02)
    if adapter in ("beside", "loop"):
        for layer in module.layers:
            layer.down.to(dtype)
            layer.up.to(dtype)
            if adapter == "loop":
                layer.forward = partial(loop_over_experts, layer)
    elif module is not None:
        module.for_inference(dtype)
    return lm


@torch.inference_mode()
def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--geometry", choices=GEOMETRIES, default="smollm2-135m")
    parser.add_argument("--dtype", default="auto", help="float32, bfloat16 or auto")
    parser.add_argument("--batch", type=int, default=8, help="utterances")
    parser.add_argument("--length", type=int, default=100, help="tokens of a prompt")
    parser.add_argument("--repetitions", type=int, default=15)
    args = parser.parse_args()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    dtype = compute_dtype(args.dtype)
    lms = {
        name: build(args.geometry, kind, dtype, device)
        for name, kind in {
            "frozen LLM": "none",
            "MoME-23/4, r = 12": "mome",
            "MoME beside the attention": "beside",
            "LoRA, rank 32, not merged": "lora",
            "loop over experts": "loop",
        }.items()
    }
    prompt = torch.randint(GEOMETRIES[args.geometry]["vocab_size"], (args.batch, args.length))
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
    for name in ("MoME-23/4, r = 12", "MoME beside the attention", "frozen LLM"):
        difference = (prefill(name).float() - loop).norm() / loop.norm()
        print(f"logits of {name} differ from the loop's by {float(difference):.1%} of their norm")
    print(f"{args.geometry}, {dtype}, {args.batch} x {args.length} tokens; {machine()}")
    flops, rate = attainable(dtype, device)
    table_of_words = lms["frozen LLM"].get_input_embeddings().weight.numel()
    layers = sum(p.numel() for p in lms["frozen LLM"].parameters()) - table_of_words
    work = 2e-12 * (layers * prompt.numel() + table_of_words * args.batch)  # TFLOP
    weights = 1e-9 * (layers + table_of_words) * dtype.itemsize  # GB
    for title, run in (("Prefill", prefill), ("One decoding step", step)):
        times = seconds({name: lambda n=name, r=run: r(n) for name in lms}, args.repetitions)
        print(f"\n{title}\n\n{table(times, 'frozen LLM')}\n")
        median = statistics.median(times["frozen LLM"])
        if run is prefill:
            print(f"frozen LLM: {work / median:.2f} of {flops:.2f} attainable TFLOP/s")
        else:
            print(f"frozen LLM: {weights / median:.1f} of {rate:.1f} attainable GB/s of weights")


if __name__ == "__main__":
    main()
