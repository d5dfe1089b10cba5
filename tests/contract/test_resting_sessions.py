"""May a coordinator keep a session over gRPC open as long as it likes, while other streams of a node end that stall?

Covers: limits as a node's server has them, with shorter times. Does not cover: limits themselves
(tests/unit/test_call_limits.py), frozen coordinators (tests/unit/test_frozen_callers.py).
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import closing
from functools import partial

import grpc
import pytest

from common.wire.call_limits import CallLimits
from shardnode.listeners import service
from tests.support.listening_nodes import ListeningNode, ask
from tests.support.session_messages import open_sequence, open_session
from tests.support.sliced_models import SlicedModel

LIMIT_SECONDS = 30.0
REFLECTION = "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo"
LIST_SERVICES = b"\x3a\x00"
"""A ServerReflectionRequest: list_services."""


def test_a_session_rests_while_another_stream_is_broken_off(
    sliced: SlicedModel, monkeypatch: pytest.MonkeyPatch
) -> None:  # fmt: skip
    """It goes on with the next sequence, long after who asked for the services has been cut."""
    monkeypatch.setattr(service, "CallLimits", partial(CallLimits, say_seconds=0.2, look_seconds=0.1))
    over = threading.Event()

    def one() -> Iterator[bytes]:
        yield LIST_SERVICES
        over.wait(LIMIT_SECONDS)

    with ListeningNode(sliced, "grpc-unix") as node, closing(node.connect()) as client:
        assert ask(client, open_session(1, sliced.identity)).session_opened.incarnation
        with grpc.insecure_channel(f"unix:{node.socket_path}") as channel:
            asked: grpc.StreamStreamMultiCallable[bytes, bytes] = channel.stream_stream(REFLECTION)
            answers = asked(one(), timeout=LIMIT_SECONDS)
            assert b"ShardService" in next(answers)
            with pytest.raises(grpc.RpcError) as raised:
                next(answers)
        over.set()
        assert raised.value.code() == grpc.StatusCode.CANCELLED
        assert ask(client, open_sequence(2)).HasField("sequences_changed")
