"""Is a person warned before harm, by the programs as they run: an invitation, a removal, an unload, a taken port?

Does not cover: how a person is asked (tests/unit/test_consent.py), what is said of which address or clock
(tests/unit/test_invite_notes.py).
"""

from __future__ import annotations

import shutil
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from common.errors import EXIT_INPUT, EXIT_OK, AddressInUse, InputError
from coordinator.membership.owner_client import OwnerClient
from coordinator.membership.state import init_mesh
from coordinator.program.daemon import Coordinator
from tests.support.cli import Finished, run_here
from tests.support.free_ports import free_place, free_port_pair
from tests.support.mesh_members import joined, token_of

MODELS = Path(__file__).resolve().parent / "made_by_e3cc05c" / "state" / "models"


class Desk:
    """A mesh with two nodes, one of which a loaded model needs, and what is typed beside its coordinator."""

    def __init__(self, state: Path, monkeypatch: pytest.MonkeyPatch, capture: pytest.CaptureFixture[str]) -> None:
        self.state, self._monkeypatch, self._capture = state, monkeypatch, capture

    def types(self, *arguments: str) -> Finished:
        """Run a verb."""
        arguments = (*arguments, "--state-dir", str(self.state))
        return run_here("coordinator-cli", list(arguments), self._monkeypatch, self._capture)

    def names(self) -> list[str]:
        """Return the members."""
        with OwnerClient(self.state) as owner:
            return [node.name for node in owner.nodes().nodes]


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Iterator[Desk]:
    """Return a mesh of kitchen and attic with the model tiny on kitchen."""
    state = tmp_path / "state"
    init_mesh(state, "home")
    shutil.copytree(MODELS, state / "models")
    coordinator = Coordinator(state, free_place())
    for name in ("kitchen", "attic"):
        joined(state, name, tmp_path / name)
    yield Desk(state, monkeypatch, capfd)
    coordinator.close()


def test_a_node_that_a_model_needs_is_removed_only_by_who_knows_that(desk: Desk) -> None:
    """Without a terminal one line says what would be lost; a node that none needs goes without a question."""
    refused = desk.types("mesh", "remove", "kitchen").error_line("coordinator-cli", EXIT_INPUT)
    assert "model tiny (rank 0 of 1): without kitchen it cannot answer" in refused
    assert refused.endswith("pass --yes")
    assert desk.names() == ["attic", "kitchen"]
    assert "there is no node called 'cellar'" in desk.types("mesh", "remove", "cellar").err
    assert desk.types("mesh", "remove", "attic").code == EXIT_OK
    assert desk.types("mesh", "remove", "kitchen", "--yes").code == EXIT_OK
    assert desk.names() == []


def test_a_model_whose_files_are_gone_is_unloaded_only_by_who_knows_that(desk: Desk) -> None:
    """What lies on the nodes is then all there is of it."""
    refused = desk.types("unload", "tiny").error_line("coordinator-cli", EXIT_INPUT)
    assert "may be the only copy" in refused
    assert "tiny" in desk.types("models").out
    assert desk.types("unload", "tiny", "--yes").code == EXIT_OK


def test_a_mesh_that_is_there_is_not_made_anew(desk: Desk) -> None:
    """Its key is every device's membership; what to do is said, and nothing is done."""
    before = (desk.state / "authority.key").read_bytes()
    assert "there is a mesh in" in desk.types("mesh", "init").error_line("coordinator-cli", EXIT_INPUT)
    assert (desk.state / "authority.key").read_bytes() == before


def test_who_invites_to_an_address_of_this_device_alone_is_told(desk: Desk) -> None:
    """The token is printed all the same: a node on this device may use it."""
    for more in ([], ["--no-address"]):
        invited = desk.types("mesh", "invite", *more)
        assert invited.code == EXIT_OK
        assert invited.out.startswith("shardnode join shardmesh-")
        assert invited.err.count("warning: no other device can use this token") == 1


def test_who_invites_to_an_address_that_others_reach_is_told_nothing(tmp_path: Path) -> None:
    """A forwarded port leads from there to here."""
    init_mesh(tmp_path, "home")
    coordinator = Coordinator(tmp_path, "127.0.0.1:0", "desk.example")
    with OwnerClient(tmp_path) as owner:
        assert list(owner.invite(60).notes) == []
    coordinator.close()


def test_a_coordinator_whose_join_port_is_taken_says_so_at_its_start_and_serves_its_members(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Models answer without that port; once it is free, devices join."""
    init_mesh(tmp_path, "home")
    port = free_port_pair()
    with socket.create_server(("127.0.0.1", port + 1)), caplog.at_level("WARNING"):
        coordinator = Coordinator(tmp_path, f"127.0.0.1:{port}")
        assert f"devices cannot join: another process has port {port + 1}" in caplog.text
        with OwnerClient(tmp_path) as owner:
            assert list(owner.nodes().nodes) == []
            with pytest.raises(AddressInUse, match="devices cannot join"):
                owner.invite(60)
    assert caplog.text.count("devices cannot join") == 1
    assert token_of(tmp_path)
    coordinator.close()


def test_a_join_port_that_was_looked_at_is_free(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Whoever looks whether it is taken must not take it."""
    init_mesh(tmp_path, "home")
    coordinator = Coordinator(tmp_path, free_place())
    joined(tmp_path, "kitchen", tmp_path / "kitchen")
    coordinator.close()
    assert "cannot join" not in caplog.text


def test_a_metrics_port_that_the_mesh_needs_is_told_as_that(tmp_path: Path) -> None:
    """And not as a port that another process has; nor is one that another process has told as anything else."""
    init_mesh(tmp_path, "home")
    port = free_port_pair()
    for taken, who in ((port, "members"), (port + 1, "devices")):
        with pytest.raises(InputError, match=f"--metrics-port is {taken}, where {who} come"):
            Coordinator(tmp_path, f"127.0.0.1:{port}", metrics_port=taken)
    other = socket.create_server(("127.0.0.1", 0))
    with other, pytest.raises(AddressInUse, match="choose another --metrics-port"):
        Coordinator(tmp_path, f"127.0.0.1:{port}", metrics_port=other.getsockname()[1])
