"""What a training leaves: its files, and the tensors of its checkpoints."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from mome.common.memory import lacks_memory_for

if TYPE_CHECKING:
    import torch


def check_trained(*paths: str | Path) -> None:
    """See that the files of a training are there.

    Raises:
        FileNotFoundError: if one is missing; the message names the weights that are there.
    """
    for path in map(Path, paths):
        if path.exists():
            continue
        others = sorted(each.name for each in path.parent.glob("valid.*.pth"))
        if path.suffix == ".pth" and others:
            raise FileNotFoundError(
                f"{path} does not exist; there are {', '.join(others)}: name one of them, or let "
                "best_model_criterion of the training's configuration keep what you want"
            )
        raise FileNotFoundError(f"{path} does not exist; train the model first (stage 4)")


def read_checkpoint(weights: Path) -> dict[str, torch.Tensor]:
    """The tensors of a checkpoint of ESPnet's trainer, by name.

    Raises:
        FileNotFoundError: if it does not exist.
        ValueError: for a file that holds something else, or was cut off.
    """
    import torch  # here, as whoever looks for a training's files does not wait for it

    try:
        state = torch.load(weights, map_location="cpu", weights_only=True)
        return {name: tensor.contiguous() for name, tensor in state.items()}
    except FileNotFoundError:
        raise
    except Exception as error:  # of a damaged file PyTorch raises almost anything
        if lacks_memory_for(error, weights):
            raise
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ValueError(f"{weights} is no checkpoint ({reason}); name one by --weights") from None
