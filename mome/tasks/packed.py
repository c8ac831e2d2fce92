"""A trained model as one folder or file that can be given away.

A packed model is a folder, or a zip archive of one, with

  config.yaml               what it is built of; the part of ESPnet's configuration that says so
  model.safetensors         the trained tensors
  video_encoder.safetensors the lip encoder, where it was trained beside it
  mome.json                 format and versions, frozen parts with their SHA-256, what it was
                            trained on and what cut the lips of that, its table of rates, and how
                            its confidence was calibrated
  README.md                 a model card in the format of the Hugging Face hub

Frozen parts (the LLM, Whisper, AV-HuBERT) are not in it: they are named, looked for where it is
opened, and checked; see :mod:`mome.tasks.frozen_parts`. Nothing in it is unpickled.
"""

import argparse
import errno
import json
import shutil
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import yaml
from safetensors import SafetensorError

from mome.common.atomic_files import replacing, write_bytes
from mome.common.extras import EXTRAS
from mome.common.marks import file_digest
from mome.common.memory import WHERE_LOADED, lacks_memory, naming_work
from mome.common.yaml_files import read_yaml
from mome.tasks.checkpoint import read_checkpoint
from mome.tasks.config import MODEL_KEYS, namespace
from mome.tasks.frozen_parts import (
    PackedModelError,
    describe_part,
    dotted,
    find_part,
    parts_of,
    put,
    texts,
)

# 1 had SHA-256 of nothing but the weights of parts in folders, and not what cut the lips.
FORMAT = 2
CONFIG, WEIGHTS, LIPS, INFO, CARD = (
    "config.yaml",
    "model.safetensors",
    "video_encoder.safetensors",
    "mome.json",
    "README.md",
)
FILES = (CONFIG, WEIGHTS, LIPS, INFO, CARD)
# How an archive's files are compressed; Python's zipfile knows more, each with errors of its own.
COMPRESSIONS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
# What is raised of a damaged archive; of names that are no UTF-8 it is a UnicodeDecodeError.
DAMAGED = (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError, UnicodeDecodeError)
LIPS_PLACE = ("video_encoder_conf", "weights")
# How many times its size an archive may hold. Weights hardly get smaller by compression, so that
# more is no model but made to fill a disk.
MOST_COMPRESSED = 4
# Noise is for training.
TRAINING_ONLY = ("noise_scp", "noise_kinds", "noise_snrs")


def pack(config: Path, weights: Path, output: Path, info: Mapping[str, Any], card: str) -> Path:
    """Write a packed model.

    Args:
        config: config.yaml of the training.
        weights: checkpoint of ESPnet's trainer.
        output: folder to write, or a file ending in ``.zip``.
        info: what mome.json shall say beside the format and the frozen parts; these, if they are
            described already, as ``frozen``.
        card: text of the model card.

    Returns:
        ``output``.

    Raises:
        FileNotFoundError: if the training has left out a file.
        FileExistsError: if the output is a folder of something else.
        OSError: if the output cannot be written.
        ValueError: for a configuration or a checkpoint that cannot be read.
    """
    # Whoever looks into a packed model, or renews its card, does not wait for PyTorch.
    from safetensors.torch import save_file

    check_output(output)
    values = read_yaml(config)
    kept = {key: values[key] for key in MODEL_KEYS if key in values}
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
                known = info.get("frozen", {}).get(dotted(place))
                frozen[dotted(place)] = part = known or describe_part(name)
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
        described = {
            **info,
            "format": FORMAT,
            "versions": versions(),
            "files": own,
            "frozen": frozen,
        }
        (folder / INFO).write_text(json.dumps(described, indent=1) + "\n", encoding="utf-8")
        (folder / CARD).write_text(card, encoding="utf-8")
        if output.suffix == ".zip":
            write_archive(folder, output)
        else:
            if output.exists():
                output.replace(Path(temporary, "old"))
            folder.replace(output)
    return output


def write_archive(folder: Path, output: Path) -> None:
    """Write a packed model's folder as an archive, which replaces one that is there."""
    with replacing(output) as partial, zipfile.ZipFile(partial, "w", zipfile.ZIP_STORED) as into:
        for path in sorted(folder.iterdir()):
            into.write(path, path.name)


def renew(path: Path, change: Callable[[dict[str, Any]], str | None]) -> bool:
    """Change what a packed model says of itself, and its card; the model stays as it is.

    Args:
        path: folder or archive.
        change: gets what mome.json says, changes it, and gives the text of the card; None if
            all shall stay as it is.

    Returns:
        whether anything is new.

    Raises:
        FileNotFoundError, PackedModelError: as :func:`opened` and :func:`read_info`.
        OSError: if it cannot be written.
    """
    with opened(path) as folder:
        info = read_info(folder, path)
        texts_before = {
            name: (folder / name).read_text(encoding="utf-8") if (folder / name).is_file() else ""
            for name in (CARD, INFO)
        }
        card = change(info)
        if card is None:
            return False
        # mome.json comes last: a killed run leaves what the next one finds to be renewed.
        told = {CARD: card, INFO: json.dumps(info, indent=1) + "\n"}
        if told == texts_before:
            return False
        for name, text in told.items():
            write_bytes(folder / name, text.encode())
        if path.is_file():
            write_archive(folder, path)
    return True


