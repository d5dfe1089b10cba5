"""Do the services answer under systemd as programs by hand do, and let go in order while they compute?

Covers: a tiny model loaded onto the node by the service's user, answered by the coordinator's unit with the node's,
under the hardening of both; restarts of both; a stop during an answer.
Does not cover: answers as such (tests/golden), several nodes (tests/e2e/test_mesh_in_namespaces.py).
"""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from common.errors import EXIT_INPUT, EXIT_NODE
from tests.support.systemd_machine import Machine
from tests.support.systemd_services import (
    LIMIT_SECONDS,
    MODEL,
    NODE,
    PROGRAMS,
    STATE,
    node_options,
    wait_until_alive,
)
from tests.support.waiting import wait_until

CLI = f"{PROGRAMS}/coordinator-cli"
ASK = (
    CLI, "generate", "--temperature", "0", "--ignore-eos",
    "--prompt", "1 2 3 " * 20,  # so many rows are multiplied in another way than a token's one
)  # fmt: skip
OF_THE_SERVICE = ("--coordinator", f"unix:{STATE}/coordinator.sock", "--state-dir", STATE)


@pytest.fixture
def serving(machine: Machine) -> Iterator[Machine]:
    """Return the machine with a model on its node."""
    with node_options(machine, 'memory-budget = "auto"\nmetrics-port = 9400\n'):
        machine.must("systemctl", "restart", "shardnode")
        wait_until_alive(machine)
        machine.must_as_service_user(CLI, "load", MODEL, "--name", "model", "--state-dir", STATE)
        yield machine
        wait_until_alive(machine)
        machine.must_as_service_user(CLI, "unload", "model", "--state-dir", STATE)


def test_services_under_their_units_answer_as_programs_by_hand(serving: Machine) -> None:
    """Nothing that computing needs is forbidden to them; after a restart of both nothing has to be loaded again."""
    by_hand = json.loads(serving.must(*ASK, "--model", MODEL, "--save-dir", "/tmp/split", "--length", "8", "--json"))
    asked = (*ASK, *OF_THE_SERVICE, "--length", "8", "--json")
    assert json.loads(serving.must_as_service_user(*asked))["token_ids"] == by_hand["token_ids"]
    serving.must("systemctl", "restart", "coordinator", "shardnode")
    wait_until_alive(serving)
    assert json.loads(serving.must_as_service_user(*asked))["token_ids"] == by_hand["token_ids"]


def test_a_model_that_the_service_does_not_see_is_refused_with_a_place_that_works(serving: Machine) -> None:
    """Though root, who types the command, can read it: in somebody's home, and in a /tmp that is not the service's."""
    for place in ("/home", "/tmp"):
        serving.must("cp", "-r", MODEL, f"{place}/theirs")
        refused = serving.run(CLI, "load", f"{place}/theirs", "--state-dir", STATE)
        assert refused.returncode == EXIT_INPUT, refused.stderr
        assert f"runs as the user shardmesh-coordinator, who cannot read {place}/theirs" in refused.stderr
        assert "to where shardmesh-coordinator can: /srv/" in refused.stderr
    serving.must("cp", "-r", "/home/theirs", "/srv/theirs")
    serving.must(CLI, "load", "/srv/theirs", "--state-dir", STATE)
    serving.must(CLI, "unload", "theirs", "--state-dir", STATE)


def test_a_node_that_is_stopped_while_it_computes_ends_well(serving: Machine) -> None:
    """Whoever asked gets one line that names the node; systemd sees a success."""
    asking = serving.start("runuser", "-u", "shardmesh-coordinator", "--", *ASK, *OF_THE_SERVICE, "--length", "30000")
    wait_until(lambda: asking.out or asking.process.poll() is not None, limit_seconds=LIMIT_SECONDS, what="an answer")
    assert asking.process.poll() is None, asking.err
    serving.must("systemctl", "stop", "shardnode")
    ended = serving.properties("shardnode", "ActiveState", "Result", "ExecMainStatus")
    asked = asking.finish()
    serving.must("systemctl", "start", "shardnode")
    well = {"ActiveState": "inactive", "Result": "success", "ExecMainStatus": "0"}
    assert ended == well, serving.journal("shardnode")
    assert asked.code == EXIT_NODE
    assert NODE in asked.err.strip().splitlines()[-1]
