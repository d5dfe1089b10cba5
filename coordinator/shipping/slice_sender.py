"""One slice to one node: what the node lacks is cut from the checkpoint and sent, through every break of the link.

Covers: going on where the last transfer stopped, sending a file again that has arrived damaged, giving up.
Does not cover: several nodes (shipment.py), the receiving end (shardnode/slices/slice_store.py).

Nothing is kept on this side: a file of which half has arrived is cut again from its start, which costs processor time
but no bytes on the link, and its SHA-256 comes out of that.
"""

from __future__ import annotations

import hashlib
import json
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import grpc

from common.errors import NodeError, NodeLost, ProtocolError, ShardmeshError, SliceCorrupt
from common.weights.slice_description import SliceDescription
from common.weights.slice_format import BLOCK_KINDS, FileLayout, block_file_name
from common.wire.reaching import wait_until_reached
from common.wire.rpc import failures_of
from coordinator.shipping.block_feed import BlockFeed
from coordinator.slicing.tiles import BlockTiles, TilePacker
from protos.shardmesh.v1 import slices_pb2, slices_pb2_grpc

CHUNK_BYTES = 1 << 18
"""What a cut link costs at most. 1 MiB is the fastest message of gRPC in Python, 2.1 GiB/s, and this gives half: ten
times what the links of a home carry."""
REACH_SECONDS, CALL_SECONDS = 2.0, 30.0
LEAST_BYTES_PER_SECOND = 20_000
"""A link slower than this is taken for a dead one."""
DAMAGED_LIMIT = 3
"""Times that one file may arrive damaged before it is a fault and no accident."""
PAUSE_SECONDS = (0.2, 2.0)
"""Between two attempts to reach a node: the first one, and the longest."""

Connect = Callable[[], grpc.Channel]
"""Returns a channel to the node, wherever it is at the moment. Raises: NodeLost: the mesh does not hear it."""


@dataclass(kw_only=True)
class Transferred:
    """How far one slice is, in bytes."""

    total_bytes: int
    arrived_bytes: int = 0
    sent_bytes: int = 0
    """Of files, by us, those sent twice included."""


