"""Which experts a model selects at each rate, and how alike that is across rates and modalities."""

import json
from collections.abc import Iterable, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np

from mome.analysis.figures import headless_pyplot, save
from mome.analysis.routing import KINDS, expert_shares, experts_in_use, overlap, overlap_by_chance
from mome.common.memory import naming_batch
from mome.data.kaldi import write_text
from mome.data.text import lowered
from mome.models.avsr import AVSRModel, Features
from mome.models.rates import TaskPair, fineness

Shares = dict[str, dict[str, np.ndarray]]  # rate pair -> kind -> (layers, Nr)
Batch = tuple[Sequence[str], Features, Sequence[str]]  # ids, features and transcripts of clips


def measure(model: AVSRModel, batches: Iterable[Batch], task: str) -> Shares:
    """Shares of the experts over clips: of a batch by its tokens, and batches by their clips.

    Args:
        model: the trained model.
        batches: ids of clips, what the model's encoders make of them, and their transcripts.
        task: that it does.

    Raises:
        ValueError: for a task that the model does not know, or without routed experts.
        OutOfMemory: if that of the GPU or the machine does not suffice; names the clips.
    """
    if task not in model.pairs:
        raise ValueError(f"the model does not read {task}, but {', '.join(model.pairs)}")
    sums: Shares = {}
    clips = 0
    for utterances, features, texts in batches:
        clips += len(texts)
        words = [model.tokenizer.encode(f" {lowered(t)}", add_special_tokens=False) for t in texts]
        with naming_batch(utterances):
            for pair in sorted(model.pairs[task], key=fineness):
                found = expert_shares(model, features, TaskPair(task, pair), words)
                if not found:
                    raise ValueError("the model has no routed experts")
                of_pair = sums.setdefault(str(pair), {})
                for kind, shares in found.items():
                    of_pair[kind] = of_pair.get(kind, 0.0) + shares * len(texts)
    return {pair: {kind: m / clips for kind, m in each.items()} for pair, each in sums.items()}


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
    """Draw experts.png and .svg: a row for each kind of token, a column for each rate pair."""
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


def show(
    model: AVSRModel,
    batches: Iterable[Batch],
    task: str,
    name: str,
    output: Path,
) -> dict[str, Any]:
    """Measure, compare and draw: writes experts.json, experts.png and experts.svg.

    Args:
        model, batches, task: see :func:`measure`.
        name: of the set that the clips are of.
        output: folder of the files.

    Returns:
        what experts.json says.

    Raises:
        ValueError, OutOfMemory: as of :func:`measure`.
    """
    shares = measure(model, batches, task)
    matrices = [matrix for each in shares.values() for matrix in each.values()]
    in_use = {
        "of": matrices[0].shape[1],
        "in a layer": float(np.mean([experts_in_use(matrix) for matrix in matrices])),
        "over all layers": float(
            np.mean([experts_in_use(matrix.mean(0, keepdims=True)) for matrix in matrices])
        ),
    }
    values = {
        pair: {k: m.round(5).tolist() for k, m in each.items()} for pair, each in shares.items()
    }
    found = {"task": task, "set": name, "alike": alike(shares), "in_use": in_use, "shares": values}
    draw(shares, output)
    write_text(output / "experts.json", json.dumps(found) + "\n")
    return found
