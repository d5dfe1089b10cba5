"""Is every block file a true safetensors file whose tiles are whole pages, and do its tiles cover the share?

Covers: common/weights/slice_format.py for random models, dtypes and tile sizes, read by the safetensors library.
Does not cover: which source rows go where (tests/unit/test_splitter.py), manifests.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import deserialize

from common.errors import InputError
from common.model.model_spec import ModelSpec
from common.model.plan import COLUMN_GRAIN, Plan, RankShare, make_plan
from common.weights.manifest import COORDINATOR_RANK, EMBEDDING_FILE, HEAD_FILE
from common.weights.slice_description import SliceDescription
from common.weights.slice_format import (
    ATTENTION,
    FFN,
    ITEM_BYTES,
    PAGE_BYTES,
    SAFETENSORS_DTYPES,
    TENSOR_ALIGN_BYTES,
    FileLayout,
    TileLayout,
    block_layout,
)
from tests.support.random_specs import model_specs, split_strategies

dtypes = st.sampled_from(sorted(ITEM_BYTES))
tile_sizes = st.sampled_from([4096, 5000, 8192, 40_000, 1 << 20])


def layouts_of(spec: ModelSpec, plan: Plan, rank: int, dtype: str, tile_bytes: int) -> dict[str, FileLayout]:
    """Return the layout of every file of one slice."""
    about = SliceDescription(
        model_identity="m", spec=spec, plan=plan, rank=rank, dtype=dtype, tile_bytes=tile_bytes
    )  # fmt: skip
    return about.layouts()


def all_layouts(spec: ModelSpec, strategy: tuple[str, int], dtype: str, tile_bytes: int) -> Iterator[FileLayout]:
    """Yield the layout of every file of every slice, the same ones only once."""
    plan = make_plan(spec, *strategy)
    for rank in range(COORDINATOR_RANK, plan.world_size):
        yield from layouts_of(spec, plan, rank, dtype, tile_bytes).values()


def used_bytes(tile: TileLayout) -> list[tuple[int, int]]:
    """Return (start, stop) of each tensor within its tile."""
    return [(place.offset, place.offset + math.prod(place.shape) * ITEM_BYTES[place.dtype]) for place in tile.tensors]


@settings(max_examples=60)
@given(spec=model_specs(), strategy=split_strategies(most_nodes=5), dtype=dtypes, tile_bytes=tile_sizes)
def test_tiles_are_whole_pages_one_after_another(
    spec: ModelSpec, strategy: tuple[str, int], dtype: str, tile_bytes: int
) -> None:
    """Each tile starts where the one before ends, on a page, the last ends the file; tensors in it do not overlap."""
    for layout in all_layouts(spec, strategy, dtype, tile_bytes):
        position = len(layout.header)
        for tile, offset in zip(layout.tiles, layout.tile_offsets, strict=True):
            assert offset == position
            assert offset % PAGE_BYTES == tile.byte_count % PAGE_BYTES == 0
            position += tile.byte_count
            ranges = [(0, 0), *used_bytes(tile), (tile.byte_count, tile.byte_count)]
            assert all(stop <= start for (_, stop), (start, _) in itertools.pairwise(ranges))
            assert all(place.offset % TENSOR_ALIGN_BYTES == 0 for place in tile.tensors)
        assert position == layout.file_bytes


@settings(max_examples=40)
@given(spec=model_specs(), strategy=split_strategies(most_nodes=4), dtype=dtypes, tile_bytes=tile_sizes)
def test_the_safetensors_library_reads_the_tensors_that_were_put_there(
    spec: ModelSpec, strategy: tuple[str, int], dtype: str, tile_bytes: int
) -> None:
    """A file of random bytes behind our header opens, and each tensor is the bytes at its place, in its shape."""
    generator = np.random.default_rng(1)
    for layout in all_layouts(spec, strategy, dtype, tile_bytes):
        body = generator.bytes(layout.file_bytes - len(layout.header))
        tensors = dict(deserialize(layout.header + body))
        for index, (tile, offset) in enumerate(zip(layout.tiles, layout.tile_offsets, strict=True)):
            start = offset - len(layout.header)
            for place, (first, stop) in zip(tile.tensors, used_bytes(tile), strict=True):
                found = tensors.pop(f"tile{index}.{place.name}")
                assert tuple(found["shape"]) == place.shape
                assert found["dtype"] == SAFETENSORS_DTYPES[place.dtype]
                assert bytes(found["data"]) == body[start + first : start + stop]
        assert all(name.split(".")[1].startswith("pad") for name in tensors)


@settings(max_examples=100)
@given(spec=model_specs(), strategy=split_strategies(most_nodes=6), dtype=dtypes, tile_bytes=tile_sizes)
def test_attention_tiles_cover_the_share_and_pair_heads_with_what_they_read(
    spec: ModelSpec, strategy: tuple[str, int], dtype: str, tile_bytes: int
) -> None:
    """Query heads follow one another, as many for each KV head of the tile, and each reads its own KV head."""
    for share in make_plan(spec, *strategy).shares:
        tiles = block_layout(spec, share, ATTENTION, dtype, tile_bytes).tiles
        heads = [head for tile in tiles for head in range(tile.first, tile.first + tile.count)]
        assert heads == list(range(share.query_head_start, share.query_head_stop))
        for tile in tiles:
            group = tile.count // tile.kv_count
            assert group * tile.kv_count == tile.count
            for index in range(tile.count):
                assert (tile.first + index) // spec.group_size == tile.kv_first + index // group
            shapes = {place.name: place.shape for place in tile.tensors}
            assert shapes["qkv"] == (spec.hidden_size, (tile.count + 2 * tile.kv_count) * spec.head_size)
            assert shapes["output"] == (tile.count * spec.head_size, spec.hidden_size)
            assert ("qkv_bias" in shapes, "key_norm" in shapes) == (spec.qkv_bias, spec.qk_norm)


@settings(max_examples=100)
@given(spec=model_specs(most_ffn=3000), strategy=split_strategies(), dtype=dtypes, tile_bytes=tile_sizes)
def test_ffn_tiles_cover_the_share_in_few_and_even_parts(
    spec: ModelSpec, strategy: tuple[str, int], dtype: str, tile_bytes: int
) -> None:
    """Columns follow one another; no tile is empty or more than one grain of columns over the size asked for."""
    column_bytes = 3 * spec.hidden_size * ITEM_BYTES[dtype]
    most = max(COLUMN_GRAIN, tile_bytes // column_bytes) + COLUMN_GRAIN
    for share in make_plan(spec, *strategy).shares:
        tiles = block_layout(spec, share, FFN, dtype, tile_bytes).tiles
        columns = [column for tile in tiles for column in range(tile.first, tile.first + tile.count)]
        assert columns == list(range(share.ffn_column_start, share.ffn_column_stop))
        assert all(1 <= tile.count <= most for tile in tiles)
        assert all((tile.first - share.ffn_column_start) % COLUMN_GRAIN == 0 for tile in tiles)
        assert len(tiles) <= math.ceil(share.ffn_column_count / max(COLUMN_GRAIN, tile_bytes // column_bytes))


@settings(max_examples=60)
@given(spec=model_specs(), dtype=dtypes, tile_bytes=tile_sizes)
def test_embedding_and_head_tiles_cover_the_vocabulary(spec: ModelSpec, dtype: str, tile_bytes: int) -> None:
    """Every token has its embedding row and its logit in exactly one tile each."""
    layouts = layouts_of(spec, make_plan(spec, "uniform", 1), COORDINATOR_RANK, dtype, tile_bytes)
    for name in (EMBEDDING_FILE, HEAD_FILE):
        tokens = [token for tile in layouts[name].tiles for token in range(tile.first, tile.first + tile.count)]
        assert tokens == list(range(spec.vocab_size))


@pytest.mark.parametrize(("dtype", "tile_bytes"), [("int8", 8192), ("", 8192), ("float32", 0), ("float32", 1 << 40)])
def test_a_layout_that_cannot_be_is_refused(dtype: str, tile_bytes: int) -> None:
    """A hostile manifest's dtype and tile size end in an error of ours, before any arithmetic with them."""
    spec = ModelSpec.from_json(SMALL)
    share = RankShare(query_head_start=0, query_head_stop=1, ffn_column_start=0, ffn_column_stop=8)
    with pytest.raises(InputError):
        block_layout(spec, share, FFN, dtype, tile_bytes)


SMALL = {
    "family": "llama", "hidden_size": 8, "layer_count": 1, "query_head_count": 1, "kv_head_count": 1, "head_size": 8,
    "ffn_size": 8, "vocab_size": 8, "max_position_count": 8, "norm_epsilon": 1e-5, "activation": "silu",
    "sliding_windows": [0], "rope": {"rope_type": "default", "frequency_factors": []},
}  # fmt: skip
