"""What does it cost to be seen: observers, metrics, traces at 1 %, a scrape every 5 s, and `why`'s looking?

Covers: a coordinator program and a node that two people ask all the time, scraped over TLS by an observer, with an
OpenTelemetry collector that gets one request in a hundred: which share of the processor time of each is observing
(see_profile.py), where answers are as long as people's, and where they are short. A mesh of four on this machine that
looks at every second sweep: what a look adds to a sweep, and so once in two seconds to all of them.
Does not cover: single observers (observers.py), what `why` says (tests/observed).
"""

from __future__ import annotations

import itertools
import json
import os
import re
import signal
import ssl
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import asdict, replace
from http import HTTPStatus
from pathlib import Path
from unittest import mock

import psutil

from common.errors import ShardmeshError
from coordinator.program.spans import DEFAULT_SHARE, ENDPOINTS, SHARE, is_sampled
from coordinator.ranks.path_watch import LOOK_SECONDS
from tests.bench.inputs import KEPT_DIRECTORY, MODEL_DIRECTORY, PROMPT, sliced
from tests.bench.light import done, serving
from tests.bench.report import Bar, BenchBroken, Result, Settings, Spread, Table
from tests.bench.see_profile import Observing, Profile
from tests.support.cli import Shell
from tests.support.free_ports import free_port_pair
from tests.support.owner_asking import OwnerAsking
from tests.support.scraping import PROMETHEUS_HEADERS, Scraping, observer_of, observing, scrape
from tests.support.span_collector import Collector
from tests.support.waiting import wait_until

SCRAPE_SECONDS, PEOPLE = 5.0, 2
ANSWER_TOKENS, SHORT_TOKENS = 64, 8
"""People's answers are as long as the first, or longer; the second is harsher on what is written for each request."""
PROFILED_SECONDS, QUICK_SECONDS = {ANSWER_TOKENS: 90, SHORT_TOKENS: 60}, {ANSWER_TOKENS: 20, SHORT_TOKENS: 20}
LOOKED_TOKENS, QUICK_TOKENS, LOOKING_NODES = 300, 60, 4
MOST_PERCENT = 1.0
TRACING = ("spans.py", "opentelemetry")
"""Whose work is that of the requests that are traced."""
LIMIT_SECONDS, RUN_SECONDS = 30.0, 240.0
SCRAPES, RESTED_SECONDS = 60, 3.0
COORDINATOR, NODE = "coordinator", "node"


def measure(settings: Settings) -> Result:
    """Profile a mesh that is watched, then let one look in turns. Raises: BenchBroken: a program failed."""
    result = Result(name="See: what it costs to be seen, SmolLM2-135M, float32")
    with closing(Shell()) as shell, tempfile.TemporaryDirectory(dir=KEPT_DIRECTORY, prefix="see-") as directory:
        try:
            with Collector() as collector:
                _watched(shell, Path(directory), collector, settings, result)
            _looking(shell, Path(directory), QUICK_TOKENS if settings.is_quick else LOOKED_TOKENS, result)
        except (AssertionError, ShardmeshError, ImportError) as error:
            raise BenchBroken(f"see: {error}") from error
    return result


