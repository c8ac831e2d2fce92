"""What the experts cost: the adapted LLM against the frozen one, LoRA and a loop over experts.

One prefill and one decoding step of an LLM with random weights. MoME runs compiled on a CPU
(`mome/adapters/experts_cpu.py`), inside the attention's own projections
(`mome/adapters/experts_fused.py`) and, as in training, beside the attention. The loop gathers each
expert's tokens, as general mixture-of-experts layers do. What the frozen LLM achieves is set
against what a large matrix product and a copy achieve on the same machine. Runs on a GPU if there
is one; there steps are timed as CUDA graphs too.
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
from transformers import AutoModelForCausalLM, DynamicCache, LlamaConfig

from mome.adapters import attach
from mome.adapters.base import find_layers
from mome.adapters.experts_cpu import can_run
from mome.common.precision import compute_dtype
from mome.llm.attention import use_matrix_products
from mome.pretrained.model_sizes import LLAMA, published

FROZEN = "frozen LLM"
SMOLLM2 = LlamaConfig(
    hidden_size=576,
    intermediate_size=1536,
    num_hidden_layers=30,
    num_attention_heads=9,
    num_key_value_heads=3,
    vocab_size=49152,
    tie_word_embeddings=True,
    bos_token_id=0,
)
LLMS = {"smollm2-135m": SMOLLM2} | {name.lower(): published(name) for name in LLAMA}


def llm_config(name: str, layers: int | None = None) -> LlamaConfig:
    """Sizes of an LLM, if asked for with fewer layers."""
    config = copy.deepcopy(LLMS[name])
    config.num_hidden_layers = layers or config.num_hidden_layers
    return config


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
            inner = nn.functional.linear(flat[tokens], down, experts.down.bias[rows].to(down.dtype))
            bias = experts.up.weight[:, experts.width + index].to(up.dtype)
            some = nn.functional.linear(nn.functional.gelu(inner), up, bias)
            output.index_add_(0, tokens, some * gates[tokens, index, None])
    return base + output.view_as(hidden), None, None


def frozen_lm(config: LlamaConfig, dtype: torch.dtype, device: str) -> nn.Module:
    """An LLM of these sizes with random weights."""
    with torch.device(device):
        torch.manual_seed(0)
        lm = AutoModelForCausalLM.from_config(config, dtype=dtype).requires_grad_(False).eval()
    use_matrix_products(lm)
    return lm


def adapted(lm: nn.Module, adapter: str, bottleneck: int = 12) -> nn.Module:
    """The LLM with an adapter that is not zero; all but the attention's weights are shared.

    Args:
        lm: frozen.
        adapter: ``mome``, as decoding runs it; ``fused``, ``beside`` or ``loop``; or ``lora``.
        bottleneck: units of an expert.
    """
    shared = {id(p): p for name, p in lm.named_parameters() if "self_attn" not in name}
    lm = copy.deepcopy(lm, shared)
    kind, conf = (
        ("lora", {"rank": 32}) if adapter == "lora" else ("mome", {"bottleneck": bottleneck})
    )
    with torch.device(lm.device):
        module = attach(lm, kind, conf)
        torch.manual_seed(1)
        for parameter in module.parameters():
            nn.init.normal_(parameter, std=0.02)
    if adapter in ("lora", "mome", "fused"):
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


def graph_of(run: Callable[[], torch.Tensor]) -> Callable[[], torch.Tensor]:
    """A CUDA graph of a decoding step: replaying it leaves out what starting each kernel costs.

    Args:
        run: reads tensors that stay where they are.
    """
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):  # libraries choose their kernels outside of the capture
        for _ in range(3):
            run()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        output = run()

    def replay() -> torch.Tensor:
        graph.replay()
        return output

    return replay


class Prompts:
    """The work that is timed: a prompt of each LLM, and a step after it.

    Args:
        lms: variants of one LLM, by name.
        batch, length: of the prompts.
        vocabulary: words to draw them from.
    """

    def __init__(self, lms: dict[str, nn.Module], batch: int, length: int, vocabulary: int):
        self.lms = lms
        device = next(iter(lms.values())).device
        self.ids = torch.randint(vocabulary, (batch, length), device=device)
        # As an index: the slice that a number takes is not contiguous, and PyTorch then copies the
        # vocabulary's matrix for each row of the batch on a CPU.
        self.last = torch.tensor([length - 1], device=device)
        # As the beam search gives them; from them Transformers need not work them out.
        self.mask = torch.ones(batch, 1, 1, length + 1, dtype=torch.bool, device=device)
        self.position = torch.full((batch, 1), length, device=device)
        self.caches: dict[str, DynamicCache] = {}

    def prefill(self, name: str) -> torch.Tensor:
        """Logits (B, 1, V) after the prompt."""
        self.caches[name] = DynamicCache(config=self.lms[name].config)
        return self.lms[name](
            input_ids=self.ids,
            past_key_values=self.caches[name],
            use_cache=True,
            logits_to_keep=self.last,
        ).logits

    def step(self, name: str) -> torch.Tensor:
        """Logits (B, 1, V) after one more token, from the same cache each time."""
        cache = self.caches[name]
        kept = [(layer.keys, layer.values) for layer in cache.layers]
        logits = self.lms[name](
            input_ids=self.ids[:, :1],
            attention_mask=self.mask,
            position_ids=self.position,
            past_key_values=cache,
            use_cache=True,
        ).logits
        for layer, (keys, values) in zip(cache.layers, kept, strict=True):
            layer.keys, layer.values = keys, values
        return logits


def report(title: str, times: dict[str, list[float]]) -> float:
    """Print the table of a piece of work; the median seconds of the frozen LLM."""
    print(f"\n{title}\n\n{table(times, FROZEN)}\n", flush=True)
    return statistics.median(times[FROZEN])


def shape(text: str) -> tuple[int, int]:
    """Parse ``16x600``: prompts and tokens of each."""
    batch, _, length = text.partition("x")
    if not (batch.isdecimal() and length.isdecimal()):
        raise argparse.ArgumentTypeError(f"{text!r} must be <prompts>x<tokens>, such as 16x600")
    return int(batch), int(length)


@torch.inference_mode()
def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--lm",
        choices=LLMS,
        default="smollm2-135m",
        help="LLM whose sizes are taken; default: %(default)s",
    )
    parser.add_argument("--dtype", default="auto", help="float32, bfloat16 or auto")
    parser.add_argument("--bottleneck", type=int, default=12, help="units of an expert")
    parser.add_argument(
        "--prefill",
        type=shape,
        nargs="*",
        default=[(8, 100)],
        metavar="BxL",
        help="prompts and tokens of each, such as 16x600; default: 8x100",
    )
    parser.add_argument(
        "--step",
        type=shape,
        nargs="*",
        default=[(8, 100)],
        metavar="BxL",
        help="prompts and tokens before the step, such as 16x600; default: 8x100",
    )
    parser.add_argument("--layers", type=int, help="fewer than the LLM has, as a quick try")
    parser.add_argument("--repetitions", type=int, default=15, help="of prefills; steps: 4 times")
    args = parser.parse_args()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    dtype = compute_dtype(args.dtype)
    config = llm_config(args.lm, args.layers)
    frozen = frozen_lm(config, dtype, device)
    ours = f"MoME-23/4, r = {args.bottleneck}"
    kinds = {
        ours: "mome",
        "the same in the attention's projections": "fused",
        "the same beside the attention": "beside",
        "LoRA, rank 32, not merged": "lora",
        "loop over experts": "loop",
    }
    lms = {FROZEN: frozen} | {n: adapted(frozen, k, args.bottleneck) for n, k in kinds.items()}

    prompts = Prompts(lms, *(args.prefill or args.step)[0], config.vocab_size)
    loop = prompts.prefill("loop over experts").float()
    for name in lms:
        difference = float((prompts.prefill(name).float() - loop).norm() / loop.norm())
        print(f"logits of {name} differ from the loop's by {difference:.1%} of their norm")
    print(f"{args.lm}, {len(find_layers(frozen))} layers, {dtype}; {machine()}")
    flops, rate = attainable(dtype, device)
    words = frozen.get_input_embeddings().weight.numel()
    layers = sum(p.numel() for layer in find_layers(frozen) for p in layer.parameters())

    for batch, length in args.prefill:
        prompts = Prompts(lms, batch, length, config.vocab_size)
        times = seconds({n: partial(prompts.prefill, n) for n in lms}, args.repetitions)
        median = report(f"Prefill of {batch} x {length} tokens", times)
        work = 2e-12 * (layers * batch * length + words * batch)
        print(f"frozen LLM: {work / median:.2f} of {flops:.2f} attainable TFLOP/s")
    weights = 1e-9 * (layers + words) * dtype.itemsize
    for batch, length in args.step:
        prompts = Prompts(lms, batch, length, config.vocab_size)
        for name in lms:
            prompts.prefill(name)
        cached = 1e-9 * sum(
            tensor.nbytes
            for layer in prompts.caches[FROZEN].layers
            for tensor in (layer.keys, layer.values)
        )
        plain = {name: partial(prompts.step, name) for name in lms}
        runs = {"": plain}
        if device == "cuda":  # the loop's shapes depend on its data, so it cannot be captured
            runs[", as a CUDA graph"] = {n: graph_of(plain[n]) for n in lms if "loop" not in n}
        for suffix, variants in runs.items():
            title = f"A decoding step of {batch} after {length} tokens{suffix}"
            median = report(title, seconds(variants, 4 * args.repetitions))
            print(
                f"frozen LLM: {(weights + cached) / median:.0f} of {rate:.0f} attainable GB/s of "
                f"weights ({weights:.2f} GB) and cache ({cached:.2f} GB)"
            )


if __name__ == "__main__":
    main()
