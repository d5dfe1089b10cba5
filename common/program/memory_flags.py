"""The memory options that `shardnode` and `coordinator-cli generate` share, each defined once, and what they mean.

Covers: flags to a WeightMemory; `--memory-budget auto`. Does not cover: sharing a budget out.
"""

from __future__ import annotations

from typing import Annotated

import typer

from common.machine.free_memory import free_memory_bytes
from common.program.sizes import parse_size
from common.weights.weight_memory import WeightMemory

AUTO = "auto"
AUTO_SHARE = 0.9
"""Of what is free: the rest is for what else the machine does meanwhile."""

MemoryWindowOption = Annotated[
    int | None,
    typer.Option(
        help="Room for this many of the largest blocks, at least 2; 0 keeps all weights in memory. "
        "Default 2; with a budget, as little as keeps the disk busy.",
        show_default=False,
    ),
]
WindowBytesOption = Annotated[
    str | None,
    typer.Option(
        metavar="SIZE", help="The window as a size instead, such as 64MiB; two tiles are the least.", show_default=False
    ),
]
PageCacheOption = Annotated[
    str,
    typer.Option(help="The system's page cache for weights: use, bypass, or auto (bypass what does not fit)."),
]
ReadsInFlightOption = Annotated[
    int, typer.Option(help="Reads asked of the disk at once; 0: measured once, kept in disk.json beside the slice.")
]
ReadBytesOption = Annotated[
    str | None,
    typer.Option(metavar="SIZE", help="Size of one read, such as 4MiB; measured likewise.", show_default=False),
]
ReadTimeoutOption = Annotated[
    float, typer.Option(help="How long a block may wait for the disk before its request fails.")
]


def weight_memory(
    *,
    memory_window: int | None,
    window_bytes: str | None,
    page_cache: str,
    reads_in_flight: int,
    read_bytes: str | None,
    read_timeout_seconds: float,
) -> WeightMemory:
    """Return what the flags say. Raises: InputError: one of them says nonsense."""
    return WeightMemory(
        memory_window=memory_window,
        window_bytes=parse_size(window_bytes, "--window-bytes") if window_bytes else None,
        page_cache=page_cache,
        reads_in_flight=reads_in_flight,
        read_bytes=parse_size(read_bytes, "--read-bytes") if read_bytes else 0,
        read_timeout_seconds=read_timeout_seconds,
    )


def parse_budget(text: str, *, taken_bytes: int, coming_bytes: int = 0) -> int:
    """Return `--memory-budget` in bytes.

    Args: taken_bytes: what the programs that the budget is for take already; coming_bytes: what they will take beside
    weights, keys and values. `auto` adds what is free, all but a tenth of it or `coming_bytes`, whichever is more.
    Raises: InputError: not a size.
    """
    if text.strip().lower() == AUTO:
        free_bytes = free_memory_bytes()
        return taken_bytes + min(free_bytes, coming_bytes + int(AUTO_SHARE * free_bytes))
    return parse_size(text, "--memory-budget")
