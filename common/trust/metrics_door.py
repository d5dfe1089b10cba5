"""Who may read metrics beyond this machine? TLS by the mesh's authority; an observer's certificate, or a token.

Covers: the handshake, with a certificate that is renewed meanwhile; what a caller has shown, and what it is told.
Does not cover: connections and their limits (common/program/page_server.py), who is an observer (whoever makes a door
is asked), tokens (bearer_token.py). Safe to call from several threads.

A caller whose certificate another authority than that of observers has signed, a member's too, or which has ended, is
refused by the handshake. No tickets, and who asks again over a connection that he has kept is looked at again: who was
removed is refused at his next request.
"""

from __future__ import annotations

import functools
import socket
import ssl
from collections.abc import Callable
from datetime import datetime, timezone
from functools import partial
from typing import Protocol, cast

from common.errors import NotTrusted
from common.program.logs import entry
from common.program.page_server import Reply
from common.trust.bearer_token import BearerToken
from common.trust.certificates import MOST_READ, OBSERVER, PeerName, lifetime_of, peer_of, serial_of, to_pem
from common.trust.identity import Identity
from common.trust.tls_contexts import RenewedContext, server_context

HOW = "a certificate that `coordinator-cli mesh invite --observer NAME --out DIR` has made, or a token"


class Observers(Protocol):
    """Who may read."""

    @property
    def authority(self) -> bytes:
        """The certificate, in PEM, of the authority that signs theirs; empty: there is none."""

    def knows(self, serial: str) -> bool:
        """Tell whether a certificate with this number is one of theirs and was not revoked."""


class MetricsDoor:
    """Lets observers of one mesh in, and who has the token."""

    def __init__(
        self, identity: Callable[[], Identity], observers: Observers, token: BearerToken | None
    ) -> None:  # fmt: skip
        """Args: identity: of who serves the page, asked at every handshake, as observers are; token: None: no token."""
        self._observers, self._token = observers, token
        self._mesh = identity().peer.mesh
        failed = entry("certificate of metrics is not replaced", mesh=self._mesh)
        self._context = RenewedContext(
            lambda: (identity(), observers.authority), failed, partial(server_context, is_optional=True)
        )  # fmt: skip

    def wrapped(self, connection: socket.socket) -> socket.socket:
        """Return a connection that speaks TLS, before its handshake. Raises: OSError."""
        return self._context.current().wrap_socket(connection, server_side=True, do_handshake_on_connect=False)

    def greet(self, connection: socket.socket) -> None:
        """Do the handshake. Raises: PermissionError: what was shown is not believed; OSError: it has failed."""
        try:
            cast("ssl.SSLSocket", connection).do_handshake()
        except ssl.SSLCertVerificationError as error:
            raise PermissionError(f"it is no observer's certificate: {error.verify_message}") from error

    def refusal(self, connection: socket.socket, authorization: str) -> Reply | None:
        """Return what a caller is answered instead of the page, who has shown neither; None: he may read."""
        if self._token is not None and self._token.is_shown(authorization):
            return None
        shown = cast("ssl.SSLSocket", connection).getpeercert(binary_form=True)
        if shown is None:
            said = "the token is not the one" if authorization else "who are you?"
            return Reply(status=401, content=f"{said}: show {HOW}\n".encode(), challenge="Bearer")
        try:
            certificate, peer, serial = _said(shown)
        except NotTrusted as error:
            return _forbidden(str(error))
        if (peer.mesh, peer.role) != (self._mesh, OBSERVER):
            return _forbidden(f"{peer.uri} is no observer of this mesh: show {HOW}")
        if lifetime_of(certificate)[1] <= datetime.now(timezone.utc):  # the handshake may be an hour old
            return _forbidden(f"the certificate of {peer.uri} has ended: show {HOW}")
        if not self._observers.knows(serial):
            return _forbidden(f"{peer.uri} was removed, or has a newer certificate, or is not known here yet")
        return None


@functools.lru_cache(MOST_READ)
def _said(der: bytes) -> tuple[bytes, PeerName, str]:
    """Return a certificate in PEM, whom it names, and its number. Raises: NotTrusted."""
    certificate = to_pem(der)
    return certificate, peer_of(certificate), serial_of(certificate)


def _forbidden(why: str) -> Reply:
    return Reply(status=403, content=f"{why}\n".encode())
