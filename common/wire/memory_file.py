"""Memory that two processes of one host both see: a file without a name, its descriptor passed over a Unix socket.

Covers: making one, opening a peer's with distrust, views of float32 over it. Does not cover: passing descriptors
(framing.py), who writes when (the protocol's rounds: one side writes only while the other waits for it).

A file can never be made smaller (F_SEAL_SHRINK): touching memory that is gone would kill a process with SIGBUS, which
no check can prevent. One that peers only read can be written by nobody but its maker (F_SEAL_FUTURE_WRITE).
Linux only; elsewhere `make_memory` says that there is none, and tensors travel inside messages.
"""

from __future__ import annotations

import fcntl
import math
import mmap
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from common.errors import ProtocolError
from common.weights.stored_numbers import Floats

_FUTURE_WRITE_SEAL = 0x10  # F_SEAL_FUTURE_WRITE of <linux/fcntl.h>, which Python does not name
_FLOAT_BYTES = 4


@dataclass(frozen=True, kw_only=True)
class MemoryFile:
    """Memory of our own and the descriptor that a peer opens it by. Close it when every peer has been told."""

    descriptor: int
    floats: Floats
    """float32 [byte_count / 4]; the memory is freed with the last array over it, here and at every peer."""

    def close(self) -> None:
        """Close the descriptor; the memory stays."""
        os.close(self.descriptor)


class Room:
    """Memory of which arrays of one shape after another take the beginning.

    The last view is kept: the rounds of a sweep have one shape.
    """

    def __init__(self, floats: Floats) -> None:
        """Args: floats: float32 [count]."""
        self._floats = floats
        self._last = floats

    def view(self, shape: Sequence[int]) -> Floats | None:
        """Return the beginning as an array of `shape`, the same memory each time; None where there is no room for it.

        Args: shape: lengths that are not negative.
        """
        if self._last.shape != tuple(shape):
            count = math.prod(shape)
            if count > self._floats.size:
                return None
            self._last = self._floats[:count].reshape(shape)
        return self._last


def make_memory(byte_count: int, *, peers_write: bool) -> MemoryFile | None:
    """Return new memory of `byte_count` bytes, a multiple of 4; pages are taken as they are touched.

    Returns: None where the system has no such files.
    """
    if sys.platform != "linux" or not hasattr(os, "memfd_create"):
        return None
    try:
        descriptor = os.memfd_create("shardmesh-rows", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    except OSError:
        return None
    try:
        os.ftruncate(descriptor, byte_count)
        floats = _view(mmap.mmap(descriptor, byte_count))
        seals = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | (0 if peers_write else _FUTURE_WRITE_SEAL)
        fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, seals | fcntl.F_SEAL_SEAL)
    except OSError:  # too little memory, or a system that lacks a seal
        os.close(descriptor)
        return None
    return MemoryFile(descriptor=descriptor, floats=floats)


def open_memory(descriptor: int, byte_count: int, *, writes: bool) -> Floats:
    """Return a peer's memory: float32 [byte_count / 4], not to be written unless `writes`.

    Raises: ProtocolError: the descriptor is no memory of that size, or it could be made smaller.
    """
    if byte_count < _FLOAT_BYTES or byte_count % _FLOAT_BYTES:
        raise ProtocolError(f"a peer offers {byte_count} bytes of memory; it must be whole float32 numbers")
    try:
        size = os.fstat(descriptor).st_size
        can_shrink = not fcntl.fcntl(descriptor, fcntl.F_GET_SEALS) & fcntl.F_SEAL_SHRINK
    except (OSError, AttributeError) as error:  # a file that has no seals; a system that knows none
        raise ProtocolError("a peer offers a file that is no memory to be shared") from error
    if size != byte_count or can_shrink:
        raise ProtocolError(f"a peer offers {size} bytes of memory instead of {byte_count}, or may make it smaller")
    access = mmap.PROT_READ | mmap.PROT_WRITE if writes else mmap.PROT_READ
    try:
        return _view(mmap.mmap(descriptor, byte_count, mmap.MAP_SHARED, access))
    except OSError as error:
        raise ProtocolError(f"a peer offers memory that cannot be used ({error.strerror})") from error


def _view(mapped: mmap.mmap) -> Floats:
    return np.frombuffer(mapped, dtype=np.float32)
