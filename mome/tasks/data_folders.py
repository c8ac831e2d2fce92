"""Training options that name data folders, in the place of ESPnet's, which name every file."""

import argparse
from collections.abc import Iterable
from pathlib import Path

import yaml

from mome.models.rates import READS, TASKS

# What a model reads: name of the stream -> file in a data folder, ESPnet's type.
STREAMS = {"text": ("text", "text"), "speech": ("wav.scp", "sound"), "lips": ("lip.scp", "lips")}
OF_MODALITY = {"audio": "speech", "video": "lips"}


def streams_of(tasks: Iterable[str]) -> list[str]:
    """The media, of speech and lips, that any of the tasks reads.

    Raises:
        ValueError: for an unknown task.
    """
    tasks = list(tasks)
    if unknown := [task for task in tasks if task not in TASKS]:
        raise ValueError(f"task {unknown[0]!r} must be one of {', '.join(TASKS)}")
    read = {kind for task in tasks for kind in READS[task]}
    return [name for kind, name in OF_MODALITY.items() if kind in read]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options that :func:`resolve` turns into ESPnet's."""
    group = parser.add_argument_group("Data folders")
    group.add_argument("--train_data", help="folder of stage 2, such as dump/train")
    group.add_argument("--valid_data", help="folder of stage 2, such as dump/valid")
    group.add_argument(
        "--tasks", type=str.split, help='such as "avsr asr vsr"; sets model_conf.tasks'
    )
    group.add_argument("--units", help="folder of mome.bin.make_units: targets of video frames")


def resolve(args: argparse.Namespace) -> None:
    """Set ESPnet's options of data and shapes, and the model's tasks, from those of data folders.

    Which files are read follows from the tasks; the video_units model reads lips and units. Options
    of data folders are removed, so that the configuration that training saves is ESPnet's.

    Raises:
        FileNotFoundError: for a file that is not there; says which stage makes it.
        ValueError: for an unknown task, or a folder beside ESPnet's options for the same data.
    """
    tasks, units = args.tasks, args.units
    if tasks is not None:
        args.model_conf = {**args.model_conf, "tasks": tasks}
    streams = ["lips"]
    if args.model != "video_units":
        streams = ["text", *streams_of(args.model_conf.get("tasks", ["avsr"]))]
    for phase in ("train", "valid"):
        folder = getattr(args, f"{phase}_data")
        if folder is None:
            continue
        sources = [
            (str(Path(folder, STREAMS[name][0])), name, STREAMS[name][1]) for name in streams
        ]
        if units is not None or args.model == "video_units":
            sources.append(
                (str(Path(units or "", f"{Path(folder).name}.units")), "units", "text_int")
            )
        shapes = str(Path(folder, "utt2num_frames"))
        for path, name in [*((source[0], source[1]) for source in sources), (shapes, "lengths")]:
            stage = "4 (mome.bin.make_units, --units)" if name == "units" else "2"
            _demand(path, stage)
        if getattr(args, f"{phase}_data_path_and_name_and_type"):
            raise ValueError(
                f"give --{phase}_data or --{phase}_data_path_and_name_and_type, not both"
            )
        setattr(args, f"{phase}_data_path_and_name_and_type", sources)
        setattr(args, f"{phase}_shape_file", [shapes])
    if args.train_data is not None and (noise := args.preprocessor_conf.get("noise_scp")):
        _demand(noise, "3")
    for name in ("train_data", "valid_data", "tasks", "units"):
        delattr(args, name)


def check_trained_on(config: Path, train_set: str) -> None:
    """See that a model was trained on the set that is asked for, wherever its folder lies now.

    Args:
        config: config.yaml of the training.
        train_set: name of the set.

    Raises:
        ValueError: if the configuration names another set.
    """
    sources = yaml.safe_load(config.read_text()).get("train_data_path_and_name_and_type") or []
    trained = {Path(path).parent.name for path, name, _ in sources if name in STREAMS}
    if trained - {train_set}:
        raise ValueError(
            f"{config}: trained on {', '.join(sorted(trained))}, not on {train_set}; give that set"
            " (--train_set, or the recipe's --subset), or another --expdir or --tag"
        )


def _demand(path: str, stage: str) -> None:
    if not Path(path).is_file():
        raise FileNotFoundError(f"{path} does not exist: stage {stage} makes it")
