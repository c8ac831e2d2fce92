"""Plot what trainings reported against their steps, several beside each other.

  mome-plot-training --expdirs exp/mome exp/plain --output curves.png \\
      --statistics "valid loss_avsr_a4_v2" "valid acc_avsr_a16_v5"
"""

from pathlib import Path

from mome.analysis.curves import draw_curves
from mome.common.command import in_one_line, parser_for
from mome.common.extras import demand_installed


@in_one_line("mome-plot-training")
def main(argv: list[str] | None = None) -> None:
    """Read the logs and draw a panel for each statistic."""
    parser = parser_for(__doc__)
    parser.add_argument("--expdirs", type=Path, nargs="+", required=True, help="trained models")
    parser.add_argument("--names", nargs="+", help="of these in the legend; default: the folders")
    parser.add_argument(
        "--statistics", nargs="+", default=["valid loss", "valid acc"], help="as the log calls them"
    )
    parser.add_argument("--output", type=Path, required=True, help=".png, .svg or .pdf")
    args = parser.parse_args(argv)
    demand_installed("mome-plot-training", "matplotlib")
    names = args.names or [folder.name for folder in args.expdirs]
    if len(names) != len(args.expdirs):
        parser.error(f"{len(names)} --names for {len(args.expdirs)} --expdirs")
    draw_curves(args.expdirs, names, args.statistics, args.output)


if __name__ == "__main__":
    main()
