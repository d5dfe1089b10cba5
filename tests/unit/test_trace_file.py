"""Is what `trace` writes a trace as Perfetto takes it, with every wait and kernel inside of its round?

Covers: the rules of the format, tracks, names of requests; a time that is none. Does not cover: a mesh that runs
(tests/contract/test_tracing.py).
"""

from __future__ import annotations

import io
import json
import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.errors import InputError
from coordinator.cli.trace import trace
from coordinator.cli.trace_file import write_trace
from protos.shardmesh.v1 import observe_pb2
from tests.support.trace_rules import broken_rules

NAMES = ("kitchen", "attic")
SECONDS = st.floats(0, 0.1, allow_nan=False)


def sweep(started: float, rounds: list[tuple[float, float, float]], *, is_over: bool = True) -> observe_pb2.TracedSweep:
    """Return a sweep of two nodes. Args: rounds: seconds of the round, of waiting and of computing on both."""
    made = observe_pb2.TracedSweep(model="tiny", sweep_id=7, started_seconds=started)
    at = started
    for layer, (took, waited, computed) in enumerate(rounds):
        end = at + took
        one = made.rounds.add(
            kind="ffn", layer=layer, layer_count=1, row_count=1, started_seconds=at, sent_seconds=at,
            finished_seconds=end,
        )  # fmt: skip
        for name, share in zip(NAMES, (0.5, 1.0), strict=True):
            one.parts.add(
                node=name, arrived_seconds=at + took * share, tile_wait_nanoseconds=int(waited * 1e9),
                compute_nanoseconds=int(computed * 1e9), sent_bytes=100, received_bytes=200,
            )  # fmt: skip
        at = end
    if is_over:
        made.head_started_seconds, made.finished_seconds = at, at + 0.001
        made.rows.add(request_id="ticket-4711", row_count=1)
    return made


def written(*sweeps: observe_pb2.TracedSweep) -> list[dict[str, Any]]:
    """Return the events of a file."""
    file = io.StringIO()
    assert write_trace(sweeps, file) == len(sweeps)
    document = json.loads(file.getvalue())
    assert document["displayTimeUnit"] == "ms"
    events: list[dict[str, Any]] = document["traceEvents"]
    assert broken_rules(events) == []
    return events


def test_a_sweep_lies_on_the_tracks_of_all_who_worked_on_it() -> None:
    """The coordinator's sweep, rounds and head; on each node its rounds, its waits and its kernels."""
    events = written(sweep(0.5, [(0.01, 0.001, 0.002), (0.02, 0.0, 0.004)]))
    processes = {event["args"]["name"]: event["pid"] for event in events if event["name"] == "process_name"}
    assert set(processes) == {"coordinator", *NAMES}
    names = {who: [event["name"] for event in events if event["ph"] == "X" and event["pid"] == process]
             for who, process in processes.items()}  # fmt: skip
    assert names["coordinator"] == ["sweep", "ffn", "ffn", "head"]
    assert names["attic"] == ["ffn", "disk wait", "kernels", "ffn", "kernels"]
    (whole,) = [event for event in events if event["name"] == "sweep"]
    assert (whole["ts"], whole["args"]["rows"]) == (500_000.0, {"ticket-4711": 1})
    assert whole["dur"] == pytest.approx(31_000)


def test_a_request_lasts_from_its_first_sweep_to_its_last() -> None:
    """Under the name that logs have it by."""
    events = written(sweep(0.5, [(0.01, 0, 0)]), sweep(1.5, [(0.01, 0, 0)]))
    begin, end = (event for event in events if event.get("cat") == "request")
    assert (begin["ph"], begin["id"], begin["ts"]) == ("b", "ticket-4711", 500_000.0)
    assert (end["ph"], end["id"], end["ts"]) == ("e", "ticket-4711", pytest.approx(1_511_000.0))


def test_a_sweep_that_is_not_over_is_there_as_far_as_it_came() -> None:
    """A prompt may take longer than the trace."""
    events = written(sweep(0.5, [(0.01, 0, 0)], is_over=False))
    (whole,) = [event for event in events if event["name"] == "sweep"]
    assert (whole["args"]["is_over"], whole["dur"]) == (False, pytest.approx(10_000))
    assert not [event for event in events if event["name"] == "head"]


def test_nothing_is_a_trace_too() -> None:
    """Nobody has asked meanwhile."""
    assert {event["ph"] for event in written()} == {"M"}


@given(st.lists(st.tuples(SECONDS, SECONDS, SECONDS), min_size=1, max_size=5))
def test_whatever_nodes_say_the_rules_are_kept(rounds: list[tuple[float, float, float]]) -> None:
    """Also of one that says that it computed longer than its round took."""
    written(sweep(0.0, rounds))


@pytest.mark.parametrize(
    ("event", "rule"),
    [
        ({"ph": "X", "ts": 0, "dur": 1, "pid": 1, "tid": 1}, "name"),
        ({"name": "a", "ph": "X", "ts": -1, "dur": 1, "pid": 1, "tid": 1}, "ts"),
        ({"name": "a", "ph": "X", "ts": 0, "pid": 1, "tid": 1}, "dur"),
        ({"name": "a", "ph": "X", "ts": 0, "dur": 1, "pid": "x", "tid": 1}, "pid"),
        ({"name": "a", "ph": "e", "ts": 0, "pid": 1, "tid": 1, "cat": "r", "id": "1"}, "end"),
        ({"name": "a", "ph": "?", "ts": 0, "pid": 1, "tid": 1}, "phase"),
        ({"name": "b", "ph": "X", "ts": 5, "dur": 10, "pid": 9, "tid": 1}, "overlap"),
    ],
)
def test_a_broken_rule_is_noticed(event: dict[str, Any], rule: str) -> None:
    """The rules are no rubber stamp."""
    other = {"name": "a", "ph": "X", "ts": 0, "dur": 10, "pid": 9, "tid": 1}
    assert any(rule in broken for broken in broken_rules([other, event]))


@pytest.mark.parametrize("seconds", [math.nan, math.inf, 0.0, -1.0, 601.0])
def test_a_time_that_is_none_is_told_before_anything_is_asked(tmp_path: Path, seconds: float) -> None:
    """By the option's name."""
    with pytest.raises(InputError, match=r"^--seconds is .*above 0 and at most 600"):
        trace(tmp_path / "trace.json", seconds, tmp_path)
