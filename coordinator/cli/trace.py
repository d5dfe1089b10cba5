"""`coordinator-cli trace`: every sweep of the next seconds, as a file for Perfetto.

Covers: options, where the file goes. Does not cover: what is in it (trace_file.py).
"""

from __future__ import annotations

import os
import signal
import stat
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from common.errors import DiskFull, InputError, NodeLost
from common.program.path_options import path_option
from common.wording import counted
from coordinator.cli.options import StateOption
from coordinator.cli.telling import tell

if TYPE_CHECKING:  # it imports gRPC, and --help must not wait for that
    from coordinator.membership.owner_client import OwnerClient
    from protos.shardmesh.v1 import observe_pb2

MOST_SECONDS = 600
NAME_LETTERS = 40
"""Of the file's name, in that of the one beside it: as much longer as it is, some file systems would not take it."""


def trace(
    out: Annotated[Path, path_option("--out", "-o", help="Where the file goes; one that is there is replaced.")],
    seconds: Annotated[float, typer.Option(help="For how long, at most 600.")] = 10.0,
    state_dir: StateOption = None,
) -> None:
    """Write every sweep of the next seconds to a file: open it in ui.perfetto.dev, or in Chrome's about:tracing.

    Tracks: the coordinator's sweeps, rounds and head; each node's rounds, with waits for its disk and kernels; requests
    by their names. No word of a prompt or an answer is in it.
    """
    from coordinator.cli.trace_file import write_trace
    from coordinator.membership.owner_client import OwnerClient
    from coordinator.membership.state import default_state_directory

    if not 0 < seconds <= MOST_SECONDS:  # nan too, which no range of an option refuses
        raise InputError(f"--seconds is {seconds:g}; it must be above 0 and at most {MOST_SECONDS}")
    _check(out)
    with OwnerClient(state_dir or default_state_directory()) as coordinator, _ends_in_order():
        temporary = _beside(out)
        try:
            with temporary.open("w", encoding="ascii") as file:
                tell(f"tracing for {seconds:g} s")
                count = write_trace(_sweeps(coordinator, seconds), file)
            os.replace(temporary, out)
        except OSError as error:
            raise DiskFull(f"cannot write {out}: {error.strerror}; choose another --out") from error
        finally:
            with suppress(OSError):
                temporary.unlink()
    tell(f"{out}: {counted(count, 'sweep')}; open it in ui.perfetto.dev"
         if count else f"{out}: no request was under way, so there is nothing in it")  # fmt: skip


def _sweeps(coordinator: OwnerClient, seconds: float) -> Iterator[observe_pb2.TracedSweep]:
    """Yield what the coordinator tells. Raises: NodeLost: it has ended meanwhile."""
    dropped_count, is_over = 0, False
    for response in coordinator.trace(seconds):
        dropped_count, is_over = response.dropped_sweep_count, True
        yield from response.sweeps
    if not is_over:
        raise NodeLost("the coordinator ended before anything was traced; start it again, and trace again")
    if dropped_count:
        tell(f"{counted(dropped_count, 'sweep')} came faster than they could be written, and are not in the file")


def _check(out: Path) -> None:
    """Raise InputError for what must not be replaced by a file: a directory, a pipe, a device such as /dev/null."""
    try:
        mode = out.stat().st_mode
    except FileNotFoundError:
        return
    except OSError as error:
        raise InputError(f"cannot write {out}: {error.strerror}; choose another --out") from error
    if stat.S_ISDIR(mode):
        raise InputError(f"--out {out} is a directory; name a file, such as {out / 'trace.json'}")
    if not stat.S_ISREG(mode):
        raise InputError(f"--out {out} is a pipe or a device, and would be replaced; name a file, such as trace.json")


@contextmanager
def _ends_in_order() -> Iterator[None]:
    """Have SIGTERM and a closed terminal end it as Ctrl-C does: nothing stays beside the file."""
    before = {number: signal.signal(number, _end) for number in (signal.SIGTERM, signal.SIGHUP)
              if signal.getsignal(number) is signal.SIG_DFL}  # fmt: skip
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _end(number: int, frame: FrameType | None) -> NoReturn:
    sys.exit(128 + number)


def _beside(out: Path) -> Path:
    """Return a file that will be `out` once it is whole. Raises: InputError: nothing can be written there."""
    try:
        descriptor, name = tempfile.mkstemp(prefix=f".{out.name[:NAME_LETTERS]}.", dir=out.parent)
    except OSError as error:
        raise InputError(f"cannot write to {out.parent}: {error.strerror}; choose another --out") from error
    os.close(descriptor)
    return Path(name)
