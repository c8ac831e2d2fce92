"""Modules of a user's that register adapters, gates, routers or encoders: ``--import my_module``.

Training keeps their names in the model's config.yaml, so that whatever builds the model again
(decoding, counting parameters) imports them too.
"""

import importlib
import os
import sys
from collections.abc import Iterable


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
