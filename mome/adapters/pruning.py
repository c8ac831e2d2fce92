"""Taking experts that a trained model hardly selects out of it, layer by layer."""

from collections.abc import Mapping

import numpy as np
import torch

from mome.adapters.experts import MoME


def most_asked(shares: np.ndarray, keep: int) -> np.ndarray:
    """The experts of each layer that most tokens are sent to.

    Args:
        shares: (layers, Nr) share of each expert in a layer's assignments.
        keep: how many.

    Returns:
        (layers, keep) numbers of experts, ascending.
    """
    return np.sort(np.argsort(-shares, axis=1, kind="stable")[:, :keep], axis=1)


def without_experts(
    state: Mapping[str, torch.Tensor], experts: MoME, kept: np.ndarray
) -> dict[str, torch.Tensor]:
    """The tensors of one MoME module with fewer routed experts; the shared ones stay.

    Args:
        state: of the module, by the names of its ``state_dict``.
        experts: a module of the same sizes, with the linear router.
        kept: (keep,) numbers of the routed experts that stay.

    Returns:
        the state of a module with ``num_routed`` = keep. Its router's softmax is over the experts
        that are left, so that their gates grow by what the others had.
    """
    routed = torch.as_tensor(kept, dtype=torch.long)
    shared = torch.arange(experts.num_shared) + experts.num_routed
    all_kept = torch.cat([routed, shared])
    units = (all_kept[:, None] * experts.bottleneck + torch.arange(experts.bottleneck)).flatten()
    # The biases of the up-projections are columns behind those of the units.
    columns = torch.cat([units, experts.width + all_kept]) if experts.bias else units
    chosen = {
        "down.weight": (0, units),
        "down.bias": (0, units),
        "up.weight": (1, columns),
        "router.weight": (0, routed),
        "router.bias": (0, routed),
    }
    return {name: tensor.index_select(*chosen[name]) for name, tensor in state.items()}
