"""What one node of the mesh is asked about its slices: which it has, which it shall serve, which may go."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from common.errors import NodeLost, NodeTimeout
from common.rpc import failures_of, wait_until_reached
from coordinator.mesh_access import MeshAccess
from protos.shardmesh.v1 import slices_pb2, slices_pb2_grpc

LOOK_SECONDS, CHANGE_SECONDS, SERVE_SECONDS = 5.0, 30.0, 120.0


def list_slices(mesh: MeshAccess, name: str) -> slices_pb2.ListSlicesResponse:
    """Return what a node holds. Raises: NoSuchNode, NodeError."""
    request = slices_pb2.ListSlicesRequest()
    with _asking(mesh, name) as stub:
        response: slices_pb2.ListSlicesResponse = stub.ListSlices(request, timeout=LOOK_SECONDS)
        return response


def serve_slice(mesh: MeshAccess, name: str, slice_id: str) -> None:
    """Have a node serve a slice that it holds; nothing happens if it does.

    Raises: NoSuchNode, NodeError; SliceError, ResourceError: it cannot, and serves what it did.
    """
    request = slices_pb2.ServeSliceRequest(slice_id=slice_id)
    with _asking(mesh, name) as stub:
        stub.ServeSlice(request, timeout=SERVE_SECONDS)


def remove_slice(mesh: MeshAccess, name: str, slice_id: str) -> None:
    """Have a node remove a slice, whole or not. Raises: NoSuchNode, NodeError."""
    request = slices_pb2.RemoveSliceRequest(slice_id=slice_id)
    with _asking(mesh, name) as stub:
        stub.RemoveSlice(request, timeout=CHANGE_SECONDS)


@contextmanager
def _asking(mesh: MeshAccess, name: str) -> Iterator[slices_pb2_grpc.SliceServiceStub]:
    """Yield what to ask a node with; what goes wrong meanwhile names the node."""
    channel = mesh.channel(name)
    try:
        wait_until_reached(channel, LOOK_SECONDS, f"{name} is not reachable; is its shardnode running?")
        with failures_of(name):
            yield slices_pb2_grpc.SliceServiceStub(channel)
    except NodeTimeout as error:
        raise NodeLost(f"{name} does not answer; is its shardnode running?") from error
    finally:
        channel.close()
