"""What does it cost to serve a loaded model by another plan, and to go back?

Covers: a coordinator and four nodes, over TLS on loopback, that go from four to three and back: what is sent, what lies
on each disk meanwhile, and after the model is unloaded. Does not cover: one node's slices (test_packed_shipping.py).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path

import grpc
import pytest

from common.weights.manifest import read_manifest
from common.wire.rpc import channel_options
from coordinator.checkpoints.checkpoint import Checkpoint
from coordinator.membership.reach import owner_access
from coordinator.membership.state import init_mesh
from coordinator.models.records import LoadedModels
from coordinator.models.unloading import unload
from coordinator.program.daemon import Coordinator
from shardnode.config import NodeConfig
from shardnode.run import RunningNode
from tests.support.free_ports import free_place
from tests.support.loaded_here import bring_here
from tests.support.loaded_mesh import tokens_of
from tests.support.mesh_members import LIMIT_SECONDS, joined
from tests.support.packed_models import contents_of, finely_cut_checkpoint, packed_description, tile_bytes_of
from tests.support.waiting import wait_until

NAMES = ("attic", "cellar", "kitchen", "study")


class FourNodes:
    """A coordinator and four nodes of one mesh, in this process."""

    def __init__(self, directory: Path, closing: ExitStack, keep_bytes: int | None = None) -> None:
        self.state, self.directory = directory / "state", directory
        self.answers: list[list[int]] = []
        self.state.mkdir()
        init_mesh(self.state, "home")
        coordinator = Coordinator(self.state, free_place())
        closing.callback(coordinator.close)
        for name in NAMES:
            joined(self.state, name, directory / name)
            node = RunningNode(NodeConfig(
                slice_directory=None, listen="127.0.0.1:0", thread_count=1, kv_budget_bytes=1 << 20,
                coordinator=coordinator.address, data_directory=directory / name, keep_bytes=keep_bytes,
            ))  # fmt: skip
            closing.callback(node.close)
        self.access = owner_access(self.state)
        wait_until(
            lambda: len(self.access.alive()) == len(NAMES), limit_seconds=LIMIT_SECONDS, what="every node is heard"
        )

    def load(self, checkpoint: Checkpoint, source: Path, names: Sequence[str]) -> tuple[int, int]:
        """Load a model onto these nodes, and ask it; return the bytes that were sent, and those of all their slices."""
        description = packed_description(checkpoint, world_size=len(names))
        arrivals = bring_here(self.state, source, description, names)
        for rank, name in enumerate(names):
            slice_ = description.of_rank(rank)
            assert contents_of(self.slices(name) / slice_.slice_id)
        with grpc.insecure_channel(f"unix:{self.state}/coordinator.sock", options=channel_options()) as channel:
            self.answers.append(tokens_of(channel, "one two three", length=12))
        total_bytes = sum(tile_bytes_of(description.of_rank(rank)) for rank in range(len(names)))
        return sum(arrival.sent_bytes for arrival in arrivals), total_bytes

    def own_packs(self) -> set[int]:
        """Return what the coordinator's own packs are on the disk: files, whatever their names."""
        return {path.stat().st_ino for path in (self.state / "models").rglob("*.safetensors")}

    def slices(self, name: str) -> Path:
        """Return where a node keeps slices."""
        return self.directory / name / "slices"

    def store_bytes(self, name: str) -> int:
        """Return the bytes of a node's packs."""
        return sum(path.stat().st_size for path in (self.slices(name) / "store").glob("*.safetensors"))


@pytest.fixture
def closing() -> Iterator[ExitStack]:
    """Return what ends every program."""
    with ExitStack() as stack:
        yield stack


def test_four_nodes_to_three_and_back_sends_little_and_then_nothing(tmp_path: Path, closing: ExitStack) -> None:
    """At most 0.6 of the slices for three, none for four again, nor for three: kept tiles make a plan's way back free.

    The disks hold no more than slice and what may be kept of the one before; unloading gives all of it back.
    """
    checkpoint = finely_cut_checkpoint(tmp_path / "model")
    closing.callback(checkpoint.close)
    mesh = FourNodes(tmp_path, closing)
    sent_bytes, total_bytes = mesh.load(checkpoint, tmp_path / "model", NAMES)
    assert sent_bytes >= total_bytes
    own = mesh.own_packs()
    sent_bytes, total_bytes = mesh.load(checkpoint, tmp_path / "model", NAMES[:3])
    print(f"four to three: {sent_bytes} of {total_bytes} bytes sent, {sent_bytes / total_bytes:.3f}")
    assert 0 < sent_bytes <= 0.6 * total_bytes
    assert mesh.load(checkpoint, tmp_path / "model", NAMES)[0] == 0
    for name in NAMES:
        (whole,) = [path for path in mesh.slices(name).iterdir() if len(path.name) == 64]
        assert read_manifest(whole).plan.world_size == 4
        assert mesh.store_bytes(name) <= 2.1 * tile_bytes_of(read_manifest(whole))
    assert mesh.load(checkpoint, tmp_path / "model", NAMES[:3])[0] == 0
    assert mesh.own_packs() == own, "the coordinator's own slice is the same for every plan, and is not cut again"
    assert mesh.answers == mesh.answers[:1] * 4
    assert mesh.store_bytes("study") > 0, "it has no slice, but may be asked again"
    assert unload("model", LoadedModels(mesh.state), mesh.access) == []
    assert [mesh.store_bytes(name) for name in NAMES] == [0] * len(NAMES)


def test_nodes_that_keep_nothing_are_sent_it_again(tmp_path: Path, closing: ExitStack) -> None:
    """--keep-bytes 1: what no slice needs goes as far as packs go, and the way back is paid once more."""
    checkpoint = finely_cut_checkpoint(tmp_path / "model", layers=1)
    closing.callback(checkpoint.close)
    mesh = FourNodes(tmp_path, closing, keep_bytes=1)
    for names in (NAMES, NAMES[:3]):
        mesh.load(checkpoint, tmp_path / "model", names)
    assert mesh.store_bytes("study") == 0
    assert mesh.load(checkpoint, tmp_path / "model", NAMES)[0] > 0
