"""Are the head's logits those of one big matrix, however it is cut, streamed and stored?

Covers: coordinator/engine/head.py. Does not cover: the norm before it (test_ends.py), reading tiles
(test_tile_source.py).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from common.compute.backend import backend_named
from common.errors import SliceCorrupt
from common.weights.manifest import HEAD_FILE
from common.weights.slice_format import TileLayout
from common.weights.stored_numbers import Floats
from common.weights.weight_memory import WeightMemory
from coordinator.engine.head import TILES_PER_BLOCK, Head
from tests.support.model_tensors import HEAD
from tests.support.older_slices import make_older
from tests.support.random_models import build
from tests.support.sliced_models import SlicedModel, slice_model

VOCAB = 331


@contextmanager
def opened(sliced: SlicedModel, memory_window: int = 2, backend: str = "native") -> Iterator[Head]:
    """Open the head of a slice."""
    head = Head(
        sliced.slice_directory(), sliced.manifest(), WeightMemory(memory_window=memory_window), backend_named(backend)
    )
    try:
        yield head
    finally:
        head.close()


@pytest.fixture(scope="module", params=[False, True], ids=["untied", "tied"])
def sliced(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> SlicedModel:
    """Return a model whose vocabulary does not divide into its tiles; nobody changes it."""
    model = build(layers=1, vocab_size=VOCAB, tied=request.param)
    return slice_model(tmp_path_factory.mktemp("sliced"), model=model)


def rows_of(count: int) -> Floats:
    """Return normed rows."""
    return np.random.default_rng(count).standard_normal((count, 64), np.float32)


@pytest.mark.parametrize("memory_window", [0, 2, 3])
@pytest.mark.parametrize("row_count", [1, 5])
@pytest.mark.parametrize("backend", ["native", "torch"])
def test_tiles_are_one_big_matrix(sliced: SlicedModel, memory_window: int, row_count: int, backend: str) -> None:
    """Every logit is there, at its token, sweep after sweep."""
    if backend == "torch":
        pytest.importorskip("torch")
    weight = sliced.model.floats(HEAD)
    with opened(sliced, memory_window, backend) as head:
        assert len(head._layouts) > 3
        for _ in range(3):
            rows = rows_of(row_count)
            logits = head.logits(rows)
            assert (logits.dtype.name, logits.shape) == ("float32", (row_count, VOCAB))
            np.testing.assert_allclose(logits, rows @ weight.T, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@pytest.mark.parametrize("memory_window", [0, 2])
def test_weights_of_16_bits_are_computed_with_in_float32(tmp_path: Path, dtype: str, memory_window: int) -> None:
    """Half the bytes on disk and in the window, and the product of the very same numbers."""
    model = build(layers=1, vocab_size=260, dtype=dtype)
    with opened(slice_model(tmp_path, model=model, dtype=dtype), memory_window) as head:
        expected = rows_of(2) @ model.floats(HEAD).T
        np.testing.assert_allclose(head.logits(rows_of(2)), expected, atol=1e-5, rtol=1e-5)


def test_the_window_is_the_memory_that_the_head_takes(sliced: SlicedModel) -> None:
    """A window of 2 is room for two of the head's blocks; 0 keeps the whole head, read once."""
    tile_bytes = max(tile.byte_count for tile in opened_layouts(sliced))
    with opened(sliced, 2) as head:
        head.logits(rows_of(1))
        assert head.stats.window_bytes <= 2 * TILES_PER_BLOCK * tile_bytes
        assert head.stats.peak_held_bytes <= head.stats.window_bytes
        assert head.stats.resident_bytes == 0
    with opened(sliced, 0) as head:
        head.logits(rows_of(1))
        read_bytes = head.stats.bytes_read_total
        head.logits(rows_of(1))
        assert head.stats.bytes_read_total == read_bytes == head.stats.resident_bytes
        assert head.stats.window_bytes == 0


def opened_layouts(sliced: SlicedModel) -> tuple[TileLayout, ...]:
    """Return the layouts of the head's tiles."""
    with opened(sliced) as head:
        return head._layouts


@pytest.mark.parametrize("age", ["new", "older"])
@pytest.mark.parametrize("memory_window", [0, 2])
def test_a_flipped_bit_ends_in_an_error_and_never_in_a_logit(tmp_path: Path, memory_window: int, age: str) -> None:
    """The damaged file is named, with what to do."""
    sliced = slice_model(tmp_path, model=build(layers=1, vocab_size=VOCAB))
    if age == "older":
        make_older(sliced.slice_directory())
    path = sliced.slice_directory() / HEAD_FILE
    data = bytearray(path.read_bytes())
    data[-8192] ^= 64
    path.write_bytes(data)
    with opened(sliced, memory_window) as head, pytest.raises(SliceCorrupt, match=f"{HEAD_FILE}.*--split-bin"):
        head.logits(rows_of(1))