class SliceSender:
    """Sends one slice. Not safe for several threads, but for `progress`."""

    def __init__(
        self, name: str, description: SliceDescription, connect: Connect, feed: BlockFeed, stopping: threading.Event
    ) -> None:
        self.name = name
        self.description = description
        self._connect, self._feed, self._stopping = connect, feed, stopping
        self._layouts = description.layouts()
        self.progress = Transferred(total_bytes=sum(layout.file_bytes for layout in self._layouts.values()))

    def is_there(self, *, verify: bool = False) -> bool:
        """Ask the node whether it has the whole slice. Raises: DiskFull: no room for the rest; NodeError."""
        channel = self._connect()
        try:
            return self._offer(channel, verify=verify).is_whole
        finally:
            channel.close()

    def send(self, patience_seconds: float) -> None:
        """Send what the node lacks, and make the slice whole there.

        Args: patience_seconds: how long nothing may arrive before it gives up.
        Raises: DiskFull, SliceError, NodeError: the node named; CheckpointError: the source cannot be read.
        """
        rank = self.description.rank
        last_arrival, arrived_bytes, pause = time.monotonic(), -1, PAUSE_SECONDS[0]
        try:
            while True:
                try:
                    self._send_over_one_link()
                    return
                except (NodeError, ProtocolError) as error:
                    self._feed.leave(rank)
                    if self.progress.arrived_bytes > arrived_bytes:
                        last_arrival, pause = time.monotonic(), PAUSE_SECONDS[0]
                    arrived_bytes = self.progress.arrived_bytes
                    if time.monotonic() - last_arrival > patience_seconds or self._stopping.is_set():
                        raise NodeLost(f"{error}; {self.progress.arrived_bytes / 1e6:.0f} of "
                                       f"{self.progress.total_bytes / 1e6:.0f} MB have arrived and stay: load again, "
                                       "and it goes on from there") from error  # fmt: skip
                    self._stopping.wait(pause)
                    pause = min(2 * pause, PAUSE_SECONDS[1])
        finally:
            self._feed.leave(rank)

    def _send_over_one_link(self) -> None:
        channel = self._connect()
        try:
            offer = self._offer(channel)
            if offer.is_whole:
                return
            arrived = {file.name: file for file in offer.files}
            for layer in range(self.description.spec.layer_count):
                for kind in BLOCK_KINDS:
                    name = block_file_name(layer, kind)
                    if name in self._layouts and not arrived.get(name, slices_pb2.ArrivedFile()).digests.sha256:
                        self._send_file(channel, name, layer, kind, arrived.get(name, slices_pb2.ArrivedFile()))
            stub = slices_pb2_grpc.SliceServiceStub(channel)
            request = slices_pb2.PublishSliceRequest(slice_id=self.description.slice_id)
            with failures_of(self.name):
                stub.PublishSlice(request, timeout=CALL_SECONDS)
        finally:
            channel.close()

    def _offer(self, channel: grpc.Channel, *, verify: bool = False) -> slices_pb2.OfferSliceResponse:
        request = slices_pb2.OfferSliceRequest(
            description=json.dumps(self.description.to_json()).encode(), verify=verify
        )
        wait_until_reached(channel, REACH_SECONDS, f"{self.name} is not reachable; is its shardnode running?")
        stub = slices_pb2_grpc.SliceServiceStub(channel)
        with failures_of(self.name):
            offer: slices_pb2.OfferSliceResponse = stub.OfferSlice(request, timeout=CALL_SECONDS)
        if offer.slice_id != self.description.slice_id:
            raise ProtocolError(f"{self.name} calls the slice by another name; install the same shardmesh on both")
        arrived_bytes = self.progress.total_bytes
        if not offer.is_whole:
            arrived_bytes = sum(file.byte_count for file in offer.files)
        self.progress.arrived_bytes = arrived_bytes
        return offer

    def _send_file(
        self, channel: grpc.Channel, name: str, layer: int, kind: str, arrived: slices_pb2.ArrivedFile
    ) -> None:
        first_byte = arrived.byte_count
        before_bytes = self.progress.arrived_bytes - first_byte
        layout = self._layouts[name]
        for attempt in range(DAMAGED_LIMIT):
            block = self._feed.take(self.description.rank, layer, kind)
            sending = _FileSending(self, name, layout, block, first_byte)
            limit = CALL_SECONDS + layout.file_bytes / LEAST_BYTES_PER_SECOND
            stub = slices_pb2_grpc.SliceServiceStub(channel)
            try:
                with failures_of(self.name):
                    stub.SendFile(iter(sending), timeout=limit)
                return
            except SliceCorrupt:
                if attempt + 1 == DAMAGED_LIMIT:
                    raise
                first_byte = 0
                self.progress.arrived_bytes = before_bytes
            except ShardmeshError:
                if sending.failure is not None:
                    raise sending.failure from None
                raise

    @property
    def is_stopping(self) -> bool:
        """Whether the whole shipment ends."""
        return self._stopping.is_set()


class _FileSending:
    """The messages of one file, made in gRPC's thread as the link takes them."""

    def __init__(
        self, sender: SliceSender, name: str, layout: FileLayout, block: BlockTiles, first_byte: int
    ) -> None:  # fmt: skip
        self._sender, self._name, self._layout, self._block = sender, name, layout, block
        self._first_byte = first_byte
        self.failure: Exception | None = None
        """What went wrong on this side: gRPC would log it and tell nobody."""

    def __iter__(self) -> Iterator[slices_pb2.SendFileRequest]:
        try:
            yield from self._messages()
        except ShardmeshError as error:
            self.failure = error

    def _messages(self) -> Iterator[slices_pb2.SendFileRequest]:
        slice_id = self._sender.description.slice_id
        yield slices_pb2.SendFileRequest(
            start=slices_pb2.FileStart(slice_id=slice_id, name=self._name, first_byte=self._first_byte)
        )
        digests = slices_pb2.FileDigests()
        whole = hashlib.sha256()
        position = 0
        for is_tile, data in self._parts():
            whole.update(data)
            if is_tile:
                digests.tile_sha256.append(hashlib.sha256(data).hexdigest())
            start = max(0, self._first_byte - position)
            for offset in range(start, len(data), CHUNK_BYTES):
                if self._sender.is_stopping:
                    return
                chunk = bytes(data[offset : offset + CHUNK_BYTES])
                yield slices_pb2.SendFileRequest(chunk=chunk)
                self._sender.progress.sent_bytes += len(chunk)
                self._sender.progress.arrived_bytes += len(chunk)
            position += len(data)
        digests.sha256 = whole.hexdigest()
        yield slices_pb2.SendFileRequest(end=digests)

    def _parts(self) -> Iterator[tuple[bool, memoryview]]:
        """Yield the file's header, then its tiles; each is good until the next."""
        packer = TilePacker()
        yield False, memoryview(self._layout.header)
        for tile in self._layout.tiles:
            yield True, packer.pack(tile, self._block.tile(tile))
