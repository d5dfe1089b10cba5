"""Who may send a node its rounds? The coordinator of its mesh, over TLS, and nobody else.

Covers: the handshake, with a certificate that is renewed meanwhile. Does not cover: connections and their limits
(common/program/callers.py), sessions. Safe to call from several threads.
"""

from __future__ import annotations

import ssl
from collections.abc import Callable

from common.program.logs import entry
from common.program.places import Caller
from common.trust.identity import Identity
from common.trust.member_door import Judge, coordinator_only, introduced, refusal, shown_of
from common.trust.rounds_tls import RoundsConnection, server_handshakes
from common.trust.tls_contexts import RenewedContext


class RoundsDoor:
    """Lets one mesh's coordinator in."""

    def __init__(self, identity: Callable[[], Identity], judge: Judge | None = None) -> None:
        """Args: identity: of the node, asked at every handshake; judge: None: any coordinator of its mesh is good."""
        mesh = identity().peer.mesh
        self._judge = judge or coordinator_only(mesh)
        failed = entry("certificate of rounds is not replaced", mesh=mesh)
        self._context = RenewedContext(lambda: shown_of(identity()), failed, server_handshakes)

    def let_in(self, caller: Caller) -> RoundsConnection:
        """Shake hands, note in `caller` who it is, and return what to read from now on.

        Raises: PermissionError: in words, why the caller is not believed; OSError: he has gone, or speaks no TLS.
        """
        secure = self._context.current().wrap(caller.connection)
        try:
            secure.do_handshake()
        except ssl.SSLCertVerificationError as error:
            raise PermissionError(f"it is no member of this mesh: {error.verify_message}") from error
        introduced(caller, secure.peer_certificate)
        if why := self.refusal(caller):
            raise PermissionError(why)
        return secure

    def refusal(self, caller: Caller) -> str:
        """Return why he may not be here, at the beginning or any more; empty: he may."""
        return refusal(caller, self._judge)
