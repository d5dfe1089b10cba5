"""What a process that runs files of strangers may take: processor time for each task, memory, descriptors.

Covers: limits that the kernel keeps, whatever the process is in the middle of. Does not cover: which task has which
(nursery_program.py), telling whoever waits (apart.py).
"""

from __future__ import annotations

import contextlib
import os
import resource
import signal
import sys
from collections.abc import Iterator

from common.machine.kernel_files import content_of

LOAD_BYTES = 3 << 30
"""Of memory beyond what the process has already: the largest vocabularies take half of one while they are read."""
TASK_BYTES = 512 << 20
LOAD_SECONDS = 60.0
"""Of processor time. A vocabulary of 256,000 takes two, and ten on a small device."""
_LONGEST = 256
"""Bytes of a line of the kernel's."""


@contextlib.contextmanager
def processor_seconds(seconds: float) -> Iterator[None]:
    """Have the kernel end this process, whatever it does, once it has computed for so long."""
    signal.setitimer(signal.ITIMER_PROF, seconds)  # nobody handles SIGPROF, so it ends the process
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)


def limit_memory(more_bytes: int) -> None:
    """Let this process have so much address space beyond what it has now. Linux keeps such a limit, macOS does not."""
    if sys.platform == "linux":
        pages = int(content_of("/proc/self/statm", _LONGEST).split()[0])
        _lower(resource.RLIMIT_AS, pages * os.sysconf("SC_PAGE_SIZE") + more_bytes)


def open_nothing_more() -> None:
    """Let this process open no file and no socket from now on, make no process image, and write no file."""
    for kind in (resource.RLIMIT_NOFILE, resource.RLIMIT_FSIZE, resource.RLIMIT_CORE):
        _lower(kind, 0)


def _lower(kind: int, most: int) -> None:
    hard = resource.getrlimit(kind)[1]
    if hard != resource.RLIM_INFINITY:
        most = min(most, hard)
    resource.setrlimit(kind, (most, hard))
