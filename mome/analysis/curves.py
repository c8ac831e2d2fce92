"""What a training reported, epoch by epoch, from the logs of ESPnet's trainer."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from mome.analysis.figures import headless_pyplot, save
from mome.common.training_log import epoch_results
from mome.common.yaml_files import read_yaml

STYLES = ("-", "--", ":", "-.")  # told apart in black and white too
TIME = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d+")


@dataclass(frozen=True)
class Curve:
    """One statistic of a training.

    Attributes:
        steps: steps of the optimiser at the end of each epoch.
        values: of the statistic, one for each.
    """

    steps: list[int]
    values: list[float]


def log_files(expdir: Path) -> list[Path]:
    """The logs of a training: ``log``, and on a cluster ``train.log`` and those of earlier jobs."""
    return [path for path in (expdir / "log", *sorted(expdir.glob("train*.log"))) if path.is_file()]


def read_curves(expdir: Path) -> dict[str, Curve]:
    """The statistics of a training's epochs, such as ``valid loss_avsr_a4_v2``.

    An epoch that was reported twice, since the training was killed in between and went on, counts
    as it was last.

    Raises:
        FileNotFoundError: without a training there.
        ValueError: if no epoch is finished, or the configuration is no YAML; names the file.
    """
    logs, config = log_files(expdir), expdir / "config.yaml"
    for path in (logs[0] if logs else expdir / "log", config):
        if not path.is_file():
            raise FileNotFoundError(f"{path} does not exist; train the model first (stage 4)")
    per_epoch = read_yaml(config).get("num_iters_per_epoch") or 1
    reported = []
    for log in logs:
        for line in log.read_text(encoding="utf-8", errors="replace").splitlines():
            if results := epoch_results(line):
                time = TIME.search(line)
                reported.append((time[0] if time else "", *results))
    epochs: dict[int, dict[str, float]] = {}
    # A training may have gone on elsewhere, and ESPnet's launcher copies what a failed job wrote.
    for _, number, parts in sorted(reported, key=lambda line: line[0]):
        # What came after it was of a training that was begun anew since.
        epochs = {each: values for each, values in epochs.items() if each < number}
        epochs[number] = {
            f"{part} {name}": float(value)
            for part, statistics in parts.items()
            for name, value in statistics.items()
        }
    if not epochs:
        raise ValueError(f"{', '.join(map(str, logs))} reports no finished epoch")
    names = dict.fromkeys(name for values in epochs.values() for name in values)
    return {
        name: Curve(
            [per_epoch * epoch for epoch in sorted(epochs) if name in epochs[epoch]],
            [epochs[epoch][name] for epoch in sorted(epochs) if name in epochs[epoch]],
        )
        for name in names
    }


def draw_curves(
    expdirs: Sequence[Path], names: Sequence[str], statistics: Sequence[str], output: Path
) -> None:
    """Draw a panel for each statistic, with a line for each training.

    Args:
        expdirs: folders of the trainings.
        names: of these in the legend.
        statistics: as the logs call them.
        output: picture of any type.

    Raises:
        FileNotFoundError, ValueError: as of :func:`read_curves`; for a statistic that a log does
            not report, naming those that it does.
    """
    trainings = [read_curves(folder) for folder in expdirs]
    for folder, curves in zip(expdirs, trainings, strict=True):
        for statistic in statistics:
            if statistic not in curves:
                raise ValueError(
                    f"{folder}: its log reports no {statistic!r}, but {', '.join(sorted(curves))}"
                )
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
