"""Fixed facts of a small mesh, and every screen made of them as a terminal of some width would show it.

    python -m tests.support.screens      makes the files of tests/unit/screens anew; look at what changes

Covers: `nodes status models slices plan load doctor generate top why`. Does not cover: finding facts out.
"""

from __future__ import annotations

import contextlib
import io
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast
from unittest import mock

import pytest

from common.model.plan import make_plan
from common.weights.slice_description import SliceDescription
from coordinator.answering.requests import Event, Finished, Notice, Started, Token
from coordinator.cli.answer_output import write_events, write_report
from coordinator.cli.answer_screen import AnswerScreen
from coordinator.cli.doctor import show_findings
from coordinator.cli.models import show_models
from coordinator.cli.nodes import show_nodes, show_observers
from coordinator.cli.plan_table import show_plan
from coordinator.cli.progress import node_bars
from coordinator.cli.status_table import show_status
from coordinator.cli.tables import screen
from coordinator.cli.telling import say
from coordinator.cli.top_screen import Standing, top_lines
from coordinator.cli.why_words import bound_of, sentences
from coordinator.engine.timings import Timings
from coordinator.planning.prediction import DevicePrediction, Prediction
from protos.shardmesh.v1 import mesh_pb2
from tests.support.observed_facts import overview
from tests.support.planned_models import SPEC
from tests.support.slices_screens import show_slices, show_slices_of_nodes

GOLDEN = Path(__file__).resolve().parents[1] / "unit" / "screens"
WIDTHS = (60, 80, 120)
GB = 10**9


def environment(*, width: int, colour: bool) -> dict[str, str]:
    """Return what a terminal of so many columns sets; without colours, as NO_COLOR asks for."""
    colours = {"FORCE_COLOR": "1", "COLORTERM": ""} if colour else {"NO_COLOR": "1"}
    return {"COLUMNS": str(width), "LINES": "40", "TERM": "xterm-16color", **colours}


