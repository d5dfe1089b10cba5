"""The `coordinator` daemon: its listeners, from start to drain.

    --master-ip:--master-port        mutual TLS   members: heartbeats, renewal; the owner: asking models;
                                                  standard health and reflection
    the next port                    TLS          devices with a token, only while there is one
    coordinator.sock in the state    plain        the owner: invitations, removal, the list of nodes, asking models

Covers: the order in which they start and end, opening and closing the door for devices.
Does not cover: what they answer (membership/services.py), flags (cli/coordinator.py).
Threads: gRPC's; one that closes the door when the last token has expired.
"""

from __future__ import annotations

import fcntl
import logging
import os
import threading
from pathlib import Path

import grpc
import psutil

from common.errors import AddressInUse, InputError, NotTrusted, ShardmeshError
from common.machine.state_directory import check_own
from common.program.lifecycle import CLOSE_SECONDS, close_within
from common.program.metrics_page import MetricsPage
from common.program.service_notify import ServiceNotifier
from common.trust.tls import caller_of, mutual_server_credentials, open_server_credentials
from common.wire.rpc import bind, is_ipv4, is_loopback, make_server, split_host_port
from common.wire.standard_services import StandardServices
from coordinator.membership.announcement import Announcement
from coordinator.membership.invites import Invites
from coordinator.membership.owner_client import OwnerClient
from coordinator.membership.reach import MeshAccess
from coordinator.membership.services import JoinServicer, MeshServicer, OwnerServicer, node_messages
from coordinator.membership.state import SOCKET_FILE, open_mesh_state
from coordinator.metrics import CoordinatorMetrics
from coordinator.program.generation_service import GenerationServicer, Generator
from protos.shardmesh.v1 import generation_pb2, generation_pb2_grpc, mesh_pb2, mesh_pb2_grpc

MEMBER_WORKERS, JOIN_WORKERS, OWNER_WORKERS = 48, 4, 24
DRAIN_SECONDS = 5.0
DOOR_LOOK_SECONDS = 1.0
MAX_ADVERTISED = 4
LOCK_FILE = "coordinator.lock"
LAST_PORT = 65535

log = logging.getLogger(__name__)


