"""A progress bar on stderr for work that counts bytes; silent where stderr is no terminal."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

from coordinator.slicing.splitter import Progress as ReportBytes


@contextmanager
def byte_progress(text: str) -> Iterator[ReportBytes]:
    """Yield a function to call with (bytes done, bytes in all); the bar shows up at the first call."""
    console = Console(stderr=True)
    bar = Progress(
        TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn(),
        console=console, transient=True, disable=not console.is_terminal,
    )  # fmt: skip
    task = bar.add_task(text, visible=False)
    with bar:
        yield lambda done, total: bar.update(task, completed=done, total=total, visible=True)
