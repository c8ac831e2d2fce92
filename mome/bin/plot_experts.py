"""Show which experts a model asks at each rate, and how alike that is across rates and modalities.

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
import json
from itertools import batched, combinations
from pathlib import Path
from typing import Any

import numpy as np

from mome.analysis.figures import headless_pyplot, save
from mome.analysis.routing import (
    KINDS,
    expert_shares,
    experts_in_use,
    overlap,
    overlap_by_chance,
)
from mome.bin.transcribe import add_crop_arguments, open_for_crops
from mome.common.extras import demand_installed
from mome.data.kaldi import write_text
from mome.data.text import lowered
from mome.models.rates import TASKS, TaskPair, fineness
from mome.transcribe.measurement import read_clips
from mome.transcribe.transcriber import Transcriber

BATCH = 8
Shares = dict[str, dict[str, np.ndarray]]  # rate pair -> kind -> (layers, Nr)


def parse(argv: list[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_crop_arguments(parser)
    parser.add_argument("--set", default="test")
    parser.add_argument("--task", default="avsr", choices=TASKS)
    parser.add_argument("--max_clips", type=int, default=48, help="of the set")
    parser.add_argument("--output", type=Path, required=True, help="folder")
    return parser.parse_args(argv)


def measure(transcribe: Transcriber, data: Path, task: str, max_clips: int) -> Shares:
    """Shares of the experts over the clips of a set: of a batch by its tokens, and batches by
    their clips.

    Raises:
        ValueError: for a task that the model does not know, or without routed experts.
    """
    model = transcribe.model
    if task not in model.pairs:
        raise ValueError(f"the model does not read {task}, but {', '.join(model.pairs)}")
    clips, texts = read_clips(data, max_clips, model)
    tokens = [model.tokenizer.encode(f" {lowered(t)}", add_special_tokens=False) for t in texts]
    sums: Shares = {}
    for group in batched(zip(clips, tokens, strict=True), BATCH):
        features = transcribe.encode([clip for clip, _ in group], task)
        for pair in sorted(model.pairs[task], key=fineness):
            words = [each for _, each in group]
            found = expert_shares(model, features, TaskPair(task, pair), words)
            if not found:
                raise ValueError("the model has no routed experts")
            of_pair = sums.setdefault(str(pair), {})
            for kind, shares in found.items():
                of_pair[kind] = of_pair.get(kind, 0.0) + shares * len(group) / len(clips)
    return sums


def alike(shares: Shares) -> dict[str, Any]:
    """How alike routings are across rate pairs, and across modalities at the same rate pair."""

    def mean(pairs: list[tuple[np.ndarray, np.ndarray]]) -> dict[str, float]:
        return {
            "overlap": float(np.mean([overlap(*each) for each in pairs])),
            "by_chance": float(np.mean([overlap_by_chance(*each) for each in pairs])),
        }

    kinds = [kind for kind in KINDS if all(kind in each for each in shares.values())]
    names = list(shares)
    found: dict[str, Any] = {"across rate pairs": {}, "across modalities": {}}
    for kind in kinds if len(names) > 1 else []:
        pairs = [(shares[a][kind], shares[b][kind]) for a, b in combinations(names, 2)]
        found["across rate pairs"][kind] = mean(pairs)
    for one, other in combinations(kinds, 2):
        pairs = [(each[one], each[other]) for each in shares.values()]
        found["across modalities"][f"{one} and {other}"] = mean(pairs)
    return found


def draw(shares: Shares, output: Path) -> None:
    """Heat maps: a row for each kind of token, a column for each rate pair."""
    kinds = [kind for kind in KINDS if kind in next(iter(shares.values()))]
    top = max(float(np.quantile(m, 0.98)) for each in shares.values() for m in each.values())
    figure, panels = headless_pyplot().subplots(
        nrows=len(kinds),
        ncols=len(shares),
        figsize=(1.75 * len(shares), 2.1 * len(kinds)),
        squeeze=False,
        sharex=True,
        sharey=True,
        layout="constrained",
    )
    for row, kind in zip(panels, kinds, strict=True):
        for panel, (pair, each) in zip(row, shares.items(), strict=True):
            matrix = each[kind]
            layers, experts = matrix.shape
            image = panel.imshow(
                100 * matrix,
                cmap="gray_r",
                origin="lower",
                aspect="auto",
                vmin=0,
                vmax=100 * top,
                extent=(0.5, experts + 0.5, 0.5, layers + 0.5),
            )
            panel.set_title(f"{kind}, {pair.replace('_', ' ')}", fontsize=8)
            panel.tick_params(labelsize=7)
    for panel in panels[-1]:
        panel.set_xlabel("routed expert", fontsize=8)
    for row in panels:
        row[0].set_ylabel("layer", fontsize=8)
    bar = figure.colorbar(image, ax=panels, shrink=0.5)
    bar.set_label("share of a layer's assignments (%)", fontsize=8)
    bar.ax.tick_params(labelsize=7)
    save(figure, output / "experts.png", output / "experts.svg")
    print(output / "experts.png")


def show(transcribe: Transcriber, data: Path, task: str, max_clips: int, output: Path) -> None:
    """Measure, compare, draw.

    Args:
        transcribe: the model.
        data: folder of the set.
        task: that the model does.
        max_clips: of the set.
        output: folder of the figure and of experts.json.

    Raises:
        OSError, ValueError: as :func:`measure`.
    """
    shares = measure(transcribe, data, task, max_clips)
    found = alike(shares)
    draw(shares, output)
    values = {
        pair: {k: m.round(5).tolist() for k, m in each.items()} for pair, each in shares.items()
    }
    matrices = [matrix for each in shares.values() for matrix in each.values()]
    in_use = {
        "of": matrices[0].shape[1],
        "in a layer": float(np.mean([experts_in_use(matrix) for matrix in matrices])),
        "over all layers": float(
            np.mean([experts_in_use(matrix.mean(0, keepdims=True)) for matrix in matrices])
        ),
    }
    what = {"task": task, "set": data.name, "alike": found, "in_use": in_use, "shares": values}
    write_text(output / "experts.json", json.dumps(what) + "\n")
    for title, group in found.items():
        for name, value in group.items():
            print(f"{title}, {name}: {value['overlap']:.2f} (by chance {value['by_chance']:.2f})")
    print(
        f"experts in use in a layer: {in_use['in a layer']:.1f} of {in_use['of']}; by number over "
        f"all layers: {in_use['over all layers']:.1f}"
    )


def main(argv: list[str] | None = None) -> None:
    """Open the model and show its experts."""
    args = parse(argv)
    demand_installed("mome-plot-experts", "matplotlib")
    try:
        data = args.dump / args.set
        show(open_for_crops(args), data, args.task, args.max_clips, args.output)
    except (OSError, ValueError) as error:
        raise SystemExit(f"mome-plot-experts: {error}") from None


if __name__ == "__main__":
    main()
