"""Do the units' limits of memory hold, and does a node that was told `auto` keep below its own?

Covers: MemoryMax of both units as the kernel has it, a model most of which does not fit, a node that takes more.
Does not cover: what a budget comes to (tests/unit, tests/e2e/test_memory_budget.py), control groups of version 2.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from common.errors import EXIT_NODE
from tests.support.machine_memory import ServiceMemory
from tests.support.systemd_machine import Machine
from tests.support.systemd_services import (
    NODE,
    PROGRAMS,
    SERVICES,
    STATE,
    WIDE_MODEL,
    node_options,
    setting,
    wait_until_alive,
    wait_until_restarted,
)

CLI = f"{PROGRAMS}/coordinator-cli"
ASK = (CLI, "generate", "--temperature", "0", "--ignore-eos", "--prompt", "1 2 3 " * 20, "--length", "8", "--json")
OF_THE_SERVICE = ("--coordinator", f"unix:{STATE}/coordinator.sock", "--state-dir", STATE)
SHARES = {"coordinator": 0.5, "shardnode": 0.8}
"""What the units say of the machine's memory."""
LIMIT_BYTES = 450 << 20
"""The program takes half of it, keys and values may take a quarter."""
WEIGHT_BYTES = 302_000_000
"""Of the wide model, all but its embedding and head, which the coordinator has."""
PAGE_BYTES = 4096


def memory_of(machine: Machine, service: str) -> ServiceMemory:
    """Return what the kernel counts for a service."""
    if machine.memory is None:
        pytest.skip("no memory controller of version 1 that a machine could be lent")
    return machine.memory.of(service)


@contextmanager
def with_wide_model(machine: Machine, budget: str) -> Iterator[None]:
    """Give the node a budget and the limit, and load the model onto it; take all of it off later."""
    with (
        node_options(machine, f'memory-budget = "{budget}"\n'),
        setting(machine, "shardnode", f"MemoryMax={LIMIT_BYTES}"),
    ):
        wait_until_alive(machine)
        machine.must_as_service_user(CLI, "load", WIDE_MODEL, "--name", "wide", "--state-dir", STATE)
        try:
            yield
        finally:
            wait_until_alive(machine)
            machine.must_as_service_user(CLI, "unload", "wide", "--state-dir", STATE)


@pytest.fixture(scope="module")
def expected(installed: Machine) -> list[int]:
    """Return what programs by hand answer, without a limit."""
    by_hand = installed.must(*ASK, "--model", WIDE_MODEL, "--save-dir", "/tmp/wide-split")
    installed.must("rm", "-r", "/tmp/wide-split")
    return list(json.loads(by_hand)["token_ids"])


@pytest.mark.parametrize("service", SERVICES)
def test_the_kernel_has_the_limit_that_the_unit_says(machine: Machine, service: str) -> None:
    """A share of the machine's memory."""
    limit = memory_of(machine, service).limit_bytes()
    said = int(machine.property(service, "MemoryMax"))
    assert 0 <= said - limit < PAGE_BYTES
    total = 1024 * int(machine.must("grep", "MemTotal", "/proc/meminfo").split()[1])
    assert said == pytest.approx(SHARES[service] * total, rel=0.001)


@pytest.mark.parametrize("budget", ["auto", f"{LIMIT_BYTES}"])
def test_a_node_answers_within_the_limit_that_its_budget_is(machine: Machine, expected: list[int], budget: str) -> None:
    """What arrives, and what it reads for each token, is more than would fit; it is not ended for that."""
    memory = memory_of(machine, "shardnode")
    with with_wide_model(machine, budget):
        answer = json.loads(machine.must_as_service_user(*ASK, *OF_THE_SERVICE))
        assert answer["token_ids"] == expected
        assert memory.limit_bytes() == LIMIT_BYTES
        assert memory.peak_bytes() <= LIMIT_BYTES  # with the page cache, which may fill all of it
        assert answer["memory"]["node0"]["peak_rss_bytes"] < LIMIT_BYTES
        assert 0 < answer["memory"]["node0"]["peak_weight_bytes"] < WEIGHT_BYTES // 2
        assert memory.ended_for_want() == 0
        assert machine.property("shardnode", "NRestarts") == "0"


def test_a_node_that_takes_more_than_its_limit_is_ended_and_started_again(machine: Machine) -> None:
    """Its budget is more than its unit allows; whoever asks it is told that it is gone."""
    memory_of(machine, "shardnode")
    with with_wide_model(machine, "1GB"):
        asked = machine.run("runuser", "-u", "shardmesh", "--", *ASK, *OF_THE_SERVICE)
        assert asked.returncode == EXIT_NODE
        assert NODE in asked.stderr
        wait_until_restarted(machine, "shardnode")
    assert "code=killed, status=9/KILL" in machine.journal("shardnode")
