"""Beam search against exhaustive search and Transformers' own generate."""

import itertools

import pytest
import torch
from tiny import SIZES, plain_search
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import AutoModelForCausalLM, Gemma2Config, LlamaConfig, LlamaForCausalLM

from mome.llm.attention import use_matrix_products
from mome.llm.beam import Beams, Hypothesis, UndefinedScores, beam_search
from mome.llm.prompt_tree import Node


def make_lm(vocab: int, seed: int = 0, scale: float = 3.0) -> LlamaForCausalLM:
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=vocab,
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        eos_token_id=1,
        bos_token_id=0,
        pad_token_id=1,
        tie_word_embeddings=False,
    )
    lm = LlamaForCausalLM(config).eval()
    lm.lm_head.weight.data.mul_(scale * 20)  # peaked, so that beams differ
    return lm


def prompts(count: int, length: int, seed: int = 0, holes: bool = True):
    generator = torch.Generator().manual_seed(seed)
    embeds = torch.randn(count, length, 16, generator=generator)
    mask = torch.rand(count, length, generator=generator) > (0.3 if holes else -1)
    mask[:, 0] = True
    return embeds, mask


def search(lm, embeds, mask, **options) -> list[list[Hypothesis]]:
    """One prompt for each utterance: its hypotheses."""
    return beam_search(lm, [Node(embeds, mask, None)], [0], **options)[0]


def test_a_wide_beam_finds_the_best_of_all_sentences():
    lm = make_lm(vocab=5, scale=0.3)
    embeds, mask = prompts(1, 4, holes=False)
    limit, best = 4, None
    for length in range(limit):
        for words in itertools.product([0, 2, 3, 4], repeat=length):
            ids = torch.tensor([*words, 1])
            with torch.no_grad():
                given = torch.cat([embeds, lm.get_input_embeddings()(ids[:-1])[None]], 1)
                logp = lm(inputs_embeds=given).logits[0, -len(ids) :].log_softmax(-1)
            score = float(logp[torch.arange(len(ids)), ids].sum())
            if best is None or score > best[0]:
                best = score, list(words), logp[torch.arange(len(ids)), ids].tolist()
    found = search(lm, embeds, mask, beam=300, max_new_tokens=limit, eos_id=1)[0]
    finished = [hypothesis for hypothesis in found if hypothesis.finished]
    assert finished[0].tokens == best[1]
    assert finished[0].score == pytest.approx(best[0], abs=1e-4)
    assert finished[0].log_probs == pytest.approx(best[2], abs=1e-4)
    for each in found:
        assert sum(each.log_probs) == pytest.approx(each.score, abs=1e-4)
        assert len(each.log_probs) == len(each.tokens) + each.finished


@pytest.mark.parametrize("penalty", [0.0, 1.0])
@pytest.mark.parametrize("beam", [1, 4])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_equals_transformers_generate(beam, seed, penalty):
    lm = make_lm(vocab=30, seed=seed)
    embeds, _ = prompts(3, 6, seed, holes=False)
    mask = torch.ones(3, 6, dtype=torch.bool)
    options = {"max_new_tokens": 10, "length_penalty": penalty}
    ours = search(lm, embeds, mask, beam=beam, eos_id=1, **options)
    theirs = lm.generate(
        inputs_embeds=embeds,
        attention_mask=mask.long(),
        num_beams=beam,
        do_sample=False,
        early_stopping="never",
        **options,
    )
    for row in range(3):
        expected = theirs[row].tolist()
        expected = expected[: expected.index(1)] if 1 in expected else expected
        assert ours[row][0].tokens == expected


@pytest.mark.parametrize("beam", [1, 4])
@pytest.mark.parametrize("size", [1, 2, 3])
def test_repeats_are_forbidden_as_by_transformers(beam, size):
    lm = make_lm(vocab=8, seed=1, scale=0.5)
    lm.lm_head.weight.data[1] = 0  # transcripts are long
    embeds, mask = prompts(4, 6, seed=1, holes=False)
    options = {"max_new_tokens": 12, "length_penalty": 2.0}
    theirs = lm.generate(
        inputs_embeds=embeds,
        attention_mask=mask.long(),
        no_repeat_ngram_size=size,
        num_beams=beam,
        do_sample=False,
        early_stopping="never",
        **options,
    )
    common = {"beam": beam, "eos_id": 1, **options}
    ours = search(lm, embeds, mask, no_repeat_ngram_size=size, **common)
    free = search(lm, embeds, mask, **common)
    for row in range(4):
        expected = theirs[row].tolist()
        expected = expected[: expected.index(1)] if 1 in expected else expected
        assert ours[row][0].tokens == expected
        said = list(zip(*(ours[row][0].tokens[i:] for i in range(size)), strict=False))
        assert len(set(said)) == len(said)
    assert [row[0].tokens for row in ours] != [row[0].tokens for row in free]


