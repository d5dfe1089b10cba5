"""How does a TLS handshake of the standard library go in a mesh: what we show, whom we believe?

Covers: contexts from an identity, TLS 1.3 only, without tickets: each handshake shows a certificate. Does not cover:
gRPC's own (tls.py), who may do what once he is believed (metrics_door.py, rounds_door.py).
"""

from __future__ import annotations

import logging
import ssl
import threading
from collections.abc import Callable
from typing import Generic, TypeVar

from common.machine.named_files import named_file
from common.program.logs import Entry
from common.trust.identity import Identity

log = logging.getLogger(__name__)

T = TypeVar("T")


def server_context(
    identity: Identity, authority: bytes, *, is_optional: bool = False, chain: bytes = b""
) -> ssl.SSLContext:  # fmt: skip
    """Return how a server shakes hands.

    Args: authority: in PEM, whose certificates are believed; empty: none is asked for; is_optional: who shows none
    comes in all the same; chain: certificates in PEM that are shown after its own.
    Raises: OSError: these are no certificates.
    """
    context = _context(ssl.PROTOCOL_TLS_SERVER, identity, chain)
    context.num_tickets = 0
    if authority:
        context.verify_mode = ssl.CERT_OPTIONAL if is_optional else ssl.CERT_REQUIRED
        context.load_verify_locations(cadata=authority.decode("ascii"))
    return context


class RenewedContext(Generic[T]):
    """How a server shakes hands, made anew when what it shows or believes has changed. Safe from any thread."""

    def __init__(
        self, made_of: Callable[[], tuple[Identity, bytes]], failed: Entry, make: Callable[[Identity, bytes], T]
    ) -> None:  # fmt: skip
        """Args: made_of: asked at every handshake for what `make` takes; failed: what the log says where that is no
        certificate, and the context before goes on; make: server_context, or what is like it.
        """
        self._ask, self._failed, self._make = made_of, failed, make
        self._lock = threading.Lock()
        self._made_of = made_of()
        self._context = make(*self._made_of)

    def current(self) -> T:
        """Return the context of now."""
        with self._lock:
            wanted = self._ask()
            if wanted != self._made_of:
                try:
                    self._context, self._made_of = self._make(*wanted), wanted
                except OSError:  # the one before is good for a third of its life
                    log.exception("%s", self._failed)
            return self._context


def client_context(identity: Identity) -> ssl.SSLContext:
    """Return how a client shakes hands: with members of its own mesh, whose name it states as server_hostname."""
    context = _context(ssl.PROTOCOL_TLS_CLIENT, identity)
    context.load_verify_locations(cadata=identity.authority.decode("ascii"))
    return context


def _context(protocol: int, identity: Identity, chain: bytes = b"") -> ssl.SSLContext:
    context = ssl.SSLContext(protocol)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    with named_file(identity.own.key + identity.own.certificate + chain) as name:
        context.load_cert_chain(name)
    return context
