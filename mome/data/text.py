"""Transcripts in the letters that a model learns and that scoring compares."""

import re
import unicodedata
from collections.abc import Iterator


def lowered(text: str) -> str:
    """A text in lower case, its accents composed (NFC).

    What the target of a training is, scoring finds right: both take the letters from here.
    """
    # In lower case, Python's "İ" is an i and a further dot; "i" is what Turkish writes.
    text = unicodedata.normalize("NFC", text).replace("İ", "i").lower()
    return unicodedata.normalize("NFC", text)


def normalise(text: str) -> str:
    """Text as it is scored: in lower case, without marks such as {NS} and without punctuation but
    the apostrophe, blanks folded; of "..." nothing is left.

    Auto-AVSR and its successors fold case and blanks only. That is the same for LRS2 and LRS3,
    whose transcripts have no punctuation but apostrophes, unless a hypothesis has some.
    """
    text = lowered(text).replace("’", "'")
    text = re.sub(r"\{[^}]*\}|<[^>]*>", " ", text)
    text = re.sub(r"[^\w' ]|_", " ", text) if text.isascii() else "".join(_scored(text))
    return " ".join(word for word in text.split() if word.strip("'"))


def _scored(text: str) -> Iterator[str]:
    """The characters of a text that are scored, and blanks in the places of others.

    Vowels of many scripts are marks on consonants, and so are accents that have no composed letter;
    a regular expression's ``\\w`` knows neither. Signs that are not seen, such as joiners and byte
    order marks, do not part words.
    """
    within = False  # a word, to which a mark belongs
    for character in text:
        category = unicodedata.category(character)
        if category == "Cf":
            continue
        if not (within and category.startswith("M")):
            within = character.isalnum()
        yield character if within or character == "'" else " "
