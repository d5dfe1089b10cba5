"""Do many rows get what each of them would get alone, bit for bit, and is it what mathematics says?

Covers: attention and gates of any number of rows on every instruction set, with any number of threads, a prompt cut
anywhere; against float64 and the standard library's error function.
Does not cover: products (test_matmul.py), sums and norms of few rows (test_row_steps.py).
"""

from __future__ import annotations

import ctypes
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from common.native.library import ACTIVATIONS, Attention, Matrix, shared
from tests.support.native_weights import attention_tile_of, ffn_tile_of
from tests.support.thorough import examples

kernels = shared()
pytestmark = pytest.mark.skipif(kernels.functions is None, reason=kernels.reason or "there are kernels")
Floats = NDArray[np.float32]
EPSILON = 1e-5
DONE = 0


@pytest.fixture(params=kernels.variants, scope="module", autouse=True)
def variant(request: pytest.FixtureRequest) -> Iterator[str]:
    """Compute with each instruction set that this processor has."""
    kernels.choose(request.param)
    yield request.param
    kernels.choose(kernels.variant)
    kernels.set_thread_count(1)


def noise(seed: int, *shape: int) -> Floats:
    """Return float32 noise."""
    return np.random.default_rng(seed).standard_normal(shape, dtype=np.float32)


def place(array: Floats | None) -> int | None:
    """Return where numbers lie."""
    return None if array is None else int(array.__array_interface__["data"][0])


def matrix_of(weight: Floats) -> Matrix:
    """Return weights as kernels see them; the caller keeps them."""
    return Matrix(place(weight), 0, -1, 0, *weight.shape)


