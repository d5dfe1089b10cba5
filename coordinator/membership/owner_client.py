"""What the owner's command line asks of a running coordinator, over the socket in its state directory."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import grpc

from common.errors import InputError, NodeLost
from common.wire.rpc import channel_options, error_from_rpc
from coordinator.membership.state import SOCKET_FILE
from protos.shardmesh.v1 import mesh_pb2, mesh_pb2_grpc

LIMIT_SECONDS = 5.0

Answer = TypeVar("Answer")


class OwnerClient:
    """A coordinator as its owner sees it. Use as a context manager."""

    def __init__(self, state_directory: Path) -> None:
        """Raises: InputError: no coordinator has ever run there."""
        path = state_directory / SOCKET_FILE
        if not path.exists():
            raise InputError(f"no coordinator runs on {state_directory}; start it: coordinator --state-dir "
                             f"{state_directory}")  # fmt: skip
        self._channel = grpc.insecure_channel(f"unix:{path}", options=channel_options())
        self._stub = mesh_pb2_grpc.OwnerServiceStub(self._channel)

    def __enter__(self) -> OwnerClient:
        return self

    def __exit__(self, *error: object) -> None:
        self._channel.close()

    def invite(self, lifetime_seconds: int, *, without_addresses: bool = False) -> mesh_pb2.InviteResponse:
        """Return a token for one device, and what speaks against it.

        Raises: InputError, ResourceError; NodeLost: no coordinator runs.
        """
        request = mesh_pb2.InviteRequest(lifetime_seconds=lifetime_seconds, without_addresses=without_addresses)
        response: mesh_pb2.InviteResponse = self._ask(lambda: self._stub.Invite(request, timeout=LIMIT_SECONDS))
        return response

    def remove(self, name: str) -> None:
        """Revoke a member. Raises: NoSuchNode; NodeLost."""
        request = mesh_pb2.RemoveNodeRequest(name=name)
        self._ask(lambda: self._stub.RemoveNode(request, timeout=LIMIT_SECONDS))

    def nodes(self) -> mesh_pb2.ListNodesResponse:
        """Return all members. Raises: NodeLost."""
        request = mesh_pb2.ListNodesRequest()
        response: mesh_pb2.ListNodesResponse = self._ask(
            lambda: self._stub.ListNodes(request, timeout=LIMIT_SECONDS)
        )  # fmt: skip
        return response

    def _ask(self, call: Callable[[], Answer]) -> Answer:
        try:
            return call()
        except grpc.RpcError as error:
            failure = error_from_rpc(error, "coordinator")
            if isinstance(failure, NodeLost):
                raise NodeLost("the coordinator does not answer; start it: coordinator --state-dir ...") from error
            raise failure from error
