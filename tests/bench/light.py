"""How much memory do our programs take beside window, weights, keys and values, after an answer to 512 tokens?

Covers: a node that was started by hand, one that is a member of a mesh, the coordinator program that answers with it,
once they rest again, and the coordinator of a `generate`, at its largest; the demo model in float32, windows of two
tiles. All sequences are closed by then, so keys and values are none.
Does not cover: peaks of models larger than memory (big.py), memory while a model is cut (slicing_memory.py).

A process's resident pages are counted whole, those of libraries that others share too: what a device with one program
has to have.
"""

from __future__ import annotations

import json
import re
import signal
import tempfile
from collections.abc import Iterator
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from common.machine.operating_system import process_memory
from tests.bench.inputs import KEPT_DIRECTORY, MODEL_DIRECTORY, long_prompt, sliced
from tests.bench.report import Bar, BenchBroken, Result, Settings, Spread, Table
from tests.support.cli import Finished, Name, Running, Shell
from tests.support.free_ports import free_port_pair
from tests.support.waiting import wait_until

PROMPT_TOKENS, ANSWER_TOKENS, WINDOW = 512, 8, 2
BY_HAND, MEMBER, PROGRAM = "node by hand", "member of a mesh", "coordinator program"
COMMAND, OVER_GRPC = "coordinator of generate", "coordinator of generate --nodes"
MOST_MEGABYTES = {BY_HAND: 70, MEMBER: 85, PROGRAM: 110, COMMAND: 110, OVER_GRPC: 110}
MOST_STARTS = 3
START_SECONDS = 20.0
STILL_LOOKS = 30
"""A hundredth of a second apart."""


@dataclass(frozen=True, kw_only=True)
class Look:
    """One process after its answer. All in bytes."""

    program: str
    measured: int
    """Resident now; of the command, which has ended, the most that it ever was."""
    window: int
    resident: int
    apart: int = 0
    """Of a coordinator: the processes of the model's tokenizer, pages that several share in part."""

    @property
    def own_megabytes(self) -> float:
        return (self.measured + self.apart - self.window - self.resident) / 1e6


def measure(settings: Settings) -> Result:
    """Start everything, ask, look. Raises: BenchBroken: a program failed."""
    prompt, slices = long_prompt(MODEL_DIRECTORY, PROMPT_TOKENS), sliced(1)
    looks: list[Look] = []
    for _ in range(1 if settings.is_quick else min(settings.rounds, MOST_STARTS)):
        with closing(Shell()) as shell:
            try:
                looks += _by_hand(shell, prompt, slices)
                looks += _in_a_mesh(shell, prompt)
            except AssertionError as error:
                raise BenchBroken(f"light: {error}") from error
    return _result(looks)


def _by_hand(shell: Shell, prompt: str, slices: Path) -> Iterator[Look]:
    node = serving(shell, "shardnode", "--slice-dir", str(slices / "node0"), "--listen", "127.0.0.1:0",
                    "--memory-window", str(WINDOW))  # fmt: skip
    address = re.findall(r" on (127\.0\.0\.1:\d+)", node.err)[0]
    memory = _ask(shell, prompt, "--model", str(MODEL_DIRECTORY), "--nodes", address, "--save-dir", str(slices),
                  "--memory-window", str(WINDOW))  # fmt: skip
    yield _look(BY_HAND, memory["node0"])
    yield _at_its_largest(OVER_GRPC, memory["coordinator"])
    _end(node)
    memory = _ask(shell, prompt, "--model", str(MODEL_DIRECTORY), "--save-dir", str(slices), "--world-size", "1")
    yield _at_its_largest(COMMAND, memory["coordinator"])


