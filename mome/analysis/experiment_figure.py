"""Pictures of what experiments show: the word error rates of methods."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mome.analysis.experiment_tables import pairs_in, sets_in
from mome.analysis.figures import headless_pyplot, save
from mome.analysis.wer import rate_name
from mome.data import test_sets

MARKERS = "osD^v<>Ph*"  # told apart without colour


def draw(found: Mapping[str, Any], output: Path) -> None:
    """Write ``wer`` and ``parameters`` to a folder, each as .png and .svg.

    They show the WER of each method at each rate pair, and against its active parameters; a panel
    for each test set. Nothing is written while nothing is decoded.

    Args:
        found: what :func:`mome.analysis.experiment_tables.results` gives.
        output: folder.
    """
    rows = [row for row in found["experiments"].values() if row["wer"]]
    names = sets_in(rows)
    if not names:
        return
    plot = headless_pyplot()
    size = (1 + 5 * len(names), 4.5)
    for stem, draw_panel in (("wer", draw_pairs), ("parameters", draw_parameters)):
        figure, panels = plot.subplots(1, len(names), figsize=size, squeeze=False)
        handles: dict[str, Any] = {}
        for panel, name in zip(panels[0], names, strict=True):
            draw_panel(panel, rows, name)
            panel.set_title(test_sets.parse(name).describe())
            drawn, labels = panel.get_legend_handles_labels()
            handles |= dict(zip(labels, drawn, strict=True))
        panels[0][-1].legend(
            handles.values(), handles, loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False
        )
        figure.tight_layout()
        save(figure, output / f"{stem}.png", output / f"{stem}.svg", dpi=150)
        plot.close(figure)


def draw_pairs(panel: Any, rows: Sequence[Mapping[str, Any]], name: str) -> None:
    """The WER of each method at each rate pair, over its seeds.

    Means, with the smallest and the largest seed as bars. What is over three times the median is
    written at the upper edge.
    """
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
    panel.set_xticks(range(len(pairs)), pairs)
    panel.grid(axis="y", alpha=0.3)


def draw_parameters(panel: Any, rows: Sequence[Mapping[str, Any]], name: str) -> None:
    """The WER of each method, over rate pairs and seeds, against its active parameters.

    Those are the adapter's that a token of one rate pair goes through. Bars are the smallest and
    the largest seed. Methods without an adapter, and those over three times the median, are left
    out and named below.
    """
    cells = [row["wer_of_all_pairs"].get(name) for row in rows]
    middle = np.median([cell["mean"] for cell in cells if cell])
    left_out = []
    for index, (row, cell) in enumerate(zip(rows, cells, strict=True)):
        if cell is None:
            continue
        mean = cell["mean"]
        if not row["active"] or mean > 3 * middle:
            left_out.append(f"{row['title']}: {mean:.1f}")
            continue
        panel.errorbar(
            row["active"] / 1e6,
            mean,
            yerr=[[mean - min(cell["wers"])], [max(cell["wers"]) - mean]],
            fmt=MARKERS[index % len(MARKERS)],
            color=f"C{index}",
            capsize=2,
            label=row["title"],
        )
    panel.set_xlim(left=0)
    panel.margins(y=0.12)  # room for what is written below
    panel.set(xlabel="active parameters of the adapter, millions")
    panel.set(ylabel=f"{rate_name(rows)}, mean of rate pairs, %")
    panel.grid(alpha=0.3)
    if left_out:
        note = "not drawn: " + "; ".join(left_out)
        panel.text(0.02, 0.02, note, transform=panel.transAxes, fontsize=8)
