"""A progress bar for what mostly has nothing to do: what draws it is imported when there is something."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from coordinator.slicing.split_request import ReportBytes


@contextmanager
def late_progress(text: str) -> Iterator[ReportBytes]:
    """Yield a function to call with (bytes done, bytes in all), as `byte_progress` does."""
    with ExitStack() as closing:
        bars: list[ReportBytes] = []

        def report(done: int, total: int) -> None:
            if not bars:
                from coordinator.cli.progress import byte_progress

                bars.append(closing.enter_context(byte_progress(text)))
            bars[0](done, total)

        yield report
