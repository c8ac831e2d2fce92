"""A trained model as one folder or file that can be given away.

A packed model is a folder, or a zip archive of one, with

  config.yaml               what it is built of; the part of ESPnet's configuration that says so
  model.safetensors         the trained tensors
  video_encoder.safetensors the lip encoder, where it was trained beside it
  mome.json                 format, frozen parts with their SHA-256, what it was trained on, its
                            table of rates, and how its confidence was calibrated
  README.md                 a model card in the format of the Hugging Face hub

Frozen parts (the LLM, Whisper, AV-HuBERT) are not in it, nor is where they lay: they are named as
their folder or as on the hub, looked for by that name in $MOME_DOWNLOADS or ./downloads and on the
hub, and checked. Nothing in it is unpickled.
"""

import argparse
import errno
import json
import shutil
import tempfile
import zipfile
import zlib
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import yaml
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from mome.common.marks import file_digest
from mome.common.precision import built_for
from mome.common.yaml_files import read_yaml
from mome.pretrained.places import download_folders

FORMAT = 1
CONFIG, WEIGHTS, LIPS, INFO, CARD = (
    "config.yaml",
    "model.safetensors",
    "video_encoder.safetensors",
    "mome.json",
    "README.md",
)
FILES = (CONFIG, WEIGHTS, LIPS, INFO, CARD)
# The keys of ESPnet's configuration that a model is built by.
KEYS = (
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
# Where a configuration names its frozen parts. What else names a file or folder is one, too.
FROZEN = (
    ("decoder_conf", "lm"),
    ("audio_encoder_conf", "model"),
    ("video_encoder_conf", "weights"),
    ("token_list",),
)
LIPS_PLACE = ("video_encoder_conf", "weights")
# How many times its size an archive may hold. Weights hardly get smaller by compression, so that
# more is no model but made to fill a disk.
MOST_COMPRESSED = 4

type Place = tuple[str | int, ...]
# Noise is for training.
TRAINING_ONLY = ("noise_scp", "noise_kinds", "noise_snrs")


class PackedModelError(ValueError):
    """A packed model that cannot be opened; the message names the file and the remedy."""


def pack(config: Path, weights: Path, output: Path, info: Mapping[str, Any], card: str) -> Path:
    """Write a packed model.

    Args:
        config: config.yaml of the training.
        weights: checkpoint of ESPnet's trainer.
        output: folder to write, or a file ending in ``.zip``.
        info: what mome.json shall say beside the format and the frozen parts.
        card: text of the model card.

    Returns:
        ``output``.

    Raises:
        FileNotFoundError: if the training has left out a file.
        FileExistsError: if the output is a folder of something else.
        OSError: if the output cannot be written.
        ValueError: for a configuration or a checkpoint that cannot be read.
    """
    check_output(output)
    values = read_yaml(config)
    kept = {key: values[key] for key in KEYS if key in values}
    for key in TRAINING_ONLY:
        (kept.get("preprocessor_conf") or {}).pop(key, None)
    output.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=output.parent, prefix=f".{output.name}.") as temporary:
        folder = Path(temporary, "packed")
        folder.mkdir()
        frozen = {}
        for place, name in parts_of(kept):
            if place == LIPS_PLACE and trained_here(Path(name), config.parent):
                shutil.copyfile(name, folder / LIPS)
                put(kept, place, LIPS)
            else:
                frozen[dotted(place)] = part = describe_part(name)
                put(kept, place, part["name"])
        save_file(read_checkpoint(weights), folder / WEIGHTS)
        (folder / CONFIG).write_text(yaml.safe_dump(kept, sort_keys=False), encoding="utf-8")
        # safetensors lets nobody else read its files, which a model that is given away is for.
        (folder / WEIGHTS).chmod((folder / CONFIG).stat().st_mode)
        own = {
            name: file_digest(folder / name)
            for name in (CONFIG, WEIGHTS, LIPS)
            if (folder / name).is_file()
        }
        described = {"format": FORMAT, "files": own, "frozen": frozen, **info}
        (folder / INFO).write_text(json.dumps(described, indent=1) + "\n", encoding="utf-8")
        (folder / CARD).write_text(card, encoding="utf-8")
        if output.suffix == ".zip":
            archive = Path(temporary, "packed.zip")
            with zipfile.ZipFile(archive, "w", zipfile.ZIP_STORED) as into:
                for path in sorted(folder.iterdir()):
                    into.write(path, path.name)
            archive.replace(output)
        else:
            if output.exists():
                output.replace(Path(temporary, "old"))
            folder.replace(output)
    return output


