"""MoME beside blocks of a frozen LM's layers, without copying or editing the LM's code."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, Self

import torch
from torch import nn

from mome.adapters.base import Adapter, Forward, find_block, find_layers, register_adapter
from mome.adapters.by_pair import PairMoME
from mome.adapters.experts import MoME
from mome.adapters.experts_cpu import CompiledExperts, can_run
from mome.adapters.experts_fused import FusedProjections, can_fuse
from mome.adapters.routers import BALANCES, balance_loss, sequence_balance_loss

if TYPE_CHECKING:
    from transformers import PreTrainedModel


@register_adapter("mome")
class MoMEAdapter(Adapter):
    """One MoME module per layer, in parallel to a block of that layer.

    Beside attention and feed-forward the module reads what the block reads, which is after a layer
    norm, and its output is added to what the block gives. Beside the whole layer it reads what the
    attention reads, after the layer's first norm, and its output is added at the layer's end.

    Args:
        lm: frozen causal LM; ``detach`` leaves it as it was.
        position: ``mhsa``, ``ffn`` or ``layer``.
        balance: form of the balance loss: ``per_sequence``, the paper's, or ``per_layer``; see
            :mod:`mome.adapters.routers`.
        **experts: arguments of :class:`mome.adapters.experts.MoME`, or, with ``disjoint_routers``
            or a ``top_k`` by rate pair, of :class:`mome.adapters.by_pair.PairMoME`.

    Attributes:
        experts_class: class of the modules; a subclass of the adapter may name a subclass of MoME.

    Raises:
        ValueError: for an unknown position or form of the balance loss; for sizes, see MoME.
    """

    experts_class: type[MoME] = MoME

    def __init__(
        self,
        lm: PreTrainedModel,
        position: str = "mhsa",
        balance: str = "per_sequence",
        **experts: Any,
    ):
        super().__init__()
        if balance not in BALANCES:
            raise ValueError(f"balance {balance!r} must be {' or '.join(BALANCES)}")
        dim = lm.config.get_text_config().hidden_size
        layers = find_layers(lm)
        blocks = [find_block(layer, position) for layer in layers]
        # `disjoint_routers: null` unsets that of a base configuration.
        disjoint = experts.pop("disjoint_routers", None)
        self.by_pair = bool(disjoint) or isinstance(experts.get("top_k"), Mapping)
        if self.by_pair:
            if self.experts_class is not MoME:
                raise ValueError(
                    f"disjoint_routers and a top_k by rate pair are options of the experts MoME, "
                    f"not of {self.experts_class.__name__}"
                )
            modules = [PairMoME(dim, disjoint_routers=disjoint, **experts) for _ in blocks]
            self.layers = nn.ModuleList(modules)
            self.pairs = modules[0].pairs
        else:
            self.layers = nn.ModuleList(self.experts_class(dim, **experts) for _ in blocks)
        self.position = position
        self.balance = balance
        # Of the blocks that are running: what the attention has read, for `layer`.
        self.read: dict[int, torch.Tensor | None] = {}
        self.compiled: tuple[CompiledExperts, ...] = ()
        self.fused: tuple[FusedProjections | None, ...] = (None,) * len(blocks)
        self.token_mask: torch.Tensor | None = None
        self.sequences: torch.Tensor | None = None
        self.routing: list[tuple[torch.Tensor, torch.Tensor] | None] = [None] * len(blocks)
        self.blocks = tuple(blocks)  # a tuple, so that they are not taken for parts of the adapter
        for index, block in enumerate(blocks):
            if position == "layer":
                attention = find_block(layers[index], "mhsa")
                self.wrap(attention, partial(partial, self._note_input, index))
            self.wrap(block, partial(partial, self._add_experts, index))

    @property
    def experts(self) -> list[MoME]:
        """The MoME modules, first layer to last."""
        return [layer for layer in self.layers if isinstance(layer, MoME)]

    def _note_input(self, index: int, forward: Forward, *args: Any, **kwargs: Any) -> Any:
        if index in self.read:  # not where gradient checkpointing runs the layer again
            self.read[index] = args[0] if args else kwargs["hidden_states"]
        return forward(*args, **kwargs)

    def _add_experts(self, index: int, forward: Forward, *args: Any, **kwargs: Any) -> Any:
        self.read[index] = None
        try:
            output = forward(*args, **kwargs)
        finally:
            read = self.read.pop(index)
        if not self.enabled:
            return output
        fast = self._fast_forms_run()
        fused = self.fused[index]
        if fast and fused is not None and fused.experts is not None:
            return output  # the block's own projections have added the experts
        given = args[0] if args else kwargs["hidden_states"]
        hidden = given if read is None else read
        base = output[0] if isinstance(output, tuple) else output
        if fast and self.compiled and not hidden.requires_grad:
            total = self.compiled[index](hidden, base)
        else:
            experts = self.layers[index]
            assert isinstance(experts, MoME), "of which there is one for each block"
            if hidden.device != (own := experts.down.weight.device):
                raise RuntimeError(
                    f"the LM computes on {hidden.device}, and its adapter lies on {own}: move "
                    f"it as well, by adapter.to({str(hidden.device)!r})"
                )
            total, gates, probs = experts(hidden, base)
            if self.token_mask is not None:
                self.routing[index] = (gates, probs)
        return (total, *output[1:]) if isinstance(output, tuple) else total

    def select_pairs(self, columns: Sequence[str | None]) -> None:
        """Take the rate pair of each of the S columns of the next inputs, if routing differs."""
        by_pair = [layer for layer in self.layers if isinstance(layer, PairMoME)]
        if by_pair:
            by_pair[0].select_pairs(columns)
        for layer in by_pair[1:]:  # one transfer to the device serves all layers
            layer.columns = by_pair[0].columns

    @contextmanager
    def recording(
        self, token_mask: torch.Tensor, sequences: torch.Tensor | None = None
    ) -> Iterator[None]:
        """Keep each layer's routing of the forward pass inside.

        Inside, ``balance_loss`` or ``take_routing`` gives what was kept, and ends the recording. A
        pass that fails leaves nothing behind, which would hold its whole graph in memory.

        Args:
            token_mask: (B, S) True for tokens, False for padding.
            sequences: (P, S) True for the columns of each prompt; None if there is one.
        """
        self.token_mask = token_mask
        self.sequences = sequences
        try:
            yield
        finally:
            self.token_mask = self.sequences = None
            self.routing = [None] * len(self.routing)

    def take_routing(self) -> list[tuple[torch.Tensor, torch.Tensor]]:
        """Routing of the recorded pass, first layer to last; ends the recording.

        Call it inside ``recording``.

        Returns:
            of each layer gates (B, S, Nr), zero for experts that are off, and the router's
            probabilities (B, S, Nr); Nr is 0 without routed experts.

        Raises:
            RuntimeError: if no pass of the LM through all layers was recorded.
        """
        recorded = [routing for routing in self.routing if routing is not None]
        complete = len(recorded) == len(self.routing)
        self.routing = [None] * len(self.routing)
        if self.token_mask is None or not complete:
            raise RuntimeError("no forward pass of the LM was recorded")
        return recorded

    def balance_loss(self) -> torch.Tensor:
        """Load-balancing loss of the recorded pass in the adapter's form; ends the recording.

        Call it inside ``recording``. Zero without routed experts.
        """
        recorded = self.take_routing()
        assert self.token_mask is not None, "take_routing raises an error where nothing is recorded"
        if recorded[0][1].shape[-1] == 0:
            return self.experts[0].up.weight.new_zeros(())
        if self.balance == "per_sequence":
            return sequence_balance_loss(recorded, self.token_mask, self.sequences)
        losses = [balance_loss(gates, probs, self.token_mask) for gates, probs in recorded]
        return torch.stack(losses).mean()

    def for_inference(self, dtype: torch.dtype) -> None:
        """Prepare the experts to run in the LM's type, by the fastest way that gives the same.

        That is compiled for a CPU (:mod:`mome.adapters.experts_cpu`), in the LM's own projections
        (:mod:`mome.adapters.experts_fused`) or, if neither knows them, as in training. Neither LM
        nor adapter is for training any more, and as both fast forms hold weights in another order,
        to move LM or adapter to another device or type, or to load weights, is an error from then
        on.
        """
        for layer in self.experts:
            layer.down.to(dtype)
            layer.up.to(dtype)
        if all(can_run(layer, dtype) for layer in self.experts):
            self.compiled = tuple(CompiledExperts(layer, dtype) for layer in self.experts)
        if self.position == "mhsa" and not any(self.fused):
            inside = [None if self.compiled else layer for layer in self.experts]
            self.fused = tuple(
                FusedProjections(block, self.wrap, self._fast_forms_run, experts)
                if can_fuse(block, experts)
                else None
                for block, experts in zip(self.blocks, inside, strict=True)
            )

    def _apply(self, fn: Callable[[torch.Tensor], torch.Tensor], recurse: bool = True) -> Self:
        for parameter in self.parameters() if self._is_prepared() else ():
            moved = fn(parameter.detach())
            if (moved.device, moved.dtype) != (parameter.device, parameter.dtype):
                self._refuse("moved to another device or type")
        return super()._apply(fn, recurse)

    def _load_from_state_dict(self, *args: Any, **kwargs: Any) -> None:
        if self._is_prepared():
            self._refuse("given other weights")
        super()._load_from_state_dict(*args, **kwargs)

    def _is_prepared(self) -> bool:
        return bool(self.compiled) or any(self.fused)

    def _refuse(self, what: str) -> None:
        raise RuntimeError(
            f"an adapter that is prepared for inference cannot be {what}: its fast form would go on"
            f" with the weights as they were. Build the model, load and move it, and call"
            f" for_inference last (a packed model: name the device when it is opened)"
        )

    def _fast_forms_run(self) -> bool:
        # A recorded pass needs the routing of every layer, which only the plain form gives.
        return self.enabled and self.token_mask is None

    def num_active_parameters(self) -> int:
        """Parameters that one token uses."""
        return sum(layer.num_active_parameters() for layer in self.experts)
