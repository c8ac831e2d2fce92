"""How a training step grows with the length of clips, the number of experts and of rate pairs.

Every point is a process of its own: the median time of a step and the peak of its memory. Draws
<output>.png and prints the points, with the exponent of growth between the last two (1 is linear).
"""

import argparse
import json
import math
import statistics
import subprocess
import sys

import matplotlib as mpl
from timing import machine, seconds
from tqdm import tqdm
from train_step import build, make_batch, parser_of, peak_megabytes, step

mpl.use("agg")
from matplotlib import pyplot as plt

AXES = {
    "seconds": ("longest clip, s", [2, 4, 8, 16, 24]),
    "experts": ("experts", [4, 8, 16, 32, 64, 128]),
    "pairs": ("rate pairs", [1, 4, 9, 16]),
}
AUDIO_RATES, VIDEO_RATES = (4, 16, 8, 12), (2, 5, 3, 4)


def options_of(axis: str, value: int) -> list[str]:
    """The command line of one point."""
    if axis == "pairs":
        count = math.isqrt(value)
        rates = [AUDIO_RATES[:count], VIDEO_RATES[:count]]
        return ["--audio_rates", *map(str, rates[0]), "--video_rates", *map(str, rates[1])]
    return [f"--{axis}", str(value)]


def measure(args: argparse.Namespace) -> dict[str, float]:
    """Time and memory of a step, in this process."""
    model = build(args)
    batch = make_batch(args, str(next(model.parameters()).device))
    times = seconds({"step": lambda: step(model, batch, "tree")}, args.repetitions)["step"]
    # Afterwards: it changes how memory is handed out.
    return {"seconds": statistics.median(times), "megabytes": peak_megabytes(args, "tree")}


def main() -> None:
    """Measure and draw."""
    parser = parser_of(__doc__)
    parser.set_defaults(batch=4)
    parser.add_argument(
        "--repetitions", type=int, default=3, help="steps of each point; default: %(default)s"
    )
    parser.add_argument(
        "--output", default="growth.png", help="figure that is written; default: %(default)s"
    )
    parser.add_argument("--one", action="store_true", help="measure this point alone, as JSON")
    args = parser.parse_args()
    if args.one:
        print(json.dumps(measure(args)))
        return
    print(f"{args.lm}, {args.dtype}, batches of {args.batch}; {machine()}")
    figure, axes = plt.subplots(2, len(AXES), figsize=(11, 6), constrained_layout=True)
    for column, (axis, (label, values)) in enumerate(AXES.items()):
        points = []
        for value in tqdm(values, desc=axis):
            command = [sys.executable, *sys.argv, *options_of(axis, value), "--one"]
            output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
            points.append(json.loads(output.splitlines()[-1]))
        print(f"\n| {label} | s a step | peak MB |\n| ---: | ---: | ---: |")
        for value, point in zip(values, points, strict=True):
            print(f"| {value} | {point['seconds']:.2f} | {point['megabytes']:.0f} |")
        for row, key in enumerate(("seconds", "megabytes")):
            numbers = [point[key] for point in points]
            exponent = math.log(numbers[-1] / numbers[-2]) / math.log(values[-1] / values[-2])
            print(f"{key} grow with exponent {exponent:.2f} at the end")
            axes[row, column].plot(values, numbers, marker="o")
            axes[row, column].set(xlabel=label, ylim=(0, None))
            axes[row, 0].set_ylabel(f"{key} of a step")
    figure.savefig(args.output, dpi=100)


if __name__ == "__main__":
    main()
