"""What stays on a node of a slice that is removed: tiles for another plan of its model, within limits?

Covers: how much may stay, when it goes, what it is worth, the series that tells of it, what the owner sees.
Does not cover: slices on their way (test_packed_shipping.py), whole meshes (test_another_plan.py).
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from unittest import mock

import pytest

from common.errors import EXIT_INPUT, DiskFull
from common.weights.slice_description import COORDINATOR_RANK, SliceDescription
from coordinator.checkpoints.checkpoint import Checkpoint
from coordinator.models.records import LoadedModels
from protos.shardmesh.v1 import slices_pb2
from tests.support.cli import Finished, run_here
from tests.support.documented_keys import documented, keys
from tests.support.mesh_members import LIMIT_SECONDS
from tests.support.packed_models import contents_of, finely_cut_checkpoint, packed_description, tile_bytes_of
from tests.support.series_totals import total_of
from tests.support.shipped_slices import NAME, ShippingMesh


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Checkpoint]:
    """Return a model of about 7 MB that is cut finely."""
    opened = finely_cut_checkpoint(tmp_path_factory.mktemp("model"))
    yield opened
    opened.close()


@pytest.fixture
def mesh(tmp_path: Path) -> Iterator[ShippingMesh]:
    """Return a mesh with a node that has no slice."""
    with ShippingMesh(tmp_path) as made:
        yield made


@pytest.fixture
def half(checkpoint: Checkpoint) -> SliceDescription:
    """Return a slice of two."""
    return packed_description(checkpoint, world_size=2, rank=0)


def packs_of(mesh: ShippingMesh) -> set[str]:
    """Return the packs on the node."""
    return {path.name for path in (mesh.data / "slices" / "store").glob("*.safetensors")}


def remove(mesh: ShippingMesh, slice_: SliceDescription, *, keep_tiles: bool) -> None:
    """Have the node remove a slice."""
    request = slices_pb2.RemoveSliceRequest(slice_id=slice_.slice_id, keep_tiles=keep_tiles)
    mesh.ask(lambda stub: stub.RemoveSlice(request, timeout=LIMIT_SECONDS))


def kept(mesh: ShippingMesh) -> dict[str, int]:
    """Return the bytes of tiles that no slice on the node needs."""
    found: list[slices_pb2.ListSlicesResponse] = []
    request = slices_pb2.ListSlicesRequest(with_kept_tiles=True)
    mesh.ask(lambda stub: found.append(stub.ListSlices(request, timeout=LIMIT_SECONDS)))
    return {one.model_identity: one.byte_count for one in found[0].kept_tiles}


def test_tiles_of_a_slice_that_is_removed_may_stay_for_another_plan(
    checkpoint: Checkpoint, half: SliceDescription, mesh: ShippingMesh
) -> None:
    """As many as the largest slice has, if they may; otherwise what no other slice needs goes at once."""
    other = packed_description(checkpoint, world_size=2, rank=1)
    mesh.ship(checkpoint, half)
    remove(mesh, half, keep_tiles=True)
    assert kept(mesh) == {checkpoint.identity: tile_bytes_of(half)}
    assert mesh.ship(checkpoint, half).sent_bytes == 0
    mesh.ship(checkpoint, other)
    remove(mesh, half, keep_tiles=False)
    assert kept(mesh) == {}
    assert mesh.ship(checkpoint, other).sent_bytes == 0
    assert mesh.ship(checkpoint, half).sent_bytes > 0


def test_tiles_that_are_kept_go_by_their_models_name_or_when_a_node_keeps_none(
    checkpoint: Checkpoint, half: SliceDescription, mesh: ShippingMesh
) -> None:
    """--keep-bytes 1 is none: bytes above it go, the oldest first."""
    mesh.ship(checkpoint, half)
    remove(mesh, half, keep_tiles=True)
    for model in ("", "another", checkpoint.identity):
        request = slices_pb2.RemoveSliceRequest(model_identity=model, slice_id="" if model else half.slice_id)
        if model:
            mesh.ask(lambda stub, request=request: stub.RemoveSlice(request, timeout=LIMIT_SECONDS))
        assert bool(packs_of(mesh)) == (model != checkpoint.identity)
    mesh.ship(checkpoint, half)
    with mock.patch.object(mesh.node._serving.store, "_keep_bytes", 1):  # what the flag sets
        remove(mesh, half, keep_tiles=True)
    assert packs_of(mesh) == set()


def test_kept_tiles_go_when_room_is_wanted_and_needed_ones_never(
    checkpoint: Checkpoint, half: SliceDescription, mesh: ShippingMesh
) -> None:
    """A disk without room is told before the first byte, with what is needed; the slice at work stays whole."""
    other = packed_description(checkpoint, world_size=2, rank=1)
    mesh.serve(mesh.ship(checkpoint, half).slice_id)
    full = mock.Mock(return_value=mock.Mock(free=16 << 20))
    patched = mock.patch("shardnode.slices.slice_store.shutil.disk_usage", full)
    with patched, pytest.raises(DiskFull, match=r"kitchen: the slice needs \d+kB more and its disk has 0 free"):
        mesh.ship(checkpoint, other)
    mesh.restart()
    assert mesh.served() == half.slice_id
    mesh.ship(checkpoint, other)
    remove(mesh, other, keep_tiles=True)
    foreign = finely_cut_checkpoint(mesh.data.parent / "foreign", seed=3)
    with patched, pytest.raises(DiskFull):
        mesh.ship(foreign, packed_description(foreign, world_size=2, rank=1))
    foreign.close()
    assert kept(mesh) == {}
    assert mesh.served() == half.slice_id


def test_a_node_tells_what_its_packs_take(checkpoint: Checkpoint, half: SliceDescription, mesh: ShippingMesh) -> None:
    """Kept ones included, which it tells by themselves too: it is what the disk has less."""
    registry = mesh.node.series.registry
    assert total_of(registry, "shardmesh_node_packs_bytes") == 0
    mesh.ship(checkpoint, half)
    assert total_of(registry, "shardmesh_node_kept_bytes") == 0
    remove(mesh, half, keep_tiles=True)
    assert total_of(registry, "shardmesh_node_packs_bytes") > tile_bytes_of(half)
    assert total_of(registry, "shardmesh_node_kept_bytes") == tile_bytes_of(half)
    mesh.ship(checkpoint, half)
    assert total_of(registry, "shardmesh_node_kept_bytes") == 0


def test_of_packs_that_a_slice_needs_in_part_the_rest_goes_too(
    checkpoint: Checkpoint, half: SliceDescription, mesh: ShippingMesh
) -> None:
    """A quarter has its tiles from a half's packs: once the half is gone, the node holds a quarter and no more."""
    quarter = packed_description(checkpoint, world_size=4, rank=0)
    mesh.ship(checkpoint, half)
    assert mesh.ship(checkpoint, quarter).sent_bytes == 0
    mesh.serve(quarter.slice_id)
    before = contents_of(mesh.slice_directory(quarter))
    remove(mesh, half, keep_tiles=True)
    assert mesh.ship(checkpoint, half).sent_bytes == 0
    remove(mesh, half, keep_tiles=False)
    held = sum((mesh.data / "slices" / "store" / name).stat().st_size for name in packs_of(mesh))
    assert held < 1.1 * tile_bytes_of(quarter)
    assert contents_of(mesh.slice_directory(quarter)) == before
    mesh.restart()
    assert mesh.served() == quarter.slice_id
    assert mesh.ship(checkpoint, quarter, verify=True).sent_bytes == 0


