"""The `coordinator` daemon: its listeners, from start to drain.

    --master-ip:--master-port        mutual TLS   members: heartbeats, renewal; the owner: asking models;
                                                  standard health and reflection
    the next port                    TLS          devices with a token, only while there is one
    coordinator.sock in the state    plain        the owner: invitations, removal, the list of nodes, loading and
                                                  asking models

Covers: the order in which they start and end.
Does not cover: what they answer (membership/services.py), when devices may join (door.py), flags (cli/coordinator.py).
Threads: gRPC's, the door's, and the watch's over nodes.
"""

from __future__ import annotations

import fcntl
import logging
import os
import threading
from pathlib import Path

import grpc

from common.compute.backend import FLOAT32
from common.errors import AddressInUse, InputError, NodeError, NotTrusted, ShardmeshError
from common.machine.state_directory import check_own
from common.program.lifecycle import CLOSE_SECONDS, DRAIN_SECONDS, LAST_WORDS_SECONDS, close_within
from common.program.logs import entry
from common.program.metrics_page import MetricsPage, MetricsPlace
from common.program.service_notify import ServiceNotifier
from common.trust.bearer_token import BearerToken
from common.trust.behind_gate import caller_of
from common.trust.certificates import COORDINATOR, NODE
from common.trust.certifying_apart import CertifyingHere
from common.trust.gate import Gate
from common.trust.member_door import MemberDoor
from common.trust.metrics_door import MetricsDoor
from common.trust.metrics_place import is_for_others, metrics_place
from common.wire.addresses import EVERYWHERE, host_port, split_host_port
from common.wire.call_limits import CallLimits
from common.wire.rpc import bind, make_server
from common.wire.standard_services import StandardServices
from coordinator.membership.members import MAX_MEMBERS
from coordinator.membership.owner_client import OwnerClient
from coordinator.membership.reach import MeshAccess
from coordinator.membership.rotation import Rotation
from coordinator.membership.services import MeshServicer, OwnerServicer, node_messages
from coordinator.membership.state import LOCK_FILE, SOCKET_FILE, mend_mesh_state, open_mesh_state
from coordinator.membership.welcome import (
    CALLS,
    MOST_CONNECTED,
    calls_of_members,
    member_places,
    members_only,
    pace_of_members,
)
from coordinator.models.records import LoadedModels
from coordinator.models.served import models_of, served_by
from coordinator.program import targets
from coordinator.program.door import Door
from coordinator.program.generation_service import GenerationServicer, Generator
from coordinator.program.model_service import ModelServicer
from coordinator.program.model_worker import ModelWorker
from coordinator.program.node_looks import NodeLooks
from coordinator.program.node_watch import NodeWatch
from coordinator.program.observe_service import ObserveServicer
from coordinator.program.overview import Overviews
from coordinator.program.program_series import MEMBERS, METRICS, ProgramSeries
from coordinator.program.spans import Spans, sampled_share, spans_wanted
from coordinator.program.tracing import Tracing
from coordinator.ranks.travel import USUAL_TRAVEL, Travel
from coordinator.tokenizer.nursery import Nursery
from protos.shardmesh.v1 import (
    generation_pb2,
    generation_pb2_grpc,
    mesh_pb2,
    mesh_pb2_grpc,
    models_pb2_grpc,
    observe_pb2_grpc,
)

MEMBER_WORKERS = CALLS[NODE] * MAX_MEMBERS + CALLS[COORDINATOR]
"""All that everybody may have at once: no heartbeat waits for another's calls. Threads are there while they work."""
OWNER_WORKERS, OWNER_STREAMS = 48, 32
"""Of the owner's: answers, commands that watch a load or wait for an unload (at most 16, 8 and 8), and short calls, for
which 16 stay whatever streams there are: the watchdog asks so."""
LAST_PORT = 65535

log = logging.getLogger(__name__)


