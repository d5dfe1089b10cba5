"""Do whole messages come out of a byte stream, however it is cut, and nothing out of a broken one?

Covers: common/wire/framing.py. Does not cover: what is in the messages.
"""

from __future__ import annotations

import socket
import struct
import tracemalloc
from collections.abc import Iterator
from contextlib import nullcontext
from typing import cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.errors import ProtocolError
from common.wire.framing import BUFFER_BYTES, LONG_BYTES, FrameReader, give_room, limit_silence, send_frame

MOST = 1000


class DrippingSocket:
    """A stream that gives its bytes in pieces of given sizes, one a call, and then ends."""

    def __init__(self, data: bytes, sizes: list[int]) -> None:
        self._data = data
        self._sizes = sizes

    def recv_into(self, view: memoryview) -> int:
        size = min(self._sizes.pop(0) if self._sizes else 1, len(view), len(self._data))
        view[:size] = self._data[:size]
        self._data = self._data[size:]
        return size


class StingySocket:
    """A stream that takes only so many bytes of what one call gathers, and everything of the next."""

    def __init__(self, taken_byte_count: int) -> None:
        self.data = b""
        self._taken_byte_count = taken_byte_count

    def sendmsg(self, parts: list[bytes]) -> int:
        taken = b"".join(parts)[: self._taken_byte_count]
        self.data += taken
        return len(taken)

    def sendall(self, part: bytes) -> None:
        self.data += part


def received(data: bytes, sizes: list[int] | None = None) -> Iterator[bytes]:
    """Yield the messages of a stream until it ends."""
    stream = cast(socket.socket, DrippingSocket(data, sizes or []))
    reader = FrameReader(stream, MOST)
    while (frame := reader.receive()) is not None:
        yield frame


def framed(messages: list[bytes]) -> bytes:
    """Return the bytes that `send_frame` puts on a stream."""
    sender, receiver = socket.socketpair()
    with sender, receiver:
        for message in messages:
            send_frame(sender, message)
        sender.close()
        return b"".join(iter(lambda: receiver.recv(1 << 16), b""))


@given(messages=st.lists(st.binary(max_size=60), max_size=5), sizes=st.lists(st.integers(1, 9), max_size=60))
def test_messages_arrive_whole_however_the_stream_is_cut(messages: list[bytes], sizes: list[int]) -> None:
    """What was sent comes out, empty messages too, whether in one piece or byte by byte."""
    assert list(received(framed(messages), sizes)) == messages


def test_a_frame_is_its_length_in_four_little_endian_bytes_and_its_bytes() -> None:
    """Any language can write one."""
    assert framed([b"abc", b""]) == b"\x03\0\0\0abc\0\0\0\0"


@given(message=st.binary(min_size=1, max_size=40), data=st.data())
def test_a_stream_that_ends_inside_a_message_is_an_error(message: bytes, data: st.DataObject) -> None:
    """Only between two messages may a peer hang up: everywhere else something is lost."""
    whole = framed([message])
    kept = data.draw(st.integers(1, len(whole) - 1))
    with pytest.raises(ProtocolError, match="inside a message"):
        list(received(whole[:kept]))


def test_a_stream_that_ends_between_messages_is_an_end() -> None:
    """None means that the peer is done."""
    assert list(received(b"")) == []
    assert list(received(framed([b"x"]))) == [b"x"]


@pytest.mark.parametrize("announced", [MOST + 1, 1 << 31, (1 << 32) - 1])
def test_an_absurd_length_is_refused_before_anything_is_allocated(announced: int) -> None:
    """Four bytes of a peer do not cost us four gigabytes."""
    tracemalloc.start()
    try:
        with pytest.raises(ProtocolError, match=f"{announced} bytes was announced; at most {MOST}"):
            list(received(announced.to_bytes(4, "little") + b"x"))
        assert tracemalloc.get_traced_memory()[1] < 100_000
    finally:
        tracemalloc.stop()


def test_the_longest_message_that_is_allowed_arrives() -> None:
    """The limit is the last length that works."""
    assert list(received(framed([bytes(MOST)]))) == [bytes(MOST)]


@pytest.mark.parametrize("limit", ["socket", "timeout"])
def test_a_silent_peer_ends_in_a_time_out(limit: str) -> None:
    """A receiver waits no longer than its limit says, also in the middle of a message, and loses nothing by it."""
    sender, receiver = socket.socketpair()
    with sender, receiver:
        if limit == "socket":
            limit_silence(receiver, 0.01)
        else:
            receiver.settimeout(0.01)
        reader = FrameReader(receiver, MOST)
        with pytest.raises(TimeoutError):
            reader.receive()
        sender.sendall(b"\x05\0\0\0ab")
        with pytest.raises(TimeoutError):
            reader.receive()
        sender.sendall(b"cde")
        assert reader.receive() == b"abcde"


