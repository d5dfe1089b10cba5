"""Do tiles of a slice with encodings of its own cover its share, on a grid that no plan moves, in bytes that are even?

Covers: common/weights/encoded_format.py and what it cuts for, random models and encodings, shapes of models that people
have. Does not cover: slices of one dtype (test_slice_format.py), what lies in blocks.
"""

from __future__ import annotations

import dataclasses
import itertools
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from common.errors import InputError
from common.model.model_spec import ModelSpec, RopeSpec
from common.model.plan import make_plan
from common.weights.balanced_plans import balanced_plan
from common.weights.encoded_format import DEFAULT_CELL_BYTES
from common.weights.encodings import ENCODINGS, grain, is_encoded, packed_bytes
from common.weights.manifest import COORDINATOR_RANK
from common.weights.model_encodings import MATRICES, LayerEncodings, ModelEncodings, inputs_of
from common.weights.slice_description import SliceDescription
from common.weights.slice_format import ATTENTION, BLOCK_KINDS, FFN, PAGE_BYTES, TileLayout

SUPERBLOCK = 256


def spec_of(hidden: int, layers: int, queries: int, kv: int, head: int, ffn: int, vocab: int, tied: bool) -> ModelSpec:
    """Return a model of the Llama shape."""
    return ModelSpec(
        family="llama", hidden_size=hidden, layer_count=layers, query_head_count=queries, kv_head_count=kv,
        head_size=head, ffn_size=ffn, vocab_size=vocab, max_position_count=64, norm_epsilon=1e-5, rope=RopeSpec(),
        tied_embeddings=tied,
    )  # fmt: skip


@st.composite
def described(draw: st.DrawFn) -> SliceDescription:
    """Return a random model's slices: sizes that blocks fit, layers that are not alike."""
    kv, group, head = draw(st.integers(1, 4)), draw(st.integers(1, 4)), draw(st.sampled_from([32, 64, 128]))
    spec = spec_of(
        hidden=32 * draw(st.integers(1, 24)), layers=draw(st.integers(1, 4)), queries=kv * group, kv=kv, head=head,
        ffn=32 * draw(st.integers(1, 48)), vocab=draw(st.integers(1, 700)), tied=draw(st.booleans()),
    )  # fmt: skip

    def encoding(matrix: str) -> str:
        fitting = [name for name in ENCODINGS if inputs_of(spec, matrix) % grain(name) == 0]
        return draw(st.sampled_from([*fitting, "float32", "float16", "bfloat16"]))

    layers = tuple(
        LayerEncodings(**{name: encoding(name) for name in MATRICES}) for _ in range(spec.layer_count)
    )  # fmt: skip
    embedding = encoding("embedding")
    encodings = ModelEncodings(layers=layers, embedding=embedding, head=embedding if spec.tied_embeddings else "q8_0")
    about = SliceDescription(
        model_identity="m", spec=spec, plan=make_plan(spec, "uniform", 1), rank=COORDINATOR_RANK, dtype="gguf",
        tile_bytes=draw(st.sampled_from([4096, 30_000, DEFAULT_CELL_BYTES])), encodings=encodings,
    )  # fmt: skip
    return dataclasses.replace(about, plan=balanced_plan(about, "uniform", draw(st.integers(1, 9))))


@settings(deadline=None)
@given(described())
def test_every_matrix_is_held_whole_by_all_ranks_together(about: SliceDescription) -> None:
    """Outputs and own inputs once each; covering blocks begin and end with blocks; a description reads back equal."""
    spec = about.spec
    for kind, layer in itertools.product(BLOCK_KINDS, range(spec.layer_count)):
        tiles = [
            tile
            for rank in range(about.plan.world_size)
            for tile in about.of_rank(rank).block_layouts()[kind][layer].tiles
        ]
        own = [column for tile in tiles for column in range(tile.first, tile.first + tile.count)]
        assert own == list(range(spec.query_head_count if kind == ATTENTION else spec.ffn_size))
        for tile in tiles:
            check_tile(about, kind, layer, tile)
    assert SliceDescription.from_json(about.to_json()) == about


