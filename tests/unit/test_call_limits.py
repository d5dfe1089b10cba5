"""Do calls end whose message does not come, and has a peer as many at once as it may, whatever kind of method it is?

Covers: common/wire/call_limits.py before a real server on a Unix socket; paces. Does not cover: who calls
(tests/attacks/test_crowds.py).
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from common.program.pace import Pace
from common.wire.call_limits import CallLimits
from common.wire.rpc import bind, make_server
from tests.support.waiting import wait_until

LIMIT_SECONDS = 10.0
MOST = 2


class Methods(grpc.GenericRpcHandler):
    """A method of each kind; one waits until it is told."""

    def __init__(self) -> None:
        self.may_go_on = threading.Event()

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> Any:
        """See grpc.GenericRpcHandler."""
        return {
            "/echo/One": grpc.unary_unary_rpc_method_handler(lambda request, context: request),
            "/echo/Twice": grpc.unary_stream_rpc_method_handler(lambda request, context: iter([request] * 2)),
            "/echo/Sum": grpc.stream_unary_rpc_method_handler(lambda requests, context: b"".join(requests)),
            "/echo/Each": grpc.stream_stream_rpc_method_handler(lambda requests, context: requests),
            "/echo/Wait": grpc.unary_unary_rpc_method_handler(self._wait),
        }.get(handler_call_details.method)

    def _wait(self, request: bytes, context: grpc.ServicerContext) -> bytes:
        self.may_go_on.wait(LIMIT_SECONDS)
        return request


class Served:
    """A server with limits, and a channel to it."""

    def __init__(self, directory: Path) -> None:
        self.counted: Counter[str] = Counter()
        self.methods = Methods()
        limits = CallLimits(lambda context: ("kitchen", MOST), self._count, arrive_seconds=0.2)
        self._server = make_server(16, limits)
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
def served(tmp_path: Path) -> Iterator[Served]:
    """Return a server."""
    made = Served(tmp_path)
    yield made
    made.close()


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
def test_a_call_without_a_message_ends_in_time(served: Served, path: str) -> None:
    """And is counted; who has called has all of his calls again."""
    over = threading.Event()
    for _ in range(MOST + 1):
        with pytest.raises(grpc.RpcError) as raised:
            served.channel.stream_unary(path)(never(over), timeout=LIMIT_SECONDS)
        assert raised.value.code() == grpc.StatusCode.CANCELLED
    over.set()
    wait_until(lambda: served.counted == {"late": MOST + 1}, limit_seconds=LIMIT_SECONDS, what="all counted")
    assert served.channel.unary_unary("/echo/One")(b"a") == b"a"


def test_a_peer_has_so_many_calls_at_once_and_no_more(served: Served) -> None:
    """The next one is refused at once, in words; when one has ended there is room."""
    waiting = [served.channel.unary_unary("/echo/Wait").future(b"a") for _ in range(MOST)]
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
