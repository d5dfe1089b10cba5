"""Which calls show that two builds compute the same with weights that stay in GGUF's blocks?

Covers: products and tiles of every encoding, in memory and from the page cache, few rows and many, last groups that are
not full, cuts inside a block; packing and unpacking; what is to be refused.
Does not cover: floats (kernel_calls.py), whether the numbers are right (tests/property/test_encoded_products.py).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from common.native.library import ACTIVATIONS, WEIGHT_KINDS, AttentionTile, FfnTile, Matrix
from common.weights.encodings import ENCODINGS, GROUP_OUTPUTS, PIECE_INPUTS, packed_bytes
from tests.support.encoded_weights import SCALE_PLACES, random_rows
from tests.support.kernel_calls import KernelCalls
from tests.support.recorded_calls import DESCRIPTOR, Laid, in_a_row, laid

HIDDEN_SIZE, HEAD_SIZE = 512, 32
WIDTHS = (1, 15, 16, 17, 40, 64, 97, 400)
ROW_COUNTS = (0, 1, 2, 3, 5, 8, 9, 31, 33, 45)
NAMES = list(ENCODINGS)
ENCODED_REFUSED_COUNT = 12
"""Calls of `refused`."""


def packed_noise(made: KernelCalls, encoding: str, depth: int, width: int) -> bytes:
    """Return a packed matrix of random bits whose scales are sane."""
    random = np.random.default_rng(made.one_of(*range(1000)))
    content = random.integers(0, 256, packed_bytes(encoding, depth, width), dtype=np.uint8)
    units = content.reshape(-1, GROUP_OUTPUTS * ENCODINGS[encoding].block_bytes)
    for number in range(len(SCALE_PLACES[encoding])):
        scales = random.standard_normal((len(units), GROUP_OUTPUTS)) / depth**0.5
        units[:, 32 * number : 32 * (number + 1)] = scales.astype(np.float16).view(np.uint8)
    return content.tobytes()


def depth_of(made: KernelCalls, encoding: str) -> int:
    """Return a number of inputs that the encoding can have, not always one that four ranges share equally."""
    return ENCODINGS[encoding].block_values * made.one_of(1, 2, 3, 4, 5, 9)


def matrix(made: KernelCalls, encoding: str, depth: int, width: int, *, is_cached: bool = False) -> Laid:
    """Return a packed matrix, in memory or to be had from the page cache."""
    place = made.calls.put(packed_noise(made, encoding, depth, width))
    shape = {"kind": WEIGHT_KINDS.index(encoding), "depth": depth, "width": width}
    if is_cached:
        return laid(Matrix, fd=DESCRIPTOR, offset=made.calls.offset_in_file(place), **shape)
    return laid(Matrix, memory=place, fd=-1, **shape)


def encoded_products(made: KernelCalls, count: int) -> None:
    """Every encoding in turn, all tails; rows that are not finite; gaps between rows."""
    for number in range(count):
        encoding = NAMES[number % len(NAMES)]
        depth, width, row_count = depth_of(made, encoding), made.one_of(*WIDTHS), made.one_of(*ROW_COUNTS)
        rows = made.noise(row_count, depth + 3)
        if number % 9 == 0:
            rows[-1:, 5] = np.inf
        made.use_threads()
        if number % 5:
            packed = made.calls.put(packed_noise(made, encoding, depth, width))
            made.calls.call(
                "multiply", made.calls.put(rows), depth + 3, row_count, packed, WEIGHT_KINDS.index(encoding), depth,
                width, made.empty(row_count, width),
            )  # fmt: skip
        else:
            described = made.calls.put(matrix(made, encoding, depth, width, is_cached=number % 2 == 0))
            own = made.calls.put(np.ascontiguousarray(rows[:, :depth]))
            made.calls.call("multiply_matrix", own, row_count, described, made.empty(row_count, width))


def encoded_tiles(made: KernelCalls, count: int) -> None:
    """Matrices of several encodings, apart or side by side; columns that begin and end inside a block."""
    for number in range(count):
        row_count, is_apart, is_cached = made.one_of(1, 3, 8, 40), number % 2 == 1, number % 5 == 0
        names = NAMES[made.one_of(*range(len(NAMES)))], NAMES[made.one_of(*range(len(NAMES)))]
        depth, skip = max(ENCODINGS[names[1]].block_values * 2, 4 * HEAD_SIZE), PIECE_INPUTS * made.one_of(0, 1)
        columns = depth - skip - PIECE_INPUTS * made.one_of(0, 1)
        down = matrix(made, names[1], depth, HIDDEN_SIZE, is_cached=is_cached)
        parts = [(names[0], columns), (names[1], columns)] if is_apart else [(names[0], 2 * columns)]
        tile = laid(
            FfnTile, projection_count=len(parts), down=down, down_skip=skip,
            gate_up=in_a_row([matrix(made, *part_of(part), is_cached=is_cached) for part in parts]),
            gate_up_bias=made.vector(2 * columns, is_there=number % 3 == 0),
            activation=made.one_of(*range(len(ACTIVATIONS))),
        )  # fmt: skip
        rows = made.calls.put(made.noise(row_count, HIDDEN_SIZE))
        made.use_threads()
        made.calls.call("feed_forward", rows, row_count, made.calls.put(tile), made.empty(row_count, HIDDEN_SIZE))
        _attention(made, names, skip, row_count, is_apart=is_apart)


def part_of(part: tuple[str, int]) -> tuple[str, int, int]:
    """Return encoding, depth and width of a projection."""
    return part[0], HIDDEN_SIZE, part[1]


def _attention(made: KernelCalls, names: tuple[str, str], skip: int, row_count: int, *, is_apart: bool) -> None:
    """Two query heads for each of one or two KV heads, their context somewhere in the inputs of the last matrix."""
    kv = made.one_of(1, 2)
    queries, keys, values = 2 * kv * HEAD_SIZE, kv * HEAD_SIZE, ENCODINGS[names[1]].block_values
    parts = [(names[0], queries), (names[1], keys), (names[0], keys)] if is_apart else [(names[0], queries + 2 * keys)]
    tile = laid(
        AttentionTile, projections=in_a_row([matrix(made, *part_of(part)) for part in parts]),
        projection_count=len(parts), output_skip=skip,
        output=matrix(made, names[1], -(-(queries + skip) // values) * values, HIDDEN_SIZE),
    )  # fmt: skip
    segment = made.segment(row_count, kv, 2, HEAD_SIZE, 0, has_all=is_apart)
    rows = made.calls.put(made.noise(row_count, HIDDEN_SIZE))
    made.calls.call(
        "attention", rows, row_count, made.calls.put(tile), made.calls.put(in_a_row([segment])), 1,
        made.empty(row_count, HIDDEN_SIZE),
    )  # fmt: skip


def packed_and_back(made: KernelCalls) -> None:
    """Rows of every encoding, apart in memory; one of them with a scale that is none."""
    for kind, encoding in enumerate(NAMES, WEIGHT_KINDS.index(NAMES[0])):
        depth, width = depth_of(made, encoding), made.one_of(3, 16, 33)
        rows = random_rows(encoding, width, depth, seed=kind)
        apart = np.concatenate([rows, rows[:, :2]], axis=1)
        packed, place = made.empty(packed_bytes(encoding, depth, width) // 4), made.calls.put(apart)
        made.use_threads()
        made.calls.call("pack_blocks", kind, place, apart.shape[1], width, depth, packed)
        made.calls.call("unpack", kind, packed, depth, width, made.empty(depth, width))
        made.calls.call("unpack_output", kind, packed, depth, width % 16, made.empty(depth))
        made.calls.call("blocks_not_finite", kind, place, apart.shape[1], width, depth)
        last = SCALE_PLACES[encoding][-1]
        apart[2, last : last + 2] = (0, 0x7C)
        made.calls.call("blocks_not_finite", kind, made.calls.put(apart), apart.shape[1], width, depth)


def refused(made: KernelCalls) -> None:
    """Depths that are no whole blocks, cuts that do not lie in their matrix, numbers of matrices that no tile has."""
    memory, kind = made.empty(64), WEIGHT_KINDS.index("q4_k")
    made.calls.call("multiply", memory, 64, 0, memory, kind, 64, 4, memory)
    made.calls.call("multiply_matrix", memory, 0, made.calls.put(laid(Matrix, kind=kind, depth=128, width=4)), memory)
    made.calls.call("widen", memory, kind, 4, memory)
    made.calls.call("pack_blocks", kind, memory, 36, 1, 64, memory)
    made.calls.call("unpack", 0, memory, 4, 4, memory)
    made.calls.call("unpack_output", kind, memory, 256, 16, memory)
    shape: dict[str, Any] = {"kind": WEIGHT_KINDS.index("q8_0"), "width": 32}
    gate_up, down = laid(Matrix, depth=32, **shape), laid(Matrix, depth=64, **shape)
    for count, skip in ((1, -1), (1, 49), (0, 0), (3, 0)):
        ffn = laid(FfnTile, gate_up=gate_up, projection_count=count, down=down, down_skip=skip)
        made.calls.call("feed_forward", memory, 1, made.calls.put(ffn), memory)
    for count, skip in ((2, 0), (1, 1 << 62)):
        heads = laid(AttentionTile, projections=gate_up, projection_count=count, output=down, output_skip=skip)
        segment = made.calls.put(made.segment(1, 1, 1, 2, 0, has_all=False))
        made.calls.call("attention", memory, 1, made.calls.put(heads), segment, 1, memory)
