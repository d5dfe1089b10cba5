"""Do plans that lie beside each other hold the checkpoint's own numbers, and share the tiles that they cut alike?

Covers: coordinator/slicing/packed_slices.py, coordinator/slicing/pack_writer.py, coordinator/slicing/stored_plans.py.
Does not cover: kills (test_splitter_interrupted.py), packs on a node (tests/contract/test_packed_shipping.py), distrust
of what lies on disk (test_packs.py).
"""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from common.errors import SliceError, SliceMismatch
from common.weights.manifest import COORDINATOR_RANK, EMBEDDING_FILE, HEAD_FILE, read_manifest
from common.weights.open_tiles import sweep_tiles
from common.weights.stored_numbers import Floats
from common.weights.tile_places import tile_places
from coordinator.checkpoints.checkpoint import Checkpoint
from coordinator.engine.ends import Ends
from coordinator.slicing import pack_writer
from coordinator.slicing.split_request import INCOMPLETE, SplitRequest
from coordinator.slicing.splitter import ensure_slices
from coordinator.slicing.stored_plans import stored_plans
from tests.support.packed_models import contents_of, cut, finely_cut_checkpoint, packed_request
from tests.support.safetensors_files import read_tensors
from tests.support.sliced_models import no_progress


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Checkpoint]:
    """Return a model that is cut finely."""
    opened = finely_cut_checkpoint(tmp_path_factory.mktemp("model"))
    yield opened
    opened.close()


@pytest.fixture
def four(checkpoint: Checkpoint, tmp_path: Path) -> SplitRequest:
    """Return what cuts it for four nodes, done."""
    request = packed_request(checkpoint, tmp_path / "split", world_size=4)
    assert cut(checkpoint, request) > 0
    return request


def files(directory: Path) -> dict[str, int]:
    """Return every file of a store with the time of its last change."""
    return {path.name: path.stat().st_mtime_ns for path in directory.iterdir()}


def whole_matrix(checkpoint: Checkpoint, request: SplitRequest, name: str, *, by_input: bool = False) -> Floats:
    """Put a source matrix of layer 1, [out, in], together again from the tiles of all ranks."""
    parts = []
    for rank in range(request.plan.world_size):
        directory = request.slice_directory(rank)
        manifest = read_manifest(directory)
        for file, layout in manifest.layouts().items():
            if not file.startswith("layer0001"):
                continue
            for tile, place in zip(layout.tiles, tile_places(directory, manifest)[file], strict=True):
                for found in (found for found in tile.tensors if found.name == name):
                    data = place.path.read_bytes()[place.offset + found.offset :][: found.byte_count]
                    parts.append(np.frombuffer(data, np.float32).reshape(found.shape).T)
    return np.concatenate(parts, axis=1 if by_input else 0)


@pytest.mark.parametrize(("world_size", "strategy"), [(4, "uniform"), (3, "ratio:3,1,1"), (7, "uniform")])
def test_packed_slices_hold_every_number_of_the_checkpoint(
    checkpoint: Checkpoint, tmp_path: Path, world_size: int, strategy: str
) -> None:
    """Those of a second plan too, which has most of its tiles from the first one's packs."""
    cut(checkpoint, packed_request(checkpoint, tmp_path, world_size=2))
    request = packed_request(checkpoint, tmp_path, world_size=world_size, strategy=strategy)
    cut(checkpoint, request)
    layer = "model.layers.1"
    for name, source in (("query", "self_attn.q_proj"), ("value", "self_attn.v_proj"), ("up", "mlp.up_proj")):
        assert np.array_equal(whole_matrix(checkpoint, request, name), checkpoint.read(f"{layer}.{source}.weight"))
    for name, source in (("output", "self_attn.o_proj"), ("down", "mlp.down_proj")):
        found = whole_matrix(checkpoint, request, name, by_input=True)
        assert np.array_equal(found, checkpoint.read(f"{layer}.{source}.weight"))


