"""Do the units' limits of memory hold, and does a node that was told `auto` keep below its own?

Covers: MemoryMax of both units as the kernel has it, a model most of which does not fit, a node that takes more.
Does not cover: what a budget comes to (tests/unit, tests/e2e/test_memory_budget.py), control groups of version 2.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.support.machine_memory import ServiceMemory
from tests.support.systemd_machine import Machine
from tests.support.systemd_services import (
    LIMIT_SECONDS,
    PROGRAMS,
    SERVICES,
    STATE,
    WIDE_MODEL,
    node_options,
    setting,
    wait_until_alive,
)
from tests.support.waiting import wait_until

CLI = f"{PROGRAMS}/coordinator-cli"
GENERATE = (CLI, "generate", "--temperature", "0", "--ignore-eos", "--length", "8", "--json", "--prompt")
OF_THE_SERVICE = ("--coordinator", f"unix:{STATE}/coordinator.sock", "--state-dir", STATE)
WORD = "1 2 3 "
SHARES = {"coordinator": 0.5, "shardnode": 0.8}
"""What the units say of the machine's memory."""
SMALL_BYTES, ROOMY_BYTES = 375 << 20, 550 << 20
"""Limits. The program takes 290 MB of either, a third of that the pages of its libraries."""
WEIGHT_BYTES = 470_000_000
"""Of the wide model, all but its embedding and head, which the coordinator has."""
KV_BYTES_PER_TOKEN = 1 << 16
PAGE_BYTES = 4096
KV_METRIC = "shardmesh_node_kv_budget_bytes"
METRICS_PORT = 9400
ENDED = "code=killed, status=9/KILL"


def memory_of(machine: Machine, service: str) -> ServiceMemory:
    """Return what the kernel counts for a service."""
    if machine.memory is None:
        pytest.skip("no memory controller of version 1 that a machine could be lent")
    return machine.memory.of(service)


@pytest.fixture(scope="module", autouse=True)
def nothing_stays_loaded(installed: Machine) -> Iterator[None]:
    """Take the model off again once all is seen; until then each test finds what the one before has loaded."""
    yield
    installed.must("systemctl", "reset-failed", "shardnode")
    installed.must("systemctl", "restart", "shardnode")
    wait_until_alive(installed)
    installed.run("runuser", "-u", "shardmesh", "--", CLI, "unload", "wide", "--state-dir", STATE)


@contextmanager
def wide_model_on_a_node(machine: Machine, budget: str, limit_bytes: int) -> Iterator[None]:
    """Give the node a budget and a limit, load the model onto it, and start it once more as a device would be."""
    with (
        node_options(machine, f'memory-budget = "{budget}"\nmetrics-port = {METRICS_PORT}\n'),
        setting(machine, "shardnode", f"MemoryMax={limit_bytes}"),
    ):
        wait_until_alive(machine)
        load_wide_model(machine)
        machine.must("systemctl", "restart", "shardnode")
        wait_until_alive(machine)
        yield


def load_wide_model(machine: Machine) -> None:
    """Have the model on the node, which takes a moment where it is already."""
    machine.must_as_service_user(CLI, "load", WIDE_MODEL, "--name", "wide", "--state-dir", STATE)


def kv_budget_bytes(machine: Machine) -> int:
    """Return what the node has for keys and values, from its metrics page."""
    ask = f"import urllib.request as u; print(u.urlopen('http://127.0.0.1:{METRICS_PORT}/metrics').read().decode())"
    page = machine.must(f"{PROGRAMS}/python", "-c", ask)
    return next(int(float(line.split()[1])) for line in page.splitlines() if line.startswith(f"{KV_METRIC} "))


def token_ids(machine: Machine, prompt: str) -> list[int]:
    """Return what the services answer."""
    return list(json.loads(machine.must_as_service_user(*GENERATE, prompt, *OF_THE_SERVICE))["token_ids"])


@pytest.fixture(scope="module")
def expected(installed: Machine) -> list[int]:
    """Return what programs by hand answer to WORD, without a limit."""
    by_hand = installed.must(*GENERATE, WORD, "--model", WIDE_MODEL, "--save-dir", "/tmp/wide-split")
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


@pytest.mark.parametrize(("budget", "limit_bytes"), [("auto", SMALL_BYTES), (str(ROOMY_BYTES), ROOMY_BYTES)])
def test_a_node_keeps_within_the_limit_that_is_its_budget(
    machine: Machine, expected: list[int], budget: str, limit_bytes: int
) -> None:
    """The weights that arrive, and are read for each token, do not fit; a prompt fills all of its keys and values."""
    memory = memory_of(machine, "shardnode")
    with wide_model_on_a_node(machine, budget, limit_bytes):
        assert token_ids(machine, WORD) == expected
        assert token_ids(machine, WORD * (kv_budget_bytes(machine) // KV_BYTES_PER_TOKEN // len(WORD) - 3))
        assert memory.limit_bytes() == limit_bytes < WEIGHT_BYTES + kv_budget_bytes(machine)
        assert memory.peak_bytes() <= limit_bytes
        assert memory.ended_for_want() == 0
        assert machine.property("shardnode", "NRestarts") == "0"


def test_a_node_that_takes_more_than_its_limit_is_ended_and_started_again(machine: Machine) -> None:
    """Its budget is more than its unit allows, and all that it has stays in memory."""
    memory_of(machine, "shardnode")
    wait_until_alive(machine)
    load_wide_model(machine)
    before = machine.journal("shardnode").count(ENDED)
    with node_options(machine, 'memory-budget = "2GB"\n'), setting(machine, "shardnode", f"MemoryMax={SMALL_BYTES}"):
        wait_until(
            lambda: machine.property("shardnode", "NRestarts") != "0",
            limit_seconds=LIMIT_SECONDS, what="it is ended and started again",
        )  # fmt: skip
    assert machine.journal("shardnode").count(ENDED) > before
