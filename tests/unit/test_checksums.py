"""Do both kinds of checksum say what their definitions say, however the bytes come, and find every flipped bit?

Covers: common/weights/checksums.py. Does not cover: what is read when (test_reader.py, test_ends.py).
"""

from __future__ import annotations

import hashlib
import itertools
import random
import time
from itertools import pairwise

import pytest
import xxhash
from hypothesis import given, settings
from hypothesis import strategies as st

from common.weights.checksums import SHA256, XXH3, Checksum, Comparison, TileHasher, xxh3_of
from common.weights.slice_format import PAGE_BYTES, FileLayout, TensorPlace, TileLayout

SIZES = (2, 1, 3)
LAYOUT = FileLayout(tiles=tuple(
    TileLayout(
        first=0, count=1, byte_count=size * PAGE_BYTES,
        tensors=(TensorPlace(name="head", dtype="float32", shape=(size * PAGE_BYTES // 4, 1), offset=0),),
    )
    for size in SIZES
))  # fmt: skip
DATA = LAYOUT.header + random.Random(3).randbytes(sum(SIZES) * PAGE_BYTES)


def tiles_of(data: bytes) -> tuple[str, ...]:
    """Return the XXH3 of every tile of a whole file, one by one."""
    ends = [*LAYOUT.tile_offsets, len(data)]
    return tuple(xxhash.xxh3_64(data[start:end]).hexdigest() for start, end in pairwise(ends))


def test_the_empty_text_gives_what_the_specification_says() -> None:
    """XXH3's is in its reference implementation's own checks; a library that gives another would refuse every slice."""
    assert xxh3_of(b"") == "2d06800538d394c2"
    assert Checksum(kind=SHA256, value=hashlib.sha256(b"").hexdigest()).value.startswith("e3b0c442")


@settings(max_examples=100, deadline=None)
@given(cuts=st.lists(st.integers(0, len(DATA)), max_size=12))
def test_tiles_have_their_checksums_however_their_file_comes(cuts: list[int]) -> None:
    """In pieces of any size, empty ones too, and whatever more is sent."""
    hasher = TileHasher(LAYOUT)
    for start, end in pairwise(sorted([0, *cuts, len(DATA)])):
        hasher.update(DATA[start:end])
    assert hasher.tiles() == tiles_of(DATA)
    hasher.update(b"more")
    assert hasher.tiles() == tiles_of(DATA)


def test_tiles_that_have_not_come_have_none() -> None:
    """A part of one is not one."""
    hasher = TileHasher(LAYOUT)
    hasher.update(DATA[: LAYOUT.tile_offsets[1] + 100])
    assert hasher.tiles() == tiles_of(DATA)[:1]


@pytest.mark.parametrize("kind", [SHA256, XXH3])
def test_no_flipped_bit_agrees(kind: str) -> None:
    """In pieces as at once."""
    data = bytearray(random.Random(4).randbytes(2 * PAGE_BYTES))
    expected = Checksum(kind=kind, value=hashlib.sha256(data).hexdigest() if kind == SHA256 else xxh3_of(data))

    def agrees(piece_bytes: int) -> bool:
        comparison = Comparison(expected)
        for start in range(0, len(data), piece_bytes):
            comparison.update(data[start : start + piece_bytes])
        return comparison.agrees()

    assert agrees(len(data))
    assert agrees(1000)
    for bit in range(0, 8 * len(data), 31):
        data[bit // 8] ^= 1 << bit % 8
        assert not agrees(len(data))
        data[bit // 8] ^= 1 << bit % 8


@pytest.mark.parametrize("kind", [SHA256, XXH3])
def test_the_time_of_every_piece_is_counted(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """By a clock that takes a step at each look; real ones may take none during a comparison."""
    steps = itertools.count(step=5)
    monkeypatch.setattr(time, "thread_time_ns", lambda: next(steps))
    comparison = Comparison(Checksum(kind=kind, value=""))
    for count in range(1, 4):
        comparison.update(b"piece")
        assert comparison.nanoseconds == 5 * count
