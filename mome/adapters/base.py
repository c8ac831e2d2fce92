"""What an adapter is: the contract between a frozen LM and what is trained inside it.

An adapter is a module that holds the trained tensors. Building it attaches it to a Hugging Face
causal LM, whose code is neither copied nor edited, and ``detach`` leaves the LM as it was. Decoder,
model, beam search and dry run know an adapter by this contract alone, so another one is a subclass
of :class:`Adapter` in a file of its own, registered by name (docs/extend.md has an example):

    @register_adapter("my_adapter")
    class MyAdapter(Adapter):
        def __init__(self, lm, rank=8):
            super().__init__()
            ...
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from mome.common.registry import Registry

if TYPE_CHECKING:
    from transformers import PreTrainedModel

POSITIONS = ("mhsa", "ffn", "layer")
ATTENTION_NAMES = ("self_attn", "attn", "attention", "self_attention")
FFN_NAMES = ("mlp", "feed_forward", "ffn")

Forward = Callable[..., Any]


class Adapter(nn.Module):
    """Base class of all adapters: ``__init__(lm, **adapter_conf)`` attaches to a frozen LM.

    The defaults suit an adapter whose parameters all act on every token, without a router, and that
    takes itself into the LM by :meth:`wrap` and looks at ``enabled`` there.

    Attributes:
        by_pair: whether it computes something else for each rate pair. Prompts of different pairs
            then share no tokens, and :meth:`select_pairs` is called before each pass of the LM.
        pairs: the rate pairs that it has something for; empty if any will do.
        enabled: False inside :meth:`disabled`: the LM must then compute what it did without.
    """

    by_pair: bool = False
    pairs: Sequence[str] = ()

    def __init__(self) -> None:
        super().__init__()
        self.enabled = True
        self.wrapped: list[WrappedForward] = []

    def wrap(self, module: nn.Module, around: Callable[[Forward], Forward]) -> None:
        """Replace ``forward`` of a module of the LM by ``around(forward)``, until ``detach``.

        Let ``around`` bind ``forward`` by ``partial``: a function that it defines inside would, in
        a copy of LM and adapter by ``copy.deepcopy``, run the originals.
        """
        self.wrapped.append(WrappedForward(module, around))

    def enable(self, on: bool = True) -> None:
        """Switch the adapter on or off."""
        self.enabled = on

    @contextmanager
    def disabled(self) -> Iterator[None]:
        """The frozen LM alone, inside the context."""
        before = self.enabled
        self.enable(False)
        try:
            yield
        finally:
            self.enable(before)

    def detach(self) -> None:
        """Take the adapter off; the LM computes what it did before.

        Raises:
            RuntimeError: if another adapter has wrapped the same modules since, before anything
                is changed: detach that one first.
        """
        # Of a module that this adapter has wrapped twice, the last one is there.
        for wrapped in {id(each.module): each for each in self.wrapped}.values():
            wrapped.check()
        while self.wrapped:
            self.wrapped.pop().restore()

    def select_pairs(self, columns: Sequence[str | None]) -> None:
        """Take the rate pair (such as ``a4_v2``) of each of the S columns of the LM's next inputs.

        The selection holds until the next one: gradient checkpointing runs layers again in between.
        """

    @contextmanager
    def recording(
        self, token_mask: torch.Tensor, sequences: torch.Tensor | None = None
    ) -> Iterator[None]:
        """Keep of the forward pass inside what ``balance_loss`` needs.

        Args:
            token_mask: (B, S) True for tokens, False for padding.
            sequences: (P, S) True for the columns of each of the P prompts, one for each task at
                each rate pair, whose common beginnings are computed once; None if there is one.
        """
        yield

    def balance_loss(self) -> torch.Tensor:
        """Scalar, added to the training loss by its weight; called inside ``recording``.

        Zero for an adapter without a router.
        """
        return next(self.parameters()).new_zeros(())

    def for_inference(self, dtype: torch.dtype) -> None:
        """Prepare to run with an LM of this type, as fast as possible; no training follows."""

    def num_active_parameters(self) -> int:
        """Parameters that one token uses."""
        return sum(parameter.numel() for parameter in self.parameters())


class WrappedForward:
    """The ``forward`` of a module, replaced; other adapters may wrap what is put there.

    A forward hook would do the same, but its detour costs more than the products of small experts
    in a step of a single token.

    Args:
        module: of the LM.
        around: makes the new ``forward`` of the one that is there.
    """

    def __init__(self, module: nn.Module, around: Callable[[Forward], Forward]):
        self.module = module
        self.before = vars(module).get("forward")  # another adapter's; None for the class's own
        self.forward = around(module.forward)
        # Not `self.forward`: what binds the adapter's methods would be copied twice, and be another
        # one in a copy of the LM than in that of its adapter.
        module.forward = self

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """What the module gives."""
        return self.forward(*args, **kwargs)

    def check(self) -> None:
        """Whether the module still runs what was put there.

        Raises:
            RuntimeError: if something else has wrapped it since.
        """
        if vars(self.module).get("forward") is not self:
            raise RuntimeError(
                f"{type(self.module).__name__} was wrapped again after this adapter was attached; "
                f"detach adapters in the opposite order"
            )

    def restore(self) -> None:
        """Put back what was there before."""
        del self.module.forward
        if self.before is not None:
            self.module.forward = self.before


ADAPTERS: Registry[type[Adapter]] = Registry("adapter", "mome.adapters.register_adapter")


def register_adapter(name: str) -> Callable[[type[Adapter]], type[Adapter]]:
    """Decorate an adapter so that ``decoder_conf: {adapter: <name>}`` attaches it.

    Raises:
        TypeError: if the class does not derive from :class:`Adapter`.
        ValueError: if the name is taken.
    """

    def enter(adapter: type[Adapter]) -> type[Adapter]:
        if not issubclass(adapter, Adapter):
            raise TypeError(f"{adapter.__name__} must derive from mome.adapters.Adapter")
        if name.lower() == "none":
            raise ValueError("adapter 'none' stands for the frozen LM alone")
        return ADAPTERS.add(name)(adapter)

    return enter


def find_layers(lm: PreTrainedModel) -> list[nn.Module]:
    """The transformer layers of a Hugging Face causal LM, first to last.

    Raises:
        ValueError: if no module list of ``num_hidden_layers`` layers exists.
    """
    count = lm.config.get_text_config().num_hidden_layers
    for module in lm.modules():
        if isinstance(module, nn.ModuleList) and len(module) == count:
            return list(module)
    raise ValueError(
        f"{type(lm).__name__}: found no list of {count} layers to adapt; is it a decoder-only LM?"
    )


def find_block(layer: nn.Module, position: str) -> nn.Module:
    """The block of a layer that an adapter sits beside: attention, feed-forward or the layer.

    Raises:
        ValueError: for an unknown position, or a layer that names its blocks otherwise.
    """
    if position not in POSITIONS:
        raise ValueError(f"position {position!r} must be one of {', '.join(POSITIONS)}")
    if position == "layer":
        return layer
    names = ATTENTION_NAMES if position == "mhsa" else FFN_NAMES
    for name in names:
        if hasattr(layer, name):
            return getattr(layer, name)
    raise ValueError(
        f"{type(layer).__name__} has no block called {' or '.join(names)} for an adapter to sit "
        f"beside; choose position {' or '.join(p for p in POSITIONS if p != position)}"
    )
