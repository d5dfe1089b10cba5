"""What is the owner told of a coordinator that is not there, and of one that hangs?

Covers: coordinator/membership/owner_client.py. Does not cover: what a coordinator answers (tests/contract).
"""

from __future__ import annotations

import socket
import tempfile
from pathlib import Path

import pytest

from common.errors import NodeLost, NodeTimeout
from coordinator.membership import owner_client
from coordinator.membership.owner_client import OwnerClient
from coordinator.membership.state import SOCKET_FILE


def test_a_coordinator_that_hangs_is_not_told_to_be_started(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its socket takes connections, as a stopped process's does, and nothing comes; one that is gone takes none."""
    monkeypatch.setattr(owner_client, "LIMIT_SECONDS", 0.5)
    with tempfile.TemporaryDirectory() as directory:  # a path that is short enough
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(f"{directory}/{SOCKET_FILE}")
            listener.listen()
            with OwnerClient(Path(directory)) as owner, pytest.raises(NodeTimeout, match="runs and does not answer"):
                owner.nodes()
        with OwnerClient(Path(directory)) as owner, pytest.raises(NodeLost, match="start it"):
            owner.nodes()
