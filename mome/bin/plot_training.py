"""Plot what trainings reported against their steps, several beside each other.

  python -m mome.bin.plot_training --expdirs exp/mome exp/plain --output curves.png \\
      --statistics "valid loss_avsr_a4_v2" "valid acc_avsr_a16_v5"
"""

import argparse
from pathlib import Path

from mome.analysis.curves import read_curves
from mome.analysis.figures import headless_pyplot, save
from mome.common.extras import demand_installed

STYLES = ("-", "--", ":", "-.")  # told apart in black and white too


def main(argv: list[str] | None = None) -> None:
    """Read the logs and draw a panel for each statistic."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
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
    try:
        trainings = [read_curves(folder) for folder in args.expdirs]
    except (OSError, ValueError) as error:
        raise SystemExit(str(error)) from None
    for folder, curves in zip(args.expdirs, trainings, strict=True):
        for statistic in args.statistics:
            if statistic not in curves:
                raise SystemExit(
                    f"{folder}: its log reports no {statistic!r}, but {', '.join(sorted(curves))}"
                )
    draw(trainings, names, args.statistics, args.output)


def draw(trainings: list[dict], names: list[str], statistics: list[str], output: Path) -> None:
    """Draw a panel for each statistic, with a line for each training."""
    figure, panels = headless_pyplot().subplots(
        1, len(statistics), figsize=(3.4 * len(statistics), 2.6), squeeze=False
    )
    for panel, statistic in zip(panels[0], statistics, strict=True):
        for number, (curves, name) in enumerate(zip(trainings, names, strict=True)):
            curve = curves[statistic]
            style = STYLES[number % len(STYLES)]
            panel.plot(curve.steps, curve.values, style, marker="o", markersize=3, label=name)
        panel.set_xlabel("steps")
        panel.set_title(statistic, fontsize=9)
        panel.set_ylim(bottom=0)
        panel.grid(alpha=0.3)
    panels[0][0].legend(fontsize=8)
    figure.tight_layout()
    save(figure, output, dpi=150)


if __name__ == "__main__":
    main()
