"""Does everything end, in time and without a trace, when one of the processes dies, freezes or is interrupted?

Does not cover: death while slicing (test_slicing_interrupted.py), nodes started by hand (test_nodes_by_hand.py).
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from common.errors import EXIT_INTERRUPTED, EXIT_NODE, EXIT_OK
from tests.e2e.conftest import END_SECONDS
from tests.support.cli import Running, Shell
from tests.support.waiting import wait_until

ENDLESS = ["--world-size", "2", "--prompt", "hi", "--length", "30000", "--ignore-eos", "--temperature", "0"]

Answering = Callable[[], Running]


@pytest.fixture
def answering(shell: Shell, sliced_once: Path) -> Answering:
    """Return a function that starts an answer of minutes on two local nodes and returns once text comes."""

    def start() -> Running:
        running = shell.start("coordinator-cli", "generate", "--model", str(sliced_once), *ENDLESS)
        running.wait_for_text()
        assert len(running.nodes()) == 2
        return running

    return start


def test_a_killed_node_is_named_and_ends_the_answer(shell: Shell, answering: Answering) -> None:
    """SIGKILL to one node: within 5 s exit code 5, one line with its rank, and no other process left."""
    running = answering()
    running.nodes()[1].kill()
    finished = running.finish(END_SECONDS)
    assert "node 1" in finished.error_line("coordinator-cli", EXIT_NODE)
    shell.wait_until_nothing_is_left(END_SECONDS)


def test_a_frozen_node_is_named_and_does_not_stay(shell: Shell, answering: Answering) -> None:
    """SIGSTOP to one node: named within 5 s, and the stopped process itself is gone too."""
    running = answering()
    frozen = running.nodes()[0]
    started = time.monotonic()
    frozen.suspend()
    wait_until(lambda: running.err, limit_seconds=END_SECONDS, what="a line that names the frozen node")
    finished = running.finish(END_SECONDS)
    assert time.monotonic() - started < 2 * END_SECONDS
    assert "node 0" in finished.error_line("coordinator-cli", EXIT_NODE)
    shell.wait_until_nothing_is_left(END_SECONDS)
    assert not psutil.pid_exists(frozen.pid) or frozen.status() == psutil.STATUS_ZOMBIE


def test_ctrl_c_ends_the_answer_and_every_process(shell: Shell, answering: Answering) -> None:
    """Exit code 130, one word on stderr; what was written stays written."""
    running = answering()
    running.process.send_signal(signal.SIGINT)
    finished = running.finish(END_SECONDS)
    assert "interrupted" in finished.error_line("coordinator-cli", EXIT_INTERRUPTED)
    assert finished.out
    assert shell.leftovers() == []


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_nodes_end_by_themselves_when_the_coordinator_is_killed(
    shell: Shell, answering: Answering, number: signal.Signals
) -> None:
    """Nobody is left to tell them: within 5 s they are gone, and so is the directory of their sockets."""
    running = answering()
    running.process.send_signal(number)
    assert running.finish(END_SECONDS).code == -number
    shell.wait_until_nothing_is_left(END_SECONDS)
    assert running.err == ""


def test_nodes_end_when_their_parent_is_killed_before_they_started(shell: Shell, sliced_once: Path) -> None:
    """While the pool still imports it reads no lifeline; it ends all the same."""
    running = shell.start("coordinator-cli", "generate", "--model", str(sliced_once), *ENDLESS)
    # The coordinator, nursery and reader of the tokenizer, the pool, and the directory of their sockets.
    wait_until(lambda: len(shell.leftovers()) >= 5, limit_seconds=30, what="all of them run")
    running.process.kill()
    running.finish(END_SECONDS)
    shell.wait_until_nothing_is_left(END_SECONDS)
    assert running.err == ""


def test_the_end_of_the_pool_ends_the_answer(shell: Shell, answering: Answering) -> None:
    """SIGKILL to the process that forked the nodes: they die with it, and the coordinator says so."""
    running = answering()
    os.kill(running.nodes()[0].ppid(), signal.SIGKILL)
    finished = running.finish(END_SECONDS)
    assert "node" in finished.error_line("coordinator-cli", EXIT_NODE)
    shell.wait_until_nothing_is_left(END_SECONDS)


def test_a_reader_who_goes_away_ends_the_answer_quietly(shell: Shell, sliced_once: Path) -> None:
    """`... | head -c 1`: no traceback, no error, no process; nobody does work that nobody reads."""
    ours, theirs = os.pipe()
    running = shell.start("coordinator-cli", "generate", "--model", str(sliced_once), *ENDLESS, stdout=theirs)
    os.close(theirs)
    with open(ours, "rb", buffering=0) as reader:
        assert reader.read(1)
    finished = running.finish(END_SECONDS)
    assert (finished.code, finished.err) == (EXIT_OK, "")
    assert shell.leftovers() == []


def test_a_document_that_nobody_reads_is_no_error(shell: Shell, sliced_once: Path) -> None:
    """With --json the pipe may be closed before the only write; a full disk, in contrast, is one line."""
    arguments = ["generate", "--model", str(sliced_once), *ENDLESS[:4], "--length", "2", "--json"]
    ours, theirs = os.pipe()
    os.close(ours)
    unread = shell.start("coordinator-cli", *arguments, stdout=theirs)
    os.close(theirs)
    with open("/dev/full", "wb") as full:
        on_full_disk = shell.start("coordinator-cli", *arguments, stdout=full.fileno())
    finished = unread.finish()
    assert (finished.code, finished.err) == (EXIT_OK, "")
    assert "stdout" in on_full_disk.finish().error_line("coordinator-cli", 6)
