"""TLS for our channels and servers, and who is at the other end.

Covers: credentials from an identity, names that must match, the authority that a token names, the peer of a call.
Does not cover: certificates themselves (certificates.py), which member may do what (coordinator/membership/members.py).
"""

from __future__ import annotations

import hashlib
import hmac
import select
import socket
import time
from collections.abc import Callable
from typing import Any

import grpc

from common.errors import NodeLost, NotTrusted
from common.trust.certificates import PeerName, peer_from_uri, to_pem
from common.trust.identity import Identity
from common.wire.addresses import grpc_address, socket_address
from common.wire.rpc import PING_SECONDS, channel_options

CONNECT_SECONDS = 5.0


def secure_channel(
    address: str, identity: Identity, expected: PeerName, *, ping_timeout_seconds: float = PING_SECONDS
) -> grpc.Channel:
    """Return a channel over mutual TLS to a peer that must be `expected`, wherever it is reached."""
    credentials = grpc.ssl_channel_credentials(
        root_certificates=identity.authority, private_key=identity.own.key, certificate_chain=identity.own.certificate
    )
    return grpc.secure_channel(grpc_address(address), credentials, options=_named(expected, ping_timeout_seconds))


def channel_to_authority(address: str, authority: bytes, expected: PeerName) -> grpc.Channel:
    """Return a channel for somebody who has no certificate yet: only the server shows one."""
    credentials = grpc.ssl_channel_credentials(root_certificates=authority)
    return grpc.secure_channel(grpc_address(address), credentials, options=_named(expected))


def mutual_server_credentials(identity: Callable[[], Identity]) -> grpc.ServerCredentials:
    """Return credentials of a server that only members reach. Args: identity: asked at every handshake."""
    first = identity()
    shown = [first]

    def fetch() -> grpc.ServerCertificateConfiguration | None:
        current = identity()
        if current == shown[0]:
            return None
        shown[0] = current
        return _configuration(current)

    ask: Any = fetch  # None says that nothing has changed; the stubs do not know that
    credentials: grpc.ServerCredentials = grpc.dynamic_ssl_server_credentials(
        _configuration(first), ask, require_client_authentication=True
    )
    return credentials


def open_server_credentials(identity: Identity) -> grpc.ServerCredentials:
    """Return credentials of a server that anybody reaches; it shows its authority too, which tokens name."""
    chain = identity.own.certificate + identity.authority
    credentials: grpc.ServerCredentials = grpc.ssl_server_credentials([(identity.own.key, chain)])
    return credentials


def caller_of(context: grpc.ServicerContext) -> PeerName:
    """Return who calls. Raises: NotTrusted: nobody that TLS has made sure of."""
    return peer_from_uri(_shown(context, "peer_spiffe_id").decode("ascii", errors="replace"))


def caller_certificate(context: grpc.ServicerContext) -> bytes:
    """Return the caller's certificate in PEM. Raises: NotTrusted: it has shown none."""
    return _shown(context, "x509_pem_cert")


def _shown(context: grpc.ServicerContext, key: str) -> bytes:
    """Return what TLS says of the caller. Raises: NotTrusted: it says nothing, or several things."""
    shown: Any = context.auth_context().get(key) or []
    if len(shown) != 1:
        raise NotTrusted("the caller has shown no certificate of this mesh")
    return bytes(shown[0])


def read_authority(address: str, fingerprint: bytes, limit_seconds: float = CONNECT_SECONDS) -> bytes:
    """Return, in PEM, the authority at `address` whose certificate has this SHA-256. Nothing else of it is believed.

    Args: limit_seconds: for all of it, however slowly somebody answers.
    Raises: NodeLost: nobody answers there in that time; NotTrusted: another authority does.
    """
    for der in _shown_certificates(address, time.monotonic() + limit_seconds):
        if hmac.compare_digest(hashlib.sha256(der).digest(), fingerprint):
            return to_pem(der)
    raise NotTrusted(f"whoever answers at {address} is not the coordinator that made this token; do not go on unless "
                     "you know why, and make a new token on the coordinator")  # fmt: skip


def _shown_certificates(address: str, deadline: float) -> list[bytes]:
    """Return what a TLS server shows, its own certificate first, in DER; unverified. Args: deadline: monotonic."""
    from OpenSSL import SSL, crypto  # here and not at the top: only who joins needs it, and it is 2 MB

    context = SSL.Context(SSL.TLS_CLIENT_METHOD)
    context.set_verify(SSL.VERIFY_NONE)
    try:
        with socket.create_connection(socket_address(address), timeout=_left(deadline)) as plain:
            plain.setblocking(False)  # else each byte that comes would begin the limit anew
            connection = SSL.Connection(context, plain)
            connection.set_connect_state()
            connection.set_alpn_protos([b"h2"])
            while True:
                try:
                    connection.do_handshake()
                    break
                except (SSL.WantReadError, SSL.WantWriteError) as wanted:
                    _wait(plain, isinstance(wanted, SSL.WantWriteError), deadline)
            chain = connection.get_peer_cert_chain() or []
    except (OSError, SSL.Error) as error:
        raise NodeLost(f"no coordinator lets devices in at {address} ({_reason(error)}); is it running, and is the "
                       "token still good?") from error  # fmt: skip
    return [crypto.dump_certificate(crypto.FILETYPE_ASN1, certificate) for certificate in chain]


def _wait(plain: socket.socket, is_for_sending: bool, deadline: float) -> None:
    """Wait until a socket can be used. Raises: TimeoutError: it could not."""
    poll = select.poll()
    poll.register(plain, select.POLLOUT if is_for_sending else select.POLLIN)
    if not poll.poll(_left(deadline) * 1000):
        raise TimeoutError


def _left(deadline: float) -> float:
    """Return the seconds until then. Raises: TimeoutError: there are none."""
    if (left := deadline - time.monotonic()) <= 0:
        raise TimeoutError
    return left


def _reason(error: Exception) -> str:
    if isinstance(error, TimeoutError):
        return "no answer in time"
    return getattr(error, "strerror", None) or "whoever listens there does not speak TLS"


def _named(expected: PeerName, ping_timeout_seconds: float = PING_SECONDS) -> list[tuple[str, int | str]]:
    return [*channel_options(ping_timeout_seconds), ("grpc.ssl_target_name_override", expected.dns)]


def _configuration(identity: Identity) -> grpc.ServerCertificateConfiguration:
    configuration: grpc.ServerCertificateConfiguration = grpc.ssl_server_certificate_configuration(
        [(identity.own.key, identity.own.certificate)], root_certificates=identity.authority
    )
    return configuration
