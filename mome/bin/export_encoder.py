"""Take one part out of a training checkpoint and save it as safetensors."""

from pathlib import Path

from safetensors.torch import save_file

from mome.common.atomic_files import replacing
from mome.common.command import in_one_line, parser_for
from mome.tasks.checkpoint import read_checkpoint


@in_one_line("mome-export-encoder")
def main(argv: list[str] | None = None) -> None:
    """Write the tensors below a prefix."""
    parser = parser_for(__doc__)
    parser.add_argument("--weights", type=Path, required=True, help="checkpoint (.pth)")
    parser.add_argument("--prefix", required=True, help="e.g. video_encoder.")
    parser.add_argument("--output", type=Path, required=True, help="safetensors file")
    args = parser.parse_args(argv)
    states = read_checkpoint(args.weights)
    part = {
        name.removeprefix(args.prefix): tensor
        for name, tensor in states.items()
        if name.startswith(args.prefix)
    }
    if not part:
        raise SystemExit(f"{args.weights} has no tensor below {args.prefix!r}")
    with replacing(args.output) as partial:
        save_file(part, partial)
    print(f"{args.output}: {sum(t.numel() for t in part.values()):,} values")


if __name__ == "__main__":
    main()
