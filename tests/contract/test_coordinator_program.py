"""Does a coordinator have its state to itself while it runs, and let go of it when it ends or cannot start?

Does not cover: who is let in (test_mesh_trust.py), whole programs (tests/e2e/test_mesh_of_devices.py).
"""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from common.errors import ShardmeshError
from coordinator.daemon import Coordinator
from coordinator.mesh_state import init_mesh
from coordinator.owner_client import OwnerClient


def test_a_second_coordinator_on_the_same_state_is_refused(tmp_path: Path) -> None:
    """It would take the first one's socket over; once that has ended it may start."""
    init_mesh(tmp_path, "home")
    first = Coordinator(tmp_path, "127.0.0.1:0")
    with pytest.raises(ShardmeshError, match=r"runs on .* already"):
        Coordinator(tmp_path, "127.0.0.1:0")
    with OwnerClient(tmp_path) as owner:
        assert owner.nodes().mesh_name == "home"
    first.close()
    first.close()
    Coordinator(tmp_path, "127.0.0.1:0").close()


def test_a_coordinator_that_cannot_listen_leaves_its_state_free(tmp_path: Path) -> None:
    """The next one, on a port that is free, starts at once."""
    init_mesh(tmp_path, "home")
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(ShardmeshError, match="another process has"):
        Coordinator(tmp_path, f"127.0.0.1:{taken.getsockname()[1]}")
    Coordinator(tmp_path, "127.0.0.1:0").close()
