"""Which experts the tokens of utterances are sent to, layer by layer."""

from collections.abc import Sequence

import numpy as np
import torch
from torch.nn.utils.rnn import pad_sequence

from mome.adapters.mome import MoMEAdapter
from mome.llm.prompt_tree import Node
from mome.models.avsr import AVSRModel, Features
from mome.models.rates import TaskPair

KINDS = ("audio", "video", "text")


@torch.inference_mode()
def expert_shares(
    model: AVSRModel,
    features: Features,
    chosen: TaskPair,
    transcripts: Sequence[Sequence[int]],
) -> dict[str, np.ndarray]:
    """Share of each routed expert in the assignments of a layer, by kind of token.

    The LLM reads prompt and transcript once more, as in training, and the routers' choices are
    kept. Whatever is neither an audio nor a video token counts as text: beginning of sentence,
    markers of the streams, prompt and transcript.

    Args:
        model: the trained model.
        features: of B utterances, see :meth:`AVSRModel.encode`.
        chosen: task and rates at which they are read.
        transcripts: B token sequences.

    Returns:
        kind (``audio``, ``video``, ``text``) -> (layers, Nr), rows that sum to 1; those kinds that
        are read. Empty if the adapter has no routed experts.

    Raises:
        ValueError: for a task or rates that were not trained, or a stream that was not given.
    """
    adapter = model.decoder.adapter
    nodes, (leaf,) = model.prompts(features, [chosen])
    if not isinstance(adapter, MoMEAdapter):
        return {}
    kinds = kinds_of_columns(nodes, chosen)
    device = nodes[0].embeds.device
    rows = [torch.tensor(list(tokens), dtype=torch.long) for tokens in transcripts]
    if words := max(map(len, rows)):
        ids = pad_sequence(rows, batch_first=True).to(device)
        lengths = torch.tensor([len(row) for row in rows], device=device)
        valid = torch.arange(words, device=device) < lengths[:, None]
        nodes.append(Node(model.decoder.embed(ids), valid, leaf))
        kinds += ["text"] * words
    mask = torch.cat([node.mask for node in nodes], dim=1)
    with adapter.recording(mask):
        model.decoder.forward_tree(nodes, [(len(nodes) - 1, 0, 1)])
        routing = adapter.take_routing()
    return shares([gates for gates, _ in routing], mask, kinds)


def kinds_of_columns(nodes: Sequence[Node], chosen: TaskPair) -> list[str]:
    """Kind of each column of the prompt of a task at a rate pair, as its nodes lie side by side."""
    read = list(chosen.pair.rates)
    kinds: list[str] = []
    for number, node in enumerate(nodes):
        width = node.mask.shape[1]
        if 1 <= number <= len(read):  # the root comes before the streams, the prompt after them
            kinds += ["text", *[read[number - 1]] * (width - 2), "text"]
        else:
            kinds += ["text"] * width
    return kinds


def shares(
    gates: Sequence[torch.Tensor], mask: torch.Tensor, kinds: Sequence[str]
) -> dict[str, np.ndarray]:
    """Share of each expert in the assignments of a layer, by kind of token.

    Args:
        gates: (B, S, Nr) of each layer, zero for experts that are off.
        mask: (B, S) True for tokens, False for padding.
        kinds: of the S columns.

    Returns:
        kind -> (layers, Nr), rows that sum to 1, for kinds that have tokens; empty if Nr is 0.
    """
    if gates[0].shape[-1] == 0:
        return {}
    result = {}
    for kind in KINDS:
        of_kind = torch.tensor([each == kind for each in kinds], device=mask.device)
        counted = mask & of_kind
        if counted.any():
            counts = torch.stack([(layer[counted] > 0).sum(0) for layer in gates]).double()
            result[kind] = (counts / counts.sum(1, keepdim=True)).cpu().numpy()
    return result


def overlap(one: np.ndarray, other: np.ndarray) -> float:
    """How alike two routings are: the share of assignments that they have in common.

    Args:
        one: (layers, Nr), rows that sum to 1.
        other: the same of other tokens.

    Returns:
        mean over layers of the sum over experts of the smaller share: 1 for the same shares, 0 for
        experts of which none serves both.
    """
    return float(np.minimum(one, other).sum(1).mean())


def overlap_by_chance(one: np.ndarray, other: np.ndarray, seed: int = 0, draws: int = 200) -> float:
    """`overlap` if the experts of one routing were others: over permutations of each layer's."""
    rng = np.random.default_rng(seed)
    found = [overlap(one, rng.permuted(other, axis=1)) for _ in range(draws)]
    return float(np.mean(found))


def experts_in_use(shares: np.ndarray) -> float:
    """How many experts a layer uses: as many as equal shares of the same concentration would.

    Args:
        shares: (layers, Nr), rows that sum to 1.

    Returns:
        mean over layers of the inverse of the sum of squared shares: Nr if all serve alike, K if
        all tokens select the same K.
    """
    return float((1 / (shares**2).sum(1)).mean())
