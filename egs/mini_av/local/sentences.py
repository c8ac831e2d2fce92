"""Sentences of the generated corpus."""

import numpy as np

# After the GRID corpus (Cooke et al., 2006): six slots, one word each; 55 words, 501,760 sentences.
GRID = (
    ("place", "set", "lay", "bin", "move", "show", "find", "keep"),
    ("blue", "green", "red", "white", "black", "yellow", "pink", "brown"),
    ("at", "by", "in", "with", "under", "over", "from"),
    tuple(
        ["apple", "book", "chair", "door", "fish", "garden", "house", "lamp", "mirror", "paper", "river", "shoe", "table", "window"]
    ),
    tuple(["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]),
    ("again", "now", "please", "soon", "today", "later", "first", "away"),
)


def distinct_sentences(count: int, rng: np.random.Generator) -> list[str]:
    """Draw that many different sentences.

    Raises:
        ValueError: if the grammar has fewer.
    """
    total = int(np.prod([len(words) for words in GRID]))
    if count > total:
        raise ValueError(f"{count} sentences asked for, the grammar has {total}")
    sentences: dict[str, None] = {}
    while len(sentences) < count:
        sentences[" ".join(str(rng.choice(words)) for words in GRID)] = None
    return list(sentences)
