"""Does a node get only the tiles that no other slice brought it, through cut links, flipped bytes and full disks?

Covers: slices in packs on their way to a real node, over TLS on loopback; what stays of a slice that is removed; builds
that do not know the format. Does not cover: slices of one dtype (test_slice_shipping.py), hostile senders
(test_slice_distrust.py), whole meshes (test_another_plan.py).
"""

from __future__ import annotations

import errno
import json
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from unittest import mock

import pytest

from common.errors import DiskFull, InputError, NodeLost, SliceCorrupt, SliceMismatch
from common.weights import packs
from common.weights.manifest import MANIFEST_NAME, read_manifest
from common.weights.pack_store import PackStore
from common.weights.repacking import repack
from common.weights.slice_description import SliceDescription
from coordinator.checkpoints.checkpoint import Checkpoint
from coordinator.slicing.splitter import ensure_slices
from shardnode.slices.arriving_file import ArrivingFile
from tests.support.cutting_relay import CuttingRelay
from tests.support.packed_models import (
    contents_of,
    finely_cut_checkpoint,
    packed_description,
    packed_request,
    tile_bytes_of,
)
from tests.support.shipped_slices import CUT_IN_TWO_BYTES, ShippingMesh
from tests.support.sliced_models import no_progress

LONG_SECONDS = 60.0
PACK_BYTES = 400_000


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Checkpoint]:
    """Return a model of about 7 MB that is cut finely."""
    opened = finely_cut_checkpoint(tmp_path_factory.mktemp("model"))
    yield opened
    opened.close()


@pytest.fixture(autouse=True)
def small_packs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have packs of some tiles, as large models have, on both sides."""
    monkeypatch.setattr(packs.packed, "__defaults__", (PACK_BYTES,))


@pytest.fixture
def mesh(tmp_path: Path) -> Iterator[ShippingMesh]:
    """Return a mesh with a node that has no slice."""
    with ShippingMesh(tmp_path) as made:
        yield made


@pytest.fixture
def half(checkpoint: Checkpoint) -> SliceDescription:
    """Return a slice of two."""
    return packed_description(checkpoint, world_size=2, rank=0)


def check_is_as_cut(checkpoint: Checkpoint, slice_: SliceDescription, mesh: ShippingMesh, tmp_path: Path) -> None:
    """Compare what has arrived with what a split on this machine makes, tile by tile."""
    world_size = slice_.plan.world_size
    split = packed_request(checkpoint, tmp_path / "cut", world_size=world_size, strategy=slice_.plan.strategy)
    ensure_slices(checkpoint, split, redo=False, progress=no_progress)
    arrived = mesh.slice_directory(slice_)
    assert [path.name for path in arrived.iterdir()] == [MANIFEST_NAME]
    assert contents_of(arrived) == contents_of(split.slice_directory(slice_.rank))
    for found in read_manifest(arrived).tiles.values():
        assert all(tile.xxh3 for tile in found)


def packs_of(mesh: ShippingMesh) -> dict[str, int]:
    """Return the packs on the node, with the times of their last change."""
    return {path.name: path.stat().st_mtime_ns for path in (mesh.data / "slices" / "store").glob("*.safetensors")}


def test_a_slice_arrives_tile_by_tile_and_is_not_sent_twice(
    checkpoint: Checkpoint, half: SliceDescription, mesh: ShippingMesh, tmp_path: Path
) -> None:
    """Also not after the node has restarted, when it serves what it served before."""
    arrival = mesh.ship(checkpoint, half)
    assert arrival.sent_bytes == arrival.total_bytes > tile_bytes_of(half)
    check_is_as_cut(checkpoint, half, mesh, tmp_path)
    assert len(packs_of(mesh)) > 5
    mesh.serve(arrival.slice_id)
    assert mesh.ship(checkpoint, half).sent_bytes == 0
    mesh.restart()
    assert mesh.served() == half.slice_id
    assert mesh.ship(checkpoint, half).sent_bytes == 0


def test_of_another_plan_only_the_tiles_that_are_not_there_are_sent(
    checkpoint: Checkpoint, half: SliceDescription, mesh: ShippingMesh, tmp_path: Path
) -> None:
    """A half, then three quarters of which it is a part, then back; packs of before are not touched."""
    mesh.ship(checkpoint, half)
    before = packs_of(mesh)
    more = packed_description(checkpoint, world_size=2, strategy="ratio:3,1", rank=0)
    sent_bytes = mesh.ship(checkpoint, more).sent_bytes
    assert tile_bytes_of(more) - tile_bytes_of(half) <= sent_bytes < 0.4 * tile_bytes_of(more)
    check_is_as_cut(checkpoint, more, mesh, tmp_path)
    assert before.items() <= packs_of(mesh).items()
    less = packed_description(checkpoint, world_size=4, rank=0)
    for slice_ in (less, half, more):
        assert mesh.ship(checkpoint, slice_).sent_bytes == 0
    check_is_as_cut(checkpoint, less, mesh, tmp_path)


def test_a_link_that_is_cut_costs_less_than_a_twentieth(
    checkpoint: Checkpoint, half: SliceDescription, mesh: ShippingMesh, tmp_path: Path
) -> None:
    """Counted on the link itself, beside the chunk that is cut in two; half a pack stays, and the sender goes on."""
    slice_bytes = tile_bytes_of(half)
    cut_at = slice_bytes * 4 // 10
    with CuttingRelay(mesh.node.address) as relay:
        relay.cut_after(cut_at, mesh.has_of(cut_at))
        mending = threading.Thread(target=lambda: relay.is_cut.wait(LONG_SECONDS) and relay.mend())
        mending.start()
        mesh.ship(checkpoint, half, relay.address)
        mending.join()
        assert relay.sent_bytes < 1.02 * slice_bytes + CUT_IN_TWO_BYTES
    check_is_as_cut(checkpoint, half, mesh, tmp_path)


def ship_part(checkpoint: Checkpoint, slice_: SliceDescription, mesh: ShippingMesh) -> None:
    """Have the link cut for good when half of the slice has arrived."""
    with CuttingRelay(mesh.node.address) as relay:
        cut_at = tile_bytes_of(slice_) // 2
        relay.cut_after(cut_at, mesh.has_of(cut_at))
        with (
            mock.patch("coordinator.shipping.slice_sender.REACH_SECONDS", 0.5),
            pytest.raises(NodeLost, match="have arrived and stay: load again"),
        ):
            mesh.ship(checkpoint, slice_, relay.address, patience_seconds=0.2)


def test_what_has_arrived_counts_after_a_restart_and_for_another_plan_too(
    checkpoint: Checkpoint, half: SliceDescription, mesh: ShippingMesh, tmp_path: Path
) -> None:
    """Whole packs are the node's, whatever becomes of the slice that they came for; a part is of its slice."""
    ship_part(checkpoint, half, mesh)
    mesh.restart()
    quarter = packed_description(checkpoint, world_size=4, rank=0)
    assert mesh.ship(checkpoint, quarter).sent_bytes < 0.7 * tile_bytes_of(quarter)
    assert mesh.ship(checkpoint, half).sent_bytes < 0.5 * tile_bytes_of(half)
    for slice_ in (quarter, half):
        check_is_as_cut(checkpoint, slice_, mesh, tmp_path / slice_.slice_id[:8])


