"""Where computing the chosen experts alone begins to beat products over all experts.

Times one MoME module for experts of growing width, forward pass only: by products over all experts,
by grouped products over the chosen ones and, on a CPU, compiled. The constants GROUPED_FROM and
GROUPED_TOKENS of mome/adapters/experts.py are chosen from its table.
"""

import argparse
from functools import partial

import torch
from timing import machine, ratio, seconds

from mome.adapters import experts
from mome.adapters.experts_cpu import CompiledExperts, can_run
from mome.common.precision import compute_dtype


def forward(module: experts.MoME, hidden: torch.Tensor, group: bool) -> torch.Tensor:
    """The module's own forward pass by grouped products or by dense ones; (M, D)."""
    module._group = lambda _: group
    return module(hidden, hidden)[0]


@torch.inference_mode()
def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--dim", type=int, default=576, help="width of the LLM; default: %(default)s"
    )
    parser.add_argument("--dtype", default="auto", help="float32, bfloat16 or auto")
    parser.add_argument(
        "--tokens",
        type=int,
        nargs="+",
        default=[8, 64, 800],
        help="that the module reads at once; default: 8 64 800",
    )
    parser.add_argument(
        "--bottlenecks",
        type=int,
        nargs="+",
        default=[16, 32, 64, 128, 256, 512],
        help="units of an expert; default: 16 32 64 128 256 512",
    )
    parser.add_argument(
        "--repetitions", type=int, default=15, help="rounds of all variants; default: %(default)s"
    )
    args = parser.parse_args()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    dtype = compute_dtype(args.dtype)
    print(f"D = {args.dim}, 23 routed experts, top-4, 1 shared, {dtype}; {machine()}\n")
    print("time as a multiple of that of products over all experts, by tokens: grouped/compiled\n")
    print(f"| r | {' | '.join(map(str, args.tokens))} |\n| ---: |{' ---: |' * len(args.tokens)}")
    for bottleneck in args.bottlenecks:
        module = experts.MoME(args.dim, bottleneck=bottleneck).to(device, dtype)
        torch.nn.init.normal_(module.up.weight, std=0.02)
        cells = []
        for tokens in args.tokens:
            hidden = torch.randn(tokens, args.dim, dtype=dtype, device=device)
            variants = {
                "dense": partial(forward, module, hidden, False),
                "grouped": partial(forward, module, hidden, True),
            }
            if can_run(module, dtype):
                variants["compiled"] = partial(CompiledExperts(module, dtype), hidden, hidden)
            expected = variants["dense"]()
            for name, run in variants.items():
                difference = (run() - expected).abs().max()
                if difference > 0.05 * hidden.abs().max():
                    raise AssertionError(f"r = {bottleneck}: {name} differs by {difference}")
            times = seconds(variants, args.repetitions)
            cells.append("/".join(f"{ratio(times, n, 'dense'):.2f}" for n in [*times][1:]))
        print(f"| {bottleneck} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
