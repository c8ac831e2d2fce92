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
