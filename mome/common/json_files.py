"""Read JSON files; what is wrong with one is said in a line."""

import json
from pathlib import Path
from typing import Any

from mome.common.text_files import read_text


def read_json(path: str | Path, remedy: str = "get it anew") -> dict[str, Any]:
    """The keys and values of a JSON file.

    Raises:
        FileNotFoundError: if the file does not exist.
        ValueError: for what is no JSON, or no object with keys; names the file and the remedy.
    """
    text = read_text(path)
    try:
        values = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} cannot be read (no JSON: {error}); {remedy}") from None
    if not isinstance(values, dict):
        raise ValueError(f"{path} cannot be read (no JSON with keys and values); {remedy}")
    return values
