"""A progress bar on stderr for work that counts bytes; silent where stderr is no terminal."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

if TYPE_CHECKING:  # torch comes with it, which `load` has no use for
    from coordinator.slicing.splitter import ReportBytes


@contextmanager
def byte_progress(text: str) -> Iterator[ReportBytes]:
    """Yield a function to call with (bytes done, bytes in all); the bar shows up at the first call."""
    bar = _bars()
    task = bar.add_task(text, visible=False)
    with bar:
        yield lambda done, total: bar.update(task, completed=done, total=total, visible=True)


@contextmanager
def node_progress(names: Sequence[str]) -> Iterator[Callable[[str, int, int], None]]:
    """Yield what to call with a node's name and its slice's bytes, those that are there and all of them.

    There is a bar for each node, from the first call on.
    """
    bars = _bars()
    tasks = {name: bars.add_task(name, visible=False) for name in names}
    with bars:
        yield lambda name, done, total: bars.update(tasks[name], completed=done, total=total, visible=True)


def _bars() -> Progress:
    console = Console(stderr=True)
    return Progress(
        TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn(),
        console=console, transient=True, disable=not console.is_terminal,
    )  # fmt: skip
