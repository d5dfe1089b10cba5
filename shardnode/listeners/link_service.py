"""Answers what the coordinator measures its links with, and measures the device for it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict

import grpc

from common.compute.device_speeds import DeviceSpeeds
from common.errors import InputError
from common.wire.rpc import guarded, guarded_stream
from protos.shardmesh.v1 import links_pb2, links_pb2_grpc

MOST_REPLY_BYTES = 4 << 20


class LinkServicer(links_pb2_grpc.LinkServiceServicer):
    """See links.proto."""

    def __init__(
        self, check_caller: Callable[[grpc.ServicerContext], None],
        measure: Callable[[Callable[[], bool]], DeviceSpeeds], rounds_port: int = 0,
    ) -> None:  # fmt: skip
        """Args: measure: measures the device, as long as its argument says that somebody waits; rounds_port: where
        echoes go in frames; 0: nowhere.
        """
        self._check_caller, self._measure, self._rounds_port = check_caller, measure, rounds_port

    @guarded
    def Echo(  # noqa: N802 - the name is the contract's
        self, request_iterator: Iterator[links_pb2.EchoRequest], context: grpc.ServicerContext
    ) -> Iterator[links_pb2.EchoResponse]:
        self._check_caller(context)
        return guarded_stream(context, request_iterator, self._reply)

    @guarded
    def MeasureDevice(  # noqa: N802 - the name is the contract's
        self, request: links_pb2.MeasureDeviceRequest, context: grpc.ServicerContext
    ) -> links_pb2.MeasureDeviceResponse:
        self._check_caller(context)
        return links_pb2.MeasureDeviceResponse(**asdict(self._measure(context.is_active)))

    def _reply(self, request: links_pb2.EchoRequest) -> links_pb2.EchoResponse:
        if not 0 <= request.reply_bytes <= MOST_REPLY_BYTES:
            raise InputError(f"an echo of {request.reply_bytes} bytes; at most {MOST_REPLY_BYTES} are possible")
        return links_pb2.EchoResponse(payload=bytes(request.reply_bytes), rounds_port=self._rounds_port)