class Coordinator:
    """A coordinator that answers. Raises on construction what its parts raise, with nothing left running."""

    def __init__(
        self, state_directory: Path, address: str, advertised: str = "", metrics_port: int | None = None,
        wire_dtype: str = "float32",
    ) -> None:  # fmt: skip
        """Args: address: of the members' listener; advertised: the host that tokens name, if not its own."""
        check_own(state_directory)
        self._state = open_mesh_state(state_directory)
        self._host, wanted_port = split_host_port(address)
        if wanted_port == LAST_PORT:
            raise InputError(f"--master-port is {LAST_PORT}; devices join on the next one, so choose a lower one")
        self._has_fixed_port = bool(wanted_port)
        self._advertised = advertised
        self._invites = Invites()
        self._door_lock = threading.Lock()
        self._door: grpc.Server | None = None
        self._announcement: Announcement | None = None
        self._stopping = threading.Event()
        self._minding = threading.Thread(target=self._mind_door_for_ever, name="door", daemon=True)
        owner, members = make_server(OWNER_WORKERS), make_server(MEMBER_WORKERS)
        self._servers = (owner, members)
        metrics = CoordinatorMetrics()
        mesh = MeshAccess(
            mesh_name=self._state.name, identity=self._state.identity, nodes=lambda: node_messages(self._state.members)
        )
        self._generator = Generator(state_directory, mesh, metrics, wire_dtype)
        self._page: MetricsPage | None = None
        self._lock = self._own_state(state_directory)
        try:
            if metrics_port is not None:
                self._page = MetricsPage(metrics.registry, metrics_port)
            self._listen(owner, members, address)
        except BaseException:
            self.close()
            raise

    def _listen(self, owner: grpc.Server, members: grpc.Server, address: str) -> None:
        servicer = OwnerServicer(
            self._state, self._invites, self._join_addresses, self._mind_door, self._own_address, self._generator.let_go
        )  # fmt: skip
        mesh_pb2_grpc.add_OwnerServiceServicer_to_server(servicer, owner)
        asked_by_user = GenerationServicer(self._generator, lambda context: None)  # the socket's directory is its check
        generation_pb2_grpc.add_GenerationServiceServicer_to_server(asked_by_user, owner)
        generation_pb2_grpc.add_GenerationServiceServicer_to_server(
            GenerationServicer(self._generator, self._check_owner), members
        )
        # gRPC takes over a socket that lies there, a living coordinator's too: hence the lock.
        bind(owner, f"unix:{self._state.directory / SOCKET_FILE}")
        mesh_pb2_grpc.add_MeshServiceServicer_to_server(MeshServicer(self._state), members)
        self._standard = StandardServices(
            members, mesh_pb2.DESCRIPTOR.services_by_name["MeshService"].full_name,
            generation_pb2.DESCRIPTOR.services_by_name["GenerationService"].full_name,
        )  # fmt: skip
        self.address = bind(members, address, mutual_server_credentials(self._state.identity))
        self._port = split_host_port(self.address)[1]
        self._join_port = self._port + 1 if self._has_fixed_port else 0
        for server in self._servers:
            server.start()
        self._standard.serving()
        self._minding.start()

    @property
    def mesh_name(self) -> str:
        return self._state.name

    def stop(self) -> None:
        """Ask `wait` to return."""
        self._stopping.set()

    def wait(self) -> None:
        """Serve until `stop`, then drain and close; systemd, where it started us, hears of it."""
        ServiceNotifier().run(self._stopping, self._is_alive, f"mesh {self.mesh_name} on {self.address}")
        close_within(CLOSE_SECONDS, self.close)

    def _is_alive(self) -> bool:
        """Tell whether the owner would be answered: over a socket, by gRPC's threads, past every lock."""
        try:
            with OwnerClient(self._state.directory) as owner:
                owner.nodes()
        except ShardmeshError:
            return False
        return True

    def close(self) -> None:
        """Take no new calls, let running ones end. May be called twice, and before everything is open."""
        self._stopping.set()
        if self._minding.is_alive():
            self._standard.draining()
            self._minding.join()
        with self._door_lock:
            servers = [*self._servers, *([self._door] if self._door else [])]
            self._door = None
            self._take_back()
        for ending in [server.stop(DRAIN_SECONDS) for server in servers]:
            ending.wait(DRAIN_SECONDS + 5)
        self._generator.close()
        if self._page is not None:
            self._page.close()
            self._page = None
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1

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

    def _mind_door(self) -> None:
        """Open the join service when there is a token, close it when there is none. Raises: AddressInUse."""
        with self._door_lock:
            is_needed = self._invites.any_open and not self._stopping.is_set()
            if is_needed and self._door is None:
                door = make_server(JOIN_WORKERS)
                servicer = JoinServicer(self._state, self._invites, self._port)
                mesh_pb2_grpc.add_JoinServiceServicer_to_server(servicer, door)
                credentials = open_server_credentials(self._state.identity())
                try:
                    address = bind(door, f"{self._host}:{self._join_port}", credentials)
                except AddressInUse as error:
                    raise AddressInUse(f"devices cannot join: another process has port {self._join_port}, the one "
                                       "after --master-port; end that, or start the coordinator with another "
                                       "--master-port") from error  # fmt: skip
                self._join_port = split_host_port(address)[1]
                door.start()
                self._door = door
                hosts = [host for host in self._reachable_hosts() if is_ipv4(host) and not is_loopback(host)]
                if hosts:
                    self._announcement = Announcement(self.mesh_name, hosts, self._join_port)
            elif not is_needed and self._door is not None:
                self._door.stop(DRAIN_SECONDS)
                self._door = None
                self._take_back()

    def _take_back(self) -> None:
        announcement, self._announcement = self._announcement, None
        if announcement is not None:
            announcement.close()

    def _mind_door_for_ever(self) -> None:
        while not self._stopping.wait(DOOR_LOOK_SECONDS):
            try:
                self._mind_door()
            except AddressInUse as error:
                log.warning("%s", error)
            except Exception:  # the thread's edge; without it the door would never close again
                log.exception("the door for devices is looked after again, after an unforeseen error")

    def _own_address(self) -> str:
        """Return where this machine reaches the members' listener, once it listens."""
        host = "127.0.0.1" if self._host in ("0.0.0.0", "[::]") else self._host
        return f"{host}:{self._port}"

    def _reachable_hosts(self) -> list[str]:
        """Return hosts by which devices reach this machine, the likeliest first."""
        if self._advertised:
            return [self._advertised]
        return own_addresses() if self._host in ("0.0.0.0", "[::]") else [self._host]

    def _join_addresses(self) -> list[str]:
        """Return where a device may find the join service, the likeliest first. Raises: InputError: nowhere."""
        hosts = self._reachable_hosts()
        if not hosts:
            raise InputError("this machine has no address that other devices could reach; connect it to a network, or "
                             "start the coordinator with --advertise HOST")  # fmt: skip
        return [f"{host}:{self._join_port}" for host in hosts]


def own_addresses() -> list[str]:
    """Return this machine's IPv4 addresses that others may reach, those of real networks first."""
    found = []
    for name, addresses in psutil.net_if_addrs().items():
        is_virtual = name.startswith(("docker", "br-", "veth", "virbr"))
        found += [
            (is_virtual, entry.address)
            for entry in addresses
            if entry.family.name == "AF_INET" and not is_loopback(entry.address)
        ]
    return [address for _, address in sorted(found)][:MAX_ADVERTISED]
