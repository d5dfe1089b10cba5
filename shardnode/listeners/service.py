"""The node's gRPC face: sessions, stats, health, reflection. Messages in and out, no maths.

Covers: ShardService over Unix sockets and TCP, standard health and reflection.
Does not cover: what a session does (sessions/session.py), rounds without gRPC (direct.py, frames.py).
Threads: gRPC's pool; the thread of a Rounds call computes inline, since a hop costs 0.1 ms a block.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, NamedTuple

import grpc
from prometheus_client import CollectorRegistry

from common.compute.device_speeds import DeviceSpeeds
from common.errors import NotTrusted
from common.machine.descriptors import places
from common.program.door_series import DoorSeries
from common.program.places import Places
from common.wire.call_limits import CallLimits
from common.wire.rpc import bind, check_listen_address, guarded, guarded_stream, make_server
from common.wire.standard_services import StandardServices
from protos.shardmesh.v1 import links_pb2_grpc, shard_pb2, slices_pb2_grpc
from shardnode.config import NodeConfig
from shardnode.listeners.link_service import LinkServicer
from shardnode.listeners.raw_rounds import SERVICE_NAME, add_raw_servicer, request_from
from shardnode.listeners.slice_service import SliceServicer
from shardnode.sessions.live_sessions import LiveSessions
from shardnode.sessions.session import Session
from shardnode.sessions.session_series import SessionSeries
from shardnode.slices.serving import Serving
from shardnode.work.slice_at_work import ShardNode

if TYPE_CHECKING:  # certificates are for members of a mesh
    from common.trust.certificates import PeerName
    from common.trust.gate import Gate
    from shardnode.membership.membership import Membership

WORKER_COUNT = 16
CONNECTIONS, WAITING = 96, 32
"""Of the coordinator, who has one for each command and load; and those of which it is not known yet whose they are."""
CALLS = "calls"
"""What the port is called."""
HANDSHAKE_SECONDS = 5.0
ARRIVE_SECONDS = 10.0
"""For the first message of a call of the coordinator's, who may be at work."""
CheckCaller = Callable[[grpc.ServicerContext], None]


class Endpoints(NamedTuple):
    """Where else than over gRPC rounds may come in."""

    direct_path: str = ""
    """Of a Unix socket; empty: none."""
    rounds_port: int = 0
    """Of TCP, on the host that gRPC listens on; 0: none."""


class ShardServicer:
    """Answers for one node."""

    def __init__(
        self, serving: Serving, endpoints: Endpoints, check_caller: CheckCaller, series: SessionSeries,
        live: LiveSessions,
    ) -> None:  # fmt: skip
        """Args: check_caller: raises NotTrusted for who may not use this node."""
        self._serving, self._series, self._live = serving, series, live
        self._endpoints, self._check_caller = endpoints, check_caller

    @guarded
    def Rounds(  # noqa: N802 - the name is the contract's
        self, request_iterator: Iterator[bytes], context: grpc.ServicerContext
    ) -> Iterator[bytes]:
        session = Session(self._checked(context), self._series)
        self._live.check_open()
        return self._session(session, request_iterator, context)

    def _session(self, session: Session, requests: Iterator[bytes], context: grpc.ServicerContext) -> Iterator[bytes]:
        counts = session.counts

        def handle(message: bytes) -> bytes:
            if self._live.cut is not None:
                raise self._live.cut
            counts.received_bytes += len(message)
            answer = session.handle(request_from(message)).SerializeToString()
            counts.sent_bytes += len(answer)
            return answer

        with self._live.during(session, context.cancel):
            try:
                for response in guarded_stream(context, requests, handle):
                    yield response
                    if self._live.is_done(session):
                        return
            finally:
                session.close()

    @guarded
    def GetStats(  # noqa: N802 - the name is the contract's
        self, request: shard_pb2.GetStatsRequest, context: grpc.ServicerContext
    ) -> shard_pb2.GetStatsResponse:
        stats = self._checked(context).stats()
        stats.direct_path, stats.rounds_port = self._endpoints
        return stats

    def _checked(self, context: grpc.ServicerContext) -> ShardNode:
        """Return the node, for who may use it. Raises: NotTrusted; SliceMismatch: there is nothing to use."""
        self._check_caller(context)
        return self._serving.current()


