"""The warm start of a model: its projectors come from a checkpoint, every one of them."""

from collections.abc import Sequence

import torch
from torch import nn


def check_warm_start(model: nn.Module, init_param: Sequence[str]) -> None:
    """See that ESPnet's ``--init_param`` gives every projector of a model, if it gives any.

    ESPnet's ``--ignore_init_mismatch`` is needed where a checkpoint holds more than a model, such
    as the projectors of both modalities for a model of one. It would also leave a projector that is
    missing, or of another shape, to chance.

    Args:
        model: the model before it is initialised.
        init_param: ``<file>[:<key in the file>[:<part of the model>[:<left out>]]]`` each; only
            those that name a whole file are looked at.

    Raises:
        ValueError: for projectors that no file has in their shape; names them.
    """
    files = [name for name in init_param if ":" not in name]
    shapes: dict[str, torch.Size] = {}
    for file in files:
        state = torch.load(file, map_location="cpu", weights_only=True, mmap=True)
        shapes |= {name: tensor.shape for name, tensor in state.get("module", state).items()}
    if not any(name.startswith("projectors.") for name in shapes):
        return
    wanted = {
        name: tensor.shape
        for name, tensor in model.state_dict().items()
        if name.startswith("projectors.")
    }
    if missing := sorted({n.split(".")[1] for n in wanted if shapes.get(n) != wanted[n]}):
        raise ValueError(
            f"{', '.join(files)} lacks projectors of the model, or has them in another shape:"
            f" {', '.join(missing)}; make the warm start with the same rates, tasks and LLM"
        )
