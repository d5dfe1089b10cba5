"""Kills one process of a mesh at a random instant while it ships or answers, and looks whether the four promises hold.

    points = KillPoints(mesh, model, seed=1)
    for phase, victim in points.deal(20):
        points.run(phase, victim)     # raises AssertionError, or returns what happened

P1 no wrong token: text is the right text, or a beginning of it and then an error. P2 in time: whoever waits is told
within five seconds. P3 nothing kept: keys and values, descriptors, slices. P4 no hand: started again, the mesh answers
without another `load`, with the model of before if that is what was interrupted.
While it ships it replaces one plan of a model by another, so nothing has to be taken off the mesh in between.
Does not cover: other faults (tests/e2e/test_faults_in_namespaces.py).
"""

from __future__ import annotations

import random
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import grpc

from common.errors import EXIT_NODE, ShardmeshError
from tests.support.cli import Finished, Running
from tests.support.mesh_of_hosts import DESK, MeshOfHosts
from tests.support.owner_asking import OwnerAsking
from tests.support.random_models import build, save
from tests.support.waiting import wait_until

Phase = Literal["shipping", "answering"]
PHASES: tuple[Phase, ...] = ("shipping", "answering")
CLI = "coordinator-cli"
PLANS = ("uniform", "ratio:3,2")
PROMPT, LENGTH, ENDLESS = "one two three", 8, 20_000
PROMISED_SECONDS = 5.0
LIMIT_SECONDS = 60.0
MOST_TEXT = 400
"""Letters of an answer after which a kill comes at the latest; a test that kills twice does with fewer."""
MOST_SENT, SHIPPING_TRIES = 0.95, 5
"""Of the first node's slice: a kill that comes later may find that the load has ended."""
MOST_MORE_DESCRIPTORS = 12


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """One kill."""

    victim: str
    phase: Phase
    moment: str
    wait_seconds: float
    """From the kill on, until whoever waited was told, or had what it wanted."""
    code: int
    """With which the command ended that was at work; 0: it had what it wanted."""
    said: str
    seconds: float
    """All of it: from the command's start until all promises were looked at."""


@dataclass(frozen=True, kw_only=True)
class _Plan:
    """What is known of one of PLANS before anything is killed."""

    slice_bytes: int
    """Of the first node."""
    token_ids: list[int]
    text: str


