"""Does deploy/install.sh leave a machine as deploy/README.md says, the first time and every later one?

Does not cover: whether the services work (test_services.py), its options (tests/unit/test_install_script.py).
"""

from __future__ import annotations

import pytest

from tests.support.systemd_machine import INSTALLED, Machine
from tests.support.systemd_services import INSTALL, NODE_CONFIG, SERVICES

WHERE = {
    "/etc/sysusers.d/shardmesh.conf": "644 root",
    "/etc/shardmesh/coordinator.toml": "644 root",
    "/etc/shardmesh/shardnode.toml": "644 root",
    "/etc/systemd/system/coordinator.service": "644 root",
    "/etc/systemd/system/shardnode.service": "644 root",
    "/var/lib/shardmesh": "700 shardmesh",
    "/var/lib/shardmesh-coordinator": "700 shardmesh-coordinator",
}


def what_lies_there(machine: Machine) -> dict[str, str]:
    """Return mode and owner of everything that the installer makes."""
    return {path: machine.must("stat", "--format=%a %U", path).strip() for path in WHERE}


def test_everything_is_where_the_page_says(installed: Machine) -> None:
    """Nobody but the services' user may enter their state, and the units are those of this repository."""
    assert what_lies_there(installed) == WHERE
    for service in SERVICES:
        unit = f"{service}.service"
        installed.must("cmp", f"{INSTALLED}/deploy/systemd/{unit}", f"/etc/systemd/system/{unit}")


@pytest.mark.parametrize("role", ["coordinator", "node"])
def test_a_second_run_changes_nothing_and_restarts_nothing(machine: Machine, role: str) -> None:
    """The node's configuration was edited by then: it is kept, and that is said."""
    names = ("MainPID", "ActiveState", "NeedDaemonReload")
    before = [machine.properties(service, *names) for service in SERVICES]
    config = machine.must("cat", NODE_CONFIG)
    said = machine.must(INSTALL, role)
    assert [machine.properties(service, *names) for service in SERVICES] == before
    assert (machine.must("cat", NODE_CONFIG), what_lies_there(machine)) == (config, WHERE)
    assert ("was edited and is kept" in said) == (role == "node")
    assert "It runs." in said


def test_a_tree_in_another_place_gets_a_unit_that_names_it(machine: Machine) -> None:
    """No line of it names the usual place any more."""
    machine.must("ln", "-sfn", INSTALLED, "/srv/mesh-1.0")
    try:
        machine.must(INSTALL, "coordinator", "--prefix", "/srv/mesh-1.0/")
        unit = machine.must("cat", "/etc/systemd/system/coordinator.service")
        assert "ExecStart=/srv/mesh-1.0/.venv/bin/coordinator " in unit
        assert INSTALLED not in unit
        machine.must("systemctl", "restart", "coordinator")
    finally:
        machine.must(INSTALL, "coordinator")
        machine.must("rm", "/srv/mesh-1.0")


def test_a_python_that_the_services_cannot_see_is_refused(machine: Machine) -> None:
    """A .venv made from a Python below /root would work for whoever installs it, and for no service."""
    machine.must("mkdir", "-p", "/srv/wrong/.venv/bin", "/root/python")
    machine.must("touch", "/root/python/python3")
    machine.must("ln", "-sf", "/root/python/python3", "/srv/wrong/.venv/bin/python")
    machine.must("ln", "-sf", "/bin/true", "/srv/wrong/.venv/bin/coordinator")
    refused = machine.run(INSTALL, "coordinator", "--prefix", "/srv/wrong")
    assert (refused.returncode, refused.stdout) == (2, "")
    assert "the services cannot see /root/python/python3; " in refused.stderr
    machine.must("ln", "-sfn", "/root/python", "/srv/linked")
    linked = machine.run(INSTALL, "coordinator", "--prefix", "/srv/linked")
    assert (linked.returncode, "the services cannot see /root/python; " in linked.stderr) == (2, True)
