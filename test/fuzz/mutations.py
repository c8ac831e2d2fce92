"""Damage to files: a few changes of bytes, drawn by a seed.

They are those that parsers stumble over: lengths and counts at the edges of their types, what ends
too early, what is there twice or not at all, and in texts the characters that part words and lines.
"""

from collections.abc import Callable

import numpy as np

EDGES = (0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0x8000, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)
WORDS = (
    *(b"\n", b"\r\n", b"\t", b" ", b"\0", b"\xef\xbb\xbf", b"\xc2\xa0", b"\xff", b":", b"- ", b"#"),
    *(b"'", b'"', b"{", b"[", b"&a ", b"*a ", b"!!python/name:os.system ", b"1e999", b"-1", b"nan"),
)


def flip(data: bytearray, rng: np.random.Generator) -> None:
    """Change a bit."""
    data[rng.integers(len(data))] ^= 1 << int(rng.integers(8))


def set_number(data: bytearray, rng: np.random.Generator) -> None:
    """Write a number of 1, 2, 4 or 8 bytes that lies at the edge of a type."""
    width = int(rng.choice([1, 2, 4, 8]))
    value = int(rng.choice(EDGES)) % (1 << 8 * width)
    place = int(rng.integers(max(1, len(data) - width)))
    data[place : place + width] = value.to_bytes(width, "little" if rng.random() < 0.5 else "big")


def insert(data: bytearray, rng: np.random.Generator) -> None:
    """Put characters that mean something, or random bytes, between two others."""
    place = int(rng.integers(len(data) + 1))
    new = WORDS[rng.integers(len(WORDS))] if rng.random() < 0.7 else rng.bytes(rng.integers(1, 40))
    data[place:place] = new


def block(data: bytearray, rng: np.random.Generator) -> slice:
    """A part of some bytes up to some hundred."""
    place = int(rng.integers(len(data)))
    return slice(place, place + int(2 ** rng.uniform(0, 9)))


def delete(data: bytearray, rng: np.random.Generator) -> None:
    """Leave a part out."""
    del data[block(data, rng)]


def repeat(data: bytearray, rng: np.random.Generator) -> None:
    """Write a part several times."""
    part = block(data, rng)
    data[part.start : part.start] = bytes(data[part]) * int(rng.integers(1, 50))


def move(data: bytearray, rng: np.random.Generator) -> None:
    """Write a part over another place."""
    part = bytes(data[block(data, rng)])
    place = int(rng.integers(len(data)))
    data[place : place + len(part)] = part


def cut(data: bytearray, rng: np.random.Generator) -> None:
    """End the file earlier."""
    del data[int(rng.integers(len(data))) :]


CHANGES: tuple[Callable[[bytearray, np.random.Generator], None], ...] = (
    *(flip, set_number, insert, delete, repeat, move, cut),
)


def mutate(whole: bytes, rng: np.random.Generator) -> bytes:
    """A file with one to four changes."""
    data = bytearray(whole)
    for _ in range(rng.integers(1, 5)):
        if data:
            CHANGES[rng.integers(len(CHANGES))](data, rng)
    return bytes(data)
