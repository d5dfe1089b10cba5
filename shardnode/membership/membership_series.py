"""The series of a node's membership: whether its coordinator hears it, and how long its certificate lasts.

Covers: their names; a node without a mesh shows no value of the certificate. Does not cover: heartbeats and renewal
(membership.py).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry

from common.program.scraped_series import ScrapedGauge

if TYPE_CHECKING:  # certificates are for members
    from shardnode.membership.membership import Membership


class MembershipSeries:
    """Series of one node."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._heard = ScrapedGauge(
            "shardmesh_node_coordinator_heard_timestamp_seconds", "When the coordinator last answered a heartbeat; 0: "
            "never since this node started, or it has none.", registry=registry,
        )  # fmt: skip
        self._heard.show(lambda: 0)
        self._certificate = ScrapedGauge(
            "shardmesh_node_certificate_expiry_timestamp_seconds", "When this node's certificate ends.",
            registry=registry,
        )  # fmt: skip

    def follow(self, membership: Membership) -> None:
        """Show this membership from now on."""
        self._heard.show(lambda: membership.heard_at)
        self._certificate.show(membership.certificate_end)
