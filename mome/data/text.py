"""Transcripts in the letters that a model learns and that scoring compares."""

import unicodedata


def lowered(text: str) -> str:
    """A text in lower case, its accents composed (NFC).

    What the target of a training is, scoring finds right: both take the letters from here.
    """
    # In lower case, Python's "İ" is an i and a further dot; "i" is what Turkish writes.
    text = unicodedata.normalize("NFC", text).replace("İ", "i").lower()
    return unicodedata.normalize("NFC", text)
