"""Which rules of the trace event format does a list of events break? Those that Perfetto's importer holds them to.

Covers: phases that we write (X, M, b, e), their keys and types, slices of a track that lie inside each other or apart.
Source: "Trace Event Format", the Chromium project; Perfetto's docs, "Visualizing external trace formats": slices that
overlap and are not nested are dropped, or shown wrongly.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

Event = dict[str, Any]
SLACK_US = 0.0015
"""Instants are rounded to a nanosecond, and an end is a sum of two of them."""
KEYS: dict[str, dict[str, Any]] = {
    "X": {"name": str, "ts": (int, float), "dur": (int, float), "pid": int, "tid": int, "args": dict},
    "M": {"name": str, "pid": int, "tid": int, "args": dict},
    "b": {"name": str, "cat": str, "id": str, "ts": (int, float), "pid": int, "tid": int},
    "e": {"name": str, "cat": str, "id": str, "ts": (int, float), "pid": int, "tid": int},
}


def broken_rules(events: Sequence[Event]) -> list[str]:
    """Return a sentence for each rule that is broken."""
    broken = []
    for event in events:
        keys = KEYS.get(event.get("ph", ""))
        if keys is None:
            broken.append(f"no phase of ours: {event}")
            continue
        broken += [f"{key} is missing or of another type: {event}" for key, kind in keys.items()
                   if key != "args" and not isinstance(event.get(key), kind)]  # fmt: skip
        broken += [f"{key} is below 0: {event}" for key in ("ts", "dur") if event.get(key, 0) < 0]
    return broken or [*_not_nested(events), *_not_paired(events)]


def _not_nested(events: Sequence[Event]) -> list[str]:
    """Return slices that overlap others of their track in part."""
    tracks: dict[tuple[int, int], list[Event]] = defaultdict(list)
    for event in events:
        if event["ph"] == "X":
            tracks[event["pid"], event["tid"]].append(event)
    broken = []
    for track in tracks.values():
        open_ends: list[float] = []
        for event in sorted(track, key=lambda one: (one["ts"], -one["dur"])):
            end = event["ts"] + event["dur"]
            while open_ends and open_ends[-1] <= event["ts"] + SLACK_US:
                open_ends.pop()
            if open_ends and end > open_ends[-1] + SLACK_US:
                broken.append(f"slices overlap: {event} ends after {open_ends[-1]}")
            open_ends.append(end)
    return broken


def _not_paired(events: Sequence[Event]) -> list[str]:
    """Return asynchronous events that end before they begin, or never."""
    begun: dict[tuple[str, str], float] = {}
    broken = []
    for event in (one for one in events if one["ph"] in "be"):
        key = (event["cat"], event["id"])
        if event["ph"] == "b":
            begun[key] = event["ts"]
        elif key not in begun or begun.pop(key) > event["ts"]:
            broken.append(f"an end without a beginning: {event}")
    return [*broken, *(f"a beginning without an end: {key}" for key in begun)]
