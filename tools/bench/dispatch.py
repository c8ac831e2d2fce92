"""Where grouped products over the chosen experts begin to beat the products over all of them.

Times one MoME module both ways for experts of growing width, forward pass only. The constants
GROUPED_FROM and GROUPED_TOKENS of mome/experts.py are chosen from its table.
"""

import argparse

import torch
from timing import machine, ratio, seconds

from mome import experts
from mome.precision import compute_dtype


@torch.inference_mode()
def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--dim", type=int, default=576)
    parser.add_argument("--dtype", default="auto", help="float32, bfloat16 or auto")
    parser.add_argument("--tokens", type=int, nargs="+", default=[8, 64, 800])
    parser.add_argument("--bottlenecks", type=int, nargs="+", default=[16, 32, 64, 128, 256, 512])
    parser.add_argument("--repetitions", type=int, default=15)
    args = parser.parse_args()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    dtype = compute_dtype(args.dtype)
    print(f"D = {args.dim}, 23 routed experts, top-4, 1 shared, {dtype}; {machine()}\n")
    print("time of grouped products as a multiple of that of dense ones, by tokens\n")
    print(f"| r | {' | '.join(map(str, args.tokens))} |\n| ---: |{' ---: |' * len(args.tokens)}")
    for bottleneck in args.bottlenecks:
        module = experts.MoME(args.dim, bottleneck=bottleneck).to(device, dtype)
        torch.nn.init.normal_(module.up.weight, std=0.02)
        cells = []
        for tokens in args.tokens:
            hidden = torch.randn(tokens, args.dim, dtype=dtype, device=device)
            gates = module.route(hidden)[0].to(dtype)
            given = (hidden, hidden, module.down.weight, module.up.weight, gates)
            variants = {
                "dense": lambda m=module, g=given: m._dense(*g),
                "grouped": lambda m=module, g=given: m._grouped(*g),
            }
            difference = (variants["dense"]() - variants["grouped"]()).abs().max()
            if difference > 0.05 * hidden.abs().max():
                raise AssertionError(f"r = {bottleneck}: the two ways differ by {difference}")
            cells.append(f"{ratio(seconds(variants, args.repetitions), 'grouped', 'dense'):.2f}")
        print(f"| {bottleneck} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
