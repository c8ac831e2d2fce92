"""What the experts cost: the adapted LLM against the frozen one, LoRA and a loop over experts.

One prefill and one decoding step of an LLM with random weights. The loop gathers each expert's
tokens, as general mixture-of-experts layers do.
"""

import argparse

import torch
from timing import machine, seconds, table
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


def loop_over_experts(experts: nn.Module, hidden: torch.Tensor) -> torch.Tensor:
    """MoME's output, expert by expert on the tokens that chose it."""
    flat = hidden.reshape(-1, hidden.shape[-1])
    gates, _ = experts.route(flat)
    output = torch.zeros_like(flat)
    width = experts.bottleneck
    for index in range(experts.num_shared + experts.num_routed):
        rows = slice(index * width, (index + 1) * width)
        down = experts.down.weight[rows].to(hidden.dtype)
        up = experts.up.weight[:, rows].to(hidden.dtype)
        if index < experts.num_shared:
            output += nn.functional.gelu(flat @ down.T) @ up.T
        else:
            gate = gates[:, index - experts.num_shared].to(hidden.dtype)
            tokens = gate.nonzero().flatten()
            if len(tokens):
                some = nn.functional.gelu(flat[tokens] @ down.T) @ up.T
                output.index_add_(0, tokens, some * gate[tokens, None])
    return output.view_as(hidden)


class LoopMoME(nn.Module):
    """The experts of a MoME module, run by the loop."""

    def __init__(self, experts: nn.Module):
        super().__init__()
        self.experts = experts

    def forward(self, hidden: torch.Tensor) -> tuple[torch.Tensor, None, None]:
        return loop_over_experts(self.experts, hidden), None, None


def build(geometry: str, adapter: str, dtype: torch.dtype, device: str) -> nn.Module:
    """An LLM of that geometry with random weights and an adapter that is not zero."""
    config = LlamaConfig(**GEOMETRIES[geometry], tie_word_embeddings=True, bos_token_id=0)
    with torch.device(device):
        torch.manual_seed(0)
        lm = AutoModelForCausalLM.from_config(config, dtype=dtype).requires_grad_(False).eval()
        conf = {"rank": 32} if adapter == "lora" else {}
        module = attach(lm, "mome" if adapter == "loop" else adapter, conf)
    if module is not None:
        for parameter in module.parameters():
            nn.init.normal_(parameter, std=0.02)
        module.for_inference(dtype)
        if adapter == "loop":
            module.layers = nn.ModuleList(LoopMoME(layer) for layer in module.layers)
        module.eval()
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
            "LoRA, rank 32, not merged": "lora",
            "loop over experts": "loop",
        }.items()
    }
    prompt = torch.randint(GEOMETRIES[args.geometry]["vocab_size"], (args.batch, args.length))
    prompt = prompt.to(device)
    caches = {}

    def prefill(name: str):
        caches[name] = DynamicCache(config=lms[name].config)
        return lms[name](
            input_ids=prompt, past_key_values=caches[name], use_cache=True, logits_to_keep=1
        ).logits

    def step(name: str):
        logits = lms[name](
            input_ids=prompt[:, :1], past_key_values=caches[name], use_cache=True
        ).logits
        caches[name].crop(-1)
        return logits

    difference = (prefill("MoME-23/4, r = 12") - prefill("loop over experts")).abs().max()
    print(f"{args.geometry}, {dtype}, {args.batch} x {args.length} tokens; {machine()}")
    print(f"largest difference of the logits of MoME and the loop: {float(difference):.2g}\n")
    for title, run in (("Prefill", prefill), ("One decoding step", step)):
        times = seconds({name: lambda n=name, r=run: r(n) for name in lms}, args.repetitions)
        print(f"{title}\n\n{table(times, 'frozen LLM')}\n")


if __name__ == "__main__":
    main()
