"""What a training reported, epoch by epoch, from the logs of ESPnet's trainer."""

import re
from dataclasses import dataclass
from pathlib import Path

from mome.common.training_log import epoch_results
from mome.common.yaml_files import read_yaml

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
