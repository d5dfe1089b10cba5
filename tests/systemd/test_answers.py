"""Does a node under systemd compute what one by hand does, and let go in order while it computes?

Covers: a slice of a tiny model under the unit's hardening, a stop during an answer.
Does not cover: answers as such (tests/golden), several nodes (tests/e2e/test_mesh_of_devices.py).
"""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from common.errors import EXIT_NODE
from tests.support.systemd_machine import Machine
from tests.support.systemd_services import (
    DATA,
    LIMIT_SECONDS,
    MODEL,
    NODE,
    PROGRAMS,
    SLICE,
    STATE,
    node_options,
    wait_until_alive,
)
from tests.support.waiting import wait_until

ASK = (
    f"{PROGRAMS}/coordinator-cli", "generate", "--model", MODEL, "--temperature", "0", "--ignore-eos",
    "--prompt", "1 2 3 " * 20,  # more rows than our own kernels take: torch computes them
)  # fmt: skip
OF_THE_NODE = ("--nodes", NODE, "--state-dir", STATE)


@pytest.fixture
def serving(machine: Machine) -> Iterator[Machine]:
    """Return the machine with a slice on its node."""
    machine.must("install", "-d", "-o", "shardmesh", "-g", "shardmesh", f"{DATA}/slices")
    machine.must("cp", "-r", f"{MODEL}/split/node0", f"{DATA}/slices")
    machine.must("chown", "-R", "shardmesh:shardmesh", SLICE)
    with node_options(machine, f'slice-dir = "{SLICE}"\nmemory-budget = "auto"\nmetrics-port = 9400\n'):
        machine.must("systemctl", "restart", "shardnode")
        wait_until_alive(machine)
        yield machine
    machine.must("rm", "-r", f"{DATA}/slices")


def test_a_node_under_its_unit_answers_as_one_by_hand(serving: Machine) -> None:
    """Nothing that computing needs is forbidden to the service: threads on their cores, torch, direct reads."""
    by_hand = json.loads(serving.must(*ASK, "--length", "8", "--json"))
    answer = json.loads(serving.must_as_service_user(*ASK, "--length", "8", "--json", *OF_THE_NODE))
    assert answer["token_ids"] == by_hand["token_ids"]


def test_a_node_that_is_stopped_while_it_computes_ends_well(serving: Machine) -> None:
    """Whoever asked gets one line that names the node; systemd sees a success."""
    asking = serving.start("runuser", "-u", "shardmesh", "--", *ASK, "--length", "30000", *OF_THE_NODE)
    wait_until(lambda: asking.out or asking.process.poll() is not None, limit_seconds=LIMIT_SECONDS, what="an answer")
    assert asking.process.poll() is None, asking.err
    serving.must("systemctl", "stop", "shardnode")
    assert serving.properties("shardnode", "ActiveState", "Result", "ExecMainStatus") == {
        "ActiveState": "inactive", "Result": "success", "ExecMainStatus": "0",
    }  # fmt: skip
    asked = asking.finish()
    assert asked.code == EXIT_NODE
    assert NODE in asked.err.strip().splitlines()[-1]
