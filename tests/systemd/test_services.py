"""Do the units do under a real systemd what they promise: readiness, restarts, the watchdog, an end in order?

Covers: both services, installed by deploy/install.sh. Does not cover: limits of memory (test_memory.py), answers
(test_answers.py).
"""

from __future__ import annotations

import pytest

from common.errors import EXIT_INPUT
from tests.support.systemd_machine import Machine
from tests.support.systemd_services import (
    DATA,
    INSTALL,
    LIMIT_SECONDS,
    NODE,
    SERVICES,
    STATE,
    node_options,
    nodes,
    setting,
    wait_until_alive,
    wait_until_restarted,
)
from tests.support.waiting import wait_until

WATCHDOG_SECONDS = 2
USERS = {"coordinator": "shardmesh-coordinator", "shardnode": "shardmesh"}
TARGETS = "/var/cache/shardmesh-coordinator/targets.json"

both = pytest.mark.parametrize("service", SERVICES)


@both
def test_a_service_is_active_once_it_has_said_that_it_is_ready(machine: Machine, service: str) -> None:
    """`systemctl start` comes back then (Type=notify), and the status says where it listens."""
    found = machine.properties(
        service, "Type", "ActiveState", "SubState", "StatusText", "NRestarts", "UnitFileState", "WatchdogUSec"
    )  # fmt: skip
    status = {"coordinator": "mesh home on 0.0.0.0:29500", "shardnode": "serving on 0.0.0.0:50051"}[service]
    watchdog = {"coordinator": "30s", "shardnode": "3min"}[service]
    assert found == {
        "Type": "notify", "ActiveState": "active", "SubState": "running", "StatusText": status, "NRestarts": "0",
        "UnitFileState": "enabled", "WatchdogUSec": watchdog,
    }  # fmt: skip


@both
def test_a_service_may_do_no_more_than_its_unit_says(machine: Machine, service: str) -> None:
    """What the kernel holds against the running process: its user, no capability, filtered system calls."""
    pid = machine.property(service, "MainPID")
    status = dict(line.split(":\t", 1) for line in machine.must("cat", f"/proc/{pid}/status").splitlines())
    user = machine.must("id", "--user", USERS[service]).strip()
    assert set(status["Uid"].split()) == {user}
    assert {int(status[name], 16) for name in ("CapEff", "CapPrm", "CapBnd", "CapAmb")} == {0}
    assert (status["NoNewPrivs"], status["Seccomp"]) == ("1", "2")
    sight = ("nsenter", f"--target={pid}", "--mount", "--")
    assert machine.run(*sight, "touch", "/etc/written").returncode != 0
    machine.write("/root/secret", "seen")
    assert machine.run(*sight, "cat", "/root/secret").stdout == ""


def test_neither_service_reads_what_the_other_keeps(machine: Machine) -> None:
    """A node that was taken over, beside a coordinator, has not the mesh's authority."""
    for user, place in (("shardmesh", f"{STATE}/authority.key"), ("shardmesh-coordinator", f"{DATA}/identity")):
        assert machine.run("runuser", "-u", user, "--", "ls", place).returncode != 0
    machine.must("runuser", "-u", "shardmesh-coordinator", "--", "ls", f"{STATE}/authority.key")


@pytest.mark.parametrize("user", ["shardmesh", "root"])
def test_state_that_was_another_users_is_given_over_at_the_next_start(machine: Machine, user: str) -> None:
    """A coordinator that runs as when both were one user is brought up to date by install.sh and a restart, no more."""
    wait_until_alive(machine)
    with setting(machine, "coordinator", f"User={user}\nGroup={user}"):
        wait_until(lambda: owners(machine) == {user}, limit_seconds=LIMIT_SECONDS, what=f"{user} has the state")
        members, key = (machine.must("cat", f"{STATE}/{name}") for name in ("members.json", "authority.key"))
        assert "systemd gives it to shardmesh-coordinator" in machine.must(INSTALL, "coordinator")
        assert owners(machine) == {user}, "it runs, and its state stays its own until it is started again"
    machine.must("systemctl", "restart", "coordinator")
    wait_until_alive(machine)
    assert owners(machine) == {"shardmesh-coordinator"}
    assert machine.must("cat", f"{STATE}/members.json") == members
    assert machine.must("cat", f"{STATE}/authority.key") == key
    machine.must("systemctl", "stop", "coordinator")
    machine.must("chown", "--recursive", f"{user}:{user}", STATE)
    machine.must(INSTALL, "coordinator")
    assert owners(machine) == {"shardmesh-coordinator"}, "nobody uses it, so it is given over at once"


