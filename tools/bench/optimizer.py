"""A step of AdamW in one pass over each parameter (``fused: true``) and operation by operation.

The parameters have the sizes of those that GRID's warm start trains, most of which are the rows of
a softmax over the LLM's vocabulary, or that its training trains.
"""

import argparse
from functools import partial

import torch
from timing import machine, seconds, table

VOCABULARY, LLM, LIPS, LAYERS = 49152, 576, 192, 30
EXPERTS, UNITS = 24, 12
SIZES = {
    "warm start": [(VOCABULARY + 1, LIPS), *[(LLM, LLM)] * 8, *[(4 * LIPS, LIPS)] * 9],
    "training": [(EXPERTS * UNITS, LLM), (LLM, EXPERTS * (UNITS + 1)), (EXPERTS - 1, LLM)] * LAYERS,
}


def optimizer(sizes: list[tuple[int, int]], fused: bool) -> torch.optim.AdamW:
    """AdamW over random parameters with gradients."""
    torch.manual_seed(0)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    parameters = [torch.nn.Parameter(torch.randn(size, device=device)) for size in sizes]
    for parameter in parameters:
        parameter.grad = torch.randn_like(parameter)
    return torch.optim.AdamW(parameters, lr=0.002, betas=(0.9, 0.98), fused=fused or None)


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--repetitions", type=int, default=15, help="rounds of both variants; default: %(default)s"
    )
    args = parser.parse_args()
    print(machine())
    for name, sizes in SIZES.items():
        variants = {"by operations": optimizer(sizes, False), "fused": optimizer(sizes, True)}
        ends = []
        for each in variants.values():
            each.step()
            ends.append(torch.cat([p.detach().flatten() for p in each.param_groups[0]["params"]]))
        difference = float((ends[0] - ends[1]).abs().max())
        millions = len(ends[0]) / 1e6
        print(f"\n{name}, {millions:.1f} M parameters; a step differs by {difference:.0e}\n")
        runs = {label: partial(each.step) for label, each in variants.items()}
        print(table(seconds(runs, args.repetitions), "by operations"))


if __name__ == "__main__":
    main()
