"""Are random numbers Philox's, and each a function of its seed and its place alone?

Covers: coordinator/engine/draws.py. Does not cover: what is chosen with them (test_sampler.py).
"""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coordinator.engine.draws import Words, draw, philox

ALL = 0xFFFFFFFF


@pytest.mark.parametrize(
    ("counter", "key", "expected"),
    [
        ((0, 0, 0, 0), (0, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
        ((ALL, ALL, ALL, ALL), (ALL, ALL), (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
        (
            (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344), (0xA4093822, 0x299F31D0),
            (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
        ),
    ],
)  # fmt: skip
def test_words_are_those_that_were_published_with_philox(counter: Words, key: tuple[int, int], expected: Words) -> None:
    """The known answers of philox4x32 with ten rounds in Random123, the library of its authors."""
    assert philox(counter, key) == expected


@given(seed=st.integers(-(1 << 63), (1 << 64) - 1), position=st.integers(0, 1 << 40))
def test_a_draw_is_from_0_up_to_but_not_1_and_the_same_each_time(seed: int, position: int) -> None:
    """Times any total it stays below it, so that a choice by it is always one that can be."""
    drawn = draw(seed, position)
    assert 0 <= drawn < 1
    assert drawn == draw(seed, position) == draw(seed % (1 << 64), position)
    assert drawn * 0.1 < 0.1


def test_neighbours_have_other_numbers() -> None:
    """Each bit of seed and position counts."""
    seeds = [0, 1, 1 << 31, 1 << 32, 1 << 63]
    drawn = {draw(seed, position) for seed in seeds for position in (*range(100), 1 << 32, 1 << 40)}
    assert len(drawn) == len(seeds) * 102
