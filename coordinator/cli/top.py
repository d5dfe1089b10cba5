"""`coordinator-cli top`: what nodes and requests do now, again and again.

Covers: one snapshot, or a view that lives until q. Does not cover: how it looks (top_screen.py), keys (top_keys.py).
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from typing import TYPE_CHECKING, Annotated, Any

import typer

from common.errors import InputError, NodeLost, NodeTimeout
from coordinator.cli.documents import JsonOption, show_document
from coordinator.cli.options import StateOption
from coordinator.cli.tables import screen
from coordinator.cli.top_document import document_of
from coordinator.cli.top_keys import Keys
from coordinator.cli.top_screen import Standing, show_top, top_lines

if TYPE_CHECKING:  # it imports gRPC, and --help must not wait for that
    from coordinator.membership.owner_client import OwnerClient

FIRST_SECONDS = 2.2
"""Until rates are known: nodes are asked twice, a second apart."""
LEAST_SECONDS, MOST_SECONDS = 0.2, 3600.0

Ask = Callable[[], dict[str, Any]]


def top(
    state_dir: StateOption = None,
    interval_seconds: Annotated[float, typer.Option(help="Between one look and the next.")] = 1.0,
    once: Annotated[
        bool, typer.Option("--once", help="Print one snapshot and end, as where there is no screen.")
    ] = False,
    json_output: JsonOption = False,
) -> None:
    """Show what nodes and requests do now: memory, disk, rounds, who is last, tokens a second. q ends it.

    Where stdout is no terminal, or a dumb one, it prints one snapshot of the next two seconds and ends.
    """
    if not LEAST_SECONDS <= interval_seconds <= MOST_SECONDS:
        raise InputError(f"--interval-seconds is {interval_seconds:g}; it must be from {LEAST_SECONDS:g} to "
                         f"{MOST_SECONDS:g}")  # fmt: skip
    from coordinator.membership.owner_client import OwnerClient
    from coordinator.membership.state import default_state_directory

    with OwnerClient(state_dir or default_state_directory()) as coordinator:
        if json_output or once or not _is_screen():
            found = _snapshot(coordinator)
            if json_output:
                show_document(found)
            else:
                show_top(Standing(found=found))
        else:
            _live(lambda: document_of(coordinator.overview()), interval_seconds)


def _is_screen() -> bool:
    return sys.stdout.isatty() and os.environ.get("TERM", "dumb") not in ("", "dumb", "unknown")


def _snapshot(coordinator: OwnerClient) -> dict[str, Any]:
    """Return what the coordinator tells once it has measured."""
    coordinator.overview()
    time.sleep(FIRST_SECONDS)
    return document_of(coordinator.overview())


def _live(ask: Ask, interval_seconds: float) -> None:
    """Show it until q or Ctrl-C, whatever becomes of the coordinator meanwhile. Raises: NodeError: at the first ask."""
    from rich.console import Group
    from rich.live import Live

    standing = Standing(found=ask(), interval_seconds=interval_seconds)
    console = screen()
    live = Live(console=console, screen=True, auto_refresh=False)
    try:
        with Keys() as keys, ExitStack() as ending:
            ending.callback(live.stop)  # before it starts: Ctrl-C meanwhile leaves the terminal as it was
            live.start()
            due = time.monotonic() + interval_seconds
            while True:
                live.update(Group(*top_lines(console, standing, console.height)), refresh=True)
                news = keys.wait(due - time.monotonic())
                if news in ("q", "Q", signal.SIGTERM):
                    return
                if news == signal.SIGTSTP:
                    live.stop()
                    keys.stop_here()
                    live.start()
                if news is None:
                    due = time.monotonic() + interval_seconds
                    standing = _next(standing, ask)
    except KeyboardInterrupt:
        return


def _next(standing: Standing, ask: Ask) -> Standing:
    """Return how everything stands now; of a coordinator that does not answer, how it stood, and since when."""
    try:
        return standing.with_found(ask())
    except (NodeLost, NodeTimeout):
        return standing.without_answer(time.time())
