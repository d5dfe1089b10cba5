"""Who is at the other end of a call? Somebody whom a gate has let in, or a process of this user's own over a socket.

Covers: what gates know of their callers, for those who answer them. Does not cover: gates (gate.py), what anybody may
do (coordinator/membership, shardnode/listeners). Safe from any thread.

gRPC sees connections of a gate alone, each of which comes from a socket with a name of its own, which says which
connection of which peer it is. Nobody else can connect there (private_place.py).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import grpc

from common.errors import NotTrusted
from common.trust.certificates import PeerName

_INSIDE: dict[str, Shown] = {}


@dataclass(frozen=True, kw_only=True)
class Shown:
    """What is known of a connection."""

    address: str
    """Where it comes from, as gRPC writes peers."""
    host: str
    peer: PeerName | None = None
    """Who it is; None: somebody who has no certificate yet."""
    certificate: bytes = b""
    """In PEM; verified."""

    @property
    def who(self) -> str:
        """What its calls are counted under."""
        return self.host if self.peer is None else self.peer.uri


@contextmanager
def inside(name: str, shown: Shown) -> Iterator[None]:
    """Have the connection that gRPC calls so be known as that of a caller."""
    _INSIDE[name] = shown
    try:
        yield
    finally:
        del _INSIDE[name]


def shown_by(context: grpc.ServicerContext) -> Shown | None:
    """Return what is known of a caller; None: no gate is before this server, or he has gone."""
    return _INSIDE.get(context.peer())


def caller_of(context: grpc.ServicerContext) -> PeerName:
    """Return who calls. Raises: NotTrusted: nobody that TLS has made sure of."""
    shown = shown_by(context)
    if shown is None or shown.peer is None:
        raise NotTrusted("the caller has shown no certificate of this mesh")
    return shown.peer


def caller_certificate(context: grpc.ServicerContext) -> bytes:
    """Return the caller's certificate in PEM. Raises: NotTrusted: it has shown none."""
    shown = shown_by(context)
    if shown is None or not shown.certificate:
        raise NotTrusted("the caller has shown no certificate of this mesh")
    return shown.certificate


def caller_address(context: grpc.ServicerContext) -> str:
    """Return where a call comes from, as gRPC writes it, such as ipv4:10.0.0.2:4711."""
    shown = shown_by(context)
    return context.peer() if shown is None else shown.address
