"""How does `top` look: a line on all, a row for each node with its memory as a bar, a row for each request?

Covers: what is left out where there is little room, in width and in height. Pure, but for the size of the console.
Does not cover: finding it out (top_document.py), when it is shown (top.py), how tables are laid out (tables.py).
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from rich.cells import cell_len
from rich.console import Console
from rich.text import Text

from common.program.sizes import shown_size
from common.wording import counted, plain
from coordinator.cli.tables import GAP, NOTHING, TITLE_STYLE, TROUBLE_STYLE, Column, Trouble, screen, table_lines

MOST_NAME, LEAST_NAME = 40, 12
MOST_LETTERS = 400
"""Of a stranger's word that are looked at."""
LEAST_BAR, MOST_BAR = 4, 24
NEAR_FULL = 0.95
"""Of a budget; then the bar is a trouble's."""
UNITS = ((10**9, "GB"), (10**6, "MB"), (1000, "kB"))

NODES = {
    "node": Column("node"), "state": Column("state"), "serves": Column("serves"), "memory": Column("memory"),
    "window": Column("window", is_number=True), "kv": Column("keys, values", is_number=True),
    "disk": Column("disk", is_number=True), "round": Column("round", is_number=True),
    "last": Column("last", is_number=True), "over": Column("over"),
}  # fmt: skip
REQUESTS = {
    "request": Column("request"), "model": Column("model"), "state": Column("state"),
    "tokens": Column("tokens", is_number=True), "rate": Column("tokens/s", is_number=True),
    "age": Column("age", is_number=True),
}  # fmt: skip
LEAVE_FIRST = ("kv", "serves", "window", "over", "round")
"""Columns of nodes that go where there is no room, in this order; `over` before all where it complains of nothing."""
OVER = {"direct": "socket", "frames": "frames", "grpc": "gRPC"}
REQUESTS_LEAVE_FIRST = ("model", "age")


@dataclass(frozen=True, kw_only=True)
class Standing:
    """What is known now."""

    found: Mapping[str, Any]
    """As top_document.py has it."""
    interval_seconds: float | None = None
    """Between looks, of a view that lives."""
    silent_since: float | None = None
    """Since when, seconds since 1970, the coordinator has not answered."""

    def with_found(self, found: Mapping[str, Any]) -> Standing:
        """Return it after an answer."""
        return replace(self, found=found, silent_since=None)

    def without_answer(self, now: float) -> Standing:
        """Return it after none."""
        return replace(self, silent_since=self.silent_since or now)


def show_top(standing: Standing) -> None:
    """Print all there is, once."""
    console = screen()
    for line in top_lines(console, standing):
        console.print(line, soft_wrap=True)


def top_lines(console: Console, standing: Standing, height: int | None = None) -> list[Text]:
    """Return the lines of a screen. Args: height: the most of them; None: all."""
    found = standing.found
    lines = [*_head(console, standing), Text()]
    nodes, requests = found["nodes"], found["requests"]
    foot = [] if standing.interval_seconds is None else [
        Text(), Text(f"q ends it; looked at every {standing.interval_seconds:g} s")
    ]  # fmt: skip
    node_count, request_count = len(nodes), len(requests)
    if height is not None:
        node_count, request_count = _shares(node_count, request_count, height - len(lines) - len(foot) - 5)
    if nodes:
        lines += _node_lines(console, nodes[:node_count])
        lines += _more(len(nodes) - node_count, "node")
    else:
        lines.append(Text("no nodes yet; coordinator-cli mesh invite lets one in"))
    lines.append(Text())
    if requests:
        lines += _request_lines(console, requests[:request_count])
        lines += _more(len(requests) - request_count, "request")
    else:
        lines.append(Text("no request is under way"))
    return [*lines, *foot] if height is None else [*lines, *foot][:height]


def _head(console: Console, standing: Standing) -> list[Text]:
    found = standing.found
    up = sum(node["is_up"] for node in found["nodes"])
    states = [one["state"] for one in found["requests"]]
    waiting = states.count("waiting")
    text = (
        f"mesh {found['mesh']}: {up} of {counted(len(found['nodes']), 'node')} up; "
        f"{counted(len(states) - waiting, 'answer')} under way, {waiting} waiting, at most {found['most_requests']}; "
        f"{found['tokens_per_second']:.1f} tokens/s; coordinator {shown_size(found['coordinator']['rss_bytes'])}"
    )
    lines = list(
        Text(plain(text[: 2 * MOST_LETTERS], MOST_LETTERS), style=TITLE_STYLE).wrap(
            console, console.width, overflow="fold"
        )
    )
    if standing.silent_since is not None:
        since = time.strftime("%H:%M:%S", time.localtime(standing.silent_since))
        trouble = f"the coordinator has not answered since {since}; waiting for it. This is from before:"
        lines = [*Text(trouble, style=TROUBLE_STYLE).wrap(console, console.width, overflow="fold"), *lines]
    for line in lines:
        line.rstrip()
    return lines


def _shares(node_count: int, request_count: int, room: int) -> tuple[int, int]:
    """Return how many nodes and requests are shown in so many lines: half for each, or what the other leaves."""
    room = max(2, room)
    half = room // 2
    shown_requests = min(request_count, max(half, room - node_count))
    return min(node_count, room - shown_requests), shown_requests


def _more(count: int, thing: str) -> list[Text]:
    return [Text(f"and {counted(count, 'more ' + thing)}; a higher terminal shows them")] if count > 0 else []


