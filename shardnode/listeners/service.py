"""The node's gRPC face: sessions, stats, health, reflection. Messages in and out, no maths.

Covers: ShardService over Unix sockets and TCP, standard health and reflection.
Does not cover: what a session does (sessions/session.py), rounds without gRPC on one host (direct.py).
Threads: gRPC's pool; the thread of a Rounds call computes inline, since a hop costs 0.1 ms a block.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import grpc

from common.compute.device_speeds import DeviceSpeeds
from common.errors import NodeError, NodeLost, NotTrusted
from common.program.logs import entry
from common.wire.rpc import bind, check_listen_address, guarded, guarded_stream, make_server
from common.wire.standard_services import StandardServices
from protos.shardmesh.v1 import links_pb2_grpc, shard_pb2, slices_pb2_grpc
from shardnode.config import NodeConfig
from shardnode.listeners.link_service import LinkServicer
from shardnode.listeners.raw_rounds import SERVICE_NAME, add_raw_servicer, request_from
from shardnode.listeners.slice_service import SliceServicer
from shardnode.sessions.session import Session
from shardnode.sessions.session_series import SessionSeries
from shardnode.slices.serving import Serving
from shardnode.work.slice_at_work import ShardNode

if TYPE_CHECKING:  # certificates are for members of a mesh
    from common.trust.certificates import PeerName
    from shardnode.membership.membership import Membership

WORKER_COUNT = 16
CheckCaller = Callable[[grpc.ServicerContext], None]
LAST_WORDS_SECONDS = 1.0
"""How long a session may take to send its next message once its answer is to end in words."""

log = logging.getLogger(__name__)


class ShardServicer:
    """Answers for one node."""

    def __init__(self, serving: Serving, direct_path: str, check_caller: CheckCaller, series: SessionSeries) -> None:
        """Args: check_caller: raises NotTrusted for who may not use this node."""
        self._serving, self._series = serving, series
        self._direct_path = direct_path
        self._check_caller = check_caller
        self._sessions: dict[Session, grpc.ServicerContext] = {}
        self._ended = threading.Condition()
        self._is_draining = False
        self._cut: NodeLost | None = None

    @guarded
    def Rounds(  # noqa: N802 - the name is the contract's
        self, request_iterator: Iterator[bytes], context: grpc.ServicerContext
    ) -> Iterator[bytes]:
        session = Session(self._checked(context), self._series)
        self.check_open()
        return self._session(session, request_iterator, context)

    def check_open(self) -> None:
        """Raises: NodeError: the node was told to end, and begins nothing."""
        if self._is_draining:
            raise _ending()

    def _session(self, session: Session, requests: Iterator[bytes], context: grpc.ServicerContext) -> Iterator[bytes]:
        counts = session.counts

        def handle(message: bytes) -> bytes:
            if self._cut is not None:
                raise self._cut
            counts.received_bytes += len(message)
            answer = session.handle(request_from(message)).SerializeToString()
            counts.sent_bytes += len(answer)
            return answer

        with self._ended:
            self._sessions[session] = context
            if self._is_draining:  # since just now
                session.refuse_new(_ending())
        try:
            for response in guarded_stream(context, requests, handle):
                yield response
                if self._is_draining and session.is_idle:
                    return
        finally:
            session.close()
            with self._ended:
                del self._sessions[session]
                self._ended.notify_all()

    def begin_nothing(self) -> int:
        """Let nothing new begin, end the sessions that no answer needs, and return how many others there are.

        A coordinator keeps a session open between answers.
        """
        with self._ended:
            self._is_draining = True
            sessions = dict(self._sessions)
        for session in sessions:
            session.refuse_new(_ending())
        idle = [session for session in sessions if session.is_idle]
        for session in idle:
            sessions[session].cancel()
        return len(sessions) - len(idle)

    def drain(self, limit_seconds: float) -> None:
        """Begin nothing more, and return once no answer needs a session; those that do after the limit end in words."""
        if count := self.begin_nothing():
            log.info("%s", entry("ending", sessions=count, most_seconds=limit_seconds))
        if not self._wait_until_none(limit_seconds):
            self._cut = NodeLost(f"it was told to end, and the answer was not complete within {limit_seconds:g} s")
            log.warning("%s", entry("ending what is not complete", sessions=len(self._sessions), seconds=limit_seconds))
            self._wait_until_none(LAST_WORDS_SECONDS)

    def _wait_until_none(self, limit_seconds: float) -> bool:
        with self._ended:
            return self._ended.wait_for(lambda: not self._sessions, limit_seconds)

    @guarded
    def GetStats(  # noqa: N802 - the name is the contract's
        self, request: shard_pb2.GetStatsRequest, context: grpc.ServicerContext
    ) -> shard_pb2.GetStatsResponse:
        stats = self._checked(context).stats()
        stats.direct_path = self._direct_path
        return stats

    def _checked(self, context: grpc.ServicerContext) -> ShardNode:
        """Return the node, for who may use it. Raises: NotTrusted; SliceMismatch: there is nothing to use."""
        self._check_caller(context)
        return self._serving.current()


def _ending() -> NodeError:
    return NodeError("it was told to end and begins nothing new; ask again when it is back")


def only_coordinator_of(own: PeerName | None) -> CheckCaller:
    """Return a check that lets only the coordinator of a node's mesh through; whoever comes, without a mesh."""

    if own is None:
        return lambda context: None
    from common.trust.certificates import COORDINATOR
    from common.trust.tls import caller_of

    def check(context: grpc.ServicerContext) -> None:
        caller = caller_of(context)
        if (caller.mesh, caller.role) != (own.mesh, COORDINATOR):
            raise NotTrusted(f"{caller.uri} is not the coordinator of this node's mesh")

    return check


