"""Does another split, one more node or one less give what `why` says of it, when the model is loaded so?

Covers: the command that the advice names, typed as it stands, on real meshes whose nodes are slowed by the system.
With SHARDMESH_THOROUGH alone: two minutes each. Does not cover: what leaves the plan as it is (test_why.py), the
arithmetic (tests/unit/test_advice.py).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.support.followed_advice import TURNS, check
from tests.support.network_hosts import why_not as why_no_hosts
from tests.support.process_limits import why_not as why_no_limits
from tests.support.slowed_mesh import BUDGET, OTHER, SLOW, SPARE, SlowedMesh
from tests.support.thorough import THOROUGH

WHY_NOT = why_no_hosts() or why_no_limits()
pytestmark = [
    pytest.mark.skipif(bool(WHY_NOT), reason=WHY_NOT or "there can be hosts"),
    pytest.mark.skipif(not THOROUGH, reason="two minutes each; SHARDMESH_THOROUGH=1 runs them"),
]

CORE_SHARE, DISK_RATE, LINK_MBIT = 0.3, 80e6, 2.0
Found = dict[str, Any]


@pytest.fixture
def mesh_of(tmp_path: Path) -> Iterator[Callable[[Mapping[str, str]], SlowedMesh]]:
    """Return what starts a mesh. Its argument: budgets of nodes, by name; empty: none."""
    made: list[SlowedMesh] = []

    def start(budgets: Mapping[str, str]) -> SlowedMesh:
        made.append(SlowedMesh(tmp_path, budgets))
        return made[-1]

    yield start
    for one in made:
        one.close()
        assert one.mesh.hosts.left() == []


def followed(slowed: SlowedMesh, kind: str, first: list[str], slow: Callable[[], object]) -> tuple[Found, Found]:
    """Ask over some nodes, do what a kind of advice says, ask again. Args: slow: done to the nodes before each."""
    slowed.load(first)
    with slowed.answering():
        slow()
        before = slowed.steady()
    (advice,) = [one for one in before["advice"] if one["kind"] == kind]
    how = re.search(r"\(load --nodes (\S+?)(?: --split-strategy (\S+))?\)", advice["text"])
    assert how, advice["text"]
    slowed.load(how[1].replace("NEW", SPARE).split(","), how[2] or "")
    with slowed.answering():
        return before, slowed.steady()


def test_another_split_gives_what_was_said_where_a_node_lacks_a_processor(mesh_of: Any) -> None:
    """What the starved node held is held by the other one."""
    slowed = mesh_of({OTHER: "", SLOW: ""})
    check("split", [
        followed(slowed, "split", [OTHER, SLOW], lambda: slowed.slow_processor(CORE_SHARE)) for _ in range(TURNS)
    ])  # fmt: skip


def test_another_split_gives_what_was_said_where_a_disk_is_slow(mesh_of: Any) -> None:
    """The node holds as much as stays in its memory."""
    slowed = mesh_of({OTHER: "", SLOW: BUDGET})
    turns = [followed(slowed, "split", [OTHER, SLOW], lambda: slowed.slow_disk(DISK_RATE)) for _ in range(TURNS)]
    check("split", turns, is_lasting=False)


def test_one_more_node_gives_what_was_said(mesh_of: Any) -> None:
    """A third one, with as much memory and as slow a disk as the first two have."""
    nodes = {OTHER: BUDGET, SLOW: BUDGET, SPARE: BUDGET}
    slowed = mesh_of(nodes)

    def slow() -> None:
        for name in nodes:
            slowed.slow_disk(DISK_RATE, name)

    turns = [followed(slowed, "node", [OTHER, SLOW], slow) for _ in range(TURNS)]
    check("node", turns, is_lasting=False)


def test_one_node_less_gives_what_was_said(mesh_of: Any) -> None:
    """The one behind a slow link; the two others hold what it held."""
    slowed = mesh_of({OTHER: "", SLOW: "", SPARE: ""})
    turns = [
        followed(slowed, "without", [OTHER, SLOW, SPARE], lambda: slowed.slow_link(LINK_MBIT)) for _ in range(TURNS)
    ]
    check("without", turns, is_lasting=False)
