"""A node that is slowed in one way: is it named, for the right cause, and does the advice give what it says?

Covers: a share of a core, a slow disk, a slow link, each by the system and none by a hook of ours; `why` as a person
types it. With SHARDMESH_THOROUGH also what comes of it when a person does what is advised. Does not cover: other
plans (test_why_plans.py), the arithmetic (tests/property/test_critical_path.py, tests/unit/test_advice.py).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.support.documented_keys import documented, keys
from tests.support.followed_advice import TURNS, check
from tests.support.network_hosts import why_not as why_no_hosts
from tests.support.process_limits import why_not as why_no_limits
from tests.support.slowed_mesh import OTHER, SHORTER, SLOW, SlowedMesh
from tests.support.thorough import THOROUGH

WHY_NOT = why_no_hosts() or why_no_limits()
pytestmark = pytest.mark.skipif(bool(WHY_NOT), reason=WHY_NOT or "there can be hosts")

CORE_SHARE, DISK_RATE, LINK_MBIT = 0.1, 80e6, 2.0
Slow = Callable[[SlowedMesh], None]
WAYS: dict[str, Slow] = {
    "core_wait": lambda slowed: slowed.slow_processor(CORE_SHARE),
    "disk": lambda slowed: slowed.slow_disk(DISK_RATE),
    "link": lambda slowed: slowed.slow_link(LINK_MBIT),
}


@pytest.fixture(autouse=True)
def lifted(slowed: SlowedMesh) -> Iterator[None]:
    """Have no test leave the node slow for the next one, whatever becomes of it."""
    yield
    slowed.lift()


@pytest.fixture(scope="module")
def slowed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SlowedMesh]:
    """Return a mesh of two nodes, one of which streams its weights."""
    with SlowedMesh(tmp_path_factory.mktemp("model")) as made:
        yield made
    assert made.mesh.hosts.left() == []


def advised(found: dict[str, Any], kind: str) -> dict[str, Any]:
    """Return the advice of a kind, about the slow node or about all; others may lack a core too, beside other tests."""
    (advice,) = [one for one in found["advice"] if one["kind"] == kind and one["node"] in ("", SLOW)]
    return dict(advice)


@pytest.mark.parametrize("cause", WAYS)
def test_a_slowed_node_is_named_for_what_slows_it(slowed: SlowedMesh, cause: str) -> None:
    """Its share is most of a token, the parts add up, and a person reads its name first."""
    with slowed.answering():
        WAYS[cause](slowed)
        found = slowed.wait_for(cause)
        slowed.lift()
    assert found["said"].startswith(f"{SLOW}'s ")
    assert found["model"] == "slowed"
    assert keys(found) == documented("why")
    assert sum(part["seconds"] for part in found["parts"]) == pytest.approx(found["seconds_per_sweep"], rel=0.01)
    assert {part["cause"] for part in found["parts"]} <= {*WAYS, "processor", "queue", "coordinator"}


def test_work_for_others_is_named(slowed: SlowedMesh) -> None:
    """Somebody else's long prompt is read on the same nodes: rounds of this answer wait for their turns."""
    with slowed.answering(SHORTER), slowed.read_for_another():
        found = slowed.wait_for("queue", (SLOW, OTHER))
    assert "work for others: " in found["said"]


thorough = pytest.mark.skipif(not THOROUGH, reason="a minute each; SHARDMESH_THOROUGH=1 runs them")


@thorough
def test_cores_of_its_own_give_what_was_said(slowed: SlowedMesh) -> None:
    """The quota is lifted, while the same answer goes on."""
    turns = []
    with slowed.answering():
        for _ in range(TURNS):
            slowed.slow_processor(CORE_SHARE)
            slowed.wait_for("core_wait")
            before = slowed.steady()
            slowed.lift()
            turns.append((before, slowed.steady()))
    check("processor", turns)


@thorough
def test_more_budget_gives_what_was_said(slowed: SlowedMesh) -> None:
    """The node is started again with the budget that was named; its disk stays as slow."""
    turns = []
    for _ in range(TURNS):
        with slowed.answering():
            slowed.slow_disk(DISK_RATE)
            slowed.wait_for("disk")
            before = slowed.steady()
        slowed.restart_node(str(advised(before, "budget")["bytes"]))
        with slowed.answering():
            slowed.slow_disk(DISK_RATE)
            turns.append((before, slowed.steady()))
        slowed.restart_node()
    check("budget", turns)


@thorough
def test_half_the_bytes_give_what_was_said(slowed: SlowedMesh) -> None:
    """The coordinator is started again with --wire-dtype bfloat16; the link stays as slow."""
    turns = []
    slowed.slow_link(LINK_MBIT)
    for _ in range(TURNS):
        with slowed.answering():
            slowed.wait_for("link")
            before = slowed.steady()
        slowed.restart_coordinator("--wire-dtype", "bfloat16")
        with slowed.answering():
            turns.append((before, slowed.steady()))
        slowed.restart_coordinator()
    slowed.lift()
    check("bfloat16", turns)
