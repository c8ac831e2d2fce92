"""What a training reported, epoch by epoch, from the log of ESPnet's trainer."""

import re
from dataclasses import dataclass
from pathlib import Path

import yaml

EPOCH = re.compile(r"\(trainer:\d+\) INFO: (\d+)epoch results: (.*)")
PART = re.compile(r"\[(train|valid)\] ")
STATISTIC = re.compile(r"(\w+)=([-+.\d]+(?:e[-+]?\d+)?|nan|-?inf)(?=,|$| )")


@dataclass(frozen=True)
class Curve:
    """One statistic of a training.

    Attributes:
        steps: steps of the optimiser at the end of each epoch.
        values: of the statistic, one for each.
    """

    steps: list[int]
    values: list[float]


def read_curves(expdir: Path) -> dict[str, Curve]:
    """The statistics of a training's epochs, such as ``valid loss_avsr_a4_v2``.

    An epoch that was reported twice, since the training was killed in between and went on, counts
    as it was last.

    Raises:
        FileNotFoundError: without a training there.
        ValueError: if no epoch is finished; names the log.
    """
    log, config = expdir / "log", expdir / "config.yaml"
    for path in (log, config):
        if not path.is_file():
            raise FileNotFoundError(f"{path} does not exist; train the model first (stage 4)")
    per_epoch = yaml.safe_load(config.read_text(encoding="utf-8")).get("num_iters_per_epoch") or 1
    epochs: dict[int, dict[str, float]] = {}
    for line in log.read_text(encoding="utf-8", errors="replace").splitlines():
        if (found := EPOCH.search(line)) is None:
            continue
        _, *pieces = PART.split(found[2])
        number = int(found[1])
        # What came after it was of a training that was begun anew since.
        epochs = {each: values for each, values in epochs.items() if each < number}
        epochs[number] = {
            f"{part} {name}": float(value)
            for part, text in zip(pieces[::2], pieces[1::2], strict=True)
            for name, value in STATISTIC.findall(text)
        }
    if not epochs:
        raise ValueError(f"{log} reports no finished epoch")
    names = dict.fromkeys(name for values in epochs.values() for name in values)
    return {
        name: Curve(
            [per_epoch * epoch for epoch in sorted(epochs) if name in epochs[epoch]],
            [epochs[epoch][name] for epoch in sorted(epochs) if name in epochs[epoch]],
        )
        for name in names
    }