class KillPoints:
    """Kills in one mesh, one after another."""

    def __init__(self, mesh: MeshOfHosts, model: Path, *, seed: int, most_text: int = MOST_TEXT) -> None:
        """Load the model by each plan and learn what is right."""
        self.mesh, self._model, self._most_text = mesh, model, most_text
        self._asking = OwnerAsking(Path(mesh.state))
        self._random = random.Random(seed)
        self._plans = {plan: self._learn(plan) for plan in PLANS}
        self._plan = PLANS[-1]
        self._descriptors = self._open_descriptors()

    def deal(self, times: int) -> list[tuple[Phase, str]]:
        """Return each phase with each process so many times, in random order."""
        dealt = [(phase, victim) for phase in PHASES for victim in (CLI, DESK, *self.mesh.nodes)] * times
        self._random.shuffle(dealt)
        return dealt

    def run(self, phase: Phase, victim: str) -> Outcome:
        """Kill once. Raises: AssertionError: a promise is broken, and how."""
        started = time.monotonic()
        share, letters = MOST_SENT * self._random.random(), self._random.randrange(1, self._most_text)
        moment = f"{100 * share:.0f} % sent" if phase == "shipping" else f"{letters} letters"
        told = "nothing yet"
        try:
            wait, finished = (
                self._while_shipping(victim, share) if phase == "shipping" else self._while_answering(victim, letters)
            )
            told = f"exit code {finished.code} after {wait:.2f} s, {_said(finished)}"
            _check_end(phase, victim, wait, finished)
            self._check_after(phase, victim, finished)
        except (AssertionError, subprocess.TimeoutExpired, ShardmeshError, grpc.RpcError) as error:
            raise AssertionError(f"{victim} killed while {phase} at {moment}; told: {told}; {error}") from error
        return Outcome(
            victim=victim, phase=phase, moment=moment, wait_seconds=wait, code=finished.code, said=_said(finished),
            seconds=time.monotonic() - started,
        )  # fmt: skip

    def _while_shipping(self, victim: str, share: float) -> tuple[float, Finished]:
        loading = self._shipping(share)
        self._kill(victim, loading)
        with ThreadPoolExecutor(1) as pool:
            # A node is started at once: its slice goes on by itself.
            starting = pool.submit(self._start, victim) if victim in self.mesh.nodes else None
            ended = self.mesh.seconds_to_end(loading)
        if starting is not None:
            starting.result()
        return ended

    def _shipping(self, share: float) -> Running:
        """Return a load of which so much is sent. One that has less to send, since nodes kept it, is right and over."""
        for _ in range(SHIPPING_TRIES):
            loading = self._load_until(share)
            if loading.process.poll() is None:
                return loading
            ended = loading.finish()
            assert ended.code == 0, f"it ended before the kill: {ended.err}"
        raise AssertionError(f"{SHIPPING_TRIES} loads ended before so much was sent")

    def _load_until(self, share: float) -> Running:
        """Load by the other plan, and return once so much is sent, or the load is over."""
        self._plan = next(plan for plan in PLANS if plan != self._plan)
        until = self._bytes_sent() + share * self._plans[self._plan].slice_bytes
        loading = self.mesh.start_cli(*self._load_command())
        wait_until(
            lambda: self._bytes_sent() >= until or loading.process.poll() is not None,
            limit_seconds=LIMIT_SECONDS, what="so much is sent",
        )  # fmt: skip
        return loading

    def _while_answering(self, victim: str, letters: int) -> tuple[float, Finished]:
        asking = self.mesh.start_cli(*self.mesh.ask(PROMPT, ENDLESS))
        wait_until(
            lambda: len(asking.out) >= letters or asking.process.poll() is not None,
            limit_seconds=LIMIT_SECONDS, what="so much is answered",
        )  # fmt: skip
        assert asking.process.poll() is None, f"P4: it ended before the kill: {asking.err}"
        self._kill(victim, asking)
        wait, finished = self.mesh.seconds_to_end(asking)
        text, right = finished.out.removesuffix("\n"), self._plans[self._plan].text
        known = min(len(text), len(right))
        assert text[:known] == right[:known], f"P1: another text: {text[:known]!r} instead of {right[:known]!r}"
        return wait, finished

    def _check_after(self, phase: Phase, victim: str, finished: Finished) -> None:
        """Start what was killed, and see that all is as it was."""
        if victim != CLI and self.mesh.running[victim].process.poll() is not None:
            self._start(victim)
        self.mesh.wait_until_alive()
        if phase == "shipping" and victim == CLI:
            self._load()  # it goes on by itself, and this one waits for its end
        elif phase == "shipping" and finished.code != 0:
            before = self._asking.answer(PROMPT, length=LENGTH).token_ids
            known = [plan.token_ids for plan in self._plans.values()]
            assert before in known, f"P4: the model of before answers otherwise: {before} and not one of {known}"
            self._load()
        answer = self._asking.answer(PROMPT, length=LENGTH)
        right = self._plans[self._plan].token_ids
        assert answer.token_ids == right, f"P1: another answer afterwards: {answer.token_ids} instead of {right}"
        if any(answer.kv_bytes.values()):  # whoever was killed may be let go of while we ask; then nothing is left
            wait_until(
                lambda: not any(self._asking.answer(PROMPT, length=1).kv_bytes.values()),
                limit_seconds=PROMISED_SECONDS, what=f"P3: keys and values are let go of: {answer.kv_bytes}",
            )  # fmt: skip
        wait_until(
            lambda: max(self._more_descriptors().values()) <= MOST_MORE_DESCRIPTORS,
            limit_seconds=PROMISED_SECONDS, what=f"P3: descriptors are let go of: {self._more_descriptors()}",
        )  # fmt: skip
        held = {name: self._slices_held(name) for name in self.mesh.nodes}
        assert all(len(slices) == 1 for slices in held.values()), f"P3: slices are kept that nobody needs: {held}"

    def _learn(self, plan: str) -> _Plan:
        self._plan = plan
        before = self._bytes_sent()
        self._load()
        slice_bytes = self._bytes_sent() - before
        text = self.mesh.cli(*self.mesh.ask(PROMPT, 3 * self._most_text)).out.removesuffix("\n")
        token_ids = self._asking.answer(PROMPT, length=LENGTH).token_ids
        return _Plan(slice_bytes=slice_bytes, token_ids=token_ids, text=text)

    def _kill(self, victim: str, command: Running) -> None:
        if victim == CLI:
            command.process.kill()
        else:
            self.mesh.kill(victim)

    def _start(self, victim: str) -> None:
        if victim == DESK:
            self.mesh.start_coordinator()
        else:
            self.mesh.start_node(victim)

    def _load(self) -> None:
        finished = self.mesh.try_cli(*self._load_command())
        assert finished.code == 0, f"P4: cannot load again: {finished.err}"

    def _load_command(self) -> list[str]:
        return ["load", str(self._model), "--split-strategy", self._plan]

    def _bytes_sent(self) -> int:
        return self.mesh.hosts.bytes_to(self.mesh.nodes[0])

    def _slices_held(self, node: str) -> list[str]:
        slices = self.mesh.data(node) / "slices"
        found = [*slices.iterdir(), *(slices / "arriving").iterdir()]
        return [path.name for path in found if path.name != "arriving"]

    def _more_descriptors(self) -> dict[str, int]:
        now = self._open_descriptors()
        return {name: now[name] - self._descriptors[name] for name in now}

    def _open_descriptors(self) -> dict[str, int]:
        return {
            name: len(list(Path(f"/proc/{self.mesh.running[name].process.pid}/fd").iterdir()))
            for name in (DESK, *self.mesh.nodes)
        }


def _check_end(phase: Phase, victim: str, wait_seconds: float, finished: Finished) -> None:
    """Look at how the command ended that was at work."""
    if victim == CLI:
        return
    allowed = (0, EXIT_NODE) if phase == "shipping" else (EXIT_NODE,)  # what is sent goes on by itself
    assert finished.code in allowed, f"P2: no explicit end: exit code {finished.code}, {finished.err}"
    assert finished.code == 0 or wait_seconds < PROMISED_SECONDS, f"P2: told after {wait_seconds:.2f} s"


def _said(finished: Finished) -> str:
    lines = finished.err.strip().splitlines()
    return lines[-1][:100] if lines else f"exit code {finished.code}"


def write_small_model(directory: Path) -> Path:
    """Write a model that takes a second over 100 Mbit/s and has room for an answer without an end."""
    model = build(hidden_size=256, intermediate_size=4096, layers=1, vocab_size=320, max_position_embeddings=32768)
    return save(model, directory / "small")
