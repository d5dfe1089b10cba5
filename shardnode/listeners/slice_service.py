"""The node's gRPC face for slices: who may send them, and messages in and out.

Covers: SliceService. Does not cover: files (slices/slice_store.py), opening a slice (slices/serving.py).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import grpc

from common.errors import InputError
from common.weights.slice_format import FORMAT_VERSIONS
from common.wire.rpc import guarded
from protos.shardmesh.v1 import slices_pb2, slices_pb2_grpc
from shardnode.slices.serving import Serving


class SliceServicer(slices_pb2_grpc.SliceServiceServicer):
    """Receives slices and serves what it is told to."""

    def __init__(self, serving: Serving, check_caller: Callable[[grpc.ServicerContext], None]) -> None:
        """Args: check_caller: raises NotTrusted for who may not ask."""
        self._serving, self._check_caller = serving, check_caller

    @guarded
    def ListSlices(  # noqa: N802 - the name is the contract's
        self, request: slices_pb2.ListSlicesRequest, context: grpc.ServicerContext
    ) -> slices_pb2.ListSlicesResponse:
        self._check_caller(context)
        store = self._serving.store
        return slices_pb2.ListSlicesResponse(
            slices=[
                slices_pb2.HeldSlice(slice_id=held.slice_id, byte_count=held.byte_count, is_whole=held.is_whole)
                for held in store.held()
            ],
            served_slice_id=self._serving.slice_id, free_bytes=store.free_bytes, trouble=self._serving.trouble,
            slice_format=max(FORMAT_VERSIONS),
            kept_tiles=[
                slices_pb2.KeptTiles(model_identity=model, byte_count=byte_count)
                for model, byte_count in (store.kept_tiles() if request.with_kept_tiles else {}).items()
            ],
        )  # fmt: skip

    @guarded
    def OfferSlice(  # noqa: N802 - the name is the contract's
        self, request: slices_pb2.OfferSliceRequest, context: grpc.ServicerContext
    ) -> slices_pb2.OfferSliceResponse:
        self._check_caller(context)
        offer = self._serving.offer(request.description, verify=request.verify)
        response = slices_pb2.OfferSliceResponse(slice_id=offer.slice_id, is_whole=offer.is_whole)
        for name, arrived in offer.files.items():
            file = response.files.add(name=name, byte_count=arrived.byte_count)
            if arrived.digests is not None:
                file.digests.sha256 = arrived.digests.sha256
                file.digests.tile_sha256.extend(arrived.digests.tile_sha256)
        for pack in offer.packs:
            response.packs.add(name=pack.name, byte_count=pack.byte_count, tiles=pack.tiles)
        return response

    @guarded
    def SendFile(  # noqa: N802 - the name is the contract's
        self, request_iterator: Iterator[slices_pb2.SendFileRequest], context: grpc.ServicerContext
    ) -> slices_pb2.SendFileResponse:
        self._check_caller(context)
        store = self._serving.store
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
        self._check_caller(context)
        self._serving.store.publish(request.slice_id)
        return slices_pb2.PublishSliceResponse()

    @guarded
    def ServeSlice(  # noqa: N802 - the name is the contract's
        self, request: slices_pb2.ServeSliceRequest, context: grpc.ServicerContext
    ) -> slices_pb2.ServeSliceResponse:
        self._check_caller(context)
        self._serving.serve(request.slice_id)
        return slices_pb2.ServeSliceResponse()

    @guarded
    def RemoveSlice(  # noqa: N802 - the name is the contract's
        self, request: slices_pb2.RemoveSliceRequest, context: grpc.ServicerContext
    ) -> slices_pb2.RemoveSliceResponse:
        self._check_caller(context)
        if request.model_identity and not request.slice_id:
            self._serving.store.remove_kept(request.model_identity)
        else:
            self._serving.remove(request.slice_id, keep_tiles=request.keep_tiles)
        return slices_pb2.RemoveSliceResponse(free_bytes=self._serving.store.free_bytes)
