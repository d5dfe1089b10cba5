"""Identities of one mesh, made in memory: for tests of doors that need no mesh to join.

Covers: a coordinator, nodes, strangers of another authority. Does not cover: devices that join (mesh_members.py).
"""

from __future__ import annotations

from common.trust.certificates import (
    COORDINATOR,
    NODE,
    KeyedCertificate,
    PeerName,
    certify,
    make_authority,
    make_key,
    make_request,
)
from common.trust.identity import Identity

MESH = "attic"


class MeshIdentities:
    """One authority and whom it has signed."""

    def __init__(self, mesh: str = MESH) -> None:
        self.mesh = mesh
        self.authority = make_authority(mesh)

    def identity(self, role: str, name: str, signed_by: KeyedCertificate | None = None) -> Identity:
        """Return an identity. Args: signed_by: another authority, which nobody here believes."""
        key = make_key()
        peer = PeerName(mesh=self.mesh, role=role, name=name)
        certificate = certify(signed_by or self.authority, make_request(key), peer)
        return Identity(
            authority=self.authority.certificate, own=KeyedCertificate(key=key, certificate=certificate)
        )  # fmt: skip

    def coordinator(self) -> Identity:
        """Return the coordinator's."""
        return self.identity(COORDINATOR, "desk")

    def node(self, name: str = "kitchen") -> Identity:
        """Return a node's."""
        return self.identity(NODE, name)
