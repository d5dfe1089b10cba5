"""The series of members and observers: who is heard, whose clock is off, whose certificate ends when.

Covers: what a coordinator knows of its members, and of at most 32 observers (observers.py), asked for with each page,
so that who was removed has no series.
Does not cover: hearing them (services.py), rounds with them (ranks/round_series.py).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from prometheus_client import CollectorRegistry

from common.program.scraped_series import ScrapedGauge
from common.trust.certificates import lifetime_of
from coordinator.membership.book import Member
from coordinator.membership.reach import SILENT_AFTER_SECONDS
from coordinator.membership.state import MeshState

PREFIX = "shardmesh_coordinator"


class MemberSeries:
    """Series by node, and of the coordinator's own certificates."""

    def __init__(self, registry: CollectorRegistry, state: MeshState) -> None:
        self._members = state.members
        r = registry
        self._by_node(
            r, "node_up", "1 while the node was heard lately.",
            lambda member: float(0 <= self._members.silent_seconds(member) <= SILENT_AFTER_SECONDS),
        )  # fmt: skip
        self._by_node(
            r, "node_heartbeat_age_seconds", "Since the node was heard; no value before it was, since the coordinator "
            "started.", lambda member: None if member.heard_at is None else self._members.silent_seconds(member),
        )  # fmt: skip
        self._by_node(
            r, "node_clock_skew_seconds", "How far the node's clock is ahead of the coordinator's, as good as half a "
            "heartbeat's way tells.", lambda member: member.clock_skew_seconds,
        )  # fmt: skip
        self._by_node(
            r, "node_certificate_expiry_timestamp_seconds", "When the node's newest certificate ends.",
            lambda member: float(member.certificate_ends),
        )  # fmt: skip
        observers = ScrapedGauge(
            f"{PREFIX}_observer_certificate_expiry_timestamp_seconds", "When the observer's newest certificate ends, "
            "which nothing renews.", ["observer"], registry=r,
        )  # fmt: skip
        observers.set_function(lambda: {(one.name,): float(one.certificate_ends) for one in state.observers.all()})
        own = ScrapedGauge(
            f"{PREFIX}_certificate_expiry_timestamp_seconds", "When the coordinator's own certificate ends.", registry=r
        )
        own.show(lambda: _end_of(state.identity().own.certificate))
        authority = ScrapedGauge(
            f"{PREFIX}_authority_expiry_timestamp_seconds", "When the mesh's authority ends, and with it every "
            "certificate.", registry=r,
        )  # fmt: skip
        authority.show(lambda: _end_of(state.authority.certificate))

    def is_member(self, name: str) -> bool:
        """Tell whether there is such a node."""
        return self._members.has(name)

    def serves(self, name: str, rank: int, model_identity: str) -> bool:
        """Tell whether a node that is heard says that it serves this rank of this model."""
        member = self._members.find(name)
        if member is None or not 0 <= self._members.silent_seconds(member) <= SILENT_AFTER_SECONDS:
            return False
        return (member.rank, member.model_identity) == (rank, model_identity)

    def _by_node(
        self, registry: CollectorRegistry, stem: str, documentation: str, value: Callable[[Member], float | None]
    ) -> None:
        def values() -> Mapping[tuple[str, ...], float]:
            found = {(member.name,): value(member) for member in self._members.all()}
            return {name: one for name, one in found.items() if one is not None}

        ScrapedGauge(f"{PREFIX}_{stem}", documentation, ["node"], registry=registry).set_function(values)


def _end_of(certificate: bytes) -> float:
    return lifetime_of(certificate)[1].timestamp()