def check_output(output: Path) -> None:
    """See that a packed model can be written there without taking anything else away.

    Raises:
        FileExistsError: for a folder of something else, or what is no folder or file as needed.
    """
    archive = output.suffix == ".zip"
    if output.is_symlink() or (output.exists() and archive != output.is_file()):
        raise FileExistsError(f"{output} is there and no packed model; name a new one")
    others = {path.name for path in output.iterdir()} - set(FILES) if output.is_dir() else set()
    if others or (output.is_dir() and not (output / INFO).is_file() and any(output.iterdir())):
        raise FileExistsError(f"{output} holds other files than a packed model; name a new folder")


def namespace(values: Mapping[str, Any]) -> argparse.Namespace:
    """A configuration as :func:`mome.tasks.build.build_model` takes it."""
    args = argparse.Namespace(**{**dict.fromkeys(KEYS), "use_preprocessor": True, **values})
    args.imports = args.imports or []
    return args


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
    return list(dict.fromkeys(Path(name).expanduser().parent for _, name in parts_of(values)))


def read_checkpoint(weights: Path) -> dict[str, torch.Tensor]:
    """The tensors of a checkpoint of ESPnet's trainer, by name.

    Raises:
        FileNotFoundError: if it does not exist.
        ValueError: for a file that holds something else, or was cut off.
    """
    try:
        state = torch.load(weights, map_location="cpu", weights_only=True)
        return {name: tensor.contiguous() for name, tensor in state.items()}
    except FileNotFoundError:
        raise
    except Exception as error:  # of a damaged file PyTorch raises almost anything
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ValueError(f"{weights} is no checkpoint ({reason}); name one by --weights") from None


def trained_here(path: Path, model: Path) -> bool:
    """Whether weights are those of a lip encoder that was trained beside the model.

    Stage 4 marks what it has exported. Whatever else is named came from somewhere else and has a
    licence of its own.
    """
    exported = (path.parent / ".exported.done").is_file()
    return path.is_file() and exported and model.resolve().parent in path.resolve().parents


def describe_part(name: str) -> dict[str, Any]:
    """A frozen part: its name and the SHA-256 of its weights (of none if it is not at hand).

    A model that is given away does not tell where parts lay on the machine that packed it, nor
    would that help anybody: of a path the last name is kept.
    """
    path = Path(name).expanduser()
    kept = name if is_hub_name(name) and not path.exists() else path.name
    return {"name": kept, "sha256": digests(path)}


def is_hub_name(name: str) -> bool:
    """Whether a part is named as on the hub, ``owner/model``."""
    return name.count("/") == 1 and not name.startswith((".", "/", "~"))


def digests(path: Path) -> dict[str, str]:
    """Name -> SHA-256 of the files with weights of a model's folder, or of one file."""
    files = [path] if path.is_file() else sorted(path.glob("*.safetensors"))
    return {file.name: file_digest(file) for file in files}


@contextmanager
def opened(path: Path) -> Iterator[Path]:
    """The folder of a packed model; an archive is unpacked into one that vanishes again.

    Of an archive the files of a packed model are unpacked and no others, whatever their names, and
    no more of them than such an archive can hold.

    Raises:
        FileNotFoundError: if there is no such model.
        PackedModelError: for another kind of file.
    """
    if path.is_dir():
        if not (path / INFO).is_file():
            raise PackedModelError(
                f"{path} is no packed model: it has no {INFO}. mome-pack makes one of a training's "
                f"folder"
            )
        yield path
        return
    if not path.is_file():
        raise FileNotFoundError(
            f"{path} does not exist; name a packed model, as mome-pack makes it"
        )
    with tempfile.TemporaryDirectory(prefix="mome-") as temporary:
        try:
            with zipfile.ZipFile(path) as archive:
                names = set(FILES) & set(archive.namelist())
                held = sum(archive.getinfo(name).file_size for name in names)
                if held > MOST_COMPRESSED * path.stat().st_size:
                    raise PackedModelError(
                        f"{path} would unpack to {held} bytes, which no model does that is packed "
                        f"in {path.stat().st_size}; get it anew from whoever made it"
                    )
                for name in names:
                    with archive.open(name) as source, open(Path(temporary, name), "wb") as target:
                        shutil.copyfileobj(source, target)
        except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError, OSError) as error:
            # An offset before the file's beginning is an OSError, and so is a full disk.
            if isinstance(error, OSError) and error.errno != errno.EINVAL:
                raise
            raise PackedModelError(f"{path} is no packed model ({error}); copy it again") from None
        if not Path(temporary, INFO).is_file():
            raise PackedModelError(f"{path} is no packed model: it has no {INFO}")
        yield Path(temporary)


