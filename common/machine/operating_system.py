"""What differs between operating systems: memory counts, usable cores, ending with one's parent.

Each thing has Linux's way and, beside it, the way of the others.
Does not cover: page cache and cgroups, direct I/O.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from common.machine.kernel_files import content_of

if TYPE_CHECKING:
    import psutil

_TRIM_THRESHOLD, _MMAP_THRESHOLD, _ARENA_MAX = -1, -3, -8  # M_... of <malloc.h>
_ANYWHERE = contextlib.nullcontext()
_LONGEST = 256
"""Bytes of a line of the kernel's."""
_NICENESS = 10
HEAP_BLOCK_BYTES = 1 << 20
"""Blocks from this size on get pages of their own, and so much free memory at the heap's end is given back."""


@dataclass(frozen=True, kw_only=True)
class ProcessMemory:
    """Bytes of one process at one moment."""

    rss_bytes: int
    """Resident: pages in memory, shared ones counted whole."""
    peak_rss_bytes: int
    """Largest rss_bytes so far; the present one where the system does not keep it."""
    pss_bytes: int
    """Proportional: a page shared by n processes counts 1/n; 0 where the system does not tell."""

    @property
    def counted_bytes(self) -> int:
        """What to add up over processes: pages shared with others in part, where the system tells."""
        return self.pss_bytes or self.rss_bytes


@functools.cache
def _c_library() -> ctypes.CDLL:
    return ctypes.CDLL(None)


def _is_linux() -> bool:
    return sys.platform == "linux"  # in a function: a type checker takes the bare comparison for a constant


def usable_core_count() -> int:
    """Return how many processors this process may use."""
    if _is_linux():
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def wake_politely() -> None:
    """Ask the kernel not to interrupt whoever runs at the moment this process wakes.

    For nodes that share few cores with their coordinator: it can then send a round to all of them before the first
    one starts, which made tokens of four nodes on two cores 8 % faster. Linux only; elsewhere, and where it is
    forbidden, nothing changes.
    """
    if _is_linux():
        with contextlib.suppress(OSError):
            os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))


def give_way() -> None:
    """Have what other processes leave of the cores. Where a unit forbids it, nothing changes."""
    with contextlib.suppress(OSError):
        os.nice(_NICENESS)


def leave_foreground() -> None:
    """Have a process group of its own: Ctrl-C is then not for this process, which may write to the terminal still.

    Not a session of its own: Linux shares cores out among sessions first (`sched_autogroup`), so a node that yields
    would give its core to nodes of the same session only, never to a coordinator in another one.
    """
    if os.getpgrp() != os.getpid():
        os.setpgid(0, 0)
    signal.signal(signal.SIGTTOU, signal.SIG_IGN)


def on_core(index: int | None) -> AbstractContextManager[None]:
    """Keep this thread to one of the cores it may use, counted from 0, while the context lasts.

    Args: index: modulo their number; None for no such wish. Where the system has no such call, nothing changes.
    """
    return _ANYWHERE if index is None or not _is_linux() else _on_one_core(index)


@contextlib.contextmanager
def _on_one_core(index: int) -> Iterator[None]:
    allowed = os.sched_getaffinity(0)
    with contextlib.suppress(OSError):  # forbidden, or taken away since we asked
        os.sched_setaffinity(0, {sorted(allowed)[index % len(allowed)]})
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            os.sched_setaffinity(0, allowed)


def share_heaps() -> None:
    """Have all threads of this process take memory from two heaps at most; for the beginning of a program.

    glibc makes one for each of the first threads, and what one has freed no other uses. Other C libraries need no word.
    """
    _mallopt((_ARENA_MAX, 2))


def keep_heap_small() -> None:
    """Ask the C library to give large blocks back to the system as soon as they are freed; for a process with a budget.

    glibc raises its threshold for that as a program frees larger blocks, and then keeps what a long prompt took
    (measured, with what it costs: DECISIONS.md). Other C libraries do not hoard so, and nothing changes.
    """
    _mallopt((_MMAP_THRESHOLD, HEAP_BLOCK_BYTES), (_TRIM_THRESHOLD, HEAP_BLOCK_BYTES), (_ARENA_MAX, 2))