def test_the_owner_sees_what_nodes_hold_and_has_what_is_kept_go(
    checkpoint: Checkpoint, half: SliceDescription, mesh: ShippingMesh, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    """By the names of records, where there are some; what a slice needs stays, and plans are not a node's."""

    def typed(*words: str) -> Finished:
        arguments = ["slices", "--state-dir", str(mesh.state_directory), *words]
        return run_here("coordinator-cli", arguments, monkeypatch, capsys)

    other = packed_description(checkpoint, world_size=2, rank=1)
    mesh.ship(checkpoint, half)
    mesh.serve(mesh.ship(checkpoint, other).slice_id)
    remove(mesh, half, keep_tiles=True)
    records = LoadedModels(mesh.state_directory)
    model = records.future("small", Path("x"), replace(other, rank=COORDINATOR_RANK), [NAME, NAME])
    model.directory.mkdir(parents=True)
    records.save(model)
    found = json.loads(typed("--json").out)
    assert keys(found) == documented("slices", " of nodes")
    (node,) = found["nodes"]
    assert [(one["model"], one["part"], one["is_served"]) for one in node["slices"]] == [("small", "2 of 2", True)]
    (one,) = node["kept"]
    assert (one["model"], one["byte_count"]) == ("small", sum(kept(mesh).values()))
    listed = typed()
    assert [line.split()[-1] for line in listed.out.splitlines()] == ["state", "served", "plan"]
    assert "--remove kept has them go now" in listed.err
    assert "is a plan of which model?" in typed("--remove", "2-abc").error_line("coordinator-cli", EXIT_INPUT)
    assert "free on the nodes" in typed("--remove", "kept").err
    assert kept(mesh) == {}
    assert mesh.served() == other.slice_id
