"""How near do `coordinator-cli plan`'s predictions come to what is measured, for a 3B model on two uneven meshes?

Covers: time to the first token, time a token, each node's peak memory; one mesh whose weights stay in memory behind
links of 100 Mbit/s, one with a node that streams its weights from disk. Each node has a core of its own. Predicting and
answering take turns, several rounds, since a shared machine is another one from minute to minute.
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
        _measure_one(uneven, model, settings, result)
    return result


def _measure_one(uneven: Uneven, model: Path, settings: Settings, result: Result) -> None:
    cores = {name: index for index, name in enumerate(NODES)}
    with MeshOfHosts(NODES, rate_mbit=FAST_MBIT, options=uneven.options, cores=cores) as mesh:
        started = time.monotonic()
        loaded = mesh.start_cli("load", str(model), "--split-strategy", uneven.strategy, "--name", "model")
        if (finished := loaded.finish(LOAD_SECONDS)).code:
            raise BenchBroken(f"plan: cannot load: {finished.err}")
        print(f"shipped in {time.monotonic() - started:.0f} s", flush=True)
        for name in NODES:
            mesh.hosts.set_rate(name, uneven.rate_mbit)
        prompt = long_prompt(model, PROMPT_TOKENS)
        mesh.cli(*mesh.ask(prompt, 2))  # every tile was read once, and is verified
        rounds = [_one_round(mesh, model, uneven, prompt) for _ in range(settings.rounds)]
    rows = []
    for what, most in (("first token, s", MOST_TIME_ERROR), ("a token, s", MOST_TIME_ERROR),
                       *((f"{name}'s memory, GB", MOST_MEMORY_ERROR) for name in NODES)):  # fmt: skip
        pairs = [one[what] for one in rounds]
        errors = sorted(predicted / measured - 1 for predicted, measured in pairs)
        middle = statistics.median(errors)
        rows.append((
            what, *(f"{statistics.median(side):.3f}" for side in zip(*pairs, strict=True)), f"{100 * middle:+.0f} %",
            f"{100 * errors[0]:+.0f} to {100 * errors[-1]:+.0f} %",
        ))  # fmt: skip
        result.bars.append(Bar(
            name=f"{uneven.name}: error of {what}, median of {len(errors)} rounds", measured=abs(middle), needed=most,
            at_least=False,
        ))  # fmt: skip
    result.tables.append(
        Table(
            title=uneven.name, header=("what", "predicted", "measured", "error, median", "of single rounds"), rows=rows
        )
    )
    result.numbers[uneven.name] = rounds


def _one_round(mesh: MeshOfHosts, model: Path, uneven: Uneven, prompt: str) -> dict[str, tuple[float, float]]:
    """Predict, which measures all devices and links, then answer; return what was predicted and what measured."""
    predicted: dict[str, Any] = json.loads(mesh.cli(
        "plan", str(model), "--split-strategy", uneven.strategy, "--json", "--prompt-tokens", str(PROMPT_TOKENS),
        "--length", str(LENGTH),
    ).out)  # fmt: skip
    measured: dict[str, Any] = json.loads(mesh.cli(*mesh.ask(prompt, LENGTH), "--json").out)
    timings = measured["timings"]
    peaks = [measured["memory"][f"node{rank}"]["peak_rss_bytes"] for rank in range(len(NODES))]
    found = {
        "first token, s": (predicted["ttft_seconds"], timings["ttft_seconds"]),
        "a token, s": (predicted["seconds_per_token"], statistics.median(timings["seconds_per_token"])),
        **{
            f"{device['name']}'s memory, GB": (device["peak_memory_bytes"] / 1e9, peak / 1e9)
            for device, peak in zip(predicted["devices"], peaks, strict=True)
        },
    }
    print({what: f"{a / b - 1:+.2f}" for what, (a, b) in found.items()}, predicted["bottleneck"], flush=True)
    return found
