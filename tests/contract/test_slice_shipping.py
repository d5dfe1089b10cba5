"""Does a slice arrive as it was cut, through cut links, restarts, flipped bytes and full disks? Over TLS on loopback.

Covers: what is sent and what is not, what a node serves meanwhile and afterwards. Does not cover: hostile senders
(test_slice_distrust.py), whole programs (tests/e2e).
"""

from __future__ import annotations

import errno
import json
import os
import shutil
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from unittest import mock

import grpc
import pytest

from common.errors import DiskFull, NodeLost, SliceCorrupt
from common.weights.manifest import MANIFEST_NAME, FileEntry, read_manifest
from common.weights.slice_description import SliceDescription
from common.wire.reaching import wait_until_reached
from common.wire.rpc import error_from_rpc
from coordinator.checkpoints.checkpoint import Checkpoint
from coordinator.slicing.split_request import SplitRequest
from coordinator.slicing.splitter import ensure_slices
from protos.shardmesh.v1 import slices_pb2
from shardnode.slices.arriving_file import ArrivingFile
from tests.support import delay_relay
from tests.support.cutting_relay import CuttingRelay
from tests.support.older_slices import make_older, older
from tests.support.shipped_slices import CUT_IN_TWO_BYTES, TILE_BYTES, ShippingMesh, checkpoint_of, slice_of

LONG_SECONDS = 60.0
REACH_SECONDS = "coordinator.shipping.slice_sender.REACH_SECONDS"  # trying for longer proves no more


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Checkpoint]:
    """Return a model of about 16 MB."""
    opened = checkpoint_of(tmp_path_factory.mktemp("model"))
    yield opened
    opened.close()


@pytest.fixture
def mesh(tmp_path: Path) -> Iterator[ShippingMesh]:
    """Return a mesh with a node that has no slice."""
    with ShippingMesh(tmp_path) as made:
        yield made


@pytest.fixture
def description(checkpoint: Checkpoint) -> SliceDescription:
    """Return the slice that is sent."""
    return slice_of(checkpoint)


def check_is_as_cut(checkpoint: Checkpoint, description: SliceDescription, mesh: ShippingMesh, tmp_path: Path) -> None:
    """Compare what has arrived with what a split on this machine makes, byte by byte."""
    split = SplitRequest(plan=description.plan, dtype="float32", tile_bytes=TILE_BYTES, directory=tmp_path / "cut")
    ensure_slices(checkpoint, split, redo=False, progress=lambda done, total: None)
    arrived, cut = mesh.slice_directory(description), split.slice_directory(description.rank)
    kept = {path.name for path in arrived.iterdir()}
    assert kept == {MANIFEST_NAME, *description.layouts()}
    for name in description.layouts():
        assert (arrived / name).read_bytes() == (cut / name).read_bytes(), name
    assert read_manifest(arrived) == read_manifest(cut)


def test_a_slice_arrives_as_it_was_cut_and_is_not_sent_twice(
    checkpoint: Checkpoint, description: SliceDescription, mesh: ShippingMesh, tmp_path: Path
) -> None:
    """Also not after the node has restarted, when it serves what it served before."""
    arrival = mesh.ship(checkpoint, description)
    assert arrival.sent_bytes == arrival.total_bytes
    check_is_as_cut(checkpoint, description, mesh, tmp_path)
    mesh.serve(arrival.slice_id)
    assert mesh.ship(checkpoint, description).sent_bytes == 0
    mesh.restart()
    assert mesh.served() == description.slice_id
    assert mesh.ship(checkpoint, description).sent_bytes == 0


