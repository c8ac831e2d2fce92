"""Lists of experiments: what is trained, where it is, and how far it is.

See mome.bin.run_experiments for the form of a list and for what is done with it.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mome.analysis.curves import read_curves
from mome.common.json_files import read_json
from mome.common.marks import read_mark
from mome.common.yaml_files import read_yaml
from mome.models.rates import TASKS, RatePair, rate_pairs
from mome.tasks.config import merge, read_config

KEYS = {"baseline", "task", "learning_rates", "seeds", "common", "experiments"}
EXPERIMENT_KEYS = {"title", "conf", "run_opts", "model_per_pair", "learning_rates"}


@dataclass(frozen=True)
class Experiment:
    """One method of a list.

    Attributes:
        name: of its folder.
        title: of its row.
        conf: whole configuration of its training, but for learning rate and seed.
        run_opts: options of run.sh.
        models: rate pairs that are trained together, for each model.
        learning_rates: that it is trained at with the first seed.
    """

    name: str
    title: str
    conf: dict[str, Any]
    run_opts: list[str]
    models: list[list[RatePair]]
    learning_rates: list[float]


@dataclass(frozen=True)
class Training:
    """One training of an experiment, of the rate pairs ``pairs``."""

    experiment: Experiment
    rate: float
    seed: int
    pairs: tuple[RatePair, ...]

    @property
    def name(self) -> str:
        """Its folder below that of the experiments."""
        name = f"{self.experiment.name}/lr{self.rate:g}_seed{self.seed}"
        return name if len(self.experiment.models) == 1 else f"{name}_{self.pairs[0]}"

    @property
    def conf(self) -> dict[str, Any]:
        """Its configuration."""
        rates = {
            "audio_rates": sorted({pair.audio for pair in self.pairs if pair.audio}),
            "video_rates": sorted({pair.video for pair in self.pairs if pair.video}),
        }
        return merge(
            self.experiment.conf,
            {
                "optim_conf": {"lr": self.rate},
                "seed": self.seed,
                "model_conf": {name: value for name, value in rates.items() if value},
            },
        )


@dataclass(frozen=True)
class ExperimentList:
    """A list as it was read; see mome.bin.run_experiments."""

    baseline: str
    task: str
    seeds: list[int]
    experiments: list[Experiment]

    def only_seeds(self, seeds: Sequence[int]) -> list[int]:
        """These seeds; of none, all.

        Raises:
            ValueError: for a seed that is not in the list.
        """
        if unknown := [seed for seed in seeds if seed not in self.seeds]:
            listed = ", ".join(map(str, self.seeds))
            raise ValueError(f"no seed {unknown[0]} is listed; there are {listed}")
        return list(seeds) or self.seeds

    def only(self, names: Sequence[str]) -> list[Experiment]:
        """The experiments of these names; of none, all.

        Raises:
            ValueError: for a name that is not in the list.
        """
        known = {each.name: each for each in self.experiments}
        if unknown := [name for name in names if name not in known]:
            raise ValueError(f"no experiment {unknown[0]} is listed; there are {', '.join(known)}")
        return [known[name] for name in names] or self.experiments


def read_list(path: Path, train: Path) -> ExperimentList:
    """Read a list.

    Args:
        path: of the list, whose ``base`` another list may be.
        train: configuration that all of its experiments change.

    Raises:
        FileNotFoundError: if a file is not there.
        ValueError: for a key that is missing or unknown, a list without experiments or a baseline
            that is not among them.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist; it lists the experiments")
    values = read_config(path)
    # What a base gives is shared; the experiments are the list's own.
    own = read_yaml(path).get("experiments")
    values["experiments"] = own
    _check_keys(path, values, KEYS, KEYS)
    if not own:
        raise ValueError(f"{path}: experiments must name one at least")
    if values["task"] not in TASKS:
        raise ValueError(f"{path}: task {values['task']!r} is not one of {', '.join(TASKS)}")
    if not values["learning_rates"] or not values["seeds"]:
        raise ValueError(f"{path}: learning_rates and seeds must name one each at least")
    if values["baseline"] not in values["experiments"]:
        raise ValueError(f"{path}: the baseline {values['baseline']} is not among its experiments")
    base = merge(read_config(train), values["common"] or {})
    experiments = []
    for name, given in values["experiments"].items():
        given = given or {}
        _check_keys(f"{path}: {name}", given, EXPERIMENT_KEYS, set())
        conf = merge(base, given.get("conf") or {})
        rates = conf["model_conf"]
        pairs = rate_pairs(values["task"], rates["audio_rates"], rates["video_rates"])
        models = [[pair] for pair in pairs] if given.get("model_per_pair") else [pairs]
        title, options = given.get("title") or name, given.get("run_opts") or []
        learning_rates = list(map(float, given.get("learning_rates") or values["learning_rates"]))
        options = list(map(str, options))
        experiments.append(Experiment(name, title, conf, options, models, learning_rates))
    return ExperimentList(
        values["baseline"],
        values["task"],
        list(map(int, values["seeds"])),
        experiments,
    )


