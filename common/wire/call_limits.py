"""How many calls may one peer have at once, and how long may a call take to say what it wants?

Covers: every method of a server, before its worker waits for anything. Does not cover: connections and who is let in
(common/trust/gate.py), what is answered. Threads: one, while some call's message has not arrived.

gRPC in Python gives a call a worker when it opens and has that wait for its message, for ever. So each method is taken
over as one whose messages are a stream: that runs at once, with a context that says who calls, and can be broken off.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import grpc

from common.errors import InputError, ResourceError, ShardmeshError
from common.program.door_series import LATE, MANY
from common.wire.rpc import abort_with

ARRIVE_SECONDS = 5.0
"""From a call's opening to its first message: a thousand times what one takes, and less than who waits for a place."""


class CallLimits(grpc.ServerInterceptor):
    """Of one server. Safe from any thread."""

    def __init__(
        self, group: Callable[[grpc.ServicerContext], tuple[str, int]],
        count: Callable[[str], None] = lambda reason: None, arrive_seconds: float = ARRIVE_SECONDS,
    ) -> None:  # fmt: skip
        """Args: group: tells under what name calls of a caller are counted, and how many there may be at once; 0: any
        number; count: called with one of CALL_REASONS for each call that is refused.
        """
        self._group, self._count, self._arrive_seconds = group, count, arrive_seconds
        self._lock = threading.Condition()
        self._open: Counter[str] = Counter()
        self._waiting: dict[grpc.ServicerContext, float] = {}
        """Whose first message has not come, and until when it may; the oldest first."""
        self._is_watched = False

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

        def answer(messages: Iterator[Any], context: grpc.ServicerContext, *more: Any) -> Any:
            self._enter(context)
            first = self._first(messages, context)
            return asked(_with(first, messages) if is_stream else first, context, *more)

        if getattr(asked, "experimental_non_blocking", False):  # answers later, without a worker
            answer.experimental_non_blocking = True  # type: ignore[attr-defined] # gRPC looks at it
        if handler.response_streaming:
            return grpc.stream_stream_rpc_method_handler(
                answer, handler.request_deserializer, handler.response_serializer
            )
        return grpc.stream_unary_rpc_method_handler(answer, handler.request_deserializer, handler.response_serializer)

    def _enter(self, context: grpc.ServicerContext) -> None:
        """Count a call until it ends, or refuse it."""
        try:
            name, most = self._group(context)
        except ShardmeshError as error:  # his connection has ended already
            abort_with(context, error)
        with self._lock:
            is_over = 0 < most <= self._open[name]
            if not is_over:
                self._open[name] += 1
        if is_over:
            self._count(MANY)
            abort_with(
                context, ResourceError(f"{name} has {most} calls under way already; ask again when one has ended")
            )
        if not context.add_callback(lambda: self._leave(name)):  # it has ended already
            self._leave(name)

    def _leave(self, name: str) -> None:
        with self._lock:
            self._open[name] -= 1
            if not self._open[name]:
                del self._open[name]

    def _first(self, messages: Iterator[Any], context: grpc.ServicerContext) -> Any:
        """Return a call's first message."""
        with self._lock:
            self._waiting[context] = time.monotonic() + self._arrive_seconds
            if not self._is_watched:
                self._is_watched = True
                threading.Thread(target=self._watch, name="late calls", daemon=True).start()
        try:
            return next(messages)
        except StopIteration:
            abort_with(context, InputError("the call has ended before its message"))
        finally:
            with self._lock:
                self._waiting.pop(context, None)

    def _watch(self) -> None:
        """Break calls off whose message does not come in time, for as long as there are some that wait."""
        with self._lock:
            while self._waiting:
                context, until = next(iter(self._waiting.items()))
                if (left := until - time.monotonic()) > 0:
                    self._lock.wait(left)
                    continue
                del self._waiting[context]
                self._count(LATE)
                self._lock.release()
                try:
                    with suppress(Exception):  # it has ended meanwhile
                        context.cancel()
                finally:
                    self._lock.acquire()
            self._is_watched = False


def _with(first: Any, messages: Iterator[Any]) -> Iterator[Any]:
    yield first
    yield from messages
