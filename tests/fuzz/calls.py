"""Every call that somebody may make of a coordinator or a node, over its own port, with the caller's own certificate.

Covers: all methods of protos/; that each call ends in time, and well or in words of ours, and that nobody logs it as a
mistake. Does not cover: good messages (call_seeds.py), hostile ones (sequences.py), frames (framed.py).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import cast

import grpc

from common.errors import InternalError
from common.wire.rpc import REASON_KEY, error_from_rpc
from tests.fuzz.attacked_mesh import STRANGER, AttackedMesh, WrongEnd
from tests.fuzz.call_seeds import BRIEF, LATER, Call, all_calls
from tests.fuzz.framed import framed_reader
from tests.fuzz.readers import Reader, is_read
from tests.fuzz.sequences import mutated_messages, parted
from tests.support.sliced_models import slice_model

LIMIT_SECONDS, BRIEF_SECONDS = 30.0, 0.05
MOST_ANSWER_BYTES = 64 << 20
AGAIN = "a stranger, over another connection"


def call_readers(directory: Path) -> Iterator[Reader]:
    """Yield a reader for each call. Args: directory: empty; a mesh is made there, which ends with the process."""
    mesh = AttackedMesh(directory / "mesh")
    sliced = slice_model(directory / "sliced")
    for call in all_calls(sliced):
        name = call.path.removeprefix("/shardmesh.v1.").replace("/", " ")
        read, mutate = _calling(mesh, call), mutated_messages(call.message)
        yield Reader(name=name, seeds=call.seeds, read=read, share=call.share, mutate=mutate)
    yield framed_reader(mesh, sliced)


def _calling(mesh: AttackedMesh, call: Call) -> Callable[[bytes], object]:
    def read(data: bytes) -> None:
        messages = [_completed(message, call, mesh) for message in parted(data)]
        channel = mesh.channel(call.who)
        mesh.mistakes.take()
        for path, request in call.before:
            before: grpc.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(path)
            before(request, timeout=LIMIT_SECONDS)
        try:
            if not _ask(channel, call, messages):
                _ask(channel, replace(call, who=AGAIN), messages)
        finally:
            mesh.mistakes.check()

    return read


def _completed(data: bytes, call: Call, mesh: AttackedMesh) -> bytes:
    """Return a message with what is known of the mesh by now."""
    message = call.message()
    if call.told is None or not is_read(message, data):
        return data
    for field, value in message.ListFields():
        if value == LATER:
            setattr(message, field.name, call.told(mesh))
    return message.SerializeToString()


def _ask(channel: grpc.Channel, call: Call, messages: list[bytes]) -> bool:
    """Call, take the answers, and tell whether there was a call: a stranger's connection ends after 20 s, in any call.

    Raises: WrongEnd; ShardmeshError: how a call may end.
    """
    limit = BRIEF_SECONDS if call.share == BRIEF else LIMIT_SECONDS
    asked: grpc.StreamStreamMultiCallable[bytes, bytes] = channel.stream_stream(call.path)
    byte_count = 0
    try:
        for answer in asked(iter(messages), timeout=limit):
            byte_count += len(answer)
            if byte_count > MOST_ANSWER_BYTES:
                raise WrongEnd(f"more than {MOST_ANSWER_BYTES} bytes of answers")
    except grpc.RpcError as error:
        if error.code() is grpc.StatusCode.DEADLINE_EXCEEDED and limit == BRIEF_SECONDS:
            return True
        reason = dict(cast("Iterable[tuple[str, str]]", error.trailing_metadata() or ())).get(REASON_KEY)
        if reason is None and error.code() is grpc.StatusCode.UNAVAILABLE and call.who == STRANGER:
            return False
        if reason is None or reason == InternalError.reason:
            raise WrongEnd(f"{error.code().name} {error.details()!r} {reason}") from None
        raise error_from_rpc(error, call.who) from None
    return True
