"""What nodes of the mesh are asked about their slices: which they have, which to serve, which may go; who is ready."""

from __future__ import annotations

from common.errors import NodeLost, NodeTimeout, ShardmeshError
from coordinator.membership.reach import MeshAccess
from coordinator.models.records import LoadedModel
from protos.shardmesh.v1 import slices_pb2
from protos.shardmesh.v1.slices_pb2_grpc import SliceServiceStub as Stub

READY = "ready"
LIST_SECONDS, CHANGE_SECONDS, SERVE_SECONDS = 4.0, 30.0, 120.0


def list_slices(mesh: MeshAccess, name: str, *, with_kept_tiles: bool = False) -> slices_pb2.ListSlicesResponse:
    """Return what a node holds. Raises: NoSuchNode, NodeError."""
    request = slices_pb2.ListSlicesRequest(with_kept_tiles=with_kept_tiles)
    response: slices_pb2.ListSlicesResponse = mesh.ask(name, lambda to: Stub(to).ListSlices, request, LIST_SECONDS)
    return response


def serve_slice(mesh: MeshAccess, name: str, slice_id: str) -> None:
    """Have a node serve a slice that it holds; nothing happens if it does.

    Raises: NoSuchNode, NodeError; SliceError, ResourceError: it cannot, and serves what it did.
    """
    request = slices_pb2.ServeSliceRequest(slice_id=slice_id)
    mesh.ask(name, lambda to: Stub(to).ServeSlice, request, SERVE_SECONDS)


def remove_slice(mesh: MeshAccess, name: str, slice_id: str, *, keep_tiles: bool = False) -> None:
    """Have a node remove a slice, whole or not.

    Args: keep_tiles: its tiles may stay, as far as the node keeps such, for another plan.
    Raises: NoSuchNode, NodeError.
    """
    request = slices_pb2.RemoveSliceRequest(slice_id=slice_id, keep_tiles=keep_tiles)
    mesh.ask(name, lambda to: Stub(to).RemoveSlice, request, CHANGE_SECONDS)


def remove_kept_tiles(mesh: MeshAccess, name: str, model_identity: str) -> None:
    """Have a node remove the tiles of a model that no slice needs. Raises: NoSuchNode, NodeError."""
    request = slices_pb2.RemoveSliceRequest(model_identity=model_identity)
    mesh.ask(name, lambda to: Stub(to).RemoveSlice, request, CHANGE_SECONDS)


def state_of(model: LoadedModel, mesh: MeshAccess) -> str:
    """Return whether a model could answer now, or why not."""
    if not model.is_loaded:
        return "its load was interrupted; load it again to go on, or unload it"
    for node, description in zip(model.node_names, model.slices(), strict=True):
        try:
            held = list_slices(mesh, node)
        except (NodeLost, NodeTimeout):
            return f"{node} is not reached"
        except ShardmeshError as error:
            return str(error)
        if not any(one.is_whole and one.slice_id == description.slice_id for one in held.slices):
            return f"{node} lacks its slice; load again"
        if held.trouble:
            return f"{node}: {held.trouble}"
    return READY
