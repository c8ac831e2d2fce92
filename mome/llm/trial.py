"""Whether an LM reads a tree of prompts as it reads the prompts one by one, found by trying.

A tree is right only if all that a layer knows of the order of tokens are their positions and its
mask. LMs that look at columns besides (ALiBi's biases, recurrences, convolutions, masks of their
own) give something else, mostly without an error. No list says which LMs do, and each version of
Transformers may change it, so the decoder tries a handful of tokens when it is built.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from transformers import DynamicCache, PreTrainedModel

from mome.common.memory import lacks_memory
from mome.llm.beam import run_prompts
from mome.llm.masks import TreeMasks, has_windows
from mome.llm.prompt_tree import Node, pack_tree

WINDOW = 3  # tokens of a sliding window in the trial, which is shorter than any LM's
# Largest difference that is put down to rounding, as a share of the logits and of what the context
# makes of them, of which in an LM of random weights the latter is far less.
OF_LOGITS = 1e-4
OF_CONTEXT = 0.02

# Tokens of each node and where it is padded; two prompts of five tokens, which share the first.
NODES = (
    (None, (True,)),
    (0, (True, False, True, True)),
    (0, (False, True, True, True)),
    (1, (True,)),
    (2, (True, False)),
)
PATHS = {3: (0, 1, 3), 4: (0, 2, 4)}
BEAM = 2


@torch.no_grad()
def check_reads_trees(lm: PreTrainedModel) -> None:
    """Compare a small tree, as it is trained and as it is searched, with its plain prompts.

    An LM of 16 bits holds 32 meanwhile. In bfloat16 what is rounded may be a third of what the
    context makes of the logits of a trained LM, and so no test of it. Nothing is tried on the meta
    device, where there are no values.

    Args:
        lm: causal LM in evaluation mode, without an adapter.

    Raises:
        ValueError: if the LM computes something else for the tree or cannot take it, with the
            reason.
    """
    if lm.device.type == "meta":
        TreeMasks(lm)
        return
    with _in_float32(lm), _short_windows(lm):
        try:
            plain, tree = _both_ways(lm)
        except Exception as error:  # whatever an LM that was not made for this raises
            known = isinstance(error, ValueError) and "docs/llms.md" in str(error)
            if known or lacks_memory(error):
                raise
            raise ValueError(
                f"{type(lm).__name__} cannot read a tree of prompts: "
                f"{type(error).__name__}: {error} (docs/llms.md says which LMs can)"
            ) from error
    # Both prompts end alike: what differs between them is what the context does.
    effect = float((plain["end"][0] - plain["end"][1]).norm())
    for place, logits in plain.items():
        bound = max(OF_CONTEXT * effect, OF_LOGITS * float(logits.norm()))
        for name, found in tree[place].items():
            difference = float((found - logits).norm())
            if not difference <= bound:  # NaN is as wrong
                raise ValueError(
                    f"{type(lm).__name__} reads a tree of prompts, {name}, otherwise than the "
                    f"prompts one by one: its logits differ by {difference:.2g}, where rounding "
                    f"would not exceed {bound:.2g}. It must know nothing of a token "
                    "but its embedding, its position and the attention mask (docs/llms.md)"
                )


def _both_ways(
    lm: PreTrainedModel,
) -> tuple[dict[str, torch.Tensor], dict[str, dict[str, torch.Tensor]]]:
    """Logits (2, V) at the prompts' last tokens, after one word and after two.

    Returns:
        those of the prompts one by one, by place, and those of the tree by place and way.
    """
    embeddings: Any = lm.get_input_embeddings()  # an nn.Embedding
    vocab, device = len(embeddings.weight), embeddings.weight.device
    generator = torch.Generator().manual_seed(0)

    def words(*shape: int) -> torch.Tensor:
        return torch.randint(vocab, shape, generator=generator, device="cpu").to(device)

    nodes = []
    for parent, valid in NODES:
        # Between two words, as frames are: an LM may look for the word of an embedding.
        embeds = embeddings(words(2, len(valid))).mean(0, keepdim=True)
        nodes.append(Node(embeds, torch.tensor([valid], device=device), parent))
    leaves = list(PATHS)
    first = words(len(leaves), BEAM)
    last = words(1, 1).expand(len(leaves), BEAM)
    # The first hypothesis of either prompt goes on from what was the second one.
    parents = torch.tensor([[1, 0]] * len(leaves), device=device)

    masks, cache = TreeMasks(lm), DynamicCache()
    at_prompt, columns = run_prompts(lm, nodes, leaves, BEAM, masks, cache)
    steps = []
    for following, before in ((first, torch.zeros_like(parents)), (last, parents)):
        given, sees, positions = columns.follow(following, before)
        output = lm(
            input_ids=given,
            attention_mask=masks(sees, positions, columns.placed),
            position_ids=positions,
            past_key_values=cache,
            use_cache=True,
        )
        steps.append(output.logits.float().view(len(leaves), BEAM, -1))

    embeds, _, positions, attention, offsets = pack_tree(nodes)
    ends = [offsets[leaf] + NODES[leaf][1].index(True) for leaf in leaves]
    trained = lm(
        inputs_embeds=embeds,
        attention_mask=TreeMasks(lm, added=True)(attention, positions),
        position_ids=positions,
        use_cache=False,
        logits_to_keep=torch.tensor(ends, device=device),
    ).logits[0]

    followed = embeddings(torch.stack([first[:, 1], last[:, 0]], dim=1))
    prompts = [
        torch.cat([nodes[node].embeds[nodes[node].mask] for node in path] + [followed[row]])
        for row, path in enumerate(PATHS.values())
    ]
    plain = lm(inputs_embeds=torch.stack(prompts), use_cache=False).logits.float()
    return (
        {"prompt": plain[:, -3], "word": plain[:, -2], "end": plain[:, -1]},
        {
            "prompt": {"as in training": trained.float(), "as in decoding": at_prompt[0]},
            "word": {"as in decoding": steps[0][:, 1]},
            "end": {"as in decoding": steps[1][:, 0]},
        },
    )


@contextmanager
def _in_float32(lm: PreTrainedModel) -> Iterator[None]:
    """Hold tensors of 16 bits in 32, which loses nothing when they return to what they were."""
    halves = [
        (tensor, tensor.dtype)
        for tensor in (*lm.parameters(), *lm.buffers())
        if tensor.dtype in (torch.float16, torch.bfloat16)
    ]
    for tensor, _ in halves:
        tensor.data = tensor.data.float()
    try:
        yield
    finally:
        for tensor, dtype in halves:
            tensor.data = tensor.data.to(dtype)


@contextmanager
def _short_windows(lm: PreTrainedModel) -> Iterator[None]:
    """Let sliding windows, if there are any, be shorter than the prompts of the trial.

    Both our masks and those of Transformers ask the configuration in each pass.
    """
    config = lm.config.get_text_config()
    before = getattr(config, "sliding_window", None)
    if not has_windows(lm) or before is None:
        yield
        return
    config.sliding_window = min(before, WINDOW)
    try:
        yield
    finally:
        config.sliding_window = before