def test_a_pack_that_arrives_damaged_is_sent_again_and_one_that_never_does_is_a_fault(
    checkpoint: Checkpoint, half: SliceDescription, mesh: ShippingMesh, tmp_path: Path
) -> None:
    """Its digests are compared before it is a pack; other packs are not sent again."""
    real, flips = ArrivingFile.write, [1]

    def damaging(self: ArrivingFile, chunk: bytes) -> None:
        is_wrong, flips[0] = flips[0] > 0, flips[0] - 1
        real(self, bytes([chunk[0] ^ 1]) + chunk[1:] if is_wrong else chunk)

    with mock.patch.object(ArrivingFile, "write", damaging):
        arrival = mesh.ship(checkpoint, half)
        assert 0 < arrival.sent_bytes - arrival.total_bytes <= PACK_BYTES + 8192
        check_is_as_cut(checkpoint, half, mesh, tmp_path)
        flips[0] = 1_000_000
        with pytest.raises(SliceCorrupt, match=r"kitchen: .*\.safetensors has arrived with other bytes"):
            mesh.ship(checkpoint, packed_description(checkpoint, world_size=2, rank=1))


def test_a_byte_that_flips_on_the_disk_is_found_by_verify_and_its_tile_alone_is_sent_again(
    checkpoint: Checkpoint, half: SliceDescription, mesh: ShippingMesh, tmp_path: Path
) -> None:
    """The slice is whole again in its tiles' new places; the pack with the damaged one stays for the others."""
    mesh.serve(mesh.ship(checkpoint, half).slice_id)
    victim = read_manifest(mesh.slice_directory(half)).tiles["layer0001.ffn.safetensors"][2]
    path = mesh.data / "slices" / "store" / victim.pack
    with open(path, "r+b") as file:
        file.seek(victim.offset + 77)
        (byte,) = file.read(1)
        file.seek(victim.offset + 77)
        file.write(bytes([byte ^ 0x10]))
    assert mesh.ship(checkpoint, half).sent_bytes == 0
    arrival = mesh.ship(checkpoint, half, verify=True)
    (tile,) = half.layouts()["layer0001.ffn.safetensors"].tiles[2:3]
    assert tile.byte_count < arrival.sent_bytes <= tile.byte_count + 4096
    check_is_as_cut(checkpoint, half, mesh, tmp_path)
    assert mesh.ship(checkpoint, half, verify=True).sent_bytes == 0


