"""Tells a peer that speaks gRPC why he may not call, without a server: each call is answered with a status and no more.

Covers: as much of HTTP/2 as that takes: frames are skipped but for those that open a call, ping, or greet.
Does not cover: who is refused (gate.py). Source: RFC 9113 (frames), RFC 7541 (headers, each one in full), gRPC over
HTTP/2 ("Trailers-Only").

A connection that is closed without a word reads as a device that is gone. Behind a gate only who may come in has a
worker, and who was removed should still read that he was.
"""

from __future__ import annotations

from urllib.parse import quote

from common.trust.tls_connection import TlsConnection
from common.wire.rpc import REASON_KEY, Status

PREFACE_BYTES, HEAD_BYTES, MOST_FRAME_BYTES = 24, 9, 1 << 14
"""The client's greeting; a frame's head; as long as a frame may be whose receiver has not said otherwise."""
MOST_CALLS = 100
HEADERS, _SETTINGS, _PING = 1, 4, 6
_END_STREAM, _ACK, _END_HEADERS = 1, 1, 4
_STATUS_200 = b"\x88"
_NUMBERS = {"PERMISSION_DENIED": "7", "RESOURCE_EXHAUSTED": "8"}


def refuse_calls(connection: TlsConnection, status: Status) -> None:
    """Answer each call with a status until the peer ends, or its time does. Raises: OSError."""
    head, received = memoryview(bytearray(HEAD_BYTES)), memoryview(bytearray(MOST_FRAME_BYTES))
    _fill(connection, received[:PREFACE_BYTES])
    connection.sendall(_frame(_SETTINGS, 0, 0))
    answered = 0
    while answered < MOST_CALLS:
        _fill(connection, head)
        length, kind, flags = int.from_bytes(head[:3], "big"), head[3], head[4]
        stream = int.from_bytes(head[5:], "big") & 0x7FFFFFFF
        if length > MOST_FRAME_BYTES:
            return
        _fill(connection, received[:length])
        if kind == HEADERS:
            connection.sendall(_frame(HEADERS, _END_STREAM | _END_HEADERS, stream, _answer(status)))
            answered += 1
        elif kind in (_SETTINGS, _PING) and not flags & _ACK:
            connection.sendall(_frame(kind, _ACK, 0, bytes(received[:length]) if kind == _PING else b""))


def _answer(status: Status) -> bytes:
    """Return the headers of a call that ends before it has begun."""
    told = {
        "content-type": "application/grpc", "grpc-status": _NUMBERS[status.code],
        "grpc-message": quote(status.message, safe=" !\"#$&'()*+,-./:;<=>?@[]^_`{|}~"), REASON_KEY: status.reason,
    }  # fmt: skip
    return _STATUS_200 + b"".join(b"\x00" + _text(name) + _text(value) for name, value in told.items())


def _text(text: str) -> bytes:
    """Return a text as headers have it: its length in 7 bits or more, and it in ASCII."""
    encoded = text.encode("ascii", "replace")
    if len(encoded) < 0x7F:
        return bytes([len(encoded)]) + encoded
    length, left = bytearray([0x7F]), len(encoded) - 0x7F
    while left >= 0x80:
        length.append(left & 0x7F | 0x80)
        left >>= 7
    return bytes([*length, left]) + encoded


def _frame(kind: int, flags: int, stream: int, content: bytes = b"") -> bytes:
    return len(content).to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big") + content


def _fill(connection: TlsConnection, view: memoryview) -> None:
    """Read as much as there is room for. Raises: ConnectionAbortedError: it has ended."""
    while len(view):
        if not (count := connection.recv_into(view)):
            raise ConnectionAbortedError
        view = view[count:]
