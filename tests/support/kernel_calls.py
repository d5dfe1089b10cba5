"""Which calls show that two builds of the library compute the same? Every function, with every awkward shape of floats.

Covers: products, tiles, whole layers, steps, conversions, in memory and from the page cache, with threads, with numbers
that are none; what is to be refused. All of it is made from one seed, without torch.
Does not cover: encoded weights (encoded_calls.py), all of them in a row (all_calls.py), whether the numbers are right
(tests/property/test_matmul.py, tests/property/test_row_steps.py).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from common.native.library import (
    ACTIVATIONS,
    FLOAT_KINDS,
    WEIGHT_KINDS,
    Attention,
    AttentionTile,
    FfnTile,
    HeadTile,
    LayerBlock,
    LayersModel,
    Matrix,
    SequenceRows,
)
from tests.support.recorded_calls import DESCRIPTOR, Calls, Laid, Place, in_a_row, laid

DEPTHS = (0, 1, 7, 8, 9, 31, 32, 33, 64, 65, 257)
WIDTHS = (1, 3, 4, 5, 7, 8, 9, 15, 16, 17, 31, 32, 33, 48, 63, 64, 65, 100, 129, 700, 1100)
ROW_COUNTS = (0, 1, 2, 3, 4, 5, 8, 9, 17, 31, 32, 33, 40)
HEAD_SIZES = (2, 6, 16, 30, 64, 128, 512)
NOT_NUMBERS = (np.nan, -np.nan, np.inf, -np.inf)
EPSILON = 1e-5


class KernelCalls:
    """Makes a recording, one function's calls after the other's."""

    def __init__(self, seed: int = 0) -> None:
        self.calls = Calls()
        self._random = np.random.default_rng(seed)
        self._ignored = self.calls.put(bytes(8))

    def noise(self, *shape: int) -> NDArray[np.float32]:
        """Return float32 of very different sizes."""
        scale = 10.0 ** self._random.integers(-2, 2, shape)
        return (self._random.standard_normal(shape) * scale).astype(np.float32)

    def one_of(self, *values: int) -> int:
        """Return one of some numbers."""
        return int(self._random.choice(values))

    def stored(self, weights: NDArray[np.float32], kind: str) -> bytes:
        """Return weights as they are stored."""
        if kind == "bfloat16":
            return (weights.view(np.uint32) >> 16).astype(np.uint16).tobytes()
        return weights.astype(kind).tobytes()

    def matrix(self, depth: int, width: int, *, is_cached: bool = False) -> Laid:
        """Return a matrix of any kind, in memory or to be had from the page cache."""
        kind = self.one_of(*range(len(FLOAT_KINDS)))
        weights = self.calls.put(self.stored(self.noise(depth, width) / max(1, depth) ** 0.5, FLOAT_KINDS[kind]))
        shape = {"kind": kind, "depth": depth, "width": width}
        if is_cached:
            return laid(Matrix, fd=DESCRIPTOR, offset=self.calls.offset_in_file(weights), **shape)
        return laid(Matrix, memory=weights, fd=-1, **shape)

    def vector(self, count: int, *, is_there: bool = True) -> Place | None:
        """Return numbers near 1, or none."""
        return self.calls.put(1 + self.noise(count) / 50) if is_there else None

    def empty(self, *shape: int) -> Place:
        """Return memory for a result."""
        return self.calls.put(np.full(shape, 7, np.float32))

    def use_threads(self) -> None:
        """Have the next calls' parts done by other numbers of threads."""
        self.calls.call("use_threads", self.one_of(1, 2, 3), self.one_of(0, 0, 20_000))

    def products(self, count: int) -> None:
        """Every kind, all tails of columns, depths and rows; gaps between rows; weights from memory and the cache."""
        for number in range(count):
            depth, width, row_count = self.one_of(*DEPTHS), self.one_of(*WIDTHS), self.one_of(*ROW_COUNTS)
            self.use_threads()
            if number % 3:
                pitch = depth + self.one_of(0, 5)
                kind = self.one_of(*range(len(FLOAT_KINDS)))
                weights = self.calls.put(self.stored(self.noise(depth, width), FLOAT_KINDS[kind]))
                self.calls.call(
                    "multiply", self.calls.put(self.noise(row_count, pitch)), pitch, row_count, weights, kind, depth,
                    width, self.empty(row_count, width),
                )  # fmt: skip
            else:
                self.multiply_matrix(row_count % 33, depth, max(width, 16), is_cached=number % 2 == 0)

    def multiply_matrix(self, row_count: int, depth: int, width: int, *, is_cached: bool) -> None:
        """One product with a described matrix."""
        rows = self.calls.put(self.noise(row_count, depth))
        matrix = self.calls.put(self.matrix(depth, width, is_cached=is_cached))
        self.calls.call("multiply_matrix", rows, row_count, matrix, self.empty(row_count, width))

    def every_number_of_16_bits(self) -> None:
        """Widened by each instruction set's own instructions: subnormals, infinities, what is not a number."""
        patterns, one = np.arange(2**16, dtype=np.uint16), np.ones(1, np.float32)
        for kind in (1, 2):
            weights, sums = self.calls.put(patterns), self.empty(2**16)
            self.calls.call("multiply", self.calls.put(one), 1, 1, weights, kind, 1, 2**16, sums)

    def sums(self) -> None:
        """Whole numbers, so that the order of additions, which is each instruction set's own, changes nothing."""
        for count in (0, 1, 31, 640, 10_003):
            self.use_threads()
            self.calls.call("sum", self.calls.put(self._random.integers(-99, 99, count).astype(np.float32)), count)

    def steps(self, count: int) -> None:
        """Sums of parts and norms; now and then with a number that is none, whose sum is told."""
        for number in range(count):
            row_count, width, part_count = self.one_of(1, 2, 7, 40), self.one_of(*WIDTHS), self.one_of(1, 2, 5)
            heads = self.one_of(0, 1, 18)  # numbers before the part's own, as in messages
            parts = [self.noise(heads + row_count * width) for _ in range(part_count)]
            if number % 4 == 0:
                parts[-1][heads + self.one_of(0, row_count * width - 1)] = NOT_NUMBERS[number // 4 % 4]
            addresses = self.calls.put(in_a_row([self.calls.put(part) for part in parts]))
            self.calls.call("add", addresses, 4 * heads, part_count, row_count * width, self.empty(row_count * width))
            hidden, addend = self.calls.put(self.noise(row_count, width)), self.calls.put(parts[-1][heads:])
            self.calls.call(
                "normalize", hidden, addend if number % 2 else None, self.vector(width), row_count, width, EPSILON,
                self.empty(row_count, width),
            )  # fmt: skip

    def ffn_tile(self, hidden_size: int, columns: int, *, has_bias: bool, is_cached: bool) -> Laid:
        """Return one."""
        return laid(
            FfnTile,
            gate_up=self.matrix(hidden_size, 2 * columns, is_cached=is_cached),
            projection_count=1,
            down=self.matrix(columns, hidden_size, is_cached=is_cached),
            gate_up_bias=self.vector(2 * columns, is_there=has_bias),
            activation=self.one_of(*range(len(ACTIVATIONS))),
        )

    def feed_forwards(self, count: int) -> None:
        """Among them inputs whose gate is not finite or leaves the range of e^x."""
        for number in range(count):
            row_count, hidden_size, columns = self.one_of(0, 1, 3, 8), self.one_of(16, 33, 64), self.one_of(8, 50, 130)
            rows = self.noise(row_count, hidden_size) * self.one_of(1, 100)
            if number % 3 == 0:
                rows[-1:, number % 16] = NOT_NUMBERS[number // 3 % 4]
            tile = self.ffn_tile(hidden_size, columns, has_bias=number % 2 == 0, is_cached=number % 5 == 0)
            self.use_threads()
            self.calls.call(
                "feed_forward", self.calls.put(rows), row_count, self.calls.put(tile), self.empty(*rows.shape)
            )

    def attention_tile(self, hidden_size: int, kv: int, group: int, size: int, *, is_cached: bool = False) -> Laid:
        """Return the two matrices of `kv` heads with `group` query heads each."""
        return laid(
            AttentionTile,
            projection_count=1,
            projections=self.matrix(hidden_size, kv * (group + 2) * size, is_cached=is_cached),
            output=self.matrix(kv * group * size, hidden_size, is_cached=is_cached),
        )

    def angles(self, row_count: int, size: int) -> dict[str, Place | None]:
        """Return rotary tables."""
        turns = self.noise(row_count, size)
        return {"cosine": self.calls.put(np.cos(turns)), "sine": self.calls.put(np.sin(turns))}

    def segment(self, row_count: int, kv: int, group: int, size: int, window: int, *, has_all: bool) -> Laid:
        """Return rows of one sequence with keys and values of its own."""
        first = self.one_of(0, 1, 5, 63, 64, 150)
        pitch = (first + row_count + 2) * size
        return laid(
            Attention,
            # The library points these two at memory of its own; as links they count as nothing.
            projected=self._ignored, context=self._ignored,
            row_count=row_count, query_count=kv * group, kv_count=kv, head_size=size, norm_epsilon=EPSILON,
            bias=self.vector(kv * (group + 2) * size, is_there=has_all),
            query_norm=self.vector(size, is_there=has_all), key_norm=self.vector(size, is_there=has_all),
            keys=self.calls.put(self.noise(kv, pitch)), values=self.calls.put(self.noise(kv, pitch)), head_pitch=pitch,
            first_position=first, sliding_window=window, **self.angles(row_count, size),
        )  # fmt: skip

    def attentions(self, count: int) -> None:
        """Grouped heads, several sequences, windows, biases and norms, and rows that are not finite."""
        for number in range(count):
            size, kv, group = HEAD_SIZES[number % len(HEAD_SIZES)], self.one_of(1, 2, 3), self.one_of(1, 3, 17)
            if size > 100:
                kv, group = 1, self.one_of(1, 3)
            row_counts, window = [self.one_of(0, 1, 4) for _ in range(self.one_of(1, 3))], self.one_of(0, 0, 1, 40)
            row_counts[-1] += 65 if number % 8 == 2 else 0  # every size in turn
            rows = self.noise(sum(row_counts), 24)
            if number % 4 == 0:
                rows[-1:, number % 24] = NOT_NUMBERS[number // 4 % 4]
            tile = self.attention_tile(24, kv, group, size, is_cached=size > 6 and number % 5 == 1)
            segments = [self.segment(own, kv, group, size, window, has_all=number % 2 == 0) for own in row_counts]
            self.use_threads()
            self.calls.call(
                "attention", self.calls.put(rows), len(rows), self.calls.put(tile),
                self.calls.put(in_a_row(segments)), len(segments), self.empty(*rows.shape),
            )  # fmt: skip

    def conversions(self, count: int) -> None:
        """Widened, narrowed, rounded to 8 bits; numbers of every size, tails of vectors."""
        for _ in range(count):
            size, kind = self.one_of(0, 1, 7, 31, 4096, 9001), self.one_of(*range(len(FLOAT_KINDS)))
            patterns = self.calls.put(self._random.integers(0, 2**32, size, dtype=np.uint32))
            self.use_threads()
            self.calls.call("widen", patterns, kind, size, self.empty(size))
            self.calls.call("narrow", patterns, kind, size, self.calls.put(bytes(size * (4, 2, 2)[kind])))
            if size:
                scales, numbers = self.empty(size), self.calls.put(bytes(size))
                self.calls.call("round_rows", patterns, 1, size, scales, numbers)
                self.calls.call("unround_rows", scales, numbers, 1, size, self.empty(size))

    def layers(self, *, is_cached: bool, has_all: bool) -> None:
        """Two layers of a model whose blocks have several tiles, for rows of two sequences."""
        hidden_size, size, kv, capacity, row_counts = 40, 16, 3, 90, (2, 3)
        blocks = []
        for layer in range(2):
            heads = [
                laid(
                    HeadTile,
                    matrices=self.attention_tile(hidden_size, count, 2, size, is_cached=is_cached),
                    bias=self.vector(count * 4 * size, is_there=has_all),
                    query_norm=self.vector(size, is_there=has_all), key_norm=self.vector(size, is_there=has_all),
                    query_count=2 * count, kv_count=count, first_kv_head=first,
                )
                for first, count in ((0, 2), (2, 1))
            ]  # fmt: skip
            ffn = [self.ffn_tile(hidden_size, c, has_bias=has_all, is_cached=is_cached) for c in (24, 17)[: 2 - layer]]
            blocks += [
                self._block(hidden_size, has_all, head_tiles=heads, sliding_window=30 * layer),
                self._block(hidden_size, has_all, ffn_tiles=ffn),
            ]
        sequences = [
            laid(
                SequenceRows, row_count=row_count, first_position=first, capacity=capacity,
                store=self.calls.put(self.noise(2, 2, kv, capacity, size)), **self.angles(row_count, size),
            )
            for row_count, first in zip(row_counts, (70, 0), strict=True)
        ]  # fmt: skip
        model = laid(LayersModel, hidden_size=hidden_size, head_size=size, kv_head_count=kv, norm_epsilon=EPSILON)
        # What a block took is never the same twice: links again, which count as nothing.
        nanoseconds = self.calls.put(in_a_row([self._ignored] * len(blocks)))
        self.use_threads()
        self.calls.call(
            "run_layers", self.calls.put(self.noise(sum(row_counts), hidden_size)), sum(row_counts),
            self.calls.put(model), self.calls.put(in_a_row(blocks)), 0, 2, self.calls.put(in_a_row(sequences)),
            len(sequences), nanoseconds, self.calls.put(np.full(1, -1, np.int32)),
        )  # fmt: skip

    def _block(self, hidden_size: int, has_all: bool, *, sliding_window: int = 0, **tiles: list[Laid]) -> Laid:
        ((name, parts),) = tiles.items()
        return laid(
            LayerBlock, tile_count=len(parts), norm=self.vector(hidden_size),
            late_bias=self.vector(hidden_size, is_there=has_all), sliding_window=sliding_window,
            **{name: self.calls.put(in_a_row(parts))},
        )  # fmt: skip

    def what_is_refused(self) -> None:
        """A kind that is none, an odd width, heads that are none: the same answer, and nothing is written."""
        memory = self.empty(64)
        self.calls.call("multiply", memory, 4, 1, memory, len(WEIGHT_KINDS), 4, 4, memory)
        for width, activation in ((17, 0), (16, len(ACTIVATIONS))):
            matrices = {"gate_up": self.matrix(8, width), "down": self.matrix(8, 8)}
            wrong = laid(FfnTile, projection_count=1, activation=activation, **matrices)
            self.calls.call("feed_forward", memory, 1, self.calls.put(wrong), memory)
        self.calls.call("widen", memory, len(FLOAT_KINDS), 4, memory)
        self.calls.call("narrow", memory, -1, 4, memory)
        for size in (3, 514):
            tile = self.calls.put(self.attention_tile(24, 1, 1, size))
            segments = self.calls.put(self.segment(1, 1, 1, size, 0, has_all=False))
            self.calls.call("attention", memory, 1, tile, segments, 1, memory)


REFUSED_COUNT = 7
"""Calls of `what_is_refused`, the last of a recording."""
