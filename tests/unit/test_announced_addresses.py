"""Which of this machine's addresses stand in tokens, and which are announced beside them?

Covers: coordinator/program/door.py, given what a system says of its interfaces. Does not cover: opening the door
(tests/contract/test_mesh_trust.py), multicast DNS (tests/e2e/test_discovery.py, tests/e2e/test_mesh_over_ipv6.py).
"""

from __future__ import annotations

import socket
from types import SimpleNamespace

import psutil
import pytest

from coordinator.program.door import own_addresses, own_link_addresses


def say(monkeypatch: pytest.MonkeyPatch, **interfaces: list[str]) -> None:
    """Have the system say that these are its addresses, by interface."""
    said = {
        name: [
            SimpleNamespace(family=socket.AF_INET6 if ":" in address else socket.AF_INET, address=address)
            for address in addresses
        ]
        for name, addresses in {"lo": ["127.0.0.1", "::1"], **interfaces}.items()
    }
    said["lo"].append(SimpleNamespace(family=psutil.AF_LINK, address="00:00:00:00:00:00"))
    monkeypatch.setattr(psutil, "net_if_addrs", lambda: said)


def test_a_token_has_one_address_of_ipv6_beside_those_of_ipv4(monkeypatch: pytest.MonkeyPatch) -> None:
    """The home's own, which no provider changes; those of real networks before those of containers."""
    say(monkeypatch, docker0=["10.9.0.1"], eth0=["fe80::1%eth0", "2001:db8::1", "192.168.1.2", "fd00::1"])
    assert own_addresses() == ["192.168.1.2", "10.9.0.1", "fd00::1"]
    assert own_link_addresses() == ["fe80::1%eth0"]


def test_without_ipv4_a_token_has_several(monkeypatch: pytest.MonkeyPatch) -> None:
    """At most four."""
    say(monkeypatch, eth0=[f"2001:db8::{number}" for number in range(1, 7)], wlan0=["fd00::1"])
    assert own_addresses() == ["fd00::1", "2001:db8::1", "2001:db8::2", "2001:db8::3"]


def test_what_means_something_on_one_link_alone_stands_in_no_token(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is announced there."""
    say(monkeypatch, eth0=["fe80::1%eth0"], wlan0=["fe80::2%wlan0"])
    assert own_addresses() == []
    assert own_link_addresses() == ["fe80::1%eth0", "fe80::2%wlan0"]
