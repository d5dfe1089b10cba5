"""The door for devices that join: a listener that is there while some token can be used, or some certificate has ended.

Covers: opening and closing it, announcing it on the home network, where devices find it.
Does not cover: what it answers (membership/joining.py), tokens (membership/invites.py), other listeners (daemon.py).
Threads: one that looks after it, for tokens expire by themselves; who invites opens it at once.
"""

from __future__ import annotations

import errno
import logging
import socket
import threading
from typing import TYPE_CHECKING

import grpc
import psutil

from common.errors import AddressInUse, InputError
from common.program.door_series import DoorSeries
from common.program.listening import listening_socket
from common.program.logs import entry
from common.trust.gate import Gate
from common.trust.member_door import OpenDoor
from common.wire.addresses import EVERYWHERE, host_port, is_link_local, is_loopback, is_number, split_host_port
from common.wire.call_limits import CallLimits
from common.wire.rpc import make_server
from coordinator.membership.invites import Invites
from coordinator.membership.joining import JoinServicer
from coordinator.membership.rotation import Rotation
from coordinator.membership.state import MeshState
from coordinator.membership.welcome import calls_of_strangers, joining_places, pace_of_strangers
from coordinator.program.program_series import JOINING
from protos.shardmesh.v1 import mesh_pb2_grpc

if TYPE_CHECKING:
    from coordinator.membership.announcement import Announcement

WORKERS = 64
LOOK_SECONDS = 1.0
CLOSE_SECONDS = 5.0
MAX_ADVERTISED = 4
OF_A_HOME = ("fc", "fd")
"""Numbers of IPv6 begin so that a home gives itself: others change when the provider likes; RFC 4193."""
MAX_BESIDE_IPV4 = 1
"""Addresses of IPv6 where there are some of IPv4: each makes the token half as long again."""

log = logging.getLogger(__name__)


