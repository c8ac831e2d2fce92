"""Modules of a user's that register adapters, gates, routers or encoders: ``--import my_module``.

Training keeps their names in the model's config.yaml, so that whatever builds the model again
(decoding, counting parameters) imports them too.
"""

import importlib
import os
import sys
from collections.abc import Iterable
from importlib.machinery import PathFinder
from pathlib import Path

from mome.common.marks import code_digest, digest_of


def import_modules(names: Iterable[str]) -> None:
    """Import modules by name, from the present folder or wherever Python finds them.

    Raises:
        ModuleNotFoundError: naming the module and what to do, if it does not exist. What fails
            inside a module is raised as it is.
    """
    if os.getcwd() not in sys.path:  # `python -m` looks there, an installed command does not
        sys.path.append(os.getcwd())
    for name in names:
        try:
            importlib.import_module(name)
        except ModuleNotFoundError as error:
            if error.name is None or not f"{name}.".startswith(f"{error.name}."):
                raise
            raise ModuleNotFoundError(
                f"--import {name}: there is no such module. Name it as Python imports it "
                f"(my_module for my_module.py) and put its folder on PYTHONPATH",
                name=error.name,
            ) from None


def module_digests(names: Iterable[str]) -> dict[str, str]:
    """What modules hold, without running them: name -> a SHA-256.

    Of a package all Python files below it count. What a module imports in turn does not. Of a
    module that is not found, or that is no file, it is ``absent``.
    """
    return {name: _digest(_files_of(name)) for name in sorted(set(names))}


def _files_of(name: str) -> list[Path]:
    places = [*sys.path, os.getcwd()]
    spec = None
    for part in name.split("."):
        # Unlike `importlib.util.find_spec`, this imports no package that the module is in.
        spec = PathFinder.find_spec(part, places)
        if spec is None:
            return []
        places = list(spec.submodule_search_locations or [])
    if places:
        found = sorted(path for place in places for path in Path(place).rglob("*.py"))
    else:
        found = [Path(spec.origin)] if spec and spec.origin else []
    # An editor's lock is a link to nothing, and a module in an archive no file of its own.
    return [path for path in found if path.is_file()]


def _digest(files: list[Path]) -> str:
    # By place too: folders of a package may have files of the same name.
    parts = {f"{place} {file.name}": code_digest(file) for place, file in enumerate(files)}
    return digest_of(parts) if parts else "absent"