@pytest.mark.parametrize("beam", [1, 5])
def test_an_utterance_decodes_the_same_alone_and_in_any_batch(beam):
    lm = make_lm(vocab=30, seed=3)
    embeds, mask = prompts(6, 12, seed=3)
    together = search(lm, embeds, mask, beam=beam, max_new_tokens=8, eos_id=1)
    for row in range(6):
        short = embeds[row][mask[row]][None]
        whole = torch.ones(1, short.shape[1], dtype=torch.bool)
        alone = search(lm, short, whole, beam=beam, max_new_tokens=8, eos_id=1)[0]
        assert alone[0].tokens == together[row][0].tokens
        assert alone[0].score == pytest.approx(together[row][0].score, abs=1e-4)


@pytest.mark.parametrize("beam", [1, 5])
def test_prompts_of_a_tree_decode_as_each_does_alone(beam):
    lm = make_lm(vocab=30, seed=4)
    nodes = []
    for seed, parent in enumerate([None, 0, 1, 1, 0]):
        nodes.append(Node(*prompts(3, 6, seed=10 + seed), parent))
    paths = {2: (0, 1, 2), 3: (0, 1, 3), 4: (0, 4)}
    together = beam_search(lm, nodes, list(paths), beam=beam, max_new_tokens=8, eos_id=1)
    texts = set()
    for found, path in zip(together, paths.values(), strict=True):
        embeds = torch.cat([nodes[index].embeds for index in path], dim=1)
        mask = torch.cat([nodes[index].mask for index in path], dim=1)
        alone = search(lm, embeds, mask, beam=beam, max_new_tokens=8, eos_id=1)
        for ours, expected in zip(found, alone, strict=True):
            assert [h.tokens for h in ours] == [h.tokens for h in expected]
            assert ours[0].score == pytest.approx(expected[0].score, abs=1e-4)
            texts.add(tuple(ours[0].tokens))
    assert len(texts) > 5  # the prompts matter


def test_scores_are_those_of_the_tokens():
    lm = make_lm(vocab=20, seed=5)
    embeds, mask = prompts(2, 5, seed=5)
    for row, hypotheses in enumerate(search(lm, embeds, mask, beam=4, max_new_tokens=6, eos_id=1)):
        for hypothesis in hypotheses:
            ids = torch.tensor(hypothesis.tokens + [1] * hypothesis.finished)
            given = embeds[row][mask[row]]
            given = torch.cat([given, lm.get_input_embeddings()(ids[:-1])])[None]
            with torch.no_grad():
                logp = lm(inputs_embeds=given).logits[0, -len(ids) :].log_softmax(-1)
            expected = float(logp[torch.arange(len(ids)), ids].sum())
            assert hypothesis.score == pytest.approx(expected, abs=1e-3)


def test_the_limit_ends_a_sentence_that_never_stops():
    lm = make_lm(vocab=20, seed=1)
    embeds, mask = prompts(2, 5)
    for hypotheses in search(lm, embeds, mask, beam=3, max_new_tokens=4, eos_id=19_999):
        assert [len(h.tokens) for h in hypotheses] == [4, 4, 4]
        assert not any(h.finished for h in hypotheses)


@pytest.mark.parametrize("beam", [1, 3])
def test_an_lm_that_gives_nan_names_the_utterances(beam):
    lm = make_lm(vocab=30)
    embeds, mask = prompts(4, 6, holes=False)
    embeds[[1, 3], 2] = torch.nan
    with pytest.raises(UndefinedScores) as caught:
        search(lm, embeds, mask, beam=beam, max_new_tokens=5, eos_id=1)
    assert caught.value.places == [1, 3]
    said = str(caught.value.naming(["a_0", "a_1", "a_2", "a_3"]))
    assert "for a_1, a_3: look at" in said
    # Of the prompts of a tree it is the utterance that counts.
    nodes = [Node(embeds[:2, :2], mask[:2, :2], None)]
    nodes += [Node(embeds[:2, place:], mask[:2, place:], 0) for place in (2, 3)]
    with pytest.raises(UndefinedScores) as caught:
        beam_search(lm, nodes, [1, 2], beam=beam, max_new_tokens=5, eos_id=1)
    assert caught.value.places == [1]


