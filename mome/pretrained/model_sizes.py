"""Published sizes of the paper's models, for a dry run without access to the hub or a folder.

Llama: config.json of meta-llama/Llama-3.2-1B, Llama-3.2-3B and Llama-3.1-8B, and Grattafiori et al.
(arXiv 2407.21783), table 3. Whisper: Radford et al. (arXiv 2212.04356), table 1. A test compares
the numbers of parameters that follow from them with the published ones.
"""

from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import LlamaConfig, PretrainedConfig, PreTrainedTokenizerFast, WhisperConfig

LLAMA = {  # hidden size, layers, attention heads, key/value heads, feed-forward, tied embeddings
    "Llama-3.2-1B": (2048, 16, 32, 8, 8192, True),
    "Llama-3.2-3B": (3072, 28, 24, 8, 8192, True),
    "Llama-3.1-8B": (4096, 32, 32, 8, 14336, False),
}
WHISPER = {  # width, layers, heads
    "whisper-tiny": (384, 4, 6),
    "whisper-base": (512, 6, 8),
    "whisper-small": (768, 12, 12),
    "whisper-medium": (1024, 24, 16),
}
BOS, EOS = 128000, 128001


def published(name: str) -> PretrainedConfig | None:
    """The configuration of a published model by its hub name, or None for another name."""
    base = name.rpartition("/")[2].removesuffix("-Instruct")
    if base in LLAMA:
        hidden, layers, heads, kv_heads, ffn, tied = LLAMA[base]
        return LlamaConfig(
            vocab_size=128256,
            hidden_size=hidden,
            num_hidden_layers=layers,
            num_attention_heads=heads,
            num_key_value_heads=kv_heads,
            intermediate_size=ffn,
            tie_word_embeddings=tied,
            max_position_embeddings=131072,
            bos_token_id=BOS,
            eos_token_id=EOS,
        )
    base = base.removesuffix(".en")
    if base in WHISPER:
        width, layers, heads = WHISPER[base]
        return WhisperConfig(
            vocab_size=51864 if name.endswith(".en") else 51865,
            d_model=width,
            encoder_layers=layers,
            decoder_layers=layers,
            encoder_attention_heads=heads,
            decoder_attention_heads=heads,
            encoder_ffn_dim=4 * width,
            decoder_ffn_dim=4 * width,
        )
    return None


def words_tokenizer() -> PreTrainedTokenizerFast:
    """Replaces Llama's tokenizer in a dry run: one token for each word or punctuation mark."""
    tokenizer = Tokenizer(models.WordLevel({"<unk>": 0, "<s>": 1, "</s>": 2}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, unk_token="<unk>", bos_token="<s>", eos_token="</s>"
    )
