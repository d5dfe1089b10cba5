"""Certificates that end soon, in the files of programs that do not run: a node's, and a mesh's authority.

Covers: what only time could bring about. Does not cover: programs in this process (mesh_members.py).
"""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from pathlib import Path

from common.machine.durable_files import replace_private
from common.trust.certificates import (
    AUTHORITY_LIFETIME,
    COORDINATOR,
    LEAF_LIFETIME,
    KeyedCertificate,
    PeerName,
    lifetime_of,
    serial_of,
)
from common.trust.identity import Identity, load_identity, save_identity
from common.trust.signing import certify, make_authority, make_key, make_request, requested_key_hash
from coordinator.membership.book import Issued
from coordinator.membership.state import AUTHORITY_KEY_FILE, open_mesh_state
from shardnode.membership.join import IDENTITY_DIRECTORY

MESH = "home"


def age_certificate(state: Path, data: Path, *, days_left: float) -> None:
    """Give a node a certificate that was made long ago. Args: state, data: directories of coordinator and node."""
    mesh, directory = open_mesh_state(state), data / IDENTITY_DIRECTORY
    before = load_identity(directory)
    key = make_key()
    request = make_request(key)
    made = datetime.now(timezone.utc) - LEAF_LIFETIME + timedelta(days=days_left)
    certificate = certify(mesh.authority, request, before.peer, now=made)
    issued = Issued(
        certificate=certificate, serial=serial_of(certificate), ends=int(lifetime_of(certificate)[1].timestamp())
    )
    shown = serial_of(before.own.certificate)
    mesh.members.renew(before.peer.name, shown, requested_key_hash(request), lambda: issued)
    mesh.members.check(before.peer.name, issued.serial)
    save_identity(
        directory, Identity(authority=before.authority, own=KeyedCertificate(key=key, certificate=certificate))
    )


def make_old_authority(state: Path, *, days_left: float) -> None:
    """Make a mesh without members whose authority was made nearly ten years ago."""
    made = datetime.now(timezone.utc) - AUTHORITY_LIFETIME + timedelta(days=days_left)
    authority = make_authority(MESH, made)
    key = make_key()
    own = certify(authority, make_request(key), PeerName(mesh=MESH, role=COORDINATOR, name=MESH))
    identity = Identity(authority=authority.certificate, own=KeyedCertificate(key=key, certificate=own))
    save_identity(state, identity)
    replace_private(state / AUTHORITY_KEY_FILE, authority.key)