def test_another_plan_writes_only_the_tiles_that_no_plan_has_and_going_back_writes_nothing(
    checkpoint: Checkpoint, four: SplitRequest
) -> None:
    """Four nodes, then a ratio of three: what both cut alike is there once; afterwards both are whole."""
    before, store = contents_of(four.slice_directory(1)), four.store_directory
    total_bytes = sum(sum(plan.places.values()) for plan in stored_plans(four.directory))
    other = packed_request(checkpoint, four.directory, world_size=3, strategy="ratio:3,1,1")
    first = files(store)
    assert 0 < cut(checkpoint, other) < 0.25 * total_bytes
    both = files(store)
    assert {name: both[name] for name in first} == first, "a pack was touched again"
    for request in (four, other, four):
        assert cut(checkpoint, request) == 0
    assert files(store) == both
    assert contents_of(four.slice_directory(1)) == before
    assert [plan.name for plan in stored_plans(four.directory)] == sorted([four.plan_name, other.plan_name])


def test_plans_that_cut_between_cells_share_all(checkpoint: Checkpoint, four: SplitRequest) -> None:
    """A plan more is a few manifests then, and none of the source's matrices is read."""
    reads: list[str] = []
    blind = type("Blind", (), {
        "__getattr__": lambda self, name: reads.append(name) if name.startswith("read") else getattr(checkpoint, name)
    })()  # fmt: skip
    ensure_slices(blind, packed_request(checkpoint, four.directory, world_size=2), redo=False, progress=no_progress)
    assert reads == []


def test_the_tiles_of_a_block_lie_beside_each_other(checkpoint: Checkpoint, four: SplitRequest) -> None:
    """In the order of a sweep, so that a disk reads on and on."""
    for rank in (COORDINATOR_RANK, 0, 3):
        directory = four.slice_directory(rank)
        tiles = sweep_tiles(directory, read_manifest(directory))
        assert len({tile.path for tile in tiles}) == 1
        ends = [tile.offset + tile.byte_count for tile in tiles]
        assert [tile.offset for tile in tiles[1:]] == ends[:-1]


def test_a_pack_is_a_safetensors_file_with_names_that_say_what_lies_there(four: SplitRequest) -> None:
    """Any reader opens it."""
    names = {name for path in four.store_directory.glob("*.safetensors") for name in read_tensors(path)}
    assert any(name.startswith("layer0002.ffn.736.") and name.endswith(".down") for name in names)
    assert any(name.startswith("head.0.") and name.endswith(".head") for name in names)


