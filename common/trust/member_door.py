"""Who may come in at a port of a mesh? Members with a certificate that is still good, or whoever holds a token.

Covers: handshakes of gates, with a certificate that is renewed meanwhile. Does not cover: connections and their limits
(gate.py), rounds in frames (rounds_door.py), which member may do what once he is in. Safe from several threads.
"""

from __future__ import annotations

import ssl
from collections.abc import Callable, Mapping

from common.errors import NotTrusted
from common.program.logs import entry
from common.program.places import Caller
from common.trust.behind_gate import Shown
from common.trust.certificates import COORDINATOR, PeerName, made_at, peer_from_uri, peer_of, serial_of, to_pem
from common.trust.identity import Identity
from common.trust.tls_connection import TlsConnection
from common.trust.tls_contexts import RenewedContext, server_context

Judge = Callable[[PeerName, Caller], str]
"""Tells of a peer, and of the certificate that he shows, why he may not come in; nothing: he may."""
ALPN = ["h2"]
NO_TLS = "it speaks no TLS, or none that is spoken here"


class MemberDoor:
    """Lets members in."""

    def __init__(self, identity: Callable[[], Identity], judge: Judge, most: Mapping[str, int]) -> None:
        """Args: identity: of the server, asked at every handshake; most: connections that a peer of a role may have."""
        self._judge, self._most = judge, most
        failed = entry("certificate of calls is not replaced", mesh=identity().peer.mesh)
        self._context = RenewedContext(lambda: shown_of(identity()), failed, _for_grpc)

    def let_in(self, caller: Caller) -> tuple[TlsConnection, Shown]:
        """See gate.Door."""
        connection = TlsConnection(caller.connection, self._context.current(), server_side=True)
        try:
            connection.do_handshake()
        except ssl.SSLCertVerificationError as error:
            raise PermissionError(f"it is no member of this mesh: {error.verify_message}") from error
        except ssl.SSLError as error:
            raise PermissionError(f"{NO_TLS} ({error.reason})") from error
        peer, certificate = introduced(caller, connection.peer_certificate)
        return connection, Shown(address=address_of(caller), host=caller.host, peer=peer, certificate=certificate)

    def most(self, shown: Shown) -> int:
        """See gate.Door."""
        assert shown.peer is not None  # it has been let in
        return self._most[shown.peer.role]

    def refusal(self, caller: Caller) -> str:
        """See gate.Door."""
        return refusal(caller, self._judge)


class OpenDoor:
    """Lets whoever comes in, for a moment; the server shows its authority too, which tokens name."""

    def __init__(self, identity: Identity) -> None:
        self._context = _for_grpc(identity, b"", identity.authority)

    def let_in(self, caller: Caller) -> tuple[TlsConnection, Shown]:
        """See gate.Door."""
        connection = TlsConnection(caller.connection, self._context, server_side=True)
        try:
            connection.do_handshake()
        except ssl.SSLError as error:
            raise PermissionError(f"{NO_TLS} ({error.reason})") from error
        return connection, Shown(address=address_of(caller), host=caller.host)

    def most(self, shown: Shown) -> int:
        """See gate.Door."""
        return 0

    def refusal(self, caller: Caller) -> str:
        """See gate.Door."""
        return ""


def coordinator_only(mesh: str) -> Judge:
    """Return what lets the coordinator of a mesh in and nobody else, whichever certificate it shows."""

    def judge(peer: PeerName, caller: Caller) -> str:
        is_it = (peer.mesh, peer.role) == (mesh, COORDINATOR)
        return "" if is_it else f"{peer.uri} is not the coordinator of this node's mesh"

    return judge


def introduced(caller: Caller, der: bytes) -> tuple[PeerName, bytes]:
    """Return whom a verified certificate names, and it in PEM; note both in `caller`.

    Raises: PermissionError: it names nobody.
    """
    try:
        certificate = to_pem(der)
        peer, caller.serial = peer_of(certificate), serial_of(certificate)
        caller.certified_at = made_at(certificate).timestamp()
    except NotTrusted as error:
        raise PermissionError(str(error)) from error
    caller.who = peer.uri
    return peer, certificate


def refusal(caller: Caller, judge: Judge) -> str:
    """Return why who has been introduced may not be here; empty: he may."""
    return judge(peer_from_uri(caller.who), caller)


def address_of(caller: Caller) -> str:
    """Return where a connection comes from, as gRPC writes it."""
    port = int(caller.connection.getpeername()[1])
    return f"ipv6:[{caller.host.replace('%', '%25')}]:{port}" if ":" in caller.host else f"ipv4:{caller.host}:{port}"


def shown_of(identity: Identity) -> tuple[Identity, bytes]:
    """Return what is shown, and the authority whose members are believed: their own."""
    return identity, identity.authority


def _for_grpc(identity: Identity, authority: bytes, chain: bytes = b"") -> ssl.SSLContext:
    context = server_context(identity, authority, chain=chain)
    context.set_alpn_protocols(ALPN)
    return context
