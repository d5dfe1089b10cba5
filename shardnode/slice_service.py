"""The node's gRPC face for slices: who may send them, and messages in and out.

Covers: SliceService. Does not cover: files (slice_store.py), opening a slice (serving.py).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import grpc

from common.errors import InputError, SliceMismatch
from common.rpc import guarded
from protos.shardmesh.v1 import slices_pb2, slices_pb2_grpc
from shardnode.serving import Serving
from shardnode.slice_store import SliceStore


class SliceServicer(slices_pb2_grpc.SliceServiceServicer):
    """Receives slices and serves what it is told to."""

    def __init__(
        self, store: SliceStore | None, serving: Serving, check_caller: Callable[[grpc.ServicerContext], None]
    ) -> None:
        """Args: store: None: this node keeps no slices; check_caller: raises NotTrusted for who may not ask."""
        self._given_store, self._serving, self._check_caller = store, serving, check_caller

    @guarded
    def ListSlices(  # noqa: N802 - the name is the contract's
        self, request: slices_pb2.ListSlicesRequest, context: grpc.ServicerContext
    ) -> slices_pb2.ListSlicesResponse:
        store = self._store(context)
        return slices_pb2.ListSlicesResponse(
            slices=[
                slices_pb2.HeldSlice(slice_id=held.slice_id, byte_count=held.byte_count, is_whole=held.is_whole)
                for held in store.held()
            ],
            served_slice_id=self._serving.slice_id, free_bytes=store.free_bytes, trouble=self._serving.trouble,
        )  # fmt: skip

    @guarded
    def OfferSlice(  # noqa: N802 - the name is the contract's
        self, request: slices_pb2.OfferSliceRequest, context: grpc.ServicerContext
    ) -> slices_pb2.OfferSliceResponse:
        offer = self._serving.offer(self._store(context), request.description, verify=request.verify)
        response = slices_pb2.OfferSliceResponse(slice_id=offer.slice_id, is_whole=offer.is_whole)
        for name, arrived in offer.files.items():
            file = response.files.add(name=name, byte_count=arrived.byte_count)
            if arrived.digests is not None:
                file.digests.sha256 = arrived.digests.sha256
                file.digests.tile_sha256.extend(arrived.digests.tile_sha256)
        return response

    @guarded
    def SendFile(  # noqa: N802 - the name is the contract's
        self, request_iterator: Iterator[slices_pb2.SendFileRequest], context: grpc.ServicerContext
    ) -> slices_pb2.SendFileResponse:
        store = self._store(context)
        first = next(request_iterator, None)
        if first is None or first.WhichOneof("part") != "start":
            raise InputError("a file begins with its name")
        file = store.receive(first.start.slice_id, first.start.name, first.start.first_byte)
        try:
            for request in request_iterator:
                part = request.WhichOneof("part")
                if part == "chunk":
                    file.write(request.chunk)
                elif part == "end":
                    file.finish(request.end.sha256, request.end.tile_sha256)
                    return slices_pb2.SendFileResponse()
                else:
                    raise InputError("after its name a file has bytes, then an end")
        finally:
            file.close()
        raise InputError("the file ended without its digests")

    @guarded
    def PublishSlice(  # noqa: N802 - the name is the contract's
        self, request: slices_pb2.PublishSliceRequest, context: grpc.ServicerContext
    ) -> slices_pb2.PublishSliceResponse:
        self._store(context).publish(request.slice_id)
        return slices_pb2.PublishSliceResponse()

    @guarded
    def ServeSlice(  # noqa: N802 - the name is the contract's
        self, request: slices_pb2.ServeSliceRequest, context: grpc.ServicerContext
    ) -> slices_pb2.ServeSliceResponse:
        self._serving.serve(self._store(context), request.slice_id)
        return slices_pb2.ServeSliceResponse()

    @guarded
    def RemoveSlice(  # noqa: N802 - the name is the contract's
        self, request: slices_pb2.RemoveSliceRequest, context: grpc.ServicerContext
    ) -> slices_pb2.RemoveSliceResponse:
        store = self._store(context)
        self._serving.remove(store, request.slice_id)
        return slices_pb2.RemoveSliceResponse(free_bytes=store.free_bytes)

    def _store(self, context: grpc.ServicerContext) -> SliceStore:
        """Return the store, for who may use it. Raises: NotTrusted; SliceMismatch: this node keeps none."""
        self._check_caller(context)
        if self._given_store is None:
            raise SliceMismatch("this node serves the directory that it was told at start (--slice-dir) and takes no "
                                "slices; start it without, as a member of a mesh")  # fmt: skip
        return self._given_store
