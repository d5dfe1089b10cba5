"""Does sharing a budget out keep to it, give every part its least, and refuse only what cannot be?"""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.errors import BudgetTooSmall
from common.model.model_spec import ModelSpec, RopeSpec
from common.model.plan import make_plan
from common.program.sizes import parse_size
from common.weights.manifest import SliceManifest
from common.weights.pinning import least_weight_bytes
from coordinator.local.shares import NODE_BYTES, WORK_BYTES, MemoryShares, kv_bytes_of, share_memory

MB = 1_000_000
MEASURED_BYTES = 250 * MB
POSITIONS = 100
ROWS = 50
HEAD_TILES = [8 << 20] * 5

SPEC = ModelSpec(
    family="llama", hidden_size=64, layer_count=3, query_head_count=8, kv_head_count=4, head_size=16, ffn_size=256,
    vocab_size=320, max_position_count=512, norm_epsilon=1e-5, rope=RopeSpec(),
    qkv_bias=False, output_bias=False, ffn_bias=False, qk_norm=False,
)  # fmt: skip

tile_lists = st.lists(st.integers(1, 2000).map(lambda pages: pages * 4096), min_size=1, max_size=20)
node_tiles = st.lists(tile_lists, min_size=1, max_size=4)


def manifests(count: int) -> list[SliceManifest]:
    """Return the manifests of a small model for so many nodes; sizes of files do not matter here."""
    plan = make_plan(SPEC, "uniform", count)
    return [
        SliceManifest(model_identity="m", spec=SPEC, plan=plan, rank=rank, dtype="float32", tile_bytes=4096,
                      files={})
        for rank in range(count)
    ]  # fmt: skip


def share(budget_bytes: int, tiles: list[list[int]]) -> MemoryShares:
    """Share out between nodes with these tiles and a head."""
    return share_memory(
        budget_bytes, measured_bytes=MEASURED_BYTES, nodes=manifests(len(tiles)), node_tile_bytes=tiles,
        head_tile_bytes=HEAD_TILES, position_capacity=POSITIONS, row_count=ROWS,
    )  # fmt: skip


@given(node_tiles, st.integers(200, 2000))
def test_a_budget_is_kept_or_refused_with_the_least_that_works(tiles: list[list[int]], budget_mb: int) -> None:
    """All parts together are at most the budget; what a refusal names is enough, and a tenth less is not."""
    budget = budget_mb * MB
    try:
        shares = share(budget, tiles)
    except BudgetTooSmall as error:
        found = re.search(r"needs at least (\w+)", str(error))
        assert found is not None
        named = parse_size(found.group(1), "--memory-budget")
        assert named > budget
        with pytest.raises(BudgetTooSmall):
            share(int(named * 0.9), tiles)
        budget = named
        shares = share(budget, tiles)
    fixed = MEASURED_BYTES + WORK_BYTES + len(tiles) * NODE_BYTES
    weights = sum(shares.weight_bytes) + shares.head_bytes
    assert fixed + sum(shares.kv_bytes) + weights <= budget
    for sizes, given_bytes in zip([*tiles, HEAD_TILES], [*shares.weight_bytes, shares.head_bytes], strict=True):
        assert least_weight_bytes(sizes) <= given_bytes <= sum(sizes)


@given(node_tiles)
def test_a_large_budget_holds_every_weight(tiles: list[list[int]]) -> None:
    """With room for all, every slice gets all it has."""
    shares = share(10_000 * MB, tiles)
    assert shares.weight_bytes == tuple(sum(sizes) for sizes in tiles)
    assert shares.head_bytes == sum(HEAD_TILES)


def test_equal_slices_get_equal_shares() -> None:
    """No rank has to stream more than another, to a page or two."""
    tiles = [[8 << 20] * 40] * 4
    shares = share(1500 * MB, tiles)
    assert max(shares.weight_bytes) - min(shares.weight_bytes) < 8192
    assert shares.head_bytes < shares.weight_bytes[0]


def test_keys_and_values_of_the_request_are_counted() -> None:
    """A longer conversation leaves less for weights, by just what its positions take."""
    manifest = manifests(1)[0]
    assert kv_bytes_of(manifest, 10) == 10 * 2 * SPEC.layer_count * SPEC.kv_head_count * SPEC.head_size * 4