def read_info(folder: Path, name: Path) -> dict[str, Any]:
    """mome.json of a packed model, its files checked.

    Raises:
        PackedModelError: if it is of a newer format, or a file was changed or is missing.
    """
    try:
        info = json.loads((folder / INFO).read_text(encoding="utf-8"))
        version, files = int(info["format"]), dict(info["files"])
    except (ValueError, KeyError, TypeError) as error:
        raise PackedModelError(f"{name}: {INFO} cannot be read ({error}); copy it again") from None
    if version > FORMAT:
        raise PackedModelError(
            f"{name} was packed by a newer version of mome (format {version}, this one reads "
            f"{FORMAT}): install a newer one"
        )
    try:
        for part in dict(info["frozen"]).values():
            str(part["name"]), dict(part["sha256"])
    except (ValueError, KeyError, TypeError) as error:
        raise PackedModelError(f"{name}: {INFO} cannot be read ({error}); copy it again") from None
    if missing := {CONFIG, WEIGHTS} - set(files):
        raise PackedModelError(f"{name}: {INFO} does not list {', '.join(sorted(missing))}")
    for file, digest in files.items():
        if file not in FILES or not (folder / file).is_file():
            raise PackedModelError(f"{name}: {file} is missing; copy it again")
        if file_digest(folder / file) != digest:
            raise PackedModelError(f"{name}: {file} is not what was packed; copy it again")
    return info


def find_part(part: Mapping[str, Any], name: Path, downloads: Collection[str | Path] = ()) -> str:
    """Where a frozen part is on this machine; a hub name is returned as it is if it is nowhere.

    A part whose weights were not at hand as safetensors when the model was packed is not checked.

    Args:
        part: its name and the SHA-256 of its files, as mome.json has them.
        name: of the packed model, for errors.
        downloads: folders to look in before ``$MOME_DOWNLOADS`` and ``./downloads``.

    Raises:
        PackedModelError: if it is missing or another one than the model was trained with.
    """
    given = str(part["name"])
    base = Path(given).name  # earlier versions wrote the path on the machine that packed it
    places = [folder / base for folder in download_folders(downloads)]
    others = []
    for place in places:
        if not place.exists():
            continue
        if not part["sha256"] or digests(place) == part["sha256"]:
            return str(place)
        others.append(place)
    if others:
        raise PackedModelError(
            f"{name} was trained with another {base} than {' and '.join(map(str, others))}: the "
            f"weights differ; name the folder that holds the right one in MOME_DOWNLOADS"
        )
    if is_hub_name(given):
        return given
    raise PackedModelError(
        f"{name} needs {base}, and there is no {' nor '.join(str(p) for p in places)}: put it "
        f"into ./downloads or name the folder that holds it in MOME_DOWNLOADS (the parts of the "
        f"recipes come by `mome-fetch-models --downloads <folder>`)"
    )


def load_packed(
    path: str | Path,
    device: str = "cpu",
    imports: Collection[str] = (),
    downloads: Collection[str | Path] = (),
) -> tuple[Any, argparse.Namespace, dict]:
    """Build a packed model.

    Args:
        path: folder or archive.
        device: ``cpu`` or ``cuda``.
        imports: modules that the model may import. A packed model runs nobody's code unasked.
        downloads: folders with frozen parts, see :func:`find_part`.

    Returns:
        the model in evaluation mode, its configuration, and what mome.json says.

    Raises:
        FileNotFoundError, PackedModelError: as :func:`opened`, :func:`read_info` and
            :func:`find_part`; if the model imports other modules, has options that this version
            does not know, or tensors do not fit.
        OSError: if a part of the hub cannot be had; see :func:`mome.pretrained.hub.load`.
    """
    # Looking into a packed model needs neither Transformers nor the encoders.
    from mome.tasks.build import build_model

    path = Path(path)
    with opened(path) as folder:
        info = read_info(folder, path)
        try:
            values = read_yaml(folder / CONFIG)
        except ValueError as error:
            raise PackedModelError(f"{path}: {CONFIG} cannot be read ({error})") from None
        places = {dotted(place): place for place, _ in texts(values)}
        for place, part in info["frozen"].items():
            if place not in places:
                raise PackedModelError(f"{path}: {CONFIG} has no {place}, which {INFO} names")
            put(values, places[place], find_part(part, path, downloads))
        lips = values.get("video_encoder_conf") or {}
        if lips.get("weights") == LIPS:
            lips["weights"] = str(folder / LIPS)
        args = namespace(values)
        if unknown := [module for module in args.imports if module not in imports]:
            raise PackedModelError(
                f"{path} is made of modules that its author wrote: {', '.join(unknown)}; read them "
                f"and allow it by --import for each"
            )
        try:
            with built_for(device):
                model = build_model(args)
        except TypeError as error:
            # What a class says of an argument that it does not have.
            raise PackedModelError(
                f"{path}: this version of mome cannot build it ({error}); install the one that "
                f"packed it, or a newer one"
            ) from None
        try:
            model.load_state_dict(load_file(folder / WEIGHTS))
        except (SafetensorError, RuntimeError) as error:
            raise PackedModelError(f"{path}: {WEIGHTS} does not fit ({error})") from None
    model.to(device).eval()
    adapter = model.decoder.adapter
    if adapter is not None:
        adapter.for_inference(model.decoder.lm.inner.dtype)
    return model, args, info
