"""The attention masks of a tree of prompts, in the form and by the layers of an LM.

Transformers hands a mask of four dimensions to the attention as it is. It then has to have the form
that the attention reads, and where layers see a window of the last tokens only, it has to cut the
window itself: Transformers cuts windows by columns, and columns of a tree are no distances.
"""

import torch
from transformers import PreTrainedModel
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS, eager_mask, sdpa_mask

type Mask = torch.Tensor | dict[str, torch.Tensor]

# What configurations call the number of tokens that a layer chooses among the columns it sees, of
# which a tree has more than a prompt.
CHOSEN = ("keep_window_size", "index_topk", "index_topk_blocks")
# Kinds of layers that attend to tokens, by whichever mask they are given, and keep all of them.
FULL, SLIDING = "full_attention", "sliding_attention"


def windows_of(lm: PreTrainedModel) -> dict[str, int | None] | int | None:
    """How far the layers of an LM see.

    Returns:
        None if all layers see every token before them; the tokens of the window, with the present
        one, if it is that of all layers; or one or the other by the kind of layer, for LMs whose
        layers differ and which take a mask for each kind.

    Raises:
        ValueError: for an LM with other kinds of layers, or that cuts its attention in a way that
            no mask says.
    """
    config = lm.config.get_text_config()
    kinds = list(dict.fromkeys(getattr(config, "layer_types", None) or ()))
    # GPT-Neo's name for the kinds of its layers, which mask by columns inside.
    local = set(getattr(config, "attention_layers", ())) - {"global"}
    if unknown := {*kinds, *local} - {FULL, SLIDING}:
        raise ValueError(
            f"{type(lm).__name__} has layers of {', '.join(sorted(unknown))}, which read tokens in "
            "the order of columns: the branches of a tree of prompts would run into each other. "
            "Take an LM whose layers are full or sliding attention (docs/llms.md)"
        )
    if getattr(config, "alibi", False):
        raise ValueError(
            f"{type(lm).__name__} adds ALiBi's biases to its attention, which count columns, and "
            "columns of a tree of prompts are no distances. Take an LM with positions that are "
            "given to it (docs/llms.md)"
        )
    if chosen := [name for name in CHOSEN if getattr(config, name, None)]:
        raise ValueError(
            f"{type(lm).__name__} attends to {chosen[0]} tokens that it chooses among the columns, "
            "which in a tree of prompts are of other branches, too. Take an LM that attends to all "
            "tokens or to a window of them (docs/llms.md)"
        )
    # A configuration keeps whatever it is given; the class says whether the LM asks for it.
    window = getattr(config, "sliding_window", None) if has_windows(lm) else None
    if window is None and SLIDING in kinds:
        raise ValueError(
            f"{type(lm).__name__} has layers that see a window of tokens, but its configuration "
            "does not say by sliding_window how large it is. Take an LM that does (docs/llms.md)"
        )
    if window is None or (kinds and SLIDING not in kinds):
        return None
    if not kinds:
        return window
    return {kind: window if kind == SLIDING else None for kind in kinds}


def has_windows(lm: PreTrainedModel) -> bool:
    """Whether an LM's class knows sliding windows; a configuration may still switch them off."""
    return hasattr(type(lm.config.get_text_config()), "sliding_window")


class TreeMasks:
    """Makes the masks of an LM from who sees whom in a tree.

    Args:
        lm: causal LM.
        added: give what is added to the scores, 0 and -inf, whatever the attention reads besides.
            In training a boolean mask would be converted by every layer, and each layer's copy
            would be kept for the backward pass.

    Attributes:
        windows: see :func:`windows_of`; if None, positions are not looked at.

    Raises:
        ValueError: for an LM whose layers take no such mask.
    """

    def __init__(self, lm: PreTrainedModel, added: bool = False):
        self.windows = windows_of(lm)
        self.dtype = lm.dtype
        name = lm.config._attn_implementation
        form = ALL_MASK_ATTENTION_FUNCTIONS.get(name)
        if form not in (sdpa_mask, eager_mask):
            raise ValueError(
                f"attention {name!r} takes no mask that says for each pair of tokens whether one "
                "sees the other; load the LM with attn_implementation='sdpa' or 'eager'"
            )
        # The eager attention adds its mask to the scores: True and False would be 1 and 0 there.
        self.added = added or form is eager_mask

    def __call__(
        self,
        sees: torch.Tensor,
        positions: torch.Tensor,
        columns: torch.Tensor | None = None,
    ) -> Mask:
        """The mask of a forward pass.

        Args:
            sees: (B, 1, L, S) True where a query sees a key, windows aside.
            positions: (B, L) of the queries in their prompts.
            columns: (B, S) positions of the keys; those of the queries if None.

        Returns:
            a mask (B, 1, L, S), boolean or of the LM's type, or one for each kind of layer.
        """
        if self.windows is None:
            return self._formed(sees)
        columns = positions if columns is None else columns
        distance = (positions[:, :, None] - columns[:, None])[:, None]
        if isinstance(self.windows, int):
            return self._formed(sees & (distance < self.windows))
        return {
            kind: self._formed(sees if window is None else sees & (distance < window))
            for kind, window in self.windows.items()
        }

    def _formed(self, sees: torch.Tensor) -> torch.Tensor:
        if not self.added:
            return sees
        return torch.zeros_like(sees, dtype=self.dtype).masked_fill(~sees, -torch.inf)
