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

from common.errors import EXIT_INTERRUPTED, EXIT_NODE, EXIT_OK, EXIT_SLICE
from common.wire.rpc import channel_options
from protos.shardmesh.v1 import shard_pb2, shard_pb2_grpc
from tests.e2e.conftest import END_SECONDS, RunHere
from tests.support.cli import Running, Shell
from tests.support.waiting import wait_until

ASK = ["--world-size", "2", "--prompt", "hello", "--length", "24", "--temperature", "0"]
ENDLESS = ["--prompt", "x" * 100, "--length", "30000", "--ignore-eos", "--temperature", "0"]


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

    def ask_endlessly(self, model: Path) -> Running:
        """Start an answer of minutes on both nodes and return once text comes."""
        running = self.shell.start(
            "coordinator-cli", "generate", "--model", str(model), *ENDLESS, "--nodes", self.option
        )
        running.wait_for_text()
        return running


def start_node(shell: Shell, model: Path, rank: int) -> Running:
    """Start the node of a rank without waiting for it."""
    listen = "127.0.0.1:0" if rank == 0 else f"unix:{shell.home}/node1.sock"
    return shell.start("shardnode", "--slice-dir", str(model / "split" / f"node{rank}"), "--listen", listen)


def wait_until_serving(node: Running) -> str:
    """Wait until a node listens and return its address."""
    wait_until(
        lambda: "serving" in node.err or node.process.poll() is not None, limit_seconds=60, what="a node that listens"
    )
    return str(re.findall(r" on (\S+)$", node.err, re.MULTILINE)[0])


def start_both(shell: Shell, model: Path) -> HandStarted:
    """Start both nodes and wait until they listen."""
    running = [start_node(shell, model, rank) for rank in range(2)]
    return HandStarted(shell=shell, running=running, addresses=[wait_until_serving(node) for node in running])


@pytest.fixture(scope="module")
def nodes(sliced_once: Path) -> Iterator[HandStarted]:
    """Return two nodes that outlive every test; after the last SIGTERM drains them and they exit with 0."""
    shell = Shell()
    try:
        started = start_both(shell, sliced_once)
        yield started
        for node in started.running:
            node.process.send_signal(signal.SIGTERM)
        for node in started.running:
            finished = node.finish(END_SECONDS)
            assert (finished.code, "Traceback" in finished.err) == (EXIT_OK, False)
        assert not (shell.home / "node1.sock").exists()
        assert shell.leftovers() == []
        assert not shell.torch_imports, "of prompts of many rows, and tokens after them"
    finally:
        shell.close()


def open_sequences(address: str) -> int:
    """Ask a node how many sequences it keeps."""
    with grpc.insecure_channel(address, options=channel_options()) as channel:
        stats = shard_pb2_grpc.ShardServiceStub(channel).GetStats(shard_pb2.GetStatsRequest(), timeout=5)
    count: int = stats.open_sequence_count
    return count


def test_nodes_started_by_hand_answer_as_local_ones_do(here: RunHere, sliced_once: Path, nodes: HandStarted) -> None:
    """In whatever order they are named, over TCP and Unix sockets together; and both say that they are healthy."""
    local = here("coordinator-cli", "generate", "--model", str(sliced_once), *ASK)
    assert (local.code, local.out.strip() != "") == (EXIT_OK, True)
    for order in (nodes.addresses, nodes.addresses[::-1]):
        finished = here("coordinator-cli", "generate", "--model", str(sliced_once), *ASK, "--nodes", ",".join(order))
        assert (finished.code, finished.out) == (EXIT_OK, local.out)
    for address in nodes.addresses:
        with grpc.insecure_channel(address, options=channel_options()) as channel:
            health = health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=5)
        assert health.status == health_pb2.HealthCheckResponse.SERVING


def test_nodes_forget_a_coordinator_that_was_killed(sliced_once: Path, nodes: HandStarted) -> None:
    """kill -9 in mid-answer: within 5 s both nodes have freed its keys and values."""
    asking = nodes.ask_endlessly(sliced_once)
    assert [open_sequences(address) for address in nodes.addresses] == [1, 1]
    asking.process.kill()
    asking.finish(END_SECONDS)
    for address in nodes.addresses:
        wait_until(lambda address=address: open_sequences(address) == 0, limit_seconds=END_SECONDS, what="no sequence")