class Coordinator:
    """A coordinator that answers. Raises on construction what its parts raise, with nothing left running."""

    def __init__(
        self, state_directory: Path, address: str, advertised: str = "", metrics_port: int | None = None,
        travel: Travel = USUAL_TRAVEL, backend: str = "native", *, metrics_listen: str = "",
        metrics_token_file: Path | None = None, discovery_file: Path | None = None,
        certifying: CertifyingHere | None = None, activations: str = FLOAT32, nursery: Nursery | None = None,
    ) -> None:  # fmt: skip
        """Args: address: of the members' listener; advertised: the host that tokens name, if not its own; metrics_*:
        where metrics are read, and by whom beside observers; discovery_file: for Prometheus, where to scrape nodes;
        None: where targets.default_file says; certifying: who makes keys and certificates, if not this process;
        nursery: where models' tokenizers run, closed with this; None: it makes its own.
        """
        place = metrics_place(metrics_port, metrics_listen, metrics_token_file)
        state_directory = Path(os.path.abspath(state_directory))  # a load's process starts elsewhere
        check_own(state_directory)
        self._state = open_mesh_state(state_directory, certifying)
        self._host, wanted_port = split_host_port(address)
        if advertised:
            split_host_port(host_port(advertised, wanted_port))
        if wanted_port == LAST_PORT:
            raise InputError(f"--master-port is {LAST_PORT}; devices join on the next one, so choose a lower one")
        if place is not None and place.port and place.port in (wanted_port, wanted_port + 1):
            who = "members" if place.port == wanted_port else "devices"
            raise InputError(f"{place.flag} is {metrics_listen or place.port}, where {who} come with --master-port "
                             f"{wanted_port}; choose another one for one of them")  # fmt: skip
        self._has_fixed_port = bool(wanted_port)
        self._advertised = advertised
        self._invites = self._state.invites
        self._door: Door | None = None
        self._gate: Gate | None = None
        self._stopping = threading.Event()
        self.series = series = ProgramSeries(self._state)
        owner = make_server(OWNER_WORKERS, CallLimits(lambda context: ("", 0), most_answering=OWNER_STREAMS))
        members = make_server(MEMBER_WORKERS, CallLimits(calls_of_members, series.doors.calls(MEMBERS)))
        self._servers = (owner, members)
        mesh = MeshAccess(
            mesh_name=self._state.name, identity=self._state.identity, nodes=lambda: node_messages(self._state.members)
        )
        self._generator = Generator(state_directory, mesh, series.answers, travel, backend, activations, nursery)
        self._worker = ModelWorker(
            state_directory, mesh, series.models, self._generator.nodes_in_use, rounds=travel.rounds
        )
        discovery_file = discovery_file or targets.default_file(state_directory)
        self._targets = targets.ScrapeTargets(self._state.name, discovery_file, mesh.nodes)
        records = LoadedModels(state_directory)
        self._watch = NodeWatch(mesh.nodes, lambda node: served_by(node, models_of(records)), self._targets.update)
        self._looks = NodeLooks(mesh.nodes, mesh.channel)
        self._spans: Spans | None = None
        self.metrics_page: MetricsPage | None = None
        self._lock = self._own_state(state_directory)
        try:
            mend_mesh_state(self._state)
            self._targets.begin()
            if place is not None:
                self.metrics_page = MetricsPage(
                    series.registry, place, self._metrics_door(place, metrics_token_file),
                    {targets.PAGE: self._targets.page}, self.series.doors.connections(METRICS),
                )  # fmt: skip
            if spans_wanted():
                self._spans = Spans(self._generator.trace, self._state.name, sampled_share())
            self._listen(owner, members, address)
        except BaseException:
            self.close()
            raise

    def _listen(self, owner: grpc.Server, members: grpc.Server, address: str) -> None:
        rotation = Rotation(self._state)
        mesh_pb2_grpc.add_MeshServiceServicer_to_server(MeshServicer(self._state, rotation), members)
        generation_pb2_grpc.add_GenerationServiceServicer_to_server(
            GenerationServicer(self._generator, self._check_owner), members
        )
        self._standard = StandardServices(
            members, mesh_pb2.DESCRIPTOR.services_by_name["MeshService"].full_name,
            generation_pb2.DESCRIPTOR.services_by_name["GenerationService"].full_name,
        )  # fmt: skip
        judge = members_only(self._state)
        self._gate = Gate(
            members, address, MemberDoor(self._state.identity, judge, MOST_CONNECTED), member_places(), name=MEMBERS,
            count=self.series.doors.connections(MEMBERS), calls=pace_of_members(self._state.peer),
        )  # fmt: skip
        self.series.doors.follow(MEMBERS, self._gate.count)
        self.address = self._gate.address
        self._port = split_host_port(self.address)[1]
        self._door = door = Door(
            self._state, self._invites, rotation, host=self._host, advertised=self._advertised, mesh_port=self._port,
            port=self._port + 1 if self._has_fixed_port else 0, series=self.series.doors,
        )  # fmt: skip
        obeying = OwnerServicer(
            self._state, self._invites, door.addresses, self._invited, self._own_address, self._removed, rotation
        )
        mesh_pb2_grpc.add_OwnerServiceServicer_to_server(obeying, owner)
        asked_by_user = GenerationServicer(self._generator, lambda context: None)  # the socket's directory is its check
        generation_pb2_grpc.add_GenerationServiceServicer_to_server(asked_by_user, owner)
        models_pb2_grpc.add_ModelServiceServicer_to_server(ModelServicer(self._worker), owner)
        overviews = Overviews(self._state, self._generator, self._looks)
        observing = ObserveServicer(self._generator.explaining, overviews, Tracing(self._generator.trace))
        observe_pb2_grpc.add_ObserveServiceServicer_to_server(observing, owner)
        # gRPC takes over a socket that lies there, a living coordinator's too: hence the lock.
        bind(owner, f"unix:{self._state.directory / SOCKET_FILE}")
        for server in self._servers:
            server.start()
        self._standard.serving()
        door.start()
        self._watch.start()
        log.info("%s", entry("coordinator has started", mesh=self.mesh_name, address=self.address))

    @property
    def mesh_name(self) -> str:
        return self._state.name

    def stop(self) -> None:
        """Ask `wait` to return."""
        self._stopping.set()

    def wait(self) -> None:
        """Serve until `stop`, then drain and close; systemd, where it started us, hears of it."""
        ServiceNotifier().run(self._stopping, self._is_alive, f"mesh {self.mesh_name} on {self.address}")
        close_within(CLOSE_SECONDS, self._drain_and_close)
        log.info("%s", entry("coordinator has ended", mesh=self.mesh_name))

    def _drain_and_close(self) -> None:
        """Go on hearing members, whose answers are under way, until these have ended; nothing new begins."""
        self._worker.close()  # who watches a load is told before the drain, which would wait for the end of it
        if self._door is not None:
            self._door.stop()
        self._standard.draining()
        self._generator.drain(DRAIN_SECONDS)
        self.close()

    def _invited(self) -> None:
        """Let the device in that a new token is for. Raises: AddressInUse; NodeError: not any more."""
        if self._stopping.is_set():
            raise NodeError("the coordinator is ending; invite again when it is back")
        assert self._door is not None  # it was made before the owner could ask
        self._door.look()

    def _removed(self, name: str) -> None:
        """Let a node go that is no member any more: its calls end, and so do the answers that it has a part in."""
        assert self._gate is not None  # as the door
        self._gate.look_again()
        self._generator.let_go(name)

    def _is_alive(self) -> bool:
        """Tell whether the owner would be answered: over a socket, by gRPC's threads, past every lock."""
        try:
            with OwnerClient(self._state.directory) as owner:
                owner.nodes()
        except ShardmeshError:
            return False
        return True

    def close(self) -> None:
        """Take no new calls, let running ones say their last word. May be called twice, and before all is open."""
        self._stopping.set()
        self._worker.close()
        self._watch.close()
        self._looks.close()
        door, self._door = self._door, None
        door_ended = None
        if door is not None:
            self._standard.draining()
            door_ended = door.stop()
        for ending in [*(server.stop(LAST_WORDS_SECONDS) for server in self._servers), door_ended]:
            if ending is not None:
                ending.wait(LAST_WORDS_SECONDS + 1)
        if self._gate is not None:
            self._gate.close()
        self._generator.close()
        spans, self._spans = self._spans, None
        if spans is not None:
            spans.close()
        if self.metrics_page is not None:
            self.metrics_page.close()
            self.metrics_page = None
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1

    def _metrics_door(self, place: MetricsPlace, token_file: Path | None) -> MetricsDoor | None:
        """Return who may read metrics; None: this machine. Raises: InputError, NotTrusted: a token cannot be used."""
        if not is_for_others(place):
            return None
        token = None if token_file is None else BearerToken(token_file)
        return MetricsDoor(self._state.identity, self._state.observers, token)

    def _check_owner(self, context: grpc.ServicerContext) -> None:
        """Let only the mesh's owner through, who has the coordinator's own identity. Raises: NotTrusted."""
        caller = caller_of(context)
        if caller != self._state.peer:
            raise NotTrusted(f"{caller.uri} may not ask this mesh's models")

    def _own_state(self, directory: Path) -> int:
        """Lock the state directory and return the lock's descriptor; it goes with the process, however that ends."""
        lock = os.open(directory / LOCK_FILE, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(lock)
            raise AddressInUse(f"a coordinator runs on {directory} already; stop it, or choose another --state-dir"
                               ) from None  # fmt: skip
        return lock

    def _own_address(self) -> str:
        """Return where this machine reaches the members' listener, once it listens."""
        host = "127.0.0.1" if self._host in EVERYWHERE else self._host
        return host_port(host, self._port)
