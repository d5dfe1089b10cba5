"""Do calls end that say or read nothing, and has a peer as many at once as it may, whatever kind of method it is?

Covers: common/wire/call_limits.py before a real server on a Unix socket; paces. Does not cover: who calls
(tests/attacks/test_crowds.py).
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf.message import DecodeError

from common.errors import NodeLost, NodeTimeout, ShardmeshError
from common.program.pace import Pace
from common.wire.call_limits import CallLimits
from common.wire.rpc import STREAMS_OF_A_CONNECTION, abort_with, bind, make_server
from tests.support.waiting import wait_until

LIMIT_SECONDS = 10.0
MOST = 2


def only_text(data: bytes) -> bytes:
    """Return what is read as a message; one of zeros is none."""
    if data.startswith(b"\0"):
        raise DecodeError("no message")
    return data


class Methods(grpc.GenericRpcHandler):
    """A method of each kind; one waits until it is told."""

    def __init__(self) -> None:
        self.may_go_on, self.nobody_reads, self.entered = threading.Event(), threading.Event(), threading.Event()
        self.is_over = threading.Event()
        self.heard: list[ShardmeshError] = []
        self._lock, self.waiting, self.most_waiting = threading.Lock(), 0, 0

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> Any:
        """See grpc.GenericRpcHandler."""
        return {
            "/echo/One": grpc.unary_unary_rpc_method_handler(lambda request, context: request),
            "/echo/Twice": grpc.unary_stream_rpc_method_handler(lambda request, context: iter([request] * 2)),
            "/echo/Sum": grpc.stream_unary_rpc_method_handler(lambda requests, context: b"".join(requests)),
            "/echo/Each": grpc.stream_stream_rpc_method_handler(lambda requests, context: requests),
            "/echo/Wait": grpc.unary_unary_rpc_method_handler(self._wait),
            "/echo/Endless": grpc.unary_stream_rpc_method_handler(self._endless),
            "/echo/Read": grpc.unary_unary_rpc_method_handler(lambda request, context: request, only_text),
            "/echo/ReadAll": grpc.stream_unary_rpc_method_handler(self._sum, only_text),
        }.get(handler_call_details.method)

    def _sum(self, requests: Iterator[bytes], context: grpc.ServicerContext) -> bytes:
        try:
            return b"".join(self._noticed(requests))
        except ShardmeshError as error:
            self.heard.append(error)
            abort_with(context, error)
        finally:
            self.is_over.set()

    def _noticed(self, requests: Iterator[bytes]) -> Iterator[bytes]:
        for request in requests:
            self.entered.set()
            yield request

    def _endless(self, request: bytes, context: grpc.ServicerContext) -> Iterator[bytes]:
        try:
            while True:
                yield bytes(1 << 16)
        finally:
            self.nobody_reads.set()

    def _wait(self, request: bytes, context: grpc.ServicerContext) -> bytes:
        with self._lock:
            self.waiting += 1
            self.most_waiting = max(self.most_waiting, self.waiting)
        self.may_go_on.wait(LIMIT_SECONDS)
        with self._lock:
            self.waiting -= 1
        return request


class Served:
    """A server with limits, and a channel to it."""

    def __init__(self, directory: Path, workers: int = 16, most: int = MOST, **limits: Any) -> None:
        self.counted: Counter[str] = Counter()
        self.methods = Methods()
        limited = CallLimits(lambda context: ("kitchen", most), self._count, **{"look_seconds": 0.1, **limits})
        self._server = make_server(workers, limited)
        self._server.add_generic_rpc_handlers((self.methods,))
        bind(self._server, f"unix:{directory}/s")
        self._server.start()
        self.channel = grpc.insecure_channel(f"unix:{directory}/s")

    def _count(self, reason: str) -> None:
        self.counted[reason] += 1

    def close(self) -> None:
        self.channel.close()
        self._server.stop(0).wait()


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Callable[..., Served]]:
    """Return what makes a server. Args: of CallLimits."""
    with ExitStack() as closing:

        def make(**limits: Any) -> Served:
            made = Served(tmp_path, **limits)
            closing.callback(made.close)
            return made

        yield make


@pytest.fixture
def served(serve: Callable[..., Served]) -> Served:
    """Return a server with the usual limits."""
    return serve()


def never(until: threading.Event) -> Iterator[bytes]:
    """Yield nothing for a long time."""
    until.wait(LIMIT_SECONDS)
    yield from ()


def test_each_kind_of_method_answers_as_without_limits(served: Served) -> None:
    """One message or many, either way."""
    channel = served.channel
    assert channel.unary_unary("/echo/One")(b"a") == b"a"
    assert list(channel.unary_stream("/echo/Twice")(b"a")) == [b"a", b"a"]
    assert channel.stream_unary("/echo/Sum")(iter([b"a", b"b"])) == b"ab"
    assert list(channel.stream_stream("/echo/Each")(iter([b"a", b"b"]))) == [b"a", b"b"]
    with pytest.raises(grpc.RpcError, match="Method not found"):
        channel.unary_unary("/echo/None")(b"a")
    assert not served.counted


@pytest.mark.parametrize("path", ["/echo/One", "/echo/Twice", "/echo/Sum", "/echo/Each"])
def test_a_call_without_a_message_ends_in_time(serve: Callable[..., Served], path: str) -> None:
    """And is counted; who has called has all of his calls again."""
    served = serve(arrive_seconds=0.2)
    over = threading.Event()
    for _ in range(MOST + 1):
        with pytest.raises(grpc.RpcError) as raised:
            served.channel.stream_unary(path)(never(over), timeout=LIMIT_SECONDS)
        assert raised.value.code() == grpc.StatusCode.CANCELLED
    over.set()
    wait_until(lambda: served.counted["late"] == MOST + 1, limit_seconds=LIMIT_SECONDS, what="all counted")
    wait_until(lambda: _is_answered(served), limit_seconds=LIMIT_SECONDS, what="an answer")


def _is_answered(served: Served) -> bool:
    try:
        return served.channel.unary_unary("/echo/One")(b"a") == b"a"
    except grpc.RpcError:  # the machine is busy, and the message was late
        return False


def _once(until: threading.Event) -> Iterator[bytes]:
    yield b"a"
    yield from never(until)


def test_a_stream_that_says_nothing_more_is_broken_off_and_others_may_rest(serve: Callable[..., Served]) -> None:
    """Whoever works on it hears a NodeTimeout; a method that may rest is answered whenever its caller goes on."""
    served, over = serve(say_seconds=0.2, resting=["/echo/Sum"]), threading.Event()
    resting = served.channel.stream_unary("/echo/Sum").future(_once(over))
    with pytest.raises(grpc.RpcError) as raised:
        served.channel.stream_unary("/echo/ReadAll")(_once(over), timeout=LIMIT_SECONDS)
    assert raised.value.code() == grpc.StatusCode.CANCELLED
    wait_until(lambda: bool(served.methods.heard), limit_seconds=LIMIT_SECONDS, what="the end of its work")
    assert [type(error) for error in served.methods.heard] == [NodeTimeout]
    over.set()
    assert resting.result(LIMIT_SECONDS) == b"a"
    assert served.counted == {"stalled": 1}


def test_a_caller_who_goes_in_the_middle_is_nobodys_mistake(
    served: Served, caplog: pytest.LogCaptureFixture
) -> None:  # fmt: skip
    """It is not logged as one; to gRPC it may look as if he had said all."""
    over, begun = threading.Event(), threading.Event()

    def messages() -> Iterator[bytes]:
        yield b"a"
        begun.set()
        yield from never(over)

    call = served.channel.stream_unary("/echo/ReadAll").future(messages())
    assert begun.wait(LIMIT_SECONDS)
    assert served.methods.entered.wait(LIMIT_SECONDS)
    call.cancel()
    assert served.methods.is_over.wait(LIMIT_SECONDS)
    over.set()
    assert {type(error) for error in served.methods.heard} <= {NodeLost}
    assert not [record for record in caplog.records if record.exc_info]


def test_an_answer_that_nobody_reads_is_broken_off(serve: Callable[..., Served]) -> None:
    """Its worker is free again, and it is counted."""
    served = serve(read_seconds=0.2)
    call = served.channel.unary_stream("/echo/Endless")(b"a")
    next(call)
    assert served.methods.nobody_reads.wait(LIMIT_SECONDS)
    assert served.counted == {"stalled": 1}
    call.cancel()


def test_streams_leave_workers_for_short_calls(serve: Callable[..., Served]) -> None:
    """Of all callers together only so many answers are under way."""
    served = serve(most_answering=1)
    call = served.channel.unary_stream("/echo/Endless")(b"a")
    next(call)
    with pytest.raises(grpc.RpcError, match="1 answers and other streams are under way"):
        list(served.channel.unary_stream("/echo/Twice")(b"a", timeout=LIMIT_SECONDS))
    assert served.channel.unary_unary("/echo/One")(b"a") == b"a"
    call.cancel()


@pytest.mark.parametrize("path", ["/echo/Read", "/echo/ReadAll"])
def test_a_message_that_is_none_is_bad_input(served: Served, path: str, caplog: pytest.LogCaptureFixture) -> None:
    """And no mistake of ours with a traceback, as gRPC says; the first message or a later one."""
    several = [[b"\0"]] if path == "/echo/Read" else [[b"\0"], [b"a", b"\0"]]
    for messages in several:
        with pytest.raises(grpc.RpcError, match="cannot be read") as raised:
            served.channel.stream_unary(path)(iter(messages), timeout=LIMIT_SECONDS)
        assert raised.value.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert not caplog.records


def test_a_peer_has_so_many_calls_at_once_and_no_more(served: Served) -> None:
    """The next one is refused at once, in words; when one has ended there is room."""
    waiting = [served.channel.unary_unary("/echo/Wait").future(b"a") for _ in range(MOST)]
    wait_until(lambda: served.methods.waiting == MOST, limit_seconds=LIMIT_SECONDS, what="calls under way")
    said: list[tuple[grpc.StatusCode, str]] = []
    refused = served.channel.unary_unary("/echo/One")

    def is_refused() -> bool:
        try:
            refused(b"b", timeout=LIMIT_SECONDS)
        except grpc.RpcError as error:
            said.append((error.code(), error.details()))
            return True
        return False

    wait_until(is_refused, limit_seconds=LIMIT_SECONDS, what="a refusal")
    assert said[0][0] == grpc.StatusCode.RESOURCE_EXHAUSTED
    assert "kitchen has 2 calls under way" in said[0][1]
    served.methods.may_go_on.set()
    assert [call.result() for call in waiting] == [b"a"] * MOST
    wait_until(lambda: not is_refused(), limit_seconds=LIMIT_SECONDS, what="room again")


def test_one_connection_takes_so_many_workers_and_no_more(serve: Callable[..., Served]) -> None:
    """The calls beyond wait where they come from; some are refused there, which none of our programs has so many of."""
    served = serve(workers=2 * STREAMS_OF_A_CONNECTION, most=0)
    assert served.channel.unary_unary("/echo/One")(b"a") == b"a", "the limit is known to the caller from now on"
    calls = [served.channel.unary_unary("/echo/Wait").future(b"a") for _ in range(2 * STREAMS_OF_A_CONNECTION)]
    wait_until(
        lambda: served.methods.waiting == STREAMS_OF_A_CONNECTION, limit_seconds=LIMIT_SECONDS, what="calls at work"
    )  # fmt: skip
    served.methods.may_go_on.set()
    wait_until(lambda: all(call.done() for call in calls), limit_seconds=LIMIT_SECONDS, what="the end of all")
    assert {call.code() for call in calls} <= {grpc.StatusCode.OK, grpc.StatusCode.UNAVAILABLE}
    assert served.methods.most_waiting == STREAMS_OF_A_CONNECTION


def test_a_pace_allows_some_at_once_and_then_so_many_a_second() -> None:
    """For each name by itself, and for so many names as are remembered."""
    now = [0.0]
    pace = Pace(2.0, 0.5, lambda: now[0])
    assert [pace.allows("a") for _ in range(3)] == [True, True, False]
    assert pace.allows("b")
    now[0] = 1.9
    assert not pace.allows("a")
    now[0] = 3.0
    assert [pace.allows("a") for _ in range(2)] == [True, False]
