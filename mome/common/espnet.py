"""ESPnet's interfaces, or plain ones in their place where it is not installed.

Training is ESPnet's: its trainer asks that models, encoders and decoders derive from its classes.
Whoever transcribes or attaches an adapter needs nothing of it, and can do without its installation.
"""

from abc import ABC, abstractmethod
from typing import Any

import torch
from torch import nn

from mome.common.extras import without_type_checks

try:
    with without_type_checks():
        from espnet2.asr.decoder.abs_decoder import AbsDecoder
        from espnet2.asr.encoder.abs_encoder import AbsEncoder
        from espnet2.legacy.nets.scorer_interface import BatchScorerInterface
        from espnet2.torch_utils.device_funcs import force_gatherable
        from espnet2.train.abs_espnet_model import AbsESPnetModel
except ModuleNotFoundError as missing:
    if missing.name != "espnet2":
        raise

    class AbsEncoder(nn.Module, ABC):  # type: ignore[no-redef]
        """From padded inputs and their lengths to frames; see ESPnet's class of this name."""

        @abstractmethod
        def output_size(self) -> int: ...

        @abstractmethod
        def forward(self, xs_pad: Any, ilens: Any, prev_states: Any = None) -> Any: ...

    class BatchScorerInterface:  # type: ignore[no-redef]
        """What ESPnet's beam search calls, which is not there either."""

    class AbsDecoder(nn.Module, ABC):  # type: ignore[no-redef]
        """From frames and tokens to scores of the next tokens; see ESPnet's class of this name."""

        @abstractmethod
        def forward(self, hs_pad: Any, hlens: Any, ys_in_pad: Any, ys_in_lens: Any) -> Any: ...

    class AbsESPnetModel(nn.Module, ABC):  # type: ignore[no-redef]
        """From a batch to loss, statistics and weight; see ESPnet's class of this name."""

        @abstractmethod
        def forward(self, **batch: torch.Tensor) -> Any: ...

        @abstractmethod
        def collect_feats(self, **batch: torch.Tensor) -> Any: ...

    def force_gatherable(data: Any, device: torch.device) -> Any:
        """Tensors and numbers, in dictionaries and tuples, as tensors of one dimension or more."""
        if isinstance(data, dict):
            return {key: force_gatherable(value, device) for key, value in data.items()}
        if isinstance(data, tuple):
            return tuple(force_gatherable(value, device) for value in data)
        return torch.atleast_1d(torch.as_tensor(data, device=device))


__all__ = [
    "AbsDecoder",
    "AbsESPnetModel",
    "AbsEncoder",
    "BatchScorerInterface",
    "force_gatherable",
]