def _in_a_mesh(shell: Shell, prompt: str) -> Iterator[Look]:
    with tempfile.TemporaryDirectory(dir=KEPT_DIRECTORY, prefix="light-") as directory:
        state, data, port = f"{directory}/desk", f"{directory}/kitchen", str(free_port_pair())
        done(shell.run("coordinator-cli", "mesh", "init", "--state-dir", state))
        program = serving(shell, "coordinator", "--state-dir", state, "--master-port", port)
        invited = done(shell.run("coordinator-cli", "mesh", "invite", "--state-dir", state))
        token = re.findall(r"shardmesh-\S+", invited.out + invited.err)[0]
        done(shell.run("shardnode", "join", token, "--name", "kitchen", "--data-dir", data, "--no-measure",
                        "--listen", "127.0.0.1:0"))  # fmt: skip
        node = serving(shell, "shardnode", "--config", f"{data}/shardnode.toml", "--memory-window", str(WINDOW))
        done(
            shell.run(
                "coordinator-cli",
                "load",
                str(MODEL_DIRECTORY),
                "--weights-dtype",
                "float32",
                "--state-dir",
                state,
                "--name",
                "demo",
            )
        )
        memory = _ask(shell, prompt, "--coordinator", f"127.0.0.1:{port}", "--state-dir", state)
        yield _look(MEMBER, memory["node0"])
        yield _look(PROGRAM, memory["coordinator"])
        _end(node)
        _end(program)


def serving(shell: Shell, name: Name, *arguments: str) -> Running:
    """Start a program that tells on stderr where it listens."""
    program = shell.start(name, *arguments)
    wait_until(lambda: " on " in program.err or program.process.poll() is not None, limit_seconds=START_SECONDS,
               what=f"{name} listens")  # fmt: skip
    if program.process.poll() is not None:
        raise BenchBroken(f"{name} ended with {program.process.returncode}: {program.err[-500:]}")
    return program


def done(finished: Finished) -> Finished:
    """Return what has ended well. Raises: BenchBroken: it has not."""
    if finished.code:
        raise BenchBroken(f"a command ended with {finished.code}: {finished.err[-500:]}")
    return finished


def _ask(shell: Shell, prompt: str, *arguments: str) -> dict[str, dict[str, int]]:
    """Return what `generate` tells of every process's memory at the end."""
    finished = done(shell.run("coordinator-cli", "generate", *arguments, "--prompt", prompt, "--length",
                               str(ANSWER_TOKENS), "--temperature", "0", "--ignore-eos", "--json"))  # fmt: skip
    document: dict[str, Any] = json.loads(finished.out)
    if len(document["prompt_token_ids"]) != PROMPT_TOKENS:
        raise BenchBroken(f"the prompt came to {len(document['prompt_token_ids'])} tokens")
    memory: dict[str, dict[str, int]] = document["memory"]
    return memory


def _look(program: str, told: dict[str, int]) -> Look:
    looks: list[int] = []

    def rests() -> bool:
        looks.append(process_memory(told["process_id"]).rss_bytes)
        return len(looks) >= STILL_LOOKS and len(set(looks[-STILL_LOOKS:])) == 1

    wait_until(rests, limit_seconds=START_SECONDS, what=f"{program} takes and gives back no memory")
    return Look(
        program=program, measured=looks[-1], window=told["window_bytes"], resident=told["resident_bytes"],
        apart=told.get("tokenizer_bytes", 0),
    )  # fmt: skip


def _at_its_largest(program: str, told: dict[str, int]) -> Look:
    return Look(program=program, measured=told["peak_rss_bytes"], window=told["window_bytes"],
                resident=told["resident_bytes"], apart=told.get("tokenizer_bytes", 0))  # fmt: skip


def _end(program: Running) -> None:
    program.process.send_signal(signal.SIGTERM)
    program.process.wait(START_SECONDS)


def _result(looks: list[Look]) -> Result:
    result = Result(name=f"Light: SmolLM2-135M, float32, after an answer to {PROMPT_TOKENS} tokens")
    rows = []
    for program, most in MOST_MEGABYTES.items():
        own = [look for look in looks if look.program == program]
        spread, parts = Spread.of([look.own_megabytes for look in own]), own[-1]
        rows.append((
            program, *spread.cells(1), f"{most}", f"{parts.window / 1e6:.1f}", f"{parts.resident / 1e6:.1f}",
            f"{parts.apart / 1e6:.1f}",
        ))  # fmt: skip
        result.bars.append(Bar(
            name=f"memory of its own, {program},", measured=spread.median, needed=most, at_least=False, unit=" MB"
        ))  # fmt: skip
    result.tables = [Table(
        title="MB; own: resident pages without window and weights that stay, with the tokenizer's processes",
        header=("program", "own", "least", "most", "bar", "window", "weights", "tokenizer"), rows=rows,
    )]  # fmt: skip
    result.numbers = {"looks": [asdict(look) for look in looks]}
    return result
