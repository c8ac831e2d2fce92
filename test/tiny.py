"""Tiny random models on disk, in the formats of the real ones."""

from pathlib import Path

import torch
from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from tokenizers.decoders import ByteLevel
from transformers import (
    AutoModelForCausalLM,
    DynamicCache,
    LlamaConfig,
    PreTrainedTokenizerFast,
    WhisperConfig,
    WhisperModel,
)

from mome.llm.prompt_tree import Node

WORDS = "place set lay bin the red blue green white book table cup now again soon please one two"


# Of a random LM of any Transformers class.
SIZES = {
    "vocab_size": 60,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
}


def make_lm(folder: Path, seed: int = 0, config_class=LlamaConfig, **changes) -> Path:
    """An LM of two layers with a byte-level tokenizer; its pad token is its EOS token.

    Args:
        folder: where it is saved.
        seed: of its weights.
        config_class: of a causal LM of Transformers.
        **changes: of its configuration.
    """
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=["<s>", "</s>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator([WORDS, "Transcribe speech and video to text."], trainer)
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", pad_token="</s>"
    ).save_pretrained(folder)
    torch.manual_seed(seed)
    sizes = {
        "vocab_size": tokenizer.get_vocab_size(),
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "pad_token_id": None,
        "bos_token_id": 0,
        "eos_token_id": 1,
    }
    config = config_class(**sizes | changes)
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    return folder


def make_whisper(folder: Path, seed: int = 0) -> Path:
    """A Whisper of two encoder layers."""
    torch.manual_seed(seed)
    config = WhisperConfig(
        vocab_size=100,
        d_model=32,
        encoder_layers=2,
        decoder_layers=1,
        encoder_attention_heads=4,
        decoder_attention_heads=4,
        encoder_ffn_dim=64,
        decoder_ffn_dim=64,
        pad_token_id=0,
        bos_token_id=0,
        eos_token_id=1,
        decoder_start_token_id=1,
        suppress_tokens=None,
        begin_suppress_tokens=None,
    )
    WhisperModel(config).save_pretrained(folder)
    return folder


@torch.no_grad()
def prompt_and_step(lm, ids):
    """Logits of a prompt and of a step after it."""
    cache = DynamicCache(config=lm.config)
    prompt = lm(ids[:, :-1], past_key_values=cache).logits
    return torch.cat([prompt, lm(ids[:, -1:], past_key_values=cache).logits], dim=1)


def random_tree(dim: int, generator: torch.Generator) -> list[Node]:
    """root -> (a -> (b, c), d), with padding at random places of every node but the root."""
    nodes = []
    for parent, length in [(None, 2), (0, 4), (1, 5), (1, 3), (0, 4)]:
        mask = torch.rand(3, length, generator=generator) > 0.3
        mask[:, -1] = True
        if parent is None:
            mask[:] = True
        nodes.append(Node(torch.randn(3, length, dim, generator=generator), mask, parent))
    return nodes


def plain_search(lm, prompt, beam: int, limit: int) -> list[tuple[list[int], float, bool]]:
    """Beam search of one prompt (L, D) without cache and mask: every hypothesis runs as a whole.

    Returns:
        up to ``beam`` (tokens, score, finished), best first.
    """
    alive, finished = [((), 0.0)], []
    for _ in range(limit):
        candidates = []
        for words, total in alive:
            ids = torch.tensor(words, dtype=torch.long)
            given = torch.cat([prompt, lm.get_input_embeddings()(ids)])
            with torch.no_grad():
                logp = lm(inputs_embeds=given[None], use_cache=False).logits[0, -1].log_softmax(-1)
            candidates += [((*words, word), total + p) for word, p in enumerate(logp.tolist())]
        candidates.sort(key=lambda candidate: -candidate[1])
        finished += [candidate for candidate in candidates[:beam] if candidate[0][-1] == 1]
        alive = [candidate for candidate in candidates if candidate[0][-1] != 1][:beam]
        if finished and max(score for _, score in finished) >= alive[0][1]:
            alive = []
            break
    found = [(list(words[:-1]), score, True) for words, score in finished]
    found += [(list(words), score, False) for words, score in alive]
    return sorted(found, key=lambda hypothesis: -hypothesis[1])[:beam]
