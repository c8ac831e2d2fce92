"""Take one part out of a training checkpoint and save it as safetensors."""

import argparse
from pathlib import Path

import torch
from safetensors.torch import save_file


def main(argv: list[str] | None = None) -> None:
    """Write the tensors below a prefix."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--weights", type=Path, required=True, help="checkpoint (.pth)")
    parser.add_argument("--prefix", required=True, help="e.g. video_encoder.")
    parser.add_argument("--output", type=Path, required=True, help="safetensors file")
    args = parser.parse_args(argv)
    states = torch.load(args.weights, map_location="cpu", weights_only=True)
    part = {
        name.removeprefix(args.prefix): tensor.contiguous()
        for name, tensor in states.items()
        if name.startswith(args.prefix)
    }
    if not part:
        raise ValueError(f"{args.weights} has no tensor below {args.prefix!r}")
    temporary = args.output.with_suffix(".tmp")
    save_file(part, temporary)
    temporary.rename(args.output)
    print(f"{args.output}: {sum(t.numel() for t in part.values()):,} values")


if __name__ == "__main__":
    main()
