"""ESPnet configurations that name the one they differ from.

A YAML file with ``base: train.yaml`` holds only what it changes in the file beside it. Its keys
replace the base's; a dictionary such as ``decoder_conf`` is merged key by key, exactly as ESPnet's
``--decoder_conf key=value`` on the command line.
"""

import argparse
import os
import re
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

from mome.common.marks import MODULES, is_neutral
from mome.common.yaml_files import read_yaml
from mome.tasks import data_folders
from mome.tasks.extensions import import_modules, module_digests

ROOT = Path(__file__).resolve().parents[2]

# The keys of ESPnet's configuration that a model is built by.
MODEL_KEYS = (
    "model",
    "model_conf",
    "audio_encoder",
    "audio_encoder_conf",
    "video_encoder",
    "video_encoder_conf",
    "decoder",
    "decoder_conf",
    "preprocessor",
    "preprocessor_conf",
    "token_list",
    "freeze_video_encoder",
    "imports",
)


def read_config(path: Path) -> dict[str, Any]:
    """A configuration with its bases merged in.

    Raises:
        FileNotFoundError: if it or a base does not exist.
        ValueError: if one of them is no YAML or not a dictionary, or is its own base.
    """
    chain: list[dict[str, Any]] = []
    seen: set[Path] = set()
    place: Path | None = path
    while place is not None:
        if place in seen:
            raise ValueError(f"{path}: {place} is its own base")
        seen.add(place)
        if not place.is_file():
            raise FileNotFoundError(f"{place} does not exist (configuration {path})")
        values = read_yaml(place)
        base = values.pop("base", None)
        place = None if base is None else place.parent / base
        chain.append(values)
    merged: dict[str, Any] = {}
    for values in reversed(chain):
        merged = merge(merged, values)
    return merged


def merge(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """A configuration with changes: keys replace the base's, dictionaries are merged key by key."""
    merged = dict(base)
    for key, value in changes.items():
        old = merged.get(key)
        if isinstance(old, dict) and isinstance(value, dict):
            value = {**old, **value}
        merged[key] = value
    return merged


def numbers(value: Any) -> Any:
    """What YAML 1.1 takes for words, though it is a number: ``1e-3``, which lacks a point.

    Applied to all values within dictionaries and lists; others are as they were.
    """
    if isinstance(value, dict):
        return {key: numbers(item) for key, item in value.items()}
    if isinstance(value, list):
        return [numbers(item) for item in value]
    if isinstance(value, str) and re.fullmatch(r"[-+]?\d+(\.\d*)?[eE][-+]?\d+", value):
        return float(value)
    return value


def config_settings(config: dict, prefix: str = "configuration ") -> dict[str, object]:
    """Flatten a configuration: ``configuration optim_conf.lr`` -> value."""
    settings: dict[str, object] = {}
    for key, value in config.items():
        if isinstance(value, dict) and value:
            settings |= config_settings(value, f"{prefix}{key}.")
        else:
            settings[f"{prefix}{key}"] = value
    return settings


def command_settings(command: list[str]) -> dict[str, object]:
    """What of a command decides its result: option -> value, by ``key=value`` for ``--x_conf``.

    Paths below the working folder and below the repository are relative, so that neither spelling
    nor moving the repository makes a difference. Of the modules that are imported, ``modules`` has
    digests; the last value of an option counts, but of ``--import`` all do.

    Raises:
        FileNotFoundError, ValueError: if a configuration cannot be read.
    """
    if "--" in command:
        command = command[len(command) - command[::-1].index("--") :]
    settings: dict[str, object] = {}
    modules: list[str] = []
    options = [i for i, word in enumerate(command) if word.startswith("--")] + [len(command)]
    settings["command"] = relative(" ".join(command[: options[0]]))
    for start, end in pairwise(options):
        name, equals, value = command[start].partition("=")
        values = [value] * bool(equals) + command[start + 1 : end]
        if name == "--config":
            config = read_config(Path(values[0]))
            settings |= config_settings(config)
            modules += config.get("imports") or []
        elif name.endswith("_conf"):
            for key, _, value in (word.partition("=") for word in values):
                settings[f"{name} {key}"] = relative(value)
        else:
            settings[name] = relative(" ".join(values))
        if name == "--import":
            modules += values
    if modules:
        settings[MODULES] = module_digests(modules)
    return {name: value for name, value in settings.items() if not is_neutral(name)}


def relative(text: str) -> str:
    """A text with what lies below the working folder and the repository named from there."""
    text = text.replace(f"{Path.cwd()}/", "")
    return text.replace(f"{ROOT}/", f"{os.path.relpath(ROOT)}/")


def namespace(values: Mapping[str, Any]) -> argparse.Namespace:
    """A configuration as :func:`mome.tasks.build.build_model` takes it."""
    args = argparse.Namespace(**{**dict.fromkeys(MODEL_KEYS), "use_preprocessor": True, **values})
    args.imports = args.imports or []
    return args


def parse(argv: list[str] | None = None) -> argparse.Namespace:
    """ESPnet's options for the AVSR task, with ``base`` in ``--config`` and data folders."""
    from mome.tasks.avsr import AVSRTask  # who only reads configurations need not wait for PyTorch

    first = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    first.add_argument(
        "--config", type=Path, help="YAML of the training; its key base names one that it changes"
    )
    first.add_argument(
        "--import",
        dest="imports",
        action="append",
        default=[],
        help="module that registers what the model is made of; may be repeated",
    )
    config, rest = first.parse_known_args(argv)
    values: dict[str, Any] = {}
    try:
        if config.config is not None:
            values = read_config(config.config)
        values["imports"] = [*values.get("imports", []), *config.imports]
        # Before the parser lists its choices, to which these modules may add.
        import_modules(values["imports"])
    except (OSError, ValueError, ModuleNotFoundError) as error:
        first.error(str(error))
    parser = AVSRTask.get_parser()
    data_folders.add_arguments(parser)
    if values:
        known = {action.dest for action in parser._actions}
        if unknown := set(values) - known:
            parser.error(f"{config.config}: unknown keys {', '.join(sorted(unknown))}")
        parser.set_defaults(**values)
    args = parser.parse_args(rest)
    for name, value in vars(args).items():
        if name.endswith("_conf"):
            setattr(args, name, numbers(value))
    try:
        data_folders.resolve(args)
    except (OSError, ValueError) as error:
        parser.error(str(error))
    args.config = None if config.config is None else str(config.config)
    return args