def test_a_damaged_tile_of_which_there_is_another_copy_costs_nothing(
    checkpoint: Checkpoint, half: SliceDescription, mesh: ShippingMesh, tmp_path: Path
) -> None:
    """A kill while tiles move leaves some twice: the slice is looked at by verify, and made whole from the good one."""
    mesh.ship(checkpoint, half)
    victim = read_manifest(mesh.slice_directory(half)).tiles["layer0001.ffn.safetensors"][2]
    store = PackStore(mesh.data / "slices" / "store")
    assert repack(store, {(victim.pack, victim.offset)}, 0)
    with open(store.path(victim.pack), "r+b") as file:
        file.seek(victim.offset + 77)
        file.write(b"damage")
    assert mesh.ship(checkpoint, half, verify=True).sent_bytes == 0
    check_is_as_cut(checkpoint, half, mesh, tmp_path)


def test_a_pack_that_is_lost_makes_its_slice_less_than_whole(
    checkpoint: Checkpoint, half: SliceDescription, mesh: ShippingMesh, tmp_path: Path
) -> None:
    """The node starts without it, says why, and serves it once the tiles are there again."""
    slice_id = mesh.ship(checkpoint, half).slice_id
    mesh.serve(slice_id)
    lost = min(packs_of(mesh))
    mesh.restart(lambda: (mesh.data / "slices" / "store" / lost).unlink())
    assert mesh.served() == ""
    assert 0 < mesh.ship(checkpoint, half).sent_bytes <= PACK_BYTES + 8192
    check_is_as_cut(checkpoint, half, mesh, tmp_path)
    mesh.serve(slice_id)


def test_what_a_kill_left_in_the_store_is_gone_after_the_next_start(
    checkpoint: Checkpoint, half: SliceDescription, mesh: ShippingMesh
) -> None:
    """Parts, indices of nothing and packs without one; what is not ours stays."""
    mesh.ship(checkpoint, half)
    store = mesh.data / "slices" / "store"
    whole = {path.name for path in store.iterdir()}
    ours = [f"{'a' * 32}{ending}" for ending in (".safetensors", ".safetensors.part", ".json")]
    ours.append(f".{'a' * 32}.json-x7k2")
    mesh.restart(lambda: [(store / name).write_text("half") for name in (*ours, "notes.txt")])
    assert {path.name for path in store.iterdir()} == {*whole, "notes.txt"}
    assert mesh.ship(checkpoint, half).sent_bytes == 0


def test_a_disk_that_runs_full_meanwhile_gives_the_last_pack_back(
    checkpoint: Checkpoint, half: SliceDescription, mesh: ShippingMesh, tmp_path: Path
) -> None:
    """Whole packs stay; with room again the rest is sent."""
    real, written = os.pwrite, [0]

    def filling(descriptor: int, data: memoryview, position: int) -> int:
        written[0] += len(data)
        if written[0] > 2_000_000:
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(descriptor, data, position)

    with (
        mock.patch("shardnode.slices.arriving_file.os.pwrite", filling),
        pytest.raises(DiskFull, match="kitchen: the disk"),
    ):
        mesh.ship(checkpoint, half)
    assert not list(mesh.slice_directory(half, arriving=True).glob("*.part"))
    arrival = mesh.ship(checkpoint, half)
    assert 0 < arrival.sent_bytes < 0.7 * arrival.total_bytes
    check_is_as_cut(checkpoint, half, mesh, tmp_path)


def test_a_node_of_a_build_before_is_told_apart_in_one_line(
    checkpoint: Checkpoint, half: SliceDescription, mesh: ShippingMesh
) -> None:
    """It calls the dtype unknown, as builds before did, and has no format to tell; the line says what to install."""

    def unknown(text: bytes) -> SliceDescription:
        dtype = json.loads(text)["dtype"]
        raise InputError(f"the description of a slice makes no sense: weights dtype '{dtype}' is unknown")

    told = r"kitchen takes no slices of format 2, .* the same version of shardmesh on it"
    with (
        mock.patch("shardnode.slices.slice_store.description_of", unknown),
        mock.patch("shardnode.listeners.slice_service.FORMAT_VERSIONS", (0,)),
        pytest.raises(SliceMismatch, match=told),
    ):
        mesh.ship(checkpoint, half)
    with (
        mock.patch("shardnode.slices.slice_store.description_of", unknown),
        pytest.raises(InputError, match="kitchen: the description of a slice makes no sense"),
    ):
        mesh.ship(checkpoint, half)
