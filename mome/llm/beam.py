"""Batched beam search for a causal LM whose prompts are given as embeddings.

An utterance may have several prompts, one for each task and rate pair. Prompts that begin alike
share their beginning: they come as a tree (see :mod:`mome.llm.prompt_tree`), which runs once per
utterance, never per beam. The hypotheses of all prompts lie side by side in the same row of the
key/value cache, and an attention mask lets each see its own prompt and its own ancestors only, so
that following another beam changes the mask and no cache is copied or reordered.

The search sees one batch in two ways: :class:`Beams` keeps the hypotheses of each prompt, and
:class:`Columns` places those of an utterance in the cache. Both stay on the LM's device. A step
fetches a single number from there, whether all prompts are done; the transcripts are fetched at the
end.

Letters in shapes: B utterances with C prompts each are R = B * C prompts, the C of an utterance one
after the other; each keeps K hypotheses of V words; P columns of the cache hold the tree.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from transformers import DynamicCache, PreTrainedModel

from mome.adapters import Adapter
from mome.llm.masks import TreeMasks
from mome.llm.prompt_tree import Node, column_pairs, node_pairs, pack_tree


@dataclass(frozen=True)
class Hypothesis:
    """One transcript.

    Attributes:
        tokens: token ids without EOS.
        score: sum of log-probabilities (EOS included) over (tokens + EOS) ** length_penalty.
        finished: whether it ended by EOS rather than by the limit of tokens.
        log_probs: of each token, and of EOS at the end if it is finished.
    """

    tokens: list[int]
    score: float
    finished: bool
    log_probs: list[float]


class UndefinedScores(FloatingPointError):
    """Words of some utterances have a probability that is no number.

    Attributes:
        places: of these utterances in the batch.
    """

    def __init__(self, places: Sequence[int]):
        super().__init__(f"utterances {', '.join(map(str, places))} of the batch have no scores")
        self.places = places

    def naming(self, utterances: Sequence[str]) -> FloatingPointError:
        """The same error for a user, with names and what helps; ``utterances`` are the batch's."""
        return FloatingPointError(
            f"the LLM gives words no number as their probability for"
            f" {', '.join(utterances[place] for place in self.places)}: look at what is recorded"
            f" there; if it is sound, the weights are not: take those of an earlier epoch, or train"
            f" again with a lower optim_conf.lr; or 16 bits do not suffice the LLM (lm_dtype)"
        )


