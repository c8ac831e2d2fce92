"""The LM's attention by matrix products against PyTorch's fused one, in inference and in training.

Heads and widths are those of an LLM; every position sees those before it. On a GPU the LM
always takes the fused one (mome/llm/attention.py); this table tells whether that is right.
"""

import argparse
from functools import partial

import torch
import torch.nn.functional as F
from experts import LLMS, llm_config
from timing import machine, ratio, seconds

from mome.common.activation_checkpointing import recomputed
from mome.common.precision import compute_dtype
from mome.llm.attention import attend


def fused(query, key, value, mask, scaling) -> torch.Tensor:
    """As Transformers calls PyTorch's fused attention with a mask; (B, L, H, D)."""
    share = query.shape[1] // key.shape[1]
    key, value = key.repeat_interleave(share, dim=1), value.repeat_interleave(share, dim=1)
    output = F.scaled_dot_product_attention(query, key, value, attn_mask=mask, scale=scaling)
    return output.transpose(1, 2).contiguous()


def products(*inputs) -> torch.Tensor:
    """Ours, as the LM runs it."""
    return recomputed(attend, *inputs)


def train(function, *inputs) -> None:
    """Forward and backward pass."""
    function(*inputs).sum().backward()


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--lm",
        choices=LLMS,
        default="smollm2-135m",
        help="LLM whose heads and widths are taken; default: %(default)s",
    )
    parser.add_argument("--dtype", default="auto", help="float32, bfloat16 or auto")
    parser.add_argument(
        "--batch", type=int, default=8, help="sequences at once; default: %(default)s"
    )
    parser.add_argument(
        "--lengths",
        type=int,
        nargs="+",
        default=[1, 50, 100, 200, 400],
        help="tokens of a sequence; default: 1 50 100 200 400",
    )
    parser.add_argument(
        "--repetitions", type=int, default=15, help="rounds of both variants; default: %(default)s"
    )
    args = parser.parse_args()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    dtype = compute_dtype(args.dtype)
    config = llm_config(args.lm)
    heads, shared = config.num_attention_heads, config.num_key_value_heads
    width = config.hidden_size // heads
    print(f"{args.lm}, {dtype}, batch {args.batch}; {machine()}\n")
    print("time of matrix products as a multiple of that of the fused attention\n")
    print("| queries | keys | inference | training |\n| ---: | ---: | ---: | ---: |")
    for length in args.lengths:
        seen = length if length > 1 else 100
        of = partial(torch.randn, dtype=dtype, device=device)
        query = of(args.batch, heads, length, width)
        key, value = of(2, args.batch, shared, seen, width)
        mask = torch.ones(length, seen, dtype=torch.bool, device=device).tril(seen - length)
        inputs = [query, key, value, mask.expand(args.batch, 1, -1, -1), width**-0.5]
        variants = {"fused": fused, "products": products}
        with torch.inference_mode():
            runs = {name: partial(function, *inputs) for name, function in variants.items()}
            inference = ratio(seconds(runs, args.repetitions), "products", "fused")
        for tensor in (query, key, value):
            tensor.requires_grad_()
        runs = {name: partial(train, function, *inputs) for name, function in variants.items()}
        training = ratio(seconds(runs, args.repetitions), "products", "fused")
        print(f"| {length} | {seen} | {inference:.2f} | {training:.2f} |")


if __name__ == "__main__":
    main()
