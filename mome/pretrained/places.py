"""Where pretrained models lie on this machine."""

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

# What the folders that mome-fetch-models makes are called on the hub.
HUB_NAMES = {
    "smollm2-135m-instruct": "HuggingFaceTB/SmolLM2-135M-Instruct",
    "whisper-tiny.en": "openai/whisper-tiny.en",
}
# What the weights with these SHA-256, which mome-fetch-models writes, were converted from.
CONVERTED_FROM = {
    "7ef915c9bf9d94d8d70211970476878352a5b95855c589ae987916d7a455242b": (
        "from a 4-bit GGUF copy (Q4_1) converted to bfloat16, so not identical to the hub's"
    ),
    "27e6cbbc03132b9e95bc2ff4fe1a8c4ccb207f77998cc7567a3945b626b733f7": (
        "from a CTranslate2 copy in float16, which was not compared with the hub's"
    ),
}


def is_hub_name(name: str) -> bool:
    """Whether a model that is no file or folder is named as on the hub: ``owner/model``, or
    ``gpt2`` and others without an owner."""
    return name.count("/") <= 1 and not name.startswith((".", "/", "~"))


def lies_on_hub(part: Mapping[str, Any]) -> bool:
    """Whether a frozen part, as a packed model describes it, is one of the hub.

    A name without an owner is that of a folder, unless a revision says that it is not.
    """
    return is_hub_name(part["name"]) and ("/" in part["name"] or "revision" in part)


def avhubert_remedy(folder: str | Path) -> str:
    """How to get AV-HuBERT's weights, which have a licence of their own, into a folder."""
    return (
        f"Get a checkpoint from its authors (https://facebookresearch.github.io/av_hubert) and"
        f" convert it: mome-convert-avhubert --checkpoint large_vox_iter5.pt --output {folder}"
    )


def download_folders(first: Iterable[str | Path] = ()) -> list[Path]:
    """Folders to look in, in this order: those given, ``$MOME_DOWNLOADS``, ``./downloads``."""
    named = os.environ.get("MOME_DOWNLOADS")
    return [Path(folder) for folder in (*first, *([named] if named else []), "downloads")]


def find_download(name: str, first: Iterable[str | Path] = ()) -> Path:
    """A file or folder in :func:`download_folders`: the first that is there, or else the place to
    put it."""
    places = [folder / name for folder in download_folders(first)]
    return next((place for place in places if place.exists()), places[0])
