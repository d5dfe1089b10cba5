"""Does a coordinator have its state to itself while it runs, and let go of it when it ends or cannot start?

Does not cover: who is let in (test_mesh_trust.py), whole programs (tests/e2e/test_mesh_of_devices.py).
"""

from __future__ import annotations

import os
import socket
from datetime import datetime, timedelta, timezone
from pathlib import Path
from unittest import mock

import pytest

from common.errors import AddressInUse, InputError, NodeLost, NotTrusted, ShardmeshError
from common.program.state_files import copy_of
from common.trust.certificates import KeyedCertificate
from common.trust.identity import Identity, save_identity
from common.trust.signing import certify, make_key, make_request
from coordinator.membership.owner_client import OwnerClient
from coordinator.membership.state import init_mesh, open_mesh_state
from coordinator.program.daemon import Coordinator
from shardnode.membership.join import join_mesh
from tests.support.free_ports import free_place
from tests.support.mesh_members import token_of
from tests.support.waiting import wait_until


@pytest.mark.parametrize("name", ["authority.key", "authority.pem", "identity.pem"])
@pytest.mark.parametrize("kept", [0, 100])
def test_a_damaged_file_of_the_mesh_is_named_with_what_to_do(tmp_path: Path, name: str, kept: int) -> None:
    """At the start, not when the first device joins; empty, or cut short where it still begins as it should."""
    init_mesh(tmp_path, "home")
    for path in (tmp_path / name, copy_of(tmp_path / name)):
        os.truncate(path, kept)
    with pytest.raises(NotTrusted, match=rf"{tmp_path}\S* is damaged, its copy too \(.*restore it from a backup"):
        open_mesh_state(tmp_path)


def test_a_second_coordinator_on_the_same_state_is_refused(tmp_path: Path) -> None:
    """It would take the first one's socket over; once that has ended it may start."""
    init_mesh(tmp_path, "home")
    first = Coordinator(tmp_path, free_place())
    with pytest.raises(ShardmeshError, match=r"runs on .* already"):
        Coordinator(tmp_path, free_place())
    with OwnerClient(tmp_path) as owner:
        assert owner.nodes().mesh_name == "home"
    first.close()
    first.close()
    Coordinator(tmp_path, free_place()).close()


def test_a_coordinator_that_cannot_listen_leaves_its_state_free(tmp_path: Path) -> None:
    """The next one, on a port that is free, starts at once."""
    init_mesh(tmp_path, "home")
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(ShardmeshError, match="another process has"):
        Coordinator(tmp_path, f"127.0.0.1:{taken.getsockname()[1]}")
    Coordinator(tmp_path, free_place()).close()


def test_a_join_port_that_is_taken_is_told_and_the_door_opens_and_closes_once_it_is_free(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Whoever invites hears what to do; a door that was missed once must not stay open when its token has ended."""
    monkeypatch.setattr("coordinator.program.door.LOOK_SECONDS", 0.01)
    init_mesh(tmp_path, "home")
    coordinator = Coordinator(tmp_path, free_place())
    try:
        with socket.create_server(("127.0.0.1", 0)) as taken, OwnerClient(tmp_path) as owner:
            assert coordinator._door is not None
            coordinator._door.port = port = taken.getsockname()[1]
            with pytest.raises(AddressInUse, match=f"port {port}, .* another --master-port"):
                owner.invite(60)
            assert not coordinator._invites.any_open
            coordinator._invites.make(60)  # as one of before a restart: the thread finds the port taken
            with caplog.at_level("WARNING"):
                wait_until(lambda: "devices cannot join" in caplog.text, limit_seconds=5, what="a look at the door")
        wait_until(lambda: _answers(port), limit_seconds=5, what="the door is open")
        coordinator._state.invites._book.note(invites={})
        wait_until(lambda: not _answers(port), limit_seconds=5, what="the door is closed")
    finally:
        coordinator.close()


def test_the_last_port_is_refused_since_devices_join_on_the_next_one(tmp_path: Path) -> None:
    """At once, not when the first device is invited."""
    init_mesh(tmp_path, "home")
    with pytest.raises(InputError, match="choose a lower one"):
        Coordinator(tmp_path, "127.0.0.1:65535")


@pytest.mark.parametrize("days", [-400, 400])
def test_a_clock_that_is_wrong_is_told_as_that(tmp_path: Path, days: int) -> None:
    """Certificates are good or not by the clock of who looks, and a small computer without a battery starts in 1970."""
    state = tmp_path / "state"
    init_mesh(state, "home")
    mesh, key = open_mesh_state(state), make_key()
    elsewhen = datetime.now(timezone.utc) + timedelta(days=days)
    own = KeyedCertificate(key=key, certificate=certify(mesh.authority, make_request(key), mesh.peer, now=elsewhen))
    save_identity(state, Identity(authority=mesh.authority.certificate, own=own))
    with mock.patch("coordinator.membership.state.needs_renewal", return_value=False):
        coordinator = Coordinator(state, free_place())
        try:
            with pytest.raises(NodeLost, match=r"this device's clock says, \d{4}-.* set the clocks"):
                join_mesh(token_of(state), "kitchen", tmp_path / "kitchen", "127.0.0.1:0")
        finally:
            coordinator.close()


def _answers(port: int) -> bool:
    with socket.socket() as asking:
        return asking.connect_ex(("127.0.0.1", port)) == 0
