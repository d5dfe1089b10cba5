"""How near do `coordinator-cli plan`'s predictions come to what is measured, for a 3B model on two uneven meshes?

Covers: time to the first token, time a token, each node's peak memory; one mesh whose weights stay in memory behind
links of 100 Mbit/s, one with a node that streams its weights from disk. Each node has a core of its own.
Does not cover: shipping (7 GB at the rate of the machine, before the links are limited).
"""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.bench.big_inputs import prepare
from tests.bench.inputs import long_prompt
from tests.bench.report import Bar, BenchBroken, Result, Settings, Table
from tests.support.mesh_of_hosts import MeshOfHosts
from tests.support.network_hosts import why_not

PROMPT_TOKENS, LENGTH = 64, 12
MOST_TIME_ERROR, MOST_MEMORY_ERROR = 0.25, 0.10
FAST_MBIT = 20_000.0
LOAD_SECONDS = 400.0
NODES = ("attic", "kitchen")


@dataclass(frozen=True, kw_only=True)
class Uneven:
    """One mesh."""

    name: str
    strategy: str
    rate_mbit: float
    options: dict[str, Sequence[str]]


MESHES = (
    Uneven(name="in memory, 3:1, 100 Mbit/s", strategy="ratio:3,1", rate_mbit=100,
           options={"attic": ["--memory-budget", "6GB"], "kitchen": ["--memory-budget", "3GB"]}),
    Uneven(name="kitchen streams from disk, 2:1, 1 Gbit/s", strategy="ratio:2,1", rate_mbit=1000,
           options={"attic": ["--memory-budget", "6GB"], "kitchen": ["--memory-budget", "900MB"]}),
)  # fmt: skip


def measure(settings: Settings) -> Result:
    """Predict and measure each mesh. Raises: BenchBroken."""
    if reason := why_not():
        raise BenchBroken(f"plan: {reason}")
    model = prepare("3b").directory
    result = Result(name="Predicted beside measured: a 3B model on uneven meshes")
    for uneven in MESHES:
        _measure_one(uneven, model, result)
    return result


def _measure_one(uneven: Uneven, model: Path, result: Result) -> None:
    cores = {name: index for index, name in enumerate(NODES)}
    with MeshOfHosts(NODES, rate_mbit=FAST_MBIT, options=uneven.options, cores=cores) as mesh:
        started = time.monotonic()
        loaded = mesh.start_cli("load", str(model), "--split-strategy", uneven.strategy, "--name", "model")
        if (finished := loaded.finish(LOAD_SECONDS)).code:
            raise BenchBroken(f"plan: cannot load: {finished.err}")
        print(f"shipped in {time.monotonic() - started:.0f} s", flush=True)
        for name in NODES:
            mesh.hosts.set_rate(name, uneven.rate_mbit)
        predicted: dict[str, Any] = json.loads(mesh.cli(
            "plan", str(model), "--split-strategy", uneven.strategy, "--json", "--prompt-tokens", str(PROMPT_TOKENS),
            "--length", str(LENGTH),
        ).out)  # fmt: skip
        prompt = long_prompt(model, PROMPT_TOKENS)
        mesh.cli(*mesh.ask(prompt, 2))  # every tile was read once, and is verified
        measured: dict[str, Any] = json.loads(mesh.cli(*mesh.ask(prompt, LENGTH), "--json").out)
    token = statistics.median(measured["timings"]["seconds_per_token"])
    rows = [
        ("first token, s", predicted["ttft_seconds"], measured["timings"]["ttft_seconds"], MOST_TIME_ERROR),
        ("a token, s", predicted["seconds_per_token"], token, MOST_TIME_ERROR),
    ]
    for rank, device in enumerate(predicted["devices"]):
        peak = measured["memory"][f"node{rank}"]["peak_rss_bytes"]
        rows.append(
            (f"{device['name']}'s memory, GB", device["peak_memory_bytes"] / 1e9, peak / 1e9, MOST_MEMORY_ERROR)
        )
    result.tables.append(Table(
        title=uneven.name, header=("what", "predicted", "measured", "error"),
        rows=[(what, f"{a:.3f}", f"{b:.3f}", f"{100 * (a / b - 1):+.0f} %") for what, a, b, _ in rows],
    ))  # fmt: skip
    result.bars += [
        Bar(name=f"{uneven.name}: error of {what}", measured=abs(a / b - 1), needed=most, at_least=False)
        for what, a, b, most in rows
    ]
    result.notes.append(f"{uneven.name}: {predicted['bottleneck']}")
    result.numbers[uneven.name] = {"predicted": predicted, "measured": measured["timings"] | {
        "memory": measured["memory"]}}  # fmt: skip