def test_a_frozen_node_is_named_and_serves_again_once_it_thaws(
    here: RunHere, sliced_once: Path, nodes: HandStarted
) -> None:
    """SIGSTOP: named within 5 s. SIGCONT: the next answer is right, with nothing restarted."""
    asking = nodes.ask_endlessly(sliced_once)
    frozen = nodes.running[1].process
    frozen.send_signal(signal.SIGSTOP)
    try:
        finished = asking.finish(END_SECONDS)
    finally:
        frozen.send_signal(signal.SIGCONT)
    assert "node 1" in finished.error_line("coordinator-cli", EXIT_NODE)
    again = here("coordinator-cli", "generate", "--model", str(sliced_once), *ASK, "--nodes", nodes.option)
    assert again.code == EXIT_OK


def test_a_killed_node_can_be_started_again_and_one_told_to_end_completes_the_answer(
    shell: Shell, here: RunHere, sliced_once: Path
) -> None:
    """SIGKILL in mid-answer: named; a new process takes over its socket. SIGTERM: the answer goes on, exit code 0."""
    nodes = start_both(shell, sliced_once)
    first = here("coordinator-cli", "generate", "--model", str(sliced_once), *ASK, "--nodes", nodes.option)
    asking = nodes.ask_endlessly(sliced_once)
    nodes.running[1].process.kill()
    assert "node 1" in asking.finish(END_SECONDS).error_line("coordinator-cli", EXIT_NODE)

    wait_until_serving(start_node(shell, sliced_once, rank=1))
    again = here("coordinator-cli", "generate", "--model", str(sliced_once), *ASK, "--nodes", nodes.option)
    assert (first.code, again.code, again.out) == (EXIT_OK, EXIT_OK, first.out)

    asking = nodes.ask_endlessly(sliced_once)
    ending = nodes.running[0]
    ending.process.send_signal(signal.SIGTERM)
    wait_until(
        lambda: "ending sessions=1 most_seconds=20" in ending.err, limit_seconds=END_SECONDS, what="a word of it"
    )
    so_far = len(asking.out)
    wait_until(lambda: len(asking.out) > so_far, limit_seconds=END_SECONDS, what="the answer goes on")
    asking.process.send_signal(signal.SIGINT)
    assert asking.finish(END_SECONDS).code == EXIT_INTERRUPTED
    assert ending.finish(END_SECONDS).code == EXIT_OK
    assert "told to end signal=SIGTERM" in ending.err
    for node in shell.running():
        node.process.send_signal(signal.SIGTERM)


def test_a_node_that_holds_the_slice_of_another_plan_is_named(here: RunHere, sliced: Path, nodes: HandStarted) -> None:
    """The model here is cut by other ratios; found before the first token, with what differs."""
    ratio = ["--split-strategy", "ratio:3,1", "--save-dir", "other"]
    finished = here("coordinator-cli", "generate", "--model", str(sliced), *ASK, *ratio, "--nodes", nodes.option)
    line = finished.error_line("coordinator-cli", EXIT_SLICE)
    assert "node 0" in line
    assert "plan" in line
    one = here(
        "coordinator-cli", "generate", "--model", str(sliced), "--save-dir", "one", "--nodes", nodes.addresses[1]
    )
    assert "rank" in one.error_line("coordinator-cli", EXIT_SLICE)


def test_a_port_where_nobody_listens_is_named(here: RunHere, sliced_once: Path) -> None:
    """Within its 5 s, with the address and what to look at."""
    with socket.socket() as reserved:
        reserved.bind(("127.0.0.1", 0))  # and does not listen
        address = f"127.0.0.1:{reserved.getsockname()[1]}"
        save = ["--save-dir", str(sliced_once / "one")]
        finished = here("coordinator-cli", "generate", "--model", str(sliced_once), *save, "--nodes", address)
    assert address in finished.error_line("coordinator-cli", EXIT_NODE)
