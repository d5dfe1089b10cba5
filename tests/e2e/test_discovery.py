"""Does a device find its coordinator on the network without an address, and no impostor instead of it?

Covers: multicast DNS between hosts of their own. Does not cover: joining itself (tests/contract/test_mesh_trust.py).
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from common.errors import EXIT_NODE
from tests.support.cli import Finished, Running, Shell
from tests.support.measured_device import measured_once
from tests.support.network_hosts import NetworkHosts, why_not
from tests.support.waiting import wait_until

pytestmark = pytest.mark.skipif(bool(why_not()), reason=why_not() or "there can be hosts")

LIMIT_SECONDS = 30.0


class Home:
    """Two coordinators of different meshes, and a device, on one network."""

    def __init__(self, shell: Shell, hosts: NetworkHosts) -> None:
        self.shell, self.hosts = shell, hosts

    def start(self, host: str, listen: str) -> Running:
        """Make a mesh on a host and start its coordinator."""
        made = self.shell.run("coordinator-cli", "mesh", "init", "--state-dir", self.state(host))
        assert made.code == 0, made.err
        running = self.shell.start(
            "coordinator", "--state-dir", self.state(host), "--master-ip", listen, inside=self.hosts.inside(host)
        )
        wait_until(lambda: "mesh " in running.err, limit_seconds=LIMIT_SECONDS, what="the coordinator listens")
        return running

    def token(self, host: str) -> str:
        """Return a token without an address."""
        invited = self.shell.run(
            "coordinator-cli", "mesh", "invite", "--no-address", "--state-dir", self.state(host),
            inside=self.hosts.inside(host),
        )  # fmt: skip
        assert invited.code == 0, invited.err
        return invited.out.split()[-1]

    def join(self, token: str, name: str) -> Finished:
        """Let the device try to join."""
        data = self.shell.home / name
        with measured_once(data):
            return self.shell.run(
                "shardnode", "join", token, "--name", name, "--data-dir", str(data), inside=self.hosts.inside("kitchen")
            )

    def state(self, host: str) -> str:
        """Return a coordinator's state directory."""
        return str(self.shell.home / host)


@pytest.fixture(scope="module")
def home() -> Iterator[Home]:
    """Return a home with a network."""
    shell = Shell()
    try:
        with NetworkHosts(["desk", "impostor", "kitchen"]) as hosts:
            yield Home(shell, hosts)
            for running in shell.running():
                running.process.terminate()
                running.finish()
    finally:
        shell.close()


def test_a_device_finds_the_coordinator_that_its_token_is_of(home: Home) -> None:
    """Another one that lets devices in on the same network, and was there first, is looked at and left alone."""
    home.start("impostor", "0.0.0.0")
    home.token("impostor")
    home.start("desk", home.hosts.address("desk"))
    token = home.token("desk")
    assert len(token) < 90
    joined = home.join(token, "kitchen")
    assert joined.code == 0, joined.err
    config = (home.shell.home / "kitchen" / "shardnode.toml").read_text()
    assert f"{home.hosts.address('desk')}:29500" in config
    nodes = home.shell.run("coordinator-cli", "nodes", "--state-dir", home.state("desk"))
    assert "kitchen" in nodes.out


def test_where_nobody_is_found_one_line_says_what_to_do(home: Home) -> None:
    """After some seconds."""
    token = home.token("desk")
    home.hosts.cut("kitchen")
    line = home.join(token, "late").error_line("shardnode", EXIT_NODE)
    home.hosts.mend("kitchen")
    assert "A token with addresses works across networks" in line