def versions() -> dict[str, str]:
    """Versions of the packages that pack a model; a checkout that is not installed has none."""
    found = {}
    for name in ("mome", "torch", "transformers"):
        with suppress(PackageNotFoundError):
            found[name] = version(name)
    return found


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


def trained_here(path: Path, model: Path) -> bool:
    """Whether weights are those of a lip encoder that was trained beside the model.

    Stage 4 marks what it has exported. Whatever else is named came from somewhere else and has a
    licence of its own.
    """
    exported = (path.parent / ".exported.done").is_file()
    expdir = model.resolve().parent
    # Trainings that are compared lie deeper, in <expdir>/experiments/<name>/<training>.
    if expdir.parent.name == "experiments":
        expdir = expdir.parents[1]
    return path.is_file() and exported and expdir in path.resolve().parents


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
                if any(archive.getinfo(name).compress_type not in COMPRESSIONS for name in names):
                    raise PackedModelError(
                        f"{path} is damaged, or compressed otherwise than mome-pack and zip do it: "
                        f"get it anew, or unpack it and zip it again"
                    )
                held = sum(archive.getinfo(name).file_size for name in names)
                if held > MOST_COMPRESSED * path.stat().st_size:
                    raise PackedModelError(
                        f"{path} would unpack to {held} bytes, which no model does that is packed "
                        f"in {path.stat().st_size}; get it anew from whoever made it"
                    )
                for name in names:
                    with archive.open(name) as source, open(Path(temporary, name), "wb") as target:
                        shutil.copyfileobj(source, target)
        except (*DAMAGED, OSError) as error:
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
        number, files = int(info["format"]), dict(info["files"])
    except (ValueError, KeyError, TypeError) as error:
        raise PackedModelError(f"{name}: {INFO} cannot be read ({error}); copy it again") from None
    if number > FORMAT:
        raise PackedModelError(
            f"{name} was packed by a newer version of mome (format {number}, this one reads "
            f"{FORMAT}): install a newer one"
        )
    try:
        for part in dict(info["frozen"]).values():
            str(part["name"]), str(part.get("revision"))
            named = [*dict(part["sha256"]), *([part["file"]] if "file" in part else [])]
            if names := [file for file in named if Path(file).name != file]:
                raise ValueError(f"{names[0]!r} is no name of a file")
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise PackedModelError(f"{name}: {INFO} cannot be read ({error}); copy it again") from None
    if missing := {CONFIG, WEIGHTS} - set(files):
        raise PackedModelError(f"{name}: {INFO} does not list {', '.join(sorted(missing))}")
    for file, digest in files.items():
        if file not in FILES or not (folder / file).is_file():
            raise PackedModelError(f"{name}: {file} is missing; copy it again")
        if file_digest(folder / file) != digest:
            raise PackedModelError(f"{name}: {file} is not what was packed; copy it again")
    return info


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
            does not know, or a part that is ESPnet's where that is missing, or tensors do not fit.
        OSError: if a part of the hub cannot be had; see :func:`mome.pretrained.hub.load`.
        OutOfMemory: if that of the GPU or the machine does not suffice.
    """
    path = Path(path)
    with naming_work(lambda: f"{path} was loaded", WHERE_LOADED), opened(path) as folder:
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
        # What is missing is said before these, which take seconds to load.
        from safetensors.torch import load_file

        from mome.common.precision import built_for
        from mome.tasks.build import build_model

        try:
            with built_for(device):
                model = build_model(args)
        except TypeError as error:
            # What a class says of an argument that it does not have.
            packed_by = ", ".join(f"{name} {v}" for name, v in info.get("versions", {}).items())
            raise PackedModelError(
                f"{path}: this version of mome cannot build it ({error}); install the one that "
                f"packed it{f' ({packed_by})' if packed_by else ''}, or a newer one"
            ) from None
        except ModuleNotFoundError as error:
            if error.name not in EXTRAS:
                raise
            raise PackedModelError(f"{path} cannot be built here: {error}") from None
        try:
            model.load_state_dict(load_file(folder / WEIGHTS))
        except (SafetensorError, RuntimeError) as error:
            if lacks_memory(error):
                raise
            raise PackedModelError(f"{path}: {WEIGHTS} does not fit ({error})") from None
        model.to(device).eval()
        adapter = model.decoder.adapter
        if adapter is not None:
            adapter.for_inference(model.decoder.lm.inner.dtype)
    return model, args, info
