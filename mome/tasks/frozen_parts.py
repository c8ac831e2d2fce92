"""The frozen parts of a model: which a configuration names, what they hold, and where they lie.

A packed model does not say where they lay: it names them as their folder, or as on the hub with the
revision that was packed with. They are looked for by that name in $MOME_DOWNLOADS or ./downloads,
then at that revision in the hub's cache and on the hub, and their weights, tokenizer and
configuration are checked.
"""

import hashlib
import json
import logging
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

from huggingface_hub import hf_hub_download, try_to_load_from_cache
from huggingface_hub.errors import EntryNotFoundError, RevisionNotFoundError

from mome.common.marks import file_digest
from mome.common.yaml_files import read_yaml
from mome.pretrained.places import avhubert_remedy, download_folders, is_hub_name, lies_on_hub

# Where a configuration names its frozen parts. What else names a file or folder is one, too.
FROZEN = (
    ("decoder_conf", "lm"),
    ("audio_encoder_conf", "model"),
    ("video_encoder_conf", "weights"),
    ("token_list",),
)
# What of a Transformers model's folder decides what the model computes, beside its weights.
SETTINGS = (
    "config.json",
    "tokenizer*",
    "vocab*",
    "merges.txt",
    "special_tokens_map.json",
    "added_tokens.json",
    "*.model",
)
# Configurations, and what in them tells of the program and the folder that wrote them.
CONFIGURATIONS = ("config.json", "tokenizer_config.json")
WRITER = (
    "transformers_version",
    "_name_or_path",
    "name_or_path",
    "is_local",
    "local_files_only",
)
WEIGHTS = "model.safetensors"  # of a Transformers model

type Place = tuple[str | int, ...]


class PackedModelError(ValueError):
    """A packed model that cannot be opened; the message names the file and the remedy."""


def texts(values: Any, place: Place = ()) -> Iterator[tuple[Place, str]]:
    """Every text in a configuration, and where it stands: keys, and numbers in lists."""
    if isinstance(values, str):
        yield place, values
    items: Any = ()
    if isinstance(values, Mapping):
        items = values.items()
    elif isinstance(values, list):
        items = enumerate(values)
    for key, value in items:
        yield from texts(value, (*place, key))


def dotted(place: Place) -> str:
    """A place as mome.json writes it, such as ``decoder_conf.lm``."""
    return ".".join(map(str, place))


def put(values: Any, place: Place, text: str) -> None:
    """Set the text at a place of a configuration."""
    for key in place[:-1]:
        values = values[key]
    values[place[-1]] = text


def parts_of(values: Mapping[str, Any]) -> list[tuple[Place, str]]:
    """The frozen parts that a configuration names, and where: LLM, encoders, and any path."""
    return [
        (place, text)
        for place, text in texts(values)
        if place in FROZEN or text.startswith(("/", "~/", "./", "../"))
    ]


def folders_of(config: Path) -> list[Path]:
    """The folders in which the frozen parts of a training lie on this machine."""
    values = read_yaml(config)
    parts = (known_by(Path(name).expanduser()) for _, name in parts_of(values))
    return list(dict.fromkeys(part.parent for part in parts))


def known_by(path: Path) -> Path:
    """The folder of a model's weights, as their file has the same name in all; other paths as they
    are."""
    if path.name == WEIGHTS and path.is_file() and path.with_name("config.json").is_file():
        return path.absolute().parent
    return path


def describe_part(name: str) -> dict[str, Any]:
    """A frozen part: its ``name`` and the ``sha256`` of its files (of none if it is not at hand).

    A model that is given away does not tell where parts lay on the machine that packed it, nor
    would that help anybody: of a path the last name is kept. Of a file in a model's folder that is
    the folder's, and ``file`` its own. Of a name of the hub there is the ``revision`` as well that
    lies in the hub's cache on this machine.
    """
    path = Path(name).expanduser()
    if (folder := known_by(path)) != path:
        return {"name": folder.name, "file": path.name, "sha256": digests(folder)}
    if path.exists() or not is_hub_name(name):
        return {"name": path.name, "sha256": digests(path)}
    cached = try_to_load_from_cache(name, "config.json")
    if not isinstance(cached, str):
        return {"name": name, "sha256": {}}
    snapshot = Path(cached).parent
    return {"name": name, "revision": snapshot.name, "sha256": digests(snapshot)}


