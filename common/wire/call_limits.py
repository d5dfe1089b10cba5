"""How many calls may one peer have at once, and how long may a call take to say what it wants?

Covers: every method of a server, before its worker waits for anything; messages that are none; streams that stall.
Does not cover: connections and who is let in (common/trust/gate.py), what is answered. Threads: stalled_streams.py's.

gRPC in Python gives a call a worker when it opens and has that wait for its message, for ever. So each method is taken
over as one whose messages are a stream: that runs at once, with a context that says who calls, and can be broken off.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Collection, Iterator
from typing import Any

import grpc
from google.protobuf.message import DecodeError

from common.errors import InputError, ResourceError, ShardmeshError
from common.program.door_series import MANY
from common.wire.rpc import abort_with
from common.wire.stalled_streams import LOOK_SECONDS, NEVER, StalledStreams, Stream

ARRIVE_SECONDS = 5.0
"""From a call's opening to its first message: a thousand times what one takes, and less than who waits for a place."""
SAY_SECONDS = 120.0
"""Between two messages of a stream: of a load, ten times what one takes over the slowest link that it goes over, and
what a slow disk takes to read the largest tensor."""
READ_SECONDS = 300.0
"""For an answer's part to be taken. Who reads in a pager fills what lies between and stops reading for a while."""
UNREADABLE = object()
"""In the place of a message that is none."""
ANSWERING = "\n"
"""What calls are counted under whose answers are streams; nobody is called so."""


class CallLimits(grpc.ServerInterceptor):
    """Of one server. Safe from any thread."""

    def __init__(
        self, group: Callable[[grpc.ServicerContext], tuple[str, int]],
        count: Callable[[str], None] = lambda reason: None, arrive_seconds: float = ARRIVE_SECONDS, *,
        say_seconds: float = SAY_SECONDS, read_seconds: float = READ_SECONDS, look_seconds: float = LOOK_SECONDS,
        resting: Collection[str] = (), most_answering: int = 0,
    ) -> None:  # fmt: skip
        """Args: group: tells under what name calls of a caller are counted, and how many there may be at once; 0: any
        number; count: called with one of CALL_REASONS for each call that is refused or broken off; say_seconds,
        read_seconds: how long a stream's caller may say and read nothing, look_seconds: and so much longer; resting:
        paths of methods whose callers may say nothing for as long as they like; most_answering: calls at once, of all
        callers, whose answers are streams; 0: any number. The other workers stay for short calls.
        """
        self._group, self._count, self._arrive_seconds = group, count, arrive_seconds
        self._say_seconds, self._read_seconds, self._resting = say_seconds, read_seconds, frozenset(resting)
        self._stalls = StalledStreams(count, min(look_seconds, arrive_seconds))
        self._most_answering = most_answering
        self._lock = threading.Lock()
        self._open: Counter[str] = Counter()

    def intercept_service(
        self, continuation: Callable[[grpc.HandlerCallDetails], grpc.RpcMethodHandler[Any, Any] | None],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> grpc.RpcMethodHandler[Any, Any] | None:  # fmt: skip
        """Take a method over."""
        handler: Any = continuation(handler_call_details)
        if handler is None:
            return None
        asked = handler.stream_stream or handler.stream_unary or handler.unary_stream or handler.unary_unary
        is_stream = handler.request_streaming
        say_seconds = NEVER if handler_call_details.method in self._resting else self._say_seconds
        read = _reading(handler.request_deserializer)

        def answer(messages: Iterator[Any], context: grpc.ServicerContext, *more: Any) -> Any:
            self._enter(context)
            with self._stalls.watched(context, self._arrive_seconds) as stream:
                first = _first(messages, stream)
                said = _with(first, stream.messages(messages, say_seconds)) if is_stream else first
                return asked(said, context, *more)

        def answer_in_parts(messages: Iterator[Any], context: grpc.ServicerContext, *more: Any) -> Iterator[Any]:
            self._enter_answering(context)
            with self._stalls.watched(context, self._arrive_seconds) as stream:
                first = _first(messages, stream)
                said = _with(first, stream.messages(messages, say_seconds)) if is_stream else first
                yield from stream.answers(asked(said, context, *more), self._read_seconds)

        if getattr(asked, "experimental_non_blocking", False):  # answers later, without a worker
            answer.experimental_non_blocking = True  # type: ignore[attr-defined] # gRPC looks at it
            if handler.response_streaming:
                return grpc.stream_stream_rpc_method_handler(answer, read, handler.response_serializer)
        if handler.response_streaming:
            return grpc.stream_stream_rpc_method_handler(answer_in_parts, read, handler.response_serializer)
        return grpc.stream_unary_rpc_method_handler(answer, read, handler.response_serializer)

    def _enter(self, context: grpc.ServicerContext) -> None:
        """Count a call until it ends, or refuse it."""
        try:
            name, most = self._group(context)
        except ShardmeshError as error:  # his connection has ended already
            abort_with(context, error)
        self._count_in(context, name, most, f"{name} has {most} calls under way already; ask again when one has ended")

    def _enter_answering(self, context: grpc.ServicerContext) -> None:
        """Do the same for a call whose answer is a stream."""
        self._enter(context)
        most = self._most_answering
        refusal = f"{most} answers and other streams are under way here; ask again when one has ended"
        self._count_in(context, ANSWERING, most, refusal)

    def _count_in(self, context: grpc.ServicerContext, name: str, most: int, refusal: str) -> None:
        with self._lock:
            is_over = 0 < most <= self._open[name]
            if not is_over:
                self._open[name] += 1
        if is_over:
            self._count(MANY)
            abort_with(context, ResourceError(refusal))
        if not context.add_callback(lambda: self._leave(name)):  # it has ended already
            self._leave(name)

    def _leave(self, name: str) -> None:
        with self._lock:
            self._open[name] -= 1
            if not self._open[name]:
                del self._open[name]


def _first(messages: Iterator[Any], stream: Stream) -> Any:
    """Return a call's first message."""
    try:
        first = next(messages)
    except StopIteration:
        abort_with(stream.context, InputError("the call has ended before its message"))
    if first is UNREADABLE:
        abort_with(stream.context, _unreadable())
    stream.has_begun()
    return first


def _with(first: Any, messages: Iterator[Any]) -> Iterator[Any]:
    yield first
    for message in messages:
        if message is UNREADABLE:
            raise _unreadable()
        yield message


def _unreadable() -> InputError:
    return InputError("a message that cannot be read; are both of the same version of shardmesh?")


def _reading(read: Callable[[bytes], Any] | None) -> Callable[[bytes], Any] | None:
    """Return what reads a message and says so where it cannot: gRPC would log a traceback and say that we are wrong."""
    if read is None:
        return None

    def reading(data: bytes) -> Any:
        try:
            return read(data)
        except DecodeError:
            return UNREADABLE

    return reading
