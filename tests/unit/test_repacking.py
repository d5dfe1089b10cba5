"""Do needed tiles that move out of a pack stay what they were, wherever a kill comes?

Covers: common/weights/repacking.py. Does not cover: when it is done (test_stored_plans.py,
tests/contract/test_kept_tiles.py).
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from common.weights.manifest import read_manifest
from common.weights.pack_store import PackStore, Place
from common.weights.repacking import repack, tell_manifest
from coordinator.checkpoints.checkpoint import Checkpoint
from coordinator.slicing.split_request import SplitRequest
from coordinator.slicing.splitter import ensure_slices
from tests.support.packed_models import contents_of, finely_cut_checkpoint, packed_request
from tests.support.safetensors_files import read_tensors
from tests.support.sliced_models import no_progress


@pytest.fixture
def checkpoint(tmp_path: Path) -> Iterator[Checkpoint]:
    """Return a model that is cut finely."""
    opened = finely_cut_checkpoint(tmp_path / "model", layers=1)
    yield opened
    opened.close()


@pytest.fixture
def split(checkpoint: Checkpoint, tmp_path: Path) -> SplitRequest:
    """Return what was cut for two nodes."""
    request = packed_request(checkpoint, tmp_path / "split", world_size=2)
    ensure_slices(checkpoint, request, redo=False, progress=no_progress)
    return request


def half_of(split: SplitRequest) -> tuple[set[Place], str]:
    """Return every second tile of the first node's FFN, and their pack."""
    found = read_manifest(split.slice_directory(0)).tiles["layer0000.ffn.safetensors"][::2]
    return {(tile.pack, tile.offset) for tile in found}, found[0].pack


def test_needed_tiles_move_and_the_packs_they_leave_can_go(split: SplitRequest) -> None:
    """Bytes, names and digests are as they were; the new pack has nothing else, and its index is right."""
    store, (needed, old) = PackStore(split.store_directory), half_of(split)
    before = store.packs()
    moved = repack(store, needed, 0)
    assert set(moved) == needed
    (name,) = {tile.pack for tile in moved.values()}
    old_tensors, new_tensors = (read_tensors(store.path(one)) for one in (old, name))
    assert set(new_tensors) < set(old_tensors)
    assert all(np.array_equal(array, old_tensors[key]) for key, array in new_tensors.items())
    assert store.path(name).stat().st_size < 0.6 * store.path(old).stat().st_size
    (new,) = [pack for pack in store.packs() if pack.name == name]
    assert len(new.tiles) == len(needed)
    assert store.damaged(new.tiles) == set()
    assert len(store.packs()) == len(before) + 1, "old packs stay until manifests say where tiles are now"


def test_a_manifest_that_was_told_reads_the_same_tiles_elsewhere(split: SplitRequest) -> None:
    """One that has none of them is not touched."""
    store, (needed, old) = PackStore(split.store_directory), half_of(split)
    before, other = contents_of(split.slice_directory(0)), split.slice_directory(1) / "manifest.json"
    untouched = other.stat().st_mtime_ns
    moved = repack(store, needed, 0)
    for rank in (0, 1):
        tell_manifest(split.slice_directory(rank), moved, store, is_private=False)
    assert contents_of(split.slice_directory(0)) == before
    assert set(read_manifest(split.slice_directory(0)).pack_bytes) == {old, next(iter(moved.values())).pack}
    assert other.stat().st_mtime_ns == untouched


def test_only_as_much_moves_as_is_worth_it_and_allowed(split: SplitRequest) -> None:
    """Packs with the least that is needed first; none that would take longer than somebody waits."""
    store, (needed, _) = PackStore(split.store_directory), half_of(split)
    assert repack(store, needed, 1 << 30) == {}
    assert repack(store, needed, 0, most_copied_bytes=1000) == {}
    assert repack(store, set(), 0) == {}
    every = {(tile.pack, tile.offset) for pack in store.packs() for tile, _ in pack.tiles.values()}
    assert repack(store, every, 0) == {}


def test_a_damaged_tile_moves_nowhere(split: SplitRequest) -> None:
    """Its pack stays as it is, and whoever reads it is told."""
    store, (needed, old) = PackStore(split.store_directory), half_of(split)
    with open(store.path(old), "r+b") as file:
        file.seek(max(offset for _, offset in needed) + 9)
        file.write(b"damage")
    before = {path.name for path in store.directory.iterdir()}
    assert repack(store, needed, 0) == {}
    assert {path.name for path in store.directory.iterdir()} == before