def _check_keys(what: object, values: Any, known: set[str], needed: set[str]) -> None:
    if not isinstance(values, dict):
        raise ValueError(f"{what} holds no `key: value`")
    if unknown := sorted(set(values) - known):
        raise ValueError(f"{what}: unknown key {unknown[0]}; known are {', '.join(sorted(known))}")
    if missing := sorted(needed - set(values)):
        raise ValueError(f"{what}: the key {missing[0]} is missing")


def trainings(experiment: Experiment, rate: float, seed: int) -> list[Training]:
    """The trainings of an experiment at a learning rate and seed: one for each of its models."""
    return [Training(experiment, rate, seed, tuple(pairs)) for pairs in experiment.models]


def all_trainings(listed: ExperimentList, experiments: Sequence[Experiment]) -> list[Training]:
    """Every training that a list can ask for, whichever learning rate turns out best."""
    return [
        each
        for experiment in experiments
        for rate in experiment.learning_rates
        for seed in listed.seeds
        for each in trainings(experiment, rate, seed)
    ]


def is_trained(folder: Path) -> bool:
    """Whether a training is finished."""
    mark = read_mark(folder / ".done")
    return mark is not None and mark["state"] == "done"


def is_decoded(folder: Path) -> bool:
    """Whether a training is decoded and scored."""
    return (folder / "scores.json").is_file()


def is_begun(folder: Path) -> bool:
    """Whether a training has begun."""
    return (folder / "run.json").is_file()


def read_run(folder: Path) -> dict[str, Any]:
    """What a training was begun with and took, by its run.json.

    Raises:
        FileNotFoundError, ValueError: if it cannot be read; names the file.
    """
    return read_json(folder / "run.json", "remove its folder to train it again")


def validation_loss(folder: Path) -> float:
    """Mean cross-entropy over rate pairs on validation data at the end; infinite if diverged."""
    ends = [
        curve.values[-1]
        for name, curve in read_curves(folder).items()
        if name.startswith("valid loss_") and name != "valid loss_balance"
    ]
    # A training that has diverged is no reason to stop, nor to be chosen.
    return sum(ends) / len(ends) if ends and all(map(math.isfinite, ends)) else math.inf


def losses_by_rate(listed: ExperimentList, experiment: Experiment, expdir: Path) -> dict:
    """Validation loss of an experiment at each learning rate that is trained, by the first seed."""
    losses = {}
    for rate in experiment.learning_rates:
        of_rate = trainings(experiment, rate, listed.seeds[0])
        folders = [expdir / each.name for each in of_rate]
        if all(map(is_trained, folders)):
            losses[rate] = sum(map(validation_loss, folders)) / len(folders)
    return losses


def best_rate(listed: ExperimentList, experiment: Experiment, expdir: Path) -> float | None:
    """The learning rate of the lowest validation loss; None until all of several are trained."""
    if len(experiment.learning_rates) == 1:
        return experiment.learning_rates[0]
    losses = losses_by_rate(listed, experiment, expdir)
    if len(losses) < len(experiment.learning_rates):
        return None
    return min(losses, key=lambda rate: losses[rate])


def left(
    listed: ExperimentList, experiments: Sequence[Experiment], expdir: Path, seeds: Sequence[int]
) -> list[Training]:
    """What can be done next, the widest first: trainings that are not trained or not decoded.

    Args:
        listed: the list, by whose first seed each experiment's learning rate is chosen.
        experiments: of the list.
        expdir: where they are.
        seeds: of the list, whose trainings are asked for.
    """
    found = []
    first = listed.seeds[0]
    for turn in range(max(len(experiment.learning_rates) for experiment in experiments)):
        for experiment in experiments:
            for rate in experiment.learning_rates[turn : turn + 1]:
                every = trainings(experiment, rate, first)
                found += [each for each in every if not is_trained(expdir / each.name)]
    for seed in listed.seeds:
        for experiment in experiments:
            chosen = best_rate(listed, experiment, expdir)
            for each in trainings(experiment, chosen, seed) if chosen is not None else []:
                if each not in found and not is_decoded(expdir / each.name):
                    found.append(each)
    return [each for each in found if each.seed in seeds]


def trainings_left(
    listed: ExperimentList, experiments: Sequence[Experiment], expdir: Path, seeds: Sequence[int]
) -> int:
    """Trainings that are not finished; arguments as of `left`."""
    count = 0
    for experiment in experiments:
        others = len(experiment.learning_rates) - 1 if listed.seeds[0] in seeds else 0
        asked = len(seeds) + others
        every = [each for each in all_trainings(listed, [experiment]) if each.seed in seeds]
        done = sum(is_trained(expdir / each.name) for each in every)
        count += max(0, len(experiment.models) * asked - done)
    return count
