"""How fast does a mesh of devices answer over links of 1 Gbit/s, beside an older checkout and on how many nodes?

Covers: real programs that have joined (mutual TLS), each on a host of its own, all weights in memory, one thread a
node; this checkout and another one (`--older`, driven by its command line only) in turns, each on links of its own;
what their bytes take at the links' rate. Does not cover: rounds without products (star_floor.py).
"""

from __future__ import annotations

import contextlib
import json
import os
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import psutil

from common.machine.operating_system import usable_core_count
from tests.bench.contenders import busy_seconds, subtract
from tests.bench.inputs import MODEL_DIRECTORY, MODEL_FILE, PROMPT, REPOSITORY
from tests.bench.link_rate import LINKS, limit_links, passed_bytes, wire_seconds
from tests.bench.report import DISTURBED, QUIET_SHARE, Bar, BenchBroken, Result, Settings, Spread, Table
from tests.support.mesh_of_hosts import DESK, MeshOfHosts
from tests.support.network_hosts import why_not
from tests.support.true_shapes import LLAMA_3_1B, ensure_checkpoint

NODES = ("attic", "cellar", "garage", "kitchen")
LOAD_MBIT, LOAD_SECONDS, ANSWER_SECONDS = 20_000.0, 400.0, 120.0
THIS, OLDER = "this checkout", "the older one"
TIMES_OLDER = 2.5
HEADER = (
    "mesh", "tokens/s", "least", "most", "ms a token", "coordinator: core ms", "nodes: core ms",
    "kB on the coordinator's link", "these at the rate, ms", "others' share of the cores, %",
)  # fmt: skip
ELSEWHERE = {
    "1b-2": ("the same weights in float32, 2 nodes: distributed-llama 8d624a7, on 2026-11-30",
             "4.63", "3.53", "5.19", "216", "-", "-", "582", "4.7", "-"),
    "1b-4": ("the same weights in float32, on 2 nodes: distributed-llama 8d624a7, on 2026-11-30",
             "4.12", "3.72", "4.33", "243", "-", "-", "582", "4.7", "-"),
}  # fmt: skip
"""What another program gave, by case, in turns with ours over links of its own: `dllama inference` and `worker` with
`--buffer-float-type f32 --nthreads 1`, the file by its own converter. It is built from its public source, elsewhere."""


@dataclass(frozen=True, kw_only=True)
class Case:
    """One model on so many nodes."""

    name: str
    model: Callable[[], Path]
    node_count: int
    dtype: str
    needed: float = 0.0
    """How many times the older checkout's speed is wanted; 0: nothing is."""


@dataclass(frozen=True, kw_only=True)
class Answered:
    """One answer over the links."""

    token_ids: tuple[int, ...]
    seconds_per_token: tuple[float, ...]
    link_bytes: int
    """Passed the coordinator's link, both ways, for all of the answer."""
    processor: dict[str, float]
    """Seconds of all of the answer, by role: the coordinator, the nodes, other programs."""
    total_seconds: float

    @property
    def others_share(self) -> float:
        """Part of the cores' time that other programs took."""
        return max(0.0, self.processor["others"]) / (usable_core_count() * self.total_seconds)

    @property
    def seconds(self) -> float:
        """Of a token: the median, after the first."""
        return statistics.median(self.seconds_per_token)


def _one_b() -> Path:
    directory = REPOSITORY / "models" / "bench-1b-shape"
    if ensure_checkpoint(directory, LLAMA_3_1B):
        print(f"made random weights of {LLAMA_3_1B.name}", flush=True)
    return directory


CASES = {
    "smollm2-4": Case(name="SmolLM2-135M float32, 4 nodes", model=lambda: MODEL_DIRECTORY / MODEL_FILE, node_count=4,
                      dtype="float32", needed=TIMES_OLDER),
    "1b-2": Case(name="1B shape, 8 KV heads, float16, 2 nodes", model=_one_b, node_count=2, dtype="float16"),
    "1b-4": Case(name="1B shape, 8 KV heads, float16, 4 nodes", model=_one_b, node_count=4, dtype="float16"),
}  # fmt: skip


def measure(settings: Settings) -> Result:
    """Run every case, or the one that is asked for. Raises: BenchBroken: something fails, or says other tokens."""
    if reason := why_not():
        raise BenchBroken(f"links: {reason}")
    result = Result(name=f"Meshes of devices over {LINKS}")
    rows: list[tuple[str, ...]] = []
    for key in [settings.case] if settings.case else CASES:
        with ExitStack() as closing:
            opened = _open_all(CASES[key], settings, closing)
            turns = _take_turns(opened, settings)
        rows += [_row(CASES[key], whose, own) for whose, own in turns.items()]
        rows += [ELSEWHERE[key]] if key in ELSEWHERE else []
        result.numbers[key] = {whose: [asdict(one) for one in own] for whose, own in turns.items()}
        if OLDER in turns:
            result.bars.append(_bar(CASES[key], turns))
            same = turns[THIS][0].token_ids == turns[OLDER][0].token_ids
            result.notes.append(f"{CASES[key].name}: both say {'the same' if same else 'OTHER'} tokens")
    result.tables = [Table(title="Tokens a second after the first token, greedy", header=HEADER, rows=rows)]
    result.notes += [f"rounds: {settings.lane or 'as the program decides'}; all weights in memory, one thread a node",
                    f"the 1B shape is {LLAMA_3_1B.name}, of random weights"]  # fmt: skip
    return result


