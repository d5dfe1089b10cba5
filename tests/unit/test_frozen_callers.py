"""Does a call end whose caller is frozen, and a connection that says nothing, where there is no gate?

Covers: pings of our servers and their patience, with shorter times. Does not cover: callers that are gone
(tests/e2e/test_faults_in_namespaces.py), who answers pings and says nothing (test_call_limits.py).
"""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from typing import Any

import grpc
import pytest

from common.wire import rpc
from common.wire.addresses import socket_address
from common.wire.call_limits import CallLimits
from common.wire.rpc import bind, make_server

LIMIT_SECONDS = 60.0
METHOD = "/echo/Each"
CALLER = f"""
import sys, threading, grpc
from common.wire.rpc import channel_options
def messages():
    yield b"a"
    threading.Event().wait()
channel = grpc.insecure_channel(sys.argv[1], options=channel_options())
for answer in channel.stream_stream("{METHOD}")(messages()):
    print(answer, flush=True)
"""


class Echoes(grpc.GenericRpcHandler):
    """One method, which knows when it has ended."""

    def __init__(self) -> None:
        self.ended = threading.Event()

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> Any:
        """See grpc.GenericRpcHandler."""
        return grpc.stream_stream_rpc_method_handler(self._each)

    def _each(self, requests: Iterator[bytes], context: grpc.ServicerContext) -> Iterator[bytes]:
        context.add_callback(self.ended.set)
        yield from requests


def test_a_call_ends_whose_caller_is_frozen(monkeypatch: pytest.MonkeyPatch) -> None:
    """Though it may rest, and its caller's system still answers for it."""
    monkeypatch.setattr(rpc, "CALLER_PING_SECONDS", 0.5)
    monkeypatch.setattr(rpc, "FROZEN_SECONDS", 1.0)
    echoes, server = Echoes(), make_server(4, CallLimits(lambda context: ("", 0), resting=(METHOD,)))
    server.add_generic_rpc_handlers((echoes,))
    address = bind(server, "127.0.0.1:0")
    server.start()
    command = [sys.executable, "-c", CALLER, address]
    try:
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as caller:
            try:
                assert caller.stdout is not None
                assert caller.stdout.readline() == "b'a'\n"
                caller.send_signal(signal.SIGSTOP)
                assert echoes.ended.wait(LIMIT_SECONDS)
            finally:
                caller.kill()
    finally:
        server.stop(0).wait()


def test_a_connection_that_says_nothing_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also at a port without TLS, before which there is no gate; half a beginning is nothing."""
    monkeypatch.setattr(rpc, "BEGIN_SECONDS", 0.5)
    server = make_server(4)
    address = bind(server, "127.0.0.1:0")
    server.start()
    try:
        for beginning in (b"", b"PRI *", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"):
            with socket.create_connection(socket_address(address), timeout=LIMIT_SECONDS) as silent:
                silent.sendall(beginning)
                while silent.recv(1 << 16):
                    pass
    finally:
        server.stop(0).wait()
