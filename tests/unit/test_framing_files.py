"""Do descriptors arrive with the message they were sent with, and is none left open that nobody asked for?

Covers: files in common/wire/framing.py, over a pair of Unix sockets. Does not cover: messages without
(test_framing.py).
"""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Iterator

import pytest

from common.errors import ProtocolError
from common.wire.framing import LONG_BYTES, FrameReader, close_files, send_frame, send_frame_with_files

MOST = 1 << 20

Ends = tuple[socket.socket, FrameReader]


@pytest.fixture
def ends() -> Iterator[Ends]:
    """Return a sending socket and the reader of its peer."""
    sender, receiver = socket.socketpair(socket.AF_UNIX)
    with sender, receiver:
        yield sender, FrameReader(receiver, MOST)


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    """Return two descriptors; fails if a test leaves others open."""
    reading, writing = os.pipe()
    before = set(os.listdir("/dev/fd"))
    yield reading, writing
    assert set(os.listdir("/dev/fd")) <= before
    os.close(reading)
    os.close(writing)


@pytest.mark.parametrize("size", [0, 5, LONG_BYTES + 5])
def test_files_arrive_with_their_message(ends: Ends, pipe: tuple[int, int], size: int) -> None:
    """They are the peer's files under numbers of our own, not inherited by programs we start; the stream goes on."""
    sender, reader = ends
    send_frame_with_files(sender, b"x" * size, pipe)
    send_frame(sender, b"next")
    message, files = reader.receive_with_files(2)
    assert message == b"x" * size
    assert [os.fstat(file).st_ino for file in files] == [os.fstat(file).st_ino for file in pipe]
    assert not any(os.get_inheritable(file) for file in files)
    close_files(files)
    assert reader.receive() == b"next"


def test_a_message_without_files_has_none(ends: Ends) -> None:
    """Asking for files costs nothing where there are none; nor does the end of the stream."""
    sender, reader = ends
    send_frame(sender, b"alone")
    assert reader.receive_with_files(2) == (b"alone", [])
    sender.close()
    assert reader.receive_with_files(2) == (None, [])


def test_more_files_than_are_wanted_are_closed(ends: Ends, pipe: tuple[int, int]) -> None:
    """In one piece or with every byte: a peer cannot fill our table of files."""
    sender, reader = ends
    framed = struct.pack("<I", 3) + b"abc"
    for index in range(len(framed)):
        socket.send_fds(sender, [framed[index : index + 1]], pipe)
    message, files = reader.receive_with_files(3)
    assert (message, len(files)) == (b"abc", 3)
    close_files(files)
    send_frame_with_files(sender, b"many", [pipe[0]] * 50)
    message, files = reader.receive_with_files(2)
    assert (message, len(files)) == (b"many", 2)
    close_files(files)


def test_files_that_nobody_waits_for_are_closed(ends: Ends, pipe: tuple[int, int]) -> None:
    """After the first message no descriptor of a peer is ever opened here."""
    sender, reader = ends
    send_frame_with_files(sender, b"later", pipe)
    assert reader.receive() == b"later"


def test_files_of_a_message_that_never_ends_are_closed(ends: Ends, pipe: tuple[int, int]) -> None:
    """Whatever goes wrong after they came, nobody else could close them."""
    sender, reader = ends
    socket.send_fds(sender, [struct.pack("<I", 100) + b"half"], pipe)
    sender.close()
    with pytest.raises(ProtocolError, match="inside a message"):
        reader.receive_with_files(2)
