"""Does a device find its coordinator on the network without an address, and no impostor instead of it?

Covers: multicast DNS between hosts of their own. Does not cover: joining itself (tests/contract/test_mesh_trust.py).
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from common.errors import EXIT_NODE
from coordinator.membership.owner_client import OwnerClient
from coordinator.membership.state import init_mesh
from tests.support.cli import Finished, Running, Shell
from tests.support.network_hosts import NetworkHosts, why_not
from tests.support.waiting import wait_until

pytestmark = pytest.mark.skipif(bool(why_not()), reason=why_not() or "there can be hosts")

LIMIT_SECONDS = 30.0
TOKEN_SECONDS = 600


class Home:
    """Two coordinators of different meshes, and a device, on one network."""

    def __init__(self, shell: Shell, hosts: NetworkHosts) -> None:
        self.shell, self.hosts = shell, hosts

    def start(self, host: str, listen: str) -> Running:
        """Make a mesh on a host and start its coordinator."""
        init_mesh(Path(self.state(host)), "home")
        running = self.shell.start(
            "coordinator", "--state-dir", self.state(host), "--master-ip", listen, inside=self.hosts.inside(host)
        )
        wait_until(lambda: "mesh " in running.err, limit_seconds=LIMIT_SECONDS, what="the coordinator listens")
        return running

    def token(self, host: str) -> str:
        """Return a token without an address."""
        with OwnerClient(Path(self.state(host))) as owner:
            return owner.invite(TOKEN_SECONDS, without_addresses=True).token

    def join(self, token: str, name: str) -> Finished:
        """Let the device try to join."""
        return self.shell.run(
            "shardnode", "join", "--no-measure", token, "--name", name, "--data-dir", str(self.shell.home / name),
            inside=self.hosts.inside("kitchen"),
        )  # fmt: skip

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
    with OwnerClient(Path(home.state("desk"))) as owner:
        assert [node.name for node in owner.nodes().nodes] == ["kitchen"]


def test_where_nobody_is_found_one_line_says_what_to_do(home: Home) -> None:
    """After some seconds."""
    token = home.token("desk")
    home.hosts.cut("kitchen")
    line = home.join(token, "late").error_line("shardnode", EXIT_NODE)
    home.hosts.mend("kitchen")
    assert "A token with addresses works across networks" in line
