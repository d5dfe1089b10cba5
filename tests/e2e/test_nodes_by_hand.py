"""Do shardnodes that a person started serve one answer after another, over TCP and Unix sockets, and drain at the end?

Does not cover: peers that lie (test_hostile_nodes.py), local nodes (test_processes_end.py).
"""

from __future__ import annotations

import re
import signal
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from common.errors import EXIT_NODE, EXIT_OK, EXIT_SLICE
from common.rpc import channel_options
from protos.shardmesh.v1 import shard_pb2, shard_pb2_grpc
from tests.e2e.conftest import END_SECONDS, RunHere
from tests.support.cli import Running, Shell
from tests.support.waiting import wait_until

ASK = ["--world-size", "2", "--prompt", "hello", "--length", "24", "--temperature", "0"]
ENDLESS = ["--prompt", "hi", "--length", "30000", "--ignore-eos", "--temperature", "0"]


@dataclass(frozen=True, kw_only=True)
class HandStarted:
    """Two nodes: rank 0 on TCP loopback, rank 1 on a Unix socket."""

    shell: Shell
    running: list[Running]
    addresses: list[str]

    @property
    def option(self) -> str:
        """What --nodes takes."""
        return ",".join(self.addresses)


@pytest.fixture
def nodes(shell: Shell, sliced_once: Path) -> Iterator[HandStarted]:
    """Start both nodes, and have them drained and ended at the end."""
    listens = ["127.0.0.1:0", f"unix:{shell.home}/node1.sock"]
    running = [
        shell.start("shardnode", "--slice-dir", str(sliced_once / "split" / f"node{rank}"), "--listen", listen)
        for rank, listen in enumerate(listens)
    ]
    for node in running:
        wait_until(lambda node=node: "serving" in node.err or node.process.poll() is not None, limit_seconds=60,
                   what="a node that listens")  # fmt: skip
    addresses = [re.findall(r" on (\S+)$", node.err, re.MULTILINE)[0] for node in running]
    yield HandStarted(shell=shell, running=running, addresses=addresses)
    for node in running:
        if node.process.poll() is None:
            node.process.terminate()


def open_sequences(address: str) -> int:
    """Ask a node how many sequences it keeps."""
    with grpc.insecure_channel(address, options=channel_options()) as channel:
        stats = shard_pb2_grpc.ShardServiceStub(channel).GetStats(shard_pb2.GetStatsRequest(), timeout=5)
    count: int = stats.open_sequence_count
    return count


def test_nodes_started_by_hand_answer_as_local_ones_do(
    shell: Shell, here: RunHere, sliced_once: Path, nodes: HandStarted
) -> None:
    """In whatever order they are named; then they are healthy, SIGTERM drains them, and they exit with 0."""
    local = here("coordinator-cli", "generate", "--model", str(sliced_once), *ASK)
    assert (local.code, local.out.strip() != "") == (EXIT_OK, True)
    for order in (nodes.addresses, nodes.addresses[::-1]):
        finished = here("coordinator-cli", "generate", "--model", str(sliced_once), *ASK, "--nodes", ",".join(order))
        assert (finished.code, finished.out) == (EXIT_OK, local.out)
    with grpc.insecure_channel(nodes.addresses[0], options=channel_options()) as channel:
        health = health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=5)
    assert health.status == health_pb2.HealthCheckResponse.SERVING
    for node in nodes.running:
        node.process.send_signal(signal.SIGTERM)
    for node in nodes.running:
        finished = node.finish(END_SECONDS)
        assert (finished.code, "Traceback" in finished.err) == (EXIT_OK, False)
    assert not (shell.home / "node1.sock").exists()


def test_nodes_forget_a_coordinator_that_was_killed_and_serve_the_next(
    shell: Shell, here: RunHere, sliced_once: Path, nodes: HandStarted
) -> None:
    """kill -9 in mid-answer: both nodes free its keys and values, and answer the next one rightly."""
    first = here("coordinator-cli", "generate", "--model", str(sliced_once), *ASK, "--nodes", nodes.option)
    asking = shell.start("coordinator-cli", "generate", "--model", str(sliced_once), *ENDLESS, "--nodes", nodes.option)
    asking.wait_for_text()
    assert [open_sequences(address) for address in nodes.addresses] == [1, 1]
    asking.process.kill()
    for address in nodes.addresses:
        wait_until(lambda address=address: open_sequences(address) == 0, limit_seconds=END_SECONDS, what="no sequence")
    again = here("coordinator-cli", "generate", "--model", str(sliced_once), *ASK, "--nodes", nodes.option)
    assert (again.code, again.out) == (EXIT_OK, first.out)


@pytest.mark.parametrize(("rank", "number"), [(0, signal.SIGKILL), (1, signal.SIGSTOP), (0, signal.SIGTERM)])
def test_a_node_that_leaves_in_mid_answer_is_named(
    shell: Shell, sliced_once: Path, nodes: HandStarted, rank: int, number: signal.Signals
) -> None:
    """Killed or frozen: within 5 s; told to end: it lets the answer go on for its 5 s of grace, and exits with 0."""
    asking = shell.start("coordinator-cli", "generate", "--model", str(sliced_once), *ENDLESS, "--nodes", nodes.option)
    asking.wait_for_text()
    node = nodes.running[rank].process
    node.send_signal(number)
    try:
        finished = asking.finish(END_SECONDS if number != signal.SIGTERM else 2 * END_SECONDS)
    finally:
        if number == signal.SIGSTOP:
            node.send_signal(signal.SIGCONT)
    assert f"node {rank}" in finished.error_line("coordinator-cli", EXIT_NODE)
    if number == signal.SIGTERM:
        assert nodes.running[rank].finish(END_SECONDS).code == EXIT_OK


def test_a_node_that_holds_the_slice_of_another_plan_is_named(here: RunHere, sliced: Path, nodes: HandStarted) -> None:
    """The model here is cut by other ratios; found before the first token, with what differs."""
    ratio = ["--split-strategy", "ratio:3,1", "--save-dir", "other"]
    finished = here("coordinator-cli", "generate", "--model", str(sliced), *ASK, *ratio, "--nodes", nodes.option)
    line = finished.error_line("coordinator-cli", EXIT_SLICE)
    assert "node 0" in line
    assert "plan" in line
    one = here("coordinator-cli", "generate", "--model", str(sliced), "--save-dir", "one", "--nodes", nodes.addresses[1])
    assert "rank" in one.error_line("coordinator-cli", EXIT_SLICE)


def test_a_port_where_nobody_listens_is_named(here: RunHere, sliced_once: Path) -> None:
    """Within its 5 s, with the address and what to look at."""
    with socket.socket() as reserved:
        reserved.bind(("127.0.0.1", 0))  # and does not listen
        address = f"127.0.0.1:{reserved.getsockname()[1]}"
        save = ["--save-dir", str(sliced_once / "one")]
        finished = here("coordinator-cli", "generate", "--model", str(sliced_once), *save, "--nodes", address)
    assert address in finished.error_line("coordinator-cli", EXIT_NODE)