def test_a_peer_that_takes_nothing_ends_in_a_time_out() -> None:
    """A sender whose peer has stopped reading does not wait for ever."""
    sender, receiver = socket.socketpair()
    with sender, receiver:
        limit_silence(sender, 0.01)
        with pytest.raises(TimeoutError):
            send_frame(sender, bytes(8 << 20))


@given(lengths=st.lists(st.sampled_from([0, 1, BUFFER_BYTES - 4, BUFFER_BYTES - 3, 3 * BUFFER_BYTES]), max_size=4))
def test_messages_longer_than_the_buffer_arrive_whole(lengths: list[int]) -> None:
    """Where the buffer ends is nothing that a message shows."""
    messages = [bytes([i]) * length for i, length in enumerate(lengths)]
    stream = b"".join(len(message).to_bytes(4, "little") + message for message in messages)
    reader = FrameReader(cast(socket.socket, DrippingSocket(stream, [BUFFER_BYTES // 2] * 40)), 1 << 20)
    assert [reader.receive() for _ in messages] == messages


@pytest.mark.parametrize("length", [LONG_BYTES - 1, LONG_BYTES, 3 * LONG_BYTES])
@pytest.mark.parametrize("taken_byte_count", [1, 3, 4, 5, LONG_BYTES, LONG_BYTES + 3, LONG_BYTES + 4, 1 << 20])
def test_a_long_message_goes_out_whole_whatever_the_kernel_takes_at_once(length: int, taken_byte_count: int) -> None:
    """Its length may be cut too; no byte is lost or sent twice."""
    message = bytes(i % 251 for i in range(length))
    stream = StingySocket(taken_byte_count)
    send_frame(cast(socket.socket, stream), message)
    assert stream.data == length.to_bytes(4, "little") + message


def test_what_was_received_stays_as_it_is_when_more_arrives() -> None:
    """A message is the caller's own memory, however long."""
    messages = [bytes([i]) * length for i, length in enumerate([5, 2 * BUFFER_BYTES, 3 * BUFFER_BYTES, 7])]
    stream = b"".join(len(message).to_bytes(4, "little") + message for message in messages)
    reader = FrameReader(cast(socket.socket, DrippingSocket(stream, [BUFFER_BYTES] * 8)), 1 << 20)
    frames = [reader.receive() for _ in messages]
    assert frames == messages


def test_a_connection_with_room_takes_a_long_message_that_nobody_reads_yet() -> None:
    """A coordinator gives every node its rows before the first has read them; by default this one is too long."""
    sender, receiver = socket.socketpair()
    with sender, receiver:
        limit_silence(sender, 0.01)
        give_room(sender)
        send_frame(sender, bytes(300_000))


def test_a_system_that_gives_no_room_does_not_end_the_connection() -> None:
    """Room only saves waiting."""
    sender, receiver = socket.socketpair()
    receiver.close()
    sender.close()
    give_room(sender)


def test_a_peer_that_is_gone_is_an_os_error() -> None:
    """Sending into a closed connection is reported, not swallowed."""
    sender, receiver = socket.socketpair()
    receiver.close()
    with sender, pytest.raises(OSError, match="Broken pipe"):
        send_frame(sender, b"x")


@given(
    message=st.binary(max_size=MOST), most=st.integers(0, 12), sizes=st.lists(st.integers(1, 60)),
    cut=st.integers(0, MOST + 4),
)  # fmt: skip
def test_who_looks_at_a_message_takes_nothing_of_it(message: bytes, most: int, sizes: list[int], cut: int) -> None:
    """Whole or cut short, long, empty or not there: what is received afterwards is what it would have been."""
    data = framed([message, b"next"])[:cut]
    reader = FrameReader(cast(socket.socket, DrippingSocket(data, list(sizes))), MOST)
    peeked = reader.peek(most)
    assert peeked in (message[:most], b"")
    assert peeked == reader.peek(most)
    if len(data) < 4 + len(message):
        with pytest.raises(ProtocolError) if data else nullcontext():
            assert reader.receive() is None
        return
    assert peeked == message[:most]
    assert reader.receive() == message


def test_a_message_that_is_announced_too_long_can_be_looked_at_and_not_received() -> None:
    """Whoever receives it hears that it is too long."""
    reader = FrameReader(cast(socket.socket, DrippingSocket(struct.pack("<I", MOST + 1) + b"ab", [])), MOST)
    assert reader.peek(2) == b"ab"
    with pytest.raises(ProtocolError, match="announced"):
        reader.receive()
