"""The coordinator's gRPC face for loading and unloading. Messages in and out; model_worker.py does the work.

Covers: ModelService; who may ask: whoever may open the owner's socket, the only place where it is served.
Threads: gRPC's; each tells one watcher.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import grpc

from common.errors import ResourceError
from common.wire.rpc import abort_with, guarded
from coordinator.program.load_under_way import LoadUnderWay
from coordinator.program.model_worker import ModelWorker
from protos.shardmesh.v1 import models_pb2, models_pb2_grpc

MOST_WATCHERS = 8
"""And as many that wait for an end, so that others who ask over the same socket find a thread."""


class ModelServicer(models_pb2_grpc.ModelServiceServicer):
    """Lets the owner load and unload."""

    def __init__(self, worker: ModelWorker) -> None:
        self._worker = worker
        self._watchers = threading.Semaphore(MOST_WATCHERS)
        self._waiters = threading.Semaphore(MOST_WATCHERS)

    @guarded
    def LoadModel(  # noqa: N802 - the name is the contract's
        self, request: models_pb2.LoadModelRequest, context: grpc.ServicerContext
    ) -> Iterator[models_pb2.LoadModelResponse]:
        return self._watch(self._worker.load(request), context)

    @guarded
    def CancelLoad(  # noqa: N802 - the name is the contract's
        self, request: models_pb2.CancelLoadRequest, context: grpc.ServicerContext
    ) -> models_pb2.CancelLoadResponse:
        with self._waiting():
            self._worker.cancel(request.name)
        return models_pb2.CancelLoadResponse()

    @guarded
    def UnloadModel(  # noqa: N802 - the name is the contract's
        self, request: models_pb2.UnloadModelRequest, context: grpc.ServicerContext
    ) -> models_pb2.UnloadModelResponse:
        with self._waiting():
            return models_pb2.UnloadModelResponse(missed_nodes=self._worker.unload(request.name))

    @guarded
    def ListLoads(  # noqa: N802 - the name is the contract's
        self, request: models_pb2.ListLoadsRequest, context: grpc.ServicerContext
    ) -> models_pb2.ListLoadsResponse:
        return models_pb2.ListLoadsResponse(loads=self._worker.standings())

    @contextmanager
    def _waiting(self) -> Iterator[None]:
        """Be one of those that wait for an end. Raises: ResourceError: too many do."""
        if not self._waiters.acquire(blocking=False):
            raise ResourceError(f"{MOST_WATCHERS} commands wait for a load or an unload to end; ask again in a moment")
        try:
            yield
        finally:
            self._waiters.release()

    def _watch(self, load: LoadUnderWay, context: grpc.ServicerContext) -> Iterator[models_pb2.LoadModelResponse]:
        context.add_callback(load.wake)
        if not self._watchers.acquire(blocking=False):
            abort_with(context, ResourceError(f"{load.name} is being loaded, and {MOST_WATCHERS} commands watch it "
                                              "already; it goes on"))  # fmt: skip
        try:
            yield from load.watch(context.is_active)
        except Exception as error:  # noqa: BLE001 - the edge of an RPC; abort_with logs what is not ours
            abort_with(context, error)
        finally:
            self._watchers.release()
