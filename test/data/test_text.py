"""mome.data.text: what a model learns to say is what scoring finds right."""

import unicodedata

import pytest

from mome.analysis.wer import score
from mome.corpora.lrs import normalise_text
from mome.data.preprocessor import AVSRPreprocessor
from mome.data.text import lowered
from mome.tasks.transcript_length import longest_allowed

TEXTS = [
    "İZMİR'DE IŞIK",
    "I\u0307zmir",
    "CAFE\u0301 Été",
    "ΣΟΦΟΣ Ὀδυσσεύς",
    "GROẞ Größe",
    "ÅNGSTRÖM",
]


class Bytes:
    """A tokenizer whose tokens are the bytes of a text."""

    def encode(self, text: str, add_special_tokens: bool) -> list[int]:
        return list(text.encode())

    def __call__(self, texts: list[str], add_special_tokens: bool) -> dict[str, list[list[int]]]:
        return {"input_ids": [list(text.encode()) for text in texts]}


@pytest.mark.parametrize("text", TEXTS)
def test_a_model_that_says_its_target_makes_no_error(text):
    prepare = AVSRPreprocessor(train=False)
    prepare.tokenizer = Bytes()
    said = bytes(prepare("u", {"text": text})["text"].tolist()).decode()
    result = score({"u": text}, {"u": said})
    assert (result.wer, result.cer) == (0, 0)
    assert said == f" {lowered(text)}"
    assert lowered(normalise_text(text)) == normalise_text(text) == lowered(text)
    assert longest_allowed([9 * text], Bytes()) == -(
        -5 * (len(9 * lowered(text).encode()) + 2) // 4
    )


def test_lower_case_is_composed_and_stays_as_it_is():
    assert lowered("İI I\u0307 CAFE\u0301") == "ii i caf\u00e9"
    for number in range(0x20000):
        letters = lowered(f"a{chr(number)}b")
        assert lowered(letters) == letters
        assert unicodedata.is_normalized("NFC", letters)
