"""Where an adapter sits in a Hugging Face causal LM."""

from torch import nn

POSITIONS = ("mhsa", "ffn", "layer")
ATTENTION_NAMES = ("self_attn", "attn", "attention", "self_attention")
FFN_NAMES = ("mlp", "feed_forward", "ffn")


def find_layers(lm: nn.Module) -> list[nn.Module]:
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
    """The block of a layer that an adapter sits beside: attention, feed-forward or the layer."""
    if position not in POSITIONS:
        raise ValueError(f"position {position!r} must be one of {', '.join(POSITIONS)}")
    if position == "layer":
        return layer
    names = ATTENTION_NAMES if position == "mhsa" else FFN_NAMES
    for name in names:
        if hasattr(layer, name):
            return getattr(layer, name)
    raise ValueError(f"{type(layer).__name__} has no block called {' or '.join(names)}")
