"""Does a node stay in its mesh when it, or its coordinator, is killed at each change that renewing a certificate makes?

Covers: real programs and SIGKILL; the one that is not killed goes on; each third change, and with SHARDMESH_THOROUGH=1
(.ci/run) each. Does not cover: joining
(test_killed_while_joining.py); every step with every fault (tests/contract/test_trust_faults.py).
"""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from common.errors import NotTrusted
from common.trust.certificates import serial_of
from common.trust.identity import KEYED_FILE, RENEWING_KEY_FILE, Identity, load_identity
from coordinator.membership.book import Book
from coordinator.membership.state import init_mesh
from coordinator.program.daemon import Coordinator
from shardnode.membership.join import CONFIG_FILE, IDENTITY_DIRECTORY
from tests.support import killed_program
from tests.support.cli import Name, Running, Shell
from tests.support.free_ports import free_port_pair
from tests.support.mesh_members import aged_identity, beat, joined
from tests.support.thorough import THOROUGH, steps
from tests.support.waiting import wait_until

LIMIT_SECONDS = 30.0
NODE_CHANGES = 3
"""The key to ask with, the certificate, and the key gone."""
COORDINATOR_CHANGES = 2
"""The new serial beside the old one, and the old one gone."""
NEVER = 1000


class Mesh:
    """A mesh with one node, whose certificate is old; its programs are killed at chosen changes."""

    def __init__(self, shell: Shell) -> None:
        self._shell = shell
        self.state, self.data = shell.home / "state", shell.home / "kitchen"
        self._port = free_port_pair()
        init_mesh(self.state, "home")
        with self.coordinator():
            joined(self.state, "kitchen", self.data)

    @property
    def identity(self) -> Identity:
        """What the node has stored."""
        return load_identity(self.data / IDENTITY_DIRECTORY)

    @contextmanager
    def coordinator(self) -> Iterator[Coordinator]:
        """Run the coordinator in this process."""
        with closing(Coordinator(self.state, f"127.0.0.1:{self._port}")) as coordinator:
            yield coordinator

    def start(self, at: int, directory: Path, program: Name, *arguments: str) -> Running:
        """Start a program that is killed right before its change number `at` of a directory."""
        return self._shell.start_command(
            [sys.executable, killed_program.__file__, str(at), str(directory), program, *arguments]
        )

    def start_node(self, at: int = NEVER) -> Running:
        """Start the node, to be killed at a change of its identity."""
        return self.start(at, self.data / IDENTITY_DIRECTORY, "shardnode", "--config", str(self.data / CONFIG_FILE))

    def start_coordinator(self, at: int = NEVER) -> Running:
        """Start the coordinator program, to be killed at a change of its directory."""
        return self.start(
            at, self.state, "coordinator", "--state-dir", str(self.state), "--master-port", str(self._port)
        )

    def is_renewed(self, aged: Identity) -> bool:
        """Tell whether all of it is done: one certificate, known to both, and the old one retired."""
        if aged.own.certificate in (self.data / IDENTITY_DIRECTORY / KEYED_FILE).read_bytes():
            return False  # asked a hundred times a second: checking keys would take more time than the programs do
        serials = Book(self.state).kept.members["kitchen"].serials
        return self.identity != aged and serials == (serial_of(self.identity.own.certificate),)

    def wait_until_renewed(self, aged: Identity) -> None:
        """Wait for that."""
        wait_until(lambda: self.is_renewed(aged), limit_seconds=LIMIT_SECONDS, what="a new certificate")


def loaded_by(program: Running) -> str:
    """Return the libraries in a program's memory, where the system tells; Linux does."""
    maps = Path(f"/proc/{program.process.pid}/maps")
    return maps.read_text() if maps.exists() else ""


def ended(program: Running) -> int:
    """End a program and return how it has ended; one that writes after its renewal may be killed as late as that."""
    if program.process.poll() is None:
        assert "cryptography" not in loaded_by(program), "10 MB, for as long as it runs"
        program.process.send_signal(signal.SIGTERM)
    code = program.finish().code
    assert code in (0, -signal.SIGKILL)
    return code


@pytest.fixture
def mesh(shell: Shell) -> Mesh:
    """Return a mesh that one node has joined."""
    return Mesh(shell)


@pytest.mark.timeout(600)  # thoroughly it is a kill at every change
def test_a_node_that_is_killed_at_each_change_of_its_renewal_has_renewed_when_it_is_started_again(mesh: Mesh) -> None:
    """And the certificate that it had is worth nothing from then on; what made the key is not in the node's memory."""
    with mesh.coordinator() as coordinator:
        for at in steps():
            aged = aged_identity(coordinator, mesh.data / IDENTITY_DIRECTORY)
            killed = mesh.start_node(at)
            wait_until(
                lambda aged=aged, killed=killed: killed.process.poll() is not None or mesh.is_renewed(aged),
                limit_seconds=LIMIT_SECONDS, what="the kill",
            )  # fmt: skip
            if is_over := ended(killed) == 0:
                break
            node = mesh.start_node()
            wait_until(lambda node=node: "serving " in node.err, limit_seconds=LIMIT_SECONDS, what="its start")
            mesh.wait_until_renewed(aged)
            assert isinstance(beat(coordinator, aged), NotTrusted)
            assert "cryptography" not in loaded_by(node), "10 MB, for as long as the node runs"
            left_over = mesh.data / IDENTITY_DIRECTORY / RENEWING_KEY_FILE  # killed before it was removed
            assert not left_over.exists() or left_over.read_bytes() == mesh.identity.own.key
            node.process.send_signal(signal.SIGTERM)
            assert node.finish().code == 0
        assert is_over
        assert at > NODE_CHANGES
    assert (mesh.data / IDENTITY_DIRECTORY / KEYED_FILE).stat().st_mode & 0o777 == 0o600


@pytest.mark.timeout(600)  # thoroughly it is a kill at every change
def test_a_coordinator_that_is_killed_at_each_change_of_a_renewal_has_renewed_it_when_it_is_started_again(
    mesh: Mesh,
) -> None:
    """The node asks again by itself; nothing is typed on it."""
    changes = 0
    for at in steps():
        with mesh.coordinator() as coordinator:
            aged = aged_identity(coordinator, mesh.data / IDENTITY_DIRECTORY)
        node, killed = mesh.start_node(), mesh.start_coordinator(at)
        wait_until(
            lambda aged=aged, killed=killed: killed.process.poll() is not None or mesh.is_renewed(aged),
            limit_seconds=LIMIT_SECONDS, what="the kill",
        )  # fmt: skip
        if is_over := ended(killed) == 0:
            break
        changes += "mesh home on" in killed.err
        running = mesh.start_coordinator()
        wait_until(lambda running=running: "mesh home on" in running.err, limit_seconds=LIMIT_SECONDS, what="its start")
        mesh.wait_until_renewed(aged)
        assert ended(running) == 0
        assert ended(node) == 0
    assert is_over
    assert ended(node) == 0
    assert changes >= (COORDINATOR_CHANGES if THOROUGH else 1)
    with mesh.coordinator() as coordinator:
        assert beat(coordinator, mesh.identity) is None