class Door:
    """The join port of one coordinator. Start it, and stop it."""

    def __init__(
        self, state: MeshState, invites: Invites, rotation: Rotation, *, host: str, advertised: str, mesh_port: int,
        port: int, series: DoorSeries,
    ) -> None:  # fmt: skip
        """Args: advertised: the host that tokens name, if not `host`; mesh_port: where members are heard;
        port: 0 takes any free one, once.
        """
        self._state, self._invites, self._rotation = state, invites, rotation
        self._host, self._advertised, self._mesh_port = host, advertised, mesh_port
        self.port, self._series = port, series
        self._lock = threading.Lock()
        self._server: grpc.Server | None = None
        self._gate: Gate | None = None
        self._announcement: Announcement | None = None
        self._trouble = ""
        self._stopping = threading.Event()
        self._minding = threading.Thread(target=self._mind, name="door", daemon=True)

    def start(self) -> None:
        """Look after it from now on; a port that is taken is told of now, and members are served all the same."""
        if self.port and _is_taken(self._host, self.port):
            self._tell(str(self._taken()))
        self._minding.start()

    def stop(self) -> threading.Event | None:
        """Open it no more, and return what is set when its last call has ended, if it was open. May be called twice."""
        self._stopping.set()
        if self._minding.is_alive():
            self._minding.join()
        with self._lock:
            return self._close()

    def look(self) -> None:
        """Open it when it is needed, close it when not, announce it while there is a token. Raises: AddressInUse."""
        with self._lock:
            is_inviting = self._invites.any_open and not self._stopping.is_set()
            is_needed = is_inviting or (self._state.members.any_ended() and not self._stopping.is_set())
            if is_needed and self._server is None:
                self._open()
            elif not is_needed:
                self._close()
            if is_inviting and self._announcement is None:
                self._announce()
            elif not is_inviting:
                self._announce_no_more()

    def addresses(self) -> list[str]:
        """Return where a device may find it, the likeliest first; none: only by looking around. Raises: InputError."""
        hosts = self._reachable_hosts()
        if not hosts:
            raise InputError("this machine has no address that other devices could reach; connect it to a network, or "
                             "start the coordinator with --advertise HOST")  # fmt: skip
        # What a link is called on this machine means nothing on another.
        return [host_port(host, self.port) for host in hosts if not is_link_local(host)]

    def _open(self) -> None:
        server = make_server(WORKERS, CallLimits(calls_of_strangers, self._series.calls(JOINING)))
        servicer = JoinServicer(self._state, self._mesh_port, self._rotation)
        mesh_pb2_grpc.add_JoinServiceServicer_to_server(servicer, server)
        try:
            gate = Gate(
                server, f"{self._host}:{self.port}", OpenDoor(self._state.identity()), joining_places(),
                name=JOINING, count=self._series.connections(JOINING), calls=pace_of_strangers(),
            )  # fmt: skip
            self._series.follow(JOINING, gate.count)
        except AddressInUse as error:
            raise self._taken() from error
        self.port = split_host_port(gate.address)[1]
        self._trouble = ""
        server.start()
        self._server, self._gate = server, gate

    def _announce(self) -> None:
        """Have devices find it. Who only renews knows where it is."""
        hosts = [host for host in self._reachable_hosts() if is_number(host) and not is_loopback(host)]
        if hosts:
            # Here and not at the top: zeroconf takes 4 MB, and most programs that answer let nobody in.
            from coordinator.membership.announcement import Announcement

            self._announcement = Announcement(self._state.name, hosts, self.port)

    def _close(self) -> threading.Event | None:
        server, gate = self._server, self._gate
        self._server = self._gate = None
        self._announce_no_more()
        if server is None or gate is None:
            return None
        gate.take_nobody()
        ended, closed = server.stop(CLOSE_SECONDS), threading.Event()

        def close() -> None:
            ended.wait()
            gate.close()
            closed.set()

        threading.Thread(target=close, name="door closing", daemon=True).start()
        return closed

    def _announce_no_more(self) -> None:
        announcement, self._announcement = self._announcement, None
        if announcement is not None:
            announcement.close()

    def _mind(self) -> None:
        while not self._stopping.wait(LOOK_SECONDS):
            try:
                self.look()
            except AddressInUse as error:
                self._tell(str(error))
            except Exception:  # the thread's edge; without it the door would never close again
                log.exception("the door for devices is looked after again, after an unforeseen error")

    def _taken(self) -> AddressInUse:
        return AddressInUse(f"devices cannot join: another process has port {self.port}, the one after --master-port; "
                            "end that, or start the coordinator with another --master-port")  # fmt: skip

    def _tell(self, trouble: str) -> None:
        """Log a trouble when it begins, not every second."""
        if trouble != self._trouble:
            log.warning("%s", entry("door for devices is closed", error=trouble))
        self._trouble = trouble

    def _reachable_hosts(self) -> list[str]:
        """Return hosts by which devices reach this machine, the likeliest first."""
        if self._advertised:
            return [self._advertised]
        return [*own_addresses(), *own_link_addresses()] if self._host in EVERYWHERE else [self._host]


def _is_taken(host: str, port: int) -> bool:
    """Tell whether somebody listens on a port, as far as can be told without gRPC, which gives a port back late."""
    try:
        listening_socket(host, port).close()
    except OSError as error:
        return error.errno == errno.EADDRINUSE
    return False


def own_addresses() -> list[str]:
    """Return this machine's addresses that others may reach, those of real networks and of IPv4 first."""
    found = _found_addresses()
    ipv4 = [host for host in found if ":" not in host][:MAX_ADVERTISED]
    ipv6 = [host for host in found if ":" in host and not is_link_local(host)]
    ipv6.sort(key=lambda host: not host.startswith(OF_A_HOME))
    return ipv4 + ipv6[: MAX_BESIDE_IPV4 if ipv4 else MAX_ADVERTISED]


def own_link_addresses() -> list[str]:
    """Return this machine's addresses of IPv6 that devices on the same link reach, with the links' names here."""
    return [host for host in _found_addresses() if is_link_local(host)][:MAX_ADVERTISED]


def _found_addresses() -> list[str]:
    found = []
    for name, addresses in psutil.net_if_addrs().items():
        is_virtual = name.startswith(("docker", "br-", "veth", "virbr"))
        found += [
            (is_virtual, entry.address)
            for entry in addresses
            if entry.family in (socket.AF_INET, socket.AF_INET6) and not is_loopback(entry.address)
        ]
    return [address for _, address in sorted(found)]