class NodeServer:
    """The listening server of one node."""

    def __init__(
        self, config: NodeConfig, serving: Serving, direct_path: str = "", membership: Membership | None = None,
        series: SessionSeries | None = None,
    ) -> None:  # fmt: skip
        """Listen on the node's address: over mutual TLS where it is a member of a mesh.

        Args: series: the process's; some of its own where nobody looks.
        Raises: InputError: an address that needs TLS; AddressInUse.
        """
        own = None if membership is None else membership.peer
        credentials = None
        if membership is not None and not config.listen.startswith("unix:"):
            from common.trust.tls import mutual_server_credentials

            credentials = mutual_server_credentials(membership.identity)
        else:
            check_listen_address(config.listen, insecure=config.insecure)
            own = None  # a Unix socket, loopback, or a network that its owner trusts
        self._server = make_server(WORKER_COUNT)
        check = only_coordinator_of(own)
        self._servicer = ShardServicer(serving, direct_path, check, series or SessionSeries())
        add_raw_servicer(self._servicer, self._server)
        if membership is not None:

            def check_beginning(context: grpc.ServicerContext) -> None:
                check(context)
                self._servicer.check_open()

            def measure(is_wanted: Callable[[], bool]) -> DeviceSpeeds:
                return membership.measure_device(serving.large_files(), is_wanted)

            links_pb2_grpc.add_LinkServiceServicer_to_server(LinkServicer(check_beginning, measure), self._server)
            slices_pb2_grpc.add_SliceServiceServicer_to_server(SliceServicer(serving, check_beginning), self._server)
        self._standard = StandardServices(self._server, SERVICE_NAME)
        self.address = bind(self._server, config.listen, credentials)
        self._standard.serving()

    def start(self) -> None:
        self._server.start()

    def drain(self, limit_seconds: float) -> None:
        """Begin nothing new and let answers under way come to their end; after the limit they end in words."""
        self._standard.draining()
        self._servicer.drain(limit_seconds)

    def stop(self, grace_seconds: float) -> None:
        """Take no new calls, let running ones end within the grace time, then cancel them."""
        self._standard.draining()
        ended = self._server.stop(grace_seconds)
        self._servicer.begin_nothing()
        ended.wait(grace_seconds + 5)