def test_a_link_that_is_cut_at_a_third_costs_less_than_a_twentieth(
    checkpoint: Checkpoint, description: SliceDescription, mesh: ShippingMesh, tmp_path: Path
) -> None:
    """Counted on the link itself, TLS and all, beside the chunk that is cut in two; the sender goes on by itself."""
    slice_bytes = sum(layout.file_bytes for layout in description.layouts().values())
    with CuttingRelay(mesh.node.address) as relay:
        relay.cut_after(slice_bytes * 3 // 10, mesh.has_of(slice_bytes * 3 // 10))
        mending = threading.Thread(target=lambda: relay.is_cut.wait(LONG_SECONDS) and relay.mend())
        mending.start()
        mesh.ship(checkpoint, description, relay.address)
        mending.join()
        print(f"sent {relay.sent_bytes} for a slice of {slice_bytes}: {relay.sent_bytes / slice_bytes:.3f}")
        assert relay.sent_bytes < 1.02 * slice_bytes + CUT_IN_TWO_BYTES
    check_is_as_cut(checkpoint, description, mesh, tmp_path)


def ship_half(
    checkpoint: Checkpoint, description: SliceDescription, mesh: ShippingMesh, patience_seconds: float = 0.2
) -> int:
    """Have the link cut when half of the slice has arrived, which is said; return the bytes of all of it."""
    slice_bytes = sum(layout.file_bytes for layout in description.layouts().values())
    with CuttingRelay(mesh.node.address) as relay:
        relay.cut_after(slice_bytes // 2, mesh.has_of(slice_bytes // 2))
        with mock.patch(REACH_SECONDS, 0.5), pytest.raises(NodeLost, match=r"have arrived and stay: load again"):
            mesh.ship(checkpoint, description, relay.address, patience_seconds=patience_seconds)
    return slice_bytes


def test_a_link_that_stays_cut_ends_in_one_line_and_what_has_arrived_counts(
    checkpoint: Checkpoint, description: SliceDescription, mesh: ShippingMesh, tmp_path: Path
) -> None:
    """The next attempt sends the rest only, even to a node that has restarted meanwhile."""
    slice_bytes = ship_half(checkpoint, description, mesh, patience_seconds=0.5)
    mesh.restart()
    arrival = mesh.ship(checkpoint, description)
    assert arrival.sent_bytes < 0.55 * slice_bytes
    check_is_as_cut(checkpoint, description, mesh, tmp_path)


def test_a_byte_that_flips_on_the_way_or_on_the_disk_is_found_and_sent_again(
    checkpoint: Checkpoint, description: SliceDescription, mesh: ShippingMesh, tmp_path: Path
) -> None:
    """Before the slice is whole it is found by itself, afterwards by `verify`; other files are not sent again."""
    ship_half(checkpoint, description, mesh)
    (part,) = mesh.slice_directory(description, arriving=True).glob("*.part")
    flip(part, part.stat().st_size // 2)
    mesh.ship(checkpoint, description)
    check_is_as_cut(checkpoint, description, mesh, tmp_path)

    victim = next(iter(description.layouts()))
    flip(mesh.slice_directory(description) / victim, 5000)
    assert mesh.ship(checkpoint, description).sent_bytes == 0
    assert mesh.ship(checkpoint, description, verify=True).sent_bytes == description.layouts()[victim].file_bytes
    check_is_as_cut(checkpoint, description, mesh, tmp_path)


def test_a_slice_of_before_is_not_sent_again_and_verifying_it_gives_it_its_xxh3(
    checkpoint: Checkpoint, description: SliceDescription, mesh: ShippingMesh, tmp_path: Path
) -> None:
    """The node makes them out of bytes whose SHA-256 it compares; until then SHA-256 is what it reads by."""
    mesh.ship(checkpoint, description)
    directory = mesh.slice_directory(description)
    make_older(directory)
    assert mesh.ship(checkpoint, description).sent_bytes == 0
    assert not any(entry.tile_xxh3 for entry in read_manifest(directory).files.values())
    assert mesh.ship(checkpoint, description, verify=True).sent_bytes == 0
    check_is_as_cut(checkpoint, description, mesh, tmp_path)


def test_files_that_arrived_under_a_build_of_before_stay(
    checkpoint: Checkpoint, description: SliceDescription, mesh: ShippingMesh, tmp_path: Path
) -> None:
    """They are checked by their SHA-256, those that came later by their XXH3."""
    slice_bytes = ship_half(checkpoint, description, mesh)
    noted = sorted(mesh.slice_directory(description, arriving=True).glob("*.digests"))
    for path in noted:
        path.write_text(json.dumps(older(FileEntry.from_json(json.loads(path.read_text()))).to_json()))
    assert mesh.ship(checkpoint, description).sent_bytes < 0.6 * slice_bytes
    files = read_manifest(mesh.slice_directory(description)).files
    of_before = {name for name, entry in files.items() if not entry.tile_xxh3}
    assert {f"{name}.digests" for name in of_before} == {path.name for path in noted}
    assert 0 < len(of_before) < len(files)


def test_a_file_that_never_arrives_whole_is_a_fault_and_not_tried_for_ever(
    checkpoint: Checkpoint, description: SliceDescription, mesh: ShippingMesh
) -> None:
    """The node is named, as whoever has to look at its disk or memory needs to know."""
    real = ArrivingFile.write

    def damaging(self: ArrivingFile, chunk: bytes) -> None:
        real(self, bytes([chunk[0] ^ 1]) + chunk[1:])

    with mock.patch.object(ArrivingFile, "write", damaging), pytest.raises(SliceCorrupt, match="kitchen: layer"):
        mesh.ship(checkpoint, description)
    mesh.ship(checkpoint, description)


def test_a_disk_without_room_is_told_before_the_first_byte_and_the_old_slice_works(
    checkpoint: Checkpoint, description: SliceDescription, mesh: ShippingMesh
) -> None:
    """With what is needed and what is there."""
    old = slice_of(checkpoint, world_size=3)
    mesh.serve(mesh.ship(checkpoint, old).slice_id)
    full = mock.Mock(return_value=mock.Mock(free=20_000_000))
    wanted = pytest.raises(DiskFull, match=r"kitchen: the slice needs 6718kB more and its disk has 3223kB free")
    with mock.patch("shardnode.slices.slice_store.shutil.disk_usage", full), wanted:
        mesh.ship(checkpoint, description)
    assert not mesh.slice_directory(description, arriving=True).exists()
    assert mesh.served() == old.slice_id


def test_a_disk_that_runs_full_meanwhile_gives_the_last_file_back(
    checkpoint: Checkpoint, description: SliceDescription, mesh: ShippingMesh, tmp_path: Path
) -> None:
    """Whole files stay; with room again the rest is sent."""
    real = os.pwrite
    written = [0]

    def filling(descriptor: int, data: memoryview, position: int) -> int:
        written[0] += len(data)
        if written[0] > 5_000_000:
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(descriptor, data, position)

    with (
        mock.patch("shardnode.slices.arriving_file.os.pwrite", filling),
        pytest.raises(DiskFull, match="kitchen: the disk"),
    ):
        mesh.ship(checkpoint, description)
    assert not list(mesh.slice_directory(description, arriving=True).glob("*.part"))
    arrival = mesh.ship(checkpoint, description)
    assert 0 < arrival.sent_bytes < 0.7 * arrival.total_bytes
    check_is_as_cut(checkpoint, description, mesh, tmp_path)


def test_a_slice_whose_manifest_is_lost_is_looked_at_and_not_sent_again(
    checkpoint: Checkpoint, description: SliceDescription, mesh: ShippingMesh
) -> None:
    """The node starts without it, says why, and serves it once it is whole again."""
    slice_id = mesh.ship(checkpoint, description).slice_id
    mesh.serve(slice_id)
    mesh.restart(lambda: (mesh.slice_directory(description) / MANIFEST_NAME).write_text("{"))
    assert mesh.served() == ""
    assert mesh.ship(checkpoint, description).sent_bytes == 0
    mesh.serve(slice_id)
    assert mesh.served() == slice_id


def test_a_slice_that_cannot_be_served_leaves_the_old_one_at_work(
    checkpoint: Checkpoint, description: SliceDescription, mesh: ShippingMesh
) -> None:
    """It was damaged behind the node's back, or is not there at all."""
    old = slice_of(checkpoint, world_size=3)
    mesh.serve(mesh.ship(checkpoint, old).slice_id)
    new_id = mesh.ship(checkpoint, description).slice_id
    (mesh.slice_directory(description) / MANIFEST_NAME).write_text("{")
    for slice_id in (new_id, "f" * 64):
        with pytest.raises(grpc.RpcError) as caught:
            mesh.serve(slice_id)
        assert "SLICE" in error_from_rpc(caught.value, "kitchen").reason
    assert mesh.served() == old.slice_id


def test_slices_that_somebody_removed_under_a_running_node_are_sent_again(mesh: ShippingMesh, tmp_path: Path) -> None:
    """With their directories; the node needs no restart for it."""
    checkpoint = checkpoint_of(tmp_path / "model")
    description = slice_of(checkpoint)
    mesh.ship(checkpoint, description)
    shutil.rmtree(mesh.data / "slices")
    assert mesh.served() == ""
    assert mesh.ship(checkpoint, description).sent_bytes > 0
    assert mesh.slice_directory(description).is_dir()


def test_removing_a_slice_gives_its_room_back(
    checkpoint: Checkpoint, description: SliceDescription, mesh: ShippingMesh
) -> None:
    """Also of the one that is served, and of one that was still arriving; twice does no harm."""
    slice_id = mesh.ship(checkpoint, description).slice_id
    mesh.serve(slice_id)
    for _ in range(2):
        mesh.ask(lambda stub: stub.RemoveSlice(slices_pb2.RemoveSliceRequest(slice_id=slice_id), timeout=10))
    assert mesh.served() == ""
    assert sorted(path.name for path in (mesh.data / "slices").iterdir()) == ["arriving"]
    shutil.rmtree(mesh.data / "slices" / "arriving")


def test_a_node_far_away_is_reached(mesh: ShippingMesh) -> None:
    """Behind 150 ms each way a handshake takes longer than a tenth of a second, and is waited for."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        address = f"127.0.0.1:{free.getsockname()[1]}"
    program = [sys.executable, delay_relay.__file__, address, mesh.node.address, "150"]
    relay = subprocess.Popen(program, stderr=subprocess.PIPE)
    try:
        assert relay.stderr is not None
        assert relay.stderr.readline() == b"relaying\n"
        with mesh.channel(address) as channel:
            wait_until_reached(channel, 5.0, "too far away")
    finally:
        relay.kill()
        relay.communicate()


def flip(path: Path, position: int) -> None:
    """Change one bit of a file."""
    with open(path, "r+b") as file:
        file.seek(position)
        (byte,) = file.read(1)
        file.seek(position)
        file.write(bytes([byte ^ 0x10]))
