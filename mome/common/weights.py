"""Load weights from safetensors files, with errors that name the file."""

from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn


def load_weights(module: nn.Module, path: str | Path) -> None:
    """Give a module the tensors of a safetensors file.

    Raises:
        FileNotFoundError: if the file does not exist.
        ValueError: for a damaged file, or tensors that the module does not have.
    """
    try:
        module.load_state_dict(load_file(path))
    except SafetensorError as error:
        raise ValueError(f"{path} is damaged ({error}); copy it again") from None
    except RuntimeError as error:
        reason = " ".join(str(error).split())
        raise ValueError(f"{path} does not fit the model's sizes ({reason})") from None