def _watched(shell: Shell, home: Path, collector: Collector, settings: Settings, result: Result) -> None:
    """Take profiles of a coordinator and its node while all of it goes on, with long answers and with short ones."""
    state, data, ports = home / "desk", home / "kitchen", [free_port_pair() for _ in range(3)]
    done(shell.run("coordinator-cli", "mesh", "init", "--state-dir", str(state)))
    with mock.patch.dict(os.environ, {ENDPOINTS[0]: collector.address, SHARE: str(DEFAULT_SHARE)}):
        program = serving(shell, "coordinator", "--state-dir", str(state), "--master-port", str(ports[0]),
                          "--metrics-listen", f"0.0.0.0:{ports[1]}")  # fmt: skip
    invited = done(shell.run("coordinator-cli", "mesh", "invite", "--state-dir", str(state)))
    token = re.findall(r"shardmesh-\S+", invited.out + invited.err)[0]
    done(shell.run("shardnode", "join", token, "--name", "kitchen", "--data-dir", str(data), "--no-measure",
                   "--listen", "127.0.0.1:0"))  # fmt: skip
    node = serving(shell, "shardnode", "--config", str(data / "shardnode.toml"), "--metrics-listen",
                   f"0.0.0.0:{ports[2]}")  # fmt: skip
    done(
        shell.run(
            "coordinator-cli",
            "load",
            str(MODEL_DIRECTORY),
            "--weights-dtype",
            "float32",
            "--state-dir",
            str(state),
            "--name",
            "demo",
        )
    )
    observer = observing(observer_of(state, "prometheus", home / "observer"))
    wait_until(
        lambda: all(scrape(port, observer).status == HTTPStatus.OK for port in ports[1:]),
        limit_seconds=LIMIT_SECONDS, what="an observer may read",
    )  # fmt: skip
    processes = {COORDINATOR: psutil.Process(program.process.pid), NODE: psutil.Process(node.process.pid)}
    names = _request_ids()
    found: dict[int, dict[str, Observing]] = {}
    for length, seconds in (QUICK_SECONDS if settings.is_quick else PROFILED_SECONDS).items():
        before = len(collector.spans())
        with _asked(state, length, names) as answered, _scraped(ports[1:], observer) as pages:
            wait_until(lambda: len(answered) >= PEOPLE, limit_seconds=LIMIT_SECONDS, what="answers")
            begun, stolen = len(answered), psutil.cpu_times().steal
            profiles = {name: Profile(one.pid, seconds=seconds, into=home) for name, one in processes.items()}
            found[length] = {name: profile.finish() for name, profile in profiles.items()}
            ended, stolen = answered[begun:], psutil.cpu_times().steal - stolen
        traced = sum(is_sampled(name, DEFAULT_SHARE) for name in ended)
        found[length] = {name: _at_share(one, len(ended), traced) for name, one in found[length].items()}
        result.notes.append(
            f"{len(ended)} answers of {length} tokens in {seconds} s, {PEOPLE} people at once; {len(pages)} pages "
            f"read; {traced} of the requests traced ({len(collector.spans()) - before} spans; what these took counts "
            f"as for one in a hundred); other machines of the host had {stolen:.0f} s of these cores"
        )
    _tell_watched(result, found)
    for port, (name, process) in zip(ports[1:], processes.items(), strict=True):
        took = result.numbers[name]["scrape_seconds"] = _scrape_seconds(process, port, observer)
        result.notes.append(f"{name}: a scrape takes {1000 * took:.1f} ms of it where nobody asks")
    for one in (node, program):
        one.process.send_signal(signal.SIGTERM)
        one.process.wait(LIMIT_SECONDS)


def _at_share(found: Observing, count: int, traced: int) -> Observing:
    """Return what would have been if the share of requests had been traced, not some more or less of so few."""
    scale = DEFAULT_SHARE * count / traced if traced else 1.0
    seconds = {file: taken * scale if file in TRACING else taken for file, taken in found.seconds.items()}
    return replace(found, seconds=seconds)


def _scrape_seconds(process: psutil.Process, port: int, observer: ssl.SSLContext) -> float:
    """Return the processor time that a scrape takes of a process, which rests otherwise but for what it does anyway."""

    def spent(count: int) -> float:
        before, started = _processor_seconds(process), time.monotonic()
        with Scraping(port, observer) as scraping:
            for _ in range(count):
                scraping.scrape(more=PROMETHEUS_HEADERS)
        if not count:
            time.sleep(RESTED_SECONDS)
        return (_processor_seconds(process) - before) / (time.monotonic() - started if not count else 1)

    rest = spent(0)
    started = time.monotonic()
    return (spent(SCRAPES) - rest * (time.monotonic() - started)) / SCRAPES


