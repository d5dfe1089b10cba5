"""Does a load come to its end whatever becomes of the commands that watch it, and harm no answer meanwhile?

Covers: kill -9, a terminal that is closed, Ctrl-C, the same command typed twice, the end of the coordinator; two models
on the same two nodes. Does not cover: who waits for whom (tests/unit/test_model_worker.py), nodes that fail.
"""

from __future__ import annotations

import json
import os
import re
import signal
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import psutil
import pytest

from common.errors import EXIT_INTERRUPTED, EXIT_NODE
from coordinator.models import load_process
from tests.e2e.conftest import RunHere
from tests.e2e.test_mesh_of_devices import LIMIT_SECONDS, NAMES, Devices
from tests.support.cli import PROGRAMS, Shell
from tests.support.owner_asking import OwnerAsking
from tests.support.random_models import save
from tests.support.reference_models import TWO
from tests.support.terminal import CTRL_C, Terminal
from tests.support.waiting import wait_until

PROMPT, LENGTH = TWO[0].prompt, TWO[0].length
PAUSE_SECONDS = 0.5
"""Between two answers: beside one without an end everything else on two cores takes three times as long."""
ACCEPTED = "is being loaded by the coordinator"


class Asker:
    """Asks a model again and again, in a thread, until it is told to end."""

    def __init__(self, devices: Devices, model: str) -> None:
        self._asking, self._model = OwnerAsking(Path(devices.state)), model
        self.answers: list[list[int]] = []
        self._ending = threading.Event()
        self._pool = ThreadPoolExecutor(1)
        self._asked = self._pool.submit(self._ask)

    def end(self) -> list[list[int]]:
        """Return all answers. Raises: what one of them has failed with."""
        self._ending.set()
        self._asked.result(LIMIT_SECONDS)
        return self.answers

    def close(self) -> None:
        """End."""
        self._ending.set()
        self._pool.shutdown()

    def _ask(self) -> None:
        while not self._ending.wait(PAUSE_SECONDS):
            self.answers.append(list(self._asking.answer(PROMPT, length=LENGTH, model=self._model).token_ids))


class Loads:
    """Commands that load, each in a terminal of its own, and the process that does it."""

    def __init__(self, devices: Devices, coordinator: psutil.Process, closing: ExitStack) -> None:
        self._devices, self._coordinator, self._closing = devices, coordinator, closing

    def typed(self, model: Path, *options: str) -> Terminal:
        """Return a terminal in which a load was typed."""
        command = [str(PROGRAMS / "coordinator-cli"), "load", str(model), "--state-dir", self._devices.state, *options]
        terminal = Terminal(command, {**os.environ, "TERM": "xterm", "COLUMNS": "200"})
        self._closing.callback(terminal.close)
        return terminal

    def held(self) -> psutil.Process:
        """Return the process of the load, held where it is, but not before it has become the program that loads.

        Between fork and exec it would hold the coordinator's thread with it, and outlive the coordinator.
        """
        wait_until(self._loading, limit_seconds=LIMIT_SECONDS, what="the load has a process")
        (process,) = self._loading()
        process.suspend()
        return process

    def _loading(self) -> list[psutil.Process]:
        return [child for child in self._coordinator.children() if load_process.__name__ in child.cmdline()]


def json_tokens(devices: Devices, *arguments: str) -> list[int]:
    """Return the tokens of an answer."""
    tokens: list[int] = json.loads(devices.cli(*arguments).out)["token_ids"]
    return tokens


@pytest.fixture
def devices(shell: Shell, here: RunHere) -> Iterator[Devices]:
    """Return a mesh of a coordinator that is not started yet, and two nodes."""
    made = Devices(shell, here)
    yield made
    for node in made.nodes.values():
        node.process.send_signal(signal.SIGTERM)
        assert node.finish().code == 0


def test_a_load_ends_whole_whatever_becomes_of_the_commands_that_watch_it(devices: Devices, tmp_path: Path) -> None:
    """And once only; the model that is asked all along, on the same nodes, says what it always says."""
    first, second = (save(one.build(), tmp_path / name) for one, name in zip(TWO, ("first", "second"), strict=True))
    expected = [one.token_ids for one in TWO]
    devices.cli("mesh", "init")
    coordinator, port = devices.start_coordinator()
    for name in NAMES:
        devices.join(name)
        devices.start_node(name)
    devices.wait_until_alive()
    devices.cli("load", str(first), "--split-strategy", "uniform")
    with ExitStack() as closing:
        loads = Loads(devices, psutil.Process(coordinator.process.pid), closing)
        asker = Asker(devices, "first")
        closing.callback(asker.close)
        wait_until(lambda: asker.answers, limit_seconds=LIMIT_SECONDS, what="the first model answers")

        begun = loads.typed(second, "--split-strategy", "uniform")
        process = loads.held()
        begun.wait_for(ACCEPTED)
        begun.kill()
        others = [loads.typed(second, "--split-strategy", "uniform") for _ in range(3)]
        for other in others:
            other.wait_for(ACCEPTED)
        closed, interrupted, *staying = others
        assert closed.hang_up() == -signal.SIGHUP
        interrupted.press(CTRL_C)
        assert interrupted.finish() == EXIT_INTERRUPTED
        assert "second: the load goes on in the coordinator" in interrupted.text
        assert re.search(r"second +is being loaded", devices.cli("status").out)

        process.resume()
        for one in staying:
            assert one.finish() == 0, one.text
            assert "second is loaded; ask it:" in one.text
        answered = len(asker.answers)
        wait_until(lambda: len(asker.answers) > answered, limit_seconds=LIMIT_SECONDS, what="one more answer")
        assert all(answer == expected[0] for answer in asker.end())
        assert coordinator.err.count("load begun model=second") == 1

        assert devices.cli("models").out.count("ready") == 2
        ask = ("generate", "--coordinator", f"127.0.0.1:{port}", "--prompt", PROMPT, "--temperature", "0",
               "--ignore-eos", "--json")  # fmt: skip
        assert json_tokens(devices, *ask, "--model", "second", "--length", str(LENGTH)) == expected[1]

        ending = loads.typed(second, "--name", "third", "--split-strategy", "ratio:3,1")
        ending.wait_for(ACCEPTED)
        loads.held()
        coordinator.process.send_signal(signal.SIGTERM)
        assert ending.finish() == EXIT_NODE
        assert "the coordinator is ending, and the load of third with it" in ending.text
        assert coordinator.finish().code == 0
