"""Options of a recipe's run.sh with which experiments are trained and decoded.

They come from the list, the command line of mome.bin.run_experiments, whose arguments are ``args``
here, and the runner itself, whose own nobody else may give.
"""

import argparse
from collections.abc import Sequence
from itertools import pairwise

from mome.analysis.experiments import Training
from mome.common.marks import MODULES
from mome.common.marks import NEUTRAL as NEUTRAL_SETTINGS
from mome.tasks.config import command_settings, config_settings

# Options of run.sh that change no result. Those of the data are for stages that are not run here;
# what is trained on is compared by itself.
NEUTRAL = NEUTRAL_SETTINGS | set(
    "decode_nj train_cmd decode_cmd decode_batch_size corpus download_opts prepare_opts".split()
)
# Options of mome.bin.train that a list decides, or the runner itself.
LISTED = {
    *("--seed", "--config", "--output_dir", "--tasks", "--optim_conf lr"),
    *("--model_conf audio_rates", "--model_conf video_rates"),
}


def settings_of(training: Training, args: argparse.Namespace) -> dict[str, object]:
    """What decides the result of a training and its decoding, beside the code."""
    further = dict(given_options(training, args))
    deciding = [
        f"--{name} {value}"
        for name, value in further.items()
        if name not in NEUTRAL and name != "train_opts"
    ]
    of_training = command_settings(given_train_opts(training, args))
    return {
        "task": args.task,
        "dumpdir": str(args.dumpdir),
        "run_opts": " ".join(deciding),
        **config_settings(training.conf),
        **{name: value for name, value in of_training.items() if name != "command"},
    }


def is_option(setting: str) -> bool:
    """Whether a setting of `settings_of` is of the options that are given to run.sh."""
    return setting in ("run_opts", MODULES) or setting.startswith("--")


def given_options(training: Training, args: argparse.Namespace) -> list[tuple[str, str]]:
    """Options of run.sh that its experiment and the command line give, with their values."""
    return pairs_of([*training.experiment.run_opts, *args.run_opts])


def given_train_opts(training: Training, args: argparse.Namespace) -> list[str]:
    """Words of all the ``--train_opts`` of `given_options`, in order, as the shell splits them.

    Raises:
        ValueError: for an option that the list decides, or that would put results elsewhere.
    """
    values = [value for name, value in given_options(training, args) if name == "train_opts"]
    words = " ".join(values).split()
    for word, following in pairwise([*words, ""]):
        name, _, value = word.partition("=")
        key = (value or following).partition("=")[0]
        if name in ("--optim_conf", "--model_conf") and key.startswith("{"):
            raise ValueError(f'--train_opts "{name}": name single keys, as key=value')
        if clash := {name, f"{name} {key}"} & LISTED:
            raise ValueError(f'--train_opts "{min(clash)}" cannot be given: the list decides it')
    return words


def pairs_of(words: Sequence[str]) -> list[tuple[str, str]]:
    """Options of run.sh, each of which has one value: ``--nj 2 --x=y`` -> [(nj, 2), (x, y)]."""
    found = []
    rest = iter(words)
    for word in rest:
        name, equals, value = word.removeprefix("--").partition("=")
        found.append((name.replace("-", "_"), value if equals else next(rest, "")))
    return found


def command_line(training: Training, args: argparse.Namespace) -> dict[str, str]:
    """Options of run.sh: the runner's own, and those that are given for it.

    Raises:
        ValueError: if the runner's, or others that would put results elsewhere, are given, too; of
            ``train_opts``, as of `given_train_opts`.
    """
    # The runner's come last, and count.
    train_opts = [*given_train_opts(training, args), "--seed", str(training.seed)]
    options = {
        "tasks": args.task,
        "dumpdir": args.dumpdir.resolve(),
        "expdir": args.expdir.resolve(),
        "tag": f"experiments/{training.name}",
        "train_config": args.folder / training.name / "train.yaml",
        "train_opts": " ".join(train_opts),
    }
    # Settings of a config file would not be compared with those of before.
    others = ("stage", "stop_stage", "decode_tag", "one_model", "dry_run", "force", "config")
    given = dict(given_options(training, args))
    given.pop("train_opts", None)
    if clash := given.keys() & {*options, *others}:
        raise ValueError(f"--{min(clash)} cannot be given to run.sh by experiments")
    return {name: str(value) for name, value in options.items()} | given
