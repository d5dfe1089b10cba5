"""The coordinator's gRPC face for whoever looks on. Messages in and out; overview.py does the work.

Covers: ObserveService, of which Explain has a file of its own (explain_service.py); who may ask: whoever may open the
owner's socket, the only place where it is served. Threads: gRPC's.
"""

from __future__ import annotations

import grpc

from common.wire.rpc import guarded
from coordinator.answering.explaining import Explaining
from coordinator.program.explain_service import ExplainServicer
from coordinator.program.overview import Overviews
from protos.shardmesh.v1 import observe_pb2


class ObserveServicer(ExplainServicer):
    """Lets the owner look on."""

    def __init__(self, explaining: Explaining, overviews: Overviews) -> None:
        super().__init__(explaining)
        self._overviews = overviews

    @guarded
    def Overview(  # noqa: N802 - the name is the contract's
        self, request: observe_pb2.OverviewRequest, context: grpc.ServicerContext
    ) -> observe_pb2.OverviewResponse:
        return self._overviews.now()
