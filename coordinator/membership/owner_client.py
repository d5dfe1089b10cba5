"""What the owner's command line asks of a running coordinator, over the socket in its state directory."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TypeVar, cast

import grpc

from common.errors import InputError, NodeFault, NodeLost, NodeTimeout, ShardmeshError
from common.wire.rpc import REASON_KEY, channel_options, error_from_rpc
from coordinator.membership.state import SOCKET_FILE
from protos.shardmesh.v1 import mesh_pb2, mesh_pb2_grpc, models_pb2, models_pb2_grpc, observe_pb2, observe_pb2_grpc

LIMIT_SECONDS = 5.0
CANCEL_SECONDS = 20.0
COORDINATOR = "coordinator"

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
        self._observed = observe_pb2_grpc.ObserveServiceStub(self._channel)
        self._models = models_pb2_grpc.ModelServiceStub(self._channel)

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

    def rotate(self, *, begin: bool, leave_behind: bool) -> mesh_pb2.RotateAuthorityResponse:
        """Begin to replace the mesh's authority, or return how far that is. Raises: ResourceError; NodeLost."""
        request = mesh_pb2.RotateAuthorityRequest(begin=begin, leave_behind=leave_behind)
        response: mesh_pb2.RotateAuthorityResponse = self._ask(
            lambda: self._stub.RotateAuthority(request, timeout=LIMIT_SECONDS)
        )
        return response

    def invite_observer(
        self, name: str, certificate_request: bytes, valid_days: int
    ) -> mesh_pb2.InviteObserverResponse:
        """Return a certificate with which metrics are read. Raises: InputError, NameTaken, ResourceError; NodeLost."""
        request = mesh_pb2.InviteObserverRequest(
            name=name, certificate_request=certificate_request, valid_days=valid_days
        )
        response: mesh_pb2.InviteObserverResponse = self._ask(
            lambda: self._stub.InviteObserver(request, timeout=LIMIT_SECONDS)
        )
        return response

    def remove(self, name: str) -> None:
        """Revoke a member or an observer. Raises: NoSuchNode; NodeLost."""
        request = mesh_pb2.RemoveNodeRequest(name=name)
        self._ask(lambda: self._stub.RemoveNode(request, timeout=LIMIT_SECONDS))

    def nodes(self) -> mesh_pb2.ListNodesResponse:
        """Return all members. Raises: NodeLost."""
        request = mesh_pb2.ListNodesRequest()
        response: mesh_pb2.ListNodesResponse = self._ask(
            lambda: self._stub.ListNodes(request, timeout=LIMIT_SECONDS)
        )  # fmt: skip
        return response

    def load(self, request: models_pb2.LoadModelRequest) -> Iterator[models_pb2.LoadModelResponse]:
        """Have a model loaded, or watch that load; yield how it goes on.

        Raises: ShardmeshError of many kinds: it has failed, as the coordinator has worded it; NodeLost: no coordinator
        runs, or it has ended meanwhile.
        """
        is_accepted = False
        stream = self._models.LoadModel(request)
        try:
            for response in stream:
                is_accepted = True
                yield response
        except grpc.RpcError as error:
            failure = _in_its_words(error)
            if isinstance(failure, NodeLost) and is_accepted and _is_cut(error):
                raise NodeLost("the coordinator ended while it loaded; start it again (coordinator, or systemctl start "
                               "coordinator) and load again: what has arrived stays") from error  # fmt: skip
            raise failure from error
        finally:
            stream.cancel()

    def cancel_load(self, name: str) -> None:
        """Have a load stopped. Raises: ModelNotFound: it is not under way; NodeLost."""
        request = models_pb2.CancelLoadRequest(name=name)
        self._ask(lambda: self._models.CancelLoad(request, timeout=CANCEL_SECONDS))

    def unload(self, name: str) -> Sequence[str]:
        """Have a model taken off the mesh; return its nodes that could not be asked.

        Raises: ModelNotFound; InputError: a load of another one is under way; NodeLost.
        """
        request = models_pb2.UnloadModelRequest(name=name)
        response: models_pb2.UnloadModelResponse = self._ask(lambda: self._models.UnloadModel(request))
        return list(response.missed_nodes)

    def loads(self) -> Sequence[models_pb2.LoadStanding]:
        """Return how the last load of each name stands. Raises: NodeLost."""
        request = models_pb2.ListLoadsRequest()
        response: models_pb2.ListLoadsResponse = self._ask(
            lambda: self._models.ListLoads(request, timeout=LIMIT_SECONDS)
        )
        return list(response.loads)

    def overview(self) -> observe_pb2.OverviewResponse:
        """Return how nodes and requests stand now. Raises: NodeLost, NodeTimeout: no coordinator runs, or answers."""
        request = observe_pb2.OverviewRequest()
        response: observe_pb2.OverviewResponse = self._ask(
            lambda: self._observed.Overview(request, timeout=LIMIT_SECONDS)
        )
        return response

    def explain(self, seconds: float) -> observe_pb2.ExplainResponse:
        """Return where the time of the last seconds' sweeps went. Raises: InputError; NodeLost."""
        request = observe_pb2.ExplainRequest(seconds=seconds)
        response: observe_pb2.ExplainResponse = self._ask(
            lambda: self._observed.Explain(request, timeout=LIMIT_SECONDS)
        )  # fmt: skip
        return response

    def trace(self, seconds: float) -> Iterator[observe_pb2.TraceResponse]:
        """Yield the sweeps of the next seconds. Raises: InputError, ResourceError; NodeLost."""
        stream = self._observed.Trace(observe_pb2.TraceRequest(seconds=seconds))
        try:
            yield from stream
        except grpc.RpcError as error:
            raise _in_its_words(error) from error
        finally:
            stream.cancel()

    def _ask(self, call: Callable[[], Answer]) -> Answer:
        try:
            return call()
        except grpc.RpcError as error:
            raise _in_its_words(error) from error


def _in_its_words(error: grpc.RpcError) -> ShardmeshError:
    """Return what the coordinator answers instead, as it has worded it; or that it does not answer."""
    if _is_cut(error):
        return NodeLost("the coordinator does not answer; start it: coordinator --state-dir ...")
    if error.code() is grpc.StatusCode.DEADLINE_EXCEEDED and not _has_reason(error):
        return NodeTimeout("the coordinator runs and does not answer; look into its log (journalctl -u coordinator), "
                           "or restart it (systemctl restart coordinator)")  # fmt: skip
    if error.code() is grpc.StatusCode.UNIMPLEMENTED and not _has_reason(error):
        return NodeFault("the coordinator that runs is of an older version than this command; restart it (coordinator, "
                         "or systemctl restart coordinator)")  # fmt: skip
    failure = error_from_rpc(error, COORDINATOR)
    return type(failure)(str(failure).removeprefix(f"{COORDINATOR}: "))


def _is_cut(error: grpc.RpcError) -> bool:
    """Tell whether nobody answers, and not a coordinator that says who is lost."""
    return type(error_from_rpc(error, COORDINATOR)) is NodeLost and not _has_reason(error)


def _has_reason(error: grpc.RpcError) -> bool:
    trailing = cast("tuple[tuple[str, str | bytes], ...]", error.trailing_metadata() or ())
    return any(key == REASON_KEY for key, _ in trailing)
