"""A node's ties to its mesh while it runs: heartbeats, and a certificate that renews itself.

Covers: saying what the node has every second, measuring it again, new certificates, going on without the coordinator.
Does not cover: joining (join.py), listeners (listeners/service.py). Threads: one of its own.
"""

from __future__ import annotations

import hashlib
import logging
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass
from pathlib import Path

import grpc

from common.compute.device_speeds import DeviceSpeeds, kept_speeds, measure_apart
from common.errors import NotTrusted, ShardmeshError
from common.machine.state_directory import check_directory
from common.program.logs import entry
from common.program.places import Caller
from common.trust.certificates import (
    COORDINATOR,
    KeyedCertificate,
    PeerName,
    certificates_in,
    check_pair,
    fingerprint,
    has_metrics_name,
    is_in_time,
    is_signed_by,
    lifetime_of,
    mesh_of,
    needs_renewal,
)
from common.trust.identity import (
    JOINING_KEY_FILE,
    RENEWING_KEY_FILE,
    Identity,
    forget_key,
    load_identity,
    mend_identity,
    save_identity,
    stored_request,
)
from common.trust.member_door import coordinator_only
from common.trust.signing_apart import RequestMaker
from common.trust.tls import secure_channel
from common.wire.rpc import failures_of
from protos.shardmesh.v1 import mesh_pb2, mesh_pb2_grpc
from shardnode.membership.device_facts import device_facts
from shardnode.membership.ended import renewed
from shardnode.membership.known_members import KnownMembers
from shardnode.membership.known_observers import KnownObservers

FIRST_INTERVAL_SECONDS = 1.0
MOST_INTERVAL_SECONDS = 60.0
CALL_SECONDS = 5.0
MOST_AUTHORITY_BYTES = 8192

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Presence:
    """What a node tells about itself beside what its device has."""

    listen: str
    """host:port where it listens; an empty or all-networks host: where its heartbeats come from."""
    rank: int = -1
    model_identity: str = ""
    program_bytes: int = 0
    """Memory of the program itself, without a slice."""
    budget_bytes: int = 0
    """The most memory that it was allowed; 0: it was told none."""
    metrics: str = ""
    """http://host:port or https://host:port of its metrics page; empty: it has none."""