def check_tile(about: SliceDescription, kind: str, layer: int, tile: TileLayout) -> None:
    """Look at one tile's places: whole pages, no overlap, shapes that fit its share."""
    spec, encodings = about.spec, about.encodings
    assert encodings is not None
    ends = [0, *(place.offset + place.byte_count for place in tile.tensors)]
    assert all(place.offset >= end for place, end in zip(tile.tensors, ends, strict=False))
    assert ends[-1] <= tile.byte_count
    assert tile.byte_count % PAGE_BYTES == 0
    places = {place.name: place for place in tile.tensors}
    matrix, scale = ("output", spec.head_size) if kind == ATTENTION else ("down", 1)
    depth = places[matrix].shape[0]
    start = tile.first * scale - tile.skip
    step = grain(encodings.of(matrix, layer))
    assert start % step == 0
    assert depth % step == 0
    assert tile.skip < step
    assert start + depth <= inputs_of(spec, matrix)
    assert 0 <= depth - tile.skip - tile.count * scale < step
    for name in places.keys() & set(MATRICES):
        assert places[name].dtype == encodings.of(name, layer)
        if is_encoded(places[name].dtype):
            assert places[name].byte_count == packed_bytes(places[name].dtype, *places[name].shape)


@settings(deadline=None)
@given(described())
def test_plans_cut_where_one_node_does_but_for_their_ranks_edges(about: SliceDescription) -> None:
    """A cell that lies within one rank's share is the same tile, whatever the plan."""
    alone = dataclasses.replace(about, plan=balanced_plan(about, "uniform", 1), rank=0)
    grid = {tile.first for tile in alone.block_layouts()[FFN][0].tiles}
    edges = {share.ffn_column_start for share in about.plan.shares}
    for rank in range(about.plan.world_size):
        assert {tile.first for tile in about.of_rank(rank).block_layouts()[FFN][0].tiles} <= grid | edges


SHAPES = {
    "Llama 3.2 1B": spec_of(2048, 16, 32, 8, 64, 8192, 128256, True),
    "Llama 3.2 3B": spec_of(3072, 28, 24, 8, 128, 8192, 128256, True),
    "Llama 3.1 8B": spec_of(4096, 32, 32, 8, 128, 14336, 128256, False),
    "Qwen3 4B": spec_of(2560, 36, 32, 8, 128, 9728, 151936, True),
    "Qwen3 8B": spec_of(4096, 36, 32, 8, 128, 12288, 151936, False),
}


def q4_k_m(spec: ModelSpec) -> ModelEncodings:
    """Return the mixture of a Q4_K_M file: half of values and downs in Q6_K, as llama.cpp deals them."""

    def layer(index: int) -> LayerEncodings:
        eighth = spec.layer_count // 8
        more = "q6_k" if index < eighth or index >= 7 * eighth or (index - eighth) % 3 == 2 else "q4_k"
        return LayerEncodings(
            query="q4_k", key="q4_k", value=more, output="q4_k", gate="q4_k", up="q4_k", down=more
        )  # fmt: skip

    return ModelEncodings(
        layers=tuple(layer(index) for index in range(spec.layer_count)), embedding="q6_k" if spec.tied_embeddings else
        "q4_k", head="q6_k",
    )  # fmt: skip


@pytest.mark.parametrize("name", SHAPES)
def test_the_fullest_rank_has_little_more_than_the_mean(name: str) -> None:
    """At most 1.05, on 2 to 8 nodes, in the mixture that most people's files have; what is copied is counted."""
    spec = SHAPES[name]
    about = SliceDescription(
        model_identity="m", spec=spec, plan=make_plan(spec, "uniform", 1), rank=COORDINATOR_RANK, dtype="gguf",
        tile_bytes=DEFAULT_CELL_BYTES, encodings=q4_k_m(spec),
    )  # fmt: skip
    for world_size in range(2, 9):
        planned = dataclasses.replace(about, plan=balanced_plan(about, "uniform", world_size))
        held = [
            sum(layout.file_bytes for layout in planned.of_rank(rank).layouts().values()) for rank in range(world_size)
        ]
        assert max(held) <= 1.05 * sum(held) / world_size, world_size


@pytest.mark.parametrize(
    "change",
    [
        {"embedding": "q9_9"}, {"embedding": 7}, {"head": None}, {"layers": {}}, {"layers": {"query": ["q4_0"] * 9}},
        {"head": "q6_k"},
    ],
)  # fmt: skip
def test_encodings_that_make_no_sense_are_refused(change: dict[str, Any]) -> None:
    """Unknown, of another count, or whose blocks no row of the model is made of."""
    spec = spec_of(96, 2, 2, 1, 32, 64, 100, False)
    value = ModelEncodings(
        layers=(LayerEncodings(**dict.fromkeys(MATRICES, "q4_0")),) * 2, embedding="q8_0", head="q8_0"
    ).to_json()
    ModelEncodings.from_json(value, spec)
    changed = value | change
    if change.get("layers"):
        changed["layers"] = value["layers"] | change["layers"]
    with pytest.raises(InputError):
        ModelEncodings.from_json(changed, spec)
