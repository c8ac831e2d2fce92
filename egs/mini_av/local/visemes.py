"""From phonemes to mouth shapes: viseme targets and their coarticulation.

A mouth shape has six parameters between 0 and 1: opening of the lips, drop of the jaw, width
(0 narrow, 0.5 rest, 1 spread), rounding, how far the upper teeth show, how far the tongue shows;
and a seventh, how far the lower lip is tucked under the teeth. Phonemes that differ in voicing or
nasality alone share a target, since they look alike: p b m; f v; t d n s z; k g; tʃ dʒ ʃ ʒ; θ ð.

Coarticulation follows Cohen & Massaro (1993): each phoneme pulls the mouth towards its target with
a dominance that falls off in time; lip closures pull hard, back consonants hardly at all.
"""

import numpy as np
from espeak import Phoneme

PARAMETERS = ("open", "jaw", "width", "round", "teeth", "tongue", "tuck")
REST = (0.0, 0.05, 0.5, 0.0, 0.0, 0.0, 0.0)

#            open  jaw   width round teeth tongue tuck  dominance
TARGETS = {
    "p": (0.00, 0.05, 0.50, 0.00, 0.0, 0.0, 0.0, 6.0),
    "f": (0.10, 0.10, 0.55, 0.00, 0.9, 0.0, 1.0, 4.0),
    "θ": (0.25, 0.15, 0.55, 0.00, 0.6, 1.0, 0.0, 2.0),
    "t": (0.22, 0.12, 0.60, 0.00, 0.9, 0.3, 0.0, 1.0),
    "l": (0.35, 0.25, 0.55, 0.00, 0.4, 0.9, 0.0, 1.2),
    "ʃ": (0.35, 0.15, 0.20, 0.80, 0.8, 0.0, 0.0, 2.0),
    "k": (0.30, 0.25, 0.50, 0.00, 0.2, 0.0, 0.0, 0.4),
    "h": (0.30, 0.25, 0.50, 0.00, 0.2, 0.0, 0.0, 0.3),
    "w": (0.12, 0.10, 0.00, 1.00, 0.0, 0.0, 0.0, 3.0),
    "ɹ": (0.25, 0.15, 0.25, 0.60, 0.2, 0.1, 0.0, 1.2),
    "j": (0.25, 0.12, 0.85, 0.00, 0.6, 0.1, 0.0, 1.0),
    "i": (0.28, 0.15, 1.00, 0.00, 0.7, 0.1, 0.0, 1.6),
    "ɪ": (0.32, 0.22, 0.80, 0.00, 0.5, 0.1, 0.0, 1.2),
    "e": (0.45, 0.38, 0.80, 0.00, 0.5, 0.2, 0.0, 1.5),
    "a": (0.85, 0.85, 0.62, 0.00, 0.4, 0.3, 0.0, 1.8),
    "ɑ": (0.80, 0.90, 0.45, 0.10, 0.1, 0.2, 0.0, 1.8),
    "ʌ": (0.58, 0.55, 0.50, 0.00, 0.2, 0.2, 0.0, 1.4),
    "ə": (0.35, 0.30, 0.50, 0.00, 0.2, 0.1, 0.0, 0.6),
    "ɔ": (0.62, 0.65, 0.15, 0.80, 0.0, 0.1, 0.0, 1.8),
    "o": (0.42, 0.40, 0.10, 0.95, 0.0, 0.0, 0.0, 1.7),
    "u": (0.20, 0.15, 0.00, 1.00, 0.0, 0.0, 0.0, 1.8),
    "ʊ": (0.30, 0.22, 0.15, 0.80, 0.0, 0.0, 0.0, 1.3),
}
LOOKS_LIKE = {
    "p": "pbm",
    "f": "fvɱ",
    "θ": "θð",
    "t": "tdnszɾ",
    "l": "lɫ",
    "ʃ": "ʃʒ",
    "k": "kɡgŋxʔɣ",
    "h": "hɦç",
    "w": "wʍʋ",
    "ɹ": "ɹrɻʁ",
    "j": "j",
    "i": "iy",
    "ɪ": "ɪᵻɨ",
    "e": "eɛøœ",
    "a": "aæ",
    "ɑ": "ɑɒ",
    "ʌ": "ʌɐ",
    "ə": "əɚɜɝɘ",
    "ɔ": "ɔ",
    "o": "oɵ",
    "u": "uʉ",
    "ʊ": "ʊ",
}
VISEME = {symbol: viseme for viseme, symbols in LOOKS_LIKE.items() for symbol in symbols}


def segments(phonemes: list[Phoneme]) -> list[tuple[str, float, float]]:
    """(viseme, start, end) in seconds; a diphthong or affricate is cut in two."""
    result = []
    for phoneme in phonemes:
        visemes = [VISEME[symbol] for symbol in phoneme.ipa if symbol in VISEME]
        if not visemes:
            continue
        step = (phoneme.end - phoneme.start) / len(visemes)
        for index, viseme in enumerate(visemes):
            start = phoneme.start + index * step
            result.append((viseme, start, start + step))
    return result


def mouth_shapes(phonemes: list[Phoneme], times: np.ndarray) -> np.ndarray:
    """Parameters of the mouth at given times.

    Args:
        phonemes: of the utterance, with times in seconds.
        times: (T,) seconds.

    Returns:
        (T, 7), in the order of ``PARAMETERS``.
    """
    weight = np.full(len(times), 0.15)  # the resting mouth pulls a little at all times
    total = weight[:, None] * np.array(REST)
    for viseme, start, end in segments(phonemes):
        *target, dominance = TARGETS[viseme]
        width = 0.5 * (end - start) + 0.025
        distance = (times - (start + end) / 2) / width
        pull = dominance * np.exp(-(np.abs(distance) ** 2.5))
        total += pull[:, None] * np.array(target)
        weight += pull
    shapes = total / weight[:, None]
    # A closure is complete while it is held, however open the vowels around it are.
    for viseme, start, end in segments(phonemes):
        if viseme == "p":
            held = (times >= start - 0.012) & (times <= end + 0.004)
            shapes[held, 0] = 0.0
            shapes[held, 4:] = 0.0
    return shapes
