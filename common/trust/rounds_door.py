"""Who may send a node its rounds? The coordinator of its mesh, over TLS, and nobody else.

Covers: the handshake, with a certificate that is renewed meanwhile. Does not cover: connections and their limits
(common/program/callers.py), sessions. Safe to call from several threads.
"""

from __future__ import annotations

import socket
import ssl
from collections.abc import Callable

from common.errors import NotTrusted
from common.program.logs import entry
from common.trust.certificates import COORDINATOR, peer_of, to_pem
from common.trust.identity import Identity
from common.trust.rounds_tls import RoundsConnection, server_handshakes
from common.trust.tls_contexts import RenewedContext


class RoundsDoor:
    """Lets one mesh's coordinator in."""

    def __init__(self, identity: Callable[[], Identity]) -> None:
        """Args: identity: of the node, asked at every handshake."""
        self._mesh = identity().peer.mesh
        failed = entry("certificate of rounds is not replaced", mesh=self._mesh)
        self._context = RenewedContext(lambda: _shown(identity()), failed, server_handshakes)

    def let_in(self, connection: socket.socket) -> RoundsConnection:
        """Shake hands and return what to read from now on.

        Raises: PermissionError: in words, why the caller is not believed; OSError: he has gone, or speaks no TLS.
        """
        secure = self._context.current().wrap(connection)
        try:
            secure.do_handshake()
        except ssl.SSLCertVerificationError as error:
            raise PermissionError(f"it is no member of this mesh: {error.verify_message}") from error
        try:
            peer = peer_of(to_pem(secure.peer_certificate))
        except NotTrusted as error:
            raise PermissionError(str(error)) from error
        if (peer.mesh, peer.role) != (self._mesh, COORDINATOR):
            raise PermissionError(f"{peer.uri} is not the coordinator of this node's mesh")
        return secure


def _shown(identity: Identity) -> tuple[Identity, bytes]:
    """Return what is shown, and the authority whose members are believed: their own."""
    return identity, identity.authority
