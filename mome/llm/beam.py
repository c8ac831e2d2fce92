"""Batched beam search for a causal LM whose prompts are given as embeddings.

An utterance may have several prompts, one for each task and rate pair. Prompts that begin alike
share their beginning: they come as a tree (see :mod:`mome.llm.prompt_tree`), which runs once per
utterance, never per beam. The hypotheses of all prompts lie side by side in the same row of the
key/value cache, and an attention mask lets each see its own prompt and its own ancestors only, so
that following another beam changes the mask and no cache is copied or reordered.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import nn
from transformers import DynamicCache

from mome.adapters import Adapter
from mome.llm.prompt_tree import Node, column_pairs, node_pairs, pack_tree


@dataclass(frozen=True)
class Hypothesis:
    """One transcript.

    Attributes:
        tokens: token ids without EOS.
        score: sum of log-probabilities (EOS included) over (tokens + EOS) ** length_penalty.
        finished: whether it ended by EOS rather than by the limit of tokens.
    """

    tokens: list[int]
    score: float
    finished: bool


@torch.inference_mode()
def beam_search(
    lm: nn.Module,
    nodes: list[Node],
    leaves: Sequence[int],
    *,
    beam: int,
    max_new_tokens: int,
    eos_id: int,
    length_penalty: float = 0.0,
    adapter: Adapter | None = None,
) -> list[list[list[Hypothesis]]]:
    """Search the best continuations of each prompt of each utterance.

    A prompt stops when no hypothesis that is still open can overtake its best finished one: with
    ``length_penalty`` 0 scores only fall; otherwise the bound takes the longest length.

    Args:
        lm: any Hugging Face causal LM.
        nodes: tree of prompts of B utterances, parents before children.
        leaves: C nodes where prompts end.
        beam: hypotheses kept per prompt; 1 is greedy search.
        max_new_tokens: longest transcript, EOS included.
        eos_id: end-of-sentence token.
        length_penalty: exponent of the length that divides the score, as in Transformers.
        adapter: the LM's; needed if it differs by rate pair (``by_pair``).

    Returns:
        per leaf and utterance up to ``beam`` hypotheses, best first, at least one.

    Raises:
        ValueError: for a beam or a limit below 1, or a leaf without tokens.
    """
    if beam < 1 or max_new_tokens < 1:
        raise ValueError(f"beam={beam} and max_new_tokens={max_new_tokens} must be at least 1")
    if not all(bool(nodes[leaf].mask.any(1).all()) for leaf in leaves):
        raise ValueError("a prompt of the batch has no tokens")
    cache = DynamicCache(config=lm.config)
    if adapter is not None:
        adapter.select_pairs(column_pairs(nodes))
    logits, sees_prompt, start = _run_prompts(lm, nodes, leaves, cache)
    if adapter is not None:
        pairs = node_pairs(nodes)
        adapter.select_pairs([pairs[leaf] for leaf in leaves for _ in range(beam)])
    batch, prompts = start.shape
    rows, device = batch * prompts, logits.device  # a row is a prompt: utterance, then leaf
    scores = logits.flatten(0, 1).log_softmax(-1)  # (R, V)
    vocab = scores.shape[-1]
    # Before the first token there is one hypothesis, not `beam` copies of it.
    totals = torch.full((rows, beam), -torch.inf, device=device)
    totals[:, 0] = 0
    scores = scores[:, None].expand(rows, beam, vocab)
    tokens = torch.zeros(rows, beam, 0, dtype=torch.long, device=device)
    each_row = torch.arange(rows, device=device)[:, None]
    width = prompts * beam  # hypotheses of an utterance, as columns of the cache
    ancestors = torch.zeros(batch, width, 0, dtype=torch.bool, device=device)
    own = torch.eye(width, dtype=torch.bool, device=device).expand(batch, -1, -1)
    sees_prompt = sees_prompt.repeat_interleave(beam, dim=1)  # (B, width, P)
    start = start.repeat_interleave(beam, dim=1)  # (B, width)
    each_utterance = torch.arange(batch, device=device)[:, None]
    first_column = torch.arange(prompts, device=device)[:, None] * beam
    finished: list[list[Hypothesis]] = [[] for _ in range(rows)]
    done = [False] * rows

    for step in range(max_new_tokens):
        candidates = (totals[..., None] + scores).flatten(1)  # (R, beam * V)
        # Every beam may end here, and `beam` that go on are still wanted.
        best, index = candidates.topk(min(2 * beam, candidates.shape[1]), dim=1)
        parents, words = index.div(vocab, rounding_mode="floor"), index % vocab
        ends = words == eos_id
        norm = (step + 1) ** length_penalty
        for row in range(rows):
            if done[row]:
                continue
            for place in ends[row, :beam].nonzero().flatten().tolist():
                score = float(best[row, place]) / norm
                if score > -torch.inf:
                    history = tokens[row, parents[row, place]].tolist()
                    finished[row].append(Hypothesis(history, score, True))
        # The best `beam` candidates that do not end, in order.
        order = ends.to(torch.int8).argsort(dim=1, stable=True)[:, :beam]
        totals = best.gather(1, order).masked_fill(ends.gather(1, order), -torch.inf)
        parents, words = parents.gather(1, order), words.gather(1, order)
        if totals.shape[1] < beam:  # a vocabulary smaller than the beam
            missing = beam - totals.shape[1]
            totals = torch.nn.functional.pad(totals, (0, missing), value=-torch.inf)
            parents = torch.nn.functional.pad(parents, (0, missing))
            words = torch.nn.functional.pad(words, (0, missing))
        tokens = torch.cat([tokens[each_row, parents], words[:, :, None]], dim=2)
        longest = max_new_tokens if length_penalty > 0 else step + 2
        bound = (totals[:, 0] / longest**length_penalty).tolist()
        for row in range(rows):
            best_finished = max((h.score for h in finished[row]), default=-torch.inf)
            done[row] = done[row] or best_finished >= bound[row]
        if all(done) or step + 1 == max_new_tokens:
            break
        columns = (parents.view(batch, prompts, beam) + first_column).flatten(1)
        ancestors = torch.cat([ancestors[each_utterance, columns], own], dim=2)
        output = lm(
            input_ids=words.view(batch, width),
            attention_mask=torch.cat([sees_prompt, ancestors], dim=2)[:, None],
            position_ids=start + step,
            past_key_values=cache,
            use_cache=True,
        )
        scores = output.logits.float().log_softmax(-1).view(rows, beam, vocab)

    results = []
    norm = tokens.shape[2] ** length_penalty
    for row in range(rows):
        hypotheses = finished[row]
        if not done[row]:
            open_scores = (totals[row] / norm).tolist()
            hypotheses += [
                Hypothesis(history, score, False)
                for history, score in zip(tokens[row].tolist(), open_scores, strict=True)
                if score > -torch.inf
            ]
        hypotheses.sort(key=lambda hypothesis: -hypothesis.score)
        results.append(hypotheses[:beam])
    return [results[leaf::prompts] for leaf in range(prompts)]


def _run_prompts(
    lm: nn.Module, nodes: list[Node], leaves: Sequence[int], cache: DynamicCache
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Fill the cache with the tree; what follows each prompt's last token.

    Returns:
        logits (B, C, V) in float32, what a continuation sees of the tree (B, C, P), and the
        position (B, C) of its first token.
    """
    embeds, mask, positions, attention, offsets = pack_tree(nodes)
    last = []
    for leaf in leaves:
        places = torch.arange(nodes[leaf].mask.shape[1], device=mask.device)
        last.append(offsets[leaf] + torch.where(nodes[leaf].mask, places, -1).amax(1))
    last = torch.stack(last, dim=1)  # (B, C)
    wanted, which = last.unique(return_inverse=True)
    output = lm(
        inputs_embeds=embeds,
        attention_mask=attention,
        position_ids=positions,
        past_key_values=cache,
        use_cache=True,
        logits_to_keep=wanted,
    )
    each = torch.arange(len(mask), device=mask.device)[:, None]
    return output.logits[each, which].float(), attention[each, 0, last], positions[each, last] + 1
