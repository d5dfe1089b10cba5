"""Waiting for a peer: until it is there, until it has answered; no longer than it is heard by other ways.

Does not cover: what failed calls mean (rpc.py), who tells that a peer is gone (coordinator/membership/reach.py).
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import grpc

from common.errors import NodeLost

LOOK_SECONDS = 0.1
"""How often who waits for a peer looks whether it is gone."""
GRACE_SECONDS = 1.0
"""Before the first such look: a peer that has just come back answers before it is heard again by other ways."""
NOBODYS_METHOD = "/shardmesh.v1.Nobody/IsThere"
"""No server has it. gRPC says so by itself, also where all threads of a server are busy; whoever says so is there."""


def wait_until_reached(
    channel: grpc.Channel, limit_seconds: float, complaint: str, is_gone: Callable[[], bool] = lambda: False
) -> None:
    """Return once the other end is there.

    Args: is_gone: whether other ways tell meanwhile that nobody is there.
    Raises: NodeLost: with this complaint, after the limit or when it is gone.
    """
    # Not channel_ready_future, which gRPC looks after five times a second: closing the channel waits for the next look.
    method: grpc.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(NOBODYS_METHOD)
    call = method.future(b"", timeout=limit_seconds + 1, wait_for_ready=True)
    with suppress(grpc.RpcError):  # that there is no such method, or what the next call will say as well
        answer_of(call, limit_seconds, complaint, is_gone)


def answer_of(
    call: grpc.Future[Any], limit_seconds: float, complaint: str, is_gone: Callable[[], bool] = lambda: False
) -> Any:
    """Return a call's answer. Args and raises as wait_until_reached; grpc.RpcError: what it failed with."""
    try:
        return _wait(call, limit_seconds, complaint, is_gone)
    finally:
        call.cancel()


def _wait(future: grpc.Future[Any], limit_seconds: float, complaint: str, is_gone: Callable[[], bool]) -> Any:
    started = time.monotonic()
    end = started + limit_seconds
    while True:
        try:
            return future.result(max(0.0, min(LOOK_SECONDS, end - time.monotonic())))
        except grpc.FutureTimeoutError:
            now = time.monotonic()
            if now >= end or (now >= started + GRACE_SECONDS and is_gone()):
                raise NodeLost(complaint) from None
