"""Does what is read past the page cache leave nothing there, whichever way the system offers?"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import mmap
import os
import sys
from pathlib import Path

import pytest

from common.machine import direct_io
from common.machine.direct_io import BLOCK_BYTES, forget, open_file
from tests.support.syncing import sync

PAGES = 64
needs_linux = pytest.mark.skipif(sys.platform != "linux", reason="counts pages with Linux's mincore")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A file on disk of which nothing is in the page cache."""
    path = tmp_path / "tile.bin"
    path.write_bytes(os.urandom(PAGES * BLOCK_BYTES))
    with path.open("rb") as file:
        sync(file.fileno())
        if sys.platform == "linux":
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    return path


def cached_pages(path: Path) -> int:
    """Return how many of the file's pages are in the page cache (mincore(2))."""
    size = path.stat().st_size
    with path.open("r+b") as file, mmap.mmap(file.fileno(), size) as pages:
        states = (ctypes.c_ubyte * (size // mmap.PAGESIZE))()
        address = ctypes.addressof(anchor := ctypes.c_char.from_buffer(pages))
        assert ctypes.CDLL(None, use_errno=True).mincore(ctypes.c_void_p(address), ctypes.c_size_t(size), states) == 0
        del anchor
        return sum(state & 1 for state in states)


def read(path: Path, *, bypass: bool) -> bytes:
    """Read the whole file as a tile is read."""
    buffer = mmap.mmap(-1, PAGES * BLOCK_BYTES)
    opened = open_file(path, bypass_page_cache=bypass)
    try:
        assert os.preadv(opened.fd, [buffer], 0) == len(buffer)
        forget(opened, 0, len(buffer))
    finally:
        os.close(opened.fd)
    return bytes(buffer)


@needs_linux
@pytest.mark.parametrize("has_direct", [True, False])
def test_bypassing_leaves_nothing_and_ordinary_reads_leave_all(
    path: Path, has_direct: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With O_DIRECT, and on a file system that refuses it, where the pages are given back after the read."""
    if not has_direct:
        refuse_direct(monkeypatch)
    assert read(path, bypass=True) == path.read_bytes()
    with path.open("rb") as file:  # read_bytes above has brought it in
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    read(path, bypass=True)
    assert cached_pages(path) == 0
    read(path, bypass=False)
    assert cached_pages(path) == PAGES


def refuse_direct(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pretend a file system without O_DIRECT."""
    real_open = os.open

    def fake_open(path: str, flags: int) -> int:
        if flags & os.O_DIRECT:
            raise OSError(errno.EINVAL, "Invalid argument")
        return real_open(path, flags)

    monkeypatch.setattr(direct_io.os, "open", fake_open)


def test_another_error_than_not_supported_is_told(tmp_path: Path) -> None:
    """A file that is missing is missing, and not tried again without O_DIRECT."""
    with pytest.raises(FileNotFoundError):
        open_file(tmp_path / "none", bypass_page_cache=True)


def test_macos_is_told_not_to_cache(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """F_NOCACHE is set on the descriptor, which then takes reads of any length."""
    asked = []
    monkeypatch.delattr(os, "O_DIRECT", raising=False)
    monkeypatch.setattr(direct_io.sys, "platform", "darwin")
    monkeypatch.setattr(fcntl, "fcntl", lambda fd, command, value: asked.append((command, value)))
    opened = open_file(path, bypass_page_cache=True)
    os.close(opened.fd)
    assert asked == [(48, 1)]
    assert not opened.is_direct
    assert not opened.leaves_pages


def test_a_system_with_neither_reads_with_the_cache(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where nothing is offered, reading works all the same."""
    monkeypatch.delattr(os, "O_DIRECT", raising=False)
    monkeypatch.delattr(os, "posix_fadvise", raising=False)
    assert read(path, bypass=True) == path.read_bytes()
