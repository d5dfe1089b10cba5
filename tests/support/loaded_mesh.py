"""A coordinator and one node in this process, with a tiny model loaded, and what it answers.

    with LoadedMesh(directory) as mesh:
        mesh.answer("1 2 3")

Covers: loading, asking over the owner's socket. Does not cover: a mesh without a model (shipped_slices.py).
"""

from __future__ import annotations

from pathlib import Path

import grpc

from common.wire.rpc import channel_options, error_from_rpc
from coordinator.membership.reach import owner_access
from protos.shardmesh.v1 import generation_pb2, generation_pb2_grpc
from tests.support.loaded_here import load_here
from tests.support.mesh_members import LIMIT_SECONDS
from tests.support.shipped_slices import NAME, ShippingMesh
from tests.support.tiny_checkpoint import write_tiny_checkpoint
from tests.support.waiting import wait_until

LENGTH = 24


class LoadedMesh(ShippingMesh):
    """A mesh of one node with a tiny model loaded."""

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        self.state = directory / "state"
        self.model = write_tiny_checkpoint(directory / "tiny")
        self.wait_until_heard()
        self.load(self.model)

    def wait_until_heard(self) -> None:
        """Wait until the coordinator knows the node where it is now."""
        access = owner_access(self.state)
        wait_until(
            lambda: access.nodes()[0].address == self.node.address and access.nodes()[0].silent_seconds >= 0,
            limit_seconds=LIMIT_SECONDS, what="a heartbeat",
        )  # fmt: skip

    def load(self, model: Path) -> None:
        """Put a model onto the mesh."""
        load_here(self.state, model, [NAME])

    def answer(self, prompt: str, *, length: int = LENGTH, model: str = "") -> list[int]:
        """Return the tokens that the coordinator answers over its owner's socket. Raises: ShardmeshError."""
        with grpc.insecure_channel(f"unix:{self.state}/coordinator.sock", options=channel_options()) as channel:
            return tokens_of(channel, prompt, length=length, model=model)


def tokens_of(channel: grpc.Channel, prompt: str, *, length: int = LENGTH, model: str = "") -> list[int]:
    """Return the tokens of one answer. Raises: ShardmeshError."""
    request = generation_pb2.GenerateRequest(
        model=model, prompt=prompt, length=length, temperature=0, top_p=1, ignore_eos=True
    )
    try:
        parts = list(generation_pb2_grpc.GenerationServiceStub(channel).Generate(request, timeout=60))
    except grpc.RpcError as error:
        raise error_from_rpc(error, "coordinator") from error
    assert parts[0].WhichOneof("part") == "started"
    assert parts[-1].finished.finish_reason == "length"
    return [part.token.token_id for part in parts[1:-1] if part.WhichOneof("part") == "token"]