class Membership:
    """Keeps one node known to its coordinator. Close it."""

    def __init__(self, identity_directory: Path, data_directory: Path, coordinator: str) -> None:
        """Read the identity. Raises: InputError, NotTrusted: it cannot be used."""
        self._directory, self._data_directory, self._coordinator = identity_directory, data_directory, coordinator
        check_directory(data_directory, has_keys=False)
        check_directory(identity_directory)
        self._identity = load_identity(identity_directory)
        with suppress(ShardmeshError):  # no room for a copy: it answers all the same
            mend_identity(identity_directory)
        forget_key(identity_directory / JOINING_KEY_FILE)  # joining broke off when all of it was done
        self.peer = self._identity.peer
        self._judge = coordinator_only(self.peer.mesh)
        self.members = KnownMembers(identity_directory, lambda: self._identity.authority)
        self.observers = KnownObservers(identity_directory)
        self._lacks_name = not has_metrics_name(self._identity.own.certificate)
        self._speeds = kept_speeds(data_directory) or DeviceSpeeds()
        self._maker = RequestMaker()
        self._measuring = threading.Lock()
        self._ending = threading.Event()
        self._interval = FIRST_INTERVAL_SECONDS
        self._trouble = self._renewal_trouble = ""
        self._channel: grpc.Channel | None = None
        self.heard_at = 0.0
        """When the coordinator last answered a heartbeat, seconds since 1970; 0: never."""
        self._round_trip_seconds = 0.0
        self._thread: threading.Thread | None = None

    def identity(self) -> Identity:
        """Return the identity that is good now; listeners ask at every handshake."""
        return self._identity

    def judge(self, peer: PeerName, caller: Caller) -> str:
        """Return why a peer may not come in here; empty: he may."""
        return self._judge(peer, caller) or self.members.refusal(peer, caller)

    def certificate_end(self) -> float:
        """Return when the certificate that is good now ends, seconds since 1970."""
        return lifetime_of(self._identity.own.certificate)[1].timestamp()

    def measure_device(self, files: Sequence[Path], is_wanted: Callable[[], bool]) -> DeviceSpeeds:
        """Measure this device again; heartbeats tell it from now on. Args and raises as measure_apart."""
        with self._measuring:
            self._speeds = measure_apart(self._data_directory, files, is_wanted)
            return self._speeds

    def start(self, presence: Callable[[], Presence]) -> None:
        """Begin to send heartbeats. Args: presence: asked at each of them."""
        self._thread = threading.Thread(target=self._run, args=(presence,), name="membership", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Send no more of them. May be called twice."""
        self._ending.set()
        if self._thread is None:
            self._maker.close()
        else:
            self._thread.join(CALL_SECONDS + 1)

    def turn(self, presence: Presence) -> None:
        """Send one heartbeat, and ask for a new certificate when it is time.

        Raises: ShardmeshError: it was not heard. A certificate that is not renewed is no failure of it: that is told,
        and asked for again at the next turn.
        """
        if not is_in_time(self._identity.own.certificate):
            self._renew_ended()
        is_new = self._channel is None
        if self._channel is None:
            self._channel = self._connected()
        stub = mesh_pb2_grpc.MeshServiceStub(self._channel)
        gives_name = self._beat(stub, presence, is_new=is_new)
        if is_new:
            self._round_trip_seconds = 0.0  # it has connected too
        is_old = self._is_of_older_authority()
        if not is_old and not needs_renewal(self._identity.own.certificate) and not (self._lacks_name and gives_name):
            return
        try:
            self._renew(stub)
        except ShardmeshError as error:
            self._tell_of_renewal(str(error))
        else:
            self._tell_of_renewal("")
            self._hang_up()

    def _run(self, presence: Callable[[], Presence]) -> None:
        try:
            while not self._ending.is_set():
                try:
                    self.turn(presence())
                    self._tell("")
                except ShardmeshError as error:
                    self._tell(str(error))
                except Exception as error:  # the thread's edge: a node that nobody hears of must not be silent about it
                    log.exception("heartbeats go on after an unforeseen error")
                    self._tell(repr(error))
                self._ending.wait(self._interval)
        finally:
            self._maker.close()
            self._hang_up()

    def _beat(self, stub: mesh_pb2_grpc.MeshServiceStub, presence: Presence, *, is_new: bool) -> bool:
        """Send a heartbeat; return whether the coordinator is of a build that puts METRICS_NAME on certificates."""
        request = mesh_pb2.HeartbeatRequest(
            device=device_facts(
                self._data_directory, self._speeds, program_bytes=presence.program_bytes,
                budget_bytes=presence.budget_bytes,
            ),
            listen=presence.listen, rank=presence.rank, model_identity=presence.model_identity,
            metrics=presence.metrics, round_trip_seconds=self._round_trip_seconds,
            authorities_digest=hashlib.sha256(self._identity.authority).digest(),
        )  # fmt: skip
        if is_new and self.members.number:
            content, signature = self.members.signed
            request.members.CopyFrom(mesh_pb2.SignedMembers(content=content, signature=signature))
        started, request.sent_at_seconds = time.perf_counter(), time.time()
        with self._failures():
            response: mesh_pb2.HeartbeatResponse = stub.Heartbeat(request, timeout=CALL_SECONDS)
        self.heard_at, self._round_trip_seconds = time.time(), time.perf_counter() - started
        self._interval = min(MOST_INTERVAL_SECONDS, max(0.1, response.interval_seconds))
        if response.HasField("members"):  # an older one has none
            self.members.hear(response.members.content, response.members.signature)
        knows_observers = response.HasField("observers")  # an older one does not, nor the name
        if knows_observers:
            self.observers.hear(response.observers.serials, response.observers.authority)
        if response.authorities:
            self._believe(response.authorities)
        return knows_observers

    def _is_of_older_authority(self) -> bool:
        """Tell whether an authority takes another's place, and has not signed this node's certificate yet."""
        newest, *others = certificates_in(self._identity.authority)
        return bool(others) and not is_signed_by(self._identity.own.certificate, newest)

    def _believe(self, authorities: bytes) -> None:
        """Believe other authorities from now on: one takes another's place. Raises: NotTrusted: they are none."""
        found = certificates_in(authorities[:MOST_AUTHORITY_BYTES])
        if not found or any(mesh_of(one) != self.peer.mesh for one in found):
            raise NotTrusted("the coordinator says that this node is to believe what is no authority of its mesh")
        self._take(Identity(authority=authorities, own=self._identity.own))
        log.info("%s", entry("authorities of the mesh have changed", node=self.peer.name, count=len(found)))

    def _renew(self, stub: mesh_pb2_grpc.MeshServiceStub) -> None:
        """Get a new certificate; wherever it breaks off, the old one is good and the next attempt asks with this key.

        Only what is stored is used: with its first use the coordinator takes the old one for worthless.
        """
        kept = self._directory / RENEWING_KEY_FILE
        asked = stored_request(kept, self._maker.make, used=self._identity.own.key)
        request = mesh_pb2.RenewCertificateRequest(
            certificate_request=asked.request, authority_fingerprint=fingerprint(self._identity.authority)
        )
        with self._failures():
            response: mesh_pb2.RenewCertificateResponse = stub.RenewCertificate(request, timeout=CALL_SECONDS)
        own = KeyedCertificate(key=asked.key, certificate=response.certificate)
        check_pair(own)
        self._take(Identity(authority=self._identity.authority, own=own))
        forget_key(kept)
        self._maker.forget()
        log.info("%s", entry("certificate renewed", node=self.peer.name))

    def _renew_ended(self) -> None:
        """Get a certificate in the place of one with which TLS lets nobody in. Raises: ShardmeshError."""
        self._hang_up()
        self._take(renewed(self._identity, self._maker.make(self._identity.own.key), self._coordinator))
        self._maker.forget()
        log.warning("%s", entry("certificate had ended and is renewed", node=self.peer.name))

    def _take(self, identity: Identity) -> None:
        """Store a new identity and use it from now on. Raises: NotTrusted: it is another node's; as save_identity."""
        if identity.peer != self.peer:
            raise NotTrusted("the coordinator has certified another name than this node's")
        save_identity(self._directory, identity)
        self._identity = identity
        self._lacks_name = not has_metrics_name(identity.own.certificate)

    def _connected(self) -> grpc.Channel:
        expected = PeerName(mesh=self.peer.mesh, role=COORDINATOR, name=self.peer.mesh)
        return secure_channel(self._coordinator, self._identity, expected)

    def _hang_up(self) -> None:
        if self._channel is not None:
            self._channel.close()
            self._channel = None

    def _failures(self) -> AbstractContextManager[None]:
        return failures_of(f"the coordinator at {self._coordinator}")

    def _tell(self, trouble: str) -> None:
        """Log a trouble when it begins and when it is over, not every two seconds."""
        if trouble and not self._trouble:
            log.warning("%s", entry("the mesh does not hear this node", node=self.peer.name, error=trouble))
        elif self._trouble and not trouble:
            log.info("%s", entry("the mesh hears this node again", node=self.peer.name))
        self._trouble = trouble

    def _tell_of_renewal(self, trouble: str) -> None:
        if trouble and not self._renewal_trouble:
            ends = lifetime_of(self._identity.own.certificate)[1]
            log.warning("%s", entry("certificate is not renewed yet, and asked for every second", node=self.peer.name,
                                    ends=f"{ends:%Y-%m-%d}", error=trouble))  # fmt: skip
        self._renewal_trouble = trouble
