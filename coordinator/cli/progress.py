"""Progress bars on stderr for work that counts bytes; silent where stderr is no terminal.

Covers: one bar, one for each node; who feeds them calls a function with bytes. Does not cover: who works.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TextColumn
from rich.table import Column
from rich.text import Text

from common.wording import plain
from coordinator.cli.tables import screen

if TYPE_CHECKING:  # gRPC comes with it, which a split has no use for
    from coordinator.slicing.split_request import ReportBytes

MOST_LETTERS = 24
"""Of a name before its bar, which wants some room too."""
UNITS = ((10**9, "GB"), (10**6, "MB"), (1, "bytes"))
ReportNode = Callable[[str, int, int], None]
"""Called with a name, the bytes that are there, and all of them."""


@contextmanager
def byte_progress(text: str) -> Iterator[ReportBytes]:
    """Yield a function to call with (bytes done, bytes in all); the bar shows up at the first call."""
    bar = _bars(screen(to_stderr=True))
    task = bar.add_task(plain(text, MOST_LETTERS), visible=False)
    with bar:
        yield lambda done, total: bar.update(task, completed=done, total=total, visible=True)


@contextmanager
def token_progress(text: str) -> Iterator[Callable[[int, int], None]]:
    """Yield a function to call with (tokens done, tokens in all)."""
    bar = Progress(
        TextColumn("{task.description}"), BarColumn(None),
        TextColumn("{task.completed:.0f} of {task.total:.0f} tokens"),
        console=screen(to_stderr=True), transient=True, disable=not screen(to_stderr=True).is_terminal, expand=True,
    )  # fmt: skip
    task = bar.add_task(text, visible=False)
    with bar:
        yield lambda done, total: bar.update(task, completed=done, total=total, visible=True)


@contextmanager
def node_progress(names: Sequence[str]) -> Iterator[ReportNode]:
    """Yield what to call with a node's name and its slice's bytes; a bar for each node, from the first call on."""
    bars, report = node_bars(names, screen(to_stderr=True))
    with bars:
        yield report


def node_bars(names: Sequence[str], console: Console) -> tuple[Progress, ReportNode]:
    """Return a bar for each node, not started yet, and what moves them."""
    bars = _bars(console)
    tasks = {name: bars.add_task(plain(name, MOST_LETTERS), visible=False) for name in names}

    def report(name: str, done: int, total: int) -> None:
        bars.update(tasks[name], completed=done, total=total, visible=True)

    return bars, report


def _bars(console: Console) -> Progress:
    return Progress(
        TextColumn("{task.description}", markup=False, table_column=Column(no_wrap=True)),
        BarColumn(None, table_column=Column(ratio=1)), _Bytes(), _Pace(), console=console, transient=True,
        disable=not console.is_terminal, expand=True,
    )  # fmt: skip


class _Bytes(ProgressColumn):
    """How much of how much: 1.0 of 4.0 GB."""

    def __init__(self) -> None:
        super().__init__(Column(no_wrap=True, justify="right"))

    def render(self, task: Task) -> Text:
        done, total = int(task.completed), int(task.total or 0)
        unit, name = next((unit, name) for unit, name in UNITS if total >= unit or unit == 1)
        digits = 0 if unit == 1 else 1
        return Text(f"{done / unit:.{digits}f} of {total / unit:.{digits}f} {name}")


class _Pace(ProgressColumn):
    """How fast, and how long still: 11 MB/s, 4:12 left; nothing until that is known."""

    max_refresh = 0.5

    def __init__(self) -> None:
        super().__init__(Column(no_wrap=True))

    def render(self, task: Task) -> Text:
        if task.finished:
            return Text("done")
        if not task.speed or task.time_remaining is None:
            return Text("")
        minutes, seconds = divmod(int(task.time_remaining), 60)
        left = f"{minutes // 60}:{minutes % 60:02}:{seconds:02}" if minutes >= 60 else f"{minutes}:{seconds:02}"
        return Text(f"{task.speed / 1e6:.0f} MB/s, {left} left")
