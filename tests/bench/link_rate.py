"""Over which links do the benchmarks between devices run, and what do bytes alone take on them?

Covers: rate, burst and longest wait, as tc takes them; every host of a mesh limited so.
Does not cover: the hosts (tests/support/network_hosts.py), what is measured (star_floor.py, links.py).
"""

from __future__ import annotations

from collections.abc import Sequence

from tests.support.network_hosts import NetworkHosts

RATE_MBIT, BURST, LATENCY = 1000, "32kb", "50ms"
LINKS = f"links of {RATE_MBIT / 1000:g} Gbit/s (burst {BURST}, latency {LATENCY})"


def limit_links(hosts: NetworkHosts, names: Sequence[str]) -> None:
    """Limit the links of these hosts, each way."""
    for name in names:
        hosts.set_rate(name, RATE_MBIT, burst=BURST, latency=LATENCY)


def wire_seconds(byte_count: float) -> float:
    """Return how long so many bytes take at the links' rate, one after another."""
    return 8 * byte_count / (RATE_MBIT * 1e6)


def passed_bytes(hosts: NetworkHosts, name: str) -> int:
    """Return how many bytes have passed a host's link so far, both ways, headers included."""
    return hosts.bytes_to(name) + hosts.bytes_from(name)
