"""The same work in float32 and in bfloat16: is the type that `auto` takes here the faster one?

A product of the size that `auto` times (see mome/common/precision.py), one of a few rows as in
decoding, and a training step on all rate pairs, each in both types in turns.
"""

import argparse
from functools import partial

import torch
import torch.nn.functional as F
from timing import machine, seconds, table
from train_step import build, make_batch, parser_of, step

from mome.common.precision import compute_dtype

TYPES = ("float32", "bfloat16")


def main() -> None:
    """Print the tables."""
    parser = parser_of(__doc__)
    parser.add_argument(
        "--repetitions",
        type=int,
        default=7,
        help="rounds of both types, of products ten times as many; default: %(default)s",
    )
    args = parser.parse_args()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    print(f"auto takes {compute_dtype()}; {machine()}")
    for rows in (256, 16):
        products = {}
        for name in TYPES:
            kind = {"device": device, "dtype": getattr(torch, name)}
            tokens, weight = torch.randn(rows, 1024, **kind), torch.randn(1024, 1024, **kind)
            products[name] = partial(F.linear, tokens, weight)
        print(f"\n{rows} rows through a matrix of 1024 by 1024:\n")
        with torch.inference_mode():
            print(table(seconds(products, 10 * args.repetitions), TYPES[0]))
    steps = {}
    for name in TYPES:
        model = build(argparse.Namespace(**{**vars(args), "dtype": name}))
        steps[name] = partial(step, model, make_batch(args, device), "tree")
    print(f"\nA training step, {args.lm}, {args.batch} clips of up to {args.seconds} s:\n")
    print(table(seconds(steps, args.repetitions), TYPES[0]))


if __name__ == "__main__":
    main()
