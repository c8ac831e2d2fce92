"""Prompts with common beginnings, computed once.

Training reads one utterance at many compression rates. The prompts share prefixes: with audio rates
{4, 16} and video rates {2, 5}, the audio tokens at rate 4 begin two of the four AVSR prompts and an
ASR prompt. A causal LM gives a prefix the same states whatever follows, so the prompts form a tree
and every shared prefix is computed once: the nodes of the tree lie one after the other in one row,
and an attention mask lets a node see itself and its ancestors only. Positions count valid tokens
from the root, so padding inside a node is invisible. The result equals running every prompt by
itself.
"""

from dataclasses import dataclass

import torch


@dataclass
class Node:
    """A piece of prompt or transcript in a tree of prompts.

    Attributes:
        embeds: (B, L, D) embeddings.
        mask: (B, L) True for tokens, False for padding.
        parent: index of the node before it, or None for the root.
        pair: of a root, the rate pair that its tree belongs to, if the adapter differs by pair.
    """

    embeds: torch.Tensor
    mask: torch.Tensor
    parent: int | None
    pair: str | None = None


def node_pairs(nodes: list[Node]) -> list[str | None]:
    """The rate pair of each node's tree, where the adapter differs by pair."""
    pairs: list[str | None] = []
    for node in nodes:
        pairs.append(node.pair if node.parent is None else pairs[node.parent])
    return pairs


def column_pairs(nodes: list[Node]) -> list[str | None]:
    """The rate pair of each column of :func:`pack_tree`."""
    widths = [node.mask.shape[1] for node in nodes]
    return [
        pair for pair, width in zip(node_pairs(nodes), widths, strict=True) for _ in range(width)
    ]


def paths(nodes: list[Node]) -> torch.Tensor:
    """Columns of :func:`pack_tree` (S,) of each way from the root to a leaf: (leaves, S) True."""
    inner = {node.parent for node in nodes}
    widths = torch.tensor([node.mask.shape[1] for node in nodes], device="cpu")
    rows = []
    for leaf in range(len(nodes)):
        if leaf in inner:
            continue
        on_path = torch.zeros(len(nodes), dtype=torch.bool, device="cpu")
        place: int | None = leaf
        while place is not None:
            on_path[place] = True
            place = nodes[place].parent
        rows.append(on_path.repeat_interleave(widths))
    return torch.stack(rows)


def pack_tree(
    nodes: list[Node],
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor, list[int]]:
    """Lay the nodes of a tree side by side.

    Args:
        nodes: parents before children.

    Returns:
        embeds (B, S, D), token mask (B, S), positions (B, S), attention mask (B, 1, S, S) with True
        where a row's token sees a column's, and the first column of each node.
    """
    embeds = torch.cat([node.embeds for node in nodes], dim=1)
    mask = torch.cat([node.mask for node in nodes], dim=1)
    positions, offsets, start = [], [], 0
    ends: list[torch.Tensor] = []
    for node in nodes:
        before = node.mask.new_zeros(len(node.mask), dtype=torch.long)
        if node.parent is not None:
            before = ends[node.parent]
        positions.append((before[:, None] + node.mask.cumsum(1) - 1).clamp(min=0))
        ends.append(before + node.mask.sum(1))
        offsets.append(start)
        start += node.mask.shape[1]
    sees = torch.zeros(start, start, dtype=torch.bool, device=mask.device)
    for index, node in enumerate(nodes):
        rows = slice(offsets[index], offsets[index] + node.mask.shape[1])
        sees[rows, rows] = True
        if node.parent is not None:
            up = slice(
                offsets[node.parent], offsets[node.parent] + nodes[node.parent].mask.shape[1]
            )
            # What the parent's last token sees, and the parent itself, is what a child sees.
            sees[rows, : offsets[index]] = sees[up.stop - 1, : offsets[index]]
    sees = sees.tril()
    # A padded row must see something, or its softmax is undefined: itself.
    eye = torch.eye(start, dtype=torch.bool, device=mask.device)
    attention = (sees & mask[:, None, :]) | eye
    return embeds, mask, torch.cat(positions, dim=1), attention[:, None], offsets
