"""Tiles of random weights as a slice has them, and what the papers' formulas make of them in float64.

    case = AttentionCase(kv_count=2, group=3, runs=((0, 5), (7, 1)), window=4)
    assert_close(case.run(backend, case.stores(backend)), case.expected()[0])

Covers: one tile of attention or of an FFN, any stored dtype, rows of several sequences.
Does not cover: whole models (tests/golden).
Source: arXiv:1706.03762 (attention), arXiv:2305.13245 (grouped queries), arXiv:2104.09864 (rotation), arXiv:1910.07467
(norm), arXiv:2002.05202 (gated feed-forward).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from common.compute.backend import AttentionRows, Backend
from common.model.model_spec import ModelSpec, RopeSpec
from common.weights.slice_format import TENSOR_ALIGN_BYTES, TensorPlace, TileLayout
from common.weights.stored_numbers import STORED_NAMES, Floats, Stored, narrowed, widened

Doubles = npt.NDArray[np.float64]
LAYER, LAYER_COUNT, FIRST_KV_HEAD, EPSILON = 1, 2, 1, 1e-3
"""The tile is of the second layer and its heads begin at the second, so that a wrong place is seen."""
ACTIVATIONS: Mapping[str, Callable[[Doubles], Doubles]] = {
    "silu": lambda x: x * _sigmoid(x),
    "gelu": lambda x: x * 0.5 * (1 + np.vectorize(math.erf, otypes=[np.float64])(x / math.sqrt(2))),
    "gelu_tanh": lambda x: 0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))),
}


def random(*shape: int, seed: int = 0) -> Floats:
    """Return float32 noise."""
    return np.random.default_rng(seed).standard_normal(shape, dtype=np.float32)


def tile_of(tensors: Mapping[str, Stored], **counts: int) -> tuple[TileLayout, memoryview]:
    """Return a tile and its bytes. Args: counts: what else a TileLayout has."""
    places, content = [], bytearray()
    for name, tensor in tensors.items():
        places.append(TensorPlace(name=name, dtype=STORED_NAMES[tensor.dtype], shape=tensor.shape, offset=len(content)))
        content += tensor.tobytes()
        content += bytes(-len(content) % TENSOR_ALIGN_BYTES)
    layout = TileLayout(**{"first": 0, "count": 1, **counts}, tensors=tuple(places), byte_count=len(content))
    return layout, memoryview(content)


def spec_of(**numbers: Any) -> ModelSpec:
    """Return a model of two layers."""
    return ModelSpec(**{
        "family": "llama", "hidden_size": 12, "layer_count": LAYER_COUNT, "query_head_count": 1, "kv_head_count": 1,
        "head_size": 8, "ffn_size": 8, "vocab_size": 9, "max_position_count": 4096, "norm_epsilon": EPSILON,
        "rope": RopeSpec(), **numbers,
    })  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class AttentionCase:
    """Rows of sequences, one after another, and a tile with everything that one of attention may have."""

    kv_count: int = 1
    group: int = 1
    head_size: int = 8
    runs: tuple[tuple[int, int], ...] = ((0, 1),)
    """(first position, row count) of each sequence."""
    window: int = 0
    has_bias: bool = False
    has_norms: bool = False
    dtype: str = "float32"

    @property
    def spec(self) -> ModelSpec:
        return spec_of(
            query_head_count=self.kv_count * self.group, kv_head_count=self.kv_count, head_size=self.head_size,
            sliding_windows=(0, self.window),
        )  # fmt: skip

    @property
    def row_count(self) -> int:
        return sum(count for _, count in self.runs)

    @property
    def rows(self) -> Floats:
        return random(self.row_count, self.spec.hidden_size, seed=9)

    def tensors(self) -> dict[str, Stored]:
        """Return the tile's weights as they are stored."""
        hidden, width = self.spec.hidden_size, self.kv_count * (self.group + 2) * self.head_size
        tensors: dict[str, Stored] = {
            "qkv": narrowed(random(hidden, width, seed=1) / np.float32(3), self.dtype),
            "output": narrowed(random(self.kv_count * self.group * self.head_size, hidden, seed=2), self.dtype),
        }
        if self.has_bias:
            tensors["qkv_bias"] = random(width, seed=3)
        if self.has_norms:
            tensors["query_norm"] = 1 + random(self.head_size, seed=4)
            tensors["key_norm"] = 1 + random(self.head_size, seed=5)
        return tensors

    def angles(self, run: int) -> Floats:
        """Return a sequence's angles, [row_count, head_size / 2]; any will do."""
        return random(self.runs[run][1], self.head_size // 2, seed=20 + run)

    def before(self, run: int) -> Floats:
        """Return what a sequence's store holds before: noise everywhere."""
        first, count = self.runs[run]
        shape = (LAYER_COUNT, 2, FIRST_KV_HEAD + self.kv_count, first + count + 3, self.head_size)
        return random(*shape, seed=40 + run)

    def stores(self, backend: Backend) -> list[Any]:
        """Return each sequence's store as the backend has it, holding `before`."""
        stores = []
        for run in range(len(self.runs)):
            before = self.before(run)
            store = backend.new_store(before.shape)
            contents_of(store)[...] = before
            stores.append(store)
        return stores

    def run(
        self, backend: Backend, stores: Sequence[Any], rows: Floats | None = None, only: slice | None = None
    ) -> Floats:
        """Return the tile's part. Args: only: of the rows of a single sequence, those to compute now."""
        layout, content = tile_of(self.tensors(), count=self.kv_count * self.group, kv_count=self.kv_count)
        tile = backend.head_tile(self.spec, layout, content, FIRST_KV_HEAD)
        rows, segments = self.rows if rows is None else rows, []
        for run, (first, count) in enumerate(self.runs):
            own = only or slice(0, count)
            cosine, sine = np.cos(self.angles(run)[own]), np.sin(self.angles(run)[own])
            tables = backend.tables(np.concatenate((cosine, cosine), axis=1), np.concatenate((-sine, sine), axis=1))
            segments.append(AttentionRows(len(cosine), first + own.start, stores[run], tables))
        taken = backend.rows_in(rows[only] if only else rows)
        return backend.rows_out(backend.attention(taken, tile, self.spec, LAYER, segments))

    def expected(self) -> tuple[Doubles, list[Doubles]]:
        """Return the part, and what the stores hold then, one head and row at a time in float64."""
        tensors = {name: widened(tensor).astype(np.float64) for name, tensor in self.tensors().items()}
        projected = self.rows.astype(np.float64) @ tensors["qkv"] + tensors.get("qkv_bias", 0)
        heads = projected.reshape(self.row_count, -1, self.head_size)
        contexts, stores, row = [], [], 0
        for run, (_, count) in enumerate(self.runs):
            context, store = self._attended(run, heads[row : row + count], tensors)
            contexts.append(context)
            stores.append(store)
            row += count
        return np.concatenate(contexts) @ tensors["output"], stores

    def _attended(self, run: int, heads: Doubles, tensors: Mapping[str, Doubles]) -> tuple[Doubles, Doubles]:
        (first, count), query_count = self.runs[run], self.kv_count * self.group
        store, angles = self.before(run).astype(np.float64), self.angles(run).astype(np.float64)
        context = np.zeros((count, query_count, self.head_size))
        for row in range(count):
            position = first + row
            for head in range(self.kv_count):
                key, value = heads[row, query_count + head], heads[row, query_count + self.kv_count + head]
                store[LAYER, 0, FIRST_KV_HEAD + head, position] = rotated(normed(key, tensors, "key_norm"), angles[row])
                store[LAYER, 1, FIRST_KV_HEAD + head, position] = value
            seen = slice(max(0, position + 1 - self.window) if self.window else 0, position + 1)
            for head in range(query_count):
                query = rotated(normed(heads[row, head], tensors, "query_norm"), angles[row])
                keys, values = store[LAYER, :, FIRST_KV_HEAD + head // self.group, seen]
                scores = keys @ query / math.sqrt(self.head_size)
                weights = np.exp(scores - scores.max())
                context[row, head] = weights / weights.sum() @ values
        return context.reshape(count, -1), store


@dataclass(frozen=True, kw_only=True)
class FfnCase:
    """Rows and an FFN tile."""

    activation: str = "silu"
    row_count: int = 1
    columns: int = 5
    has_bias: bool = False
    dtype: str = "float32"
    scale: float = 1.0

    @property
    def spec(self) -> ModelSpec:
        return spec_of(activation=self.activation)

    @property
    def rows(self) -> Floats:
        rows: Floats = random(self.row_count, self.spec.hidden_size, seed=14) * np.float32(self.scale)
        return rows

    def tensors(self) -> dict[str, Stored]:
        """Return the tile's weights as they are stored."""
        hidden = self.spec.hidden_size
        tensors = {
            "gate_up": narrowed(random(hidden, 2 * self.columns, seed=11), self.dtype),
            "down": narrowed(random(self.columns, hidden, seed=12), self.dtype),
        }
        if self.has_bias:
            tensors["gate_up_bias"] = random(2 * self.columns, seed=13)
        return tensors

    def run(self, backend: Backend, rows: Floats | None = None) -> Floats:
        """Return the tile's part."""
        layout, content = tile_of(self.tensors(), count=self.columns)
        tile = backend.ffn_tile(self.spec, layout, content)
        return backend.rows_out(backend.feed_forward(backend.rows_in(self.rows if rows is None else rows), tile))

    def expected(self) -> Doubles:
        """Return the part in float64."""
        tensors = {name: widened(tensor).astype(np.float64) for name, tensor in self.tensors().items()}
        both = self.rows.astype(np.float64) @ tensors["gate_up"] + tensors.get("gate_up_bias", 0)
        gate, up = both[:, : self.columns], both[:, self.columns :]
        part: Doubles = (ACTIVATIONS[self.activation](gate) * up) @ tensors["down"]
        return part


def contents_of(store: Any) -> Any:
    """Return a store's numbers, to be read and written: an array that the native backend has, or torch's tensor."""
    return store.array if hasattr(store, "array") else store.numpy()


def normed(head: Doubles, tensors: Mapping[str, Doubles], name: str) -> Doubles:
    """Return a head by its root mean square, times the weight of that name, if the tile has it."""
    if name not in tensors:
        return head
    scaled: Doubles = head / np.sqrt(np.mean(head**2) + EPSILON) * tensors[name]
    return scaled


def rotated(head: Doubles, angles: Doubles) -> Doubles:
    """Return a head whose pairs (i, i + half) are turned by their angle."""
    first, second = np.split(head, 2)
    cosine, sine = np.cos(angles), np.sin(angles)
    return np.concatenate((first * cosine - second * sine, second * cosine + first * sine))


def _sigmoid(x: Doubles) -> Doubles:
    return 0.5 * (1 + np.tanh(x / 2))
