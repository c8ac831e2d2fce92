"""Load weights from safetensors files, with errors that name the file."""

from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn

from mome.common.memory import lacks_memory


def load_weights(module: nn.Module, path: str | Path) -> None:
    """Give a module the tensors of a safetensors file.

    Raises:
        FileNotFoundError: if the file does not exist.
        ValueError: for a damaged file, or tensors that the module does not have.
    """
    try:
        module.load_state_dict(load_file(path))
    except (SafetensorError, RuntimeError) as error:
        if lacks_memory(error):
            raise
        if isinstance(error, SafetensorError):
            raise ValueError(f"{path} is damaged ({error}); copy it again") from None
        reason = " ".join(str(error).split())
        raise ValueError(f"{path} does not fit the model's sizes ({reason})") from None
