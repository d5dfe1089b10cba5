"""Breaks off calls whose first message does not come, and streams in which one side waits for the other for too long.

    with stalls.watched(context, 5.0) as stream:
        first = next(messages)
        stream.has_begun()
        for message in stream.messages(messages, 60.0): ...      # the caller says nothing for a minute: StreamStalled
        yield from stream.answers(answers, 300.0)                 # the caller reads nothing for five

Covers: messages that do not come, answers that nobody takes. Does not cover: how many calls there are (call_limits.py),
peers that are gone (tcp_limits.py; pings: rpc.py). Threads: one, while there is a call; not one a kind, as a call waits
for the start of it.

gRPC in Python has a worker wait for a stream's next message, or for room for its answer, as long as the connection is
there; it can be broken off from outside alone. Who is looked at costs two reads of a clock a message.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import grpc

from common.errors import NodeLost, NodeTimeout
from common.program.door_series import LATE, STALLED

LOOK_SECONDS = 5.0
"""The most between two looks: so much longer may one wait than it may."""
NEVER = float("inf")


class Stream:
    """One call. Its worker alone sets until when it may wait; whoever looks reads it."""

    def __init__(self, context: grpc.ServicerContext, until: float) -> None:
        """Args: until: when its first message has to be there."""
        self.context, self.until, self.reason = context, until, LATE
        self.is_stalled = False

    def has_begun(self) -> None:
        """Its first message has come; from now on it may stall."""
        self.until, self.reason = NEVER, STALLED

    def messages(self, messages: Iterator[Any], seconds: float) -> Iterator[Any]:
        """Yield what the caller says. Raises: NodeTimeout: nothing for so long; NodeLost: he has gone."""
        while True:
            self.until = time.monotonic() + seconds
            try:
                message = next(messages)
            except (
                StopIteration,
                grpc.RpcError,
            ) as end:  # a call that is broken off ends in either way, without a word
                if self.is_stalled:
                    raise NodeTimeout(f"the caller has said nothing for {seconds:g} s") from None
                if isinstance(end, StopIteration):
                    return
                raise NodeLost("the caller has gone in the middle of what it said") from None
            finally:
                self.until = NEVER
            yield message

    def answers(self, answers: Iterator[Any], seconds: float) -> Iterator[Any]:
        """Yield what the caller is told; who takes none of it for so long hears no more."""
        for answer in answers:
            self.until = time.monotonic() + seconds
            try:
                yield answer
            finally:
                self.until = NEVER


class StalledStreams:
    """Of one server. Safe from any thread."""

    def __init__(self, count: Callable[[str], None] = lambda reason: None, look_seconds: float = LOOK_SECONDS) -> None:
        """Args: count: called with why for each call that is broken off."""
        self._count, self._look_seconds = count, look_seconds
        self._changed = threading.Condition()
        self._streams: set[Stream] = set()
        self._is_watched = False

    @contextmanager
    def watched(self, context: grpc.ServicerContext, arrive_seconds: float) -> Iterator[Stream]:
        """Have a call looked at as long as the context lasts. Args: arrive_seconds: for its first message."""
        stream = Stream(context, time.monotonic() + arrive_seconds)
        with self._changed:
            self._streams.add(stream)
            if not self._is_watched:
                self._is_watched = True
                threading.Thread(target=self._watch, name="late calls", daemon=True).start()
        try:
            yield stream
        finally:
            with self._changed:
                self._streams.discard(stream)
                if not self._streams:
                    self._changed.notify_all()

    def _watch(self) -> None:
        with self._changed:
            while self._streams:
                now = time.monotonic()
                for stream in [one for one in self._streams if one.until <= now]:
                    self._streams.discard(stream)
                    stream.is_stalled = True
                    self._count(stream.reason)
                    with suppress(Exception):  # it has ended meanwhile
                        stream.context.cancel()
                soonest = min((one.until for one in self._streams), default=now)
                self._changed.wait(min(self._look_seconds, max(0.0, soonest - now)))
            self._is_watched = False
