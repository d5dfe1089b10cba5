"""Which number from 0 to 1 does a seed draw at a position? By counting, so that no draw depends on another.

Covers: Philox4x32-10, a function of key and counter: the same on every machine, after a replay, and in any order.
Does not cover: what is chosen with it (sampler.py). Of plain integers: importing numpy's generators takes 20 ms, and
making one takes longer than the draw.
Source: J. Salmon and others, Parallel Random Numbers: As Easy as 1, 2, 3 (SC 2011).
"""

from __future__ import annotations

ROUNDS = 10
MULTIPLIERS = 0xD2511F53, 0xCD9E8D57
KEY_STEPS = 0x9E3779B9, 0xBB67AE85
WORD = 0xFFFFFFFF

Words = tuple[int, int, int, int]


def draw(seed: int, position: int) -> float:
    """Return the number from 0 up to but not 1 that a seed of 64 bits, signed or not, has at a position."""
    key, counter = seed & ((1 << 64) - 1), position & ((1 << 64) - 1)
    first, second, _, _ = philox((counter & WORD, counter >> 32, 0, 0), (key & WORD, key >> 32))
    return ((second << 32 | first) >> 12) * 2.0**-52


def philox(counter: Words, key: tuple[int, int]) -> Words:
    """Return the four words of 32 bits that belong to a counter and a key."""
    a, b, c, d = counter
    first_key, second_key = key
    for _ in range(ROUNDS):
        one, other = MULTIPLIERS[0] * a, MULTIPLIERS[1] * c
        a, b, c, d = (other >> 32) ^ b ^ first_key, other & WORD, (one >> 32) ^ d ^ second_key, one & WORD
        first_key, second_key = (first_key + KEY_STEPS[0]) & WORD, (second_key + KEY_STEPS[1]) & WORD
    return a, b, c, d