def _processor_seconds(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


@contextmanager
def _asked(state: Path, length: int, names: Iterator[str]) -> Iterator[list[str]]:
    """Have people ask, each again at once. Args: names: of requests. Yields: those done."""
    answered, ending = list[str](), threading.Event()

    def ask() -> None:
        asking = OwnerAsking(state)
        while not ending.is_set():
            name = next(names)
            asking.answer(PROMPT, length=length, request_id=name)
            answered.append(name)

    with _threads([ask] * PEOPLE, ending):
        yield answered


def _request_ids() -> Iterator[str]:
    """Yield names of which every hundredth is traced, beginning with one of the first."""
    lock = threading.Lock()
    numbers = itertools.count()
    traced = (name for name in map(str, itertools.count()) if is_sampled(name, DEFAULT_SHARE))
    others = (name for name in map(str, itertools.count()) if not is_sampled(name, DEFAULT_SHARE))

    class Names(Iterator[str]):
        def __next__(self) -> str:
            with lock:
                return next(traced if next(numbers) % round(1 / DEFAULT_SHARE) == 10 else others)

    return Names()


@contextmanager
def _scraped(ports: Sequence[int], observer: ssl.SSLContext) -> Iterator[list[int]]:
    """Read the pages as Prometheus does, which keeps its connections. Yields: how long each was."""
    lengths, ending = list[int](), threading.Event()

    def read() -> None:
        with ExitStack() as kept:
            scrapings = [kept.enter_context(Scraping(port, observer)) for port in ports]
            while not ending.wait(SCRAPE_SECONDS):
                lengths.extend(len(one.scrape(more=PROMETHEUS_HEADERS).text) for one in scrapings)

    with _threads([read], ending):
        yield lengths


@contextmanager
def _threads(targets: Sequence[Callable[[], None]], ending: threading.Event) -> Iterator[None]:
    threads = [threading.Thread(target=target, daemon=True) for target in targets]
    for one in threads:
        one.start()
    try:
        yield
    finally:
        ending.set()
        for one in threads:
            one.join(LIMIT_SECONDS)


def _tell_watched(result: Result, found: Mapping[int, Mapping[str, Observing]]) -> None:
    """Add a table of what observes, and for each program a bar of answers as long as people's."""
    rows = []
    for program in (COORDINATOR, NODE):
        columns = {length: by_program[program] for length, by_program in found.items()}
        files = dict.fromkeys(file for one in columns.values() for file in one.seconds)
        rows += [
            (program, file, *(f"{100 * one.seconds.get(file, 0.0) / one.whole:.2f}" for one in columns.values()))
            for file in files
        ]
        rows.append((program, "all of it", *(f"{one.percent:.2f}" for one in columns.values())))
        result.bars.append(Bar(
            name=f"observing, of the processor time of the {program} (answers of {ANSWER_TOKENS} tokens),",
            measured=columns[ANSWER_TOKENS].percent, needed=MOST_PERCENT, at_least=False, unit=" %",
        ))  # fmt: skip
        result.numbers[program] = {str(length): asdict(one) for length, one in columns.items()}
        result.notes += [f"{program}, answers of {length} tokens: {_told(one)}" for length, one in columns.items()]
    result.tables.append(Table(
        title="% of the whole processor time of each program, all its threads and system calls",
        header=("program", "what", *(f"{length} tokens" for length in found)), rows=rows,
    ))  # fmt: skip


def _told(one: Observing) -> str:
    return (f"{1000 * sum(one.seconds.values()):.0f} ms of {one.whole:.2f} s of processor time, as the kernel counts "
            f"both; of it {1000 * one.grpc_native:.0f} ms by gRPC's own threads, of answers, heartbeats and echoes, "
            f"which are not told apart and not counted; py-spy saw {one.looks} threads at work or waiting for a core, "
            f"{one.seen:.1f} s where the kernel counts {one.counted:.1f}, and {one.failed} looks failed")  # fmt: skip


def _looking(shell: Shell, home: Path, tokens: int, result: Result) -> None:
    """Compare sweeps that are looked at with those between them."""
    out = home / "turns.json"
    finished = shell.start_command([
        sys.executable, "-m", "tests.bench.looking_turns", str(out), "generate", "--model", str(MODEL_DIRECTORY),
        "--save-dir", str(sliced(LOOKING_NODES)), "--world-size", str(LOOKING_NODES), "--length", str(tokens),
        "--prompt", PROMPT, "--temperature", "0", "--ignore-eos",
    ]).finish(RUN_SECONDS)  # fmt: skip
    done(finished)
    turns = json.loads(out.read_text(encoding="utf-8"))
    looked, others = statistics.median(turns["looked"]), statistics.median(turns["others"])
    pairs = [one - other for one, other in zip(turns["looked"], turns["others"], strict=False)]
    more = statistics.median(pairs)
    percent = 100 * more / max(LOOK_SECONDS, others)
    result.tables.append(Table(
        title=f"ms of a sweep, {LOOKING_NODES} nodes on this machine, of {len(pairs)} pairs",
        header=("sweeps", "median", "least", "most"),
        rows=[
            ("looked at", *Spread.of([1000 * one for one in turns["looked"]]).cells(2)),
            ("others", *Spread.of([1000 * one for one in turns["others"]]).cells(2)),
            ("more, in a pair", *Spread.of([1000 * one for one in pairs]).cells(2)),
        ],
    ))  # fmt: skip
    result.numbers["looking"] = {"looked": looked, "others": others, "more": more, "pairs": len(pairs)}
    result.bars.append(Bar(
        name=f"a look every {LOOK_SECONDS:g} s ({100 * more / others:.1f} % of the sweep looked at), of all time,",
        measured=percent, needed=MOST_PERCENT, at_least=False, unit=" %",
    ))  # fmt: skip
