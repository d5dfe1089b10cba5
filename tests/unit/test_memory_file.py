"""Do two sides see the same memory, and can no peer take it away or pass off something else as it?

Covers: common/wire/memory_file.py, two mappings in one process. Does not cover: passing descriptors
(test_framing_files.py), rounds over it (tests/contract/test_round_memory.py).
"""

from __future__ import annotations

import errno
import mmap
import os
import sys
import tempfile

import numpy as np
import pytest

from common.errors import ProtocolError
from common.wire.memory_file import MemoryFile, Room, make_memory, open_memory

BYTE_COUNT = 10_000

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="memory files are Linux's")


def made(*, peers_write: bool = True) -> MemoryFile:
    """Return new memory."""
    memory = make_memory(BYTE_COUNT, peers_write=peers_write)
    assert memory is not None
    return memory


def test_what_one_side_writes_the_other_reads() -> None:
    """In both directions, and after every descriptor is closed."""
    memory = made()
    theirs = open_memory(memory.descriptor, BYTE_COUNT, writes=True)
    memory.close()
    memory.floats[3] = 5.0
    assert theirs[3] == 5.0
    theirs[-1] = 7.0
    assert memory.floats[-1] == 7.0
    assert memory.floats.size == theirs.size == BYTE_COUNT // 4


def test_new_memory_is_zeros() -> None:
    """Nobody sees what lay there before."""
    memory = made()
    assert not memory.floats.any()
    memory.close()


def test_nobody_can_make_memory_smaller_or_larger() -> None:
    """Touching memory that is gone would kill whoever touches it."""
    memory = made()
    for size in (0, BYTE_COUNT - 1, BYTE_COUNT + 1):
        with pytest.raises(PermissionError):
            os.ftruncate(memory.descriptor, size)
    memory.close()


def test_what_peers_only_read_they_cannot_write() -> None:
    """Neither by mapping nor by writing to the file: a node never changes what the others compute with."""
    memory = made(peers_write=False)
    theirs = open_memory(memory.descriptor, BYTE_COUNT, writes=False)
    assert theirs.size == BYTE_COUNT // 4
    with pytest.raises(ValueError, match="read-only"):
        theirs[0] = 1
    with pytest.raises(ProtocolError, match="cannot be used"):
        open_memory(memory.descriptor, BYTE_COUNT, writes=True)
    with pytest.raises(PermissionError):
        os.pwrite(memory.descriptor, b"mine", 0)
    memory.floats[0] = 1.0  # its maker can
    memory.close()


@pytest.mark.parametrize("byte_count", [BYTE_COUNT - 4, BYTE_COUNT + 4, BYTE_COUNT + 1, 1 << 62, 0, -4, 3])
def test_memory_of_another_size_than_was_said_is_refused(byte_count: int) -> None:
    """What is mapped has the size that was said, so nothing beyond its end is ever touched."""
    memory = made()
    with pytest.raises(ProtocolError, match="memory"):
        open_memory(memory.descriptor, byte_count, writes=False)
    memory.close()


def test_memory_that_could_be_made_smaller_is_refused() -> None:
    """Its size now says nothing about its size when it is read."""
    descriptor = os.memfd_create("unsealed", os.MFD_ALLOW_SEALING)
    os.ftruncate(descriptor, BYTE_COUNT)
    with pytest.raises(ProtocolError, match="smaller"):
        open_memory(descriptor, BYTE_COUNT, writes=False)
    os.close(descriptor)


def test_other_kinds_of_files_are_refused() -> None:
    """A file on a disk, a pipe, a socket: none has seals."""
    with tempfile.TemporaryFile(dir=os.getcwd()) as file:
        file.truncate(BYTE_COUNT)
        reading, writing = os.pipe()
        for descriptor in (file.fileno(), reading, writing, 10_000):
            with pytest.raises(ProtocolError):
                open_memory(descriptor, BYTE_COUNT, writes=False)
        os.close(reading)
        os.close(writing)


def test_there_is_none_where_the_system_has_none(monkeypatch: pytest.MonkeyPatch) -> None:
    """No such call, a system that refuses it, and one that lacks memory: None, and no descriptor stays open."""
    before = set(os.listdir("/proc/self/fd"))

    def refuse(*args: object) -> int:
        raise OSError(errno.ENOSYS, "no")

    with monkeypatch.context() as patched:
        patched.setattr(mmap, "mmap", refuse)
        assert make_memory(BYTE_COUNT, peers_write=True) is None
        patched.setattr(os, "memfd_create", refuse)
        assert make_memory(BYTE_COUNT, peers_write=True) is None
        patched.delattr(os, "memfd_create")
        assert make_memory(BYTE_COUNT, peers_write=True) is None
    assert set(os.listdir("/proc/self/fd")) <= before


def test_memory_goes_with_the_last_view_over_it() -> None:
    """No descriptor is left, on either side."""
    before = len(os.listdir("/proc/self/fd"))
    memory = made()
    theirs = open_memory(memory.descriptor, BYTE_COUNT, writes=True)
    memory.close()
    view = theirs[:10].reshape(2, 5)
    del memory, theirs
    assert view.sum() == 0
    del view
    assert len(os.listdir("/proc/self/fd")) <= before


def test_a_room_holds_tensors_of_any_shape_that_fits() -> None:
    """Each begins where the memory begins; the same shape is the same view; what does not fit has no place."""
    room = Room(np.arange(12, dtype=np.float32))
    view = room.view((3, 4))
    assert view is not None
    assert room.view((3, 4)) is view
    other = room.view((5, 2))
    assert other is not None
    assert other.tolist() == [[0, 1], [2, 3], [4, 5], [6, 7], [8, 9]]
    view[0, 0] = 9
    assert other[0, 0] == 9
    for shape in ((13,), (4, 4), (1 << 40, 1 << 40)):
        assert room.view(shape) is None
    assert room.view((12,)) is not None