@dataclass
class Prompt:
    """Rows of one sequence after others, with everything that an attention tile may have."""

    kv: int
    group: int
    size: int
    rows: int
    first: int
    window: int
    has_all: bool

    def __post_init__(self) -> None:
        width = self.kv * (self.group + 2) * self.size
        self.projected = noise(1, self.rows, width)
        self.bias = noise(2, width) if self.has_all else None
        self.norms = (1 + noise(3, self.size), 1 + noise(4, self.size)) if self.has_all else (None, None)
        angles = np.tile(noise(5, self.rows, self.size // 2), 2)
        self.cosine, self.sine = np.cos(angles), np.sin(angles)
        self.capacity = self.first + self.rows  # not one position more: what reads on would be seen under a sanitizer
        self.store = noise(6, 2, self.kv, self.capacity, self.size)

    def run(self, store: Floats, start: int, stop: int) -> Floats:
        """Attend with the rows [start, stop); keys and values go into `store`."""
        assert kernels.functions is not None
        half, count, context_width = self.size // 2, stop - start, self.kv * self.group * self.size
        cosine, sine = self.cosine[start:stop].copy(), self.sine[start:stop].copy()
        sine[:, :half] *= -1
        width = self.projected.shape[1]
        # Products that change nothing.
        qkv, output = np.eye(width, dtype=np.float32), np.eye(context_width, width, dtype=np.float32)
        rows = self.projected[start:stop].copy()
        part: Floats = np.empty((count, width), np.float32)
        pitch = self.capacity * self.size
        keys = place(store)
        assert keys is not None
        segment = Attention(
            None, count, self.kv * self.group, self.kv, self.size, place(self.bias), *map(place, self.norms), EPSILON,
            place(cosine), place(sine), keys, keys + self.kv * pitch * 4, pitch, self.first + start, self.window, None,
        )  # fmt: skip
        tile = attention_tile_of(matrix_of(qkv), matrix_of(output))
        outcome = kernels.functions.shardmesh_attention(place(rows), count, tile, ctypes.byref(segment), 1, place(part))
        assert outcome == DONE
        return part[:, :context_width]

    def cut(self, cuts: Sequence[int]) -> tuple[Floats, Floats]:
        """Return contexts and the store when the rows come in pieces that end at `cuts`."""
        store = self.store.copy()
        ends = sorted({*(cut for cut in cuts if cut < self.rows), self.rows})
        parts = [self.run(store, start, stop) for start, stop in zip([0, *ends], ends, strict=False)]
        return np.concatenate(parts), store

    def expected(self) -> NDArray[np.float64]:
        """Return contexts in float64, from the formulas."""
        heads = self.projected.astype(np.float64) + (0 if self.bias is None else self.bias)
        heads = heads.reshape(self.rows, -1, self.size)
        queries, keys, values = np.split(heads, [self.kv * self.group, self.kv * (self.group + 1)], axis=1)
        stored = self.store.astype(np.float64)
        stored[0, :, self.first :] = self._turned(keys, self.norms[1]).swapaxes(0, 1)
        stored[1, :, self.first :] = values.swapaxes(0, 1)
        queries = self._turned(queries, self.norms[0]).reshape(self.rows, self.kv, self.group, self.size)
        scores = np.einsum("rkgs,kps->kgrp", queries, stored[0]) / math.sqrt(self.size)
        own, positions = self.first + np.arange(self.rows)[:, None], np.arange(self.capacity)[None]
        is_seen = (positions <= own) & (positions > (own - self.window if self.window else -1))
        scores = np.where(is_seen, scores, -np.inf)
        weights = np.exp(scores - scores.max(axis=-1, keepdims=True))
        weights /= weights.sum(axis=-1, keepdims=True)
        found: NDArray[np.float64] = np.einsum("kgrp,kps->rkgs", weights, stored[1]).reshape(self.rows, -1)
        return found

    def _turned(self, heads: NDArray[np.float64], norm: Floats | None) -> NDArray[np.float64]:
        if norm is not None:
            heads = heads / np.sqrt((heads**2).mean(axis=-1, keepdims=True) + EPSILON) * norm
        first, second = np.split(heads, 2, axis=-1)
        rolled = np.concatenate((-second, first), axis=-1)
        turned: NDArray[np.float64] = heads * self.cosine[:, None] + rolled * self.sine[:, None]
        return turned


prompts = st.builds(
    Prompt, kv=st.integers(1, 3), group=st.sampled_from([1, 2, 3, 4, 7, 20, 70]),
    size=st.one_of(st.integers(1, 40).map(lambda half: 2 * half), st.sampled_from([16, 64])),
    rows=st.integers(1, 90), first=st.integers(0, 150), window=st.integers(0, 90), has_all=st.booleans(),
).filter(lambda prompt: prompt.projected.shape[1] <= 1200)  # fmt: skip
threads = st.integers(1, 3)


@given(prompts, threads)
@settings(max_examples=examples(40), deadline=None)
def test_attention_is_what_the_formulas_say(prompt: Prompt, thread_count: int) -> None:
    """Bias, norms, rotation, grouped heads, sliding windows."""
    kernels.set_thread_count(thread_count, 0)
    context, _ = prompt.cut([])
    np.testing.assert_allclose(context, prompt.expected(), atol=5e-5, rtol=5e-5)


@given(prompts, threads, st.lists(st.integers(1, 90), max_size=4))
@settings(max_examples=examples(25), deadline=None)
def test_a_row_is_the_same_bits_however_its_prompt_is_cut(prompt: Prompt, thread_count: int, cuts: list[int]) -> None:
    """All at once, in pieces, one by one; with any number of threads."""
    kernels.set_thread_count(1)
    expected, expected_store = prompt.cut(range(1, prompt.rows))
    kernels.set_thread_count(thread_count, 0)
    for pieces in ([], cuts):
        context, store = prompt.cut(pieces)
        assert np.array_equal(context, expected)
        assert np.array_equal(store, expected_store)


@pytest.mark.parametrize(("size", "window"), [(64, 0), (80, 100), (128, 0), (6, 3)])
def test_a_long_prompt_is_the_same_bits_on_every_instruction_set(size: int, window: int) -> None:
    """More rows than a block has, more blocks than threads; devices of a mesh may differ, their rows do not."""
    prompt = Prompt(kv=2, group=1, size=size, rows=300, first=70, window=window, has_all=True)
    kernels.set_thread_count(2, 0)
    results = []
    for name in kernels.variants:
        kernels.choose(name)
        results.append(prompt.cut([]))
    assert all(np.array_equal(results[0][0], context) for context, _ in results)
    assert np.array_equal(results[0][0], prompt.cut([7, 64, 130, 131])[0])


@pytest.mark.parametrize("wrong", [np.nan, -np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("window", [0, 9])
def test_a_row_that_is_not_finite_spoils_no_row_before_it(wrong: float, window: int) -> None:
    """Nor one whose window begins after it, though their queries share a block."""
    prompt = Prompt(kv=1, group=3, size=16, rows=50, first=30, window=window, has_all=False)
    expected, _ = prompt.cut([])
    prompt.projected[20] = wrong
    context, _ = prompt.cut([])
    assert not np.isfinite(context[20]).any()
    assert np.array_equal(context[:20], expected[:20])
    if window:
        assert np.array_equal(context[20 + window :], expected[20 + window :])


def gated(both: Floats, activation: str) -> Floats:
    """Return what an FFN tile makes of its first product."""
    assert kernels.functions is not None
    row_count, width = both.shape
    gate_up, down = np.eye(width, dtype=np.float32), np.eye(width // 2, width, dtype=np.float32)
    part: Floats = np.empty_like(both)
    tile = ffn_tile_of(matrix_of(gate_up), matrix_of(down), ACTIVATIONS.index(activation))
    assert kernels.functions.shardmesh_feed_forward(place(both), row_count, tile, place(part)) == DONE
    return part[:, : width // 2]


PLAIN_ACTIVATIONS = {
    "silu": lambda x: x / (1 + math.exp(-x)),
    "gelu": lambda x: x * 0.5 * math.erfc(-x / math.sqrt(2)),
    "gelu_tanh": lambda x: x * 0.5 * (1 + math.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))),
}


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_a_gate_is_what_the_standard_library_says(activation: str) -> None:
    """Everywhere within 2e-7 of the larger of 1 and |x|, and of half of |x| near zero, where it begins."""
    x = np.concatenate((
        np.linspace(-14, 14, 6001), np.geomspace(1e-30, 1, 2000), -np.geomspace(1e-30, 1, 2000), [0.0, 60.0, -60.0],
        np.nextafter([1.0, -1.0, 2.0, -2.0], 0) * math.sqrt(2),
    )).astype(np.float32)  # fmt: skip
    width = 512
    x = np.resize(x, (len(x) // width + 1, width))
    found = gated(np.concatenate((x, np.ones_like(x)), axis=1), activation)
    expected = np.vectorize(PLAIN_ACTIVATIONS[activation])(x.astype(np.float64))
    error = np.abs(found - expected)
    assert (error <= 2e-7 * np.maximum(np.abs(x), 1)).all()
    is_near = np.abs(x) < 1
    assert (error[is_near] <= 3e-7 * np.abs(x[is_near])).all()


@given(st.integers(1, 70), st.integers(1, 60), st.sampled_from(ACTIVATIONS), threads)
@settings(deadline=None)
def test_rows_of_a_gate_are_the_same_bits_alone(
    row_count: int, columns: int, activation: str, thread_count: int
) -> None:
    """Tails of vectors compute as vectors do, and so do all instruction sets and threads."""
    both = noise(row_count, row_count, 2 * columns) * 3
    kernels.set_thread_count(thread_count, 0)
    together = gated(both, activation)
    alone = np.concatenate([gated(both[row : row + 1], activation) for row in range(row_count)])
    assert np.array_equal(together, alone)
    for name in kernels.variants:
        kernels.choose(name)
        assert np.array_equal(gated(both, activation), together)


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("wrong", [np.nan, -np.nan, np.inf, -np.inf])
def test_what_is_no_number_stays_none_in_a_gate(activation: str, wrong: float) -> None:
    """In its own column only."""
    both = noise(1, 3, 40)
    expected = gated(both, activation)
    inner = both.copy()
    inner[1, 20 + 5] = wrong
    found = gated(inner, activation)
    assert not np.isfinite(found[1]).any()  # identity matrices multiply it by zero too
    assert np.array_equal(found[[0, 2]], expected[[0, 2]])


def test_a_gate_of_an_unknown_kind_is_refused() -> None:
    """A number that steps.h does not have."""
    assert kernels.functions is not None
    both, part = noise(1, 1, 8), np.empty((1, 8), np.float32)
    gate_up, down = np.eye(8, dtype=np.float32), np.eye(4, 8, dtype=np.float32)
    for number in (-1, len(ACTIVATIONS)):
        tile = ffn_tile_of(matrix_of(gate_up), matrix_of(down), number)
        assert kernels.functions.shardmesh_feed_forward(place(both), 1, tile, place(part)) != DONE