def test_nan_is_found_in_any_step():
    """Also of a prompt that has a hypothesis from before."""
    scores = torch.full((2, 2, 5), 0.2).log()
    scores[:, :, 1] = -9.0
    beams = Beams(2, 2, limit=4, eos_id=1, length_penalty=0.0, device=scores.device)
    assert beams.advance(scores)
    assert beams.undefined() == []
    scores[1] = torch.nan
    beams.advance(scores)
    assert beams.undefined() == [1]


class Synchronisations(TorchDispatchMode):
    """Counts what makes the host wait: a value that is fetched, or a size that depends on one."""

    WAITING = ("_local_scalar_dense", "nonzero", "unique", "masked_select", "equal")

    def __init__(self):
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.count += any(name in str(func) for name in self.WAITING)
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("windows", [False, True])
@pytest.mark.parametrize("beam", [1, 4])
def test_a_step_fetches_one_number(monkeypatch, beam, windows):
    """Of the whole batch, whether all is done; with 64 of them a GPU waited most of the time."""
    lm = make_lm(vocab=30)
    if windows:
        config = {**SIZES, "vocab_size": 30, "hidden_size": 16, "head_dim": 4, "sliding_window": 8}
        lm = AutoModelForCausalLM.from_config(Gemma2Config(**config)).eval()
    lm.lm_head.weight.data[1] = 0  # transcripts are long
    embeds, mask = prompts(3, 6)
    advance, steps = Beams.advance, []
    monkeypatch.setattr(Beams, "advance", lambda *args: steps.append(1) or advance(*args))
    counts = {}
    for limit in (2, 6):
        steps.clear()
        with Synchronisations() as found:
            search(lm, embeds, mask, beam=beam, max_new_tokens=limit, eos_id=1)
        assert len(steps) == limit
        counts[limit] = found.count
    assert counts[6] - counts[2] == 4


def test_bad_arguments_are_refused():
    lm = make_lm(vocab=20)
    embeds, mask = prompts(2, 5)
    with pytest.raises(ValueError, match="at least 1"):
        search(lm, embeds, mask, beam=0, max_new_tokens=4, eos_id=1)
    with pytest.raises(ValueError, match="no tokens"):
        search(lm, embeds, mask & False, beam=2, max_new_tokens=4, eos_id=1)
    with pytest.raises(ValueError, match="no_repeat_ngram_size=-1"):
        search(lm, embeds, mask, beam=2, max_new_tokens=4, eos_id=1, no_repeat_ngram_size=-1)


@pytest.mark.parametrize(
    ("attention", "config_class"),
    [
        ("eager", LlamaConfig),
        ("eager", Gemma2Config),  # which has no other
        ("sdpa", LlamaConfig),
        ("matrix_products", LlamaConfig),
    ],
)
def test_every_attention_finds_what_a_search_without_cache_and_mask_finds(attention, config_class):
    torch.manual_seed(2)
    given = "eager" if attention == "eager" else "sdpa"
    config = config_class(**SIZES, pad_token_id=1, eos_token_id=1, attn_implementation=given)
    lm = AutoModelForCausalLM.from_config(config).eval()
    for parameter in lm.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    if attention == "matrix_products":
        use_matrix_products(lm)
    assert lm.config._attn_implementation == attention
    generator = torch.Generator().manual_seed(6)
    nodes = []
    for length, parent in [(2, None), (5, 0), (3, 1), (4, 1)]:
        mask = torch.rand(2, length, generator=generator) > 0.3
        mask[:, 0] = True
        embeds = torch.randn(2, length, SIZES["hidden_size"], generator=generator)
        nodes.append(Node(embeds, mask, parent))
    together = beam_search(lm, nodes, [2, 3], beam=3, max_new_tokens=5, eos_id=1)
    for leaf, of_utterances in zip((2, 3), together, strict=True):
        for row, found in enumerate(of_utterances):
            path = [nodes[index] for index in (0, 1, leaf)]
            prompt = torch.cat([node.embeds[row][node.mask[row]] for node in path])
            expected = plain_search(lm, prompt, beam=3, limit=5)
            assert [(h.tokens, h.finished) for h in found] == [(t, f) for t, _, f in expected]
            assert [h.score for h in found] == pytest.approx([s for _, s, _ in expected], abs=1e-3)


def test_attention_that_takes_no_mask_of_a_tree_is_refused():
    lm = make_lm(vocab=20)
    lm.config._attn_implementation = "flash_attention_2"
    with pytest.raises(ValueError, match="attn_implementation='sdpa' or 'eager'"):
        search(lm, *prompts(1, 4), beam=2, max_new_tokens=3, eos_id=1)
