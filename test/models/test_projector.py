"""The readout through the LLM's embeddings against its formula."""

import pytest
import torch
from tiny import SIZES
from transformers import AutoModelForCausalLM, Gemma2Config

from mome.models.projector import EmbeddingReadout


def slow_readout(token, blank, table, scale):
    """One token's mean embedding, entry by entry over the whole table, in float64."""
    entries = [blank, *table]
    scores = [scale * float((token @ entry).detach()) for entry in entries]
    highest = max(scores)
    weights = [torch.exp(torch.tensor(score - highest, dtype=torch.float64)) for score in scores]
    return sum(w * e for w, e in zip(weights, entries, strict=True)) / sum(weights)


def embeddings(table):
    return torch.nn.Embedding.from_pretrained(table)


@pytest.fixture
def readout():
    torch.manual_seed(0)
    return EmbeddingReadout(8, scale=3.0, top=50)


def test_readout_equals_its_formula(readout):
    tokens, table = torch.randn(2, 3, 8), torch.randn(50, 8)
    out = readout(tokens, embeddings(table))
    for batch in range(2):
        for place in range(3):
            expected = slow_readout(
                tokens[batch, place].double(), readout.blank[0].double(), table.double(), 3.0
            )
            torch.testing.assert_close(out[batch, place].double(), expected, atol=1e-5, rtol=1e-5)


def test_the_likeliest_stand_for_all(readout):
    table = torch.randn(50, 8)
    tokens = 2 * table[:6][None] + 0.1 * torch.randn(1, 6, 8)
    full = readout(tokens, embeddings(table))
    readout.top = 20
    torch.testing.assert_close(readout(tokens, embeddings(table)), full, atol=1e-3, rtol=0)


def test_posteriors_of_training_and_readout_agree(readout):
    tokens, table = torch.randn(2, 3, 8), torch.randn(50, 8)
    probabilities = readout.log_probs(tokens, table).exp()
    torch.testing.assert_close(probabilities.sum(-1), torch.ones(2, 3))
    mean = probabilities @ torch.cat([readout.blank, table])
    torch.testing.assert_close(mean, readout(tokens, embeddings(table)), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    ("dtype", "allowed"), [(torch.float32, 1e-5), (torch.bfloat16, 0.01), (torch.float16, 0.01)]
)
@pytest.mark.parametrize("flat", [False, True])
def test_posteriors_of_some_tokens_are_those_of_all(readout, dtype, allowed, flat, monkeypatch):
    """Also where no token is likely, and thousands that are rounded make the sum."""
    monkeypatch.setattr("mome.models.projector.WINDOWS", 4)
    table = torch.randn(3000, 8).to(dtype)
    tokens = 0.001 * torch.randn(6, 8) if flat else table[:6].float() + 0.1 * torch.randn(6, 8)
    ids = torch.tensor([1, 5, 2999, 0])
    wanted = readout.log_probs(tokens, table)
    total = readout.log_total(tokens, table)
    found = readout.log_probs_of(tokens, table[ids], total)
    torch.testing.assert_close(found[:, :1], wanted[:, :1], atol=allowed, rtol=0)
    torch.testing.assert_close(found[:, 1:], wanted[:, 1 + ids], atol=allowed, rtol=0)
    nothing = readout.log_probs_of(tokens, table[ids[:0]], total)
    torch.testing.assert_close(nothing, found[:, :1])


def test_an_llm_that_scales_its_embeddings_reads_what_it_would_of_the_tokens():
    torch.manual_seed(0)
    config = Gemma2Config(**SIZES, pad_token_id=None)
    lm = AutoModelForCausalLM.from_config(config).requires_grad_(False)
    ids = torch.tensor([[3, 17, 40]])
    read = lm.get_input_embeddings()(ids)
    table = lm.get_input_embeddings().weight
    assert not torch.allclose(read, table[ids], rtol=0.1)  # or nothing would be tested
    readout = EmbeddingReadout(SIZES["hidden_size"], scale=1e4, top=5)
    found = readout(table[ids], lm.get_input_embeddings())
    torch.testing.assert_close(found, read, atol=1e-4, rtol=1e-4)
    # The posteriors of the warm start, which is given what the LM reads, are those of the readout.
    tokens = torch.randn(1, 4, SIZES["hidden_size"])
    readout.scale, readout.top = 1.0, SIZES["vocab_size"]
    every = lm.get_input_embeddings()(torch.arange(SIZES["vocab_size"]))
    mean = readout.log_probs(tokens, every).exp() @ torch.cat([readout.blank, every])
    torch.testing.assert_close(readout(tokens, lm.get_input_embeddings()), mean)


def test_gradients(readout):
    readout.double()
    table = torch.randn(50, 8, dtype=torch.float64)
    tokens = torch.randn(1, 2, 8, dtype=torch.float64, requires_grad=True)

    def run(tokens, blank):
        return torch.func.functional_call(readout, {"blank": blank}, (tokens, embeddings(table)))

    blank = readout.blank.detach().clone().requires_grad_()
    assert torch.autograd.gradcheck(run, (tokens, blank))
