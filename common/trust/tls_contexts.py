"""How does a TLS handshake of the standard library go in a mesh: what we show, whom we believe?

Covers: contexts from an identity, TLS 1.3 only, without tickets: each handshake shows a certificate. Does not cover:
gRPC's own (tls.py), who may do what once he is believed (metrics_door.py, rounds_door.py).
"""

from __future__ import annotations

import ssl
from collections.abc import Mapping

from common.errors import NotTrusted
from common.machine.named_files import named_file
from common.trust.certificates import PeerName, peer_from_uri
from common.trust.identity import Identity


def server_context(identity: Identity, authority: bytes, *, is_optional: bool = False) -> ssl.SSLContext:
    """Return how a server shakes hands.

    Args: authority: in PEM, whose certificates are believed; empty: none is asked for; is_optional: who shows none
    comes in all the same.
    Raises: OSError: these are no certificates.
    """
    context = _context(ssl.PROTOCOL_TLS_SERVER, identity)
    context.num_tickets = 0
    if authority:
        context.verify_mode = ssl.CERT_OPTIONAL if is_optional else ssl.CERT_REQUIRED
        context.load_verify_locations(cadata=authority.decode("ascii"))
    return context


def client_context(identity: Identity) -> ssl.SSLContext:
    """Return how a client shakes hands: with members of its own mesh, whose name it states as server_hostname."""
    context = _context(ssl.PROTOCOL_TLS_CLIENT, identity)
    context.load_verify_locations(cadata=identity.authority.decode("ascii"))
    return context


def peer_shown(certificate: Mapping[str, object]) -> PeerName:
    """Return who shows a verified certificate. Args: certificate: as ssl's getpeercert returns it.

    Raises: NotTrusted: nobody of a mesh.
    """
    names = certificate.get("subjectAltName")
    uris = [value for kind, value in names if kind == "URI"] if isinstance(names, tuple) else []
    if len(uris) != 1:
        raise NotTrusted("the caller has shown no certificate of this mesh")
    return peer_from_uri(str(uris[0]))


def _context(protocol: int, identity: Identity) -> ssl.SSLContext:
    context = ssl.SSLContext(protocol)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    with named_file(identity.own.key + identity.own.certificate) as name:
        context.load_cert_chain(name)
    return context
