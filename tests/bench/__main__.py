"""How fast is shardmesh on this machine? `make bench` runs this; ARGS="--quick" takes less than a minute.

Covers: which benchmarks run, printing, the files in results/.
Does not cover: measuring (one file per benchmark: speed.py, first_token.py, growth.py, big.py, star_floor.py,
start.py, choosing.py, slicing.py, slicing_memory.py, light.py, links.py, see.py, quantized.py).
Exits with 0 whether bars hold or not, and with 1 when something did not work at all.

A new benchmark is a file with `measure(settings: Settings) -> Result` and a line in BENCHMARKS.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

os.environ["HF_HUB_OFFLINE"] = "1"  # before transformers is imported anywhere; workers inherit it
os.environ["TQDM_DISABLE"] = "1"
os.environ["TRANSFORMERS_VERBOSITY"] = "error"  # it warns of weights that stay on disk, which is the point there

from common.errors import ShardmeshError
from common.machine.operating_system import usable_core_count
from tests.bench import (
    big,
    choosing,
    first_token,
    growth,
    kernels,
    kills,
    light,
    links,
    predictions,
    quantized,
    rounding,
    see,
    slicing,
    slicing_memory,
    speed,
    star_floor,
    start,
)
from tests.bench.big_inputs import SIZES
from tests.bench.inputs import check_model
from tests.bench.report import BenchBroken, Result, Settings, machine_facts

BENCHMARKS: dict[str, Callable[[Settings], Result]] = {
    "slicing": slicing.measure,
    "slicing-memory": slicing_memory.measure,
    "start": start.measure,
    "light": light.measure,
    "star": star_floor.measure,
    "kernels": kernels.measure,
    "choosing": choosing.measure,
    "speed": speed.measure,
    "first-token": first_token.measure,
    "growth": growth.measure,
    "big": big.measure,
    "kills": kills.measure,
    "plan": predictions.measure,
    "links": links.measure,
    "rounding": rounding.measure,
    "see": see.measure,
    "quantized": quantized.measure,
}
FULL_ONLY = ("growth", "big", "kills", "plan", "links", "rounding", "see", "quantized")
"""Not part of --quick: minutes each, a model of 7 GB, or root (plan, kills, links; see: to look into processes)."""
RESULTS = Path(__file__).resolve().parent / "results"
CORES = 2
"""What the bars are stated for."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmarks that are asked for and return the exit code."""
    options = _parse(arguments)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # so that it closes everything, as Ctrl-C does
    settings = Settings(
        rounds=options.rounds or (2 if options.quick else 5), length=16 if options.quick else 64,
        is_quick=options.quick, big_size=options.big_size, older=options.older,
        llama_bench=options.llama_bench, case=options.case, lane=options.lane,
    )  # fmt: skip
    facts = {**machine_facts(), "cores_used": _use_two_cores(), "rounds": settings.rounds, "tokens": settings.length}
    names = [options.only] if options.only else [n for n in BENCHMARKS if not (options.quick and n in FULL_ONLY)]
    results = []
    try:
        check_model()
        for name in names:
            print(f"measuring {name}", flush=True)
            results.append(BENCHMARKS[name](settings))
            print("\n" + "\n".join(results[-1].lines()), flush=True)
    except (BenchBroken, ShardmeshError) as error:
        print(f"bench: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    stem = "-".join(["quick" if options.quick else "latest", *filter(None, [options.only, options.case])])
    _write(stem, facts, results)
    return 0


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description="Measure shardmesh on this machine.")
    parser.add_argument("--quick", action="store_true", help="less of everything: under a minute, rougher numbers")
    parser.add_argument("--rounds", type=int, help="how often each contender has its turn (5; quick: 2)")
    parser.add_argument("--only", choices=BENCHMARKS, help="run one benchmark")
    parser.add_argument("--big-size", choices=SIZES, default="3b", help="the shape of `big`'s model; 8b takes 50 GB")
    parser.add_argument("--older", type=Path, help="another checkout with an environment, for `links` to compare with")
    parser.add_argument("--llama-bench", type=Path, help="llama.cpp's llama-bench, for `quantized` to compare with")
    parser.add_argument("--case", choices=["", *links.CASES], default="", help="one mesh of `links`")
    parser.add_argument("--lane", choices=["", "grpc", "frames", "auto"], default="", help="its coordinator's --rounds")
    options = parser.parse_args(arguments)
    if options.rounds is not None and options.rounds < 1:
        parser.error("--rounds: at least 1 is needed")
    return options


def _use_two_cores() -> int:
    """Keep this process and its children on two cores where the system allows it; return how many are used."""
    if sys.platform == "linux":
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:CORES])
    return usable_core_count()


def _write(stem: str, facts: dict[str, Any], results: Sequence[Result]) -> None:
    """Write the numbers as JSON and the tables as markdown; only a full run replaces latest.md."""
    RESULTS.mkdir(exist_ok=True)
    document = {"machine": facts, "results": {result.name: result.numbers for result in results}}
    (RESULTS / f"{stem}.json").write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    for result in results:
        if result.picture is not None:
            result.picture.save(RESULTS / f"{stem}.svg")
            result.notes.append(f"![seconds a token over memory]({stem}.svg)")
    lines = ["# What `make bench` measured", "", *(f"- {name}: {value}" for name, value in facts.items()), ""]
    for result in results:
        lines += result.lines()
    (RESULTS / f"{stem}.md").write_text("\n".join(lines).rstrip() + "\n", encoding="utf-8")
    print(f"written: {RESULTS / stem}.md and .json")


if __name__ == "__main__":
    sys.exit(main())
