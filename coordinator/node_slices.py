"""What one node of the mesh is asked about its slices: which it has, which it shall serve, which may go."""

from __future__ import annotations

from typing import Any

from common.reaching import answer_of, wait_until_reached
from common.rpc import failures_of
from coordinator.mesh_access import REACH_SECONDS, MeshAccess
from protos.shardmesh.v1 import slices_pb2, slices_pb2_grpc

LIST_SECONDS, CHANGE_SECONDS, SERVE_SECONDS = 4.0, 30.0, 120.0


def list_slices(mesh: MeshAccess, name: str) -> slices_pb2.ListSlicesResponse:
    """Return what a node holds. Raises: NoSuchNode, NodeError."""
    response: slices_pb2.ListSlicesResponse = _ask(
        mesh, name, "ListSlices", slices_pb2.ListSlicesRequest(), LIST_SECONDS
    )
    return response


def serve_slice(mesh: MeshAccess, name: str, slice_id: str) -> None:
    """Have a node serve a slice that it holds; nothing happens if it does.

    Raises: NoSuchNode, NodeError; SliceError, ResourceError: it cannot, and serves what it did.
    """
    _ask(mesh, name, "ServeSlice", slices_pb2.ServeSliceRequest(slice_id=slice_id), SERVE_SECONDS)


def remove_slice(mesh: MeshAccess, name: str, slice_id: str) -> None:
    """Have a node remove a slice, whole or not. Raises: NoSuchNode, NodeError."""
    _ask(mesh, name, "RemoveSlice", slices_pb2.RemoveSliceRequest(slice_id=slice_id), CHANGE_SECONDS)


def _ask(mesh: MeshAccess, name: str, method: str, request: object, limit_seconds: float) -> Any:
    """Return what a node answers. A node that falls silent meanwhile is not waited for: what goes wrong names it."""

    def is_gone() -> bool:
        return mesh.is_silent(name)

    channel = mesh.channel(name)
    try:
        wait_until_reached(channel, REACH_SECONDS, f"{name} is not reachable; is its shardnode running?", is_gone)
        call = getattr(slices_pb2_grpc.SliceServiceStub(channel), method).future(request, timeout=limit_seconds + 1)
        with failures_of(name):
            return answer_of(call, limit_seconds, f"{name} does not answer; is its shardnode running?", is_gone)
    finally:
        channel.close()
