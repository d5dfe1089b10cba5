"""Sweeps as a file that Perfetto (ui.perfetto.dev) and Chrome open: a track for the coordinator, one for each node.

Covers: the coordinator's sweeps, in them rounds and head; each node's rounds, in them waiting and computing; a track
for requests. Does not cover: asking for them (trace.py).
A node tells how long it waited and computed, and not when: in its round these lie one after another before the answer.
Source: "Trace Event Format", the Chromium project; Perfetto's docs, "Visualizing external trace formats".
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from typing import IO, TYPE_CHECKING, Any

if TYPE_CHECKING:  # gRPC's messages come with it, and --help must not wait for them
    from protos.shardmesh.v1 import observe_pb2

Event = dict[str, Any]
COORDINATOR_PROCESS = 1
SWEEPS_TRACK, REQUESTS_TRACK = 1, 2
NODE_TRACK = 1
WAITS = (("queue", "queue_nanoseconds"), ("disk wait", "tile_wait_nanoseconds"), ("kernels", "compute_nanoseconds"))
"""In the order in which a node goes through them."""


class TraceEvents:
    """Turns sweeps into events, one after another."""

    def __init__(self) -> None:
        self._processes: dict[str, int] = {}
        self._requests: dict[str, tuple[float, float]] = {}

    def of(self, sweep: observe_pb2.TracedSweep) -> Iterator[Event]:
        """Yield a sweep's events; those of a node that is new are after its name."""
        rows = {one.request_id: one.row_count for one in sweep.rows}
        ends = [sweep.finished_seconds, *(one.finished_seconds for one in sweep.rounds)]
        about = {"sweep": sweep.sweep_id, "model": sweep.model, "rows": rows, "is_over": bool(sweep.finished_seconds)}
        yield _slice("sweep", sweep.started_seconds, max(ends), COORDINATOR_PROCESS, SWEEPS_TRACK, about)
        for traced in sweep.rounds:
            yield from self._round(traced)
        if sweep.finished_seconds:
            yield _slice(
                "head", sweep.head_started_seconds, sweep.finished_seconds, COORDINATOR_PROCESS, SWEEPS_TRACK, {}
            )
        for request_id in rows:
            first, _ = self._requests.get(request_id, (sweep.started_seconds, 0.0))
            self._requests[request_id] = first, sweep.finished_seconds

    def names(self) -> Iterator[Event]:
        """Yield what the tracks are called, and the requests, from their first sweep to their last one."""
        yield _named("process_name", "coordinator", COORDINATOR_PROCESS, 0)
        yield _named("thread_name", "sweeps", COORDINATOR_PROCESS, SWEEPS_TRACK)
        yield _named("thread_name", "requests", COORDINATOR_PROCESS, REQUESTS_TRACK)
        for node, process in self._processes.items():
            yield _named("process_name", node, process, 0)
            yield _named("thread_name", "rounds", process, NODE_TRACK)
        for request_id, instants in self._requests.items():
            for phase, seconds in zip("be", instants, strict=True):
                yield {
                    "name": request_id, "cat": "request", "ph": phase, "id": request_id, "ts": _microseconds(seconds),
                    "pid": COORDINATOR_PROCESS, "tid": REQUESTS_TRACK,
                }  # fmt: skip

    def _round(self, traced: observe_pb2.TracedRound) -> Iterator[Event]:
        name = traced.kind if traced.layer_count == 1 else f"{traced.layer_count} {traced.kind}"
        about = {"layer": traced.layer, "rows": traced.row_count, "last": traced.parts[-1].node}
        started = traced.started_seconds
        yield _slice(name, started, traced.finished_seconds, COORDINATOR_PROCESS, SWEEPS_TRACK, about)
        for part in traced.parts:
            process = self._processes.setdefault(part.node, COORDINATOR_PROCESS + 1 + len(self._processes))
            sizes = {
                "layer": traced.layer, "sent_bytes": part.sent_bytes, "received_bytes": part.received_bytes,
                "core_wait_us": part.core_wait_nanoseconds / 1e3,
            }  # fmt: skip
            yield _slice(name, started, part.arrived_seconds, process, NODE_TRACK, sizes)
            taken = [(what, getattr(part, field) / 1e9) for what, field in WAITS]
            at = max(started, part.arrived_seconds - sum(seconds for _, seconds in taken))
            for what, seconds in taken:
                end = min(at + seconds, part.arrived_seconds)
                if end > at:
                    yield _slice(what, at, end, process, NODE_TRACK, {})
                at = end


def write_trace(sweeps: Iterable[observe_pb2.TracedSweep], file: IO[str]) -> int:
    """Write sweeps as they come, as one JSON document, and return how many there were."""
    events, count = TraceEvents(), 0
    file.write('{"displayTimeUnit": "ms", "traceEvents": [\n')
    for sweep in sweeps:
        count += 1
        for event in events.of(sweep):
            file.write(json.dumps(event) + ",\n")
    file.write(",\n".join(json.dumps(event) for event in events.names()) + "\n]}\n")
    return count


def _slice(name: str, started: float, ended: float, process: int, track: int, about: dict[str, Any]) -> Event:
    start = _microseconds(started)
    return {
        "name": name, "ph": "X", "ts": start, "dur": max(0.0, round(_microseconds(ended) - start, 3)), "pid": process,
        "tid": track, "args": about,
    }  # fmt: skip


def _named(kind: str, name: str, process: int, track: int) -> Event:
    return {"name": kind, "ph": "M", "pid": process, "tid": track, "args": {"name": name}}


def _microseconds(seconds: float) -> float:
    """Return an instant as the format has it: microseconds, to the nanosecond."""
    return round(seconds * 1e6, 3)