def _mallopt(*settings: tuple[int, int]) -> None:
    mallopt = getattr(_c_library(), "mallopt", None) if _is_linux() else None
    if mallopt is not None:
        for name, value in settings:
            mallopt(name, value)


def give_free_heap_back() -> None:
    """Have the C library give the system what it keeps of freed memory: after work, while nothing else waits.

    glibc keeps up to 64 MB for the next long prompt otherwise. Other C libraries do not hoard so, and nothing changes.
    """
    malloc_trim = getattr(_c_library(), "malloc_trim", None) if _is_linux() else None
    if malloc_trim is not None:
        malloc_trim(0)


def end_with_parent(signal_number: int = signal.SIGKILL) -> None:
    """Ask the kernel to send this process a signal, SIGKILL by default, when the thread that started it ends.

    Linux only, and quicker there than watching a pipe; elsewhere the lifeline (common/program/lifecycle.py) alone does
    it.
    """
    if _is_linux():
        set_parent_death_signal = 1  # PR_SET_PDEATHSIG of <sys/prctl.h>
        _c_library().prctl(set_parent_death_signal, int(signal_number), 0, 0, 0)


def be_first_to_go() -> None:
    """Ask the kernel to end this process before any other of its group when memory runs out. Linux only."""
    if _is_linux():
        with contextlib.suppress(OSError):
            Path("/proc/self/oom_score_adj").write_text("1000")


def own_memory() -> ProcessMemory:
    """Measure this process."""
    return process_memory(os.getpid())


def own_rss_bytes() -> int:
    """Return the resident bytes of this process: a hundredth of what `own_memory` costs."""
    if _is_linux():
        return int(content_of("/proc/self/statm", _LONGEST).split()[1]) * os.sysconf("SC_PAGE_SIZE")
    rss_bytes: int = _process(os.getpid()).memory_info().rss
    return rss_bytes


def process_memory(process_id: int) -> ProcessMemory:
    """Measure a process. Raises: psutil.Error: there is no such process, or it may not be looked at."""
    if _is_linux():
        return _from_proc(process_id)
    return _from_psutil(process_id)


def private_bytes(process_id: int) -> int:
    """Return the resident bytes of a process that no other one shares. Raises: psutil.Error: as process_memory."""
    if not _is_linux():
        return int(_process(process_id).memory_full_info().uss)
    try:
        values = _kilobyte_lines(Path(f"/proc/{process_id}/smaps_rollup").read_text())
    except (FileNotFoundError, ProcessLookupError):
        raise _no_process(process_id) from None
    except OSError:  # a kernel that does not have the file
        return _from_proc(process_id).rss_bytes
    return values.get("Private_Clean", 0) + values.get("Private_Dirty", 0)


def _from_proc(process_id: int) -> ProcessMemory:
    try:
        status = _kilobyte_lines(Path(f"/proc/{process_id}/status").read_text())
    except (FileNotFoundError, ProcessLookupError):
        raise _no_process(process_id) from None
    except PermissionError:
        return _from_psutil(process_id)
    try:
        pss_bytes = _kilobyte_lines(Path(f"/proc/{process_id}/smaps_rollup").read_text()).get("Pss", 0)
    except OSError:  # another user's process, or a kernel that does not have the file
        pss_bytes = 0
    return ProcessMemory(rss_bytes=status.get("VmRSS", 0), peak_rss_bytes=status.get("VmHWM", 0), pss_bytes=pss_bytes)


def _kilobyte_lines(text: str) -> dict[str, int]:
    """Return the `Name: 123 kB` lines of a /proc file, in bytes."""
    values = {}
    for line in text.splitlines():
        words = line.split()
        if len(words) == 3 and words[2] == "kB":
            values[words[0].rstrip(":")] = int(words[1]) * 1024
    return values


def _process(process_id: int) -> psutil.Process:
    import psutil  # takes 2 MB, and on Linux a process seldom needs it

    return psutil.Process(process_id)


def _no_process(process_id: int) -> Exception:
    import psutil

    return psutil.NoSuchProcess(process_id)


def _from_psutil(process_id: int) -> ProcessMemory:
    info = _process(process_id).memory_info()
    return ProcessMemory(rss_bytes=info.rss, peak_rss_bytes=getattr(info, "peak_wset", info.rss), pss_bytes=0)
