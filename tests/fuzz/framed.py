"""Frames at a node's port for rounds: sessions, packed rounds, echoes, each connection a hostile one.

Covers: that the connection ends in time, and well or in words of ours, and that nobody logs it as a mistake.
Does not cover: who may connect (tests/contract/test_frames_port.py), calls over gRPC (calls.py).
"""

from __future__ import annotations

import socket
from contextlib import suppress

from google.protobuf.message import DecodeError

from common.errors import InternalError
from common.weights.slice_format import ATTENTION, FFN
from common.wire.framing import FrameReader, send_frame
from common.wire.packed_echo import pack_echo
from common.wire.packed_round import NextBlock, is_packed, pack_next
from common.wire.rpc import MAX_MESSAGE_BYTES, Status, error_from
from protos.shardmesh.v1 import shard_pb2
from tests.fuzz.attacked_mesh import AttackedMesh, WrongEnd
from tests.fuzz.call_seeds import begun_session, identity_of
from tests.fuzz.readers import Reader
from tests.fuzz.sequences import joined, mutated_messages, parted
from tests.support.session_messages import random_rows, run_block
from tests.support.sliced_models import SlicedModel

LIMIT_SECONDS = 10.0


def framed_reader(mesh: AttackedMesh, sliced: SlicedModel) -> Reader:
    """Return what reads them. Args: mesh: whose serving node they go to; sliced: the model that it serves."""

    def read(data: bytes) -> None:
        mesh.mistakes.take()
        try:
            _ask(mesh.frames_port, parted(data))
        finally:
            mesh.mistakes.check()

    return Reader(
        name="framed", seeds=_seeds(sliced), read=read, share=1.5, mutate=mutated_messages(shard_pb2.RoundsRequest)
    )


def _seeds(sliced: SlicedModel) -> tuple[bytes, ...]:
    rows = random_rows(2, sliced.spec.hidden_size)
    begun = [one.SerializeToString() for one in (*begun_session(identity_of(sliced)), run_block(3, rows, sweep_id=1))]
    packed = [
        pack_next(NextBlock(4 + at, 1, kind, layer, False, False)) + rows.tobytes()
        for at, (layer, kind) in enumerate(((0, FFN), (1, ATTENTION), (1, FFN)))
    ]
    return joined([*begun, *packed]), joined([*begun, packed[0]]), joined([pack_echo(at, 100) for at in range(3)])


def _ask(port: int, messages: list[bytes]) -> None:
    """Send all, and read to the end. Raises: WrongEnd; ShardmeshError: how a session may end."""
    with socket.create_connection(("127.0.0.1", port), timeout=LIMIT_SECONDS) as connection:
        try:
            _send(connection, messages)
            _read(FrameReader(connection, MAX_MESSAGE_BYTES))
        except TimeoutError:
            raise WrongEnd(f"nothing for {LIMIT_SECONDS:g} s") from None
        except OSError:  # it ended before all of it was sent
            return


def _send(connection: socket.socket, messages: list[bytes]) -> None:
    with suppress(BrokenPipeError, ConnectionResetError):  # what it has answered until then is read all the same
        for message in messages:
            send_frame(connection, message)
        connection.shutdown(socket.SHUT_WR)


def _read(reader: FrameReader) -> None:
    while (frame := reader.receive()) is not None:
        if is_packed(frame):
            continue
        try:
            failure = shard_pb2.RoundsResponse.FromString(bytes(frame)).failure
        except DecodeError:
            raise WrongEnd("an answer that cannot be read") from None
        if failure.reason == InternalError.reason:
            raise WrongEnd(failure.message)
        if failure.status:
            raise error_from(Status(code=failure.status, reason=failure.reason, message=failure.message), "the node")
