"""A mesh of one coordinator and one node in this process, and a model of some megabytes to ship to it.

    with ShippingMesh(tmp_path) as mesh:
        mesh.ship(checkpoint_of(tmp_path))

Covers: a joined node that keeps slices, restarting it, shipping over a relay. Does not cover: whole programs.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import TracebackType

import grpc

from common.model.plan import make_plan
from common.trust.certificates import NODE, PeerName
from common.trust.tls import secure_channel
from common.weights.slice_description import SliceDescription
from coordinator.checkpoints.checkpoint import Checkpoint, open_checkpoint
from coordinator.membership.state import init_mesh
from coordinator.program.daemon import Coordinator
from coordinator.shipping.file_sending import CHUNK_BYTES
from coordinator.shipping.shipment import Arrival, ship
from protos.shardmesh.v1 import slices_pb2, slices_pb2_grpc
from shardnode.config import NodeConfig
from shardnode.run import RunningNode
from tests.support.cutting_relay import PIECE_BYTES
from tests.support.free_ports import free_place
from tests.support.mesh_members import LIMIT_SECONDS, joined, state_of
from tests.support.random_models import build, save

TILE_BYTES = 65536
CUT_IN_TWO_BYTES = CHUNK_BYTES + PIECE_BYTES
"""Of what is sent, when a link is cut: a chunk, and what the relay holds of the next one."""
NAME = "kitchen"


def checkpoint_of(directory: Path, *, layers: int = 4, seed: int = 0) -> Checkpoint:
    """Return a model of about 4 MB a layer."""
    model = build(hidden_size=256, intermediate_size=1024, layers=layers, seed=seed, vocab_size=300)
    return open_checkpoint(save(model, directory, tokenizer=False))


def slice_of(
    checkpoint: Checkpoint, *, strategy: str = "uniform", world_size: int = 2, rank: int = 0
) -> SliceDescription:
    """Return what one rank's slice is."""
    return SliceDescription(
        model_identity=checkpoint.identity, spec=checkpoint.spec, plan=make_plan(checkpoint.spec, strategy, world_size),
        rank=rank, dtype="float32", tile_bytes=TILE_BYTES,
    )  # fmt: skip


class ShippingMesh:
    """One coordinator, one node."""

    def __init__(self, directory: Path) -> None:
        self.state_directory = directory / "state"
        self.state_directory.mkdir()
        init_mesh(self.state_directory, "home")
        self.coordinator = Coordinator(self.state_directory, free_place())
        self.data = directory / NAME
        joined(self.state_directory, NAME, self.data)
        self.node = self._started()

    def restart(self, while_away: Callable[[], object] = lambda: None) -> None:
        """Stop the node and start it again."""
        self.node.close()
        while_away()
        self.node = self._started()

    def channel(self, address: str = "") -> grpc.Channel:
        """Return the coordinator's channel to the node. Args: address: where, if not the node's own."""
        identity = state_of(self.state_directory).identity()
        return secure_channel(address or self.node.address, identity, PeerName(mesh="home", role=NODE, name=NAME))

    def ship(
        self, checkpoint: Checkpoint, description: SliceDescription, address: str = "", *, verify: bool = False,
        patience_seconds: float = LIMIT_SECONDS,
    ) -> Arrival:  # fmt: skip
        """Send one slice to the node."""
        (arrival,) = ship(
            checkpoint, [description], [NAME], lambda name: self.channel(address), lambda name, progress: None,
            verify=verify, patience_seconds=patience_seconds,
        )  # fmt: skip
        return arrival

    def ask(self, call: Callable[[slices_pb2_grpc.SliceServiceStub], object]) -> None:
        """Ask the node something about slices. Raises: grpc.RpcError."""
        with self.channel() as channel:
            call(slices_pb2_grpc.SliceServiceStub(channel))

    def serve(self, slice_id: str) -> None:
        """Have the node serve a slice. Raises: grpc.RpcError."""
        request = slices_pb2.ServeSliceRequest(slice_id=slice_id)
        self.ask(lambda stub: stub.ServeSlice(request, timeout=LIMIT_SECONDS))

    def served(self) -> str:
        """Return the slice that the node serves."""
        with self.channel() as channel:
            stub = slices_pb2_grpc.SliceServiceStub(channel)
            listed: slices_pb2.ListSlicesResponse = stub.ListSlices(
                slices_pb2.ListSlicesRequest(), timeout=LIMIT_SECONDS
            )
            return listed.served_slice_id

    def has_of(self, sent_bytes: int) -> Callable[[], bool]:
        """Return what tells whether the node has written so much of a slice, but for a chunk that has not come whole.

        What arrived and is not written when a link is cut is lost, and how much that is is the machine's speed.
        """
        least = sent_bytes * 98 // 100 - CUT_IN_TWO_BYTES
        slices = self.data / "slices"

        def has() -> bool:
            return sum(path.stat().st_size for path in slices.rglob("*") if path.is_file()) >= least

        return has

    def slice_directory(self, description: SliceDescription, *, arriving: bool = False) -> Path:
        """Return where the node keeps a slice."""
        return self.data / "slices" / ("arriving" if arriving else "") / description.slice_id

    def _started(self) -> RunningNode:
        return RunningNode(NodeConfig(
            slice_directory=None, listen="127.0.0.1:0", thread_count=1, kv_budget_bytes=1 << 24,
            coordinator=self.coordinator.address, data_directory=self.data,
        ))  # fmt: skip

    def __enter__(self) -> ShippingMesh:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.node.close()
        self.coordinator.close()
