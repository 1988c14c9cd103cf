"""A deterministic mutator: the same seed gives the same inputs on every machine."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import random
    from collections.abc import Sequence

NUMBERS = (0, 1, 2, 7, 127, 128, 255, 256, 32767, 65535, 65536, 1 << 24, (1 << 31) - 1, 1 << 31, (1 << 32) - 1, 1 << 40)
WORDS = (
    *(b"[" * 3000, b'{"a":' * 2000, b"9" * 5000, b"1e999", b"-1", b"null", b"true", b"NaN", b"-Infinity", b'""', b"[]"),
    *(b"{}", b"\x00", b"\xff\xfe", b"../../../../../../etc/passwd", b"/etc/passwd", b"\\\\host\\share\\x", b"0.5"),
)
"""What parsers stumble over."""


def mutate(chance: random.Random, seeds: Sequence[bytes], tokens: Sequence[bytes], largest: int) -> bytes:
    """One input: a seed with one to eight changes, at most `largest` bytes."""
    data = bytearray(chance.choice(seeds))
    for _ in range(1 << chance.randrange(4)):
        at = chance.randrange(len(data) + 1)
        kind = chance.randrange(8)
        if kind == 0 and data:
            data[at % len(data)] ^= 1 << chance.randrange(8)
        elif kind == 1 and data:
            data[at % len(data)] = chance.randrange(256)
        elif kind == 2:
            width = chance.choice("BHIQ")
            number = chance.choice(NUMBERS) & ((1 << 8 * struct.calcsize(width)) - 1)
            packed = struct.pack(chance.choice("<>") + width, number)
            data[at : at + len(packed)] = packed
        elif kind == 3:
            data[at : at + chance.randrange(1, 1 + max(len(data) // 4, 1))] = b""
        elif kind == 4:
            data[at:at] = chance.choice((*tokens, *WORDS))
        elif kind == 5:
            data[at : at + chance.randrange(1, 12)] = chance.choice((*tokens, *WORDS))
        elif kind == 6:
            other = chance.choice(seeds)
            start = chance.randrange(len(other) + 1)
            data[at:] = other[start:]
        else:
            end = at + chance.randrange(1, 64)
            data[at:at] = bytes(data[at:end]) * chance.randrange(1, 4)
    return bytes(data[:largest])
