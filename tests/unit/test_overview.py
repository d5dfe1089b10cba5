"""Are the rates of an overview those of the last seconds, and is a node asked once a second at most?

Does not cover: a real mesh (tests/contract/test_observing.py), how it looks (test_screens.py).
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from unittest import mock

import grpc
import pytest

from common.wire.rpc import make_server
from coordinator.program import node_looks
from coordinator.program.node_looks import NodeLooks
from coordinator.program.overview import lately_per_second
from protos.shardmesh.v1 import mesh_pb2, shard_pb2, shard_pb2_grpc
from tests.support.waiting import wait_until

Answering = Callable[[], shard_pb2.GetStatsResponse]


@pytest.mark.parametrize(
    ("seconds", "idle", "rate"),
    [
        ([], 5.0, 0.0),
        ([0.5, 0.5], 0.1, 2.0),
        ([0.5, 0.5], 0.5, 2.0),
        ([0.5, 0.5], 3.5, 0.5),
        ([30.0], 1.0, 1 / 30),
        ([60.0, 0.1, 0.1], 0.0, 10.0),
        ([0.1] * 1000 + [0.5] * 100, 0.0, 2.0),
    ],
    ids=["none", "steady", "due", "stalled", "slow", "slow before", "slower now"],
)
def test_the_rate_of_an_answer_is_that_of_the_last_seconds(seconds: list[float], idle: float, rate: float) -> None:
    """A token that is late makes it fall; how fast it was a minute ago counts no more."""
    assert lately_per_second(seconds, idle) == pytest.approx(rate)


class Node(shard_pb2_grpc.ShardServiceServicer):
    """A node that says what it is told to, when it may."""

    def __init__(self, read_bytes: list[int], incarnation: int = 1) -> None:
        self.read_bytes, self.incarnation, self.asked = read_bytes, incarnation, 0
        self.may_answer = threading.Event()
        self.may_answer.set()

    def GetStats(  # noqa: N802 - the name is the contract's
        self, request: shard_pb2.GetStatsRequest, context: grpc.ServicerContext
    ) -> shard_pb2.GetStatsResponse:
        self.asked += 1
        self.may_answer.wait(10)
        read = self.read_bytes[min(self.asked, len(self.read_bytes)) - 1]
        return shard_pb2.GetStatsResponse(incarnation=self.incarnation, read_bytes=read, rss_bytes=7)


class Nodes:
    """Two of them, and who asks them."""

    def __init__(self) -> None:
        self.nodes = {"kitchen": Node([1000, 3000]), "attic": Node([5])}
        self._servers = []
        addresses = {}
        for name, node in self.nodes.items():
            server = make_server(4)
            shard_pb2_grpc.add_ShardServiceServicer_to_server(node, server)
            addresses[name] = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
            server.start()
            self._servers.append(server)
        self.silent = dict.fromkeys(addresses, 0.1)
        self.looks = NodeLooks(
            lambda: [mesh_pb2.Node(name=name, address=address, silent_seconds=self.silent[name])
                     for name, address in addresses.items()],
            lambda name: grpc.insecure_channel(addresses[name]),
        )  # fmt: skip

    def close(self) -> None:
        """End all."""
        for node in self.nodes.values():
            node.may_answer.set()
        self.looks.close()
        for server in self._servers:
            server.stop(0).wait()


@pytest.fixture
def nodes() -> Iterator[Nodes]:
    """Return two nodes, asked ten times a second."""
    with mock.patch.object(node_looks, "ASK_SECONDS", 0.1):
        made = Nodes()
        try:
            yield made
        finally:
            made.close()


def test_nodes_are_asked_from_the_first_look_on(nodes: Nodes) -> None:
    """Never before; the first look finds nothing and waits for nothing, a later one rates too."""
    assert [node.asked for node in nodes.nodes.values()] == [0, 0]
    assert nodes.looks.latest() == {}
    wait_until(lambda: len(nodes.looks.latest()) == 2, limit_seconds=10, what="an answer of both")
    wait_until(lambda: (look := nodes.looks.latest()["kitchen"]).read_bytes_per_second is not None
               and look.read_bytes_per_second > 0, limit_seconds=10, what="a rate")  # fmt: skip
    assert nodes.looks.latest()["attic"].stats.rss_bytes == 7


def test_a_node_that_does_not_answer_holds_up_no_other(nodes: Nodes) -> None:
    """It is there in heartbeats, and silent when asked."""
    nodes.nodes["attic"].may_answer.clear()
    nodes.looks.latest()
    wait_until(lambda: nodes.nodes["kitchen"].asked > 3, limit_seconds=10, what="more questions to the other")
    assert set(nodes.looks.latest()) == {"kitchen"}


def test_a_node_that_is_heard_no_more_is_not_asked(nodes: Nodes) -> None:
    """Nor told of."""
    nodes.looks.latest()
    wait_until(lambda: len(nodes.looks.latest()) == 2, limit_seconds=10, what="an answer of both")
    nodes.silent["attic"] = 60.0
    wait_until(lambda: set(nodes.looks.latest()) == {"kitchen"}, limit_seconds=10, what="only one is told of")


def test_nobody_is_asked_once_nobody_wants_to_know(nodes: Nodes) -> None:
    """The thread ends; another look begins again."""
    with mock.patch.object(node_looks, "WANTED_SECONDS", 0.2):
        nodes.looks.latest()
        wait_until(lambda: nodes.looks._thread is None, limit_seconds=10, what="the end of the thread")
    nodes.looks.latest()
    wait_until(lambda: len(nodes.looks.latest()) == 2, limit_seconds=10, what="an answer of both")


def test_bytes_read_count_from_the_start_of_a_node(nodes: Nodes) -> None:
    """Another process counts from 0 again, and a rate is never below it."""
    kitchen = nodes.nodes["kitchen"]
    kitchen.read_bytes = [9000]
    nodes.looks.latest()
    wait_until(lambda: kitchen.asked > 1, limit_seconds=10, what="an answer")
    kitchen.read_bytes, kitchen.incarnation = [10], 2
    asked = kitchen.asked
    wait_until(lambda: kitchen.asked > asked + 2, limit_seconds=10, what="more answers")
    assert nodes.looks.latest()["kitchen"].read_bytes_per_second == 0
