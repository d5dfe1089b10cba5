"""Forks a program's nursery (nursery_program.py) before the program imports anything: that would be there twice.

Covers: forking it while that is safe, and keeping our end of its socket until the program takes it.
Does not cover: all that the program does with it, and starting one later (nursery.py).
It imports nothing that neither the nursery nor its readers need: every page of it is changed by both sides, sooner or
later, and so takes its memory twice.
"""

from __future__ import annotations

import os
import socket
import sys

_FIRST_DESCRIPTOR, _MOST_DESCRIPTORS = 3, 1 << 16

_early: tuple[int, socket.socket] | None = None


def begin_early() -> None:
    """Fork this program's nursery: first of all, while it has no thread."""
    global _early
    from coordinator.tokenizer import nursery_program

    ours, theirs = socket.socketpair()
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")  # threads of it would not survive a fork
    sys.stdout.flush()
    sys.stderr.flush()
    process_id = os.fork()
    if process_id == 0:
        try:
            ours.detach()
            nursery_program.serve(_alone(theirs.detach()))
        finally:
            os._exit(1)
    theirs.close()
    _early = process_id, ours


def take_early() -> tuple[int, socket.socket] | None:
    """Return the process that this program began with, and our end of its socket: once, then None."""
    global _early
    found, _early = _early, None
    return found


def _alone(descriptor: int) -> socket.socket:
    """In a forked nursery: keep this socket, and nothing else that the program holds or writes to."""
    connection = socket.socket(fileno=os.dup2(descriptor, _FIRST_DESCRIPTOR))
    os.closerange(_FIRST_DESCRIPTOR + 1, _MOST_DESCRIPTORS)
    nowhere = os.open(os.devnull, os.O_RDWR)
    for standard in (0, 1):
        os.dup2(nowhere, standard)
    os.close(nowhere)
    return connection
