"""The coordinator's gRPC face for whoever looks on. Messages in and out; overview.py and tracing.py do the work.

Covers: ObserveService, of which Explain has a file of its own (explain_service.py); who may ask: whoever may open the
owner's socket, the only place where it is served. Threads: gRPC's.
"""

from __future__ import annotations

from collections.abc import Iterator

import grpc

from common.wire.rpc import abort_with, guarded
from coordinator.answering.explaining import Explaining
from coordinator.program.explain_service import ExplainServicer
from coordinator.program.overview import Overviews
from coordinator.program.tracing import Tracing
from protos.shardmesh.v1 import observe_pb2


class ObserveServicer(ExplainServicer):
    """Lets the owner look on."""

    def __init__(self, explaining: Explaining, overviews: Overviews, tracing: Tracing) -> None:
        super().__init__(explaining)
        self._overviews, self._tracing = overviews, tracing

    @guarded
    def Overview(  # noqa: N802 - the name is the contract's
        self, request: observe_pb2.OverviewRequest, context: grpc.ServicerContext
    ) -> observe_pb2.OverviewResponse:
        return self._overviews.now()

    @guarded
    def Trace(  # noqa: N802 - the name is the contract's
        self, request: observe_pb2.TraceRequest, context: grpc.ServicerContext
    ) -> Iterator[observe_pb2.TraceResponse]:
        self._tracing.check(request.seconds)
        return self._trace(request, context)

    def _trace(
        self, request: observe_pb2.TraceRequest, context: grpc.ServicerContext
    ) -> Iterator[observe_pb2.TraceResponse]:
        try:
            yield from self._tracing.sweeps(request.seconds, context.is_active)
        except Exception as error:  # noqa: BLE001 - the edge of an RPC; abort_with logs what is not ours
            abort_with(context, error)
