"""A mesh of devices as a person makes one: init, coordinator, invite, join, shardnode, load, generate; and restarts.

Covers: whole programs over loopback. Does not cover: strangers (tests/contract/test_mesh_trust.py).
"""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from common.errors import EXIT_INPUT, EXIT_MODEL, EXIT_NODE, EXIT_TRUST
from coordinator.membership.owner_client import OwnerClient
from coordinator.membership.reach import is_alive
from coordinator.program.daemon import Coordinator
from tests.e2e.conftest import RunHere
from tests.support.cli import Finished, Name, Running, Shell
from tests.support.free_ports import free_place
from tests.support.tiny_checkpoint import write_tiny_checkpoint
from tests.support.waiting import wait_until

LIMIT_SECONDS = 30.0
NAMES = ("attic", "kitchen")
ASK = ("--prompt", "1 2 3", "--length", "8", "--temperature", "0", "--ignore-eos", "--json")


@pytest.fixture
def shell() -> Iterator[Shell]:
    """Return a place where programs run."""
    made = Shell()
    yield made
    made.close()


class Devices:
    """One coordinator and two nodes that have joined it."""

    def __init__(self, shell: Shell, here: RunHere) -> None:
        """Args: here: runs what ends by itself inside this process, which saves its imports."""
        self.shell, self.here = shell, here
        self.state = str(shell.home / "state")
        self.model = write_tiny_checkpoint(shell.home / "model")
        self.nodes: dict[str, Running] = {}

    def local_answer(self) -> list[int]:
        """Return what nodes of this machine answer; slices are made on the way."""
        finished = self.here("coordinator-cli", "generate", "--model", str(self.model), "--world-size", "2", *ASK)
        assert finished.code == 0, finished.err
        tokens: list[int] = json.loads(finished.out)["token_ids"]
        return tokens

    def start_coordinator(self, port: str = "0") -> tuple[Running, str]:
        """Start the coordinator; return it and its port."""
        running = self.shell.start("coordinator", "--state-dir", self.state, "--master-port", port)
        wait_until(
            lambda: "mesh " in running.err or running.process.poll() is not None, limit_seconds=LIMIT_SECONDS, what="it"
        )
        assert running.process.poll() is None, running.err
        return running, running.err.split(" on 127.0.0.1:")[1].split(";")[0]

    def join(self, name: str, *, measure: bool = False) -> None:
        """Let a device in, as a person would."""
        invited = self.here("coordinator-cli", "mesh", "invite", "--state-dir", self.state)
        command = invited.out.split()
        assert command[:2] == ["shardnode", "join"], invited.err
        finished = self.here(
            "shardnode", *command[1:], "--name", name, "--listen", "127.0.0.1:0", "--data-dir", self.data(name),
            "--measure" if measure else "--no-measure",
        )  # fmt: skip
        assert finished.code == 0, finished.err
        assert ("weights from memory" in finished.err) == measure

    def data(self, name: str) -> str:
        return str(self.shell.home / name)

    def start_node(self, name: str) -> None:
        """Start a node; it serves what it did before."""
        self.nodes[name] = self.shell.start("shardnode", "--config", f"{self.data(name)}/shardnode.toml")

    def cli(self, *arguments: str) -> Finished:
        """Run a verb of coordinator-cli that has to work."""
        finished = self.here("coordinator-cli", *arguments, "--state-dir", self.state)
        assert finished.code == 0, finished.err
        return finished

    def wait_until_alive(self) -> None:
        """Wait until the coordinator hears both nodes; not asked before they serve, which would only delay that."""
        wait_until(
            lambda: all("serving " in node.err or node.process.poll() is not None for node in self.nodes.values()),
            limit_seconds=LIMIT_SECONDS, what="two nodes serve",
        )  # fmt: skip
        with OwnerClient(Path(self.state)) as owner:
            wait_until(
                lambda: sum(map(is_alive, owner.nodes().nodes)) == 2, limit_seconds=LIMIT_SECONDS,
                what="two nodes alive",
            )  # fmt: skip
        assert self.here("coordinator-cli", "nodes", "--state-dir", self.state).out.count("alive") == 2

    def answer(self, *through: str) -> list[int]:
        """Return what the mesh answers. Args: through: how it is asked."""
        tokens: list[int] = json.loads(self.cli("generate", *through, *ASK).out)["token_ids"]
        return tokens