def only_coordinator_of(own: PeerName | None) -> CheckCaller:
    """Return a check that lets only the coordinator of a node's mesh through; whoever comes, without a mesh."""

    if own is None:
        return lambda context: None
    from common.trust.behind_gate import caller_of
    from common.trust.certificates import COORDINATOR

    def check(context: grpc.ServicerContext) -> None:
        caller = caller_of(context)
        if (caller.mesh, caller.role) != (own.mesh, COORDINATOR):
            raise NotTrusted(f"{caller.uri} is not the coordinator of this node's mesh")

    return check


class NodeServer:
    """The listening server of one node."""

    def __init__(
        self, config: NodeConfig, serving: Serving, endpoints: Endpoints | None = None,
        membership: Membership | None = None, series: SessionSeries | None = None, live: LiveSessions | None = None,
        doors: DoorSeries | None = None,
    ) -> None:  # fmt: skip
        """Listen on the node's address: over mutual TLS where it is a member of a mesh.

        Args: endpoints: where else rounds may come in; None: nowhere; series, live, doors: the process's; some
        of its own where nobody looks, and where nothing else listens.
        Raises: InputError: an address that needs TLS; AddressInUse.
        """
        own = None if membership is None else membership.peer
        if membership is None or config.listen.startswith("unix:"):
            check_listen_address(config.listen, insecure=config.insecure)
            own = None  # a Unix socket, loopback, or a network that its owner trusts
        doors = doors or DoorSeries("shardmesh_node", (CALLS,), CollectorRegistry())
        resting = (f"/{SERVICE_NAME}/Rounds",)  # a coordinator keeps a session open between answers
        limits = CallLimits(lambda context: ("", 0), doors.calls(CALLS), ARRIVE_SECONDS, resting=resting)
        self._server = make_server(WORKER_COUNT, limits)
        check = only_coordinator_of(own)
        self._live = live or LiveSessions()
        self._servicer = ShardServicer(serving, endpoints or Endpoints(), check, series or SessionSeries(), self._live)
        add_raw_servicer(self._servicer, self._server)
        if membership is not None:

            def check_beginning(context: grpc.ServicerContext) -> None:
                check(context)
                self._live.check_open()

            def measure(is_wanted: Callable[[], bool]) -> DeviceSpeeds:
                return membership.measure_device(serving.large_files(), is_wanted)

            links = LinkServicer(check_beginning, measure, (endpoints or Endpoints()).rounds_port)
            links_pb2_grpc.add_LinkServiceServicer_to_server(links, self._server)
            slices_pb2_grpc.add_SliceServiceServicer_to_server(SliceServicer(serving, check_beginning), self._server)
        self._standard = StandardServices(self._server, SERVICE_NAME)
        self._gate: Gate | None = None
        if membership is None or own is None:
            self.address = bind(self._server, config.listen)
        else:
            self._gate = _gate(self._server, config.listen, membership, doors)
            self.address = self._gate.address
        self._standard.serving()

    def start(self) -> None:
        self._server.start()

    def look_again(self) -> None:
        """End the connections of who is no member any more. From any thread."""
        if self._gate is not None:
            self._gate.look_again()

    def drain(self, limit_seconds: float) -> None:
        """Begin nothing new and let answers under way come to their end; after the limit they end in words."""
        self._standard.draining()
        self._live.drain(limit_seconds)

    def stop(self, grace_seconds: float) -> None:
        """Take no new calls, let running ones end within the grace time, then cancel them."""
        self._standard.draining()
        ended = self._server.stop(grace_seconds)
        self._live.begin_nothing()
        ended.wait(grace_seconds + 5)
        if self._gate is not None:
            self._gate.close()


def _gate(server: grpc.Server, address: str, membership: Membership, doors: DoorSeries) -> Gate:
    """Put before a server what lets a mesh's coordinator in and nobody else. Raises: AddressInUse, InputError."""
    from common.trust.certificates import COORDINATOR
    from common.trust.gate import Gate
    from common.trust.member_door import MemberDoor

    most = places(CONNECTIONS, 0.3)
    door = MemberDoor(membership.identity, membership.judge, {COORDINATOR: most - WAITING})
    limits = Places(
        connections=most, threads=most + WAITING, seconds=HANDSHAKE_SECONDS, in_vain_seconds=0.5, in_vain_a_second=0.05
    )
    gate = Gate(server, address, door, limits, name=CALLS, count=doors.connections(CALLS))
    doors.follow(CALLS, gate.count)
    return gate
