"""Does a device join, and stay, when a program of either side is killed at each change that it makes on the way?

Covers: real programs and SIGKILL, of a device at each third change, and with SHARDMESH_THOROUGH=1 (.ci/run) at each.
Does not cover: every step with every fault (tests/contract/test_trust_faults.py).
"""

from __future__ import annotations

import json
import signal
import sys
from pathlib import Path

import pytest

from common.errors import EXIT_NODE, EXIT_TRUST
from coordinator.membership.book import MEMBERS_FILE
from tests.e2e.conftest import RunHere
from tests.support import killed_program
from tests.support.cli import Name, Running, Shell
from tests.support.free_ports import free_port_pair
from tests.support.thorough import steps
from tests.support.waiting import wait_until

LIMIT_SECONDS = 30.0
NEVER = 1000
CHANGES = 7
"""Of a device that joins: two directories, key, authority, certificate, options, and the key gone."""


class Killed:
    """A mesh whose programs are killed at chosen changes of their files."""

    def __init__(self, shell: Shell, here: RunHere) -> None:
        self.shell, self.here = shell, here
        self.state, self.data = str(shell.home / "state"), str(shell.home / "kitchen")
        assert here("coordinator-cli", "mesh", "init", "--state-dir", self.state).code == 0
        self._port = free_port_pair()

    def start(self, at: int, program: Name, directory: str, *arguments: str) -> Running:
        """Start a program that is killed right before its change number `at` of a directory."""
        return self.shell.start_command(
            [sys.executable, killed_program.__file__, str(at), directory, program, *arguments]
        )

    def start_coordinator(self, at: int = NEVER) -> Running:
        """Start the coordinator, where it was before; wait until it answers."""
        running = self.start(
            at, "coordinator", self.state, "--state-dir", self.state, "--master-port", str(self._port),
            "--discovery-file", str(self.shell.home / "targets.json"),  # whose changes are not to be counted
        )  # fmt: skip
        wait_until(
            lambda: "mesh home on" in running.err or running.process.poll() is not None,
            limit_seconds=LIMIT_SECONDS, what="a coordinator",
        )  # fmt: skip
        assert running.process.poll() is None, running.err
        return running

    def invite(self) -> list[str]:
        """Return the command that is typed on the device."""
        invited = self.here("coordinator-cli", "mesh", "invite", "--state-dir", self.state)
        _, *join = invited.out.split()
        return [*join, "--no-measure", "--listen", "127.0.0.1:0"]

    def start_node(self) -> Running:
        """Start the device's program."""
        return self.shell.start("shardnode", "--config", f"{self.data}/shardnode.toml")

    def check_alive(self, name: str) -> None:
        """Wait until the device is heard, and see that it has one certificate and its token is used."""

        def kept() -> dict[str, list[dict[str, object]]]:
            document: dict[str, list[dict[str, object]]] = json.loads(Path(self.state, MEMBERS_FILE).read_text())
            return document

        wait_until(
            lambda: name not in [entry["name"] for entry in kept()["unseen"]]
            and "alive" in self.here("coordinator-cli", "nodes", "--state-dir", self.state).out,
            limit_seconds=LIMIT_SECONDS, what="it is heard",
        )  # fmt: skip
        (serials,) = [member["serials"] for member in kept()["members"] if member["name"] == name]
        assert isinstance(serials, list)
        assert len(serials) == 1
        assert kept()["invites"] == []


@pytest.mark.timeout(600)  # thoroughly it is a kill at every change
def test_a_device_that_is_killed_at_each_change_of_its_files_has_joined_in_the_end(shell: Shell, here: RunHere) -> None:
    """By the same command with the same token; with that token nobody else joins."""
    mesh = Killed(shell, here)
    coordinator = mesh.start_coordinator()
    for at in steps():
        data = str(shell.home / f"device{at}")
        join = [*mesh.invite(), "--name", f"device{at}", "--data-dir", data]
        finished = mesh.start(at, "shardnode", data, *join).finish()
        if finished.code != -signal.SIGKILL:
            break
        mesh.data = data
        assert (again := here("shardnode", *join)).code == 0, again.err
        other = ["--name", "stranger", "--data-dir", str(shell.home / "stranger")]
        stranger = here("shardnode", *join[: -len(other)], *other)
        assert "by another device" in stranger.error_line("shardnode", EXIT_TRUST)
    assert finished.code == 0, finished.err
    assert at > CHANGES
    node = mesh.start_node()
    mesh.check_alive(Path(mesh.data).name)
    for running in (node, coordinator):
        running.process.send_signal(signal.SIGTERM)
        assert running.finish().code == 0


@pytest.mark.timeout(600)  # thoroughly it is a kill at every change
def test_a_coordinator_that_is_killed_at_each_change_of_its_files_has_let_the_device_in_in_the_end(
    shell: Shell, here: RunHere
) -> None:
    """Its open tokens are good when it is back, and who was let in and never heard of it asks again."""
    mesh = Killed(shell, here)
    coordinator = mesh.start_coordinator(3)  # each is a file and its copy
    join = [*mesh.invite(), "--name", "kitchen", "--data-dir", mesh.data]  # its first change: the invitation
    lost = here("shardnode", *join).error_line("shardnode", EXIT_NODE)  # the second: the device is let in
    assert "type the same command again" in lost
    assert coordinator.finish().code == -signal.SIGKILL
    coordinator = mesh.start_coordinator(4)  # it removes what it had not yet put in its place
    wait_until(lambda: here("shardnode", *join).code == 0, limit_seconds=LIMIT_SECONDS, what="it joins")
    node = mesh.start_node()
    assert coordinator.finish().code == -signal.SIGKILL  # the device is seen
    coordinator = mesh.start_coordinator(4)
    assert coordinator.finish().code == -signal.SIGKILL  # it says where it listens
    coordinator = mesh.start_coordinator()
    mesh.check_alive("kitchen")
    for running in (node, coordinator):
        running.process.send_signal(signal.SIGTERM)
        assert running.finish().code == 0
