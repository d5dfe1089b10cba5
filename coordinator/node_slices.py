"""What one node of the mesh is asked about its slices: which it has, which it shall serve, which may go."""

from __future__ import annotations

from coordinator.mesh_access import MeshAccess
from protos.shardmesh.v1 import slices_pb2
from protos.shardmesh.v1.slices_pb2_grpc import SliceServiceStub as Stub

LIST_SECONDS, CHANGE_SECONDS, SERVE_SECONDS = 4.0, 30.0, 120.0


def list_slices(mesh: MeshAccess, name: str) -> slices_pb2.ListSlicesResponse:
    """Return what a node holds. Raises: NoSuchNode, NodeError."""
    request = slices_pb2.ListSlicesRequest()
    response: slices_pb2.ListSlicesResponse = mesh.ask(name, lambda to: Stub(to).ListSlices, request, LIST_SECONDS)
    return response


def serve_slice(mesh: MeshAccess, name: str, slice_id: str) -> None:
    """Have a node serve a slice that it holds; nothing happens if it does.

    Raises: NoSuchNode, NodeError; SliceError, ResourceError: it cannot, and serves what it did.
    """
    request = slices_pb2.ServeSliceRequest(slice_id=slice_id)
    mesh.ask(name, lambda to: Stub(to).ServeSlice, request, SERVE_SECONDS)


def remove_slice(mesh: MeshAccess, name: str, slice_id: str) -> None:
    """Have a node remove a slice, whole or not. Raises: NoSuchNode, NodeError."""
    request = slices_pb2.RemoveSliceRequest(slice_id=slice_id)
    mesh.ask(name, lambda to: Stub(to).RemoveSlice, request, CHANGE_SECONDS)
