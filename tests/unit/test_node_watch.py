"""Does the coordinator's log say once who is heard, lost and back?

Does not cover: who counts as heard (coordinator/membership/reach.py).
"""

from __future__ import annotations

import logging

import pytest

from coordinator.models.served import Served
from coordinator.program.node_watch import NodeWatch
from protos.shardmesh.v1 import mesh_pb2


def node(name: str, silent_seconds: float, *, rank: int = -1, model: str = "") -> mesh_pb2.Node:
    """Return what the mesh knows of a node. Args: model: the identity of the model of its slice."""
    return mesh_pb2.Node(name=name, address=f"{name}:5", silent_seconds=silent_seconds, rank=rank, model_identity=model)


@pytest.mark.parametrize(
    ("looks", "entries"),
    [
        ([0.5, 0.1, 3.0], ["node heard node=attic address=attic:5"]),
        ([-1.0, -1.0], []),
        ([0.5, 3.6, 60.0], ["node heard node=attic address=attic:5",
                            "node lost node=attic address=attic:5 silent_seconds=3.6"]),
        ([0.5, 4.0, 0.2, 5.0], ["node heard node=attic address=attic:5",
                                "node lost node=attic address=attic:5 silent_seconds=4",
                                "node back node=attic address=attic:5 away_seconds=4",
                                "node lost node=attic address=attic:5 silent_seconds=5"]),
    ],
    ids=["heard", "never heard", "lost", "back and lost again"],
)  # fmt: skip
def test_each_change_is_one_entry(looks: list[float], entries: list[str], caplog: pytest.LogCaptureFixture) -> None:
    """However often it is looked, and whoever else is there."""
    caplog.set_level(logging.INFO)
    known: list[mesh_pb2.Node] = []
    watch = NodeWatch(lambda: known, clock=lambda: 100.0)
    for silent_seconds in looks:
        known[:] = [node("attic", silent_seconds), node("kitchen", 0.1)]
        watch.look()
    assert [record.getMessage() for record in caplog.records if "attic" in record.getMessage()] == entries
    assert caplog.text.count("kitchen address") == 1


def test_a_node_that_was_removed_is_not_lost(caplog: pytest.LogCaptureFixture) -> None:
    """Its owner did that; when it joins again it is heard again."""
    caplog.set_level(logging.INFO)
    known = [node("attic", 0.1)]
    watch = NodeWatch(lambda: known)
    watch.look()
    known.clear()
    watch.look()
    known.append(node("attic", 0.1))
    watch.look()
    assert "lost" not in caplog.text
    assert caplog.text.count("node heard") == 2


def test_who_else_is_to_know_is_told_of_all_nodes_at_each_look() -> None:
    """Of those that were never heard too: Prometheus is to see them down."""
    seen: list[list[str]] = []
    known = [node("attic", 0.1), node("kitchen", -1.0)]
    watch = NodeWatch(lambda: known, seen=lambda nodes: seen.append([node.name for node in nodes]))
    watch.look()
    del known[0]
    watch.look()
    assert seen == [["attic", "kitchen"], ["kitchen"]]


def test_what_a_node_serves_is_told_by_the_name_of_its_model(caplog: pytest.LogCaptureFixture) -> None:
    """When it is heard, when it is back, and when it turns to another one; also of a model whose record comes late."""
    caplog.set_level(logging.INFO)
    names: dict[str, str] = {}
    known: list[mesh_pb2.Node] = []

    def served(asked: mesh_pb2.Node) -> Served | None:
        name = names.get(asked.model_identity)
        return None if name is None else Served(model=name, rank=asked.rank, ranks=2)

    watch = NodeWatch(lambda: known, served, clock=lambda: 100.0)
    looks = [
        (node("attic", 0.1), {}),
        (node("attic", 0.1, rank=1, model="a1"), {}),
        (node("attic", 0.1, rank=1, model="a1"), {"a1": "tiny"}),
        (node("attic", 0.1, rank=1, model="a1"), {"a1": "tiny"}),
        (node("attic", 4.0, rank=1, model="a1"), {"a1": "tiny"}),
        (node("attic", 0.1, rank=1, model="a1"), {"a1": "tiny"}),
        (node("attic", 0.1), {}),
    ]
    for said, there in looks:
        known[:], names = [said], there
        watch.look()
    about = "node=attic address=attic:5"
    assert [record.getMessage() for record in caplog.records] == [
        f"node heard {about}", f"node serves {about} model=tiny rank=1 ranks=2",
        f"node lost {about} silent_seconds=4", f"node back {about} model=tiny rank=1 ranks=2 away_seconds=4",
        f"node serves nothing {about}",
    ]  # fmt: skip
