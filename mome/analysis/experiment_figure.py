"""A picture of what experiments show: the word error rates of methods at each rate pair."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from mome.analysis.experiment_tables import pairs_in, sets_in
from mome.analysis.figures import headless_pyplot, save
from mome.analysis.wer import rate_name
from mome.data import test_sets

MARKERS = "osD^v<>Ph*"  # told apart without colour


def draw(found: Mapping[str, Any], output: Path) -> None:
    """Write the WER of each method, over its seeds, as ``<output>/wer.png`` and ``wer.svg``.

    Means, with the smallest and the largest seed as bars; a panel for each test set. What is over
    three times the median is written at the upper edge. Nothing is written while nothing is
    decoded.

    Args:
        found: what :func:`mome.analysis.experiment_tables.results` gives.
        output: folder.
    """
    rows = [row for row in found["experiments"].values() if row["wer"]]
    names = sets_in(rows)
    if not names:
        return
    plot = headless_pyplot()
    figure, panels = plot.subplots(1, len(names), figsize=(1 + 5 * len(names), 4.5), squeeze=False)
    for panel, name in zip(panels[0], names, strict=True):
        pairs = pairs_in(rows, name)
        middle = np.median([c["mean"] for row in rows for c in row["wer"].get(name, {}).values()])
        top = 0.0
        for index, row in enumerate(rows):
            shift = 0.7 * ((index + 0.5) / len(rows) - 0.5)
            cells = row["wer"].get(name, {})
            shown = [pair for pair in pairs if pair in cells and cells[pair]["mean"] <= 3 * middle]
            places = np.array([pairs.index(pair) for pair in shown]) + shift
            means = np.array([cells[pair]["mean"] for pair in shown])
            low, high = (np.array([end(cells[p]["wers"]) for p in shown]) for end in (min, max))
            top = max([top, *high])
            panel.errorbar(
                places,
                means,
                yerr=np.maximum([means - low, high - means], 0),
                fmt=MARKERS[index % len(MARKERS)],
                color=f"C{index}",
                capsize=2,
                label=row["title"],
            )
            for pair in set(cells) - set(shown):
                panel.text(
                    pairs.index(pair) + shift,
                    0.98,
                    f"{cells[pair]['mean']:.0f} ↑",
                    transform=panel.get_xaxis_transform(),
                    color=f"C{index}",
                    rotation="vertical",
                    ha="center",
                    va="top",
                )
        panel.set(xlim=(-0.6, len(pairs) - 0.4), ylim=(0, 1.25 * top or 1))
        panel.set(xlabel="audio and video rate", ylabel=f"{rate_name(rows)}, %")
        panel.set_title(test_sets.parse(name).describe())
        panel.set_xticks(range(len(pairs)), pairs)
        panel.grid(axis="y", alpha=0.3)
    panels[0][-1].legend(loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False)
    figure.tight_layout()
    save(figure, output / "wer.png", output / "wer.svg", dpi=150)
    plot.close(figure)