def digests(path: Path) -> dict[str, str]:
    """Name -> SHA-256 of the files that decide what a model's folder computes, or of one file.

    Those are weights, with their index, tokenizer and configuration; see :func:`part_digest`.
    """
    if path.is_file():
        return {path.name: file_digest(path)}
    weights = [*path.glob("*.safetensors*")] or [*path.glob("pytorch_model*.bin*")]
    settings = [file for pattern in SETTINGS for file in path.glob(pattern)]
    files = sorted({*weights, *settings})
    return {file.name: part_digest(file) for file in files if file.is_file()}


def part_digest(path: Path) -> str:
    """SHA-256 of a file of a frozen part; of a configuration's values, without who wrote it.

    A part that two machines convert from the same source differs in nothing but that.
    """
    if path.name not in CONFIGURATIONS:
        return file_digest(path)
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        kept = {key: value for key, value in values.items() if key not in WRITER}
    except (ValueError, AttributeError):
        return file_digest(path)  # whatever it is, it is another file than one that can be read
    return hashlib.sha256(json.dumps(kept, sort_keys=True).encode()).hexdigest()


def differing(path: Path, recorded: Mapping[str, str]) -> list[str]:
    """The files of a frozen part that are others than recorded, or missing."""
    found = digests(path)
    return [file for file, digest in recorded.items() if found.get(file) != digest]


def find_part(part: Mapping[str, Any], name: Path, downloads: Collection[str | Path] = ()) -> str:
    """The folder or file of a frozen part on this machine.

    A part of the hub that is in none of the folders is taken from the hub's cache, or downloaded
    into it, at the revision that the model was packed with. Models that earlier versions packed do
    not name one: then it is the hub's name, and what is loaded by that is not checked.

    Args:
        part: as `describe_part` gives it and mome.json has it. Files that are not recorded are not
            compared.
        name: of the packed model, for errors.
        downloads: folders to look in before ``$MOME_DOWNLOADS`` and ``./downloads``.

    Raises:
        PackedModelError: if it is missing or another one than the model was trained with.
        OSError: if it cannot be had from the hub; says what to do.
    """
    given = str(part["name"])
    base = Path(given).name  # earlier versions wrote the path on the machine that packed it
    places = [folder / base for folder in download_folders(downloads)]
    others = []
    for place in places:
        if not place.exists():
            continue
        wrong = differing(place, part["sha256"])
        if not wrong:
            return str(place / part.get("file", ""))
        others.append(f"{place} ({', '.join(wrong)})")
    if lies_on_hub(part):
        return find_on_hub(part, name)
    if others:
        raise PackedModelError(
            f"{name} was trained with another {base} than {' and '.join(others)}: the files in "
            f"brackets differ; name the folder that holds the right one in MOME_DOWNLOADS"
        )
    remedy = "(the parts of the recipes come by `mome-fetch-models --downloads <folder>`)"
    if "avhubert" in base.lower():
        remedy = f"({avhubert_remedy(f'downloads/{base}')})"
    raise PackedModelError(
        f"{name} needs {base}, and there is no {' nor '.join(str(p) for p in places)}: put it "
        f"into ./downloads or name the folder that holds it in MOME_DOWNLOADS {remedy}"
    )


def find_on_hub(part: Mapping[str, Any], name: Path) -> str:
    """A part in the hub's cache, downloaded if need be and checked; arguments and errors as of
    :func:`find_part`."""
    given, revision = part["name"], part.get("revision")
    if not (revision and part["sha256"]):
        logging.warning(
            "%s does not say which revision of %s it was packed with: what the hub has now is "
            "taken, and not checked. Models that are packed again say it",
            *(name, given),
        )
        return given
    # Transformers takes a second to load, which looking into a packed model need not wait for.
    from mome.pretrained.hub import explain

    try:
        files = [hf_hub_download(given, file, revision=revision) for file in part["sha256"]]
    except Exception as error:
        if (explained := explain(given, error)) is not None:
            raise type(explained)(f"{name} needs revision {revision} of it: {explained}") from error
        if isinstance(error, RevisionNotFoundError | EntryNotFoundError):
            raise PackedModelError(
                f"{name} needs revision {revision} of {given}, which the hub has no longer: "
                f"whoever packed the model has it in a cache; put it into "
                f"./downloads/{Path(given).name}"
            ) from error
        raise
    snapshot = Path(files[0]).parent
    if wrong := differing(snapshot, part["sha256"]):
        raise PackedModelError(
            f"{name} was trained with another {given} than {snapshot}: {', '.join(wrong)} differ; "
            f"delete {snapshot.parents[1]}, so that it is downloaded again"
        )
    return str(snapshot)
