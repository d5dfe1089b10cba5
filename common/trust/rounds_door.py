"""Who may send a node its rounds? The coordinator of its mesh, over TLS, and nobody else.

Covers: the handshake, with a certificate that is renewed meanwhile. Does not cover: connections and their limits
(common/program/callers.py), sessions. Safe to call from several threads.
"""

from __future__ import annotations

import logging
import socket
import ssl
import threading
from collections.abc import Callable

from common.errors import NotTrusted
from common.program.logs import entry
from common.trust.certificates import COORDINATOR
from common.trust.identity import Identity
from common.trust.tls_connection import TlsConnection
from common.trust.tls_contexts import peer_shown, server_context

log = logging.getLogger(__name__)


class RoundsDoor:
    """Lets one mesh's coordinator in."""

    def __init__(self, identity: Callable[[], Identity]) -> None:
        """Args: identity: of the node, asked at every handshake."""
        self._ask_identity = identity
        self._lock = threading.Lock()
        self._made_of = identity()
        self._mesh = self._made_of.peer.mesh
        self._context = server_context(self._made_of, self._made_of.authority)

    def let_in(self, connection: socket.socket) -> TlsConnection:
        """Shake hands and return what to read from now on.

        Raises: PermissionError: in words, why the caller is not believed; OSError: he has gone, or speaks no TLS.
        """
        secure = TlsConnection(connection, self._current(), server_side=True)
        try:
            secure.do_handshake()
        except ssl.SSLCertVerificationError as error:
            raise PermissionError(f"it is no member of this mesh: {error.verify_message}") from error
        try:
            peer = peer_shown(secure.getpeercert())
        except NotTrusted as error:
            raise PermissionError(str(error)) from error
        if (peer.mesh, peer.role) != (self._mesh, COORDINATOR):
            raise PermissionError(f"{peer.uri} is not the coordinator of this node's mesh")
        return secure

    def _current(self) -> ssl.SSLContext:
        with self._lock:
            wanted = self._ask_identity()
            if wanted != self._made_of:
                try:
                    self._context, self._made_of = server_context(wanted, wanted.authority), wanted
                except OSError as error:  # the one before is good for a third of its life
                    log.error("%s", entry("renewed certificate not shown to the coordinator yet", error=error))
            return self._context
