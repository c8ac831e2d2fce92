"""mome.tasks.transcript_length: how many tokens a transcript may have."""

import pytest
from transformers import AutoTokenizer

from mome.data.kaldi import write_scp
from mome.data.preprocessor import AVSRPreprocessor
from mome.tasks.transcript_length import default_max_new_tokens, longest_allowed


@pytest.mark.parametrize(
    ("words", "tokens"), [(20, 32), (25, 33), (40, 52), (160, 202)]
)  # a token a word, and EOS
def test_a_quarter_more_than_the_longest_and_at_least_32(tiny_lm, words, tokens):
    tokenizer = AutoTokenizer.from_pretrained(tiny_lm)
    texts = ["place red", " ".join(["RED"] * words), "now"]
    prepare = AVSRPreprocessor(train=False, tokenizer=tiny_lm)
    assert max(len(prepare("u", {"text": text})["text"]) for text in texts) == words
    assert longest_allowed(texts, tokenizer) == tokens
    assert longest_allowed([], tokenizer) == 32


def test_the_configuration_names_the_transcripts(tiny_lm, tmp_path, caplog):
    write_scp(tmp_path / "text", {"a": "place red", "b": "now " * 60})
    sources = [["wav.scp", "speech", "sound"], [str(tmp_path / "text"), "text", "text"]]
    config = {"train_data_path_and_name_and_type": sources, "decoder_conf": {"lm": tiny_lm}}
    assert default_max_new_tokens(config) == 77
    assert caplog.text == ""
    (tmp_path / "text").unlink()
    assert default_max_new_tokens(config) == 32
    assert "text, the training's transcripts, are not there" in caplog.text
