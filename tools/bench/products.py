"""What the width of the fused matrices costs: products of decoding's sizes at several paddings.

MoME's inference lengthens the rows that the attention's output projection reads by the experts'
bottlenecks and biases, and adds rows for bottlenecks and router logits to the product of query, key
and value (`mome/adapters/experts_fused.py`). Libraries choose their kernels by such sizes. Each
product runs through the matrices of a whole LLM, so that none is read from the cache; on a GPU as
one CUDA graph.
"""

import argparse
from collections.abc import Callable
from functools import partial

import torch
from experts import LLMS, graph_of
from timing import machine, seconds, table
from torch.nn import functional as F

from mome.common.precision import compute_dtype

PLAIN = "of the frozen LLM"


def products(hidden: torch.Tensor, weights: list[torch.Tensor]) -> torch.Tensor:
    """The products of one input with each matrix; the last one."""
    for weight in weights:
        output = F.linear(hidden, weight)
    return output


def variants(
    shape: tuple[int, int], widened: dict[str, tuple[int, int]], rows: int, count: int, **kind
) -> dict[str, Callable[[], torch.Tensor]]:
    """Products with ``count`` matrices of the plain and of each widened shape (out, in)."""
    found = {}
    for name, size in {PLAIN: shape, **widened}.items():
        weights = [torch.randn(*size, **kind) for _ in range(count)]
        run = partial(products, torch.randn(rows, size[1], **kind), weights)
        found[name] = graph_of(run) if kind["device"] == "cuda" else run
    return found


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
    parser.add_argument(
        "--bottleneck", type=int, default=8, help="units of an expert; default: %(default)s"
    )
    parser.add_argument("--rows", type=int, nargs="+", default=[1, 16, 64], help="utterances")
    parser.add_argument("--layers", type=int, help="fewer than the LLM has, as a quick try")
    parser.add_argument(
        "--repetitions", type=int, default=20, help="rounds of all paddings; default: %(default)s"
    )
    args = parser.parse_args()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    kind = {"device": device, "dtype": compute_dtype(args.dtype)}
    config = LLMS[args.lm]
    dim, heads = config.hidden_size, config.num_attention_heads
    qkv = dim + 2 * dim // heads * config.num_key_value_heads
    experts, routed = 24, 23
    width = experts * args.bottleneck
    print(f"{args.lm}, MoME-23/4, r = {args.bottleneck}, {kind['dtype']}; {machine()}")

    def padded(size: int) -> dict[str, int]:
        return {f"to a multiple of {n}": -(-size // n) * n for n in (8, 16, 64, 128, 256)}

    columns = {name: (dim, size) for name, size in padded(dim + width + experts).items()}
    lines = {name: (size, dim) for name, size in padded(qkv + width + routed).items()}
    for rows in args.rows:
        for title, shape, widened in (
            ("Output projection", (dim, dim), columns),
            ("Query, key and value", (qkv, dim), lines),
        ):
            count = args.layers or config.num_hidden_layers
            runs = variants(shape, widened, rows, count, **kind)
            times = seconds(runs, args.repetitions)
            print(f"\n{title}, {rows} rows\n\n{table(times, PLAIN)}", flush=True)


if __name__ == "__main__":
    main()
