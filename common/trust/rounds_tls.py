"""Which TLS do rounds go over: OpenSSL called by C, or where that cannot be had Python's ssl?

Covers: the choice, and what both have in common. Does not cover: either (native_tls.py, tls_connection.py). Both show
and believe the same, speak TLS 1.3 only, and either end may have either.
"""

from __future__ import annotations

import socket
import ssl
from typing import Protocol

from common.compute import matmul
from common.native.peers import Tls
from common.trust.identity import Identity
from common.trust.libssl import Libssl, libssl
from common.trust.native_tls import NativeHandshakes
from common.trust.tls_connection import TlsConnection
from common.trust.tls_contexts import client_context, server_context
from common.wire.framing import Stream


class RoundsConnection(Stream, Protocol):
    """A connection of either kind; the names are explained in tls_connection.py."""

    plain: socket.socket
    native: Tls | None
    """What C is given to take part; None: it cannot."""

    def do_handshake(self) -> None:
        """Find out who the peer is. Raises: OSError, ssl.SSLError: it cannot be believed, or has gone."""

    @property
    def peer_certificate(self) -> bytes:
        """The peer's certificate in DER, verified."""

    @property
    def is_holding(self) -> bool:
        """Whether something lies here that the socket will not tell of."""

    def sealed(self, framed: bytes) -> bytes:
        """Return what has to go over the socket so that the peer receives these bytes."""

    def unsent(self) -> bytes:
        """Return what C has encrypted and had no room for."""

    def opened(self, received: memoryview) -> bytes:
        """Return what the peer has sent, of what somebody else took off the socket. Raises: OSError."""


class Handshakes(Protocol):
    """How handshakes go."""

    def wrap(self, plain: socket.socket, server_hostname: str | None = None) -> RoundsConnection:
        """Return a connection over a socket. Args: server_hostname: whom the peer has to be."""


class PythonHandshakes:
    """Handshakes by Python's ssl."""

    def __init__(self, context: ssl.SSLContext) -> None:
        self._context = context

    def wrap(self, plain: socket.socket, server_hostname: str | None = None) -> TlsConnection:
        """See Handshakes."""
        is_server = self._context.protocol == ssl.PROTOCOL_TLS_SERVER
        return TlsConnection(plain, self._context, server_side=is_server, server_hostname=server_hostname)


def server_handshakes(identity: Identity, authority: bytes) -> Handshakes:
    """Return how a server shakes hands. Args, Raises: as tls_contexts.server_context."""
    if (found := _for_c()) is not None:
        return NativeHandshakes.server(found, identity, authority)
    return PythonHandshakes(server_context(identity, authority))


def client_handshakes(identity: Identity) -> Handshakes:
    """Return how a client shakes hands. Args, Raises: as tls_contexts.client_context."""
    if (found := _for_c()) is not None:
        return NativeHandshakes.client(found, identity)
    return PythonHandshakes(client_context(identity))


def _for_c() -> Libssl | None:
    """Return OpenSSL's functions, where there are functions of ours to call them."""
    return libssl() if matmul.kernels.functions is not None else None
