"""Kills one process of a mesh at a random instant while it ships or answers, and looks whether the four promises hold.

    KillPoints(mesh, model, seed=1).run(shipping=True)     # raises AssertionError, or returns what happened

P1 no wrong token: text is the right text, or a beginning of it and then an error. P2 in time: whoever waits is told
within five seconds. P3 nothing kept: keys and values, descriptors. P4 no hand: started again, the mesh works.
Does not cover: other faults (tests/e2e/test_faults_in_namespaces.py).
"""

from __future__ import annotations

import json
import random
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from common.errors import EXIT_NODE
from tests.support.cli import Finished, Running
from tests.support.mesh_of_hosts import DESK, MeshOfHosts
from tests.support.random_models import build, save
from tests.support.waiting import wait_until

CLI = "coordinator-cli"
PROMPT, LENGTH, ENDLESS = "one two three", 8, 20_000
PROMISED_SECONDS = 5.0
LIMIT_SECONDS = 60.0
MOST_TEXT = 400
"""Letters of an answer after which a kill comes at the latest."""
MOST_MORE_DESCRIPTORS = 12


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """One kill."""

    victim: str
    phase: str
    moment: str
    seconds: float
    """Until whoever waited was told, or had what it wanted."""
    said: str


class KillPoints:
    """Kills in one mesh, one after another."""

    def __init__(self, mesh: MeshOfHosts, model: Path, *, seed: int) -> None:
        """Load the model and learn what is right."""
        self._mesh, self._model = mesh, model
        self._random = random.Random(seed)
        before = mesh.hosts.bytes_to(mesh.nodes[0])
        self._load()
        self._slice_bytes = mesh.hosts.bytes_to(mesh.nodes[0]) - before
        self._expected = self._answer()["token_ids"]
        self._text = mesh.cli(*mesh.ask(PROMPT, 3 * MOST_TEXT)).out
        self._answer()
        self._descriptors = self._open_descriptors()

    def run(self, *, shipping: bool) -> Outcome:
        """Kill once. Raises: AssertionError: a promise is broken, and how."""
        victim = self._random.choice([CLI, DESK, *self._mesh.nodes])
        outcome = self._while_shipping(victim) if shipping else self._while_answering(victim)
        if victim != CLI and self._mesh.running[victim].process.poll() is not None:
            self._start(victim)
        self._mesh.wait_until_alive()
        self._load()
        answer = self._answer()
        assert answer["token_ids"] == self._expected, (outcome, "P1: another answer afterwards")
        kept = {name: values["kv_bytes"] for name, values in answer["memory"].items() if name != "coordinator"}
        assert not any(kept.values()), (outcome, f"P3: keys and values are kept: {kept}")
        now = self._open_descriptors()
        grown = {name: now[name] - self._descriptors[name] for name in now}
        assert max(grown.values()) <= MOST_MORE_DESCRIPTORS, (outcome, f"P3: descriptors are kept: {grown}")
        return outcome

    def _while_shipping(self, victim: str) -> Outcome:
        share = self._random.random()
        self._mesh.cli("unload", self._model.name)
        before = self._mesh.hosts.bytes_to(self._mesh.nodes[0])
        loading = self._mesh.start_cli("load", str(self._model), "--split-strategy", "uniform")

        def is_time() -> bool:
            sent = self._mesh.hosts.bytes_to(self._mesh.nodes[0]) - before
            return sent >= share * self._slice_bytes or loading.process.poll() is not None

        wait_until(is_time, limit_seconds=LIMIT_SECONDS, what="so much is sent")
        self._kill(victim, loading)
        if victim not in (CLI, DESK):
            self._start(victim)  # a node's slice goes on by itself
        seconds, finished = self._mesh.seconds_to_end(loading)
        outcome = Outcome(
            victim=victim, phase="shipping", moment=f"{100 * share:.0f} % sent", seconds=seconds, said=_said(finished)
        )
        if victim != CLI:
            assert finished.code in (0, EXIT_NODE), (outcome, "P2: no explicit end")
        return outcome

    def _while_answering(self, victim: str) -> Outcome:
        letters = self._random.randrange(1, MOST_TEXT)
        asking = self._mesh.start_cli(*self._mesh.ask(PROMPT, ENDLESS))
        wait_until(lambda: len(asking.out) >= letters, limit_seconds=LIMIT_SECONDS, what="so much is answered")
        self._kill(victim, asking)
        seconds, finished = self._mesh.seconds_to_end(asking)
        outcome = Outcome(
            victim=victim, phase="answering", moment=f"{letters} letters", seconds=seconds, said=_said(finished)
        )
        assert seconds < PROMISED_SECONDS, (outcome, "P2: told too late")
        text = finished.out.removesuffix("\n")
        known = min(len(text), len(self._text.removesuffix("\n")))
        assert text[:known] == self._text[:known], (outcome, "P1: another text")
        if victim != CLI:
            assert finished.code == EXIT_NODE, (outcome, "P2: no explicit end")
        return outcome

    def _kill(self, victim: str, command: Running) -> None:
        if victim == CLI:
            command.process.kill()
        else:
            self._mesh.kill(victim)

    def _start(self, victim: str) -> None:
        if victim == DESK:
            self._mesh.start_coordinator()
        else:
            self._mesh.start_node(victim)

    def _load(self) -> None:
        finished = self._mesh.try_cli("load", str(self._model), "--split-strategy", "uniform")
        assert finished.code == 0, f"P4: cannot load again: {finished.err}"

    def _answer(self) -> dict[str, Any]:
        document: dict[str, Any] = json.loads(self._mesh.cli(*self._mesh.ask(PROMPT, LENGTH), "--json").out)
        return document

    def _open_descriptors(self) -> dict[str, int]:
        return {
            name: len(list(Path(f"/proc/{self._mesh.running[name].process.pid}/fd").iterdir()))
            for name in (DESK, *self._mesh.nodes)
        }


def _said(finished: Finished) -> str:
    lines = finished.err.strip().splitlines()
    return lines[-1][:100] if lines else f"exit code {finished.code}"


def write_small_model(directory: Path) -> Path:
    """Write a model that takes a second over 100 Mbit/s and has room for an answer without an end."""
    model = build(hidden_size=256, intermediate_size=4096, layers=1, vocab_size=320, max_position_embeddings=32768)
    return save(model, directory / "small")
