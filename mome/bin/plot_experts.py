"""Show which experts a model selects at each rate, and how alike rates and modalities are in that.

  mome-plot-experts --model exp/mome/packed --dump dump --set test --output exp/mome/figures

The LLM reads clips with their transcripts once more at every rate pair. Writes experts.png and
experts.svg, a panel for each rate pair and kind of token (audio, video, text) with the share of
each routed expert in a layer, and experts.json with the shares and how alike they are: the share of
assignments that two of them have in common (1 is the same), beside what experts drawn by chance
would have. Experts in use are as many as equal shares of the same concentration would need: where
they are few in each layer and many over all layers, the balance loss has balanced the numbers of
experts over the layers, not the experts of a layer.
"""

import argparse
from pathlib import Path
from typing import Any

from mome.analysis.expert_figure import show
from mome.common.command import in_one_line, parser_for
from mome.common.extras import demand_installed
from mome.models.rates import TASKS
from mome.transcribe.prepared import add_crop_arguments, encoded, open_for_crops


def parse(argv: list[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = parser_for(__doc__)
    add_crop_arguments(parser)
    parser.add_argument("--set", default="test", help="the set that is read; default: test")
    parser.add_argument(
        "--task", default="avsr", choices=TASKS, help="the task that is read; default: avsr"
    )
    parser.add_argument("--max_clips", type=int, default=48, help="of the set")
    parser.add_argument("--output", type=Path, required=True, help="folder")
    return parser.parse_args(argv)


def describe(found: dict[str, Any]) -> None:
    """Print how alike experts are, and how many are in use."""
    for title, group in found["alike"].items():
        for name, value in group.items():
            print(f"{title}, {name}: {value['overlap']:.2f} (by chance {value['by_chance']:.2f})")
    in_use = found["in_use"]
    print(
        f"experts in use in a layer: {in_use['in a layer']:.1f} of {in_use['of']}; by number over "
        f"all layers: {in_use['over all layers']:.1f}"
    )


@in_one_line("mome-plot-experts")
def main(argv: list[str] | None = None) -> None:
    """Open the model and show its experts."""
    args = parse(argv)
    demand_installed("mome-plot-experts", "matplotlib")
    transcribe = open_for_crops(args)
    clips = encoded(transcribe, args.dump / args.set, args.task, args.max_clips)
    found = show(transcribe.model, clips, args.task, args.set, args.output)
    print(args.output / "experts.png")
    describe(found)


if __name__ == "__main__":
    main()