@contextlib.contextmanager
def opened_mesh(case: Case, checkout: Path | None = None, lane: str = "") -> Iterator[Callable[[int], Answered]]:
    """Start a mesh, load the case's model onto it, and give the function that answers so many tokens.

    Args: checkout: whose programs, if not this one's; lane: the coordinator's --rounds; empty: it is not given.
    Raises: BenchBroken: the model cannot be loaded, or an answer fails.
    """
    names = NODES[: case.node_count]
    model = case.model()
    with MeshOfHosts(
        names, rate_mbit=LOAD_MBIT, options=dict.fromkeys(names, ("--memory-window", "0")),
        coordinator_options=("--rounds", lane) if lane else (), checkout=checkout,
    ) as mesh:  # fmt: skip
        _finish(mesh, LOAD_SECONDS, "load", str(model), "--split-strategy", "uniform", "--weights-dtype", case.dtype)
        limit_links(mesh.hosts, (DESK, *names))
        yield lambda length: _answer(mesh, length)


def _open_all(case: Case, settings: Settings, closing: ExitStack) -> dict[str, Callable[[int], Answered]]:
    """Start one mesh, or two, and have each answer once."""
    print(f"links: {case.name}", flush=True)
    opened = {THIS: closing.enter_context(opened_mesh(case, lane=settings.lane))}
    if settings.older is not None:
        opened[OLDER] = closing.enter_context(opened_mesh(case, checkout=settings.older.resolve()))
    for answer in opened.values():
        answer(4)
    return opened


def _take_turns(opened: dict[str, Callable[[int], Answered]], settings: Settings) -> dict[str, list[Answered]]:
    turns: dict[str, list[Answered]] = {whose: [] for whose in opened}
    for number in range(settings.rounds):
        for whose in list(opened) if number % 2 == 0 else reversed(list(opened)):
            turns[whose].append(opened[whose](settings.length))
            print(f"links: {whose}: {1 / turns[whose][-1].seconds:.2f} tokens/s", flush=True)
    for whose, own in turns.items():
        if len({one.token_ids for one in own}) > 1:
            raise BenchBroken(f"links: {whose} says other tokens from one answer to the next")
    return turns


def _answer(mesh: MeshOfHosts, length: int) -> Answered:
    before, passed, started = _processor(mesh), passed_bytes(mesh.hosts, DESK), time.perf_counter()
    said = _finish(mesh, ANSWER_SECONDS, *mesh.ask(PROMPT, length), "--json")
    passed, total_seconds = passed_bytes(mesh.hosts, DESK) - passed, time.perf_counter() - started
    document: dict[str, Any] = json.loads(said)
    return Answered(
        token_ids=tuple(document["token_ids"]), seconds_per_token=tuple(document["timings"]["seconds_per_token"]),
        link_bytes=passed, processor=subtract(_processor(mesh), before), total_seconds=total_seconds,
    )  # fmt: skip


def _processor(mesh: MeshOfHosts) -> dict[str, float]:
    """Return the processor time so far of the coordinator, of all nodes, and of whatever else this machine does."""
    spent = {}
    for name, running in mesh.running.items():
        times = psutil.Process(running.process.pid).cpu_times()
        spent[name] = times.user + times.system
    own = os.times()
    ours = own.user + own.system + own.children_user + own.children_system  # and the commands that have asked
    of_nodes = sum(spent[name] for name in mesh.nodes)
    return {"coordinator": spent[DESK], "nodes": of_nodes, "others": busy_seconds() - sum(spent.values()) - ours}


def _finish(mesh: MeshOfHosts, limit_seconds: float, *arguments: str) -> str:
    """Return what a verb of coordinator-cli says. Raises: BenchBroken: it fails."""
    finished = mesh.start_cli(*arguments).finish(limit_seconds)
    if finished.code:
        raise BenchBroken(f"coordinator-cli {arguments[0]} ended with {finished.code}: {finished.err[-2000:]}")
    return finished.out


def _row(case: Case, whose: str, own: Sequence[Answered]) -> tuple[str, ...]:
    rate = Spread.of([1 / one.seconds for one in own])
    tokens = [len(one.token_ids) for one in own]
    sent = Spread.of([one.link_bytes / count for one, count in zip(own, tokens, strict=True)]).median
    processor = [
        Spread.of([1000 * one.processor[role] / count for one, count in zip(own, tokens, strict=True)]).median
        for role in ("coordinator", "nodes")
    ]
    others = Spread.of([100 * one.others_share for one in own]).median
    return (
        f"{case.name}: {whose}", *rate.cells(2), f"{1000 / rate.median:.0f}", *(f"{one:.0f}" for one in processor),
        f"{sent / 1000:.0f}", f"{1000 * wire_seconds(sent):.1f}", f"{others:.0f}",
    )  # fmt: skip


def _bar(case: Case, turns: dict[str, list[Answered]]) -> Bar:
    pairs = list(zip(turns[THIS], turns[OLDER], strict=True))
    quiet = [pair for pair in pairs if all(one.others_share <= QUIET_SHARE for one in pair)]
    ratios = [older.seconds / this.seconds for this, older in quiet or pairs]
    return Bar(
        name=f"{case.name}: this checkout / the older one, in {len(quiet)} of {len(pairs)} rounds that were quiet,",
        measured=Spread.of(ratios).median, needed=case.needed, undecided="" if quiet else DISTURBED,
    )  # fmt: skip
