"""What a registry of series adds up to, whatever else it has.

    total_of(registry, "shardmesh_request_failures_total", reason="NODE_LOST")

Covers: sums over labels that are not named. Does not cover: pages as text (tests/contract/test_metrics_page.py).
"""

from __future__ import annotations

from prometheus_client import CollectorRegistry


def total_of(registry: CollectorRegistry, name: str, **labels: str) -> float:
    """Return the sum of all samples of a name that have these labels."""
    return sum(
        sample.value
        for family in registry.collect()
        for sample in family.samples
        if sample.name == name and labels.items() <= sample.labels.items()
    )