def test_two_devices_answer_as_one_machine_does_and_find_each_other_again(shell: Shell, here: RunHere) -> None:
    """Over mutual TLS, in any order of names; a coordinator and a node that were killed come back without a hand."""
    devices = Devices(shell, here)
    expected = devices.local_answer()
    made = here("coordinator-cli", "mesh", "init", "--state-dir", devices.state)
    assert made.code == 0, made.err
    coordinator, port = devices.start_coordinator()
    for name in NAMES:
        devices.join(name, measure=name == NAMES[0])
    for name in NAMES:
        devices.start_node(name)
    devices.wait_until_alive()
    asked = ("--coordinator", f"127.0.0.1:{port}")
    loaded = devices.cli("load", str(devices.model), "--split-strategy", "ratio:3,1")
    assert loaded.err.count("MB sent") == 2
    assert devices.answer(*asked) == expected
    # Sessions of the command's own, with nothing but its own slice; in any order of names.
    by_name = ("--model", str(devices.model), "--nodes", "kitchen,attic", "--split-strategy", "ratio:3,1")
    assert devices.answer(*by_name, "--save-dir", str(shell.home / "own")) == expected

    coordinator.process.kill()
    devices.nodes["attic"].process.kill()
    coordinator.finish()
    devices.nodes["attic"].finish()
    coordinator, _ = devices.start_coordinator(port)
    devices.start_node("attic")
    devices.wait_until_alive()
    assert devices.answer(*asked) == expected
    again = devices.cli("load", str(devices.model), "--split-strategy", "ratio:3,1")
    assert again.err.count("all was there") == 2
    assert "ready" in devices.cli("models").out
    devices.cli("unload", "model")
    assert "no model is loaded" in devices.cli("models").err

    for running in (*devices.nodes.values(), coordinator):
        running.process.send_signal(signal.SIGTERM)
        assert running.finish().code == 0
    assert shell.leftovers() == []


def test_what_a_person_gets_wrong_is_one_line(
    shell: Shell, here: RunHere, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each says what to do next."""
    monkeypatch.setattr("coordinator.cli.answer_there.REACH_SECONDS", 0.5)  # where nobody listens, nobody comes
    state = str(shell.home / "state")
    program: Name = "coordinator-cli"
    assert "mesh init" in shell.run("coordinator", "--state-dir", state).error_line("coordinator", EXIT_INPUT)
    assert "start it" in here(program, "nodes", "--state-dir", state).error_line(program, EXIT_INPUT)
    assert here(program, "mesh", "init", "--name", "No!", "--state-dir", state).error_line(program, EXIT_INPUT)
    assert here(program, "mesh", "init", "--state-dir", state).code == 0
    again = here(program, "mesh", "init", "--state-dir", state)
    assert "there is a mesh" in again.error_line(program, EXIT_INPUT)
    write_tiny_checkpoint(shell.home / "model")
    with closing(Coordinator(Path(state), free_place())):
        empty = here(program, "nodes", "--state-dir", state)
        assert (empty.code, "has no nodes yet" in empty.err) == (0, True)
        gone = here(program, "mesh", "remove", "attic", "--state-dir", state)
        assert "no node called 'attic'" in gone.error_line(program, EXIT_INPUT)
        lifetime = here(program, "mesh", "invite", "--lifetime", "soon", "--state-dir", state)
        assert "15m" in lifetime.error_line(program, EXIT_INPUT)
        join: tuple[Name, str] = ("shardnode", "join")
        assert "this is no token" in here(*join, "hello").error_line("shardnode", EXIT_INPUT)
        token = here(program, "mesh", "invite", "--state-dir", state).out.split()[-1]
        assert "letter of the token" in here(*join, token[:-3]).error_line("shardnode", EXIT_INPUT)
        data = ("--listen", "127.0.0.1:0", "--data-dir", str(tmp_path / "a"))
        assert here(*join, token, "--name", "attic", "--no-measure", *data).code == 0
        elsewhere = ("--listen", "127.0.0.1:0", "--data-dir", str(tmp_path / "b"))
        used = here(*join, token, "--name", "cellar", *elsewhere)
        assert used.code in (EXIT_TRUST, EXIT_NODE)
        assert len(used.err.strip().splitlines()) == 1
        nobody = here(program, "load", str(write_tiny_checkpoint(tmp_path / "m")), "--nodes", ",", "--state-dir", state)
        assert "names no node" in nobody.error_line(program, EXIT_INPUT)
        for verb in (
            ("load", "no-such-model"),
            ("unload", "no-such-model"),
            ("generate", "--coordinator", "127.0.0.1:1"),
        ):
            wrong = here(program, *verb, "--state-dir", state)
            assert len(wrong.err.strip().splitlines()) == 1, wrong.err
            assert wrong.code in (EXIT_MODEL, EXIT_NODE), wrong.err
        both = here(program, "generate", "--coordinator", "127.0.0.1:1", "--nodes", "a", "--state-dir", state)
        assert "do not go together" in both.error_line(program, EXIT_INPUT)
        alone = here(program, "load", str(shell.home / "model"), "--state-dir", state)
        assert "is alive" in alone.error_line(program, EXIT_NODE)
        silent = here(
            program, "generate", "--model", str(shell.home / "model"), "--nodes", "attic", "--state-dir", state
        )  # fmt: skip
        assert "was not heard" in silent.error_line(program, EXIT_NODE)