def owners(machine: Machine) -> set[str]:
    """Return whose the coordinator's state is."""
    return set(machine.must("find", STATE, "-printf", "%u\n").split())


def test_the_coordinator_hears_the_node(machine: Machine) -> None:
    """Without a slice too: a device is a member before it has anything to compute."""
    wait_until_alive(machine)
    assert NODE in nodes(machine)


def test_another_user_reads_where_the_nodes_metrics_are(machine: Machine) -> None:
    """Prometheus is one; the coordinator's state, beside it, is its own user's only."""
    with node_options(machine, "metrics-port = 9400\n"):
        machine.must("systemctl", "restart", "shardnode")
        as_another = ("runuser", "-u", "nobody", "--", "cat")
        wait_until(
            lambda: '"targets": ["127.0.0.1:9400"]' in machine.must(*as_another, TARGETS), limit_seconds=LIMIT_SECONDS,
            what="the node is a target",
        )  # fmt: skip
        assert machine.run(*as_another, f"{STATE}/members.json").returncode != 0
    machine.must("systemctl", "restart", "shardnode")


@both
def test_a_service_that_is_killed_is_started_again(machine: Machine, service: str) -> None:
    """After kill -9 of its main process; node and coordinator find each other again."""
    machine.must("systemctl", "kill", "--kill-whom=main", "--signal=KILL", service)
    wait_until_restarted(machine, service)
    wait_until_alive(machine)


@both
def test_a_service_that_hangs_is_started_again_and_one_that_is_well_is_not(machine: Machine, service: str) -> None:
    """The watchdog hears from a service for as long as it is well, and only then."""
    with setting(machine, service, f"WatchdogSec={WATCHDOG_SECONDS}"):
        first = int(machine.property(service, "WatchdogTimestampMonotonic"))
        wait_until(
            lambda: (
                int(machine.property(service, "WatchdogTimestampMonotonic")) > first + 2 * WATCHDOG_SECONDS * 1_000_000
            ),
            limit_seconds=LIMIT_SECONDS, what="signs of life for longer than the watchdog waits",
        )  # fmt: skip
        assert machine.property(service, "NRestarts") == "0"
        machine.must("systemctl", "kill", "--kill-whom=main", "--signal=STOP", service)
        wait_until_restarted(machine, service)
    assert f"Watchdog timeout (limit {WATCHDOG_SECONDS}s)!" in machine.journal(service)


@both
def test_a_service_that_is_told_to_stop_ends_well(machine: Machine, service: str) -> None:
    """It drains and exits with 0, which systemd counts as success, and stays down."""
    machine.must("systemctl", "stop", service)
    assert machine.properties(service, "ActiveState", "Result", "ExecMainStatus", "NRestarts") == {
        "ActiveState": "inactive", "Result": "success", "ExecMainStatus": "0", "NRestarts": "0",
    }  # fmt: skip


def test_a_node_that_is_restarted_is_heard_again(machine: Machine) -> None:
    """As a member it is already: no new token."""
    wait_until_alive(machine)
    machine.must("systemctl", "stop", "shardnode")
    wait_until(lambda: "alive" not in nodes(machine), limit_seconds=LIMIT_SECONDS, what="the node is missed")
    machine.must("systemctl", "start", "shardnode")
    wait_until_alive(machine)


def test_a_wrong_option_is_not_tried_again(machine: Machine) -> None:
    """It would be as wrong next time; the journal has the one line that says what is wrong."""
    with node_options(machine, 'threads = "many"\n'):
        assert machine.run("systemctl", "restart", "shardnode").returncode != 0
        assert machine.properties("shardnode", "ActiveState", "SubState", "ExecMainStatus", "NRestarts") == {
            "ActiveState": "failed", "SubState": "failed", "ExecMainStatus": str(EXIT_INPUT), "NRestarts": "0",
        }  # fmt: skip
    assert "Invalid value for '--threads'" in machine.journal("shardnode")
