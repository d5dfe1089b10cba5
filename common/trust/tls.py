"""TLS for our channels of gRPC: credentials from an identity, names that must match, the authority that a token names.

Does not cover: certificates themselves (certificates.py), servers (gate.py), who calls them (behind_gate.py).
"""

from __future__ import annotations

import hashlib
import hmac
import select
import socket
import time

import grpc

from common.errors import NodeLost, NotTrusted
from common.trust.certificates import PeerName, to_pem
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