def _node_lines(console: Console, nodes: Sequence[Mapping[str, Any]]) -> list[Text]:
    def rows(names: Sequence[str], bar: int, most_name: int) -> list[list[str]]:
        return [[_cell(name, node, bar, most_name) for name in names] for node in nodes]

    names = list(NODES)
    first = () if any(node["frames_failed"] for node in nodes) else ("over",)
    for gone in ("", *first, *LEAVE_FIRST):
        names = [name for name in names if name != gone]
        columns = [NODES[name] for name in names]
        room = console.width - _width(columns, rows(names, LEAST_BAR, MOST_NAME))
        if room >= 0:
            return table_lines(console, columns, rows(names, min(MOST_BAR, LEAST_BAR + room), MOST_NAME))
    return table_lines(console, columns, rows(names, LEAST_BAR, LEAST_NAME))


def _request_lines(console: Console, requests: Sequence[Mapping[str, Any]]) -> list[Text]:
    names = list(REQUESTS)
    for gone in ("", *REQUESTS_LEAVE_FIRST):
        names = [name for name in names if name != gone]
        columns = [REQUESTS[name] for name in names]
        rows = [[_request(one)[name] for name in names] for one in requests]
        if _width(columns, rows) <= console.width:
            break
    return table_lines(console, columns, rows)


def _width(columns: Sequence[Column], rows: Sequence[Sequence[str]]) -> int:
    """Return how wide a table is that wraps nothing."""
    return GAP * (len(columns) - 1) + sum(
        max(cell_len(column.title), *(cell_len(row[index] or NOTHING) for row in rows))
        for index, column in enumerate(columns)
    )


def _cell(column: str, node: Mapping[str, Any], bar: int, most_name: int) -> str:
    """Return what stands in a column; empty for what is not known."""
    match column:
        case "node":
            return plain(node["name"][:MOST_LETTERS], most_name)
        case "state":
            return _state(node)
        case "serves":
            model = node["serves_model"]
            if model is None:
                return ""
            return f"{plain(model[:MOST_LETTERS], MOST_NAME)} {node['serves_rank'] + 1}/{node['world_size']}"
        case "memory":
            return _memory(node, bar)
        case "window":
            return shown_size(node["window_bytes"]) if node["window_bytes"] else ""
        case "kv":
            return "" if node["kv_bytes"] is None else _of(node["kv_bytes"], node["kv_budget_bytes"])
        case "disk":
            rate = node["read_bytes_per_second"]
            return "" if rate is None else f"{shown_size(int(rate))}/s"
        case "round":
            return "" if node["round_seconds"] is None else duration(node["round_seconds"])
        case "over":
            return _over(node)
        case _:
            return "" if node["last_share"] is None else f"{node['last_share']:.0%}"


def _state(node: Mapping[str, Any]) -> str:
    if node["is_up"]:
        return "up"
    if node["silent_seconds"] is None:
        return Trouble("not heard")
    return Trouble(f"lost {duration(node['silent_seconds'])}")


def _over(node: Mapping[str, Any]) -> str:
    """Return what carries a node's rounds; a trouble where that is only since another way could not be had."""
    over = OVER.get(node["rounds_over"], "")
    return Trouble(over) if node["frames_failed"] else over


def _memory(node: Mapping[str, Any], width: int) -> str:
    """Return memory as a bar against the budget, or against the machine's where there is none."""
    used, most = node["rss_bytes"], node["budget_bytes"] or node["machine_bytes"]
    if used is None:
        return ""
    if not most:
        return shown_size(used)
    share = min(1.0, used / most)
    bar = f"[{'|' * round(share * width):.<{width}}] {_of(used, most)}"
    return Trouble(bar) if share >= NEAR_FULL and node["budget_bytes"] else bar


def _request(one: Mapping[str, Any]) -> dict[str, str]:
    tokens = f"{one['answer_token_count']} of {one['most_answer_tokens']}"
    if one["state"] == "reading":
        tokens = f"{one['read_token_count']} of {one['prompt_token_count']} read"
    rate = one["tokens_per_second"]
    return {
        "request": plain(one["request_id"][:MOST_LETTERS], 20),
        "model": plain((one["model"] or "")[:MOST_LETTERS], 24), "state": one["state"],
        "tokens": tokens, "rate": f"{rate:.1f}" if rate else "", "age": duration(one["age_seconds"]),
    }  # fmt: skip


def _of(used: int, most: int | None) -> str:
    """Return `612 of 700 MB`, `0.6 of 8.2 GB`; without a most, what is used."""
    if not most:
        return shown_size(used)
    unit, name = next((unit, name) for unit, name in UNITS if most >= unit or unit == 1000)
    is_small = most / unit < 99.5 and unit == 10**9
    digits = 1 if is_small else 0
    return f"{used / unit:.{digits}f} of {most / unit:.{digits}f} {name}"


def duration(seconds: float) -> str:
    """Return 4.1 ms, 12 s, 7 min, 3 h."""
    if seconds < 0.9995:
        return f"{seconds * 1000:.{1 if seconds < 0.00995 else 0}f} ms"
    for limit, unit, name in ((99.5, 1, "s"), (5970, 60, "min"), (356400, 3600, "h")):
        if seconds < limit:
            digits = 1 if seconds < 9.95 and unit == 1 else 0
            return f"{seconds / unit:.{digits}f} {name}"
    return f"{seconds / 86400:.0f} d"
