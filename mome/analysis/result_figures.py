"""Figures of a model's error rates: against noise and against compression."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mome.analysis.decoded import Scores, rate_order
from mome.analysis.figures import headless_pyplot, save
from mome.analysis.wer import rate_name
from mome.data import test_sets
from mome.models.rates import TASKS, parse_rate_pair

STYLES = {"avsr": ("o", "-"), "asr": ("s", "--"), "vsr": ("^", ":")}  # told apart without colour
FRAMES = {"audio": 50, "video": 25}  # of Whisper and of lip encoders in a second
Points = list[tuple[float, Mapping[str, float]]]  # place on the axis, score


def by_snr(
    scores: Scores, base: str, noise: str
) -> tuple[dict[tuple[str, str], Points], list[str]]:
    """WER against SNR: (task, rate pair) -> points, and the names of the axis' places.

    The last place is the clean set. Lips do not hear noise, so VSR is the same at all of them.

    Raises:
        ValueError: if no set with this noise is decoded; names what there is.
    """
    sets = {name: test_sets.parse(name) for _, name, _ in scores}
    noisy: dict[float, str] = {}
    for name, each in sets.items():
        plain = each.base == base and not (each.swap or each.corruption)
        if plain and each.noise == noise and each.snr is not None:
            noisy[each.snr] = name
    if not noisy:
        raise ValueError(
            f"no set of {base} with {noise} is decoded; decoded are {', '.join(sorted(sets))}"
        )
    places = [*(noisy[snr] for snr in sorted(noisy)), base]
    names = [*(f"{snr:g}" for snr in sorted(noisy)), "clean"]
    lines: dict[tuple[str, str], Points] = {}
    read = {(task, pair) for task, _, pair in scores}
    for task, pair in sorted(read, key=lambda each: rate_order(each[1])):
        points = []
        for place, name in enumerate(places):
            found = scores.get((task, base if task == "vsr" else name, pair))
            if found is not None:
                points.append((float(place), found))
        lines[task, pair] = points
    return lines, names


def by_rate(scores: Scores, base: str) -> dict[str, Points]:
    """WER of a clean set against tokens a second that the LLM reads: name of a line -> points.

    ASR and VSR are a line each; AVSR is one for each audio rate.
    """
    lines: dict[str, Points] = {}
    for task, name, pair in sorted(
        scores, key=lambda key: (TASKS.index(key[0]), rate_order(key[2]))
    ):
        if name != base:
            continue
        rates = parse_rate_pair(pair)
        title = f"{task.upper()}, audio {rates.audio}" if task == "avsr" else task.upper()
        tokens = sum(FRAMES[kind] / rate for kind, rate in rates.rates.items())
        lines.setdefault(title, []).append((tokens, scores[task, name, pair]))
    return {title: sorted(points, key=lambda point: point[0]) for title, points in lines.items()}


def draw_line(panel: Any, points: Points, marker: str, style: str, name: str) -> None:
    """A line with the scores' confidence intervals as bars."""
    places = [place for place, _ in points]
    wers = [score["wer"] for _, score in points]
    bars = [
        [score["wer"] - score["low"] for _, score in points],
        [score["high"] - score["wer"] for _, score in points],
    ]
    panel.errorbar(
        places, wers, yerr=bars, marker=marker, linestyle=style, markersize=4, capsize=2, label=name
    )


def draw_by_rate(scores: Scores, base: str, output: Path) -> None:
    """Draw error rates against tokens a second: wer_by_rate.png and .svg in a folder.

    Raises:
        ValueError: if the set is not decoded.
    """
    lines = by_rate(scores, base)
    if not lines:
        raise ValueError(f"{base} is not decoded; stage 5 does it")
    figure, panel = headless_pyplot().subplots(figsize=(3.5, 2.8))
    dashes = iter(["-", "--", "-.", ":"])  # AVSR's lines, one for each audio rate
    for title, points in lines.items():
        marker, style = STYLES[title.split(",")[0].lower()]
        draw_line(panel, points, marker, next(dashes, style) if marker == "o" else style, title)
    panel.set_xlabel("audio and video tokens a second")
    panel.set_ylabel(f"{rate_name(scores.values())} (%)")
    panel.set_ylim(bottom=0)
    panel.legend(fontsize=7)
    figure.tight_layout()
    save(figure, output / "wer_by_rate.png", output / "wer_by_rate.svg")


def draw_by_snr(scores: Scores, base: str, noise: str, output: Path) -> None:
    """Draw error rates against SNR: wer_by_snr.png and .svg in a folder.

    A panel each is for the finest and the coarsest rates.

    Raises:
        ValueError: as of :func:`by_snr`.
    """
    lines, names = by_snr(scores, base, noise)
    pairs = {task: [p for t, p in lines if t == task] for task in TASKS}
    figure, panels = headless_pyplot().subplots(1, 2, figsize=(7.0, 2.8), sharey=True)
    for panel, index in zip(panels, (0, -1), strict=True):
        for task in TASKS:
            if pairs[task]:
                pair = pairs[task][index]
                title = f"{task.upper()} {pair.replace('_', ' ')}"
                draw_line(panel, lines[task, pair], *STYLES[task], title)
        panel.set_xticks(range(len(names)), names)
        panel.set_xlabel(f"SNR, {noise} (dB)")
        panel.legend(fontsize=7)
    panels[0].set_ylabel(f"{rate_name(scores.values())} (%)")
    panels[0].set_ylim(bottom=0)  # of both
    figure.tight_layout()
    save(figure, output / "wer_by_snr.png", output / "wer_by_snr.svg")
