"""Read YAML files; what is wrong with one is said in a line."""

from pathlib import Path
from typing import Any

import yaml

from mome.common.text_files import read_text


def read_yaml(path: str | Path) -> dict[str, Any]:
    """The keys and values of a YAML file.

    Raises:
        FileNotFoundError: if the file does not exist.
        ValueError: for what is no YAML, with the file and the line, or holds no ``key: value``.
    """
    try:
        values = yaml.safe_load(read_text(path))
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = f"{path}, line {mark.line + 1}" if mark else str(path)
        raise ValueError(
            f"{place}: {error.problem or error.context}; fix the YAML there or in the line before"
        ) from None
    except (yaml.YAMLError, ValueError, TypeError, RecursionError) as error:
        if str(path) in str(error):  # of another encoding
            raise
        # Characters that YAML forbids, a date that there is not, what is nested too deep.
        reason = " ".join(str(error).split()) or type(error).__name__
        raise ValueError(f"{path}: {reason}; fix the YAML") from None
    if not isinstance(values, dict):
        raise ValueError(f"{path} is no configuration: it holds no `key: value`")
    return values
