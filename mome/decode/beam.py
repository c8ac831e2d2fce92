"""Batched beam search for a causal LM whose prompt is given as embeddings.

The prompt runs once per utterance, never per beam. The beams' own tokens lie side by side in the
same row of the key/value cache, and an attention mask lets a beam see the prompt and its own
ancestors only, so that following another beam changes the mask and no cache is copied or reordered.
"""

from dataclasses import dataclass

import torch
from torch import nn
from transformers import DynamicCache


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
    embeds: torch.Tensor,
    mask: torch.Tensor,
    *,
    beam: int,
    max_new_tokens: int,
    eos_id: int,
    length_penalty: float = 0.0,
) -> list[list[Hypothesis]]:
    """Search the best continuations of each prompt.

    An utterance stops when no hypothesis that is still open can overtake its best finished one:
    with ``length_penalty`` 0 scores only fall; otherwise the bound takes the longest length.

    Args:
        lm: any Hugging Face causal LM.
        embeds: (B, P, D) prompts.
        mask: (B, P) True for tokens; padding may stand anywhere.
        beam: hypotheses kept per utterance; 1 is greedy search.
        max_new_tokens: longest transcript, EOS included.
        eos_id: end-of-sentence token.
        length_penalty: exponent of the length that divides the score, as in Transformers.

    Returns:
        per utterance up to ``beam`` hypotheses, best first, at least one.

    Raises:
        ValueError: for a beam or a limit below 1, or a prompt without tokens.
    """
    if beam < 1 or max_new_tokens < 1:
        raise ValueError(f"beam={beam} and max_new_tokens={max_new_tokens} must be at least 1")
    if not bool(mask.any(1).all()):
        raise ValueError("a prompt of the batch has no tokens")
    batch = len(mask)
    device = embeds.device
    rows = torch.arange(batch, device=device)
    cache = DynamicCache(config=lm.config)
    logits = _run_prompt(lm, embeds, mask, cache)
    scores = logits.log_softmax(-1)  # (B, V)
    vocab = scores.shape[-1]
    # Before the first token there is one hypothesis, not `beam` copies of it.
    totals = torch.full((batch, beam), -torch.inf, device=device)
    totals[:, 0] = 0
    scores = scores[:, None].expand(batch, beam, vocab)
    tokens = torch.zeros(batch, beam, 0, dtype=torch.long, device=device)
    ancestors = torch.zeros(batch, beam, 0, dtype=torch.bool, device=device)
    start = mask.sum(1)
    finished: list[list[Hypothesis]] = [[] for _ in range(batch)]
    done = [False] * batch

    for step in range(max_new_tokens):
        candidates = (totals[..., None] + scores).flatten(1)  # (B, beam * V)
        # Every beam may end here, and `beam` that go on are still wanted.
        best, index = candidates.topk(min(2 * beam, candidates.shape[1]), dim=1)
        parents, words = index.div(vocab, rounding_mode="floor"), index % vocab
        ends = words == eos_id
        norm = (step + 1) ** length_penalty
        for row in range(batch):
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
        tokens = torch.cat([tokens[rows[:, None], parents], words[:, :, None]], dim=2)
        longest = max_new_tokens if length_penalty > 0 else step + 2
        bound = (totals[:, 0] / longest**length_penalty).tolist()
        for row in range(batch):
            best_finished = max((h.score for h in finished[row]), default=-torch.inf)
            done[row] = done[row] or best_finished >= bound[row]
        if all(done) or step + 1 == max_new_tokens:
            break
        own = torch.eye(beam, dtype=torch.bool, device=device).expand(batch, beam, beam)
        ancestors = torch.cat([ancestors[rows[:, None], parents], own], dim=2)
        sees = torch.cat([mask[:, None].expand(-1, beam, -1), ancestors], dim=2)[:, None]
        output = lm(
            input_ids=words,
            attention_mask=sees,
            position_ids=(start + step)[:, None].expand(-1, beam),
            past_key_values=cache,
            use_cache=True,
        )
        scores = output.logits.float().log_softmax(-1)

    results = []
    norm = tokens.shape[2] ** length_penalty
    for row in range(batch):
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
    return results


def _run_prompt(
    lm: nn.Module, embeds: torch.Tensor, mask: torch.Tensor, cache: DynamicCache
) -> torch.Tensor:
    """Fill the cache with the prompts; logits (B, V) after each one's last token, float32."""
    length = mask.shape[1]
    places = torch.arange(length, device=mask.device)
    causal = places[:, None] >= places
    eye = torch.eye(length, dtype=torch.bool, device=mask.device)
    attention = ((causal & mask[:, None, :]) | eye)[:, None]
    last = torch.where(mask, places, -1).amax(1)
    wanted, which = last.unique(return_inverse=True)
    output = lm(
        inputs_embeds=embeds,
        attention_mask=attention,
        position_ids=(mask.cumsum(1) - 1).clamp(min=0),
        past_key_values=cache,
        use_cache=True,
        logits_to_keep=wanted,
    )
    return output.logits[torch.arange(len(mask), device=mask.device), which].float()