def test_large_slices_have_several_packs(
    checkpoint: Checkpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of whole tiles, each at most so large; embeddings are read from whichever pack has them."""
    monkeypatch.setattr(pack_writer.SlicePacks.__init__, "__defaults__", (200_000,))
    request = packed_request(checkpoint, tmp_path, world_size=2)
    cut(checkpoint, request)
    sizes = [path.stat().st_size for path in request.store_directory.glob("*.safetensors")]
    assert len(sizes) > 20
    assert max(sizes) < 250_000
    own = request.slice_directory(COORDINATOR_RANK)
    assert len({tile.path for tile in tile_places(own, read_manifest(own))[EMBEDDING_FILE]}) > 1
    ends = Ends(own, read_manifest(own))
    try:
        rows = ends.embed(range(260))
    finally:
        ends.close()
    assert np.array_equal(rows, checkpoint.read("model.embed_tokens.weight"))


def test_a_pack_that_is_lost_or_cut_short_is_written_again_and_no_other(
    checkpoint: Checkpoint, four: SplitRequest
) -> None:
    """Without --split-bin: which tiles are lacking is known."""
    before = contents_of(four.slice_directory(2))
    lost = read_manifest(four.slice_directory(2)).tiles["layer0000.ffn.safetensors"][0].pack
    others = {name: at for name, at in files(four.store_directory).items() if not name.startswith(lost[:32])}
    for damage in (Path.unlink, lambda path: os.truncate(path, 5000)):
        damage(four.store_directory / lost)
        with pytest.raises(SliceError, match=lost):
            read_manifest(four.slice_directory(2))
        assert 0 < cut(checkpoint, four) < 2_000_000
        assert contents_of(four.slice_directory(2)) == before
    assert others.items() <= files(four.store_directory).items()


def test_a_manifest_that_is_damaged_is_written_again_from_what_the_store_has(
    checkpoint: Checkpoint, four: SplitRequest
) -> None:
    """Its tiles are known by their packs' own lists."""
    path = four.slice_directory(0) / "manifest.json"
    right = path.read_text()
    for wrong in ("{", right.replace('"rank": 0', '"rank": 1')):
        path.write_text(wrong)
        assert cut(checkpoint, four) == 0
        assert path.read_text() == right


def test_slicing_again_makes_every_tile_anew_and_leaves_nothing_of_before(
    checkpoint: Checkpoint, four: SplitRequest
) -> None:
    """What was damaged may be anywhere: packs and plans of before go, once the new ones are whole."""
    cut(checkpoint, packed_request(checkpoint, four.directory, world_size=3, strategy="ratio:3,1,1"))
    before, old = contents_of(four.slice_directory(3)), set(files(four.store_directory))
    assert cut(checkpoint, four, redo=True) > 7_000_000
    assert contents_of(four.slice_directory(3)) == before
    assert not old & set(files(four.store_directory))
    assert [plan.name for plan in stored_plans(four.directory)] == [four.plan_name]


def test_slices_of_one_dtype_are_refused_and_kept_until_slicing_again(
    checkpoint: Checkpoint, four: SplitRequest
) -> None:
    """And the other way round: the two formats have the same places."""
    plain = replace(four, dtype="float32", encodings=None)
    with pytest.raises(SliceMismatch, match="gguf weights instead of float32"):
        ensure_slices(checkpoint, plain, redo=False, progress=no_progress)
    assert cut(checkpoint, four) == 0
    assert ensure_slices(checkpoint, plain, redo=True, progress=no_progress)
    assert not four.store_directory.exists()
    with pytest.raises(SliceMismatch, match="float32 weights instead of gguf"):
        ensure_slices(checkpoint, four, redo=False, progress=no_progress)
    assert not ensure_slices(checkpoint, plain, redo=False, progress=no_progress)
    assert cut(checkpoint, four, redo=True) > 0
    assert contents_of(four.slice_directory(0))
    assert not (four.directory / "node0" / "layer0000.ffn.safetensors").exists()


def test_what_a_killed_replacement_has_left_of_slices_of_one_dtype_goes(checkpoint: Checkpoint, tmp_path: Path) -> None:
    """The marker says that it is a mixture."""
    request = packed_request(checkpoint, tmp_path, world_size=2)
    ensure_slices(checkpoint, replace(request, dtype="float32", encodings=None), redo=False, progress=no_progress)
    shutil.rmtree(tmp_path / "node0")
    (tmp_path / INCOMPLETE).touch()
    assert cut(checkpoint, request) > 0
    assert contents_of(request.slice_directory(1))
    assert not (tmp_path / INCOMPLETE).exists()


def test_another_model_in_the_same_place_is_refused(checkpoint: Checkpoint, four: SplitRequest, tmp_path: Path) -> None:
    """Its tiles would be others by their keys, but whoever calls both by one name has made a mistake."""
    other = finely_cut_checkpoint(tmp_path / "other", seed=5)
    with pytest.raises(SliceMismatch, match="another model"):
        ensure_slices(other, four, redo=False, progress=no_progress)
    other.close()


def test_slices_that_are_there_can_be_used_where_nothing_can_be_written(
    checkpoint: Checkpoint, four: SplitRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Any plan that is whole."""
    real_open = os.open

    def refusing(path: object, flags: int, *rest: int, **options: int) -> int:
        if flags & os.O_CREAT:
            raise OSError(errno.EROFS, os.strerror(errno.EROFS))
        return real_open(path, flags, *rest, **options)  # type: ignore[arg-type] # as it was called

    monkeypatch.setattr(os, "open", refusing)
    assert not ensure_slices(checkpoint, four, redo=False, progress=no_progress)


def test_a_directory_with_one_plan_is_that_plan(checkpoint: Checkpoint, four: SplitRequest) -> None:
    """`shardnode --slice-dir MODEL/split/node0` works as it always did; of several one has to be named."""
    node = four.directory / "node0"
    assert read_manifest(node) == read_manifest(four.slice_directory(0))
    assert sweep_tiles(node, read_manifest(node)) == sweep_tiles(four.slice_directory(0), read_manifest(node))
    cut(checkpoint, packed_request(checkpoint, four.directory, world_size=2))
    with pytest.raises(SliceError, match=r"several plans \(2-\w+, 4-\w+\); name one, such as .*node0/2-"):
        read_manifest(node)
    assert HEAD_FILE in read_manifest(four.slice_directory(COORDINATOR_RANK)).tiles
