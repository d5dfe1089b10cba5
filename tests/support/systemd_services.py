"""Our services on a machine with systemd: where things lie there, and what it takes to wait for them.

Covers: paths of deploy/README.md, what the coordinator says about the node, restarts, settings that last one test.
Does not cover: the machine (systemd_machine.py), what has to hold (tests/systemd).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from tests.support.systemd_machine import INSTALLED, Machine
from tests.support.waiting import wait_until

PROGRAMS = f"{INSTALLED}/.venv/bin"
INSTALL = f"{INSTALLED}/deploy/install.sh"
STATE, DATA = "/var/lib/shardmesh-coordinator", "/var/lib/shardmesh"
NODE, NODE_CONFIG = "kitchen", "/etc/shardmesh/shardnode.toml"
MODEL, WIDE_MODEL = "/srv/model", "/srv/wide-model"
SERVICES = ("coordinator", "shardnode")
LIMIT_SECONDS = 30.0


def wait_until_alive(machine: Machine) -> None:
    """Wait until the coordinator hears the node."""
    wait_until(lambda: "alive" in nodes(machine), limit_seconds=LIMIT_SECONDS, what="the coordinator hears the node")


def nodes(machine: Machine) -> str:
    """Return what the coordinator says about its nodes."""
    return machine.must_as_service_user(f"{PROGRAMS}/coordinator-cli", "nodes", "--state-dir", STATE)


def wait_until_restarted(machine: Machine, service: str) -> None:
    """Wait until systemd has started a service a second time, and it has said that it is ready."""
    wanted = {"NRestarts": "1", "ActiveState": "active", "SubState": "running"}
    wait_until(
        lambda: machine.properties(service, *wanted) == wanted,
        limit_seconds=LIMIT_SECONDS, what=f"{service} runs again after one restart",
    )  # fmt: skip


@contextmanager
def setting(machine: Machine, service: str, line: str) -> Iterator[None]:
    """Restart a service with one line more in its unit, as `systemctl edit` would put it there; take it out later."""
    directory = f"/run/systemd/system/{service}.service.d"
    machine.write(f"{directory}/test.conf", f"[Service]\n{line}\n")
    machine.must("systemctl", "daemon-reload")
    machine.must("systemctl", "restart", service)
    try:
        yield
    finally:
        machine.must("rm", "-r", directory)
        machine.must("systemctl", "daemon-reload")


@contextmanager
def node_options(machine: Machine, lines: str) -> Iterator[None]:
    """Add lines to the node's configuration, without a restart; take them out later."""
    before = machine.must("cat", NODE_CONFIG)
    machine.write(NODE_CONFIG, before + lines)
    try:
        yield
    finally:
        machine.write(NODE_CONFIG, before)
