"""Does `top` live in a terminal, end by q and Ctrl-C with the terminal as it was, and outlive its coordinator?

Covers: a real terminal, a real mesh on loopback; that no log of a run has a word of what was asked or answered.
Does not cover: what is on the screen (tests/unit/test_screens.py, tests/contract/test_observing.py).
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from coordinator.membership.reach import is_alive, owner_access
from coordinator.membership.state import init_mesh
from tests.support.cli import PROGRAMS, Running, Shell
from tests.support.loaded_here import load_here
from tests.support.mesh_members import joined
from tests.support.terminal import CTRL_C, Terminal
from tests.support.tiny_checkpoint import write_tiny_checkpoint
from tests.support.waiting import wait_until

ALT_SCREEN, OWN_SCREEN = "\x1b[?1049h", "\x1b[?1049l"
ENVIRONMENT = {**os.environ, "TERM": "xterm", "LANG": "C.UTF-8"}
LIMIT_SECONDS = 60.0


class RunningMesh:
    """A coordinator program, a node of its own process, and a model called tiny."""

    def __init__(self, directory: Path) -> None:
        self.shell = Shell()
        self.state = self.shell.home / "state"
        self.model = write_tiny_checkpoint(directory / "tiny")
        init_mesh(self.state, "home")
        self.coordinator = self.start_coordinator()
        self.node = self._start_node()
        access = owner_access(self.state)
        wait_until(lambda: is_alive(access.nodes()[0]), limit_seconds=LIMIT_SECONDS, what="the node is heard")
        load_here(self.state, self.model, ["kitchen"])

    def start_coordinator(self, port: str = "0") -> Running:
        """Start it, or start it again where nodes look for it."""
        started = self.shell.start(
            "coordinator", "--state-dir", str(self.state), "--master-port", port, "--log-level", "debug",
            "--log-format", "json",
        )  # fmt: skip
        _wait_for(started, "coordinator has started")
        return started

    @property
    def port(self) -> str:
        """Where members reach the coordinator."""
        return self.coordinator.err.partition('"address": "127.0.0.1:')[2].partition('"')[0]

    def _start_node(self) -> Running:
        data = self.shell.home / "kitchen"
        joined(self.state, "kitchen", data)
        started = self.shell.start("shardnode", "--config", str(data / "shardnode.toml"), "--log-level", "debug")
        _wait_for(started, "serving")
        return started

    def top(self, **environment: str) -> Terminal:
        """Start the view in a terminal of its own."""
        command = [
            str(PROGRAMS / "coordinator-cli"),
            "top",
            "--interval-seconds",
            "0.2",
            "--state-dir",
            str(self.state),
        ]
        return Terminal(command, {**ENVIRONMENT, **environment})


def _wait_for(running: Running, text: str) -> None:
    wait_until(
        lambda: text in running.err or running.process.poll() is not None, limit_seconds=LIMIT_SECONDS, what=text
    )
    assert running.process.poll() is None, running.err


@pytest.fixture(scope="module")
def mesh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningMesh]:
    """Return a mesh of real programs."""
    made = RunningMesh(tmp_path_factory.mktemp("mesh"))
    try:
        yield made
    finally:
        made.shell.close()


@pytest.mark.parametrize("key", [b"q", CTRL_C], ids=["q", "Ctrl-C"])
def test_the_view_lives_until_a_key_ends_it(mesh: RunningMesh, key: bytes) -> None:
    """On a screen of its own, which is gone afterwards; the end that somebody wanted is no failure."""
    terminal = mesh.top()
    try:
        terminal.wait_for("kitchen")
        terminal.wait_for("[")
        assert ALT_SCREEN in terminal.text
        terminal.press(key)
        assert terminal.finish() == 0
        assert OWN_SCREEN in terminal.text
        assert terminal.text.endswith("\x1b[?25h") or "\x1b[?25h" in terminal.text.rpartition("kitchen")[2]
    finally:
        terminal.close()


def test_what_signals_end_leaves_the_terminal_as_it_was(mesh: RunningMesh) -> None:
    """A session that is closed, a `kill`: the screen is the shell's again."""
    terminal = mesh.top()
    try:
        terminal.wait_for("kitchen")
        terminal.process.send_signal(signal.SIGTERM)
        assert terminal.finish() == 0
        assert OWN_SCREEN in terminal.text
    finally:
        terminal.close()


def test_the_view_is_as_wide_as_its_terminal_is_now(mesh: RunningMesh) -> None:
    """At once, and without colours where NO_COLOR asks for none."""
    terminal = mesh.top(NO_COLOR="1")
    try:
        terminal.resize(columns=80, rows=24)
        terminal.wait_for(" of ")
        assert "keys, values" not in terminal.text
        terminal.resize(columns=140, rows=24)
        terminal.wait_for("keys, values")
        terminal.press(b"q")
        assert terminal.finish() == 0
        assert not [colour for colour in ("\x1b[1m", "\x1b[31m") if colour in terminal.text]
    finally:
        terminal.close()


def test_on_a_dumb_terminal_it_is_told_once(mesh: RunningMesh) -> None:
    """As in a pipe: nothing that it would not obey."""
    terminal = mesh.top(TERM="dumb")
    try:
        assert terminal.finish() == 0
        assert "mesh home" in terminal.text
        assert "\x1b" not in terminal.text
    finally:
        terminal.close()


def test_the_view_outlives_its_coordinator(mesh: RunningMesh) -> None:
    """It says since when there is none, and goes on once there is one."""
    port = mesh.port
    terminal = mesh.top()
    try:
        terminal.wait_for("kitchen")
        mesh.coordinator.process.terminate()
        terminal.wait_for("the coordinator has not answered since")
        mesh.coordinator.finish()
        mesh.coordinator = mesh.start_coordinator(port)
        shown = len(terminal.text)
        wait_until(lambda: "not answered" not in terminal.text[shown:].rpartition("mesh home")[0][-400:]
                   and "1 of 1 node up" in terminal.text[shown:], limit_seconds=LIMIT_SECONDS, what="life")  # fmt: skip
        terminal.press(b"q")
        assert terminal.finish() == 0
    finally:
        terminal.close()


def test_no_log_has_a_word_of_what_was_asked_or_answered(mesh: RunningMesh) -> None:
    """With everything logged that there is, on the coordinator and on the node; the request's name is in both."""
    words = ["xylophone", "quagmire", "zeppelin"]
    asked = mesh.shell.run(
        "coordinator-cli", "generate", "--coordinator", f"unix:{mesh.state}/coordinator.sock", "--prompt",
        " ".join(words), "--stop", "nevermindthis", "--length", "40", "--ignore-eos", "--request-id", "ticket-4711",
        "--log-level", "debug",
    )  # fmt: skip
    assert asked.code == 0, asked.err
    refused = mesh.shell.run(
        "coordinator-cli", "generate", "--coordinator", f"unix:{mesh.state}/coordinator.sock", "--prompt",
        " ".join(words), "--length", "999999", "--request-id", "ticket-4712",
    )  # fmt: skip
    assert refused.code != 0
    logs = {"coordinator": mesh.coordinator.err, "node": mesh.node.err, "command": asked.err + refused.err}
    wait_until(lambda: "ticket-4711" in mesh.node.err, limit_seconds=LIMIT_SECONDS, what="the node's word of it")
    assert "ticket-4711" in logs["coordinator"]
    assert "ticket-4712" in logs["coordinator"]
    answered = [word for word in asked.out.split() if len(word) > 3]
    for where, text in logs.items():
        found = [word for word in [*words, "nevermindthis", *answered] if word in text]
        assert found == [], f"{where}: {found}"