def as_terminal(monkeypatch: pytest.MonkeyPatch, *, width: int, colour: bool) -> None:
    """Have what is printed from now on look as on such a terminal."""
    for name in ("NO_COLOR", "FORCE_COLOR"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment(width=width, colour=colour).items():
        monkeypatch.setenv(name, value)


def node(
    *, name: str = "kitchen", address: str = "192.168.1.23:50051", version: str = "0.1.0", silent: float = 0.4,
    rank: int = 0, core_count: int = 4, memory: tuple[float, float] = (2.9, 8.2), disk: float = 98.0,
) -> mesh_pb2.Node:  # fmt: skip
    """Return a node as the coordinator lists it."""
    device = mesh_pb2.Device(
        version=version, core_count=core_count, free_memory_bytes=int(memory[0] * GB), memory_bytes=int(memory[1] * GB),
        free_disk_bytes=int(disk * GB),
    )  # fmt: skip
    return mesh_pb2.Node(name=name, address=address, silent_seconds=silent, rank=rank, device=device)


def nodes() -> list[mesh_pb2.Node]:
    """Return four nodes: one is silent, one was never heard, one serves no model."""
    return [
        node(),
        node(name="attic", address="192.168.1.24:50051", silent=7300.0, rank=1, memory=(0.7, 3.9), disk=21.0),
        node(name="cellar", address="", silent=-1.0, rank=-1, core_count=0, memory=(0, 0), disk=0, version=""),
        node(name="media-pc", address="192.168.1.170:50051", rank=-1, core_count=16,
             memory=(51.5, 64.2), disk=1830.0),
    ]  # fmt: skip


def observers() -> None:
    """Show who may read metrics: one still does, the other's certificate has ended."""
    ends = datetime(2027, 11, 30, tzinfo=timezone.utc).timestamp()
    show_observers(
        [
            mesh_pb2.Observer(name="prometheus", certificate_ends=int(ends)),
            mesh_pb2.Observer(name="former-grafana-agent", certificate_ends=int(ends) - 400 * 86400),
        ],
        now=ends - 86400,
    )


def status() -> dict[str, Any]:
    """Return what `status` finds: one node answers, one does not, one is in trouble, one serves nothing."""
    nobody = {
        "is_alive": True, "serves_model": None, "serves_rank": None, "world_size": None, "serves_unknown_slice": False,
        "free_disk_bytes": 98 * GB, "trouble": None,
    }  # fmt: skip
    serving = {**nobody, "serves_model": "SmolLM2-135M-Instruct", "serves_rank": 0, "world_size": 3}
    trouble = "mlp.3.down.safetensors is damaged; load the model again"
    return {
        "mesh": "home",
        "nodes": [
            {**serving, "name": "kitchen"},
            {**nobody, "name": "attic", "is_alive": False, "free_disk_bytes": None, "trouble": "not reached"},
            {**serving, "name": "cellar", "serves_rank": 2, "free_disk_bytes": 7 * GB, "trouble": trouble},
            {**nobody, "name": "living-room", "free_disk_bytes": 1830 * GB},
        ],
        "models": [
            {"name": "SmolLM2-135M-Instruct", "node_names": ["kitchen", "attic", "cellar"], "is_ready": False,
             "state": "attic is not reached"},
            {"name": "tiny", "node_names": ["kitchen"], "is_ready": True, "state": "ready"},
        ],
    }  # fmt: skip


def models() -> list[dict[str, Any]]:
    """Return what `models` lists: one that is not whole, one that can answer, one whose load was interrupted."""
    interrupted = "its load was interrupted; load it again to go on, or unload it"
    return [
        {"name": "SmolLM2-135M-Instruct", "node_names": ["kitchen", "attic", "cellar"], "split_strategy": "measured",
         "dtype": "bfloat16", "total_bytes": 0.27 * GB, "is_ready": False, "state": "attic is not reached"},
        {"name": "tiny", "node_names": ["kitchen"], "split_strategy": "uniform", "dtype": "float32",
         "total_bytes": 0.1 * GB, "is_ready": True, "state": "ready"},
        {"name": "Llama-3.1-70B-Instruct", "node_names": ["kitchen", "living-room"],
         "split_strategy": "ratio:1,12", "dtype": "bfloat16", "total_bytes": 141.1 * GB, "is_ready": False,
         "state": interrupted},
    ]  # fmt: skip


def plan(
    *, device_name: str = "kitchen", bottleneck: str = "attic's disk: 2.31 GB a token do not fit its memory and take "
    "5.78 s; with --memory-budget auto it would keep more",
) -> tuple[SliceDescription, Prediction]:  # fmt: skip
    """Return a plan for three devices, of which one is too small."""
    parts = tuple(
        DevicePrediction(
            name=name, slice_bytes=int(disk * GB), peak_memory_bytes=int(memory * GB), streamed_bytes=0,
            compute_seconds=compute, disk_seconds=read, link_seconds=0.012, prompt_seconds=1.0, has_budget=False,
            fits=fits,
        )
        for name, disk, memory, compute, read, fits in [
            (device_name, 4.02, 1.13, 0.501, 0.0, True),
            ("attic", 2.31, 0.77, 0.412, 5.78, True),
            ("living-room", 9.99, 12.3, 0.201, 0.0, False),
        ]
    )  # fmt: skip
    description = cast("SliceDescription", SimpleNamespace(plan=make_plan(SPEC, "ratio:2,1,1", 3)))
    return description, Prediction(devices=parts, seconds_per_token=5.91, ttft_seconds=12.4, bottleneck=bottleneck)


def findings() -> dict[str, Any]:
    """Return what `doctor` finds: two nodes measured, one not heard, a model that could answer."""
    rates = {"memory_bytes_per_second": 7.9e9, "disk_bytes_per_second": 0.41e9, "arithmetic_per_second": 52e9}
    return {
        "nodes": [
            {"name": "kitchen", "round_trip_seconds": 0.0007, "link_bytes_per_second": 117e6, **rates},
            {"name": "living-room", "round_trip_seconds": 0.0041, "link_bytes_per_second": 5.2e6, **rates},
        ],
        "not_heard": ["attic"],
        "model": {
            "name": "SmolLM2-135M-Instruct", "missing_node_names": [], "tokens_per_second": 9.6,
            "bottleneck": "living-room's link: 4.1 ms a round, 60 rounds a token, 246 of 271 ms",
        },
    }  # fmt: skip


def why() -> dict[str, Any]:
    """Return what `why` finds: a disk, and two things that would help as much."""
    parts = [("kitchen", "disk", 0.4), ("living-room", "processor", 0.15), ("", "coordinator", 0.1)]
    return {
        "sweep_count": 12, "bound": bound_of(parts), "seconds_per_sweep": 0.65, "seconds_ago": 0.4,
        "tokens_per_second": 1.54, "advice": [
            {"text": "1.2 GB more budget there (--memory-budget 2.20GB)", "saved_seconds": 0.4},
            {"text": "one more node like living-room", "saved_seconds": 0.39},
        ],
    }  # fmt: skip


def load() -> None:
    """Show a load half-way, ten seconds after it began."""
    console = screen(to_stderr=True)
    with mock.patch.object(console, "get_time", return_value=0.0) as clock:
        bars, report = node_bars(["coordinator's own slice", "kitchen", "living-room"], console)
        for seconds, share in ((0.0, 0.0), (9.0, 0.2), (12.0, 0.25)):
            clock.return_value = seconds
            report("coordinator's own slice", 113 * 10**6, 113 * 10**6)
            report("kitchen", int(share * 4 * GB), 4 * GB)
            report("living-room", 0, 2 * GB)
        console.print(bars.get_renderable())


def generate() -> None:
    """Show an answer with a note in it, and its report."""
    memory = {
        "coordinator": {"peak_rss_bytes": 412 * 10**6, "pss_bytes": 301 * 10**6, "checksum_nanoseconds": 10**7},
        "node0": {"peak_rss_bytes": 377 * 10**6, "pss_bytes": 188 * 10**6, "checksum_nanoseconds": 3 * 10**7},
    }
    timings = Timings(ttft_seconds=1.234, seconds_per_token=[0.1, 0.1])
    events: list[Event] = [
        Started(model="tiny", prompt_token_ids=(1, 2, 3)), Token(token_id=5, text="The sky"),
        Notice(text="node0 is slow: a round took 0.9 s instead of 0.05 s"), Token(token_id=6, text=" is blue"),
        Finished(reason="length", text=".", timings=timings, memory=memory),
    ]  # fmt: skip
    with AnswerScreen(is_quiet=False) as screen:
        answer = write_events(events, screen)
    write_report(replace(answer, startup_seconds=1.5, total_seconds=3.0), " (kernels avx512)")


def top() -> None:
    """Show a view that lives, and under it one in which the coordinator has gone away and there is little room."""
    console = screen()
    for height, silent_since in ((None, None), (16, 0.0)):
        standing = Standing(found=overview(), interval_seconds=1.0, silent_since=silent_since)
        with mock.patch("time.localtime", return_value=time.gmtime(0)):
            for line in top_lines(console, standing, height):
                console.print(line, soft_wrap=True)
        console.print()


SCREENS: Mapping[str, Callable[[], None]] = {
    "nodes": lambda: show_nodes(nodes()), "observers": observers, "status": lambda: show_status(status()),
    "models": lambda: show_models(models()), "slices": show_slices, "slices-of-nodes": show_slices_of_nodes,
    "plan": lambda: show_plan(*plan()), "load": load,
    "doctor": lambda: show_findings(findings()), "generate": generate, "why": lambda: say(sentences(why())),
    "top": top,
}  # fmt: skip


class _Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def shown(name: str, *, width: int, colour: bool) -> str:
    """Return a screen as `printed` does."""
    return printed(SCREENS[name], width=width, colour=colour)


def printed(show: Callable[[], None], *, width: int, colour: bool) -> str:
    """Return what such a terminal gets, stdout and stderr together; escape sequences as text, so to see."""
    terminal = _Terminal()
    clean = {key: value for key, value in os.environ.items() if key not in ("NO_COLOR", "FORCE_COLOR")}
    with (
        mock.patch.dict(os.environ, {**clean, **environment(width=width, colour=colour)}, clear=True),
        contextlib.redirect_stdout(terminal), contextlib.redirect_stderr(terminal),
    ):  # fmt: skip
        show()
    lines = terminal.getvalue().replace("\x1b", "\\e").replace("\r", "\\r").splitlines()
    return "\n".join(line.rstrip() for line in lines)


def golden(name: str) -> str:
    """Return a golden file's text: the screen at every width, with and without colours."""
    return "".join(
        f"===== {name}, {width} columns, {'colours' if colour else 'no colours'}\n"
        f"{shown(name, width=width, colour=colour)}\n\n"
        for width in WIDTHS
        for colour in (False, True)
    )


def main() -> None:
    """Write all golden files."""
    GOLDEN.mkdir(exist_ok=True)
    for name in SCREENS:
        (GOLDEN / f"{name}.txt").write_text(golden(name), encoding="utf-8")


if __name__ == "__main__":
    main()