@torch.inference_mode()
def beam_search(
    lm: PreTrainedModel,
    nodes: list[Node],
    leaves: Sequence[int],
    *,
    beam: int,
    max_new_tokens: int,
    eos_id: int,
    length_penalty: float = 0.0,
    no_repeat_ngram_size: int = 0,
    adapter: Adapter | None = None,
) -> list[list[list[Hypothesis]]]:
    """Search the best continuations of each prompt of each utterance.

    A prompt stops when no hypothesis that is still open can overtake its best finished one: with
    ``length_penalty`` 0 scores only fall; otherwise the bound takes the longest length.

    Args:
        lm: Hugging Face causal LM that reads trees (docs/llms.md).
        nodes: tree of prompts of B utterances, parents before children.
        leaves: C nodes where prompts end.
        beam: hypotheses kept per prompt; 1 is greedy search.
        max_new_tokens: longest transcript, EOS included.
        eos_id: end-of-sentence token.
        length_penalty: exponent of the length that divides the score, as in Transformers; greedy
            search, which compares nothing, has none.
        no_repeat_ngram_size: no n-gram of so many tokens occurs twice in a transcript; 0 allows it.
            It is meant against loops, and also forbids what was really said twice.
        adapter: the LM's; needed if it differs by rate pair (``by_pair``).

    Returns:
        per leaf and utterance up to ``beam`` hypotheses, best first, at least one.

    Raises:
        ValueError: for a beam or a limit below 1, a negative size of n-grams, a leaf without
            tokens, or an LM whose layers take no mask of a tree.
        UndefinedScores: if the LM gives NaN for an utterance.
    """
    if beam < 1 or max_new_tokens < 1:
        raise ValueError(f"beam={beam} and max_new_tokens={max_new_tokens} must be at least 1")
    if no_repeat_ngram_size < 0:
        raise ValueError(f"no_repeat_ngram_size={no_repeat_ngram_size} must be at least 0")
    if not bool(torch.stack([nodes[leaf].mask.any(1).all() for leaf in leaves]).all()):
        raise ValueError("a prompt of the batch has no tokens")
    if beam == 1:
        length_penalty = 0.0
    masks = TreeMasks(lm)
    # By the LM's configuration, layers with a window would keep the last columns of the tree.
    cache = DynamicCache()
    if adapter is not None:
        adapter.select_pairs(column_pairs(nodes))
    logits, columns = run_prompts(lm, nodes, leaves, beam, masks, cache)
    if adapter is not None:
        pairs = node_pairs(nodes)
        adapter.select_pairs([pairs[leaf] for leaf in leaves for _ in range(beam)])
    batch, prompts, vocab = logits.shape
    beams = Beams(batch * prompts, beam, max_new_tokens, eos_id, length_penalty, logits.device)
    scores = logits.log_softmax(-1).view(-1, 1, vocab).expand(-1, beam, -1)
    said = logits.new_zeros(batch * prompts, beam, 0, dtype=torch.long)
    while beams.advance(scores):
        words, sees, positions = columns.follow(beams.words, beams.parents)
        output = lm(
            input_ids=words,
            attention_mask=masks(sees, positions, columns.placed),
            position_ids=positions,
            past_key_values=cache,
            use_cache=True,
        )
        scores = output.logits.float().log_softmax(-1).view(-1, beam, vocab)
        if no_repeat_ngram_size:
            followed = said.take_along_dim(beams.parents[..., None], dim=1)
            said = torch.cat([followed, beams.words[..., None]], dim=2)
            forbid_repeats(scores, said, no_repeat_ngram_size)
    if undefined := beams.undefined():
        raise UndefinedScores(sorted({prompt // prompts for prompt in undefined}))
    results = beams.results()
    return [results[leaf::prompts] for leaf in range(prompts)]


def forbid_repeats(scores: torch.Tensor, said: torch.Tensor, size: int) -> None:
    """Make words impossible that would complete a sequence of ``size`` tokens a second time.

    Args:
        scores: (R, K, V), changed in place.
        said: (R, K, T) tokens of the hypotheses so far.
        size: of the sequences.
    """
    if said.shape[2] < size:
        return
    sequences = said.unfold(2, size, 1)  # (R, K, T - size + 1, size)
    present = said[:, :, None, said.shape[2] - size + 1 :]
    again = (sequences[..., :-1] == present).all(-1)
    banned = torch.where(again, -torch.inf, 0.0).to(scores)
    scores.scatter_add_(2, sequences[..., -1], banned)


@dataclass(frozen=True)
class Step:
    """What a step of the search appended to the hypotheses of R prompts.

    Attributes:
        words: (R, K) words of the open hypotheses.
        parents: (R, K) the open hypothesis of the step before that each goes on from.
        totals: (R, K) their sums of log-probabilities.
        ended: (R, K) sums of log-probabilities of hypotheses that ended, best first, -inf where
            none did.
        ended_parents: (R, K) the open hypothesis of the step before that each of them ended.
    """

    words: torch.Tensor
    parents: torch.Tensor
    totals: torch.Tensor
    ended: torch.Tensor
    ended_parents: torch.Tensor


class Beams:
    """The open and the finished hypotheses of R prompts.

    Args:
        prompts: R.
        beam: K, hypotheses kept per prompt.
        limit: longest hypothesis, EOS included.
        eos_id: end-of-sentence token.
        length_penalty: exponent of the length that divides scores.
        device: of the scores.
    """

    def __init__(
        self,
        prompts: int,
        beam: int,
        limit: int,
        eos_id: int,
        length_penalty: float,
        device: torch.device,
    ):
        self.beam = beam
        self.limit = limit
        self.eos_id = eos_id
        self.length_penalty = length_penalty
        # Before the first token there is one hypothesis, not `beam` copies of it.
        self.totals = torch.full((prompts, beam), -torch.inf, device=device)
        self.totals[:, 0] = 0
        self.best_finished = torch.full((prompts,), -torch.inf, device=device)
        self.done = torch.zeros(prompts, dtype=torch.bool, device=device)
        self.steps: list[Step] = []

    @property
    def words(self) -> torch.Tensor:
        """(R, K) last words of the open hypotheses."""
        return self.steps[-1].words

    @property
    def parents(self) -> torch.Tensor:
        """(R, K) the open hypotheses of the step before that the present ones go on from."""
        return self.steps[-1].parents

    def advance(self, scores: torch.Tensor) -> bool:
        """Choose the next words.

        Args:
            scores: (R, K, V) log-probabilities of the words after each open hypothesis.

        Returns:
            whether another step is needed.
        """
        vocab = scores.shape[-1]
        candidates = (self.totals[..., None] + scores).flatten(1)  # (R, K * V)
        # Every hypothesis may end here, and `beam` that go on are still wanted.
        best, index = candidates.topk(min(2 * self.beam, candidates.shape[1]), dim=1)
        parents, words = index.div(vocab, rounding_mode="floor"), index % vocab
        ends = words == self.eos_id
        ended = best.masked_fill(~ends | self.done[:, None], -torch.inf)[:, : self.beam]
        # The best `beam` candidates that do not end, in order.
        order = ends.to(torch.int8).argsort(dim=1, stable=True)[:, : self.beam]
        self.totals = best.gather(1, order).masked_fill(ends.gather(1, order), -torch.inf)
        self.steps.append(
            Step(
                words.gather(1, order),
                parents.gather(1, order),
                self.totals,
                ended,
                parents[:, : self.beam],
            )
        )
        self._mark_done()
        return len(self.steps) < self.limit and not bool(self.done.all())

    def _mark_done(self) -> None:
        """Find the prompts whose best finished hypothesis no open one can overtake."""
        length = len(self.steps)
        ended = self.steps[-1].ended.amax(1) / length**self.length_penalty
        self.best_finished = torch.maximum(self.best_finished, ended)
        longest = self.limit if self.length_penalty > 0 else length + 1
        self.done = self.done | (
            self.best_finished >= self.totals[:, 0] / longest**self.length_penalty
        )

    def undefined(self) -> list[int]:
        """The prompts of which a hypothesis had NaN as its score, in any step."""
        scores = torch.stack([torch.stack([step.totals, step.ended]) for step in self.steps])
        wrong = scores.isnan().any(dim=(0, 1, 3)).tolist()
        return [prompt for prompt, is_wrong in enumerate(wrong) if is_wrong]

    def results(self) -> list[list[Hypothesis]]:
        """The best hypotheses of each prompt, up to K, best first."""
        words, parents = self._fetch("words"), self._fetch("parents")
        ended, ended_parents = self._fetch("ended"), self._fetch("ended_parents")
        sums = self._fetch("totals")
        totals, done = self.totals.tolist(), self.done.tolist()

        def hypothesis(
            prompt: int, score: float, length: int, place: int, finished: bool
        ) -> Hypothesis:
            """An open hypothesis of ``length`` words, or one that ended after these."""
            tokens = []
            reached = [score * (length + 1) ** self.length_penalty] if finished else []
            for step in reversed(range(length)):
                tokens.append(words[step][prompt][place])
                reached.append(sums[step][prompt][place])
                place = parents[step][prompt][place]
            log_probs = [after - before for before, after in pairwise([0.0, *reached[::-1]])]
            return Hypothesis(tokens[::-1], score, finished, log_probs)

        results = []
        for prompt in range(len(totals)):
            # Score, number of words, place among the open hypotheses of that many, finished.
            found = [
                (total / (step + 1) ** self.length_penalty, step, parent, True)
                for step in range(len(self.steps))
                for total, parent in zip(
                    ended[step][prompt], ended_parents[step][prompt], strict=True
                )
            ]
            if not done[prompt]:
                length = len(self.steps)
                found += [
                    (total / length**self.length_penalty, length, place, False)
                    for place, total in enumerate(totals[prompt])
                ]
            found = [each for each in found if each[0] > -torch.inf]
            found.sort(key=lambda each: -each[0])
            results.append([hypothesis(prompt, *each) for each in found[: self.beam]])
        return results

    def _fetch(self, field: str) -> list[list[list]]:
        """A field of all steps as nested lists: step, prompt, place."""
        return torch.stack([getattr(step, field) for step in self.steps]).tolist()


class Columns:
    """The hypotheses of all prompts of an utterance as columns of the key/value cache.

    Every step appends W = C * K columns, the K of a prompt one after the other.

    Args:
        sees_prompt: (B, C, P) True where a continuation of a prompt sees a column of the tree.
        start: (B, C) position of the first word after each prompt.
        beam: K.
        placed: (B, P) positions of the tree's columns, for an LM whose masks ask for them.

    Attributes:
        placed: (B, P + steps * W) positions of all columns so far, or None.
    """

    def __init__(
        self,
        sees_prompt: torch.Tensor,
        start: torch.Tensor,
        beam: int,
        placed: torch.Tensor | None = None,
    ):
        batch, prompts, _ = sees_prompt.shape
        device = sees_prompt.device
        self.sees = sees_prompt.repeat_interleave(beam, dim=1)  # (B, W, P)
        self.positions = start.repeat_interleave(beam, dim=1) - 1  # (B, W)
        self.placed = placed
        self.own = torch.eye(prompts * beam, dtype=torch.bool, device=device)
        self.own = self.own.expand(batch, -1, -1)
        self.each_utterance = torch.arange(batch, device=device)[:, None]
        self.first = torch.arange(prompts, device=device)[:, None] * beam

    def follow(
        self, words: torch.Tensor, parents: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Append a word to each hypothesis.

        Args:
            words: (R, K).
            parents: (R, K) the hypothesis of the same prompt that each goes on from.

        Returns:
            words (B, W), what they see of the cache and of themselves (B, 1, W, P + steps * W), and
            their positions (B, W).
        """
        shape = len(self.sees), len(self.first), -1
        columns = (parents.view(shape) + self.first).flatten(1)
        self.sees = torch.cat([self.sees[self.each_utterance, columns], self.own], dim=2)
        self.positions = self.positions + 1
        if self.placed is not None:
            self.placed = torch.cat([self.placed, self.positions], dim=1)
        return words.view(shape).flatten(1), self.sees[:, None], self.positions


def run_prompts(
    lm: PreTrainedModel,
    nodes: list[Node],
    leaves: Sequence[int],
    beam: int,
    masks: TreeMasks,
    cache: DynamicCache,
) -> tuple[torch.Tensor, Columns]:
    """Fill the cache with the tree; what follows each prompt's last token.

    Returns:
        logits (B, C, V) in float32, and the columns of hypotheses to come.
    """
    embeds, mask, positions, attention, offsets = pack_tree(nodes)
    ends = []
    for leaf in leaves:
        places = torch.arange(nodes[leaf].mask.shape[1], device=mask.device)
        ends.append(offsets[leaf] + torch.where(nodes[leaf].mask, places, -1).amax(1))
    last = torch.stack(ends, dim=1)  # (B, C)
    wanted, which = last.unique(return_inverse=True)
    output = lm(
        inputs_embeds=embeds,
        attention_mask=masks(attention, positions),
        position_ids=positions,
        past_key_values=cache,
        use_cache=True,
        logits_to_keep=wanted,
    )
    each = torch.arange(len(mask), device=mask.device)[:, None]
    logits = output.logits[each, which].float()
    placed = None if masks.windows is None else positions
    return logits, Columns(attention[each, 0, last], positions[each, last] + 1, beam, placed)
